"""Where a value stands: counts, mid-percentile and an exact two-sided p-value.

Under the null hypothesis the cell is drawn uniformly from a known set. With m(x) the mid-percentile of x in
the set, the share of its members below x and half that of its equals, the p-value is the share of members
that lie as far from the middle or farther,

p = P(|m(X) - 1/2| >= |m(x) - 1/2|).

It is exact for any set with any ties: P(p <= a) <= a for every level a, and without ties p takes the values
2/n, 4/n, ... of a set of n.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from nas_lightning.report.resampling import CONFIDENCE

_SLACK = 1e-12


@dataclass(frozen=True)
class Standing:
    """Where a value stands among others.

    Attributes:
        value: The value.
        total: Number of those it is compared with: a space holds the cell itself, controls do not.
        below: How many have a smaller value.
        equal: How many have the same value.
        above: How many have a larger value.
        percentile: (below + equal / 2) / total, from 0 to 1.
        p_value: Exact and two-sided, under "drawn uniformly"; None where the cell is none of the set.
        low: Lower end of the percentile's 95 % interval where the set is a sample, else the percentile.
        high: Upper end.
    """

    value: float
    total: int
    below: int
    equal: int
    above: int
    percentile: float
    p_value: float | None
    low: float
    high: float

    @property
    def at_least(self) -> int:
        """How many have this value or a larger one."""
        return self.equal + self.above

    @property
    def at_most(self) -> int:
        """How many have this value or a smaller one."""
        return self.below + self.equal

    def record(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self) | {"at_least": self.at_least, "at_most": self.at_most}


def in_space(
    value: float | int,
    values: Shaped[np.ndarray, " n"],
    counts: Shaped[np.ndarray, " n"] | None = None,
    *,
    digits: int | None = None,
    member: bool = True,
) -> Standing | None:
    """Rank a value in a whole space, which holds the cell itself if ``member``.

    Args:
        value: The cell's.
        values: Those of the space; NaN where a member has none, which then counts nowhere.
        counts: How many members have each value; None is one each. Counts above 2**53 are rounded.
        digits: Decimals to which values are compared, where rounding would break ties.
        member: Whether the cell belongs to the space: else it has no p-value.

    Returns:
        The standing; None where the space is empty or the value NaN.
    """
    weights = np.ones(len(values)) if counts is None else counts.astype(float)
    known = np.isfinite(values)
    if not np.isfinite(value) or not known.any():
        return None
    values, weights = values[known].astype(float), weights[known]
    own = float(value)
    if digits is not None:
        values, own = np.round(values, digits), round(own, digits)
    below, equal = (float(weights[where].sum()) for where in (values < own, values == own))
    total = float(weights.sum())
    percentile = (below + equal / 2) / total
    p = _two_sided(values, weights, percentile) if member else None
    rest = total - below - equal
    return Standing(
        *(float(value), int(total), int(below), int(equal), int(rest)), percentile, p, percentile, percentile
    )


def among_controls(value: float | int, controls: Float[np.ndarray, " controls"]) -> Standing:
    """Rank a cell among random controls.

    The p-value counts the cell among them: each of the k + 1 could have been the audited one. The interval is
    that of Clopper and Pearson for the share of the space that lies below the cell, with the k controls as
    trials and ties as halves. Values that are not finite count as larger than all finite ones.

    Raises:
        ValueError: If there are no controls.
    """
    from scipy import stats

    if not len(controls):
        raise ValueError("there are no controls to rank the cell among")
    own, others = float(_ordered(value)), _ordered(controls)
    count = len(others)
    below, equal = int((others < own).sum()), int((others == own).sum())
    everyone = np.append(others, own)
    mid = (below + (equal + 1) / 2) / (count + 1)
    p = _two_sided(everyone, np.ones(count + 1), mid)
    half, tail = below + equal / 2, (1 - CONFIDENCE) / 2
    low = float(stats.beta.ppf(tail, half, count - half + 1)) if half else 0.0
    high = float(stats.beta.isf(tail, half + 1, count - half)) if half < count else 1.0
    return Standing(float(value), count, below, equal, count - below - equal, half / count, p, low, high)


def finite(value: float) -> float | None:
    """A number for JSON; None if it is not finite."""
    return float(value) if math.isfinite(value) else None


def _ordered(values: float | int | np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(values), values, np.inf)


def _two_sided(values: np.ndarray, weights: np.ndarray, percentile: float) -> float:
    _, place = np.unique(values, return_inverse=True)
    grouped = np.bincount(place, weights)
    total = grouped.sum()
    mids = (np.cumsum(grouped) - grouped / 2) / total
    return float(grouped[np.abs(mids - 0.5) >= abs(percentile - 0.5) - _SLACK].sum() / total)
