"""How long the runs of a study take, from their multiply-adds and the runs so far; good for planning."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from nas_lightning.study.cost import run_cost
from nas_lightning.study.record import read_metrics
from nas_lightning.study.state import RunState, Status
from nas_lightning.study.study import Run


class TimeLeft(NamedTuple):
    """How long a study will take, with ``at_a_time`` runs at once."""

    seconds: float
    at_a_time: int


def run_weights(runs: Iterable[Run]) -> list[float]:
    """What the times of runs are proportional to.

    It is their multiply-adds, analyses included; their epochs if a run's multiply-adds are not known.
    """
    runs = list(runs)
    weights = [run_cost(run).total_multiply_adds for run in runs]
    known = [float(weight) for weight in weights if weight]
    return known if len(known) == len(runs) else [float(run.epochs) for run in runs]


def run_seconds(states: Sequence[RunState], now: datetime | None = None) -> list[float] | None:
    """The time that each run takes from its start to its end, analyses included; None if none was timed.

    The rate is that of all runs that were timed, beside as many others as they had: what ``study run``
    started is timed by the clock, other finished runs by the images a second of their training. A run with an
    attempt whose end is not known, as after a kill, is not timed by the clock.
    """
    now = now or datetime.now(UTC)
    seconds, work = 0.0, 0.0
    weights = run_weights(state.run for state in states)
    for state, weight in zip(states, weights, strict=True):
        spent = _seconds_spent(state, now)
        if spent is not None:
            done = weight * min(1.0, state.epoch / state.run.epochs)
        elif state.status is Status.FINISHED:
            spent, share = _training_seconds(state.run)
            done = weight * share
        if spent and done:
            seconds, work = seconds + spent, work + done
    return [seconds / work * weight for weight in weights] if work else None


def time_left(states: Sequence[RunState], now: datetime | None = None) -> TimeLeft | None:
    """How long the runs that are to do will take, with as many at a time as are running, or one.

    Runs that failed are not waited for. None where no run was timed or none is left.
    """
    each = run_seconds(states, now)
    if each is None:
        return None
    waited_for = (Status.RUNNING, Status.UNFINISHED, Status.MISSING)
    left = sum(
        seconds * (1 - state.epoch / state.run.epochs)
        for state, seconds in zip(states, each, strict=True)
        if state.status in waited_for
    )
    at_a_time = max(1, sum(state.status is Status.RUNNING for state in states))
    return TimeLeft(left / at_a_time, at_a_time) if left > 0 else None


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


def _training_seconds(run: Run) -> tuple[float | None, float]:
    """Time of a finished run's training alone, from its curves, if they tell; and its share of the work."""
    rows, problem = read_metrics(run.folder / "metrics.csv")
    rates = [row.get("images_per_second", 0.0) for row in rows]
    cost = run_cost(run)
    if problem is not None or not all(rates) or not cost.training_images or not cost.work:
        return None, 0.0
    seconds = sum(cost.training_images / run.epochs / rate for rate in rates)
    return seconds, cost.training_images / cost.work
