"""How far a run is, read from what is on disk alone."""

from __future__ import annotations

import fcntl
import json
import os
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from nas_lightning.netcdf import read_dataset
from nas_lightning.study.attempts import Attempt, read_attempts
from nas_lightning.study.record import (
    ended_early,
    in_one_line,
    measured_otherwise,
    read_metrics,
    trained_epochs,
)
from nas_lightning.study.study import AnalysisFile, Run

RUN_LOCK = ".study.lock"
"""Lock that ``nas-lightning study run`` holds while a run is its own."""
FIT_LOCK = ".lock"
"""Lock that ``nas-lightning fit`` holds while it writes."""


class Status(StrEnum):
    """What a run is.

    ``FINISHED``: ``result.json`` says so, and the analyses of the end are complete. ``RUNNING``: a process
    works on it. ``FAILED``: its last attempt ended with an error. ``UNFINISHED``: some of it is done.
    ``MISSING``: nothing is.
    """

    FINISHED = "finished"
    RUNNING = "running"
    FAILED = "failed"
    UNFINISHED = "unfinished"
    MISSING = "missing"


@dataclass(frozen=True)
class RunState:
    """How far a run is.

    Attributes:
        run: The run.
        status: What it is.
        epoch: Number of epochs in its curves.
        accuracy: Accuracy of the evaluation split after the last of them, a fraction; None where unknown.
        problems: What is missing, damaged or not understood, one line each, with the file.
        attempts: What the runner's record says.
        blocking: One of ``problems``: an analysis with other settings than the plan's, whose file
            ``nas-lightning fit`` does not overwrite; None if there is none.
        ended: Why a finished run has fewer epochs than planned, None if it has all.
    """

    run: Run
    status: Status
    epoch: int
    accuracy: float | None
    problems: tuple[str, ...] = ()
    attempts: tuple[Attempt, ...] = ()
    blocking: str | None = None
    ended: str | None = None


def run_state(run: Run) -> RunState:
    """Read how far a run is.

    Half-written, damaged and foreign files count as not there; ``problems`` names them.

    Args:
        run: The run.

    Returns:
        Its state.
    """
    epoch, accuracy, problems = _read_progress(run.folder)
    attempts = read_attempts(run.folder)
    unfinished, blocking, ended = _unfinished(run)
    if not unfinished:
        status = Status.FINISHED
    # The holder of the first lock starts a process that takes the second; a look at it could delay that one.
    elif lock_is_held(run.folder / RUN_LOCK) or lock_is_held(run.folder / FIT_LOCK):
        status = Status.RUNNING
    elif attempts and attempts[-1].outcome == "failed" and blocking is None:
        status = Status.FAILED
    elif epoch or (run.folder / "checkpoints" / "last.ckpt").is_file():
        status = Status.UNFINISHED
    else:
        status = Status.MISSING
    return RunState(run, status, epoch, accuracy, (*problems, *unfinished), attempts, blocking, ended)


def run_progress(run: Run) -> tuple[int, float | None]:
    """Number of epochs in a run's curves, and the last accuracy of the evaluation split."""
    return _read_progress(run.folder)[:2]


def lock_is_held(path: str | os.PathLike[str]) -> bool:
    """Whether a process holds a lock file; the lock is not taken from anyone who asks for it."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # a file system without locks
        return False
    else:
        return False
    finally:
        os.close(handle)


def _unfinished(run: Run) -> tuple[tuple[str, ...], str | None, str | None]:
    """Why a run is not finished, which of the reasons blocks resuming, and why it has ended early."""
    result = run.folder / "result.json"
    try:
        content: Any = json.loads(result.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return (f"{result} does not exist",), None, None
    except (OSError, ValueError) as error:
        return (f"{result} cannot be read: {in_one_line(error)}",), None, None
    if not isinstance(content, dict) or content.get("finished") is not True:
        return (f"{result} does not say that the training is finished",), None, None
    if not isinstance(content.get("final"), dict):
        return (f"{result} is no result of a training: `final` is missing",), None, None
    if not (curves := run.folder / "metrics.csv").is_file():  # resuming writes it again
        return (f"{curves} does not exist",), None, None
    # What is missing of the start or of an epoch before the last cannot be measured any more.
    epochs = trained_epochs(run, content)
    last = [analysis for analysis in run.analyses if epochs in analysis.measured_after(epochs)]
    faults = [fault for analysis in last if (fault := _fault(run, analysis, epochs)) is not None]
    blocking = next((line for line, stays in faults if stays), None)
    return tuple(line for line, _ in faults), blocking, ended_early(run, content)


def _fault(run: Run, analysis: AnalysisFile, epochs: int) -> tuple[str, bool] | None:
    """Why the analysis after ``epochs`` epochs is not complete, and whether that blocks resuming."""
    path = analysis.path(run.folder, epochs)
    try:
        dataset = read_dataset(path)
    except FileNotFoundError:
        return f"{path} does not exist", False
    except (OSError, ValueError) as error:
        return in_one_line(error), False
    if (difference := measured_otherwise(run, analysis, dataset, path)) is not None:
        return difference, True
    if "done" not in dataset.variables:
        return None
    done = dataset["done"].values
    count = int((done == 1).sum())
    return None if count == done.size else (f"{path}: {count} of {done.size} points are done", False)


def _read_progress(folder: Path) -> tuple[int, float | None, tuple[str, ...]]:
    """Epochs and the last accuracy of ``metrics.csv``, and what is wrong with it."""
    rows, problem = read_metrics(folder / "metrics.csv")
    accuracies = [
        value
        for row in rows
        for name, value in row.items()
        if name.startswith("accuracy/") and name != "accuracy/train"
    ]
    return len(rows), accuracies[-1] if accuracies else None, () if problem is None else (problem,)
