"""Slow, obvious versions of the curve between two networks and of its gradient, in float64 and by hand."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

Matrix = Float[np.ndarray, "classes inputs"]


def bezier_by_halving(start: Matrix, bend: Matrix, end: Matrix, t: float) -> Matrix:
    """De Casteljau: the point that divides, by t, the line between the points that divide the two legs."""
    first = start + t * (bend - start)
    second = bend + t * (end - bend)
    point: Matrix = first + t * (second - first)
    return point


def linear_loss_gradient(
    weights: Matrix, inputs: Float[np.ndarray, "n inputs"], targets: Float[np.ndarray, "n"]
) -> Matrix:
    """Gradient of the mean cross entropy of logits W x, one instance after the other."""
    gradient = np.zeros_like(weights)
    for x, target in zip(inputs, targets, strict=True):
        logits = weights @ x
        probabilities = np.exp(logits - logits.max())
        probabilities /= probabilities.sum()
        probabilities[int(target)] -= 1
        gradient += np.outer(probabilities, x)
    return gradient / len(inputs)
