"""`nas-lightning landscape --between A.ckpt B.ckpt`: the straight lines between checkpoints."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from nas_lightning.analysis import InterpolationSurface, barrier_scalars
from nas_lightning.cli.between import between_files, check_alike
from nas_lightning.cli.main import main
from nas_lightning.torch_files import read_torch_file, write_torch_file
from tests.cli.commands import read_events, refusal
from tests.curves import write_end

DATA = {
    "_class_path": "nas_lightning.datamodules.Synthetic",
    **{"image_size": 16, "train_size": 24, "test_size": 13, "num_classes": 10, "batch_size": 8, "seed": 0},
}
SETTINGS = ("--trainer.accelerator=cpu", "--trainer.callbacks.Interpolation.resolution=3")


def run_of(root: Path, name: str, seed: int, *, data: dict[str, Any] | None = None, **settings: Any) -> Path:
    """The last checkpoint of a run, after its third epoch."""
    path = root / "synthetic" / name / "checkpoints" / "last.ckpt"
    path.parent.mkdir(parents=True)
    content = {"datamodule_hyper_parameters": DATA | (data or {}), "epoch": 2, "global_step": 9}
    write_end(path, seed, content | {"pytorch-lightning_version": "2.6.6"}, **settings)
    return path


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Checkpoints of three runs, of other seeds and batch sizes."""
    root = tmp_path_factory.mktemp("runs")
    return [
        run_of(root, f"run{seed}", seed, data={"batch_size": 8 + seed, "seed": seed}) for seed in range(3)
    ]


def test_the_lines_between_all_pairs_are_measured_and_said(
    runs: list[Path], capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    folders = [str(path.parent.parent) for path in runs]
    main(["landscape", "--between", folders[0], str(runs[1]), folders[2], *SETTINGS])
    said = capsys.readouterr().out.splitlines()
    [path] = (runs[0].parent.parent / "landscape").glob("*.nc")
    assert path.name == "interpolation-run0-3-to-run1-3-to-run2-3.nc"
    line = InterpolationSurface.read(path)
    found = barrier_scalars(line)
    heights = found["test_barrier"].values
    [row] = [row for row in said if row.startswith("run0, after 3 epochs to run2") and " test " in row]
    assert row.split()[9:11] == ["test", f"{heights[1]:.4g}"]
    [mean] = [row for row in said if row.startswith("mean of 3 pairs") and " test " in row]
    assert mean.split()[5] == f"{heights.mean():.4g}"
    assert said[-3:] == [
        "result  3 lines measured",
        f"file    {path}",
        f"next    nas-lightning plot {path}",
    ]
    tags = read_events(runs[0].parent.parent).Tags()
    assert f"{path.stem}/interpolation" in tags["images"]
    assert f"{path.stem}/test_barrier" in tags["scalars"]
    before = path.read_bytes()
    unused = "--trainer.callbacks.Interpolation.start=best"
    main(["landscape", "--between", *map(str, runs), *SETTINGS, unused])  # nothing is left to measure
    assert "`between` names both ends: `start` (=best) is unused" in caplog.text
    assert path.read_bytes() == before


def test_checkpoints_that_have_no_line_between_them_are_refused(
    runs: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = str(runs[0])
    copy = tmp_path / "copy.ckpt"
    content = read_torch_file(runs[0])
    write_torch_file(copy, content | {"epoch": 5})
    broken = tmp_path / "broken.ckpt"
    broken.write_bytes(copy.read_bytes()[:20_000])
    larger = run_of(tmp_path, "larger", 0, init_channels=3)
    cells = run_of(tmp_path, "cells", 0, genotype="snas")
    images = run_of(tmp_path, "images", 0, data={"train_size": 32})
    digits = run_of(tmp_path, "digits", 0, data={"_class_path": "nas_lightning.datamodules.Digits"})
    foreign = tmp_path / "foreign.ckpt"
    torch.save({"state_dict": {}}, foreign)
    refused: list[tuple[list[str], str]] = [
        ([first], r"`between` \(=.*\) must be two checkpoints or more"),
        ([first, first], "twice: there is no line between them"),
        ([first, str(broken)], r"`between` \(=.*broken.ckpt\) is damaged"),
        ([first, str(tmp_path / "gone.ckpt")], r"`between` \(=.*gone.ckpt\) is not a file"),
        ([first, str(foreign)], "is not a checkpoint of a CellClassifier"),
        ([first, str(larger)], r"with `model.init_channels` 2, .*larger.* with 3"),
        ([first, str(cells)], "was trained with the genotype"),
        ([first, str(images)], r"with `data.train_size` 24, .*images.* with 32"),
        ([first, str(digits)], r"with the data nas_lightning.datamodules.Synthetic, .*Digits"),
    ]
    for paths, message in refused:
        with pytest.raises((ValueError, FileNotFoundError), match=message) as caught:
            check_alike(between_files(paths))
        assert "\n" not in str(caught.value)
    for arguments, message in (
        ([str(cells)], "was trained with the genotype"),
        ([str(copy)], "both ends of the line have the same weights"),
        ([str(runs[1]), f"--ckpt_path={first}"], "`between` .* and `ckpt_path` .* leave one out"),
        ([str(runs[1]), "--trainer.callbacks=LossLine"], "`between` needs the callback Interpolation"),
    ):
        said = refusal(["landscape", "--between", first, *arguments, "--trainer.accelerator=cpu"], capsys)
        assert re.search(message, said), said
    assert not list(tmp_path.rglob("*.nc"))
