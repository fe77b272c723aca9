"""Effects of architectures in groups: rank association, spread of two kinds, paired differences.

Intervals and p-values come from :mod:`nas_lightning.report.resampling`. Where a base cell has no more than
the two members of a pair, the base cell is the unit.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from jaxtyping import Bool, Float, Int

from nas_lightning.report.large_samples import LARGE, large_sample_test
from nas_lightning.report.resampling import (
    RESAMPLES,
    SEED,
    Block,
    Effects,
    ExchangeableBlock,
    Indices,
    Table,
    TestResult,
    Values,
    chunks,
    interval,
    permutation_p,
    resample,
    trusted_interval,
)

NOISE_FLOOR = 0.05
"""Share of an observed variance that remains at least when seed noise is taken off."""

Differences = Float[np.ndarray, " _"]


@dataclass(frozen=True, eq=False)
class RankBlock(ExchangeableBlock):
    """The architectures of one base cell: width, depth or path (the predictor), and the statistic by group.

    The jitter is the standard deviation of a value that is due to the directions in which it was measured, 0
    where there are none; the bootstrap adds normal noise of that size.
    """

    predictor: Values
    values: Table
    jitter: Table | None = None

    @property
    def arrangements(self) -> int:
        """Orders of the predictor that differ."""
        ties = Counter(self.predictor.tolist()).values()
        return self.permutations // math.prod(math.factorial(tie) for tie in ties)

    def observed(self) -> Float[np.ndarray, " groups"]:
        """Tau-b of the groups."""
        return np.asarray(self._taus(self.predictor[None], self.values[:, None])[0])

    def permuted(self, orders: Indices) -> Effects:
        """Tau-b where the predictor is exchanged among the architectures."""
        return self._taus(self.predictor[orders], self.values[:, None])

    def bootstrapped(self, draws: Indices, generator: np.random.Generator) -> Effects:
        """Tau-b of bootstrap draws."""
        return self._taus(self.predictor[draws], draw_values(self.values, self.jitter, draws, generator))

    def _taus(
        self,
        predictor: Float[np.ndarray, "draws architectures"],
        values: Float[np.ndarray, "groups _ architectures"],
    ) -> Effects:
        """Tau-b by draw and group; values that are those of all draws stand once."""
        one, other = np.triu_indices(self.size, 1)
        taus = np.full((len(predictor), len(values)), np.nan)
        for part in chunks(len(predictor), one.size):
            of_predictor = np.sign(predictor[part][:, one] - predictor[part][:, other])
            for group, every in enumerate(values):
                drawn = every[part] if len(every) > 1 else every
                of_value = np.sign(drawn[:, one] - drawn[:, other])
                known = np.isfinite(of_value)
                of_value = np.where(known, of_value, 0.0)
                surplus = np.sum(of_predictor * of_value, axis=1)
                pairs = np.sum((of_predictor != 0) & known, axis=1) * np.sum(of_value != 0, axis=1)
                with np.errstate(invalid="ignore", divide="ignore"):
                    taus[part, group] = np.where(pairs > 0, surplus / np.sqrt(pairs), np.nan)
        return taus


@dataclass(frozen=True, eq=False)
class SpreadBlock(Block):
    """The variants of one base cell: whether each is of the first kind, and the statistic by group.

    The noise is the variance of a value that is due to the seeds, 0 where it is unknown.
    """

    first: Bool[np.ndarray, " architectures"]
    values: Table
    noise: Table

    @property
    def permutations(self) -> int:
        """Ways to choose which variants are of the first kind."""
        return math.comb(self.size, int(self.first.sum()))

    def every(self) -> Indices:
        """All of these ways, as orders of the given flags."""
        chosen, rest = np.flatnonzero(self.first), np.flatnonzero(~self.first)
        orders = np.empty((self.permutations, self.size), int)
        for order, places in zip(orders, combinations(range(self.size), chosen.size), strict=True):
            order[list(places)] = chosen
            order[np.setdiff1d(np.arange(self.size), places)] = rest
        return orders

    def draw(self, generator: np.random.Generator, count: int) -> Indices:
        """Bootstrap draws within each kind."""
        drawn = np.empty((count, self.size), int)
        for kind in (self.first, ~self.first):
            members = np.flatnonzero(kind)
            drawn[:, kind] = members[generator.integers(0, members.size, (count, members.size))]
        return drawn

    def observed(self) -> Float[np.ndarray, " groups"]:
        """Log ratio of the standard deviations of the groups."""
        as_they_are = np.arange(self.size)[None]
        return np.asarray(self._ratios(as_they_are, as_they_are)[0])

    def permuted(self, orders: Indices) -> Effects:
        """Log ratios under permutations, after the mean of each kind in each group was taken off."""
        values = self.values.copy()
        for kind in (self.first, ~self.first):
            known = np.isfinite(values) & kind
            means = np.where(known, values, 0.0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)
            values[:, kind] -= means[:, None]
        return replace(self, values=values)._ratios(orders, np.arange(self.size)[None])

    def bootstrapped(self, draws: Indices, generator: np.random.Generator) -> Effects:
        """Log ratios of bootstrap draws."""
        return self._ratios(draws, draws)

    def _ratios(self, orders: Indices, draws: Int[np.ndarray, "_ architectures"]) -> Effects:
        """Log ratio of the standard deviations, with kinds in the first order and values in the second."""
        first = self.first[orders]
        ratios = np.full((len(orders), len(self.values)), np.nan)
        for group, (values, noise) in enumerate(zip(self.values, self.noise, strict=True)):
            drawn, seeds = values[draws], noise[draws]
            variances = []
            for kind in (first, ~first):
                member = kind & np.isfinite(drawn)
                count = member.sum(axis=1)
                with np.errstate(invalid="ignore", divide="ignore"):
                    mean = np.where(member, drawn, 0.0).sum(axis=1) / count
                    squares = np.where(member, (drawn - mean[:, None]) ** 2, 0.0).sum(axis=1)
                    variance = np.where(count >= 3, squares / (count - 1), np.nan)
                    noise_mean = np.where(member, seeds, 0.0).sum(axis=1) / count
                variances.append(np.maximum(variance - noise_mean, NOISE_FLOOR * variance))
            with np.errstate(invalid="ignore", divide="ignore"):
                ratio = 0.5 * np.log(variances[0] / variances[1])
            ratios[:, group] = np.where(np.isfinite(ratio), ratio, np.nan)
        return ratios


@dataclass(frozen=True, eq=False)
class _Pairs:
    """Paired differences of one base cell: the order that exchanges the two members changes their signs."""

    differences: Differences
    size = permutations = arrangements = 2

    def every(self) -> Indices:
        return np.array([[0, 1], [1, 0]])

    def permuted(self, orders: Indices) -> Effects:
        return np.asarray(np.where(orders[:, :1] == 0, 1.0, -1.0) * self.differences)


def draw_values(
    values: Table, jitter: Table | None, draws: Indices, generator: np.random.Generator
) -> Float[np.ndarray, "groups draws architectures"]:
    """Values of bootstrap draws with noise of the jitter's size, the same for one that is drawn twice."""
    if jitter is None or not jitter.any():
        return values[:, draws]
    noise = generator.normal(size=(len(values), len(draws), values.shape[1])) * jitter[:, None]
    return np.take_along_axis(values[:, None] + noise, draws[None], axis=2)


