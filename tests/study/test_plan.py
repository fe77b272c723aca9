"""A plan has a line for each run or group, and its totals are their sums."""

from __future__ import annotations

import dataclasses

import pytest

from nas_lightning.study.cost import run_cost
from nas_lightning.study.plan import _millions, format_plan, in_words
from tests.study.shipped import shipped


def test_a_small_plan_has_a_line_for_each_run_and_both_numberings() -> None:
    study = shipped("figure3")
    seconds = [60.0 * count for count in range(30)]
    text = format_plan(study, seconds, jobs=2)
    lines = text.splitlines()
    assert lines[0].startswith("figure3: Figure 3")
    assert sum(line.startswith("darts_") for line in lines) == 30
    assert sum("darts_conn1 (C1 of figure 2)" in line for line in lines) == 6
    assert "30 runs of 5 architectures, 3.35 to 3.48 M parameters, 900 M training images" in text
    assert "C1 = darts_conn1, C2 = darts_conn2, C3 = darts_conn3, C4 = darts_conn4" in text
    assert "multiply-adds (M)  time" in lines[2]
    assert f"time of all runs, 2 at a time: about {in_words(sum(seconds) / 2)}, by the runs so far" in text


def test_a_plan_marks_stand_ins() -> None:
    text = format_plan(shipped("quickstart"))
    marked = {line.split()[0] for line in text.splitlines() if "(stand-in)" in line}
    assert marked == {"darts_v2:C1", "darts_v2:C3", "darts_v2:C7"}


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


def test_unknown_data_are_said_and_not_counted() -> None:
    study = shipped("figure3")
    own = dataclasses.replace(study.runs[0], data="Mine")
    mixed = dataclasses.replace(study, runs=(own, *study.runs[1:]))
    text = format_plan(mixed)
    assert "1 run is not counted: the size of the data set Mine is not known" in text
    assert "870 M training images" in text


def test_small_networks_have_a_size() -> None:
    assert _millions([1_234], 2) == "0.001"
    assert _millions([40_000, 3_349_342, None], 2) == "0.04 to 3.35"
