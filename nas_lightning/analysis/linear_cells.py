"""The two linear cells of the paper's theory, losses on their output, and random instances of both.

Shu, Wang and Cai (ICLR 2020), section 4.3.1 and figure 26. The widest cell computes y(i) = W(i) x, the
narrowest y(i) = W(i) ... W(1) x, i = 1..n; the output z concatenates all y(i), and f(z) is the loss. The two
theorems about them are in `nas_lightning.analysis.theory`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

Output = Float[Tensor, "batch concatenated"]
"""z, nodes * dimension numbers a sample."""
Classes = Int[Tensor, " batch"]
Losses = Float[Tensor, " batch"]
LinearCell = Callable[[Tensor, Tensor], Tensor]
"""Maps W(1)..W(n) and inputs x to the output z, which concatenates y(1)..y(n)."""
LossFunction = Callable[[Tensor, Tensor], Tensor]
"""f: maps the output and targets to the losses."""
KINDS = ("weighted quadratic", "coupled quadratic", "cross entropy", "tanh network")
"""Kinds of losses among the random instances."""


def widest_cell(
    weights: Float[Tensor, "nodes dimension dimension"], x: Float[Tensor, "batch dimension"]
) -> Output:
    """y(i) = W(i) x: every node reads the input (figure 26a)."""
    return torch.cat([x @ weight.T for weight in weights], dim=1)


def narrowest_cell(
    weights: Float[Tensor, "nodes dimension dimension"], x: Float[Tensor, "batch dimension"]
) -> Output:
    """y(i) = W(i) y(i-1), y(0) = x: every node reads the one before it (figure 26b)."""
    nodes = []
    for weight in weights:
        x = x @ weight.T
        nodes.append(x)
    return torch.cat(nodes, dim=1)


class Objective(ABC):
    """A loss f(z) per sample whose second derivatives have known bounds."""

    @abstractmethod
    def __call__(self, z: Output, targets: Classes) -> Losses:
        """Loss of every sample."""

    @abstractmethod
    def curvature_bounds(self, nodes: int) -> Float[Tensor, "{nodes} {nodes}"]:
        """m(k, l), at least the supremum over z (and targets) of the spectral norm of d^2 f / dy(k) dy(l)."""


@dataclass(eq=False)
class QuadraticObjective(Objective):
    """f(z) = z^T Q z / 2, without targets; m(k, l) is exact: the spectral norm of the block Q(k, l).

    Q is the symmetric part of ``matrix``.
    """

    matrix: Float[Tensor, "concatenated concatenated"]

    def __post_init__(self) -> None:
        self.matrix = (self.matrix + self.matrix.T) / 2

    @classmethod
    def weighted(cls, coefficients: Float[Tensor, " nodes"], dimension: int) -> QuadraticObjective:
        """The loss c(1) |y(1)|^2 / 2 + ... + c(n) |y(n)|^2 / 2: no second derivative across nodes."""
        return cls(torch.diag(coefficients.repeat_interleave(dimension)))

    def __call__(self, z: Output, targets: Classes) -> Losses:
        """Loss of every sample."""
        return ((z @ self.matrix) * z).sum(1) / 2

    def curvature_bounds(self, nodes: int) -> Float[Tensor, "{nodes} {nodes}"]:
        """Spectral norms of the blocks of Q."""
        return block_norms(self.matrix, nodes)


@dataclass(eq=False)
class CrossEntropyObjective(Objective):
    """Cross entropy of the logits C z, with the ``classifier`` C.

    m(k, l) = r(k) r(l) / 4 with r(k) the largest distance between two rows of C(k), the columns of C that
    read y(k): u^T (d^2 f / dy(k) dy(l)) v is the covariance, over classes drawn with the predicted
    probabilities, of C(k) u and C(l) v, and a standard deviation is at most half the range (Popoviciu). For
    k = l it is the supremum, if any distribution over the classes can be predicted.
    """

    classifier: Float[Tensor, "classes concatenated"]

    def __call__(self, z: Output, targets: Classes) -> Losses:
        """Loss of every sample."""
        return _cross_entropy(z @ self.classifier.T, targets)

    def curvature_bounds(self, nodes: int) -> Float[Tensor, "{nodes} {nodes}"]:
        """r(k) r(l) / 4."""
        ranges = torch.stack([_row_distance(columns) for columns in self.classifier.chunk(nodes, dim=1)])
        return ranges.outer(ranges) / 4


@dataclass(eq=False)
class TanhNetworkObjective(Objective):
    """Cross entropy of the logits C tanh(U z), with ``hidden`` U and ``classifier`` C: not convex.

    m(k, l) = |U(k)| |U(l)| (r^2 / 4 + 4 s / (3 sqrt 3)) with U(k) the columns of U that read y(k), r the
    largest distance between two rows of C, s the largest difference within one column of C (the largest
    derivative of the loss after a hidden unit), and 4 / (3 sqrt 3) the largest |tanh''|. An upper bound, not
    the supremum.
    """

    hidden: Float[Tensor, "units concatenated"]
    classifier: Float[Tensor, "classes units"]

    def __call__(self, z: Output, targets: Classes) -> Losses:
        """Loss of every sample."""
        return _cross_entropy(torch.tanh(z @ self.hidden.T) @ self.classifier.T, targets)

    def curvature_bounds(self, nodes: int) -> Float[Tensor, "{nodes} {nodes}"]:
        """|U(k)| |U(l)| (r^2 / 4 + 4 s / (3 sqrt 3))."""
        norms = torch.stack([torch.linalg.matrix_norm(part, 2) for part in self.hidden.chunk(nodes, dim=1)])
        spread = (self.classifier.amax(0) - self.classifier.amin(0)).max()
        return norms.outer(norms) * (_row_distance(self.classifier) ** 2 / 4 + 4 * spread / (3 * 3**0.5))


@dataclass(frozen=True)
class LinearCellInstance:
    """Weights, data and loss for a comparison of both cells.

    Attributes:
        weights: W(1)..W(n).
        inputs: Samples x; expectations are means over them.
        targets: Classes, for the losses that read them.
        objective: f.
        name: Kind of the loss f.
        gain: Typical spectral norm of the weights.
    """

    weights: Float[Tensor, "nodes dimension dimension"]
    inputs: Float[Tensor, "batch dimension"]
    targets: Int[Tensor, " batch"]
    objective: LossFunction
    name: str = "custom"
    gain: float = float("nan")


def random_instances(
    count: int, seed: int, *, nodes: Sequence[int] = (2, 3, 4), dimension: int = 4, batch: int = 32
) -> list[LinearCellInstance]:
    """Draw random weights, data and losses; instance k depends only on k, the seed and the sizes.

    Number of nodes and loss alternate, so that all combinations occur equally often. Weights are Gaussian
    with a gain drawn log-uniformly from 0.3 to 3 (the spectral norm of a large matrix), inputs standard
    normal, targets uniform over three classes. `dimension` is the length of x and of every y(i); expectations
    are taken over `batch` samples x.

    Raises:
        ValueError: If a size is below 1 or the seed negative.
    """
    sizes = {"count": count, "dimension": dimension, "batch": batch}
    for name, size in (sizes | {f"nodes[{k}]": n for k, n in enumerate(nodes)}).items():
        if size < 1:
            raise ValueError(f"`{name}` (={size}) must be at least 1")
    if not nodes:
        raise ValueError("`nodes` must name at least one number of nodes")
    if seed < 0:
        raise ValueError(f"`seed` (={seed}) must not be negative")
    return [
        _random_instance(
            np.random.default_rng([seed, k]), nodes[k % len(nodes)], dimension, batch, k // len(nodes)
        )
        for k in range(count)
    ]


def block_norms(
    matrix: Float[Tensor, "*points concatenated concatenated"], nodes: int
) -> Float[Tensor, "*points n n"]:
    """Compute the spectral norms of the blocks (k, l), y(k) by y(l), of matrices over z, such as Hessians."""
    dimension = matrix.shape[-1] // nodes
    blocks = matrix.reshape(*matrix.shape[:-2], nodes, dimension, nodes, dimension).transpose(-3, -2)
    norms: Tensor = torch.linalg.matrix_norm(blocks, 2)
    return norms


def _cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    return logits.logsumexp(1) - logits.gather(1, targets[:, None])[:, 0]


def _row_distance(matrix: Tensor) -> Tensor:
    """Largest distance between two rows."""
    distances: Tensor = torch.linalg.vector_norm(matrix[:, None] - matrix[None], dim=-1)
    return distances.max()


def _random_instance(
    random: np.random.Generator, nodes: int, dimension: int, batch: int, kind: int
) -> LinearCellInstance:
    def gaussian(*shape: int) -> Tensor:
        return torch.from_numpy(random.standard_normal(shape))

    gain = 0.3 * 10 ** random.uniform()
    # The spectral norm of a Gaussian matrix is about twice the root of its size.
    weights = gain * gaussian(nodes, dimension, dimension) / (2 * dimension**0.5)
    concatenated, classes = nodes * dimension, 3
    targets = torch.from_numpy(random.integers(classes, size=batch))
    inputs = gaussian(batch, dimension)
    objective: Objective
    name = KINDS[kind % len(KINDS)]
    if name == "weighted quadratic":
        coefficients = torch.from_numpy(0.3 * 10 ** random.uniform(size=nodes))
        objective = QuadraticObjective.weighted(coefficients, dimension)
    elif name == "coupled quadratic":
        objective = QuadraticObjective(gaussian(concatenated, concatenated) / concatenated**0.5)
    elif name == "cross entropy":
        objective = CrossEntropyObjective(gaussian(classes, concatenated) / dimension**0.5)
    else:
        hidden = gaussian(2 * dimension, concatenated) / concatenated**0.5
        objective = TanhNetworkObjective(hidden, gaussian(classes, 2 * dimension) / (2 * dimension) ** 0.5)
    return LinearCellInstance(weights, inputs, targets, objective, name, gain)
