"""Curvature at w*: the ends of the Hessian's spectrum by Lanczos, and its trace.

The Hessian is that of the mean loss F(w) = (1/n) sum_i f_i(w) over all n samples, f_i the cross entropy of
the logits of sample i in evaluation mode, without weight decay; see
:mod:`nas_lightning.analysis.curvature_products`.

Sources: Golub and Van Loan, Matrix Computations (4th edition, 2013), chapter 10, for the Lanczos process;
Ghorbani, Krishnan and Xiao, An Investigation into Neural Net Optimization via Hessian Eigenvalue Density
(ICML 2019), and Yao, Gholami, Keutzer and Mahoney, PyHessian (2020), for both on networks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64
from torch import nn

from nas_lightning.analysis.curvature_products import HessianProduct, Product
from nas_lightning.analysis.evaluation import Batches, Loss

# Products that ARPACK needs for its first result: a matrix of this size is solved exactly instead.
_BASIS = 20
# With this tolerance ARPACK's first result converges.
_ANY_RESIDUAL = 1e30


@dataclass(frozen=True)
class HessianSpectrum:
    """Ends of the spectrum of the Hessian of the mean loss, in nat per squared unit of weight.

    Attributes:
        eigenvalues: The largest, descending.
        residuals: ||H v - lambda v|| of each with its unit vector v, from separate products. Some eigenvalue
            of H lies at most this far away (Golub and Van Loan, section 8.1); the error of a well separated
            one is about the residual squared over the distance to the next.
        smallest: The smallest, ascending: negative where the loss curves downwards.
        smallest_residuals: Likewise.
        trace: Estimate of the trace, the sum of all eigenvalues; NaN if none was asked for.
        trace_standard_error: Of ``trace``; 0 where the trace is exact, NaN with fewer than two samples.
        products: Number of products with H.
        converged: Whether Lanczos ended within its budget and all residuals are at most ``tolerance`` times
            the largest absolute eigenvalue found. If not, the values are the best found: lower bounds of the
            largest, upper bounds of the smallest.
    """

    eigenvalues: Float64[np.ndarray, " k"]
    residuals: Float64[np.ndarray, " k"]
    smallest: Float64[np.ndarray, " smallest"]
    smallest_residuals: Float64[np.ndarray, " smallest"]
    trace: float
    trace_standard_error: float
    products: int
    converged: bool


def hessian_eigenvalues(
    module: nn.Module,
    batches: Batches,
    k: int = 5,
    *,
    smallest: int = 1,
    trace_samples: int = 10,
    seed: int = 0,
    tolerance: float | int = 1e-3,
    max_products: int = 300,
    product: Product | None = None,
    scale: Float64[np.ndarray, " parameters"] | None = None,
    loss: Loss | None = None,
) -> HessianSpectrum:
    """Compute the largest and smallest eigenvalues and the trace of the Hessian of the mean loss.

    The largest come from implicitly restarted Lanczos (ARPACK) on H. The smallest come from a second run, on
    lambda_max I - H: the spectrum's lower end lies close to zero, where a residual relative to the eigenvalue
    itself would need more digits than float32 products have; shifted, it is relative to the width of the
    spectrum. A final Rayleigh-Ritz step over all vectors found gives values and residuals, with one more
    product for each. A matrix of at most 20 rows, or 2 (k + smallest), is solved exactly.

    The trace is the mean of z . H z over vectors z of random signs (Hutchinson 1990), unbiased, with standard
    deviation sqrt(2 sum_{i != j} H_ij^2) per vector.

    Pitfalls: With ReLU and max pooling F is smooth only piecewise; H is that of the piece around w* and does
    not see the kinks beyond, which a loss surface crosses. Rescaling weights (w -> c w before a batch norm
    whose statistics follow) changes H but not the function (Dinh et al. 2017); ``scale`` removes that.
    Float32 products limit residuals to about 1e-6 of the largest eigenvalue, TF32 and bfloat16 to more.

    Args:
        module: Returns logits ``[batch, classes]`` in evaluation mode.
        batches: The samples, on the module's device.
        k: Number of largest eigenvalues.
        smallest: Number of smallest ones; may be 0.
        trace_samples: Number of random vectors for the trace; 0 leaves it out.
        seed: Of Lanczos's start vector and of the random signs.
        tolerance: Relative residual at which Lanczos stops.
        max_products: Approximate limit on the products of each of the two Lanczos runs.
        product: Maps v to H v in place of ``HessianProduct(module, batches).partial``, for example the sum of
            several processes' shares; ``batches`` are then not read.
        scale: Diagonal of a matrix D: the spectrum is that of D H D, in nat. With
            :func:`~nas_lightning.analysis.filters.filter_scale` it does not depend on the scale of weights.
        loss: See :func:`~nas_lightning.analysis.loss.evaluate`.

    Returns:
        The spectrum. Where a product is not finite (w* has no finite loss or gradient), all values are NaN.

    Raises:
        ValueError: If a setting is out of range; ``k + smallest`` is at most the number of live parameters,
            and ``scale`` has an entry for each.
    """
    size = sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
    _check_settings(size, k, smallest, trace_samples, tolerance, max_products)
    if scale is not None and scale.shape != (size,):
        raise ValueError(f"`scale` has {scale.size} entries, the module {size} live parameters")
    multiply = product or HessianProduct(module, batches, loss=loss).partial
    products = 0

    def counted(vector: np.ndarray) -> np.ndarray:
        nonlocal products
        products += 1
        vector = vector.reshape(-1)
        result = multiply(vector) if scale is None else scale * multiply(scale * vector)
        if not np.isfinite(result).all():
            raise FloatingPointError("a product with the Hessian is not finite")
        return result

    try:
        if size <= max(_BASIS, 2 * (k + smallest)):
            values, residuals, trace = _dense(counted, size)
            error, converged = 0.0, True
        else:
            start = np.random.default_rng(seed).standard_normal(size)
            values, residuals, converged = _both_ends(counted, k, smallest, start, tolerance, max_products)
            trace, error = _hutchinson(counted, size, trace_samples, np.random.default_rng([seed, 1]))
    except FloatingPointError:
        values = residuals = np.full(k + smallest, math.nan)
        trace, error, converged = math.nan, math.nan, False
    top, bottom = slice(len(values) - k, None), slice(0, smallest)
    largest_residual = max(residuals[top].max(), residuals[bottom].max(initial=0.0))
    return HessianSpectrum(
        eigenvalues=values[top][::-1].copy(),
        residuals=residuals[top][::-1].copy(),
        smallest=values[bottom].copy(),
        smallest_residuals=residuals[bottom].copy(),
        trace=trace,
        trace_standard_error=error,
        products=products,
        converged=bool(converged and largest_residual <= tolerance * np.abs(values).max()),
    )


def _both_ends(
    product: Product, k: int, smallest: int, start: np.ndarray, tolerance: float, max_products: int
) -> tuple[np.ndarray, np.ndarray, bool]:
    """Ritz values (ascending) from both ends, their residuals, and whether Lanczos kept to its budget."""
    upper, vectors, converged = _largest(product, k, start, tolerance, max_products)
    if smallest:

        def flipped(vector: np.ndarray) -> np.ndarray:
            return upper * vector.reshape(-1) - product(vector)

        _, below, below_converged = _largest(flipped, smallest, start, tolerance, max_products)
        vectors, converged = np.hstack([vectors, below]), converged and below_converged
    return *_rayleigh_ritz(product, vectors), converged


def _largest(
    product: Product, k: int, start: np.ndarray, tolerance: float, max_products: int
) -> tuple[float, np.ndarray, bool]:
    """Largest eigenvalue, columns that span the first k eigenvectors, and whether they converged."""
    # The import takes a third of a second, for which no training waits.
    from scipy.sparse.linalg import ArpackError, ArpackNoConvergence, LinearOperator, eigsh

    size = len(start)
    operator = LinearOperator((size, size), matvec=product, dtype=np.float64)
    basis = min(size, max(2 * k + 1, _BASIS))
    restarts = max(1, (max_products - basis) // (basis - k))
    settings: dict[str, Any] = {"k": k, "which": "LA", "v0": start, "ncv": basis}
    try:
        values, vectors = eigsh(operator, tol=tolerance, maxiter=restarts, **settings)
    except ArpackNoConvergence as failure:
        # ARPACK returns what has converged; one more short run gives a vector for each of the others.
        values, vectors = eigsh(operator, tol=_ANY_RESIDUAL, **settings)
        values = np.concatenate([failure.eigenvalues, values])
        return float(values.max()), np.hstack([failure.eigenvectors, vectors]), False
    except ArpackError:
        # It refuses to start where H v = 0, on a loss that is flat to the last digit: any vectors serve.
        return 0.0, np.random.default_rng(0).standard_normal((size, k)), False
    return float(values.max()), vectors, True


def _rayleigh_ritz(product: Product, vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ritz values (ascending) and residuals of H on the span of columns."""
    basis, _ = np.linalg.qr(vectors)
    images = np.stack([product(np.ascontiguousarray(column)) for column in basis.T], axis=1)
    projected = basis.T @ images
    values, rotation = np.linalg.eigh((projected + projected.T) / 2)
    return values, np.linalg.norm(images @ rotation - (basis @ rotation) * values, axis=0)


