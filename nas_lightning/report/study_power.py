"""What a planned study can detect, test by test of the report, in words and as a record.

Only designs count: which architectures with which sizes are in which groups, with how many seeds. They are
taken from the plan by the code that makes the report's groups from results.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal, TypeAlias

import numpy as np
import pandas as pd
from tabulate import tabulate

from nas_lightning.report.claims import EXPLORATORY_RESAMPLES, PREDICTORS, RANKED
from nas_lightning.report.controls import CONTROLS, SEEDS, controls_table
from nas_lightning.report.power import (
    FARTHEST,
    FULL,
    POWER,
    Detectable,
    Effort,
    Noise,
    Rate,
    detectable,
    estimate_noise,
    original_rate,
    paired_rate,
    population_tau,
    rank_rate,
    smallest_original_p,
    smallest_paired_p,
    smallest_rank_p,
    smallest_spread_p,
    spread_rate,
)
from nas_lightning.report.resampling import RESAMPLES
from nas_lightning.report.samples import original_blocks, rank_blocks, spread_blocks, take_sample
from nas_lightning.report.uncorrected import ALPHA, FEWEST_CELLS, SIZES, Predictor
from nas_lightning.report.words import counted, listed

Unit: TypeAlias = Literal["tau", "points", "ratio"]

IN_A_PLAN = Effort(studies=200, permutations=199)
"""Behind the line of a plan, which must appear at once."""
MOST_IN_A_PLAN = 200
"""Architectures of a base cell up to which a plan simulates."""
PREDICTED: tuple[Predictor, ...] = ("width", "depth", "path", "original", "kind", "adaptation")
MOST_RATIO = 20.0
"""Largest ratio of two spreads that is tried."""
_STATISTIC = "final_accuracy"
_AS_PUBLISHED = "published, 600 epochs of CIFAR-10; `study power` takes yours: --noise, --spread"
_PERCENT = 100


@dataclass(frozen=True)
class StudyNoise:
    """A noise, and where it comes from, in words."""

    noise: Noise
    source: str


@dataclass(frozen=True)
class Comparison:
    """A test of the report on a design.

    Attributes:
        runs: ``"plain"``, without regularisation, or ``"regularized"``.
        predictor: With what the accuracy is compared.
        architectures: Number of architectures in the comparison.
        cells: Number of base cells.
        groups: Number of groups: base cells times settings.
        seeds: Mean number of seeds of an architecture.
        smallest_p: The smallest p-value, not corrected, that an outcome can have; NaN without a test.
        unit: Of the effect: population tau, points of accuracy, or ratio of standard deviations.
        effect: The smallest effect that is detected; NaN where none is.
        largest: The largest possible effect; infinite but for tau.
    """

    runs: str
    predictor: Predictor
    architectures: int
    cells: int
    groups: int
    seeds: float
    smallest_p: float
    unit: Unit
    effect: Detectable
    largest: float

    @property
    def can_reach(self) -> bool:
        """Whether some outcome has a p-value of 0.05."""
        return self.smallest_p <= ALPHA


@dataclass(frozen=True)
class StudyPower:
    """What a study can detect.

    Attributes:
        noise: The noise that was assumed.
        comparisons: The report's tests that the design has architectures for.
        studies: Number of simulated studies at each size of an effect.
    """

    noise: StudyNoise
    comparisons: tuple[Comparison, ...]
    studies: int


def study_noise(planned: pd.DataFrame, seed: float | None = None, spread: float | None = None) -> StudyNoise:
    """The noise that is stated, else that of the results so far, else the published one.

    Args:
        planned: Table of :func:`~nas_lightning.study.planned.planned_runs`, or ``Results.runs``.
        seed: Stated standard deviation between seeds, in points.
        spread: Stated standard deviation between architectures, in points.
    """
    done = planned[planned[_STATISTIC].notna()]
    found = estimate_noise(done.assign(**{_STATISTIC: _PERCENT * done[_STATISTIC]}), _STATISTIC, RANKED)
    noise = found.noise(seed, spread)
    known = {
        "seeds": "stated" if seed is not None else _from(found.within, found.repeats),
        "architectures": "stated" if spread is not None else _from(found.between, found.contrasts),
    }
    if seed is not None and spread is not None:
        return StudyNoise(noise, "stated")
    if not any(known.values()):
        return StudyNoise(noise, _AS_PUBLISHED)
    if not all(known.values()):
        missing = next(name for name, source in known.items() if not source)
        known[missing] = "by the published ratio of the two"
    return StudyNoise(noise, "; ".join(f"{name}: {source}" for name, source in known.items()))


def _from(variance: float, freedom: int) -> str:
    return f"from results, {counted(freedom, 'degree')} of freedom" if variance > 0 else ""


def study_power(
    planned: pd.DataFrame,
    noise: StudyNoise,
    *,
    effort: Effort = FULL,
    predictors: Sequence[Predictor] = PREDICTED,
) -> StudyPower:
    """Find what each test of the report detects.

    Args:
        planned: Table of :func:`~nas_lightning.study.planned.planned_runs`, or ``Results.runs``.
        noise: The noise.
        effort: How much is simulated.
        predictors: The tests.

    Raises:
        ValueError: If there is one architecture.
    """
    if planned["genotype"].nunique() < 2:
        raise ValueError(
            f"`architectures`: {planned['architecture'].iloc[0]} alone has nothing to be compared with;"
            " a study needs two, a rank test three variants of a base cell"
        )
    comparisons = []
    for name, regularized in (("plain", False), ("regularized", True)):
        # As in the report, unknown regularisation counts as none.
        runs = planned[planned["regularized"].eq(True) == regularized]
        seeds = _seeds(runs, (*RANKED, "original"))
        for predictor in predictors:
            if predictor in SIZES:
                found = _sizes(seeds[seeds["kind"].isin(RANKED)], predictor, noise.noise, effort)
            elif predictor == "original":
                found = _originals(seeds, noise.noise, effort)
            # The report compares kinds in plain training alone, and adapted cells in regularised training.
            elif predictor == "kind" and not regularized:
                found = _kinds(_seeds(runs, ("connections", "operations")), noise.noise, effort)
            elif predictor == "adaptation" and regularized:
                found = _pairs(_seeds(runs, ("original", "adapted")), noise.noise, effort)
            else:
                found = None
            if found is not None:
                comparisons.append(Comparison(name, predictor, **found))
    return StudyPower(noise, tuple(comparisons), effort.studies)


def _seeds(runs: pd.DataFrame, kinds: Sequence[str]) -> pd.DataFrame:
    """The report's table of architectures and groups, where the value is the number of seeds."""
    table = take_sample(runs.assign(planned=1.0), "planned", kinds).table
    return table.assign(value=table["seeds"].astype(float))


