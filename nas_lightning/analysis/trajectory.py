"""The path of a training in the plane of its own first two principal components.

Let w_i be the weights of the run's n checkpoints and w* the last of them. The components are those of the
differences to the mean of all checkpoints; d_1 and d_2 are the first two, of length 1. Everything is
projected from one origin, w*: checkpoint i lies at (<w_i - w*, d_1>, <w_i - w*, d_2>), and the loss behind
it is that of w* + alpha d_1 + beta d_2. The components come from the n x n Gram matrix of the differences.
Source: Li et al., *Visualizing the loss landscape of neural nets* (NeurIPS 2018), section 7. Their code, too,
centres on the mean for the components and projects from the end: the variance that the components explain is
that around the mean, and does not say how far the checkpoints are from the plane through w* that is drawn.
Here that distance is measured.

A plane of large explained variance is no finding by itself: of a random walk in many dimensions the first
components hold 6 / (pi k)^2 of the variance each, 61 % and 15 %, and the coordinates are cosines over time,
Lissajous curves in the plane. Source: Antognini and Sohl-Dickstein, *PCA of high dimensional random walks
with comparison to neural network training* (NeurIPS 2018).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64

from nas_lightning.analysis.directions import Direction
from nas_lightning.analysis.stored_weights import StateDict, StoredWeights, blocks_of

BLOCK_BYTES = 8 * 2**20
"""Memory for the block of parameters that is read of all checkpoints at once."""
MARGIN = 0.25
"""Room around the path on every side of the surface, as a share of the path's longer side."""
_FLAT = 1e-12  # share of the first component's variance that is rounding: a millionth of the distances
_LEAST = 3


class NoPlaneError(ValueError):
    """Checkpoints through which there is no plane: too few, equal, on one line, or not finite."""


@dataclass(frozen=True, eq=False)
class TrajectoryPlane:
    """The plane of a path's first two principal components, and the path in it.

    Attributes:
        coefficients: c_ik with d_k = sum_i c_ik (w_i - w*).
        coordinates: <w_i - w*, d_k> of every checkpoint; (0, 0) for w* itself.
        explained_variance: Share of every component in the variance of all checkpoints, descending.
        distances: Distance of every checkpoint from the plane through w*.
        steps: ||w_i - w_(i - 1)||, from every checkpoint to the next in their order; 0 for the first.
    """

    coefficients: Float64[np.ndarray, "checkpoints 2"]
    coordinates: Float64[np.ndarray, "checkpoints 2"]
    explained_variance: Float64[np.ndarray, " components"]
    distances: Float64[np.ndarray, " checkpoints"]
    steps: Float64[np.ndarray, " checkpoints"]


def trajectory_plane(
    checkpoints: Sequence[StoredWeights], origin: StateDict, *, block_bytes: int = BLOCK_BYTES
) -> TrajectoryPlane:
    """Find the plane of the checkpoints' first two principal components.

    Args:
        checkpoints: The run's weights in their order, w* among them.
        origin: w*, by name.
        block_bytes: As for :func:`difference_products`.

    Returns:
        The plane. Signs are such that the coordinate farthest from 0 is negative along the first component,
        so that a path runs from left to right, and positive along the second.

    Raises:
        ValueError: If the checkpoints are not of one network, not finite, or do not span a plane.

    Example:
        >>> origin = {"weight": torch.zeros(3)}
        >>> states = [{"weight": torch.tensor(w)} for w in ([-4.0, 0.0, 1.0], [-2.0, 1.0, 1.0])]
        >>> plane = trajectory_plane([StoredWeights(s, ["weight"]) for s in [*states, origin]], origin)
        >>> plane.coordinates[-1].tolist(), len(plane.explained_variance)
        ([0.0, 0.0], 2)
    """
    products = difference_products(checkpoints, origin, block_bytes=block_bytes)
    return plane_of_products(products)


