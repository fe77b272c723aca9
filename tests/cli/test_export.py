"""Exported networks compute what the trained one does, and predictions are those of its images."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from nas_lightning.classifier import CellClassifier
from nas_lightning.cli.main import main
from nas_lightning.cli.predict import read_image
from nas_lightning.datamodules import Synthetic
from nas_lightning.networks import CellNetwork, load_reference_weights
from nas_lightning.networks.weight_files import read_weight_file
from tests.cli.commands import TINY, refusal


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
    assert "is not a file" in refusal(["export", str(tmp_path), "-o", "a.pt2"], capsys)
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


def test_deep_images_keep_their_grey_values(tmp_path: Path) -> None:
    values = np.arange(16, dtype=np.uint16).reshape(4, 4) * 4096 + 255
    path = tmp_path / "deep.png"
    for suffix in (".png", ".tif"):
        path = tmp_path / f"deep{suffix}"
        Image.fromarray(values).save(path)
        assert read_image(path, 4).tolist() == [(values >> 8).tolist()] * 3
    for kind in (np.float32, np.int32):
        path = tmp_path / "range.tif"
        Image.fromarray(values.astype(kind)).save(path)
        with pytest.raises(
            ValueError, match=r"its values have 32 bits, and no range: save it with 8 or 16 bits\Z"
        ):
            read_image(path, 4)


def test_names_that_are_no_text_and_hidden_files(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    odd = folder / os.fsdecode(b"a\xff.png")
    for name in (odd, folder / ".hidden.png"):
        Image.new("RGB", (8, 8)).save(name)
    (folder / "folder.png").mkdir()
    main(["predict", str(run), str(folder), "-o", str(tmp_path / "a.csv")])
    assert [row["file"] for row in rows(tmp_path / "a.csv")] == [f"{folder}/a\\udcff.png"]


def test_what_cannot_be_predicted(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "a.csv"
    for arguments, message in [
        ([], "`images` or `--split`"),
        ([str(tmp_path), "--split=test"], "`images` or `--split`"),
        ([str(tmp_path)], "holds no image"),
        (["missing.png"], "neither a file nor a folder"),
        ([__file__], "is no image that can be read"),
        (["--split=val"], "was trained without such a split"),
    ]:
        assert message in refusal(["predict", str(run), *arguments, "-o", str(output)], capsys)
    assert not output.exists()