def _dense(product: Product, size: int) -> tuple[np.ndarray, np.ndarray, float]:
    """All eigenvalues (ascending), their residuals, and the trace, from one product per row."""
    matrix = np.stack([product(row) for row in np.eye(size)], axis=1)
    values, vectors = np.linalg.eigh((matrix + matrix.T) / 2)
    return values, np.linalg.norm(matrix @ vectors - vectors * values, axis=0), float(matrix.trace())


def _hutchinson(
    product: Product, size: int, samples: int, generator: np.random.Generator
) -> tuple[float, float]:
    """Mean of z . H z over vectors of random signs, and its standard error."""
    if samples == 0:
        return math.nan, math.nan
    forms = np.empty(samples)
    for index in range(samples):
        signs = generator.choice([-1.0, 1.0], size=size)
        forms[index] = signs @ product(signs)
    error = forms.std(ddof=1) / math.sqrt(samples) if samples > 1 else math.nan
    return float(forms.mean()), float(error)


def _check_settings(
    size: int, k: int, smallest: int, trace_samples: int, tolerance: float, max_products: int
) -> None:
    least = {"k": (k, 1), "smallest": (smallest, 0), "trace_samples": (trace_samples, 0)}
    for name, (value, limit) in (least | {"max_products": (max_products, 1)}).items():
        if value < limit:
            raise ValueError(f"`{name}` (={value}) must be at least {limit}")
    if not (math.isfinite(tolerance) and tolerance > 0):
        raise ValueError(f"`tolerance` (={tolerance}) must be above 0")
    if k + smallest > size:
        raise ValueError(
            f"`k` (={k}) and `smallest` (={smallest}) must not exceed {size} together, the number of live"
            " parameters"
        )