def _sizes(table: pd.DataFrame, predictor: Predictor, noise: Noise, effort: Effort) -> dict[str, Any] | None:
    blocks, groups = rank_blocks(table, SIZES[predictor], 1)
    largest = population_tau(blocks, 1.0)
    if math.isnan(largest):
        return None
    # The mean path is exploratory.
    resamples = EXPLORATORY_RESAMPLES if predictor == "path" else RESAMPLES
    rate = rank_rate(blocks, noise, effort)
    smallest = smallest_rank_p(blocks, resamples=resamples)
    effect = _search(rate, 1.0, smallest, effort).mapped(partial(population_tau, blocks))
    seeds = [block.values for block in blocks]
    return _described(seeds, len(groups), smallest, "tau", effect, largest)


def _originals(table: pd.DataFrame, noise: Noise, effort: Effort) -> dict[str, Any] | None:
    blocks, groups = original_blocks(table, 1)
    smallest = smallest_original_p(blocks, resamples=EXPLORATORY_RESAMPLES)
    if math.isnan(smallest):
        return None
    rate = original_rate(blocks, noise, effort)
    effect = _search(rate, _farthest(noise), smallest, effort)
    seeds = [block.values for block in blocks]
    return _described(seeds, len(groups), smallest, "points", effect, math.inf)


