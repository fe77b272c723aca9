"""Both ends of a symmetric matrix's spectrum from one Lanczos run that keeps three vectors.

For many matrices of moderate accuracy, a point of a surface or a block of a network each, where
:func:`~nas_lightning.analysis.hessian.hessian_eigenvalues` would spend two runs and twenty stored vectors.

Sources: Golub and Van Loan, *Matrix Computations* (4th edition, 2013), section 10.1 (the recursion and the
residual bound) and 10.3.1 (what rounding does: Paige's theorem).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from nas_lightning.analysis.curvature_products import Product

_FEWEST = 12
"""Products before the run may stop: a small residual after a few can be that of an inner eigenvalue."""
# Relative to the largest coefficient so far: beyond this an invariant subspace is found.
_BREAKDOWN = 1e-13


@dataclass(frozen=True)
class ExtremeEigenvalues:
    """The ends of a symmetric matrix's spectrum.

    Attributes:
        largest: Largest eigenvalue; a lower bound where not converged, up to rounding.
        smallest: Smallest eigenvalue; an upper bound where not converged.
        residual: Larger residual of the two: an eigenvalue lies within it of each. The error of a well
            separated one is about the residual squared over the distance to the next.
        products: Number of products with the matrix.
        converged: Whether the residual is at most the tolerance times the largest absolute eigenvalue.
    """

    largest: float
    smallest: float
    residual: float
    products: int
    converged: bool

    @property
    def ratio(self) -> float:
        """|lambda_min| / |lambda_max|; NaN where both are 0, infinite where only lambda_max is."""
        small, large = abs(self.smallest), abs(self.largest)
        if math.isnan(small) or math.isnan(large) or small == large == 0:
            return math.nan
        return small / large if large else math.inf

    def variables(self) -> dict[str, float]:
        """Both ends and how well they are known, by the names that files have."""
        return {
            "largest_eigenvalue": self.largest,
            "smallest_eigenvalue": self.smallest,
            "residual": self.residual,
            "converged": float(self.converged),
            "products": float(self.products),
        }


NOT_FINITE = ExtremeEigenvalues(math.nan, math.nan, math.nan, 0, False)
"""Where a product is not finite there is no spectrum."""


def extreme_eigenvalues(
    product: Product,
    size: int,
    *,
    tolerance: float | int = 1e-4,
    max_products: int = 100,
    seed: int = 0,
    scale: Float64[np.ndarray, " size"] | None = None,
) -> ExtremeEigenvalues:
    """Compute the largest and the smallest eigenvalue of a symmetric matrix A.

    Lanczos: v_1 a random unit vector, beta_{j+1} v_{j+1} = A v_j - alpha_j v_j - beta_j v_{j-1}. The ends of
    the spectrum of the tridiagonal matrix T_m of alpha and beta approach those of A, largest absolute ones
    first, and beta_{m+1} |s_m| is the residual of an eigenvalue of T_m with eigenvector s. The vectors are
    not orthogonalised again: with rounding, T_m gets further copies of eigenvalues that have converged, which
    moves neither end (Paige). The memory is that of three vectors, however many products there are.

    Pitfall: the residual is the distance to some eigenvalue, not to the last one. Where eigenvalues lie close
    together, as below zero in the Hessian of a trained network, an end may be off by a few residuals (of a
    small trained network by 2e-3 of the largest eigenvalue at the tolerance 1e-3, where the smallest was
    15e-3 of it); and one that is smaller than the tolerance times the largest is not resolved.

    Args:
        product: Maps v to A v.
        size: Rows of A.
        tolerance: Residual, relative to the largest absolute eigenvalue, at which the run stops.
        max_products: Limit on the products.
        seed: Of the start vector.
        scale: Diagonal of a matrix D: the spectrum is that of D A D.

    Returns:
        The eigenvalues; NaN where a product is not finite.

    Raises:
        ValueError: If a setting is out of range.

    Example:
        >>> values = np.array([-1.0, 0.0, 0.5, 2.0])
        >>> found = extreme_eigenvalues(lambda v: values * v, 4)
        >>> round(found.smallest, 9), round(found.largest, 9), found.converged
        (-1.0, 2.0, True)
    """
    check_run(tolerance, max_products)
    if size < 1:
        raise ValueError(f"`size` (={size}) must be at least 1")
    vector = np.random.default_rng(seed).standard_normal(size)
    vector /= np.linalg.norm(vector)
    before, beta = np.zeros(size), 0.0
    diagonal: list[float] = []
    beside: list[float] = []
    while True:
        image = product(vector) if scale is None else scale * product(scale * vector)
        if not np.isfinite(image).all():
            return ExtremeEigenvalues(math.nan, math.nan, math.nan, len(diagonal) + 1, False)
        alpha = float(vector @ image)
        rest = image - alpha * vector - beta * before
        diagonal.append(alpha)
        beta = float(np.linalg.norm(rest))
        largest_so_far = max(*map(abs, diagonal), *beside, 0.0)
        is_invariant = beta <= _BREAKDOWN * largest_so_far or len(diagonal) == 1 == size
        values, residuals = _ends(diagonal, beside, 0.0 if is_invariant else beta)
        small_enough = bool(residuals.max() <= tolerance * np.abs(values).max())
        is_converged = is_invariant or (small_enough and len(diagonal) >= min(_FEWEST, size))
        if is_converged or len(diagonal) == max_products:
            smallest, largest = values.tolist()
            return ExtremeEigenvalues(
                largest, smallest, float(residuals.max()), len(diagonal), small_enough or is_invariant
            )
        beside.append(beta)
        before, vector = vector, rest / beta


def check_run(tolerance: float, max_products: int) -> None:
    """Refuse a tolerance or a limit on products that is out of range."""
    if not 0 < tolerance < 1:
        raise ValueError(f"`tolerance` (={tolerance}) must be above 0 and below 1")
    if not 1 <= max_products <= 10**6:
        raise ValueError(f"`max_products` (={max_products}) must be from 1 to 1000000")


def _ends(
    diagonal: list[float], beside: list[float], beta: float
) -> tuple[Float64[np.ndarray, "2"], Float64[np.ndarray, "2"]]:
    """Smallest and largest eigenvalue of the tridiagonal matrix, and their residuals."""
    matrix = np.diag(diagonal) + np.diag(beside, 1) + np.diag(beside, -1)
    values, vectors = np.linalg.eigh(matrix)
    ends = [0, len(values) - 1]
    return values[ends], beta * np.abs(vectors[-1, ends])
