"""Costs are those that one counts by hand, times follow the runs so far, and the plan adds them up."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from datetime import datetime
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from nas_lightning.study.attempts import Attempt
from nas_lightning.study.estimate import (
    DATA_SIZES,
    RunCost,
    format_plan,
    in_words,
    run_cost,
    run_seconds,
    run_weights,
    time_left,
)
from nas_lightning.study.read import read_study
from nas_lightning.study.state import RunState, Status
from nas_lightning.study.study import AnalysisFile, Run, Study
from tests.study.made_up_runs import made_up_run

STUDIES = Path(__file__).parents[2] / "configs" / "studies"
read = cache(read_study)


def shipped(name: str) -> Study:
    return read(STUDIES / f"{name}.yaml")


def run_of(
    name: str, label: str, data: str = "CIFAR10", settings: Mapping[str, Any] = MappingProxyType({})
) -> Run:
    run = next(r for r in shipped(name).runs if (r.architecture.label, r.data) == (label, data))
    return dataclasses.replace(run, settings={**run.settings, **settings})


def test_a_training_counted_by_hand() -> None:
    cost = run_cost(run_of("figure3", "darts_v2"))
    assert cost.training_images == 600 * 50_000
    assert cost.work is not None
    assert cost.work == pytest.approx(600 * 50_000 + 600 * 10_000 / 3)
    assert cost.multiply_adds == 528_359_040
    assert cost.total_multiply_adds == pytest.approx(3 * 528_359_040 * cost.work)
    assert cost.unknown is None


def test_analyses_counted_by_hand() -> None:
    plain = run_cost(run_of("figure3", "darts_v2")).work
    contour = run_cost(run_of("figure6", "darts_v2")).work
    variance = run_cost(run_of("figures7-8", "darts_v2")).work
    assert plain is not None
    assert contour is not None
    assert variance is not None
    assert contour - plain == pytest.approx(51**2 * 10_000 / 3)
    assert variance - plain == pytest.approx(21**2 * 10_000 * 1.5)


@pytest.mark.parametrize(
    ("class_name", "settings", "work"),
    [
        ("LossContour", {"resolution": 3, "max_samples": 60}, 9 * 60 / 3),
        ("LossContour", {"resolution": 3, "max_samples": 60, "direction_seeds": [0, 1]}, 2 * 9 * 60 / 3),
        ("LossContour", {"resolution": 3, "split": "train", "every_n_epochs": 200}, 3 * 9 * 50_000 / 3),
        ("GradientVariance", {"resolution": 3, "max_samples": 10**9}, 9 * 10_000 * 1.5),
        ("HessianSpectrum", {"max_samples": 60, "trace_samples": 0}, 100 * 60 * 3.5),
    ],
)
def test_an_analysis_s_settings_count(class_name: str, settings: dict[str, Any], work: float) -> None:
    run = run_of("figure3", "darts_v2")
    arguments = {"split": "test", "every_n_epochs": None, "direction_seeds": [0], "max_samples": None}
    callback = {"class_path": f"nas_lightning.callbacks.{class_name}", "init_args": arguments | settings}
    analysing = dataclasses.replace(run, analyses=(AnalysisFile("a", callback),))
    with_it, without = run_cost(analysing).work, run_cost(run).work
    assert with_it is not None
    assert without is not None
    assert with_it - without == pytest.approx(work)


def test_table_1_has_the_paper_s_parameters() -> None:
    figures = {
        ("nasnet", "CIFAR10"): 4.29,
        ("nasnet:adapted", "CIFAR100"): 4.45,
        ("darts_v2", "CIFAR10"): 3.83,
        ("darts_v2:adapted", "TinyImageNet"): 4.16,
        ("snas_mild", "CIFAR100"): 3.26,
    }
    for (label, data), millions in figures.items():
        parameters = run_cost(run_of("table1", label, data)).parameters
        assert parameters is not None
        assert f"{parameters / 1e6:.2f}" == f"{millions:.2f}"


def test_what_is_held_out_dropped_or_limited_is_not_trained_on() -> None:
    held_out = run_cost(run_of("figure3", "darts_v2", settings={"data.init_args.validation_fraction": 0.1}))
    assert held_out.training_images == 600 * (45_000 // 80) * 80
    assert held_out.work == pytest.approx(600 * (45_000 // 80) * 80 + 600 * 5_000 / 3)
    for limit, batches in ((7, 7), (7.0, 7), (0.5, 312), (1.0, 625), (10_000, 625)):
        limited = run_cost(run_of("figure3", "darts_v2", settings={"trainer.limit_train_batches": limit}))
        assert limited.training_images == 600 * batches * 80
    assert run_cost(shipped("quickstart").runs[0]).training_images == 6 * (1437 // 64) * 64


def test_synthetic_images_have_the_size_of_their_settings() -> None:
    sizes = {"train_size": 512, "test_size": 128, "image_size": 32, "num_classes": 10}
    run = run_of("figure3", "darts_v2", settings={f"data.init_args.{key}": v for key, v in sizes.items()})
    run = dataclasses.replace(run, data="Synthetic", epochs=2)
    assert run_cost(run).training_images == 2 * (512 // 80) * 80
    sizes = {"train_size": 160, "test_size": 30, "image_size": 16, "num_classes": 3}
    small = {**run.settings, **{f"data.init_args.{key}": value for key, value in sizes.items()}}
    cost = run_cost(dataclasses.replace(run, settings=small))
    assert (cost.training_images, cost.work) == (320, 320 + 2 * 30 / 3)
    whole = run_cost(run).multiply_adds
    assert cost.multiply_adds is not None
    assert whole is not None
    assert cost.multiply_adds == pytest.approx(whole / 4, rel=1e-3)  # a quarter of the pixels


def test_unknown_data_are_said_and_not_counted() -> None:
    study = shipped("figure3")
    own = dataclasses.replace(study.runs[0], data="Mine")
    cost = run_cost(own)
    assert cost == RunCost(None, None, None, None, unknown="the size of the data set Mine is not known")
    mixed = dataclasses.replace(study, runs=(own, *study.runs[1:]))
    text = format_plan(mixed)
    assert "1 runs are not counted: the size of the data set Mine is not known" in text
    assert "870 M training images" in text


def test_the_table_of_data_sets_is_that_of_the_data_modules() -> None:
    from nas_lightning import datamodules

    for name, size in DATA_SIZES.items():
        data = getattr(datamodules, name)
        assert (data.image_size, data.num_classes) == (size.image_size, size.num_classes)
    assert datamodules.TinyImageNet.official_sizes == {"train": 100_000, "test": 10_000}
    digits = datamodules.Digits()
    digits.setup()
    assert digits.split_sizes == {"train": DATA_SIZES["Digits"].train, "test": DATA_SIZES["Digits"].test}


# Time.


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


# The text.


def test_a_small_plan_has_a_line_for_each_run_and_both_numberings() -> None:
    study = shipped("figure3")
    seconds = [60.0 * count for count in range(30)]
    text = format_plan(study, seconds, jobs=2)
    lines = text.splitlines()
    assert lines[0].startswith("figure3: Figure 3")
    assert sum(line.startswith("darts_v2") for line in lines) == 30
    assert sum("darts_v2:C6 (C1 of figure 2)" in line for line in lines) == 6
    assert "30 runs of 5 architectures, 3.35 to 3.48 M parameters, 900 M training images" in text
    assert "C1 = darts_v2:C6, C2 = darts_v2:C7, C3 = darts_v2:C1, C4 = darts_v2:C2" in text
    assert "multiply-adds (M)  time" in lines[2]
    assert f"time of all runs, 2 at a time: about {in_words(sum(seconds) / 2)}, by the runs so far" in text


def test_a_large_plan_has_a_line_for_each_group() -> None:
    study = shipped("figure9")
    text = format_plan(study)
    rows = [line.split() for line in text.splitlines() if line.startswith(("darts_v2 ", "enas "))]
    assert [row[:7] for row in rows] == [
        ["darts_v2", "CIFAR10", "0.025", "original", "1", "3", "3"],
        ["darts_v2", "CIFAR10", "0.025", "connections", "13", "3", "39"],
        ["enas", "CIFAR10", "0.025", "original", "1", "3", "3"],
        ["enas", "CIFAR10", "0.025", "connections", "13", "3", "39"],
    ]
    assert "168 runs of 56 architectures" in text
    assert "no finished run yet: time unknown" in text.splitlines()


def test_the_total_is_the_sum_over_the_runs() -> None:
    study = shipped("figure5")
    total = sum(run_cost(run).total_multiply_adds or 0 for run in study.runs)
    assert f"{total / 1e15:,.0f} P multiply-adds" in format_plan(study)
    with pytest.raises(ValueError, match="`jobs`"):
        format_plan(study, jobs=0)


def test_the_longest_run_bounds_the_time() -> None:
    study = shipped("figure3")
    study = dataclasses.replace(study, runs=study.runs[:2])
    for jobs, words in (
        (1, "one at a time: about 80 s"),
        (2, "2 at a time: about 70 s"),
        (100, "about 70 s"),
    ):
        assert words in format_plan(study, [10.0, 70.0], jobs)
    assert "4 at a time with 0.25 of a GPU each" in format_plan(study, [10.0, 70.0], 4, 0.25)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.4, "0.4 s"),
        (7, "7.0 s"),
        (99, "99 s"),
        (600, "10 min"),
        (3 * 3600, "3.0 h"),
        (47 * 3600, "47 h"),
        (10 * 86400, "10 days"),
        (4 * 365.25 * 86400, "4.0 years"),
    ],
)
def test_times_in_words(seconds: float | int, words: str) -> None:
    assert in_words(seconds) == words
