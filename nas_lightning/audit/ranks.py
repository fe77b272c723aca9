r"""A trained cell among its trained controls: exact ranks, the difference, and what a search would have kept.

The null hypothesis: the audited cell is one of its matched class, drawn like its controls (see
:mod:`nas_lightning.audit.controls`). Every cell is trained with the same seeds, and a quantity is averaged
over them. Whatever the trainings give, which of the k + 1 cells is the audited one is then uniform. So with

.. math:: p = \frac{1 + \#\{\text{controls as good or better}\}}{k + 1}

P(p <= a) <= a for every level a: where ties count against a value, at most r of k + 1 values have a rank of r
or less. Seeds are repeats within a cell and no units of their own: more of them make the ranking more stable,
not the p-value smaller. A value that is not finite is worse than all finite ones.

Source: Phipson and Smyth, Statistical Applications in Genetics and Molecular Biology 9, 2010.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from scipy import stats

from nas_lightning.audit.standing import among_controls, finite
from nas_lightning.report.budget import Pool, expected_path
from nas_lightning.report.power import NoiseEstimate
from nas_lightning.report.resampling import CONFIDENCE

Better = Literal["larger", "smaller"]
BySeed = Mapping[int, float]
"""A quantity of one cell by seed; seeds without a finished training are missing."""

Values = Float[np.ndarray, " cells"]

# Accuracies are fractions in float32: means over seeds that are equal may differ by that much.
_ROUNDING = 1e-6


@dataclass(frozen=True)
class Rank:
    """Where a cell stands among its controls.

    Attributes:
        rank: 1 + the number of controls that are as good or better.
        of: Number of controls, and the cell.
        tied: Controls that are as good.
        beaten: Share of random cells that it beats, ties as halves.
        low: Lower end of the share's 95 % interval (Clopper and Pearson), with the controls as a sample.
        high: Upper end.
    """

    rank: int
    of: int
    tied: int
    beaten: float
    low: float
    high: float

    @property
    def p_value(self) -> float:
        """One-sided and exact under "drawn like its controls"; ties count against the cell."""
        return self.rank / self.of

    @property
    def p_value_of_the_opposite(self) -> float:
        """The same for "worse than its controls": a control that is as bad or worse speaks against it."""
        return (self.of - self.rank + self.tied + 1) / self.of


def rank_among(own: float, controls: Float[np.ndarray, " controls"], better: Better) -> Rank:
    """Rank a cell among its controls.

    Raises:
        ValueError: If there are no controls.
    """
    everyone = _badness(np.append(own, controls), better)
    badness, others = float(everyone[0]), everyone[1:]
    tied = _equal(others, badness)
    # Those within rounding are ties in the interval, too.
    standing = among_controls(badness, np.where(tied, badness, others))
    return Rank(
        rank=1 + standing.at_most,
        of=standing.total + 1,
        tied=standing.equal,
        beaten=1 - standing.percentile,
        low=1 - standing.high,
        high=1 - standing.low,
    )


def _badness(values: Values, better: Better) -> Values:
    signed = -values if better == "larger" else values
    return np.where(np.isfinite(signed), signed, np.inf)


def _equal(others: Values, own: float) -> Bool[np.ndarray, " cells"]:
    if math.isinf(own):
        return np.asarray(np.isinf(others))
    return np.asarray(np.abs(others - own) <= _ROUNDING * abs(own))


@dataclass(frozen=True)
class Difference:
    """Mean of the cell less the mean of its controls, with its 95 % interval (NaN where there is none)."""

    value: float
    low: float
    high: float


def difference_from_controls(
    own_mean: float,
    seeds: int,
    controls: Float[np.ndarray, " controls"],
    seed_sd: float,
    freedom: int,
) -> Difference:
    """Student's interval for the cell's true mean less that of all cells like its controls.

    Random are the seeds of the cell, with variance s^2 / n, and the controls, a sample of k with variance
    S^2 / k of their mean; degrees of freedom by Satterthwaite. With one seed s is unknown, and S, which holds
    s, stands in: the interval is then that of a prediction, and rather too wide.

    Args:
        own_mean: Mean over the cell's seeds.
        seeds: How many they are.
        controls: Means over seeds.
        seed_sd: s, the standard deviation between seeds, pooled over all cells; NaN where unknown.
        freedom: Its degrees of freedom.
    """
    count = len(controls)
    value = own_mean - float(controls.mean())
    spread = float(controls.var(ddof=1)) if count > 1 else math.nan
    if not math.isfinite(value) or not math.isfinite(spread):
        return Difference(value, math.nan, math.nan)
    of_controls = spread / count
    known = math.isfinite(seed_sd) and freedom > 0
    of_cell = seed_sd**2 / seeds if known else spread
    variance = of_cell + of_controls
    if not variance:
        return Difference(value, value, value)
    degrees = count - 1.0
    if known:
        degrees = variance**2 / (of_cell**2 / freedom + of_controls**2 / (count - 1))
    half = float(stats.t.isf((1 - CONFIDENCE) / 2, degrees)) * math.sqrt(variance)
    return Difference(value, value - half, value + half)


@dataclass(frozen=True)
class Measure:
    """What is compared.

    Attributes:
        name: A short name.
        label: In words.
        unit: Of the values, may be empty.
        column: Of the table of results.
        better: Which values are better.
        scale: What a value of the column is multiplied with.
    """

    name: str
    label: str
    unit: str
    column: str
    better: Better
    scale: float = 1.0


@dataclass(frozen=True)
class Quantity:
    """One measure of a cell and of its controls.

    Attributes:
        measure: What it is.
        own: The cell's value by seed.
        own_mean: Their mean.
        controls: Means over seeds by name of the control.
        rank: Rank of the means.
        ranks_by_seed: The cell's rank with each of its seeds alone.
        difference: Mean of the cell less that of the controls.
        controls_sd: Standard deviation between the controls' means.
        seed_sd: Standard deviation between seeds, pooled over all cells; NaN without two seeds.
        estimate: The same as components of variance.
        p_adjusted: The p-value after a correction for the family of the measure; NaN where there is none.
    """

    measure: Measure
    own: Mapping[int, float]
    own_mean: float
    controls: Mapping[str, float]
    rank: Rank
    ranks_by_seed: tuple[int, ...]
    difference: Difference
    controls_sd: float
    seed_sd: float
    estimate: NoiseEstimate
    p_adjusted: float = math.nan

    @property
    def controls_mean(self) -> float:
        """Mean of the controls' means."""
        return float(np.mean(list(self.controls.values())))

    def record(self) -> dict[str, Any]:
        """Plain values for JSON; what is not finite is None."""
        names = ("name", "label", "unit", "column", "better")
        return {name: getattr(self.measure, name) for name in names} | {
            "own": [finite(value) for value in self.own.values()],
            "own_mean": finite(self.own_mean),
            "controls": [finite(value) for value in self.controls.values()],
            "control_names": list(self.controls),
            "rank": self.rank.rank,
            "of": self.rank.of,
            "tied": self.rank.tied,
            "p_value": self.rank.p_value,
            "p_adjusted": finite(self.p_adjusted),
            "ranks_by_seed": list(self.ranks_by_seed),
            "beaten_percentile": self.rank.beaten,
            "beaten_low": self.rank.low,
            "beaten_high": self.rank.high,
            "difference": finite(self.difference.value),
            "difference_low": finite(self.difference.low),
            "difference_high": finite(self.difference.high),
            "controls_sd": finite(self.controls_sd),
            "seed_sd": finite(self.seed_sd),
        }


