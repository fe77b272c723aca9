"""How values become colours and heights: one scale for all panels."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import numpy as np
from jaxtyping import Float
from matplotlib.colors import LogNorm, Normalize

Scale = Literal["auto", "linear", "log"]
"""How values become colours or heights; ``"auto"`` is logarithmic where the largest is 30 medians or more."""

_WIDE = 30.0
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def colour_scale(
    values: Iterable[Float[np.ndarray, "..."]],
    scale: Scale = "auto",
    vmin: float | int | None = None,
    vmax: float | int | None = None,
) -> Normalize:
    """One scale for all values: from the smallest finite one to the largest, unless limits are given.

    Raises:
        ValueError: If the limits are not finite and increasing, or not positive on a logarithmic scale.
    """
    for name, limit in (("vmin", vmin), ("vmax", vmax)):
        if limit is not None and not np.isfinite(limit):
            raise ValueError(f"`{name}` (={limit}) must be finite")
    pooled = np.concatenate([[], *(array[np.isfinite(array)].ravel() for array in values)]).astype(np.float64)
    positive = pooled[pooled > 0]
    if scale == "auto":
        top = (positive.max(initial=0.0) if vmax is None else vmax) if len(positive) else 0.0
        wide = top >= _WIDE * np.median(positive) if len(positive) else False
        scale = "log" if wide and (vmin is None or vmin > 0) else "linear"
    if scale == "log":
        pooled = positive
        for name, limit in (("vmin", vmin), ("vmax", vmax)):
            if limit is not None and limit <= 0:
                raise ValueError(f"`{name}` (={limit}) must be above 0 on a logarithmic scale")
    low, high = _limits(pooled, scale, vmin, vmax)
    if not low < high:
        raise ValueError(f"`vmin` (={low:g}) must be below `vmax` (={high:g})")
    return LogNorm(low, high) if scale == "log" else Normalize(low, high)


def _limits(
    pooled: np.ndarray, scale: Scale, vmin: float | int | None, vmax: float | int | None
) -> tuple[float, float]:
    if vmin is not None and vmax is not None:
        return float(vmin), float(vmax)
    low, high = (float(pooled.min()), float(pooled.max())) if len(pooled) else (0.1, 1.0)
    if vmin is not None:
        low, high = float(vmin), max(high, float(vmin))
    if vmax is not None:
        low, high = min(low, float(vmax)), float(vmax)
    if scale == "log":
        return (low, high) if high > low * (1 + 1e-9) else (low / 2, high * 2)
    # A constant surface stands in the middle of the scale.
    room = 0.0 if high - low > 1e-9 * max(abs(low), abs(high)) else max(abs(low), abs(high)) * 0.1 or 0.5
    return low - room, high + room


def beyond(norm: Normalize, values: Iterable[Float[np.ndarray, "..."]]) -> str:
    """The ends of a scale that values lie beyond: ``"neither"``, ``"min"``, ``"max"`` or ``"both"``."""
    assert norm.vmin is not None and norm.vmax is not None  # noqa: PT018  (colour_scale sets both)
    finite = [array[np.isfinite(array)] for array in values]
    below = any(bool((array < norm.vmin).any()) for array in finite)
    above = any(bool((array > norm.vmax).any()) for array in finite)
    return {(False, False): "neither", (True, False): "min", (False, True): "max"}.get((below, above), "both")


def power_of_ten(largest: float) -> tuple[int, str]:
    """The power of ten that values up to ``largest`` are divided by for short ticks, and its text in a label.

    Examples:
        >>> power_of_ten(234567.0)
        (5, ' / 10⁵')
        >>> power_of_ten(12.0)
        (0, '')
    """
    exponent = int(np.floor(np.log10(largest))) if largest > 0 else 0
    if -2 <= exponent <= 3:
        return 0, ""
    return exponent, f" / 10{str(exponent).translate(_SUPERSCRIPTS)}"
