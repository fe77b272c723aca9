"""What planned studies can detect, in words and as a record."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Sequence
from functools import cache
from itertools import product

import pandas as pd
import pytest

from nas_lightning.cells import get_genotype, topology
from nas_lightning.report.power import PUBLISHED, Effort
from nas_lightning.report.samples import take_sample
from nas_lightning.report.study_power import (
    MOST_IN_A_PLAN,
    StudyPower,
    format_power,
    plan_line,
    power_line,
    power_record,
    study_noise,
    study_power,
)
from nas_lightning.study.planned import planned_runs
from nas_lightning.study.state import RunState, Status
from tests.study.shipped import shipped

STUDIES = 200


def plan_of(
    variants: Sequence[str],
    families: Sequence[str] = ("darts_v2",),
    data: Sequence[str] = ("CIFAR10",),
    *,
    regularized: bool = False,
) -> pd.DataFrame:
    """The table of a plan with two seeds."""
    rows = []
    for family, variant in product(families, ("original", *variants)):
        genotype = get_genotype(family if variant == "original" else f"{family}:{variant}")
        kind = "connections" if variant.startswith("C") else variant.partition("=")[0]
        cell = {"genotype": str(genotype), "architecture": f"{family}:{variant}", "kind": kind}
        cell |= {"family": family, **dataclasses.asdict(topology(genotype, 8))}
        rows += [
            cell | {"data": name, "learning_rate": 0.025, "seed": seed, "regularized": regularized}
            for name, seed in product(data, (0, 1))
        ]
    return pd.DataFrame(rows).assign(final_accuracy=math.nan)


QUICKSTART = ("C1", "C3", "C4", "C5", "C7", "C9", "C12")
PLANS: dict[str, Callable[[], pd.DataFrame]] = {
    "quickstart": lambda: plan_of(QUICKSTART),
    "figure9": lambda: plan_of([f"C{n}" for n in range(1, 14)], ("darts_v2", "enas", "amoebanet", "nasnet")),
    "figure3": lambda: plan_of(("C1", "C4", "C5", "C12"), data=("CIFAR10", "CIFAR100")),
    "table1": lambda: plan_of(
        ("adapted",),
        ("nasnet", "amoebanet", "enas", "darts_v2", "snas_mild"),
        ("CIFAR10", "CIFAR100"),
        regularized=True,
    ),
    "kinds": lambda: plan_of(("C1", *QUICKSTART[2:], *(f"operations={n}" for n in range(6)))),
}


@cache
def power(name: str) -> StudyPower:
    table = PLANS[name]()
    return study_power(table, study_noise(table), effort=Effort(STUDIES))


def test_the_quickstart_detects_strong_effects_alone() -> None:
    width, depth, path, original = power("quickstart").comparisons
    assert (width.architectures, original.architectures, width.seeds) == (7, 8, 2)
    assert 0.6 < width.effect.effect < width.largest < 1
    assert path.effect.low < path.effect.effect < path.effect.high <= path.largest == 1
    assert (depth.can_reach, original.smallest_p) == (False, 0.25)
    assert path.smallest_p == pytest.approx(2 / math.factorial(7))
    line = power_line(power("quickstart"))
    assert line.startswith(
        f"smallest effects it detects (power 80 %, p = 0.05): tau {width.effect.effect:.2f} (width) and tau"
    )
    assert "; none of small depth and the original among its variants; seeds 0.12 points" in line
    assert "published, 600 epochs of CIFAR-10" in line


def test_more_architectures_detect_less() -> None:
    table = PLANS["figure9"]()
    (wide,) = study_power(table, study_noise(table), effort=Effort(100), predictors=["path"]).comparisons
    assert (wide.cells, wide.architectures, wide.groups) == (4, 52, 4)
    assert wide.effect.effect < power("quickstart").comparisons[2].effect.effect / 2


def test_four_variants_detect_nothing_and_are_told_so() -> None:
    assert power_line(power("figure3")) == (
        "detects nothing: no outcome of its 4 architectures has p = 0.05, the smallest is 0.083"
        " (short mean path)"
    )
    text = format_power("figure3", power("figure3"))
    assert power_line(power("figure3")) in text.splitlines()
    # Two data sets are two groups of the same four.
    assert {one.groups for one in power("figure3").comparisons} == {2}


def test_pairs_are_compared_in_regularised_training() -> None:
    (pairs,) = [one for one in power("table1").comparisons if one.predictor == "adaptation"]
    assert (pairs.runs, pairs.cells, pairs.groups, pairs.smallest_p) == ("regularized", 5, 10, 2 / 32)


def test_connections_are_compared_with_operations() -> None:
    table = PLANS["kinds"]()
    noise = study_noise(table, seed=0.01, spread=0.2)
    found = study_power(table, noise, effort=Effort(STUDIES), predictors=["kind"])
    (kinds,) = found.comparisons
    assert (kinds.architectures, kinds.unit) == (12, "ratio")
    assert kinds.smallest_p == pytest.approx(2 / math.comb(12, 6))
    assert 1 < kinds.effect.low < kinds.effect.effect
    assert f"ratio {kinds.effect.effect:.2g} (" in format_power("kinds", found)


def test_the_text_and_the_record_say_the_same() -> None:
    record = json.loads(json.dumps(power_record("quickstart", power("quickstart")), allow_nan=False))
    width = record["comparisons"][0]
    text = format_power("quickstart", power("quickstart"))
    low, high = width["simulation_interval"]
    assert f"tau {width['effect']:.2f} ({low:.2f} to {high:.2f})" in text
    assert record["comparisons"][1]["effect"] is None
    nineteen = [f"{row['points']:#.2g}" for row in record["controls"] if row["controls"] == 19]
    assert nineteen == next(line for line in text.splitlines() if line.startswith("19 ")).split()[1:]


def test_results_so_far_give_the_noise_and_stated_ones_go_first() -> None:
    table = plan_of(QUICKSTART)
    table["final_accuracy"] = [0.9 + 0.01 * (place // 2) + 0.002 * (place % 2) for place in table.index]
    found = study_noise(table)
    assert found.noise.seed == pytest.approx(100 * 0.002 / math.sqrt(2))
    assert (
        found.source
        == "seeds: from results, 8 degrees of freedom; architectures: from results, 6 degrees of freedom"
    )
    stated = study_noise(table, seed=1.5)
    assert (stated.noise.seed, stated.source[:13]) == (1.5, "seeds: stated")
    assert study_noise(table, seed=1.5, spread=2.0).source == "stated"
    alone = study_noise(plan_of(QUICKSTART), spread=2.1)
    assert alone.noise.seed == pytest.approx(2.1 * PUBLISHED.seed / PUBLISHED.architecture)
    assert alone.source == "seeds: by the published ratio of the two; architectures: stated"


def test_a_plan_has_its_line_whatever_the_study() -> None:
    assert plan_line(PLANS["figure3"]()) == power_line(power("figure3"))
    many = plan_of([f"connections={number}" for number in range(MOST_IN_A_PLAN)])
    assert plan_line(many) == (
        "detects: 201 cells of one base cell take too long to simulate here; see `study power`"
    )
    alone = plan_line(plan_of(()))
    assert alone.startswith("detects: unknown, as the study cannot be simulated: `architectures`: darts_v2")


def test_unknown_regularisation_counts_as_none() -> None:
    table = plan_of(QUICKSTART).assign(regularized=None)
    assert study_power(table, study_noise(table), effort=Effort(100), predictors=["width"]).comparisons


def test_a_plan_knows_which_runs_are_finished() -> None:
    first, second = [run for run in shipped("quickstart").runs if run.architecture.label == "darts_v2"]
    states = [RunState(first, Status.FINISHED, 4, 0.9), RunState(second, Status.RUNNING, 2, 0.8)]
    table = planned_runs(states)
    assert table["final_accuracy"].fillna(-1).tolist() == [0.9, -1]
    expected = plan_of(())
    shared = ["genotype", "family", "kind", "width", "depth", "regularized"]
    assert table[shared].equals(expected[shared])


def test_the_runs_of_a_plan_make_the_groups_of_the_report() -> None:
    """Seeds repeat an architecture; another weight decay is another group."""
    runs = shipped("quickstart").runs
    originals = [run for run in runs if run.architecture.label == "darts_v2"]
    decay = {"model.optimizer.init_args.weight_decay": 1.0}
    other = [dataclasses.replace(run, deciding={**run.deciding, **decay}) for run in originals]
    states = [RunState(run, Status.MISSING, 0, None) for run in (*runs, *other)]
    table = take_sample(planned_runs(states).assign(value=1.0), "value", ("original", "connections")).table
    assert table.groupby("group")["seeds"].agg(["size", "max"]).to_numpy().tolist() == [[8, 2], [1, 2]]


def test_one_architecture_has_nothing_to_be_compared_with() -> None:
    first = shipped("quickstart").runs[0]
    other = dataclasses.replace(first, seed=7)
    table = planned_runs([RunState(run, Status.MISSING, 0, None) for run in (first, other)])
    with pytest.raises(ValueError, match="`architectures`: darts_v2 alone"):
        study_power(table, study_noise(table))