def compare(measure: Measure, own: BySeed, controls: Mapping[str, BySeed]) -> Quantity:
    """Compare a cell with its controls.

    A mean is over the seeds that a cell has, and a control without any is left out. The p-value stays exact
    if which runs are missing does not depend on which cell is audited: where a run fails of itself. While
    trainings are under way the audited cell, which is trained first, has more seeds than some controls; until
    all are done the p-value is a preliminary one.

    Args:
        measure: What is compared.
        own: The cell's values, of at least one seed.
        controls: The controls' values by their names, each of at least one seed.

    Raises:
        ValueError: If a cell has no value, or there are no controls.
    """
    for name, values in {"the cell": own, **controls}.items():
        if not values:
            raise ValueError(f"{name} has no value of {measure.column}")
    own_mean = _mean(own)
    means = {name: _mean(values) for name, values in controls.items()}
    of_controls = np.array(list(means.values()))
    by_seed = []
    for seed, value in own.items():
        others = np.array([values[seed] for values in controls.values() if seed in values])
        if len(others):
            by_seed.append(rank_among(value, others, measure.better).rank)
    within, freedom = _between_seeds([own, *controls.values()])
    seed_sd = math.sqrt(within) if freedom else math.nan
    spread = float(of_controls.var(ddof=1)) if len(means) > 1 and np.isfinite(of_controls).all() else math.nan
    per_seed = float(np.mean([1 / len(values) for values in controls.values()]))
    return Quantity(
        measure=measure,
        own=own,
        own_mean=own_mean,
        controls=means,
        rank=rank_among(own_mean, of_controls, measure.better),
        ranks_by_seed=tuple(by_seed),
        difference=difference_from_controls(own_mean, len(own), of_controls, seed_sd, freedom),
        controls_sd=math.sqrt(spread),
        seed_sd=seed_sd,
        estimate=NoiseEstimate(within, freedom, spread, len(means) - 1, per_seed),
    )


