"""A cell's rank among its controls and a search's picks by counting one by one: slow and obvious."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction


def counted_rank(own: float, controls: Sequence[float], larger: bool) -> int:
    """1 + how many controls are not worse."""
    return 1 + sum(not _worse(value, own, larger) for value in controls)


def counted_p(own: float, controls: Sequence[float], larger: bool) -> Fraction:
    """Share of the cells, itself included, that are not worse."""
    everyone = [own, *controls]
    return Fraction(sum(not _worse(value, own, larger) for value in everyone), len(everyone))


def counted_opposite_p(own: float, controls: Sequence[float], larger: bool) -> Fraction:
    """Share of the cells, itself included, that are not better."""
    everyone = [own, *controls]
    return Fraction(sum(not _worse(own, value, larger) for value in everyone), len(everyone))


def _worse(value: float, than: float, larger: bool) -> bool:
    if not math.isfinite(value):
        return math.isfinite(than)
    if not math.isfinite(than):
        return False
    return value < than if larger else value > than


def listed_picks(
    accuracy: Sequence[Sequence[float]],
) -> tuple[list[int], list[list[int]], list[float]]:
    """By epoch: rank of cell 0, the cells with the best accuracy so far, and what they lose at the end."""
    ranks, picks, regrets = [], [], []
    ends = [max(curve) for curve in accuracy]
    for epoch in range(len(accuracy[0])):
        so_far = [max(curve[: epoch + 1]) for curve in accuracy]
        best = [cell for cell, score in enumerate(so_far) if score == max(so_far)]
        ranks.append(counted_rank(so_far[0], so_far[1:], larger=True))
        picks.append(best)
        regrets.append(100 * (max(ends) - sum(ends[cell] for cell in best) / len(best)))
    return ranks, picks, regrets
