"""The rank of the searched original among its variants, exact."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Int
from scipy import stats

from nas_lightning.report.resampling import (
    CONFIDENCE,
    RESAMPLES,
    SEED,
    Effects,
    Table,
    TestResult,
    null_weights,
    permutation_p,
    pool_observed,
)

NULL = 0.5
"""Mid-percentile of an original that is one of its variants like any other."""


@dataclass(frozen=True, eq=False)
class OriginalBlock:
    """A base cell: the statistic of the original (first) and of its variants by group, NaN where unknown.

    Under the null hypothesis the original is any of them with the same probability, one and the same in all
    groups. Effects are mid-percentiles less ``NULL``.
    """

    values: Table

    @property
    def size(self) -> int:
        """Number of architectures."""
        return int(self.values.shape[1])

    @property
    def permutations(self) -> int:
        """Which of the architectures can be the original."""
        return self.size

    arrangements = permutations

    @property
    def weights(self) -> Float[np.ndarray, " groups"]:
        """Number of variants of the groups whose original is known."""
        variants = np.isfinite(self.values[:, 1:]).sum(axis=1)
        return np.where(np.isfinite(self.values[:, 0]), variants, 0).astype(float)

    @property
    def variants(self) -> int:
        """Number of variants that the original is compared with somewhere."""
        return int(np.isfinite(self.values[self.weights > 0, 1:]).any(axis=0).sum())

    def every(self) -> Int[np.ndarray, "architectures 1"]:
        """All choices."""
        return np.arange(self.size)[:, None]

    def observed(self) -> Float[np.ndarray, " groups"]:
        """Mid-percentiles of the original, less a half."""
        return np.where(self.weights > 0, self._percentiles[0], np.nan)

    def permuted(self, orders: Int[np.ndarray, "draws _"]) -> Effects:
        """Mid-percentiles, less a half, where the first of an order is the original."""
        return np.asarray(self._percentiles[orders[:, 0]])

    @property
    def _percentiles(self) -> Float[np.ndarray, "architectures groups"]:
        above = np.nan_to_num(np.sign(self.values[:, :, None] - self.values[:, None])).sum(axis=2)
        known = np.isfinite(self.values)
        others = np.maximum(known.sum(axis=1, keepdims=True) - 1, 1)
        return np.where(known, above / (2 * others), np.nan).T


def original_rank(blocks: Sequence[OriginalBlock], *, resamples: int = RESAMPLES) -> TestResult:
    r"""Mid-percentile of the originals among their variants, averaged over groups.

    .. math:: \frac{\#\{\text{variants below}\} + \tfrac12 \#\{\text{variants equal}\}}{\#\text{variants}}

    One half is what an original has that is no better than its variants; 1 is better than all. Groups weigh
    as many as they have variants. The p-value is exact: each of a base cell's n + 1 architectures can be the
    original, the same in all of its groups, and base cells are combined by all choices where there are at
    most ``EXACT_LIMIT``, else by random ones. With one base cell and an original that beats its n variants it
    is 2 / (n + 1).

    The interval is that of Clopper and Pearson for the share of variants that the originals beat, with as
    many trials as there are variants. Base cells that differ in their share make it wider than it need be.
    It holds for the originals as they were trained: their own noise is no part of it.
    """
    used = [block for block in blocks if block.weights.any()]
    pooled = pool_observed(used)
    if math.isnan(pooled.effect):
        return pooled
    found = permutation_p(
        pooled.effect,
        used,
        null_weights(used),
        resamples,
        np.random.default_rng(SEED),
        "choices of the original",
    )
    trials, tail = sum(block.variants for block in used), (1 - CONFIDENCE) / 2
    beaten = (pooled.effect + NULL) * trials
    low = stats.beta.ppf(tail, beaten, trials - beaten + 1) if beaten > 1e-9 else 0.0
    high = stats.beta.isf(tail, beaten + 1, trials - beaten) if trials - beaten > 1e-9 else 1.0
    group_effects = tuple(effect + NULL for effect in pooled.group_effects)
    return replace(
        pooled,
        effect=pooled.effect + NULL,
        low=float(low),
        high=float(high),
        group_effects=group_effects,
        **found,
    )