def _mean(values: BySeed) -> float:
    """The mean over seeds, the same in whatever order they come; NaN if a value is not finite."""
    found = list(values.values())
    return math.fsum(found) / len(found) if np.isfinite(found).all() else math.nan


def _between_seeds(cells: Sequence[BySeed]) -> tuple[float, int]:
    """Variance between the seeds of a cell, pooled, and its degrees of freedom; NaN and 0 if none has two."""
    squares, freedom = 0.0, 0
    for cell in cells:
        values = np.array(list(cell.values()))
        if len(values) > 1 and np.isfinite(values).all():
            squares += float(((values - values.mean()) ** 2).sum())
            freedom += len(values) - 1
    return (squares / freedom if freedom else math.nan), freedom


@dataclass(frozen=True)
class SearchPicks:
    """What a search would have kept that trains the cell and all its controls for e epochs, seeds averaged.

    Attributes:
        rank_by_epoch: The cell's rank by its best accuracy so far; ties count against it.
        picked: Names of the cells with the best accuracy so far, after every epoch.
        regret: Points of accuracy that the pick loses at the end against the best of all, after every epoch;
            expected where several are picked.
    """

    rank_by_epoch: tuple[int, ...]
    picked: tuple[tuple[str, ...], ...]
    regret: tuple[float, ...]

    @property
    def picked_from(self) -> int | None:
        """First epoch (from 1) from which to the end this cell alone is the best; None if it is not."""
        others = [epoch for epoch, rank in enumerate(self.rank_by_epoch, 1) if rank > 1]
        first = others[-1] + 1 if others else 1
        return first if first <= len(self.rank_by_epoch) else None

    def record(self) -> dict[str, Any]:
        """Plain values for JSON."""
        picks = zip(self.picked, self.regret, strict=True)
        return {
            "rank_by_epoch": list(self.rank_by_epoch),
            "picked_from": self.picked_from,
            "by_epoch": [
                {"epoch": epoch, "picked": " or ".join(names), "regret": finite(regret)}
                for epoch, (names, regret) in enumerate(picks, 1)
            ],
        }


def search_picks(accuracy: Float[np.ndarray, "cells epochs"], names: Sequence[str]) -> SearchPicks:
    """What a search would have kept; the audited cell is the first.

    Args:
        accuracy: Fractions, averaged over seeds; NaN where unknown.
        names: Of the cells.
    """
    pool = Pool(pd.DataFrame(index=range(len(accuracy))), accuracy, {})
    scores = pool.scores("best")
    ranks, picked = [], []
    for column in scores.T:
        ranks.append(rank_among(column[0], column[1:], "larger").rank)
        best = _equal(column, column.max())
        picked.append(tuple(name for name, is_best in zip(names, best, strict=True) if is_best))
    regret = expected_path(pool, pool.size)["regret"]
    return SearchPicks(tuple(ranks), tuple(picked), tuple(regret.tolist()))
