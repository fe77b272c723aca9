"""Exported networks compute what the trained one does, and predictions are those of its images."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from nas_lightning.classifier import CellClassifier
from nas_lightning.cli.main import main
from nas_lightning.datamodules import Synthetic
from nas_lightning.networks import CellNetwork, load_reference_weights
from nas_lightning.networks.weight_files import read_weight_file
from tests.cli.commands import TINY, read_checkpoint, refusal


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network with a tower and with what is dead, trained for an epoch."""
    folder = tmp_path_factory.mktemp("run")
    sizes = [one for one in TINY if "image_size" not in one]
    main(
        [
            *(
                "fit",
                *sizes,
                "--data.image_size=32",
                "--trainer.max_epochs=1",
                "--model.auxiliary_weight=0.4",
            ),
            *(
                "--model.genotype=amoebanet:connections=3",
                "--run=run",
                f"--trainer.default_root_dir={folder}",
            ),
        ]
    )
    return folder / "synthetic" / "run"


def trained(run: Path) -> CellNetwork:
    path = run / "checkpoints" / "last.ckpt"
    return CellClassifier.load_from_checkpoint(path, map_location="cpu").network.eval()


def images(count: int) -> Tensor:
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(count))


@pytest.mark.slow
@torch.no_grad()
def test_onnx(run: Path, tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    main(["export", str(run), "-o", str(tmp_path / "a.onnx")])
    session = runtime.InferenceSession(str(tmp_path / "a.onnx"), providers=["CPUExecutionProvider"])
    for count in (1, 5):
        (logits,) = session.run(["logits"], {"images": images(count).numpy()})
        np.testing.assert_allclose(logits, trained(run)(images(count)).numpy(), rtol=1e-5, atol=1e-5)
    described = session.get_modelmeta().custom_metadata_map
    assert json.loads(described["mean"]) == [0.5, 0.5, 0.5]
    assert json.loads(described["image_size"]) == 32


_ALONE = """
import sys, torch
sys.modules["nas_lightning"] = None
program = torch.export.load("a.pt2").module()
for count in (1, 5):
    torch.save(program(torch.load(f"{count}.pt")), f"logits{count}.pt")
"""


@pytest.mark.slow
@torch.no_grad()
def test_a_program_needs_no_package_of_ours(run: Path, tmp_path: Path) -> None:
    main(["export", str(run / "checkpoints" / "last.ckpt"), "-o", str(tmp_path / "a.pt2")])
    for count in (1, 5):
        torch.save(images(count), tmp_path / f"{count}.pt")
    subprocess.run([sys.executable, "-c", _ALONE], cwd=tmp_path, check=True, timeout=240)
    for count in (1, 5):
        logits = torch.load(tmp_path / f"logits{count}.pt")
        torch.testing.assert_close(logits, trained(run)(images(count)), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_safetensors_are_reference_weights(run: Path, tmp_path: Path) -> None:
    main(["export", str(run), "-o", str(tmp_path / "a.safetensors")])
    found = read_weight_file(tmp_path / "a.safetensors")
    assert "cells.0.preprocess0.op.1.weight" in found.content
    network = CellNetwork(trained(run).genotype, 10, 4, 3)
    load_reference_weights(network, found.content, ordered=found.ordered)
    torch.testing.assert_close(network.eval()(images(3)), trained(run)(images(3)))


def test_what_cannot_be_exported(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "must end in one of .onnx" in refusal(["export", str(run), "-o", "a.txt"], capsys)
    assert "holds no checkpoints/last.ckpt" in refusal(["export", str(tmp_path), "-o", "a.pt2"], capsys)
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    line = refusal(["export", str(run), "-o", str(tmp_path / "a.onnx")], capsys)
    assert line.endswith("needs the package onnxscript: pip install 'nas-lightning[export]'")


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


@torch.no_grad()
def test_predictions_of_a_split(run: Path, tmp_path: Path) -> None:
    file = tmp_path / "test.csv"
    main(["predict", "--split=test", "--ckpt_path", str(run), "-o", str(file), "--batch_size=10"])
    data = Synthetic(image_size=32, train_size=48, test_size=37, num_classes=10, batch_size=16)
    data.setup()
    inputs, targets = data.split_arrays("test")
    expected = trained(run)(data.normalise(inputs)).softmax(1)
    found = rows(file)
    assert [int(row["index"]) for row in found] == list(range(37))
    assert [int(row["target"]) for row in found] == targets.tolist()
    assert [int(row["class"]) for row in found] == expected.argmax(1).tolist()
    assert [row["name"] for row in found] == [row["class"] for row in found]
    shares = torch.tensor([[float(row[f"probability_{name}"]) for name in range(10)] for row in found])
    torch.testing.assert_close(shares, expected, rtol=1e-4, atol=1e-5)


def test_predictions_of_image_files(run: Path, tmp_path: Path) -> None:
    data = Synthetic(image_size=32, train_size=48, test_size=37, num_classes=10, batch_size=16)
    data.setup()
    inputs, _ = data.split_arrays("test")
    (tmp_path / "images" / "deep").mkdir(parents=True)
    for number, image in enumerate(inputs[:5]):
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(tmp_path / "images" / "deep" / f"{number}.png")
    (tmp_path / "images" / "notes.txt").write_text("no image")
    Image.new("L", (50, 40)).save(tmp_path / "grey.png")
    some = [str(tmp_path / "images"), str(tmp_path / "grey.png")]
    main(["predict", str(run), *some, "-o", str(tmp_path / "images.csv")])
    main(["predict", str(run), "--split=test", "-o", str(tmp_path / "split.csv")])
    found, split = rows(tmp_path / "images.csv"), rows(tmp_path / "split.csv")
    assert [Path(row["file"]).name for row in found] == [*(f"{n}.png" for n in range(5)), "grey.png"]
    for row, other in zip(found[:5], split, strict=False):
        assert row["class"] == other["class"]
        assert float(row["probability_3"]) == pytest.approx(float(other["probability_3"]), rel=1e-4)


def with_record(run: Path, path: Path, **changes: Any) -> Path:
    """A copy of the run's checkpoint in which some of what it says of its images is something else."""
    checkpoint = read_checkpoint(run / "checkpoints" / "last.ckpt")
    checkpoint["images"] |= changes
    checkpoint["datamodule_hyper_parameters"] = {"_class_path": "gone.Data"}
    checkpoint["own_code"] = {"gone": "/gone/gone.py"}
    torch.save(checkpoint, path)
    return path


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """Images of several sizes."""
    folder = tmp_path / "photographs"
    folder.mkdir()
    draws = np.random.default_rng(0)
    for number, (height, width) in enumerate([(32, 32), (20, 40), (65, 33), (32, 32)]):
        values = draws.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(values).save(folder / f"{number}.png")
    return folder


def test_all_forms_and_python_say_the_same(
    run: Path, photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the checkpoint says of its images is enough: its data are gone."""
    names = [f"kind {number}" for number in range(9)] + ['comma, "and"\nline']
    path = with_record(run, tmp_path / "a.ckpt", mean=[0.2, 0.3, 0.4], std=[0.4, 0.5, 0.6], class_names=names)
    found, shares = CellClassifier.load_from_checkpoint(path).classify(photographs)
    for output in ("a.csv", "a.json", "a.txt"):
        main(["predict", str(path), "-o", str(tmp_path / output), str(photographs), "--batch_size=3"])
    objects = json.loads((tmp_path / "a.json").read_text())
    assert [Path(one["file"]).name for one in objects] == [f"{number}.png" for number in range(4)]
    assert [one["name"] for one in objects] == found == [names[one["class"]] for one in objects]
    assert all(list(one["probabilities"]) == names for one in objects)
    probabilities = torch.tensor([list(one["probabilities"].values()) for one in objects])
    torch.testing.assert_close(probabilities, shares, rtol=1e-5, atol=1e-6)
    assert [one["probability"] for one in objects] == [max(one["probabilities"].values()) for one in objects]
    for row, one in zip(rows(tmp_path / "a.csv"), objects, strict=True):
        assert [row["file"], int(row["class"]), row["name"]] == [one["file"], one["class"], one["name"]]
        assert float(row["probability"]) == one["probability"]
        assert {name: float(row[f"probability_{name}"]) for name in names} == one["probabilities"]
    assert (tmp_path / "a.txt").read_text() == (tmp_path / "a.csv").read_text()
    capsys.readouterr()
    main(["predict", str(path), str(photographs), "-o", "-", "--format=json"])
    assert json.loads(capsys.readouterr().out) == objects
    main(["predict", str(path), str(photographs)])
    table = capsys.readouterr().out.splitlines()
    assert table[0].split() == ["file", "name", "probability"]
    assert table[2].startswith(objects[0]["file"])
    assert table[2].endswith(f"{objects[0]['probability']:.3f}")


def test_a_folder_s_network_knows_its_classes_when_the_folder_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    draws = np.random.default_rng(0)
    for name in ("train/dog", "train/cat", "test/dog", "test/cat"):
        Path("pets", name).mkdir(parents=True)
        for number in range(4):
            values = draws.integers(0, 256, (20, 20, 3), dtype=np.uint8)
            Image.fromarray(values).save(f"pets/{name}/{number}.png")
    sizes = [one for one in TINY if "data" not in one]
    data = ["--data=ImageFolder", "--data.root=pets", "--data.batch_size=4", "--data.image_size=16"]
    main(["fit", *sizes, *data, "--trainer.max_epochs=1", "--run=r", "--experiment=e"])
    last = "tb_logs/e/r/checkpoints/last.ckpt"
    main(["validate", f"--ckpt_path={last}", "--trainer.accelerator=cpu"])
    main(["predict", last, "--split=test", "-o", "split.csv"])
    Path("pets").rename("moved")
    main(["predict", last, "moved/test", "-o", "files.csv"])
    split, files = rows(Path("split.csv")), rows(Path("files.csv"))
    assert [row["file"] for row in files][3:5] == ["moved/test/cat/3.png", "moved/test/dog/0.png"]
    assert {row["name"] for row in files} <= {"cat", "dog"}
    for row, other in zip(split, files, strict=True):
        assert ("cat", "dog")[int(row["target"])] in other["file"]
        for key in ("name", "probability_cat", "probability_dog"):
            assert row[key] == other[key]
    line = refusal(["predict", last, "--split=test"], capsys)
    assert line == "`data.root` (=pets): no such folder"
    main(["predict", last, "--split=test", "--root=moved", "-o", "moved.csv"])
    assert rows(Path("moved.csv")) == split
    for part in ("train", "test"):
        shutil.copytree(f"moved/{part}/cat", f"moved/{part}/ape")
    line = refusal(["predict", last, "--split=test", "--root=moved"], capsys)
    assert (
        line == "`data.root` (=moved) holds the classes ape, cat, dog; the checkpoint was trained on cat, dog"
    )


@torch.no_grad()
def test_a_data_set_that_normalises_in_its_own_way_is_asked(
    run: Path, photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = read_checkpoint(run / "checkpoints" / "last.ckpt")
    del checkpoint["images"]
    checkpoint["datamodule_hyper_parameters"] |= {"_class_path": f"{__name__}.Doubled"}
    torch.save(checkpoint, tmp_path / "a.ckpt")
    main(["predict", str(tmp_path / "a.ckpt"), str(photographs), "-o", str(tmp_path / "a.json")])
    image = torch.from_numpy(np.array(Image.open(photographs / "0.png"))).permute(2, 0, 1)
    expected = trained(run)((image / 255 * 2)[None]).softmax(1)[0].tolist()
    found = json.loads((tmp_path / "a.json").read_text())[0]["probabilities"]
    assert list(found.values()) == pytest.approx(expected, rel=1e-4)
    checkpoint["datamodule_hyper_parameters"] = None
    torch.save(checkpoint, tmp_path / "a.ckpt")
    line = refusal(["predict", str(tmp_path / "a.ckpt"), str(photographs)], capsys)
    assert line.endswith("a.ckpt does not say how its images were normalised")


class Doubled(Synthetic):
    def normalise(self, images: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        return images.to(dtype) / 255 * 2


def test_images_that_cannot_be_read_are_named_at_once_or_left_out(
    run: Path, photographs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photographs / "1a.png").write_text("no image")
    (photographs / "2a.jpg").touch()
    output = tmp_path / "a.csv"
    broken = (
        f"2 of 6 images cannot be read{{}}\n  {photographs}/1a.png: no image\n  {photographs}/2a.jpg: empty\n"
    )
    with pytest.raises(SystemExit):
        main(["predict", str(run), str(photographs), "-o", str(output)])
    said = broken.format("; `--skip_unreadable` leaves them out")
    assert capsys.readouterr().err.endswith(f"nas-lightning: error: `images`: {said}")
    assert not output.exists()
    line = refusal(["predict", str(tmp_path), __file__], capsys)
    assert line == f"{tmp_path} holds no checkpoints/last.ckpt"
    image = tmp_path / "a.png"
    Image.new("RGB", (8, 8)).save(image)
    before = image.read_bytes()
    os.mkfifo(tmp_path / "pipe")
    for place, message in [
        (image, f"`output` (={image}) must be a file such as a.csv or a.json"),
        (run / "config.yaml", "is a file already, and no table: choose another name"),
        (tmp_path, f"`output` (={tmp_path}) must be a file such as"),
        (tmp_path / "pipe", "must be a file such as pipe.csv"),
        (image / "a.csv", f"cannot write a.csv in {image}: {image} is not a writable folder"),
    ]:
        assert message in refusal(["predict", str(run), str(image), "-o", str(place)], capsys)
    assert image.read_bytes() == before
    damaged = with_record(run, tmp_path / "odd.ckpt", std=[0, 1, 1])
    line = refusal(["predict", str(damaged), str(image)], capsys)
    assert line.startswith(f"{damaged}: the checkpoint's `images`: `std` (=[0, 1, 1]) must be three finite")