def _kinds(table: pd.DataFrame, noise: Noise, effort: Effort) -> dict[str, Any] | None:
    blocks, groups = spread_blocks(table)
    smallest = smallest_spread_p(blocks)
    if math.isnan(smallest):
        return None
    rate = spread_rate(blocks, noise, effort)
    effect = _search(rate, math.log(MOST_RATIO), smallest, effort).mapped(math.exp)
    return _described([block.values for block in blocks], len(groups), smallest, "ratio", effect, math.inf)


def _pairs(table: pd.DataFrame, noise: Noise, effort: Effort) -> dict[str, Any] | None:
    wide = table.pivot_table(index="group", columns="kind", values="value", sort=False)
    wide = wide.reindex(columns=["original", "adapted"]).dropna()
    family = table.groupby("group")["family"].first().reindex(wide.index)
    cells = [pairs.to_numpy(float) for _, pairs in wide.groupby(family, sort=False)]
    if len(cells) < FEWEST_CELLS:
        return None
    smallest = smallest_paired_p(cells)
    effect = _search(paired_rate(cells, noise, effort), _farthest(noise), smallest, effort)
    return _described(cells, len(wide), smallest, "points", effect, math.inf)


def _farthest(noise: Noise) -> float:
    return FARTHEST * math.hypot(noise.architecture, noise.seed)


def _search(rate: Rate, largest: float, smallest_p: float, effort: Effort) -> Detectable:
    if smallest_p > ALPHA:
        return Detectable(math.nan, math.nan, math.nan)
    return detectable(rate, largest, studies=effort.studies)


def _described(
    seeds: Sequence[np.ndarray],
    groups: int,
    smallest: float,
    unit: Unit,
    effect: Detectable,
    largest: float,
) -> dict[str, Any]:
    return {
        "architectures": sum(table.shape[1] for table in seeds),
        "cells": len(seeds),
        "groups": groups,
        "seeds": float(np.nanmean(np.concatenate([table.ravel() for table in seeds]))),
        "smallest_p": smallest,
        "unit": unit,
        "effect": effect,
        "largest": largest,
    }


def power_line(power: StudyPower) -> str:
    """The answer in one line, for a plan."""
    if not power.comparisons:
        return "detects nothing: the report has no test for these architectures"
    if not any(one.can_reach for one in power.comparisons):
        least = min(power.comparisons, key=lambda one: one.smallest_p)
        return (
            f"detects nothing: no outcome of its {counted(least.architectures, 'architecture')} has"
            f" p = {ALPHA:g}, the smallest is {least.smallest_p:.2g} ({PREDICTORS[least.predictor]})"
        )
    named = [(f"{PREDICTORS[one.predictor]}{_runs(power, one)}", one) for one in power.comparisons]
    found = [f"{_effect(one)} ({name})" for name, one in named if not math.isnan(one.effect.effect)]
    none = [name for name, one in named if math.isnan(one.effect.effect)]
    noise = power.noise.noise
    return (
        f"smallest effects it detects (power {_PERCENT * POWER:.0f} %, p = {ALPHA:g}):"
        f" {listed(found) or 'none'}{f'; none of {listed(none)}' if found and none else ''}"
        f"; seeds {_points(noise.seed)} points, architectures {_points(noise.architecture)}"
        f" ({power.noise.source})"
    )


def plan_line(planned: pd.DataFrame) -> str:
    """The line of a plan: fewer simulated studies than in the whole answer, and never an error.

    Args:
        planned: Table of :func:`~nas_lightning.study.planned.planned_runs`.
    """
    most = int(planned.groupby("family")["genotype"].nunique().max())
    if most > MOST_IN_A_PLAN:
        return f"detects: {most:,} cells of one base cell take too long to simulate here; see `study power`"
    try:
        return power_line(study_power(planned, study_noise(planned), effort=IN_A_PLAN))
    except ValueError as error:
        return f"detects: unknown, as the study cannot be simulated: {error}"


