"""Tests for few architectures in groups: rank association, spread, paired difference.

An architecture is the unit. Its runs under several settings (data sets, learning rates) share what is
peculiar to it, so it is moved as a whole: permutations and bootstrap draws are made once per base cell, for
all of its settings together. Architectures are exchanged within a base cell only. Where the two members of a
pair are all that a base cell has, the base cell is the unit.

Source of the claims: Shu, Wang and Cai, ICLR 2020, sections 4 and 5, which print no tests.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int

from nas_lightning.report.resampling import (
    RESAMPLES,
    SEED,
    Indices,
    TestResult,
    all_choices,
    all_orders,
    interval,
    permutation_p,
    pool,
)

NOISE_FLOOR = 0.05
"""Share of an observed variance that is left at least when seed noise is taken off."""

Values = Float[np.ndarray, " architectures"]
Table = Float[np.ndarray, "groups architectures"]
Differences = Float[np.ndarray, " _"]


@dataclass(frozen=True, eq=False)
class RankBlock:
    """The architectures of one base cell.

    Attributes:
        predictor: What is thought to matter, of each architecture.
        measures: The measure, by group (settings) and architecture; NaN where it was not measured.
    """

    predictor: Values
    measures: Table


@dataclass(frozen=True, eq=False)
class SpreadBlock:
    """The variants of one base cell, of two kinds.

    Attributes:
        first: Whether a variant is of the first kind.
        measures: The measure, by group (settings) and variant; NaN where it was not measured.
        noise: Variance of each value that is due to the seeds, 0 where it is unknown.
    """

    first: Bool[np.ndarray, " variants"]
    measures: Float[np.ndarray, "groups variants"]
    noise: Float[np.ndarray, "groups variants"]


def rank_association(blocks: Sequence[RankBlock], *, resamples: int = RESAMPLES) -> TestResult:
    r"""Kendall's tau-b between predictor and measure within groups, averaged over groups.

    .. math:: \tau_b = \frac{C - D}{\sqrt{(n_0 - n_x)(n_0 - n_y)}}

    with C concordant and D discordant pairs among all n_0, n_x of them tied in the predictor and n_y in the
    measure. Pairs tied in either decide nothing, which suits widths (few values) and measures that were
    never reached; Spearman's coefficient would give such ties invented distances. Groups weigh as many as
    they have architectures; a group where all are tied has no effect and no weight.

    The p-value permutes the predictor among the architectures of a base cell: all permutations where there
    are at most ``EXACT_LIMIT``, else ``resamples`` random ones and (1 + b) / (1 + m). Two-sided by the
    absolute value.

    Args:
        blocks: The base cells.
        resamples: Number of random permutations and of bootstrap draws.

    Returns:
        The pooled effect with its interval and p-value.
    """
    generator = np.random.default_rng(SEED)
    identity = [np.arange(block.predictor.size)[None] for block in blocks]
    effects, weights = [], []
    for block, same in zip(blocks, identity, strict=True):
        effects.append(_block_taus(block, same, same)[0])
        weights.append(np.isfinite(block.measures).sum(axis=1).astype(float))
    observed = pool([effect[None] for effect in effects], weights)[0]
    group_effects = tuple(float(value) for value in np.concatenate(effects)) if effects else ()
    arrangements = math.prod(
        _arrangements(block, effect) for block, effect in zip(blocks, effects, strict=True)
    )
    if math.isnan(observed):
        return TestResult(math.nan, math.nan, math.nan, math.nan, arrangements, "", group_effects)

    # A group that says nothing as observed has no say in a permutation either; one whose predictor a
    # permutation makes constant counts 0.
    null_weights = [np.where(np.isnan(e), 0.0, w) for e, w in zip(effects, weights, strict=True)]
    total = sum(float(weight.sum()) for weight in null_weights)

    def null(block: int, draws: Indices) -> Float[np.ndarray, " draws"]:
        taus = np.nan_to_num(_block_taus(blocks[block], draws, identity[block]))
        return np.asarray(taus @ null_weights[block] / total)

    sizes = [block.predictor.size for block in blocks]
    p_value, test = permutation_p(
        observed,
        null,
        sizes,
        [math.factorial(size) for size in sizes],
        lambda block: all_orders(sizes[block]),
        resamples,
        generator,
    )
    draws = [generator.integers(0, size, (resamples, size)) for size in sizes]
    taus = [_block_taus(block, draw, draw) for block, draw in zip(blocks, draws, strict=True)]
    low, high = interval(pool(taus, weights))
    return TestResult(float(observed), low, high, p_value, arrangements, test, group_effects)


def spread_ratio(blocks: Sequence[SpreadBlock], *, resamples: int = RESAMPLES) -> TestResult:
    r"""Logarithm of how many times wider the first kind spreads than the second, averaged over groups.

    .. math:: \ln\frac{s_1}{s_2}, \qquad s_k^2 = \max(\mathrm{Var}_k - N_k,\; 0.05\,\mathrm{Var}_k)

    with the variance between the variants of kind k and the mean N_k of their seed noise. Groups weigh as
    many as they have variants; a group needs three of each kind. The p-value exchanges the kinds within a
    base cell, after each kind's mean in the group was taken off: exchanged as they are, kinds of different
    means would give a wide spread to both, and a difference of the means alone would reject (at a distance of
    3 standard deviations in a fifth of all cases at the level 0.05). The test is exact but for the means
    being estimated.

    Args:
        blocks: The base cells.
        resamples: Number of random permutations and of bootstrap draws.

    Returns:
        The pooled effect with its interval and p-value.
    """
    generator = np.random.default_rng(SEED)
    identity = [np.arange(block.first.size)[None] for block in blocks]
    effects, weights = [], []
    for block, same in zip(blocks, identity, strict=True):
        effects.append(_block_spreads(block, block.first[same], same)[0])
        weights.append(np.isfinite(block.measures).sum(axis=1).astype(float))
    observed = pool([effect[None] for effect in effects], weights)[0]
    group_effects = tuple(float(value) for value in np.concatenate(effects)) if effects else ()
    counts = [math.comb(block.first.size, int(block.first.sum())) for block in blocks]
    usable = [bool(np.isfinite(effect).any()) for effect in effects]
    arrangements = math.prod(count for count, use in zip(counts, usable, strict=True) if use)
    if math.isnan(observed):
        return TestResult(math.nan, math.nan, math.nan, math.nan, arrangements, "", group_effects)
    null_weights = [np.where(np.isnan(e), 0.0, w) for e, w in zip(effects, weights, strict=True)]
    total = sum(float(weight.sum()) for weight in null_weights)

    centered = [_centered(block) for block in blocks]

    def null(block: int, draws: Indices) -> Float[np.ndarray, " draws"]:
        chosen = centered[block]
        same = np.broadcast_to(identity[block], draws.shape)
        ratios = np.nan_to_num(_block_spreads(chosen, chosen.first[draws], same))
        return np.asarray(ratios @ null_weights[block] / total)

    def all_kinds(block: int) -> Indices:
        return all_choices(blocks[block].first)

    p_value, test = permutation_p(
        observed,
        null,
        [block.first.size for block in blocks],
        counts,
        all_kinds,
        resamples,
        generator,
        "exchanges of kinds",
    )
    draws = []
    for block in blocks:
        draw = np.empty((resamples, block.first.size), int)
        for kind in (True, False):
            members = np.flatnonzero(block.first == kind)
            draw[:, members] = members[generator.integers(0, members.size, (resamples, members.size))]
        draws.append(draw)
    spreads = [_block_spreads(block, block.first[d], d) for block, d in zip(blocks, draws, strict=True)]
    variants = sum(block.first.size for block in blocks)
    low, high = interval(pool(spreads, weights), widened_for=variants)
    return TestResult(float(observed), low, high, p_value, arrangements, test, group_effects)


def paired_difference(cells: Sequence[Differences], *, resamples: int = RESAMPLES) -> TestResult:
    """Mean of paired differences; the p-value changes the signs of whole base cells.

    A base cell's differences (on several data sets, say) are of the same two architectures and no samples of
    their own: under the null hypothesis the two may be exchanged in all of them together, and the bootstrap
    draws whole cells. All 2^cells changes of sign are made where there are at most ``EXACT_LIMIT``, else
    ``resamples`` random ones. Every pair weighs the same.

    Args:
        cells: The differences of each base cell, one number a pair; at least one each.
        resamples: Number of random changes of sign and of bootstrap draws.

    Returns:
        The mean with its interval and p-value; these need two base cells.
    """
    arrangements = 2 ** len(cells)
    group_effects = tuple(float(value) for cell in cells for value in cell)
    if len(cells) < 2:
        effect = float(np.mean(group_effects)) if group_effects else math.nan
        return TestResult(effect, math.nan, math.nan, math.nan, arrangements, "", group_effects)
    generator = np.random.default_rng(SEED)
    sums, sizes = np.array([cell.sum() for cell in cells]), np.array([cell.size for cell in cells])
    observed = float(sums.sum() / sizes.sum())

    def null(cell: int, draws: Indices) -> Float[np.ndarray, " draws"]:
        signs = np.where(draws[:, 0] == 0, 1.0, -1.0)
        return np.asarray(signs * sums[cell] / sizes.sum())

    p_value, test = permutation_p(
        observed,
        null,
        [2] * len(cells),
        [2] * len(cells),
        lambda _: all_orders(2),
        resamples,
        generator,
        "changes of sign of base cells",
    )
    draws = generator.integers(0, len(cells), (resamples, len(cells)))
    means = sums[draws].sum(axis=1) / sizes[draws].sum(axis=1)
    low, high = interval(means, widened_for=len(cells))
    return TestResult(observed, low, high, p_value, arrangements, test, group_effects)


def _block_taus(
    block: RankBlock, predictor_draws: Indices, measure_draws: Int[np.ndarray, "_ architectures"]
) -> np.ndarray:
    """Tau-b by draw and group: predictors and measures in the order of two lists of draws."""
    one, other = np.triu_indices(block.predictor.size, 1)
    predictor = block.predictor[predictor_draws]
    of_predictor = np.sign(predictor[:, one] - predictor[:, other])
    taus = np.full((len(predictor_draws), len(block.measures)), np.nan)
    for group, values in enumerate(block.measures):
        measure = values[measure_draws]
        of_measure = np.sign(measure[:, one] - measure[:, other])
        known = np.isfinite(of_measure)
        of_measure = np.where(known, of_measure, 0.0)
        surplus = np.sum(of_predictor * of_measure, axis=1)
        pairs = np.sum((of_predictor != 0) & known, axis=1) * np.sum(of_measure != 0, axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            taus[:, group] = np.where(pairs > 0, surplus / np.sqrt(pairs), np.nan)
    return taus


def _centered(block: SpreadBlock) -> SpreadBlock:
    """The block with each kind's mean taken off in each group."""
    measures = block.measures.copy()
    for kind in (block.first, ~block.first):
        known = np.isfinite(measures) & kind
        counts = np.maximum(known.sum(axis=1), 1)
        means = np.where(known, measures, 0.0).sum(axis=1) / counts
        measures[:, kind] -= means[:, None]
    return replace(block, measures=measures)


