"""P-values of the report's tests for many studies at once: the same numbers, without a loop over studies.

A simulation asks one question of a thousand studies that differ in their values alone. Their permutations
are the same, so that a test of all of them is one matrix product: with a = sign(x_i - x_j) for the pairs of
an order and b = sign(y_i - y_j) for those of a study, tau-b of values without ties is the sum of ab over
them, divided by a root that no study changes. Values must not be tied, and every study has a value where
the block has one.

The tests are :func:`~nas_lightning.report.effects.rank_association`,
:func:`~nas_lightning.report.effects.spread_ratio`, :func:`~nas_lightning.report.original.original_rank`
and :func:`~nas_lightning.report.effects.paired_difference`; ``tests/report/test_batched.py`` compares them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from nas_lightning.report.effects import NOISE_FLOOR, RankBlock, SpreadBlock
from nas_lightning.report.large_samples import LARGE, large_sample_test
from nas_lightning.report.original import OriginalBlock
from nas_lightning.report.resampling import (
    EXACT_LIMIT,
    RESAMPLES,
    SEED,
    Indices,
    chunks,
)

Values = Float[np.ndarray, "studies _ _"]
Parts = Float[np.ndarray, "orders studies"]
PValues = Float[np.ndarray, " studies"]


@dataclass(frozen=True, eq=False)
class _Part:
    """A base cell: its share of the pooled effect of every study, by order."""

    size: int
    permutations: int
    every: Callable[[], Indices]
    effects: Callable[[Indices], Parts]


def rank_p_values(
    blocks: Sequence[RankBlock], values: Sequence[Values], *, resamples: int = RESAMPLES
) -> PValues:
    """P-values of ``rank_association`` for studies that share predictors and missing values.

    Args:
        blocks: The base cells. Their own values say only which are known.
        values: For each base cell the values of the studies, of which no two in a group are equal.
        resamples: Number of random permutations where there are too many for all.

    Returns:
        A p-value for each study; NaN without an effect.
    """
    if any(block.size > LARGE for block in blocks):
        studies = [
            [replace(block, values=each) for block, each in zip(blocks, one, strict=True)]
            for one in zip(*values, strict=True)
        ]
        return np.array([large_sample_test(study).p_value for study in studies])
    shares = _shares([_rank_weights(block) for block in blocks])
    parts = [
        _Part(block.size, block.permutations, block.every, _rank_effects(block, share, of_studies))
        for block, share, of_studies in zip(blocks, shares, values, strict=True)
    ]
    return _p_values(parts, resamples, any(share.any() for share in shares))


def original_p_values(
    blocks: Sequence[OriginalBlock], values: Sequence[Values], *, resamples: int = RESAMPLES
) -> PValues:
    """P-values of ``original_rank`` for studies that share missing values; arguments as for ranks."""
    used = [(block, each) for block, each in zip(blocks, values, strict=True) if block.weights.any()]
    shares = _shares([block.weights for block, _ in used])
    parts = []
    for (block, of_studies), share in zip(used, shares, strict=True):
        effects = np.zeros((block.size, len(of_studies)))
        for group, weight in enumerate(share):
            known = np.isfinite(block.values[group])
            if weight > 0:
                ranks = of_studies[:, group, known].argsort(axis=1).argsort(axis=1)
                effects[known] += weight * (ranks / (known.sum() - 1) - 0.5).T
        parts.append(_Part(block.size, block.permutations, block.every, _chosen(effects)))
    return _p_values(parts, resamples, bool(used))


def paired_p_values(
    cells: Sequence[Float[np.ndarray, "studies _"]], *, resamples: int = RESAMPLES
) -> PValues:
    """P-values of ``paired_difference`` for studies of the same base cells.

    Args:
        cells: For each base cell the differences of its pairs, by study.
        resamples: Number of random changes of sign where there are too many for all.
    """
    pairs = sum(cell.shape[1] for cell in cells)
    parts = []
    for cell in cells:
        sums = cell.sum(axis=1) / pairs
        parts.append(_Part(2, 2, _both_signs, _chosen(np.array([sums, -sums]))))
    return _p_values(parts, resamples, len(cells) >= 2)


def spread_p_values(
    blocks: Sequence[SpreadBlock],
    values: Sequence[Values],
    noise: Sequence[Values],
    *,
    resamples: int = RESAMPLES,
) -> PValues:
    """P-values of ``spread_ratio`` for studies that share kinds and missing values.

    Args:
        blocks: The base cells. Of their own values and noises only which are known counts.
        values: For each base cell the values of the studies.
        noise: Their estimated variances that are due to seeds.
        resamples: Number of random exchanges of kinds where there are too many for all.
    """
    shares = _shares([np.where(_known_kinds(block), block.weights, 0.0) for block in blocks])
    parts = [
        _Part(block.size, block.permutations, block.every, _spread_effects(block, share, *of_studies))
        for block, share, *of_studies in zip(blocks, shares, values, noise, strict=True)
    ]
    return _p_values(parts, resamples, any(share.any() for share in shares))


def _both_signs() -> Indices:
    return np.array([[0, 1], [1, 0]])


def _chosen(effects: Float[np.ndarray, "architectures studies"]) -> Callable[[Indices], Parts]:
    """Effects that depend on the first of an order alone."""

    def chosen(orders: Indices) -> Parts:
        return np.asarray(effects[orders[:, 0]])

    return chosen


def _rank_weights(block: RankBlock) -> np.ndarray:
    """Numbers of architectures of the groups, 0 where all are tied in the predictor."""
    known = np.isfinite(block.values)
    varied = [np.unique(block.predictor[each]).size > 1 for each in known]
    return np.where(varied, known.sum(axis=1), 0.0)


def _shares(weights: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Weights of the groups, of all base cells together 1."""
    total = sum(float(weight.sum()) for weight in weights)
    return [weight / total if total else weight for weight in weights]


