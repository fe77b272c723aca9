"""Times follow the multiply-adds and the runs so far."""

from __future__ import annotations

import dataclasses
from datetime import datetime
from pathlib import Path

import pytest

from nas_lightning.study.attempts import Attempt
from nas_lightning.study.cost import run_cost
from nas_lightning.study.estimate import run_seconds, run_weights, time_left
from nas_lightning.study.state import RunState, Status
from nas_lightning.study.study import Run
from tests.study.made_up_runs import made_up_run
from tests.study.shipped import run_of, shipped


def state(run: Run, status: Status, epoch: int, *times: tuple[str, str | None]) -> RunState:
    """A run with attempts between these times of day."""
    attempts = tuple(
        Attempt(f"2026-01-01T{start}:00+00:00", "local", "a", end and f"2026-01-01T{end}:00+00:00")
        for start, end in times
    )
    return RunState(run, status, epoch, None, (), attempts)


NOW = datetime.fromisoformat("2026-01-01T01:00:00+00:00")


def test_times_are_proportional_to_multiply_adds() -> None:
    study = shipped("figure5")
    runs = sorted(study.runs, key=lambda run: run_cost(run).multiply_adds or 0)
    states = [state(run, Status.MISSING, 0) for run in runs]
    assert run_seconds(states, NOW) is None
    states[0] = state(runs[0], Status.FINISHED, 600, ("00:00", "00:10"), ("00:20", "00:30"))
    states[1] = state(runs[1], Status.RUNNING, 150, ("00:50", None))
    each = run_seconds(states, NOW)
    assert each is not None
    adds = [run_cost(run).total_multiply_adds or 0.0 for run in runs]
    rate = 1800 / (adds[0] + adds[1] / 4)  # 20 minutes, and 10 for a quarter
    assert each == pytest.approx([rate * one for one in adds])
    left = time_left(states, NOW)
    assert left is not None
    assert left.seconds == pytest.approx(rate * (adds[1] * 3 / 4 + sum(adds[2:])))


def test_a_run_of_unknown_size_makes_epochs_the_measure() -> None:
    runs = [run_of("figure3", "darts_v2"), run_of("table1", "nasnet", "TinyImageNet")]
    assert run_weights(runs) == [run_cost(run).total_multiply_adds for run in runs]
    assert run_weights([runs[0], dataclasses.replace(runs[1], data="Mine")]) == [600, 300]


def test_a_finished_run_of_no_study_command_is_timed_by_its_curves(tmp_path: Path) -> None:
    run = dataclasses.replace(made_up_run(tmp_path, "one", epochs=2), data="Digits")
    run.folder.mkdir(parents=True)
    rates = "epoch,images_per_second\n0,100.0\n1,50.0\n"
    (run.folder / "metrics.csv").write_text(rates)
    other = dataclasses.replace(run, epochs=4)
    each = run_seconds([state(run, Status.FINISHED, 2), state(other, Status.MISSING, 0)], NOW)
    assert each is not None
    images = 1437 // 16 * 16
    training = images / 100 + images / 50
    # Two epochs of training images, and a third of that for each of the 360 test images.
    assert each[0] == pytest.approx(training * (2 * images + 2 * 360 / 3) / (2 * images))
    assert each[1] == pytest.approx(2 * each[0])
    (run.folder / "metrics.csv").write_text(rates.replace("50.0", "none"))
    assert run_seconds([state(run, Status.FINISHED, 2)], NOW) is None


def test_the_time_left_is_for_what_is_waited_for(tmp_path: Path) -> None:
    run = made_up_run(tmp_path, "one", epochs=10)
    finished = state(run, Status.FINISHED, 10, ("00:00", "00:10"), ("00:20", "00:30"))  # 20 min
    running = state(run, Status.RUNNING, 4, ("00:50", None))  # 10 min so far
    killed = state(run, Status.UNFINISHED, 5, ("00:00", None))  # nobody knows when
    missing = state(run, Status.MISSING, 0)
    failed = state(run, Status.FAILED, 0, ("00:00", "00:01"))
    assert time_left([missing, failed, killed], NOW) is None
    assert time_left([finished, failed], NOW) is None
    # 14 epochs took 30 min, 6 + 5 + 10 are left.
    left = time_left([finished, running, killed, missing, failed], NOW)
    assert left is not None
    assert left.seconds == pytest.approx(1800 / 14 * 21)
    assert left.at_a_time == 1
    left = time_left([running, running, missing], NOW)
    assert left is not None
    assert left.seconds == pytest.approx(600 / 4 * 22 / 2)
    assert left.at_a_time == 2