def difference_products(
    checkpoints: Sequence[StoredWeights], origin: StateDict, *, block_bytes: int = BLOCK_BYTES
) -> Float64[np.ndarray, "checkpoints checkpoints"]:
    """Compute the Gram matrix G_ij = <w_i - o, w_j - o> in float64.

    A block of parameters is read of all checkpoints at once, and its products are added up.

    Args:
        checkpoints: Weights of the same names and shapes.
        origin: o, by name; it may have more names.
        block_bytes: Memory of the largest block, in bytes.

    Raises:
        NoPlaneError: If their weights are not finite.
        ValueError: If the checkpoints are not of one network.
    """
    shapes = {name: tuple(origin[name].shape) for name in checkpoints[0].shapes}
    for one in checkpoints:
        for name, shape in one.shapes.items():
            if shape != shapes.get(name):
                raise ValueError(
                    f"{one.label} is of another network: its {name} has shape {shape}, not {shapes.get(name)}"
                )
    count = len(checkpoints)
    size = max(1, block_bytes // (8 * count))
    centre = StoredWeights(origin, list(shapes))
    products = np.zeros((count, count))
    block = np.empty((count, min(size, sum(int(np.prod(shape)) for shape in shapes.values()))))
    for spans in blocks_of(shapes, size):
        middle = centre.read(spans)
        if not np.isfinite(middle).all():
            raise NoPlaneError(f"the last weights hold NaN or infinity ({spans[0].name}): there is no plane")
        part = block[:, : len(middle)]
        for row, one in zip(part, checkpoints, strict=True):
            np.subtract(one.read(spans), middle, out=row)
            if not np.isfinite(row).all():
                raise NoPlaneError(f"{one.label} holds weights that are NaN or infinite: there is no plane")
        products += part @ part.T
    return (products + products.T) / 2


def plane_of_products(products: Float64[np.ndarray, "checkpoints checkpoints"]) -> TrajectoryPlane:
    """Find the plane from the Gram matrix G of the differences to w*.

    With J = I - 11'/n, the centred products are C = J G J = U diag(lambda) U'. Then d_k = sum_i c_ik
    (w_i - w*) with c_ik = u_ik / sqrt(lambda_k): the columns of U add up to 0, so that the mean drops out.

    Raises:
        NoPlaneError: If there are less than three checkpoints, all are equal, or they lie on one line.
    """
    count = len(products)
    if count < _LEAST:
        raise NoPlaneError(f"a trajectory needs {_LEAST} checkpoints or more, and there {_are(count)}")
    centred = products - products.mean(axis=0) - products.mean(axis=1)[:, None] + products.mean()
    variances, vectors = np.linalg.eigh((centred + centred.T) / 2)
    variances, vectors = np.maximum(variances[::-1], 0.0)[: count - 1], vectors[:, ::-1][:, :2]
    if not variances[0] > 0:
        raise NoPlaneError(f"all {count} checkpoints hold the same weights: there is no direction")
    if variances[1] <= _FLAT * variances[0]:
        raise NoPlaneError(
            f"the {count} checkpoints lie on one line, so that there is no plane: a trajectory needs {_LEAST}"
            " that do not"
        )
    coefficients = vectors / np.sqrt(variances[:2])
    coordinates = products @ coefficients
    farthest = coordinates[np.abs(coordinates).argmax(axis=0), [0, 1]]
    signs = np.where(farthest > 0, 1.0, -1.0) * [-1.0, 1.0]
    coefficients, coordinates = coefficients * signs, coordinates * signs
    squares = np.diag(products)
    rest = np.maximum(squares - (coordinates**2).sum(axis=1), 0.0)
    between = squares[1:] + squares[:-1] - 2 * np.diag(products, 1)
    return TrajectoryPlane(
        coefficients,
        coordinates + 0.0,
        variances / variances.sum(),
        np.sqrt(rest),
        np.concatenate([[0.0], np.sqrt(np.maximum(between, 0.0))]),
    )


def plane_directions(
    checkpoints: Sequence[StoredWeights],
    origin: StateDict,
    coefficients: Float64[np.ndarray, "checkpoints 2"],
) -> tuple[Direction, Direction]:
    """The directions d_k = sum_i c_ik (w_i - w*), on the devices and in the types of w*.

    They are summed in float64, checkpoint after checkpoint, so that they are the same bit for bit on every
    rank. The arguments are those of :func:`trajectory_plane`, and its coefficients.
    """
    shapes = checkpoints[0].shapes
    centre = StoredWeights(origin, list(shapes))
    directions = [{name: torch.empty_like(origin[name]) for name in shapes} for _ in range(2)]
    for spans in blocks_of(shapes, BLOCK_BYTES // 64):
        middle = centre.read(spans)
        sums = np.zeros((2, len(middle)))
        for one, factors in zip(checkpoints, coefficients, strict=True):
            difference = one.read(spans) - middle
            for total, factor in zip(sums, factors, strict=True):
                total += factor * difference
        start = 0
        for name, first, last in spans:
            end = start + last - first
            for direction, total in zip(directions, sums, strict=True):
                flat = direction[name].view(-1)
                flat[first:last] = torch.from_numpy(total[start:end]).to(flat)
            start = end
    return directions[0], directions[1]


def plane_axes(
    coordinates: Float64[np.ndarray, "checkpoints 2"], resolution: int, margin: float = MARGIN
) -> tuple[Float64[np.ndarray, " alpha"], Float64[np.ndarray, " beta"]]:
    """Steps along both components of a rectangle that holds the path.

    The room around the path is the same on all sides, `margin` times the path's longer side: the rectangle
    is at most 1 / (2 margin) + 1 times as long as high.

    Example:
        >>> alphas, betas = plane_axes(np.array([[-4.0, 1.0], [-2.0, 2.0], [0.0, 0.0]]), 3)
        >>> alphas.tolist(), betas.tolist()
        ([-5.0, -2.0, 1.0], [-1.0, 1.0, 3.0])
    """
    low, high = coordinates.min(axis=0), coordinates.max(axis=0)
    room = margin * (high - low).max()
    alphas, betas = (np.linspace(a - room, b + room, resolution) for a, b in zip(low, high, strict=True))
    return alphas, betas


def _are(count: int) -> str:
    return "is 1" if count == 1 else f"are {count}"
