"""The plane of a path by a singular value decomposition of the whole centred matrix of its weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor


def plane(
    states: Sequence[Mapping[str, Tensor]], names: Sequence[str]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Directions [2, parameters], coordinates [n, 2], shares of variance, distances; the last state is w*."""
    rows = [np.concatenate([state[name].detach().double().flatten() for name in names]) for state in states]
    weights = np.stack(rows)
    _, singular, components = np.linalg.svd(weights - weights.mean(axis=0), full_matrices=False)
    directions = components[:2].copy()
    from_last = weights - weights[-1]
    for index, sign in enumerate((-1.0, 1.0)):
        along = from_last @ directions[index]
        if along[np.abs(along).argmax()] * sign < 0:
            directions[index] *= -1
    coordinates = from_last @ directions.T
    distances = np.linalg.norm(from_last - coordinates @ directions, axis=1)
    variances = singular[: len(states) - 1] ** 2
    return directions, coordinates, variances / variances.sum(), distances
