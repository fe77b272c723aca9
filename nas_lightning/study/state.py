"""How far a run is: read from what is on disk, and from nothing else."""

from __future__ import annotations

import csv
import fcntl
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from nas_lightning.study.attempts import Attempt, read_attempts
from nas_lightning.study.study import AnalysisFile, Run

RUN_LOCK = ".study.lock"
"""Lock that ``nas-lightning study run`` holds while a run is its own."""
FIT_LOCK = ".lock"
"""Lock that ``nas-lightning fit`` holds while it writes."""


class Status(StrEnum):
    """What a run is.

    ``FINISHED``: ``result.json`` says so, and everything to be measured is complete. ``RUNNING``: a process
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
        in_the_way: One of ``problems``: a measurement with other settings than the plan's, which
            ``nas-lightning fit`` does not write over; None if there is none.
    """

    run: Run
    status: Status
    epoch: int
    accuracy: float | None
    problems: tuple[str, ...] = ()
    attempts: tuple[Attempt, ...] = ()
    in_the_way: str | None = None


@dataclass(frozen=True)
class TimeLeft:
    """How long a study will take.

    Attributes:
        seconds: The time.
        at_a_time: Number of runs at a time that it is for.
    """

    seconds: float
    at_a_time: int


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
    unfinished, in_the_way = _unfinished(run)
    if not unfinished:
        status = Status.FINISHED
    # Whoever holds the first lock starts what takes the second: looking at it then could only be in the way.
    elif lock_is_held(run.folder / RUN_LOCK) or lock_is_held(run.folder / FIT_LOCK):
        status = Status.RUNNING
    elif attempts and attempts[-1].outcome == "failed" and in_the_way is None:
        status = Status.FAILED
    elif epoch or (run.folder / "checkpoints" / "last.ckpt").is_file():
        status = Status.UNFINISHED
    else:
        status = Status.MISSING
    return RunState(run, status, epoch, accuracy, (*problems, *unfinished), attempts, in_the_way)


def time_left(states: Sequence[RunState], now: datetime | None = None) -> TimeLeft | None:
    """How long the runs that are to do will take, at the mean time of an epoch so far.

    Start and measurements count as parts of the epochs. Runs that failed are not waited for. Of runs with an
    attempt whose end is not known, as after a kill, the time is not known either.

    Args:
        states: All runs of a study.
        now: The time (default: the clock's).

    Returns:
        The time for as many at a time as are running, or one; None where no epoch was timed or none is left.
    """
    now = now or datetime.now(UTC)
    seconds, epochs = 0.0, 0
    for state in states:
        spent = _seconds_spent(state, now)
        if spent is not None and state.epoch:
            seconds, epochs = seconds + spent, epochs + state.epoch
    waited_for = (Status.RUNNING, Status.UNFINISHED, Status.MISSING)
    left = sum(state.run.epochs - state.epoch for state in states if state.status in waited_for)
    if not epochs or seconds <= 0 or left <= 0:
        return None
    at_a_time = max(1, sum(state.status is Status.RUNNING for state in states))
    return TimeLeft(seconds / epochs * left / at_a_time, at_a_time)


def _seconds_spent(state: RunState, now: datetime) -> float | None:
    """Time of all attempts of a run; None if it is not known."""
    seconds = 0.0
    for attempt in state.attempts:
        running = state.status is Status.RUNNING and attempt is state.attempts[-1]
        if attempt.end is None and not running:
            return None
        try:
            end = now if attempt.end is None else datetime.fromisoformat(attempt.end)
            seconds += (end - datetime.fromisoformat(attempt.start)).total_seconds()
        except (TypeError, ValueError):
            return None
    return seconds if state.attempts else None


def run_progress(run: Run) -> tuple[int, float | None]:
    """Number of epochs in a run's curves, and the last accuracy of the evaluation split.

    Args:
        run: The run.

    Returns:
        ``(epochs, accuracy)``; ``(0, None)`` where nothing can be read.
    """
    return _read_progress(run.folder)[:2]


def lock_is_held(path: str | os.PathLike[str]) -> bool:
    """Whether a process holds a lock file; the lock is not taken from anyone who asks for it.

    Args:
        path: The lock file.

    Returns:
        Whether it is held; False if there is none or it cannot be read.
    """
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


def _unfinished(run: Run) -> tuple[tuple[str, ...], str | None]:
    """What keeps a run from being finished, and what of it stays in the way of going on."""
    result = run.folder / "result.json"
    try:
        content: Any = json.loads(result.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return (f"{result} does not exist",), None
    except (OSError, ValueError) as error:
        return (f"{result} cannot be read: {_one_line(error)}",), None
    if not isinstance(content, dict) or content.get("finished") is not True:
        return (f"{result} does not say that the training is finished",), None
    faults = [fault for analysis in run.analyses if (fault := _fault(run, analysis)) is not None]
    return tuple(line for line, _ in faults), next((line for line, stays in faults if stays), None)


def _fault(run: Run, analysis: AnalysisFile) -> tuple[str, bool] | None:
    """What keeps a measurement from being complete, and whether it is in the way of making it so."""
    from nas_lightning.netcdf import read_dataset
    from nas_lightning.study.measurements import measured_otherwise

    path = analysis.path(run.folder, run.epochs)
    try:
        dataset = read_dataset(path)
    except FileNotFoundError:
        return f"{path} does not exist", False
    except (OSError, ValueError) as error:
        return _one_line(error), False
    if (difference := measured_otherwise(run, analysis, dataset)) is not None:
        return difference, True
    if "done" not in dataset.variables:
        return None
    done = dataset["done"].values
    return (
        None
        if (count := int((done == 1).sum())) == done.size
        else (f"{path}: {count} of {done.size} points are done", False)
    )


def _read_progress(folder: Path) -> tuple[int, float | None, tuple[str, ...]]:
    """Epochs and the last accuracy of ``metrics.csv``, and what is wrong with it."""
    path = folder / "metrics.csv"
    epochs, accuracy = 0, None
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            if "epoch" not in (reader.fieldnames or ()):
                raise ValueError("it has no column `epoch`")
            for row in reader:
                epochs = max(epochs, int(row["epoch"]) + 1)
                for name, value in row.items():
                    if name is None or value is None:
                        raise ValueError("a row has not as many values as there are columns")
                    if name.startswith("accuracy/") and name != "accuracy/train" and value:
                        accuracy = float(value)
    except FileNotFoundError:
        return 0, None, ()
    except (OSError, ValueError, LookupError, TypeError, csv.Error) as error:
        return epochs, accuracy, (f"{path} cannot be read whole: {_one_line(error)}",)
    return epochs, accuracy, ()


def _one_line(error: Exception) -> str:
    return " ".join(f"{error}".split()) or type(error).__name__
