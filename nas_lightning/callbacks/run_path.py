"""The checkpoints that a run has left on its way, in the order in which they were written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nas_lightning.callbacks.checkpoints import CHECKPOINTS, START_CHECKPOINT
from nas_lightning.callbacks.likeness import common_facts
from nas_lightning.callbacks.resuming import place_of
from nas_lightning.torch_files import read_torch_file

LAST = "last.ckpt"


@dataclass(frozen=True)
class PathPoint:
    """A checkpoint of a run.

    Attributes:
        path: The file; None for the weights in memory, the last ones of the first run.
        run: Number of the run, from 0.
        step: Steps of the optimiser before it.
        epochs: Epochs of training before it, 0 for initial weights; NaN where the file does not say.
    """

    path: Path | None
    run: int
    step: int
    epochs: float


@dataclass(frozen=True)
class RunPath:
    """The checkpoints of a run, and what runs in one plane must have in common."""

    folder: Path
    points: tuple[PathPoint, ...]
    facts: Mapping[str, Any]


def read_run_path(
    folder: Path, pattern: str, run: int = 0, *, before: int | None = None, with_last: bool = False
) -> RunPath:
    """Find the checkpoints of a run, one a step of the optimiser.

    Args:
        folder: The run's folder, with its ``checkpoints/``.
        pattern: Which files count beside the initial weights, ``start.ckpt``.
        run: Number of the run.
        before: The number of steps that only earlier checkpoints count before; None counts all.
        with_last: Whether ``last.ckpt`` counts.

    Raises:
        ValueError: If there is none, or a file is damaged or no checkpoint of a training.
    """
    inside = folder / CHECKPOINTS
    names = [START_CHECKPOINT, *sorted(path.name for path in inside.glob(pattern))]
    names += [LAST] if with_last else []
    points: dict[int, PathPoint] = {}
    facts: Mapping[str, Any] = {}
    for path in [inside / name for name in dict.fromkeys(names)]:
        if not path.is_file():
            continue
        checkpoint = read_torch_file(path, mmap=True)
        if not isinstance(checkpoint, Mapping) or not isinstance(checkpoint.get("global_step"), int):
            raise ValueError(f"{path} is no checkpoint of a training: it does not say its `global_step`")
        step = checkpoint["global_step"]
        if before is None or step < before:
            points.setdefault(step, PathPoint(path, run, step, _epochs(checkpoint)))
            facts = facts or common_facts(checkpoint)
    if not points:
        raise ValueError(
            f"{inside} holds no {START_CHECKPOINT} and no {pattern} to draw a path through: train with the"
            " ModelCheckpoint of configs/trajectory.yaml"
        )
    return RunPath(folder, tuple(points[step] for step in sorted(points)), facts)


def _epochs(checkpoint: Mapping[str, Any]) -> float:
    """Epochs of training before a checkpoint; NaN within an epoch."""
    if checkpoint["global_step"] == 0:
        return 0.0
    try:
        place = place_of(checkpoint)
    except ValueError:
        return float(checkpoint["epoch"] + 1) if isinstance(checkpoint.get("epoch"), int) else float("nan")
    return float("nan") if place.batches else float(place.epochs)
