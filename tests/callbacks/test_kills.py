"""An analysis that is killed while it measures ends, when run again, with the bytes of an unbroken one."""

from __future__ import annotations

import inspect
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint

from nas_lightning.callbacks import (
    BlockCurvature,
    CurvatureMap,
    Interpolation,
    LossLine,
    LossProfile,
    SpectralDensity,
    Trajectory,
)
from nas_lightning.netcdf import read_dataset
from nas_lightning.study.record import measured_otherwise
from nas_lightning.study.study import AnalysisFile
from tests.callbacks.cases import small_classifier, trained
from tests.forked import run_and_kill
from tests.study.run_files import planned_run

FEW: dict[str, Any] = {"max_samples": 10, "batch_size": 10}
CASES: dict[str, tuple[Callable[[], list[Callback]], int]] = {
    "loss_profile": (lambda: [LossProfile(resolution=6, direction_seeds=range(4), **FEW)], 2),
    "loss_line": (lambda: [LossLine(resolution=9, direction_seeds=range(3), **FEW)], 2),
    "interpolation": (lambda: [Interpolation(resolution=33, **FEW)], 2),
    "trajectory": (
        lambda: [every_epoch(), Trajectory(resolution=5, animation=False, **FEW)],
        2,
    ),
    "curvature_map": (lambda: [CurvatureMap(resolution=3, max_products=4, **FEW)], 3),
    "spectral_density": (
        lambda: [SpectralDensity(steps=4, start_vectors=3, lockstep=1, **FEW)],
        2,
    ),
    "block_curvature": (lambda: [BlockCurvature(max_products=4, **FEW)], 3),
}
"""For each kind of file the callbacks that make it, and after how many writes the process is killed.

The first write holds no point, and the last one, or two, nothing new.
"""


def every_epoch() -> ModelCheckpoint:
    """Weights after every epoch, the path of a trajectory."""
    return ModelCheckpoint(
        filename="epoch{epoch:04d}",
        auto_insert_metric_name=False,
        save_top_k=-1,
        save_weights_only=True,
        save_on_train_epoch_end=True,
        enable_version_counter=False,
    )


def run(make: Callable[[], list[Callback]], folder: Path) -> None:
    torch.manual_seed(0)
    classifier = small_classifier(init_channels=2, num_cells=2)
    trained(folder, *make(), classifier=classifier, enable_checkpointing=True)


def killed(make: Callable[[], list[Callback]], folder: Path, writes: int) -> None:
    """Run in a process that is killed when it has written so many files of analyses."""
    run_and_kill(lambda: run(make, folder), lambda path: path.suffix == ".nc", writes)


def settings_of(callback: Callback) -> dict[str, Any]:
    """All arguments of a callback, as the command line resolves them."""
    names = {name for cls in type(callback).__mro__ for name in inspect.signature(cls).parameters}
    known = {**vars(callback), **getattr(callback, "settings", {})}
    found = {name: known[name] for name in names if name in known}
    return {name: list(value) if isinstance(value, tuple) else value for name, value in found.items()}


def assert_as_planned(make: Callable[[], list[Callback]], kind: str, path: Path) -> None:
    """A study whose plan has these settings takes the file for the one that it planned."""
    [callback] = [one for one in make() if getattr(one, "kind", None) == kind]
    analysis = AnalysisFile(kind, {"init_args": settings_of(callback)})
    run = planned_run(path.parents[1], "run")
    assert measured_otherwise(run, analysis, read_dataset(path), path) is None


@pytest.mark.slow
@pytest.mark.parametrize("kind", CASES)
def test_a_killed_analysis_goes_on_to_the_bytes_of_an_unbroken_one(kind: str, tmp_path: Path) -> None:
    make, writes = CASES[kind]
    run(make, tmp_path / "unbroken")
    killed(make, tmp_path / "broken", writes)
    [path] = (tmp_path / "broken").rglob(f"{kind}-epoch0001.nc")
    expected = (tmp_path / "unbroken" / path.relative_to(tmp_path / "broken")).read_bytes()
    part = read_dataset(path)
    assert 0 < int(part["done"].sum()) < part["done"].size
    shutil.copy(path, tmp_path / "part.nc")
    run(make, tmp_path / "broken")
    assert path.read_bytes() == expected
    assert_as_planned(make, kind, path)
    assert path.read_bytes() != (tmp_path / "part.nc").read_bytes()
