"""Calculus on a surface's grid: areas, values between points, second differences; steps may be uneven.

A field holds one value per point, ``[alpha, beta]``; an axis increases from below 0 to above 0. Values that
are not finite count only where their weight is not zero.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float64

Axis = Float64[np.ndarray, " _"]
"""Steps along one direction, increasing."""
Field = Float64[np.ndarray, "alpha beta"]
"""One value per point."""

# Rounding of losses that were computed in float32, relative to their size.
_LOSS_ROUNDING = 2.0**-24


def point_areas(alphas: Axis, betas: Axis) -> Field:
    """Area that each point stands for: up to half-way to its neighbours, and to the border of the square."""
    lengths = []
    for axis in (alphas, betas):
        bounds = np.concatenate([axis[:1], (axis[1:] + axis[:-1]) / 2, axis[-1:]])
        lengths.append(np.diff(bounds))
    return np.outer(*lengths)


def border_distance(alphas: Axis, betas: Axis) -> float:
    """Distance from (0, 0) to the nearest side of the square."""
    return float(min(-alphas[0], alphas[-1], -betas[0], betas[-1]))


def center_weights(axis: Axis) -> Axis:
    """Weights of linear interpolation at 0: one point's, or those of the two points around it."""
    weights = np.zeros_like(axis)
    nearest = int(np.abs(axis).argmin())
    # What linspace leaves of a zero is the zero.
    if abs(axis[nearest]) <= 1e-9 * (axis[-1] - axis[0]):
        weights[nearest] = 1
        return weights
    above = int(np.searchsorted(axis, 0.0))
    weights[above] = -axis[above - 1] / (axis[above] - axis[above - 1])
    weights[above - 1] = 1 - weights[above]
    return weights


def weighted_sum(weights: Axis, values: Float64[np.ndarray, "points *rest"]) -> Float64[np.ndarray, "*rest"]:
    """Sum over the first axis, of the terms whose weight is not zero."""
    used = weights != 0
    return np.tensordot(weights[used], values[used], axes=1)


def center_value(field: Field, alphas: Axis, betas: Axis) -> float:
    """The field at (0, 0), interpolated bilinearly where that is no point of the grid."""
    return float(weighted_sum(center_weights(alphas), weighted_sum(center_weights(betas), field.T)))


def interpolate(
    field: Field,
    alphas: Axis,
    betas: Axis,
    alpha: Float64[np.ndarray, "*shape"],
    beta: Float64[np.ndarray, "*shape"],
) -> Float64[np.ndarray, "*shape"]:
    """Bilinear interpolation at positions inside the square."""
    row = np.clip(np.searchsorted(alphas, alpha, side="right") - 1, 0, len(alphas) - 2)
    column = np.clip(np.searchsorted(betas, beta, side="right") - 1, 0, len(betas) - 2)
    along = (alpha - alphas[row]) / (alphas[row + 1] - alphas[row])
    across = (beta - betas[column]) / (betas[column + 1] - betas[column])
    result = np.zeros_like(alpha)
    for weight, values in (
        ((1 - along) * (1 - across), field[row, column]),
        ((1 - along) * across, field[row, column + 1]),
        (along * (1 - across), field[row + 1, column]),
        (along * across, field[row + 1, column + 1]),
    ):
        result += np.where(weight == 0, 0.0, weight * values)
    return result


def second_difference(
    values: Float64[np.ndarray, "points *rest"], axis: Axis
) -> Float64[np.ndarray, "inner *rest"]:
    """Second derivative along the first axis at its inner points, from three neighbours each.

    At x_i: 2 ((s_{i+1} - s_i) / h_{i+1} - (s_i - s_{i-1}) / h_i) / (h_i + h_{i+1}), with even steps
    (s_{i+1} - 2 s_i + s_{i-1}) / h^2.
    """
    column = (-1, *(1,) * (values.ndim - 1))
    slopes = np.diff(values, axis=0) / np.diff(axis).reshape(column)
    curvature: np.ndarray = 2 * np.diff(slopes, axis=0) / (axis[2:] - axis[:-2]).reshape(column)
    return curvature


def convex_points(field: Field, alphas: Axis, betas: Axis) -> Bool[np.ndarray, "alpha beta"]:
    """Inner points whose matrix of second differences is positive semi-definite; border points are not.

    The mixed difference is central. An eigenvalue below zero by less than rounding of the field to float32
    can make it counts as zero; a point with a value that is not finite among its nine is not convex.
    """
    from scipy import ndimage  # only when a surface is measured: no training waits for it

    convex = np.zeros(field.shape, dtype=bool)
    if min(field.shape) < 3:
        return convex
    along = second_difference(field, alphas)[:, 1:-1]
    across = second_difference(field.T, betas).T[1:-1]
    wide_alpha, wide_beta = alphas[2:] - alphas[:-2], betas[2:] - betas[:-2]
    mixed = field[2:, 2:] - field[2:, :-2] - field[:-2, 2:] + field[:-2, :-2]
    mixed /= np.outer(wide_alpha, wide_beta)
    smallest = (along + across) / 2 - np.hypot((along - across) / 2, mixed)
    size = ndimage.maximum_filter(np.abs(field), 3)[1:-1, 1:-1]
    rounding = 16 * _LOSS_ROUNDING * size * (wide_alpha[:, None] ** -2 + wide_beta**-2)
    convex[1:-1, 1:-1] = np.isfinite(smallest) & (smallest >= -rounding)
    return convex
