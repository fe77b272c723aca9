"""Partial rank association: a predictor and a statistic of architectures, given other quantities."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy import stats

from nas_lightning.report.effects import draw_values
from nas_lightning.report.resampling import (
    RESAMPLES,
    Effects,
    ExchangeableBlock,
    Indices,
    Table,
    TestResult,
    Values,
    chunks,
    resample,
)

SPARE = 5
"""How far a group's architectures must outnumber the columns that are held fixed, intercept apart."""
_ROUNDING = 1e-9

Column = Float[np.ndarray, " known"]


@dataclass(frozen=True, eq=False)
class _Group:
    """A group: the architectures that have everything (known), and what the covariates leave.

    The basis of the covariates is orthonormal and orthogonal to a constant. What is left of predictor and
    statistic is 0 where the covariates tell all.
    """

    known: Int[np.ndarray, " known"]
    basis: Float[np.ndarray, "known rank"]
    predictor_left: Column
    values_left: Column

    @property
    def is_usable(self) -> bool:
        return self.known.size >= self.basis.shape[1] + SPARE and bool(
            self.predictor_left.any() and self.values_left.any()
        )


@dataclass(frozen=True, eq=False)
class PartialBlock(ExchangeableBlock):
    """The architectures of one base cell: predictor, covariates and statistic by group, NaN where unknown.

    An architecture without one of the covariates does not count in the group. The jitter is that of
    :class:`~nas_lightning.report.effects.RankBlock`.
    """

    predictor: Values
    covariates: Float[np.ndarray, "covariates groups architectures"]
    values: Table
    jitter: Table | None = None

    @property
    def weights(self) -> Float[np.ndarray, " groups"]:
        """How many architectures have everything, by group."""
        return np.array([group.known.size if group.is_usable else 0 for group in self._groups], float)

    @property
    def freedom(self) -> int:
        """Degrees of freedom of the correlations: architectures less columns that are held fixed, less 2."""
        usable = (group for group in self._groups if group.is_usable)
        return sum(group.known.size - group.basis.shape[1] - 2 for group in usable)

    @cached_property
    def _groups(self) -> list[_Group]:
        return [self._group(index) for index in range(len(self.values))]

    def _group(self, index: int) -> _Group:
        values, covariates = self.values[index], self.covariates[:, index]
        known = np.flatnonzero(
            np.isfinite(values) & np.isfinite(self.predictor) & np.isfinite(covariates).all(axis=0)
        )
        basis = _basis(covariates[:, known])
        ranks = stats.rankdata(self.predictor[known]) - (known.size + 1) / 2
        scores = normal_scores(values[known])
        return _Group(known, basis, _residual(ranks, basis), _residual(scores, basis))

    def observed(self) -> Float[np.ndarray, " groups"]:
        """Partial rank correlations of the groups."""
        return np.asarray(self.permuted(np.arange(self.size)[None])[0])

    def permuted(self, orders: Indices) -> Effects:
        """Partial rank correlations where the residuals of the statistic are exchanged."""
        effects = np.full((len(orders), len(self.values)), np.nan)
        for index, group in enumerate(self._groups):
            if not group.is_usable:
                continue
            place = np.full(self.size, -1)
            place[group.known] = np.arange(group.known.size)
            for part in chunks(len(orders), self.size):
                places = place[orders[part]]
                exchanged = group.values_left[places[places >= 0].reshape(len(places), -1)]
                again = exchanged - (exchanged @ group.basis) @ group.basis.T
                lengths = np.linalg.norm(again, axis=1) * np.linalg.norm(group.predictor_left)
                with np.errstate(invalid="ignore", divide="ignore"):
                    effects[part, index] = exchanged @ group.predictor_left / lengths
        return effects

    def bootstrapped(self, draws: Indices, generator: np.random.Generator) -> Effects:
        """Correlations of what the covariates leave, of bootstrap draws."""
        effects = np.full((len(draws), len(self.values)), np.nan)
        jitter = self.jitter if self.jitter is not None and self.jitter.any() else None
        own = np.arange(self.size)[None]
        for index, group in enumerate(self._groups):
            if not group.is_usable:
                continue
            place, one = np.full(self.size, -1), slice(index, index + 1)
            place[group.known] = np.arange(group.known.size)
            for part in chunks(len(draws), 2 * self.size):
                drawn = place[draws[part]]
                used = drawn >= 0
                left = group.values_left[None]
                if jitter is not None:
                    noisy = draw_values(
                        self.values[one], jitter[one], own.repeat(len(drawn), axis=0), generator
                    )
                    scores = normal_scores(noisy[0][:, group.known])
                    left = scores - (scores @ group.basis) @ group.basis.T
                of_values = np.take_along_axis(left.repeat(len(drawn) // len(left), axis=0), drawn, axis=1)
                effects[part, index] = _correlation(group.predictor_left[drawn], of_values, used)
        return effects


def partial_association(blocks: Sequence[PartialBlock], *, resamples: int = RESAMPLES) -> TestResult:
    r"""Partial rank correlation of predictor and statistic given covariates, averaged over groups.

    Within a group, the predictor x is replaced by its ranks and the statistic y by the normal scores of its
    ranks, :math:`\Phi^{-1}((r - 1/2)/n)`; the effect is the correlation of what is left of both when each is
    regressed on the covariates. A covariate enters twice, by its value and by its rank: by rank alone, a
    covariate with a strong hold on y is not taken off in full, and tests of a width that follows it rejected
    in up to 11 % of cases instead of 5. A group needs ``SPARE`` architectures more than the covariates have
    independent columns.

    The p-value is that of Freedman and Lane: the reduced model is y on the covariates; its residuals are
    exchanged among the architectures of a base cell, whole architectures at a time, added to what the reduced
    model fits, and the effect is computed anew. Permuting y itself would break its relation to the
    covariates, too. The test is not exact but for many architectures; ``tests/report/test_calibration.py``
    says how far it can be trusted with 13 in each of four base cells.

    The bootstrap draws architectures with their residuals; its percentiles move outwards by the root of
    n / (n - k - 2), for k columns that are held fixed.

    Source: Freedman and Lane, Journal of Business and Economic Statistics 1, 1983; Winkler et al.,
    NeuroImage 92, 2014, compare it with other ways.
    """
    size = sum(block.size for block in blocks)
    most = max(999, 20_000_000 // max(size, 1))
    known = sum(float(block.weights.sum()) for block in blocks)
    left = sum(block.freedom for block in blocks)
    spread = math.sqrt(known / left) if left else 1.0
    return resample(blocks, min(resamples, most), "exchanges of residuals", spread=spread)


def normal_scores(values: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """Normal scores of ranks along the last axis, ties in the middle, less their mean."""
    if not values.size:
        return values
    scores = stats.norm.ppf((stats.rankdata(values, axis=-1) - 0.5) / values.shape[-1])
    return np.asarray(scores - scores.mean(axis=-1, keepdims=True))


def _basis(covariates: Float[np.ndarray, "covariates known"]) -> Float[np.ndarray, "known rank"]:
    """Orthonormal basis of the values and the ranks of covariates, each less its mean."""
    known = covariates.shape[1]
    if not known or not len(covariates):
        return np.zeros((known, 0))
    columns = np.vstack([covariates, stats.rankdata(covariates, axis=1)])
    columns = columns - columns.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(columns, axis=1)
    # What is constant but for rounding says nothing.
    sizes = np.maximum(1.0, np.abs(np.vstack([covariates, covariates])).max(axis=1))
    columns = columns[lengths > _ROUNDING * sizes] / lengths[lengths > _ROUNDING * sizes, None]
    _, scales, basis = np.linalg.svd(columns, full_matrices=False)
    return np.asarray(basis[scales > 1e-6].T)


def _residual(column: Column, basis: Float[np.ndarray, "known rank"]) -> Column:
    """What is left of a column beside the basis; exact zeros where nothing is."""
    left = column - basis @ (basis.T @ column)
    if np.linalg.norm(left) <= 1e-6 * np.linalg.norm(column):
        return np.zeros_like(left)
    return np.asarray(left)


def _correlation(
    one: Float[np.ndarray, "draws size"],
    other: Float[np.ndarray, "draws size"],
    used: Bool[np.ndarray, "draws size"],
) -> Float[np.ndarray, " draws"]:
    """Pearson's correlation of the used entries, by draw; NaN where one of them is constant."""
    count = np.maximum(used.sum(axis=1, keepdims=True), 1)
    one, other = (
        np.where(used, values - np.where(used, values, 0.0).sum(axis=1, keepdims=True) / count, 0.0)
        for values in (one, other)
    )
    squares = (one**2).sum(axis=1) * (other**2).sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(squares > _ROUNDING**2, (one * other).sum(axis=1) / np.sqrt(squares), np.nan)