def rank_association(blocks: Sequence[RankBlock], *, resamples: int = RESAMPLES) -> TestResult:
    r"""Kendall's tau-b between predictor and statistic within groups, averaged over groups.

    .. math:: \tau_b = \frac{C - D}{\sqrt{(n_0 - n_x)(n_0 - n_y)}}

    with C concordant and D discordant pairs among all n_0, n_x of them tied in the predictor and n_y in the
    statistic. Pairs tied in either decide nothing, which suits widths (few values) and accuracies that were
    never reached; Spearman's coefficient would give such ties invented distances. Groups weigh as many as
    they have architectures; a group where all are tied has no effect and no weight.

    The p-value permutes the predictor among the architectures of a base cell: all permutations where there
    are at most ``EXACT_LIMIT``, else ``resamples`` random ones and (1 + b) / (1 + m). Two-sided by the
    absolute value. Where a base cell has more than ``LARGE`` architectures, p-value and interval come from
    the formulas of :mod:`nas_lightning.report.large_samples`.
    """
    if any(block.size > LARGE for block in blocks):
        return large_sample_test(blocks)
    return resample(blocks, resamples, "permutations")


def spread_ratio(blocks: Sequence[SpreadBlock], *, resamples: int = RESAMPLES) -> TestResult:
    r"""Logarithm of how many times wider the first kind spreads than the second, averaged over groups.

    .. math:: \ln\frac{s_1}{s_2}, \qquad s_k^2 = \max(\mathrm{Var}_k - N_k,\; 0.05\,\mathrm{Var}_k)

    with the variance between the variants of kind k and the mean N_k of their seed noise. Groups weigh as
    many as they have variants; a group needs three of each kind. The p-value exchanges the kinds within a
    base cell, after each kind's mean in the group was taken off: exchanged as they are, kinds of different
    means would give a wide spread to both, and a difference of the means alone would reject (at a distance of
    3 standard deviations in a fifth of all cases at the level 0.05). The test is exact but for the means
    being estimated.
    """
    widened_for = sum(block.size for block in blocks)
    return resample(blocks, resamples, "exchanges of kinds", widened_for=widened_for)


def paired_difference(cells: Sequence[Differences], *, resamples: int = RESAMPLES) -> TestResult:
    """Mean of paired differences; the p-value changes the signs of whole base cells.

    A base cell's differences (on several data sets, say) are of the same two architectures and no samples of
    their own: under the null hypothesis the two may be exchanged in all of them together, and the bootstrap
    draws whole cells. All 2^cells changes of sign are made where there are at most ``EXACT_LIMIT``, else
    ``resamples`` random ones. Every pair weighs the same. Interval and p-value need two base cells.
    """
    arrangements = 2 ** len(cells)
    group_effects = tuple(float(value) for cell in cells for value in cell)
    if len(cells) < 2:
        effect = float(np.mean(group_effects)) if group_effects else math.nan
        return TestResult(effect, math.nan, math.nan, math.nan, arrangements, "", group_effects)
    generator = np.random.default_rng(SEED)
    sums, sizes = np.array([cell.sum() for cell in cells]), np.array([cell.size for cell in cells])
    observed = float(sums.sum() / sizes.sum())
    found = permutation_p(
        observed,
        [_Pairs(cell) for cell in cells],
        [np.ones(cell.size) for cell in cells],
        resamples,
        generator,
        "changes of sign of base cells",
    )
    draws = generator.integers(0, len(cells), (resamples, len(cells)))
    means = sums[draws].sum(axis=1) / sizes[draws].sum(axis=1)
    low, high, no_interval = trusted_interval(observed, interval(means, widened_for=len(cells)), means)
    return TestResult(
        observed,
        low,
        high,
        arrangements=arrangements,
        group_effects=group_effects,
        no_interval=no_interval,
        **found,
    )
