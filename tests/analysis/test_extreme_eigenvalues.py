from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from nas_lightning.analysis.extreme_eigenvalues import ExtremeEigenvalues, extreme_eigenvalues


def matrix_with(values: np.ndarray, seed: int = 0) -> np.ndarray:
    basis = np.linalg.qr(np.random.default_rng(seed).standard_normal((len(values), len(values))))[0]
    made: np.ndarray = (basis * values) @ basis.T
    return made


def like_a_hessian(size: int) -> np.ndarray:
    """Some large eigenvalues, a bulk around 0, a few negative ones."""
    bulk = 1e-3 * np.random.default_rng(1).standard_normal(size)
    return np.concatenate([bulk, [5.0, 2.0, 1.0, -0.2, -0.1]])[-size:]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 21, 40, 300])
@pytest.mark.parametrize("tolerance", [1e-3, 1e-10])
def test_both_ends_equal_those_of_the_dense_matrix(size: int, tolerance: float) -> None:
    values = like_a_hessian(size)
    matrix = matrix_with(values)
    found = extreme_eigenvalues(lambda v: matrix @ v, size, tolerance=tolerance)
    assert found.converged
    assert found.largest == pytest.approx(values.max(), abs=max(tolerance**2, 1e-13) * 5)
    assert found.smallest == pytest.approx(values.min(), abs=max(tolerance**2, 1e-13) * 5)
    assert found.products <= min(size, 20) + 10
    assert found.residual <= tolerance * np.abs(values).max()


def test_a_spectrum_without_gaps_is_found_within_the_residual() -> None:
    values = np.linspace(-1, 3, 400)
    matrix = matrix_with(values)
    found = extreme_eigenvalues(lambda v: matrix @ v, 400, tolerance=1e-3, max_products=400)
    assert found.converged
    for value, end in ((found.largest, 3.0), (found.smallest, -1.0)):
        assert abs(value - end) <= found.residual <= 3e-3


def test_copies_of_converged_eigenvalues_move_no_end() -> None:
    """Without orthogonalisation the largest is found again and again while the lower end takes its time."""
    values = np.concatenate([np.linspace(-1, 0, 300), [100.0]])
    matrix = matrix_with(values)
    found = extreme_eigenvalues(lambda v: matrix @ v, 301, tolerance=1e-8, max_products=300)
    assert found.converged
    assert found.products > 60
    assert found.largest == pytest.approx(100.0, abs=1e-10)
    assert abs(found.smallest + 1) <= found.residual <= 1e-6


def test_an_exhausted_budget_gives_bounds_and_says_so() -> None:
    matrix = np.random.default_rng(0).standard_normal((300, 300))
    matrix = matrix + matrix.T
    values = np.linalg.eigvalsh(matrix)
    found = extreme_eigenvalues(lambda v: matrix @ v, 300, max_products=25)
    assert not found.converged
    assert values[0] <= found.smallest <= 0.8 * values[0]
    assert values[-1] >= found.largest >= 0.8 * values[-1]
    for value in (found.smallest, found.largest):
        assert np.abs(values - value).min() <= found.residual


def test_an_invariant_subspace_ends_the_run() -> None:
    vector = np.random.default_rng(5).standard_normal(50)
    vector /= np.linalg.norm(vector)
    found = extreme_eigenvalues(lambda v: 4 * vector * (vector @ v), 50)
    assert found.converged
    assert found.products <= 3
    assert (found.largest, found.smallest) == pytest.approx((4.0, 0.0), abs=1e-12)
    flat = extreme_eigenvalues(np.zeros_like, 50)
    assert (flat.largest, flat.smallest, flat.products, flat.converged) == (0, 0, 1, True)
    assert math.isnan(flat.ratio)


def test_the_ratio() -> None:
    assert ExtremeEigenvalues(4.0, -1.0, 0.0, 1, True).ratio == 0.25
    assert ExtremeEigenvalues(-1.0, -4.0, 0.0, 1, True).ratio == 4
    assert ExtremeEigenvalues(0.0, -1.0, 0.0, 1, True).ratio == math.inf


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_product_that_is_not_finite_gives_nan(bad: float) -> None:
    found = extreme_eigenvalues(lambda v: np.full_like(v, bad), 30)
    assert math.isnan(found.largest)
    assert math.isnan(found.ratio)
    assert not found.converged
    assert found.products == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tolerance": 0.0}, r"`tolerance` \(=0.0\) must be above 0 and below 1"),
        ({"tolerance": math.nan}, r"`tolerance` \(=nan\)"),
        ({"max_products": 0}, r"`max_products` \(=0\) must be from 1 to 1000000"),
        ({"size": 0}, r"`size` \(=0\) must be at least 1"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        extreme_eigenvalues(lambda v: v, **({"size": 3} | settings))