def format_power(name: str, power: StudyPower) -> str:
    """The whole answer: the noise, a line a test, and the table of random controls."""
    noise = power.noise.noise
    lines = [
        f"{name}: what the report's tests detect in {_PERCENT * POWER:.0f} % of {power.studies:,} simulated"
        f" studies, at p = {ALPHA:g}",
        f"noise: seeds {_points(noise.seed)} points of accuracy, architectures {_points(noise.architecture)}"
        f" ({power.noise.source})",
        "",
    ]
    if not any(one.can_reach for one in power.comparisons):
        lines += [power_line(power), ""]
    if power.comparisons:
        rows = [("accuracy and", "runs", "base cells", "architectures", "seeds", "smallest p", "detects")]
        for one in power.comparisons:
            sizes = (str(one.cells), str(one.architectures), f"{one.seeds:.3g}", f"{one.smallest_p:.2g}")
            rows.append((PREDICTORS[one.predictor], one.runs, *sizes, _effect(one, interval=True)))
        lines += [
            tabulate(rows, tablefmt="plain", disable_numparse=True),
            "",
            "tau: expected tau-b without seed noise; points: of true accuracy; ratio: of standard deviations,"
            " connections to operations",
            "in parentheses: 95 % interval of the simulation",
            "p is not corrected; where a report corrects it for several tests, effects must be larger",
            "",
        ]
    lines.append(
        f"one cell against k random controls, p = rank/(k + 1): points above their mean for a power of"
        f" {_PERCENT * POWER:.0f} %"
    )
    table = controls_table(noise)
    points = [["k", *(counted(seeds, "seed") for seeds in SEEDS)]]
    points += [[str(k), *(_points(table[k][seeds]) for seeds in SEEDS)] for k in CONTROLS]
    return "\n".join([*lines, tabulate(points, tablefmt="plain", disable_numparse=True)])


def power_record(name: str, power: StudyPower) -> Mapping[str, Any]:
    """The answer for programs; what is not a number is None."""
    table = controls_table(power.noise.noise)
    return {
        "study": name,
        "alpha": ALPHA,
        "power": POWER,
        "simulated_studies": power.studies,
        "noise": {
            "seed_points": power.noise.noise.seed,
            "architecture_points": power.noise.noise.architecture,
            "source": power.noise.source,
        },
        "comparisons": [
            {
                **{key: _known(value) for key, value in asdict(one).items() if key != "effect"},
                "effect": _known(one.effect.effect),
                "simulation_interval": [_known(one.effect.low), _known(one.effect.high)],
            }
            for one in power.comparisons
        ],
        "controls": [
            {"controls": k, "seeds": seeds, "points": _known(points)}
            for k, row in table.items()
            for seeds, points in row.items()
        ],
    }


def _known(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _runs(power: StudyPower, one: Comparison) -> str:
    """Which runs, where a study has both."""
    return f", {one.runs}" if len({each.runs for each in power.comparisons}) > 1 else ""


def _effect(one: Comparison, *, interval: bool = False) -> str:
    """An effect with its unit, or that there is none."""
    found = one.effect
    if not one.can_reach:
        return "nothing"
    if math.isnan(found.effect):
        return "nothing" + (f", not even tau {one.largest:.2f}" if one.unit == "tau" else "")
    high = "more" if math.isnan(found.high) else _number(one.unit, found.high)
    ends = f" ({_number(one.unit, found.low)} to {high})" if interval else ""
    shown = _number(one.unit, found.effect)
    return {"tau": f"tau {shown}", "points": f"{shown} points", "ratio": f"ratio {shown}"}[one.unit] + ends


def _number(unit: Unit, value: float) -> str:
    return f"{value:.2f}" if unit == "tau" else _points(value)


def _points(value: float) -> str:
    """Two digits, a final 0 as well."""
    return f"{value:#.2g}".removesuffix(".")