def _block_spreads(block: SpreadBlock, first: np.ndarray, measure_draws: Indices) -> np.ndarray:
    """Log ratio of the spreads by draw and group."""
    ratios = np.full((len(first), len(block.measures)), np.nan)
    for group, (values, noise) in enumerate(zip(block.measures, block.noise, strict=True)):
        measure, seeds = values[measure_draws], noise[measure_draws]
        spreads = []
        for kind in (first, ~first):
            member = kind & np.isfinite(measure)
            count = member.sum(axis=1)
            with np.errstate(invalid="ignore", divide="ignore"):
                mean = np.where(member, measure, 0.0).sum(axis=1) / count
                squares = np.where(member, (measure - mean[:, None]) ** 2, 0.0).sum(axis=1)
                variance = np.where(count >= 3, squares / (count - 1), np.nan)
                noise_mean = np.where(member, seeds, 0.0).sum(axis=1) / count
            spreads.append(np.maximum(variance - noise_mean, NOISE_FLOOR * variance))
        with np.errstate(invalid="ignore", divide="ignore"):
            ratio = 0.5 * np.log(spreads[0] / spreads[1])
        ratios[:, group] = np.where(np.isfinite(ratio), ratio, np.nan)
    return ratios


def _arrangements(block: RankBlock, effects: np.ndarray) -> int:
    """Different orders of the predictor among the architectures, 1 where no group has an effect."""
    if not np.isfinite(effects).any():
        return 1
    ties = Counter(block.predictor.tolist()).values()
    return math.factorial(block.predictor.size) // math.prod(math.factorial(tie) for tie in ties)
