"""The checkpoints along a run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from nas_lightning.callbacks.run_path import read_run_path
from nas_lightning.torch_files import write_torch_file


def write(folder: Path, name: str, step: int, epoch: int, **entries: Any) -> None:
    content = {"state_dict": {}, "global_step": step, "epoch": epoch, "genotype": "a cell", **entries}
    write_torch_file(folder / "checkpoints" / name, content)


def test_checkpoints_are_in_the_order_of_their_steps(tmp_path: Path) -> None:
    for name, step, epoch in (
        ("start.ckpt", 0, 0),
        ("epoch0010.ckpt", 110, 10),
        ("epoch0002.ckpt", 30, 2),
        ("last.ckpt", 120, 11),
        ("best.ckpt", 70, 6),
    ):
        write(tmp_path, name, step, epoch)
    found = read_run_path(tmp_path, "epoch*.ckpt")
    assert [(point.step, point.epochs) for point in found.points] == [(0, 0.0), (30, 3.0), (110, 11.0)]
    assert [point.step for point in read_run_path(tmp_path, "epoch*.ckpt", before=110).points] == [0, 30]
    whole = read_run_path(tmp_path, "epoch*.ckpt", 2, with_last=True)
    assert [point.step for point in whole.points] == [0, 30, 110, 120]
    assert {point.run for point in whole.points} == {2}


def test_a_folder_without_checkpoints_and_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=re.escape("holds no start.ckpt and no epoch*.ckpt")):
        read_run_path(tmp_path, "epoch*.ckpt")
    write_torch_file(tmp_path / "checkpoints" / "epoch0.ckpt", {"state_dict": {}})
    with pytest.raises(ValueError, match=r"epoch0.ckpt is no checkpoint of a training: .*`global_step`"):
        read_run_path(tmp_path, "epoch*.ckpt")