def _rank_effects(block: RankBlock, share: np.ndarray, values: Values) -> Callable[[Indices], Parts]:
    """Weighted sum over the groups of tau-b, where the predictor is exchanged among the architectures."""
    one, other = np.triu_indices(block.size, 1)

    def effects(orders: Indices) -> Parts:
        predictor = np.sign(block.predictor[orders][:, one] - block.predictor[orders][:, other])
        found = np.zeros((len(orders), len(values)))
        for group, weight in enumerate(share):
            known = np.isfinite(block.values[group])
            pairs = known[one] & known[other]
            if weight == 0 or not pairs.any():
                continue
            of_order = predictor[:, pairs]
            of_study = np.sign(values[:, group, one[pairs]] - values[:, group, other[pairs]])
            root = np.sqrt((of_order != 0).sum(axis=1) * pairs.sum())
            scale = np.divide(weight, root, out=np.zeros_like(root), where=root > 0)
            found += (of_order * scale[:, None]) @ of_study.T
        return found

    return effects


def _known_kinds(block: SpreadBlock) -> np.ndarray:
    """Whether a group has three variants of each kind."""
    known = np.isfinite(block.values)
    counts = known[:, block.first].sum(axis=1), known[:, ~block.first].sum(axis=1)
    return np.asarray(np.minimum(*counts) >= 3)


def _spread_effects(
    block: SpreadBlock, share: np.ndarray, values: Values, noise: Values
) -> Callable[[Indices], Parts]:
    """Weighted sum over the groups of the log ratio of standard deviations, with kinds in another order."""

    def effects(orders: Indices) -> Parts:
        found = np.zeros((len(orders), len(values)))
        for group, weight in enumerate(share):
            known = np.isfinite(block.values[group])
            if weight == 0:
                continue
            first, kinds = block.first[known], block.first[orders][:, known]
            centred, seeds = values[:, group, known].copy(), noise[:, group, known]
            for kind in (first, ~first):
                centred[:, kind] -= centred[:, kind].mean(axis=1, keepdims=True)
            for few in chunks(len(values), len(orders)):
                ratios = _log_ratios(kinds.astype(float), centred[few], seeds[few])
                found[:, few] += weight * np.nan_to_num(ratios, posinf=0.0, neginf=0.0)
        return found

    return effects


def _log_ratios(
    kinds: Float[np.ndarray, "orders variants"],
    values: Float[np.ndarray, "studies variants"],
    noise: Float[np.ndarray, "studies variants"],
) -> Parts:
    """Log ratio of the standard deviations less seed noise; NaN where a kind has fewer than three."""
    variances = []
    for member in (kinds, 1 - kinds):
        count = member.sum(axis=1, keepdims=True)
        with np.errstate(invalid="ignore", divide="ignore"):
            squares = member @ (values**2).T - (member @ values.T) ** 2 / count
            variance = np.where(count >= 3, squares / (count - 1), np.nan)
            left = variance - member @ noise.T / count
        variances.append(np.maximum(left, NOISE_FLOOR * variance))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(0.5 * np.log(variances[0] / variances[1]))


def _p_values(parts: Sequence[_Part], resamples: int, has_effect: bool) -> PValues:
    """As :func:`~nas_lightning.report.resampling.permutation_p`, for all studies."""
    if not parts:
        return np.array([math.nan])
    observed = sum(part.effects(np.arange(part.size)[None])[0] for part in parts)
    observed = np.asarray(observed)
    if not has_effect:
        return np.full(observed.size, math.nan)
    threshold = np.abs(observed) * (1 - 1e-9) - 1e-12
    if (count := math.prod(part.permutations for part in parts)) <= EXACT_LIMIT:
        effects = [part.effects(part.every()) for part in parts]
        p_values = np.empty(observed.size)
        for few in chunks(observed.size, count):
            sums = np.zeros((1, p_values[few].size))
            for one in effects:
                sums = (sums[:, None] + one[:, few]).reshape(-1, sums.shape[1])
            p_values[few] = np.mean(np.abs(sums) >= threshold[few], axis=0)
        return p_values
    generator, sums = np.random.default_rng(SEED), np.zeros((resamples, observed.size))
    for part in parts:
        sums += part.effects(generator.permuted(np.tile(np.arange(part.size), (resamples, 1)), axis=1))
    return np.asarray((1 + (np.abs(sums) >= threshold).sum(axis=0)) / (1 + resamples))
