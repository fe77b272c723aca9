from __future__ import annotations

import numpy as np
import pytest
import torch

from nas_lightning.analysis.lanczos import lanczos


def symmetric(size: int, seed: int = 0) -> np.ndarray:
    matrix = np.random.default_rng(seed).standard_normal((size, size))
    return np.asarray(matrix + matrix.T)


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-11), (torch.float32, 1e-5)])
def test_all_steps_give_all_eigenvalues_and_the_start_vectors_squared_parts(
    dtype: torch.dtype, bound: float
) -> None:
    matrix = symmetric(30)
    starts = np.random.default_rng(1).standard_normal((30, 3))
    values, vectors = np.linalg.eigh(matrix)
    for start, found in zip(starts.T, lanczos(lambda v: matrix @ v, starts, 30, dtype=dtype), strict=True):
        nodes, weights = found.eigenvalues()
        np.testing.assert_allclose(nodes, values, rtol=0, atol=bound * values[-1])
        parts = (vectors.T @ start) ** 2 / (start @ start)
        np.testing.assert_allclose(weights, parts, rtol=0, atol=30 * bound)
        assert not found.is_invariant


def test_an_outlier_does_not_come_back_as_copies() -> None:
    values = np.concatenate([np.linspace(-1, 1, 199), [1000.0]])
    start = np.random.default_rng(0).standard_normal((200, 1))
    (found,) = lanczos(lambda v: values[:, None] * v, start, 60)
    nodes, weights = found.eigenvalues()
    assert (nodes > 2).sum() == 1
    assert nodes[-1] == pytest.approx(1000, rel=1e-6)
    assert weights[-1] == pytest.approx(start[-1, 0] ** 2 / (start**2).sum(), rel=1e-4)
    assert nodes[0] > -1 - 1e-3


def test_vectors_in_lockstep_give_what_each_gives_alone() -> None:
    matrix = symmetric(40)
    starts = np.random.default_rng(0).standard_normal((40, 3))
    starts[:, 1] = np.linalg.eigh(matrix)[1][:, [0, 5]] @ [1.0, 2.0]  # ends after two steps
    calls = []

    def product(vectors: np.ndarray) -> np.ndarray:
        calls.append(vectors.shape[1])
        return np.stack([matrix @ np.ascontiguousarray(column) for column in vectors.T], axis=1)

    together = lanczos(product, starts, 10, dtype=torch.float64)
    assert calls == [3, 3, *[2] * 8]
    for index, found in enumerate(together):
        (alone,) = lanczos(product, starts[:, [index]], 10, dtype=torch.float64)
        np.testing.assert_array_equal(found.diagonal, alone.diagonal)
        np.testing.assert_array_equal(found.off_diagonal, alone.off_diagonal)
    assert [found.is_invariant for found in together] == [False, True, False]


@pytest.mark.parametrize("rank", [0, 1, 4])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_an_invariant_subspace_ends_the_process_and_is_used(rank: int, dtype: torch.dtype) -> None:
    basis = np.linalg.qr(np.random.default_rng(0).standard_normal((25, rank)))[0]
    values = np.arange(1.0, rank + 1)
    start = np.random.default_rng(1).standard_normal((25, 1))
    (found,) = lanczos(lambda v: basis @ (values[:, None] * (basis.T @ v)), start, 20, dtype=dtype)
    assert found.is_invariant
    nodes, weights = found.eigenvalues()
    np.testing.assert_allclose(nodes, [0.0, *values], atol=1e-5)
    parts = (basis.T @ start)[:, 0] ** 2 / (start**2).sum()
    np.testing.assert_allclose(weights, [1 - parts.sum(), *parts], atol=1e-5)


def test_a_product_that_is_not_finite_ends_only_its_own_process() -> None:
    matrix, starts = symmetric(10), np.eye(10)[:, :2]

    def product(vectors: np.ndarray) -> np.ndarray:
        return np.where(vectors[0] == 1.0, np.inf, matrix @ vectors)

    broken, whole = lanczos(product, starts, 5, dtype=torch.float64)
    assert np.isnan(broken.eigenvalues()).all()
    np.testing.assert_array_equal(len(whole.diagonal), 5)


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match=r"`steps` \(=0\) must be at least 1"):
        lanczos(lambda v: v, np.ones((3, 1)), 0)
    for bad in (0.0, np.nan):
        with pytest.raises(ValueError, match="`starts` hold a vector that is zero or not finite"):
            lanczos(lambda v: v, np.full((3, 1), bad), 1)
