"""The Lanczos process with full reorthogonalisation, on several start vectors in lockstep.

From a unit vector q_1 it builds an orthonormal basis Q of the Krylov space of a symmetric matrix A, in which
A is tridiagonal, T = Q^T A Q: alpha_j = q_j . A q_j on the diagonal, and beta_j = ||r_j|| beside it, r_j the
rest of A q_j that is orthogonal to q_1 .. q_j. Rounding would let converged eigenvectors come back into the
basis, as copies of their eigenvalues; so r_j is made orthogonal to the whole basis, twice, which is enough.

Sources: Golub and Van Loan, *Matrix Computations* (4th edition, 2013), sections 10.1 and 10.3; Parlett, *The
symmetric eigenvalue problem* (1998), section 6.9 ("twice is enough").
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from nas_lightning.analysis.curvature_products import Product

_ROUNDINGS = 1000
"""Roundings of A q_j below which its rest counts as none: a rest that is not rounding is hardly smaller."""


@dataclass(frozen=True)
class Tridiagonal:
    """The matrix T of one start vector.

    Attributes:
        diagonal: alpha_j. One NaN if a product was not finite.
        off_diagonal: beta_j, one less.
        is_invariant: Whether the process ended before its steps, since the rest was rounding: the basis spans
            an invariant subspace, T's eigenvalues are A's, and the start vector has no part in the others.
    """

    diagonal: Float64[np.ndarray, " steps"]
    off_diagonal: Float64[np.ndarray, " rest"]
    is_invariant: bool

    def eigenvalues(self) -> tuple[Float64[np.ndarray, " steps"], Float64[np.ndarray, " steps"]]:
        """Eigenvalues of T, ascending, and the squared first component of each unit eigenvector.

        Example:
            >>> values, weights = Tridiagonal(np.zeros(2), np.ones(1), False).eigenvalues()
            >>> values.round(12), weights.round(12)
            (array([-1.,  1.]), array([0.5, 0.5]))
        """
        if not np.isfinite(self.diagonal).all():
            return self.diagonal, np.full(len(self.diagonal), math.nan)
        matrix = np.diag(self.diagonal) + np.diag(self.off_diagonal, 1) + np.diag(self.off_diagonal, -1)
        values, vectors = np.linalg.eigh(matrix)
        return values, vectors[0] ** 2


def lanczos(
    product: Product,
    starts: Float64[np.ndarray, "size vectors"],
    steps: int,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> list[Tridiagonal]:
    """Run the process from several start vectors at once.

    Every step is one call of ``product`` with the vectors whose process has not ended. The results do not
    depend on which vectors run together, if those of ``product`` do not.

    Args:
        product: Maps ``[size, k]`` to A times each column.
        starts: The start vectors, not zero; their length does not matter.
        steps: Steps of each process, at least 1.
        device: Where the bases are kept: ``steps * size`` numbers for each start vector.
        dtype: Of the bases. Inner products and T are in float64.

    Returns:
        T of every start vector.

    Raises:
        ValueError: If ``steps`` is below 1, or a start vector is zero or not finite.
    """
    if steps < 1:
        raise ValueError(f"`steps` (={steps}) must be at least 1")
    columns = [np.ascontiguousarray(column) for column in starts.T]
    norms = np.array([np.linalg.norm(column) for column in columns])
    if not (np.isfinite(norms) & (norms > 0)).all():
        raise ValueError("`starts` hold a vector that is zero or not finite")
    processes = [
        _Process(column / norm, steps, device, dtype) for column, norm in zip(columns, norms, strict=True)
    ]
    running = processes
    while running:
        images = product(np.stack([process.newest() for process in running], axis=1))
        for process, image in zip(running, images.T, strict=True):
            process.extend(image)
        running = [process for process in running if not process.has_ended]
    return [process.result() for process in processes]


class _Process:
    """The process from one unit vector."""

    def __init__(self, start: np.ndarray, steps: int, device: torch.device | str, dtype: torch.dtype) -> None:
        self._basis = torch.empty(steps, len(start), dtype=dtype, device=device)
        self._basis[0] = torch.tensor(start)
        self._diagonal: list[float] = []
        self._off_diagonal: list[float] = []
        self._is_invariant = False
        self.has_ended = False

    def newest(self) -> np.ndarray:
        """The last vector of the basis, in float64."""
        vector: np.ndarray = self._basis[len(self._diagonal)].cpu().double().numpy()
        return vector

    def extend(self, image: np.ndarray) -> None:
        """Take A times the last vector."""
        if not np.isfinite(image).all():
            self._diagonal, self._off_diagonal, self.has_ended = [math.nan], [], True
            return
        count = len(self._diagonal) + 1
        basis = self._basis[:count]
        rest = torch.tensor(image).to(self._basis.dtype).to(self._basis.device)
        self._diagonal.append(_dot(basis[-1], rest))
        length = math.sqrt(_dot(rest, rest))
        for _ in range(2):
            rest = torch.addmv(rest, basis.T, basis @ rest, alpha=-1)
        if count == len(self._basis):
            self.has_ended = True
            return
        norm = math.sqrt(_dot(rest, rest))
        if norm <= _ROUNDINGS * torch.finfo(rest.dtype).eps * length:
            self.has_ended = self._is_invariant = True
            return
        self._off_diagonal.append(norm)
        torch.div(rest, norm, out=self._basis[count])

    def result(self) -> Tridiagonal:
        return Tridiagonal(np.array(self._diagonal), np.array(self._off_diagonal), self._is_invariant)


def _dot(first: Tensor, second: Tensor) -> float:
    """Inner product, in float64 where the device has it."""
    if first.device.type == "mps":
        return float(first @ second)
    return float(first.double() @ second.double())
