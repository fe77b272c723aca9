"""Kendall's tau-b of many architectures, with p-value and interval by formula instead of by resampling.

With a hundred architectures the permutation distribution of tau is normal for all purposes of a report, its
variance is known exactly, and the jackknife has a closed form; both take one pass over the pairs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float
from scipy import stats

from nas_lightning.report.resampling import (
    CHUNK,
    CONFIDENCE,
    SEED,
    Table,
    TestResult,
    Values,
    trusted_interval,
)

LARGE = 100
"""Most architectures of a base cell for which a rank test resamples."""
_JITTERED = 20

Matrix = Float[np.ndarray, "groups groups"]


@runtime_checkable
class Ranked(Protocol):
    """The architectures of one base cell, as in :class:`~nas_lightning.report.effects.RankBlock`."""

    @property
    def predictor(self) -> Values:
        """Width, depth or path."""

    @property
    def values(self) -> Table:
        """The statistic by group; NaN where it is unknown."""

    @property
    def jitter(self) -> Table | None:
        """Standard deviation of a value that is due to directions."""

    @property
    def arrangements(self) -> int:
        """Orders of the predictor that differ."""

    @property
    def weights(self) -> Float[np.ndarray, " groups"]:
        """Weights of the groups."""


@dataclass(frozen=True, eq=False)
class _Pairs:
    """Sums over the pairs (i, j) of a base cell, with a = sign(x_i - x_j) and b = sign(y_i - y_j).

    By group and architecture i, the sums over j: of ab, of a² where y is known, of b². Over all: the variance
    of the sum of ab under permutations, by pairs of groups.
    """

    surplus: Table
    untied_x: Table
    untied_y: Table
    null_covariance: Matrix

    def taus(self) -> Float[np.ndarray, " groups"]:
        """Tau-b of the groups."""
        return _tau(self.surplus.sum(1), self.untied_x.sum(1), self.untied_y.sum(1))

    def taus_without_each(self) -> Table:
        """Tau-b of the groups without each architecture in turn."""
        sums = ((each.sum(1)[:, None] - 2 * each) for each in (self.surplus, self.untied_x, self.untied_y))
        return _tau(*sums)


def large_sample_test(blocks: Sequence[Ranked]) -> TestResult:
    r"""Tau-b averaged over groups, as :func:`~nas_lightning.report.effects.rank_association` defines it.

    The p-value takes the permutation distribution as normal with its exact variance, ties included. With
    :math:`a_{ij}` and :math:`b_{ij}` the signs of differences in predictor and statistic and dots for sums,

    .. math:: \mathrm{Var} \sum a_{ij} b_{ij} = \frac{4 (\sum a_{i.}^2 - \sum a_{ij}^2)
        (\sum b_{i.}^2 - \sum b_{ij}^2)}{n(n-1)(n-2)} + \frac{2 \sum a_{ij}^2 \sum b_{ij}^2}{n(n-1)}

    and for the covariance of two groups with the product of their b in place of the squares. The interval is
    the effect and 1.96 jackknife standard errors to both sides. Directions add the variance that noise of
    their size gives the effect.

    Source: Daniels, Biometrika 33, 1944; Kendall, Rank correlation methods, 1948, chapter 5.
    """
    pairs = [_pairs(block.predictor, block.values) for block in blocks]
    taus = [one.taus() for one in pairs]
    weights = [np.where(np.isnan(tau), 0.0, block.weights) for tau, block in zip(taus, blocks, strict=True)]
    total = sum(float(weight.sum()) for weight in weights)
    arrangements = math.prod(block.arrangements for block, w in zip(blocks, weights, strict=True) if w.any())
    group_effects = tuple(float(tau) for tau in np.concatenate(taus))
    if total == 0:
        return TestResult(math.nan, math.nan, math.nan, math.nan, arrangements, "", group_effects)
    effect = null = jackknife = 0.0
    for tau, weight, one in zip(taus, weights, pairs, strict=True):
        share = weight / total
        effect += float(np.nan_to_num(tau) @ share)
        with np.errstate(divide="ignore", invalid="ignore"):
            scaled = share / np.sqrt(one.untied_x.sum(1) * one.untied_y.sum(1))
        scaled = np.where(weight > 0, scaled, 0.0)
        null += float(scaled @ one.null_covariance @ scaled)
        without = share @ np.nan_to_num(one.taus_without_each())
        jackknife += (without.size - 1) * float(without.var())
    p_value = 2 * float(stats.norm.sf(abs(effect) / math.sqrt(null)))
    error = math.sqrt(jackknife + _direction_variance(blocks, weights))
    margin = float(stats.norm.isf((1 - CONFIDENCE) / 2)) * error
    ends = max(-1.0, effect - margin), min(1.0, effect + margin)
    low, high, no_interval = trusted_interval(effect, ends)
    test, smallest = "normal approximation of all permutations", 2 / arrangements
    return TestResult(effect, low, high, p_value, arrangements, test, group_effects, smallest, no_interval)


def _pairs(predictor: Values, values: Table) -> _Pairs:
    groups, size = values.shape
    known = np.isfinite(values)
    surplus, untied_x, untied_y = (np.zeros((groups, size)) for _ in range(3))
    row_x, row_y = np.zeros(size), np.zeros((groups, size))
    all_x, all_y = 0.0, np.zeros((groups, groups))
    step = max(1, CHUNK // (size * (groups + 2)))
    for start in range(0, size, step):
        part = slice(start, start + step)
        a = np.sign(predictor[part, None] - predictor).astype(np.float32)
        b = np.nan_to_num(np.sign(values[:, part, None] - values[:, None])).astype(np.float32)
        row_x[part], all_x = a.sum(1), all_x + float((a != 0).sum())
        row_y[:, part] = b.sum(2)
        surplus[:, part] = (a * b).sum(2)
        untied_x[:, part] = ((a != 0) & known[:, part, None] & known[:, None]).sum(2)
        untied_y[:, part] = (b != 0).sum(2)
        flat = b.reshape(groups, -1)
        all_y += flat @ flat.T
    ordered = size * (size - 1)
    of_x, of_y = float(row_x @ row_x) - all_x, row_y @ row_y.T - all_y
    covariance = 4 * of_x * of_y / (ordered * (size - 2)) + 2 * all_x * all_y / ordered
    return _Pairs(surplus, untied_x, untied_y, covariance)


def _tau(surplus: np.ndarray, untied_x: np.ndarray, untied_y: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore", divide="ignore"):
        tau: np.ndarray = surplus / np.sqrt(untied_x * untied_y)
    return tau


def _direction_variance(blocks: Sequence[Ranked], weights: Sequence[np.ndarray]) -> float:
    """Variance of the effect under noise of the jitter's size; 0 without jitter."""
    if not any(block.jitter is not None and block.jitter.any() for block in blocks):
        return 0.0
    generator, effects = np.random.default_rng(SEED), np.zeros(_JITTERED)
    for draw in range(_JITTERED):
        for block, weight in zip(blocks, weights, strict=True):
            noise = 0.0 if block.jitter is None else block.jitter * generator.normal(size=block.values.shape)
            tau = _pairs(block.predictor, block.values + noise).taus()
            effects[draw] += np.nan_to_num(tau) @ weight / sum(float(w.sum()) for w in weights)
    return float(effects.var(ddof=1))
