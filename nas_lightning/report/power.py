r"""What a study can detect: the power of the report's tests, by simulation on the study's own design.

The model. The value of architecture i in the group g of its base cell, a mean over n seeds, is

.. math:: y_{ig} = \mu_g + \sigma_a \left(\rho z_i + \sqrt{1 - \rho^2}\, \varepsilon_i\right)
    + \frac{\sigma_s}{\sqrt{n_{ig}}}\, e_{ig}

with standard normal :math:`\varepsilon` and e. z are the midranks of the predictor (width, small depth,
short path) among the variants of a base cell, with mean 0 and standard deviation 1. :math:`\sigma_a` is the
standard deviation between architectures that were trained infinitely often, whatever explains it, and
:math:`\rho` the part that the predictor explains; :math:`\sigma_s` is the standard deviation between
seeds. What is peculiar to an architecture is the same in all of its groups, so that further groups make up
for seeds and for nothing else: power is rather too low where they differ.

An effect of ranks is printed as *population tau*: the expectation of the report's tau-b over
:math:`\varepsilon` at infinitely many seeds, in closed form (:func:`population_tau`). Differences in accuracy
are those of infinitely many seeds. An original lies that far above the mean of the cells that its variants
are drawn from; of a pair, two cells drawn from that population, one is shifted by it. Of the two kinds of
variants, those by connections spread by :math:`\sigma_a` and those by operations by less.

A study *detects* an effect if the p-value of the report's test, not corrected, is at most 0.05.

Sources: variance components of the one-way layout by the analysis of variance: Searle, Casella and
McCulloch, Variance components, 1992, chapter 3; power by simulation: Arnold et al., BMC Medical Research
Methodology 11:94, 2011; tau of a normal pair: Kendall, Rank correlation methods, 1948, chapter 9.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy import stats

from nas_lightning.report.batched import (
    original_p_values,
    paired_p_values,
    rank_p_values,
    spread_p_values,
)
from nas_lightning.report.effects import NOISE_FLOOR, RankBlock, SpreadBlock
from nas_lightning.report.large_samples import LARGE
from nas_lightning.report.original import OriginalBlock
from nas_lightning.report.resampling import EXACT_LIMIT, RESAMPLES
from nas_lightning.report.samples import take_sample
from nas_lightning.report.uncorrected import ALPHA

POWER = 0.8
"""Share of studies that must detect an effect."""
FARTHEST = 10.0
"""Largest difference that is tried, in standard deviations of a run."""
_STEPS = 6
_SEED = 0

Rate: TypeAlias = Callable[[float], float]
"""Share of simulated studies that detect an effect of a size."""


@dataclass(frozen=True)
class Effort:
    """How much is simulated.

    Attributes:
        studies: Simulated studies at each size of an effect.
        permutations: Random permutations of a test that cannot make all. The report makes more; with 999 the
            power is lower by less than half a point, with 199 by one or two.
    """

    studies: int = 1000
    permutations: int = 999


FULL = Effort()
"""For an answer in full."""


@dataclass(frozen=True)
class Noise:
    """Standard deviations in points of accuracy, or in any one unit.

    Attributes:
        seed: Between trainings of one architecture.
        architecture: Between architectures of a base cell that are trained infinitely often.
    """

    seed: float
    architecture: float

    def __post_init__(self) -> None:
        """Refuse what is no standard deviation."""
        if not 0 <= self.seed < math.inf:
            raise ValueError(f"`seed` (={self.seed:g}) must be a standard deviation of at least 0")
        if not 0 < self.architecture < math.inf:
            raise ValueError(f"`architecture` (={self.architecture:g}) must be a standard deviation above 0")


_SEED_DEVIATIONS = (0.12, 0.08, 0.09, 0.10, 0.09, 0.12, 0.19)
_DEVIATION = 0.233
_PUBLISHED_SEED = math.sqrt(sum(one**2 for one in _SEED_DEVIATIONS) / len(_SEED_DEVIATIONS))
PUBLISHED = Noise(_PUBLISHED_SEED, math.sqrt(_DEVIATION**2 - _PUBLISHED_SEED**2))
"""CIFAR-10, regularised training of 600 epochs with cutout and auxiliary tower, in points: 0.12 between
seeds, 0.20 between architectures. Seeds: root mean square of the standard deviations of seven cells of the
DARTS space, ten seeds each (Li and Talwalkar, "Random search and reproducibility for neural architecture
search", UAI 2019, tables 5 and 8). Architectures: the accuracies of 214 random DARTS cells after the last
epoch, one run each, have a standard deviation of 0.233 (data of Yang, Esperanca and Carlucci, ICLR 2020,
which ``study import random-darts`` reads); the seeds' variance is taken off. The short trainings of
``docs/evidence.md`` are ten times noisier."""


@dataclass(frozen=True)
class NoiseEstimate:
    """Variance components of the results so far, in the squared unit of the statistic.

    Attributes:
        within: Variance between seeds; NaN where no architecture has two.
        repeats: Its degrees of freedom.
        between: Variance between the means of architectures, seeds included; NaN without two in a group.
        contrasts: Its degrees of freedom.
        per_seed: Part of ``within`` that is left in those means: mean of 1 / seeds.
    """

    within: float
    repeats: int
    between: float
    contrasts: int
    per_seed: float

    def noise(self, seed: float | None = None, architecture: float | None = None) -> Noise:
        """Standard deviations, where a stated one goes before an estimate.

        The seeds' variance is taken off that between means, but a twentieth kept. What is neither stated nor
        known follows from the other by the ratio of :data:`PUBLISHED`.
        """
        ratio = PUBLISHED.architecture / PUBLISHED.seed
        if seed is None and self.within > 0:
            seed = math.sqrt(self.within)
        if self.between > 0:
            if seed is None and architecture is None:
                seed = math.sqrt(self.between / (ratio**2 + self.per_seed))
            if architecture is None and seed is not None:
                left = max(self.between - seed**2 * self.per_seed, NOISE_FLOOR * self.between)
                architecture = math.sqrt(left)
        if seed is None:
            seed = PUBLISHED.seed if architecture is None else architecture / ratio
        return Noise(seed, seed * ratio if architecture is None else architecture)


def estimate_noise(runs: pd.DataFrame, statistic: str, ranked: Sequence[str]) -> NoiseEstimate:
    r"""Variance components of a statistic, pooled over the report's groups by degrees of freedom.

    .. math:: E\, MS_\text{within} = \sigma_s^2, \qquad
        E\, \mathrm{Var}(\bar y_i) = \sigma_a^2 + \sigma_s^2 \overline{1/n_i}

    Args:
        runs: Finished runs in the columns of ``Results.runs``.
        statistic: A column.
        ranked: Kinds of architectures whose spread counts; of results without two of them in a group, all do.
    """
    every = ("original", "connections", "operations", "adapted", "own", "sampled")
    table = take_sample(runs, statistic, every).table
    repeats = int((table["seeds"] - 1).sum())
    squares = (table["noise"] * table["seeds"]).groupby(table["group"]).first()
    freedom = (table["seeds"] - 1).groupby(table["group"]).sum()
    within = float((squares * freedom).sum() / repeats) if repeats else math.nan
    chosen = table[table["kind"].isin(list(ranked))]
    if not chosen["group"].duplicated().any():
        chosen = table
    grouped = chosen.groupby("group")["value"]
    between, contrasts = grouped.var(ddof=1), grouped.size() - 1
    total = int(contrasts.sum())
    return NoiseEstimate(
        within,
        repeats,
        float((between.fillna(0.0) * contrasts).sum() / total) if total else math.nan,
        total,
        float((1 / chosen["seeds"]).mean()) if total else math.nan,
    )


@dataclass(frozen=True)
class Detectable:
    """The smallest effect that a study detects with a power of ``POWER``.

    Attributes:
        effect: The effect; NaN where the largest possible has less power.
        low: Lower end of its 95 % simulation interval: had other studies been simulated.
        high: Upper end; NaN where it is beyond the largest possible effect.
    """

    effect: float
    low: float
    high: float

    def mapped(self, to: Callable[[float], float]) -> Detectable:
        """The same in another unit, which rises with this one."""
        ends = (math.nan if math.isnan(end) else to(end) for end in (self.effect, self.low, self.high))
        return Detectable(*ends)


def detectable(
    rate: Rate, largest: float, *, studies: int = Effort.studies, power: float = POWER
) -> Detectable:
    """Search the smallest effect that is detected, by bisection and interpolation.

    Args:
        rate: Power by size of the effect, from the same random numbers for all sizes.
        largest: Largest possible effect.
        studies: Number of simulated studies behind a rate.
        power: The power that is asked for.
    """
    error = stats.norm.isf(0.025) * math.sqrt(power * (1 - power) / studies)
    # Without an effect the rate is about ALPHA, far from any power that is asked for.
    found = {0.0: 0.0, largest: rate(largest)}
    low, high = 0.0, largest
    if found[largest] >= power - error:
        for _ in range(_STEPS):
            middle = (low + high) / 2
            found[middle] = rate(middle)
            low, high = (low, middle) if found[middle] >= power else (middle, high)
    effects = sorted(found)
    rates = np.maximum.accumulate([found[effect] for effect in effects])

    def crossing(target: float) -> float:
        if rates[-1] < target:
            return math.nan
        place = int(np.argmax(rates >= target))
        if place == 0:
            return effects[0]
        part = (target - rates[place - 1]) / (rates[place] - rates[place - 1])
        return float(effects[place - 1] + part * (effects[place] - effects[place - 1]))

    return Detectable(crossing(power), crossing(power - error), crossing(power + error))


def rank_rate(blocks: Sequence[RankBlock], noise: Noise, effort: Effort = FULL) -> Rate:
    """Power of ``rank_association`` by the correlation rho of the model.

    Args:
        blocks: The base cells; values are numbers of seeds, NaN where an architecture is in no group.
        noise: The standard deviations.
        effort: How much is simulated.
    """
    drawn = _draws([block.values for block in blocks], effort.studies)

    def rate(correlation: float) -> float:
        values = []
        for block, (own, seeds) in zip(blocks, drawn, strict=True):
            true = correlation * _scores(block.predictor) + math.sqrt(1 - correlation**2) * own
            values.append(noise.architecture * true[:, None] + noise.seed * seeds)
        return _share(rank_p_values(blocks, values, resamples=effort.permutations))

    return rate


def original_rate(blocks: Sequence[OriginalBlock], noise: Noise, effort: Effort = FULL) -> Rate:
    """Power of ``original_rank`` by how far originals lie above the mean of their variants' population.

    Arguments as for :func:`rank_rate`; the original is the first of a block.
    """
    drawn = _draws([block.values for block in blocks], effort.studies)

    def rate(difference: float) -> float:
        values = []
        for own, seeds in drawn:
            true = noise.architecture * own
            true[:, 0] = difference
            values.append(true[:, None] + noise.seed * seeds)
        return _share(original_p_values(blocks, values, resamples=effort.permutations))

    return rate


def paired_rate(
    cells: Sequence[Float[np.ndarray, "_ 2"]],
    noise: Noise,
    effort: Effort = FULL,
) -> Rate:
    """Power of ``paired_difference`` by the mean difference of the pairs.

    The report compares logarithms of errors. Where differences are small against the errors, they are
    proportional to differences in points, and the p-value knows no unit.

    Args:
        cells: For each base cell the numbers of seeds of the two members of its pairs.
        noise: The standard deviations.
        effort: How much is simulated.
    """
    # The two members are architectures of the base cell: columns of a table of groups.
    drawn = _draws(list(cells), effort.studies)

    def rate(difference: float) -> float:
        differences = []
        for own, seeds in drawn:
            values = noise.architecture * own[:, None] + noise.seed * seeds
            differences.append(difference + values[:, :, 1] - values[:, :, 0])
        return _share(paired_p_values(differences, resamples=effort.permutations))

    return rate


def spread_rate(blocks: Sequence[SpreadBlock], noise: Noise, effort: Effort = FULL) -> Rate:
    """Power of ``spread_ratio`` by the logarithm of the ratio of the kinds' standard deviations.

    Variants of the first kind spread by ``noise.architecture``, the others by less. A study knows the seeds'
    variance from its own repeats alone, and takes none off without any. Arguments as for :func:`rank_rate`.
    """
    drawn = _draws([block.values for block in blocks], effort.studies)
    generator, noises = np.random.default_rng(_SEED + 1), []
    for block in blocks:
        freedom = np.nansum(block.values - 1, axis=1)
        squares = generator.chisquare(np.maximum(freedom, 1), (effort.studies, freedom.size))
        within = noise.seed**2 * np.where(freedom > 0, squares / np.maximum(freedom, 1), 0.0)
        noises.append(within[:, :, None] / block.values)

    def rate(log_ratio: float) -> float:
        values = []
        for block, (own, seeds) in zip(blocks, drawn, strict=True):
            spread = noise.architecture * np.where(block.first, 1.0, math.exp(-log_ratio))
            values.append((spread * own)[:, None] + noise.seed * seeds)
        return _share(spread_p_values(blocks, values, noises, resamples=effort.permutations))

    return rate


def population_tau(blocks: Sequence[RankBlock], correlation: float) -> float:
    r"""Expectation of the report's pooled tau-b without seed noise, at the correlation rho of the model.

    .. math:: E\,\tau_b = \frac{\sum_{x_i < x_j} \left(2 \Phi\left(\frac{\rho (z_j - z_i)}
        {\sqrt{2 (1 - \rho^2)}}\right) - 1\right)}{\sqrt{(n_0 - n_x)\, n_0}}

    It is below 1 at a correlation of 1 where predictors are tied.
    """
    taus, weights = [], []
    for block in blocks:
        scores = _scores(block.predictor)
        for known in np.isfinite(block.values):
            one, other = np.triu_indices(int(known.sum()), 1)
            gaps = np.abs(scores[known][one] - scores[known][other])
            gaps = gaps[gaps > 1e-12]
            if gaps.size:
                left = math.sqrt(2 * (1 - correlation**2))
                surplus = (2 * stats.norm.cdf(correlation * gaps / left) - 1).sum() if left else gaps.size
                taus.append(float(surplus) / math.sqrt(gaps.size * one.size))
                weights.append(int(known.sum()))
    return float(np.average(taus, weights=weights)) if taus else math.nan


def smallest_rank_p(blocks: Sequence[RankBlock], *, resamples: int = RESAMPLES) -> float:
    """P-value of the outcome that the predictor orders in full; NaN without an effect.

    Where permutations are drawn, it is the report's bound, which needs no draw.
    """
    drawn = math.prod(block.permutations for block in blocks) > EXACT_LIMIT
    if drawn and all(block.size <= LARGE for block in blocks) and population_tau(blocks, 1.0) > 0:
        return max(1 / (1 + resamples), 2 / math.prod(block.arrangements for block in blocks))
    ordered = [block.predictor.argsort(kind="stable").argsort().astype(float) for block in blocks]
    values = [np.tile(order, (1, len(b.values), 1)) for order, b in zip(ordered, blocks, strict=True)]
    return float(rank_p_values(blocks, values, resamples=resamples)[0])


def smallest_original_p(blocks: Sequence[OriginalBlock], *, resamples: int = RESAMPLES) -> float:
    """P-value where every original beats all of its variants; NaN without an effect."""
    values = [-np.tile(np.arange(b.size, dtype=float), (1, len(b.values), 1)) for b in blocks]
    return float(original_p_values(blocks, values, resamples=resamples)[0])


def smallest_paired_p(cells: Sequence[Float[np.ndarray, "_ 2"]], *, resamples: int = RESAMPLES) -> float:
    """P-value of pairs that all differ by the same; NaN with fewer than two base cells."""
    return float(paired_p_values([np.ones((1, len(cell))) for cell in cells], resamples=resamples)[0])


def smallest_spread_p(blocks: Sequence[SpreadBlock], *, resamples: int = RESAMPLES) -> float:
    """P-value where variants of the second kind are nearly alike; NaN without an effect."""
    values = [
        np.tile(np.where(b.first, 1.0, 1e-3) * np.arange(b.size) ** 2, (1, len(b.values), 1)) for b in blocks
    ]
    return float(spread_p_values(blocks, values, [0 * each for each in values], resamples=resamples)[0])


def _scores(predictor: Float[np.ndarray, " architectures"]) -> Float[np.ndarray, " architectures"]:
    """Midranks with mean 0 and standard deviation 1; 0 where all are tied."""
    ranks = stats.rankdata(predictor)
    spread = ranks.std()
    return np.asarray((ranks - ranks.mean()) / spread if spread > 0 else np.zeros_like(ranks))


def _draws(seeds: Sequence[Float[np.ndarray, "_ _"]], studies: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """What is peculiar to architectures, and the seeds' part of their means, in standard deviations."""
    generator = np.random.default_rng(_SEED)
    return [
        (
            generator.normal(size=(studies, table.shape[1])),
            generator.normal(size=(studies, *table.shape)) / np.sqrt(table),
        )
        for table in seeds
    ]


def _share(p_values: np.ndarray) -> float:
    return float(np.mean(p_values <= ALPHA))
