r"""Which cell a search with a given budget would have picked.

A search draws k of the N cells of a pool without replacement, trains them for e epochs and keeps the one with
the best score so far. What it keeps is expected exactly, without drawing. Where c cells of the pool score
higher, none of these is among the k with probability

.. math:: S(c) = \binom{N - c}{k} \Big/ \binom{N}{k},

so g cells that share a score, with c above them, hold the best of the k with probability S(c) - S(c + g), and
each of them is picked with one g-th of that. The width of the pick is expected to be the mean of the pool's
widths with these weights; depth, path and parameters likewise.

The regret is what the search loses at the end: the expected outcome of the best of the k, less that of the
pick, where the outcome of a cell is its best accuracy over the whole training.

Every interval is at 95 %. That of an expectation comes from a bootstrap of the pool's cells: it says how much
another pool from the same space could differ, for the same budget. That of a rank correlation is the
approximation of Bonett and Wright (Psychometrika 65, 2000): artanh(tau) is normal with variance
0.437 / (N - 4). The range over draws is no interval of an estimate but what single searches keep.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import pandas as pd
from jaxtyping import Float, Int
from scipy import stats

from nas_lightning.report.samples import group_columns, group_keys

Criterion: TypeAlias = Literal["best", "mean"]

FEWEST_CELLS = 5
"""Cells that a pool needs."""
BUDGETS = (10, 30, 100)
"""Numbers of cells drawn, as far as they are at most half the pool."""
RESAMPLES = 499
"""Bootstrap draws of an interval."""
QUANTITIES: Mapping[str, str] = MappingProxyType(
    {"width": "width", "depth": "depth", "network_path": "path", "parameters": "parameters"}
)
"""Columns of the result table that a pick is described by, and their names here."""
RANDOM_KINDS = ("connections", "operations", "sampled")
"""Kinds of cells that were drawn at random."""
_MIDDLE = 30
_TAIL = 0.025
_SEED = 0
_CHUNK = 4_000_000

Values = Float[np.ndarray, " cells"]


class Estimate(NamedTuple):
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, eq=False)
class Pool:
    """The cells that a search can draw from: all of one base cell or space, trained with the same settings.

    Attributes:
        runs: The runs, rows of Results.runs.
        accuracy: Accuracy of every cell after every epoch, a fraction, averaged over the seeds that have one;
            NaN where none has.
        quantities: Width, depth, mean path of the network and millions of parameters, those that are known of
            every cell.
        random: Whether every cell was drawn at random; if not, a searched cell or one that was chosen for its
            shape is among them, since too few random ones are there.
        left_out: Number of cells without any accuracy.
    """

    runs: pd.DataFrame
    accuracy: Float[np.ndarray, "cells epochs"]
    quantities: Mapping[str, Values]
    random: bool = True
    left_out: int = 0

    @property
    def size(self) -> int:
        """Number of cells."""
        return len(self.accuracy)

    @property
    def epochs(self) -> int:
        """Length of the training."""
        return int(self.accuracy.shape[1])

    @property
    def budgets(self) -> list[int]:
        """Those of :data:`BUDGETS` that are at most half the pool; half the pool where none is."""
        return [k for k in BUDGETS if 2 * k <= self.size] or [self.size // 2]

    @property
    def main_budget(self) -> int:
        """The budget that sentences speak of: 30, or the largest that is smaller."""
        return max((k for k in self.budgets if k <= _MIDDLE), default=self.budgets[0])

    @cached_property
    def outcome(self) -> Values:
        """Best accuracy of every cell over the whole training."""
        return self.scores("best")[:, -1]

    def scores(self, criterion: Criterion) -> Float[np.ndarray, "cells epochs"]:
        """What a search compares after every epoch: best or mean accuracy so far; -inf before the first."""
        known = np.isfinite(self.accuracy)
        if criterion == "best":
            return np.maximum.accumulate(np.where(known, self.accuracy, -np.inf), axis=1)
        counts = known.cumsum(axis=1)
        sums = np.where(known, self.accuracy, 0).cumsum(axis=1)
        return np.where(counts > 0, sums / np.maximum(counts, 1), -np.inf)


@dataclass(frozen=True, eq=False)
class Pick:
    """What a search keeps after an epoch.

    Attributes:
        epoch: Number of epochs trained, from 1.
        quantities: Expected width, depth, path and parameters of the pick, as far as the pool has them.
        differs: -1 or 1 where the interval of the pick's mean less the pool's excludes 0, else 0.
        ranges: What 90 % of single searches keep of each.
        regret: In points of accuracy (percent).
    """

    epoch: int
    quantities: Mapping[str, Estimate]
    differs: Mapping[str, int]
    ranges: Mapping[str, tuple[float, float]]
    regret: Estimate


def not_drawn(size: int, budget: int) -> Float[np.ndarray, " higher"]:
    """S(c) of the module for c from 0 to ``size``: the chance that none of c cells is among the drawn."""
    above = np.arange(size)
    factors = np.maximum(size - budget - above, 0) / (size - above)
    return np.concatenate([[1.0], np.cumprod(factors)])


def pick_probabilities(scores: Float[np.ndarray, "*times cells"], budget: int) -> np.ndarray:
    """Probability that each cell is the pick of ``budget`` drawn without replacement; ties share.

    Raises:
        ValueError: If the budget is not from 1 to the number of cells.
    """
    size = scores.shape[-1]
    if not 1 <= budget <= size:
        raise ValueError(f"`budget` (={budget}) must be from 1 to the number of cells (={size})")
    chance = not_drawn(size, budget)
    first = stats.rankdata(-scores, method="min", axis=-1).astype(int) - 1
    last = stats.rankdata(-scores, method="max", axis=-1).astype(int)
    return np.asarray((chance[first] - chance[last]) / (last - first))


def expected_picks(
    pool: Pool,
    budget: int,
    epochs: Sequence[int],
    criterion: Criterion = "best",
    *,
    resamples: int = RESAMPLES,
) -> list[Pick]:
    """What a search keeps after each of the epochs (numbers from 1), with intervals.

    Raises:
        ValueError: If the budget is not from 1 to the number of cells.
    """
    at = np.asarray(epochs) - 1
    scores = pool.scores(criterion)[:, at].T
    names = list(pool.quantities)
    facts = np.column_stack([*pool.quantities.values(), 100 * pool.outcome])
    chances = pick_probabilities(scores, budget)
    best = pick_probabilities(pool.outcome, budget) @ facts[:, -1]
    means = chances @ facts
    draws = _resampled(scores, facts, pool.outcome, budget, resamples)
    picks = []
    for row, epoch in enumerate(epochs):
        found, differs, ranges = {}, {}, {}
        for column, name in enumerate(names):
            found[name] = _estimate(means[row, column], draws.picks[row, :, column])
            gap = _estimate(0.0, draws.picks[row, :, column] - draws.means[:, column])
            differs[name] = int(gap.low > 0) - int(gap.high < 0)
            ranges[name] = _middle_range(facts[:, column], chances[row])
        regret = _estimate(best - means[row, -1], draws.best - draws.picks[row, :, -1])
        picks.append(Pick(int(epoch), found, differs, ranges, regret))
    return picks


def expected_path(pool: Pool, budget: int, criterion: Criterion = "best") -> dict[str, np.ndarray]:
    """Expected quantities and regret (key ``"regret"``) after every epoch, without intervals."""
    chances = pick_probabilities(pool.scores(criterion).T, budget)
    found = {name: np.asarray(chances @ values) for name, values in pool.quantities.items()}
    best = pick_probabilities(pool.outcome, budget) @ pool.outcome
    return found | {"regret": 100 * (best - chances @ pool.outcome)}


def rank_correlation(pool: Pool, epoch: int, criterion: Criterion = "best") -> Estimate:
    """Kendall's tau-b between the scores after an epoch (from 1) and the outcomes.

    NaN where all scores or all outcomes are the same.
    """
    tau = float(stats.kendalltau(pool.scores(criterion)[:, epoch - 1], pool.outcome).statistic)
    if math.isnan(tau):
        return Estimate(math.nan, math.nan, math.nan)
    if abs(tau) >= 1 or pool.size <= FEWEST_CELLS:
        # artanh has no value at 1; of so few cells the approximation says nothing.
        return Estimate(tau, tau if abs(tau) >= 1 else -1.0, tau if abs(tau) >= 1 else 1.0)
    half = stats.norm.isf(_TAIL) * math.sqrt(0.437 / (pool.size - 4))
    return Estimate(tau, math.tanh(math.atanh(tau) - half), math.tanh(math.atanh(tau) + half))


def find_pools(runs: pd.DataFrame, curves: pd.DataFrame) -> list[Pool]:
    """The pools of results, those with at least :data:`FEWEST_CELLS` cells, in the order of the runs.

    A pool has the cells of one base cell (or sampled space), data set and settings; runs of one genotype are
    one cell, whatever its name. A search draws at random, so searched originals and cells that were chosen
    for their shape (adapted, or of one's own) are left out, unless too few others remain.
    """
    if runs.empty:
        return []
    found = []
    tables = dict(iter(curves.groupby("run", sort=False)))
    for _, group in runs.groupby(group_keys(runs, group_columns(runs)), sort=False):
        unit = group["genotype"].fillna(group["architecture"])
        drawn = group["kind"].isin(RANDOM_KINDS)
        random = unit[drawn].nunique() >= FEWEST_CELLS
        chosen = group[drawn] if random else group
        pool = _pool(chosen, unit.reindex(chosen.index), tables)
        if random and pool.size < FEWEST_CELLS:
            pool, random = _pool(group, unit, tables), False
        if pool.size >= FEWEST_CELLS:
            every = bool(pool.runs["kind"].isin(RANDOM_KINDS).all())
            found.append(Pool(pool.runs, pool.accuracy, pool.quantities, every, pool.left_out))
    return found


def early_epoch(epochs: int) -> int:
    """The epoch that sentences call early: 5, or 1 of a training of fewer than 10 epochs."""
    return 5 if epochs >= 10 else 1


def table_epochs(epochs: int) -> list[int]:
    """A few epochs of a training: 1, 5, 20, 100, 500, ... and the last.

    Examples:
        >>> table_epochs(600)
        [1, 5, 20, 100, 500, 600]
    """
    few = [step * 10**power for power in (0, 2, 4) for step in (1, 5, 20)]
    return [epoch for epoch in few if epoch < epochs] + [epochs]


class _Draws(NamedTuple):
    """Bootstrap draws: facts of the pick, means of the pool, and the outcome of the best of the drawn."""

    picks: Float[np.ndarray, "times draws facts"]
    means: Float[np.ndarray, "draws facts"]
    best: Float[np.ndarray, " draws"]


def _resampled(
    scores: Float[np.ndarray, "times cells"],
    facts: Float[np.ndarray, "cells facts"],
    outcome: Values,
    budget: int,
    resamples: int,
) -> _Draws:
    """Draw cells of the pool with replacement; the same draws at all times."""
    size = len(facts)
    generator = np.random.default_rng(_SEED)
    counts = generator.multinomial(size, np.full(size, 1 / size), size=resamples)
    chance = not_drawn(size, budget)
    picks = np.stack([_resampled_pick(row, facts, counts, chance) for row in scores])
    best = _resampled_pick(outcome, facts[:, -1:], counts, chance)[:, 0]
    return _Draws(picks, counts @ facts / size, best)


def _resampled_pick(
    scores: Values,
    facts: Float[np.ndarray, "cells facts"],
    counts: Int[np.ndarray, "draws cells"],
    chance: Float[np.ndarray, " higher"],
) -> Float[np.ndarray, "draws facts"]:
    """Expected facts of the pick from pools that hold every cell the given number of times."""
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    found = np.zeros((len(counts), facts.shape[1]))
    chunk = max(1, _CHUNK // len(scores))
    for first in range(0, len(counts), chunk):
        of_chunk = counts[first : first + chunk, order]
        held = np.add.reduceat(of_chunk, starts, axis=1)
        above = np.concatenate([np.zeros((len(held), 1), int), held.cumsum(axis=1)], axis=1)
        weights = (chance[above[:, :-1]] - chance[above[:, 1:]]) / np.maximum(held, 1)
        each = np.repeat(weights, np.diff(np.r_[starts, len(scores)]), axis=1) * of_chunk
        found[first : first + chunk] = each @ facts[order]
    return found


def _estimate(value: float | np.floating, draws: Float[np.ndarray, " draws"]) -> Estimate:
    low, high = np.quantile(draws, [_TAIL, 1 - _TAIL]) if len(draws) else (math.nan, math.nan)
    return Estimate(float(value), float(low), float(high))


def _middle_range(values: Values, chances: Values) -> tuple[float, float]:
    """The values from the 5 % to the 95 % quantile of a distribution."""
    order = np.argsort(values, kind="stable")
    sums = chances[order].cumsum()
    # Rounding must not move a quantile past a value that carries it exactly.
    low, high = np.searchsorted(sums, np.array([0.05, 0.95]) - 1e-9)
    return float(values[order[low]]), float(values[order[min(high, len(values) - 1)]])


def _pool(runs: pd.DataFrame, unit: pd.Series, curves: Mapping[Any, pd.DataFrame]) -> Pool:
    """The pool of runs that are comparable; the unit is the cell of each."""
    cells = list(dict.fromkeys(unit))
    epochs = int(runs["epochs"].max())
    sums, counts = np.zeros((len(cells), epochs)), np.zeros((len(cells), epochs))
    places = {cell: place for place, cell in enumerate(cells)}
    for name, cell in zip(runs["run"], unit, strict=True):
        if name not in curves:
            continue
        curve = curves[name]
        values = curve["accuracy"].to_numpy(np.float64, na_value=np.nan)
        at = curve["epoch"].to_numpy(int)
        known = np.isfinite(values) & (at >= 0) & (at < epochs)
        sums[places[cell], at[known]] += values[known]
        counts[places[cell], at[known]] += 1
    accuracy = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
    kept = (counts > 0).any(axis=1)
    firsts = runs.groupby(unit.to_numpy(), sort=False).first().reindex(cells)[kept]
    quantities = {}
    for column, name in QUANTITIES.items():
        if column in firsts:
            values = firsts[column].to_numpy(np.float64, na_value=np.nan)
            if len(values) and np.isfinite(values).all():
                quantities[name] = values / (1e6 if name == "parameters" else 1.0)
    used = runs[unit.isin(firsts.index).to_numpy()]
    return Pool(used, accuracy[kept], quantities, left_out=int((~kept).sum()))
