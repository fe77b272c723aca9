"""Density of the eigenvalues of the loss's curvature, by stochastic Lanczos quadrature.

Of a symmetric matrix A with eigenvalues lambda_1 .. lambda_n, smoothed by a Gaussian kernel of width sigma,

    phi(t) = (1/n) sum_i N(t; lambda_i, sigma^2).

For a vector z of independent random signs, E[z . f(A) z] = trace f(A). From the unit vector z / sqrt(n),
m steps of Lanczos give a matrix T, whose eigenvalues theta_j are the nodes, and the squared first components
tau_j^2 of its unit eigenvectors the weights, of a Gauss quadrature that is exact for polynomials up to
degree 2 m - 1:

    trace f(A) = n E[sum_j tau_j^2 f(theta_j)],    phi(t) = E[sum_j tau_j^2 N(t; theta_j, sigma^2)].

The expectation is a mean over start vectors; their spread gives its standard error. The same quadrature
gives the trace (f = lambda), the squared Frobenius norm (f = lambda^2) and the effective dimension at a ridge
rho (f = lambda / (lambda + rho) for lambda > 0, else 0).

Sources: Ubaru, Chen and Saad, *Fast estimation of tr(f(A)) via stochastic Lanczos quadrature* (SIAM J. Matrix
Anal. Appl. 38, 2017); Lin, Saad and Yang, *Approximating spectral densities of large matrices* (SIAM Review
58, 2016); Ghorbani, Krishnan and Xiao, *An investigation into neural net optimization via Hessian eigenvalue
density* (ICML 2019); MacKay, *Bayesian interpolation* (Neural Computation 4, 1992), for the effective
dimension.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import torch
from jaxtyping import Bool, Float64
from torch import nn

from nas_lightning.analysis.curvature_products import (
    CurvatureProduct,
    GaussNewtonProduct,
    HessianProduct,
    Product,
)
from nas_lightning.analysis.evaluation import Batches, Loss
from nas_lightning.analysis.filters import filter_scale
from nas_lightning.analysis.lanczos import lanczos

MATRICES: Mapping[str, type[CurvatureProduct]] = MappingProxyType(
    {"hessian": HessianProduct, "gauss_newton": GaussNewtonProduct}
)
"""The matrices whose density can be estimated."""

MOMENTS = ("trace", "frobenius_norm", "effective_dimension")
"""Numbers that the quadrature gives."""

_POINTS_A_WIDTH = 4
_WIDTHS_BEYOND = 5


@dataclass(frozen=True)
class Quadrature:
    """Nodes and weights of every start vector, NaN behind the end of one that broke off.

    Attributes:
        nodes: theta_j, ascending.
        weights: tau_j^2, which sum to 1.
        dimension: n.
        is_invariant: Where Lanczos found an invariant subspace and used it.
    """

    nodes: Float64[np.ndarray, "vectors steps"]
    weights: Float64[np.ndarray, "vectors steps"]
    dimension: int
    is_invariant: Bool[np.ndarray, " vectors"]


@dataclass(frozen=True)
class Density:
    """An estimate of phi on points.

    Attributes:
        points: t.
        values: phi(t), the mean over start vectors.
        errors: Its standard error; NaN with one start vector.
        width: sigma.
    """

    points: Float64[np.ndarray, " points"]
    values: Float64[np.ndarray, " points"]
    errors: Float64[np.ndarray, " points"]
    width: float

    @property
    def log10(self) -> Float64[np.ndarray, " points"]:
        """log10 phi(t); minus infinity where no eigenvalue is near."""
        with np.errstate(divide="ignore", invalid="ignore"):
            logarithms: np.ndarray = np.log10(self.values)
        return logarithms

    @property
    def log10_errors(self) -> Float64[np.ndarray, " points"]:
        """Standard error of log10 phi(t), to first order: that of phi over phi ln 10."""
        with np.errstate(divide="ignore", invalid="ignore"):
            errors: np.ndarray = self.errors / (self.values * math.log(10))
        return errors


def spectral_density(
    module: nn.Module,
    batches: Batches,
    matrix: str = "hessian",
    *,
    steps: int = 64,
    start_vectors: int = 4,
    seed: int = 0,
    normalized: bool = False,
    loss: Loss | None = None,
) -> Quadrature:
    """Estimate the density of the Hessian of the mean loss, or of its Gauss-Newton part.

    Give the result to :func:`density_of` and :func:`moments_of`.

    Pitfalls: See :func:`~nas_lightning.analysis.hessian.hessian_eigenvalues` for what a Hessian means with
    ReLUs. Rescaling weights changes the density but not the function, unless it is ``normalized``. Between
    two nodes Lanczos does not resolve the density; an outlier is one node, whose weight scatters around 1/n.

    Args:
        module: Returns logits ``[batch, classes]`` in evaluation mode, or what ``loss`` takes.
        batches: The samples, on the module's device.
        matrix: One of :data:`MATRICES`.
        steps: m, products for each start vector.
        start_vectors: Number of random vectors.
        seed: Of these.
        normalized: Whether A is D H D with D the :func:`~nas_lightning.analysis.filters.filter_scale`, over
            the parameters with filters.
        loss: See :func:`~nas_lightning.analysis.loss.evaluate`.

    Raises:
        ValueError: If a setting is out of range.

    Example:
        >>> layer, batch = nn.Linear(2, 2), (torch.ones(1, 2), torch.tensor([0]))
        >>> found = spectral_density(layer, [batch], "gauss_newton", steps=6, start_vectors=20)
        >>> found.is_invariant.all()  # the matrix has rank 1
        np.True_
    """
    if matrix not in MATRICES:
        raise ValueError(f"`matrix` (={matrix!r}) must be one of {', '.join(map(repr, MATRICES))}")
    if start_vectors < 1:
        raise ValueError(f"`start_vectors` (={start_vectors}) must be at least 1")
    product = MATRICES[matrix](module, batches, loss=loss)
    return lanczos_quadrature(
        product.partial,
        np.ones(product.size, dtype=bool),
        range(start_vectors),
        steps=steps,
        seed=seed,
        scale=filter_scale(module) if normalized else None,
    )


def lanczos_quadrature(
    product: Product,
    support: Bool[np.ndarray, " size"],
    vectors: Sequence[int],
    *,
    steps: int,
    seed: int = 0,
    scale: Float64[np.ndarray, " size"] | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Quadrature:
    """Nodes and weights from some start vectors, in lockstep.

    Args:
        product: Maps ``[size, k]`` to A times each column.
        support: The entries that count; A is zero in the rows and columns of the others.
        vectors: Numbers of the start vectors; each is drawn from its own generator.
        steps: See :func:`~nas_lightning.analysis.lanczos.lanczos`, as for ``device`` and ``dtype``.
        seed: Of the start vectors.
        scale: Diagonal of D, if the matrix is D A D; entries at which it is 0 do not count.
        device: Where the bases are kept.
        dtype: Of the bases.

    Raises:
        ValueError: If no entry counts, or ``steps`` is below 1.
    """
    support = support if scale is None else support & (scale != 0)
    dimension = int(support.sum())
    if not dimension:
        raise ValueError("no parameter counts: there are no eigenvalues")
    starts = np.zeros((len(support), len(vectors)))
    for column, vector in enumerate(vectors):
        signs = np.random.default_rng([seed, vector]).integers(0, 2, size=dimension)
        starts[support, column] = 2.0 * signs - 1.0

    def scaled(columns: np.ndarray) -> np.ndarray:
        return product(columns) if scale is None else scale[:, None] * product(scale[:, None] * columns)

    found = lanczos(scaled, starts, steps, device=device, dtype=dtype)
    nodes, weights = (np.full((len(vectors), steps), math.nan) for _ in range(2))
    for row, tridiagonal in enumerate(found):
        count = len(tridiagonal.diagonal)
        nodes[row, :count], weights[row, :count] = tridiagonal.eigenvalues()
    return Quadrature(nodes, weights, dimension, np.array([own.is_invariant for own in found]))


def moments_of(quadrature: Quadrature, ridge: float | int) -> dict[str, tuple[float, float]]:
    """Trace, Frobenius norm and effective dimension with their standard errors over start vectors.

    The Frobenius norm is the root of the mean square; its error is that of the square over twice the norm.

    Args:
        quadrature: Nodes and weights.
        ridge: rho, in the eigenvalues' units, above 0.

    Returns:
        Value and standard error of each of :data:`MOMENTS`; the error is NaN with one start vector.

    Raises:
        ValueError: If ``ridge`` is not above 0.
    """
    if not (math.isfinite(ridge) and ridge > 0):
        raise ValueError(f"`ridge` (={ridge}) must be above 0")
    nodes, n = quadrature.nodes, quadrature.dimension
    positive = np.where(nodes > 0, nodes, 0.0)
    shares = np.where(np.isnan(nodes), math.nan, positive / (positive + ridge))
    trace, square, effective = (_mean(quadrature, values) for values in (nodes, nodes**2, shares))
    norm = math.sqrt(n * square[0])
    return {
        "trace": (n * trace[0], n * trace[1]),
        "frobenius_norm": (norm, n * square[1] / (2 * norm) if norm else 0.0 * square[1]),
        "effective_dimension": (n * effective[0], n * effective[1]),
    }


def density_of(quadrature: Quadrature, width: float | int) -> Density:
    """The smoothed density on points that are a quarter of the kernel's width apart.

    The points reach five widths beyond the outermost nodes. Their number depends on ``width`` only.

    Args:
        quadrature: Nodes and weights.
        width: sigma as a share of the spectral range, that between the outermost nodes; above 0, below 1.

    Raises:
        ValueError: If ``width`` is out of range.
    """
    if not 0 < width < 1:
        raise ValueError(f"`width` (={width}) must be above 0 and below 1")
    nodes = quadrature.nodes
    count = 1 + _POINTS_A_WIDTH * math.ceil(1 / width + 2 * _WIDTHS_BEYOND)
    if not _is_finite(quadrature):
        nothing = np.full(count, math.nan)
        return Density(nothing, nothing, nothing, math.nan)
    low, high = float(np.nanmin(nodes)), float(np.nanmax(nodes))
    # A matrix with one eigenvalue has no range: then the eigenvalue gives the scale.
    sigma = width * ((high - low) or max(abs(high), np.finfo(np.float64).tiny ** 0.5))
    points = np.linspace(low - _WIDTHS_BEYOND * sigma, high + _WIDTHS_BEYOND * sigma, count)
    kernel = np.exp(-0.5 * ((points[:, None, None] - nodes) / sigma) ** 2) / (sigma * math.sqrt(2 * math.pi))
    rows = np.nansum(quadrature.weights * kernel, axis=2)
    errors = rows.std(axis=1, ddof=1) / math.sqrt(len(nodes)) if len(nodes) > 1 else np.full(count, math.nan)
    return Density(points, rows.mean(axis=1), errors, sigma)


def _mean(quadrature: Quadrature, values: np.ndarray) -> tuple[float, float]:
    """Mean over start vectors of the quadrature of values at the nodes, and its standard error."""
    if not _is_finite(quadrature):
        return math.nan, math.nan
    rows = np.nansum(quadrature.weights * values, axis=1)
    error = rows.std(ddof=1) / math.sqrt(len(rows)) if len(rows) > 1 else math.nan
    return float(rows.mean()), float(error)


def _is_finite(quadrature: Quadrature) -> bool:
    """Whether every start vector has nodes: the first one of a loss that is not finite is NaN."""
    return bool(np.isfinite(quadrature.nodes[:, 0]).all())
