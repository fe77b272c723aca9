from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from nas_lightning.analysis.curvature_products import CurvatureProduct, GaussNewtonProduct, HessianProduct
from nas_lightning.analysis.filters import filter_scale
from nas_lightning.analysis.lanczos import lanczos
from nas_lightning.analysis.spectral_density import (
    Quadrature,
    density_of,
    lanczos_quadrature,
    moments_of,
    spectral_density,
)
from nas_lightning.cells import Genotype
from nas_lightning.networks import CellNetwork
from tests.oracles.dense_hessian import dense_gauss_newton, dense_hessian

RIDGE = 0.01


def perceptron() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 3)).double().eval()


def samples() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    inputs = torch.randn(9, 3, generator=generator, dtype=torch.float64)
    return inputs, torch.randint(3, (9,), generator=generator)


def batches() -> list[tuple[Tensor, Tensor]]:
    inputs, targets = samples()
    return list(zip(torch.split(inputs, 4), torch.split(targets, 4), strict=True))


def dense(matrix: str, normalized: bool) -> np.ndarray:
    oracle = {"hessian": dense_hessian, "gauss_newton": dense_gauss_newton}[matrix]
    module = perceptron()
    found: np.ndarray = oracle(module, *samples()).numpy()
    if normalized:
        scale = filter_scale(module)
        found = (scale[:, None] * found * scale)[np.ix_(scale > 0, scale > 0)]
    return found


def exact_density(values: np.ndarray, points: np.ndarray, sigma: float) -> np.ndarray:
    kernel = np.exp(-0.5 * ((points[:, None] - values) / sigma) ** 2) / (sigma * math.sqrt(2 * math.pi))
    return np.asarray(kernel.mean(axis=1))


def exact_moments(values: np.ndarray) -> dict[str, float]:
    positive = values[values > 0]
    return {
        "trace": values.sum(),
        "frobenius_norm": math.sqrt((values**2).sum()),
        "effective_dimension": (positive / (positive + RIDGE)).sum(),
    }


@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize("matrix", ["hessian", "gauss_newton"])
def test_the_estimate_is_the_dense_spectrum_within_its_stated_error(matrix: str, normalized: bool) -> None:
    whole = dense(matrix, normalized)
    values = np.linalg.eigvalsh(whole)
    everywhere = np.ones(len(whole), dtype=bool)
    found = lanczos_quadrature(lambda v: whole @ v, everywhere, range(100), steps=len(whole))
    own = spectral_density(perceptron(), batches(), matrix, steps=39, start_vectors=2, normalized=normalized)
    assert own.dimension == found.dimension == len(values)
    gap = own.nodes[:, : len(whole)] - found.nodes[:2]
    assert np.nanmax(np.abs(gap)) < 1e-5 * values[-1]
    density = density_of(found, 0.02)
    assert density.width == pytest.approx(0.02 * (values[-1] - values[0]), rel=1e-4)
    expected = exact_density(values, density.points, density.width)
    gaps = (density.values - expected) / np.maximum(density.errors, 5e-3 * expected.max())
    assert np.quantile(np.abs(gaps), 0.98) < 3.5  # a single eigenvalue's weight has a long tail
    assert np.sqrt((gaps**2).mean()) < 1.5
    assert density.errors.max() > 0.005 * expected.max()
    for name, (value, error) in moments_of(found, RIDGE).items():
        exact = exact_moments(values)[name]
        assert abs(value - exact) < 3.5 * error + 1e-5 * abs(exact)
        assert error > 0


@pytest.mark.parametrize("kind", [HessianProduct, GaussNewtonProduct])
def test_over_all_axes_as_start_vectors_the_estimate_is_exact(kind: type[CurvatureProduct]) -> None:
    product = kind(perceptron(), batches())
    axes = np.eye(product.size)
    matrix = product.partial(axes)
    found = lanczos(lambda v: matrix @ v, axes, product.size, dtype=torch.float64)
    nodes, weights = (np.full(axes.shape, math.nan) for _ in range(2))
    for row, tridiagonal in enumerate(found):
        count = len(tridiagonal.diagonal)
        nodes[row, :count], weights[row, :count] = tridiagonal.eigenvalues()
    ended = np.array([tridiagonal.is_invariant for tridiagonal in found])
    quadrature = Quadrature(nodes, weights, product.size, ended)
    values = np.linalg.eigvalsh(matrix)
    density = density_of(quadrature, 0.05)
    expected = exact_density(values, density.points, density.width)
    np.testing.assert_allclose(density.values, expected, rtol=0, atol=1e-9 * expected.max())
    for name, exact in exact_moments(values).items():
        assert moments_of(quadrature, RIDGE)[name][0] == pytest.approx(exact, rel=1e-8)


@pytest.mark.parametrize("matrix", ["hessian", "gauss_newton"])
def test_curvlinops_finds_the_same_matrix_and_the_same_nodes(matrix: str) -> None:
    curvlinops = pytest.importorskip("curvlinops")
    from curvlinops.papyan2020traces.spectrum import fast_lanczos

    module = perceptron()
    operators = {"hessian": curvlinops.HessianLinearOperator, "gauss_newton": curvlinops.GGNLinearOperator}
    operator = operators[matrix](module, nn.CrossEntropyLoss(), list(module.parameters()), batches())
    kinds = {"hessian": HessianProduct, "gauss_newton": GaussNewtonProduct}
    product = kinds[matrix](module, batches())
    theirs = (operator @ torch.eye(product.size, dtype=torch.float64)).detach().numpy()
    np.testing.assert_allclose(product.partial(np.eye(product.size)), theirs, rtol=0, atol=1e-12)

    torch.manual_seed(0)
    values, vectors = fast_lanczos(operator, 8)  # it does not orthogonalise anew: few steps only
    torch.manual_seed(0)
    start = torch.randn(product.size, dtype=torch.float64).numpy()[:, None]
    (found,) = lanczos(product.partial, start, 8, dtype=torch.float64)
    nodes, weights = found.eigenvalues()
    np.testing.assert_allclose(nodes, values.numpy(), rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(weights, vectors[0].square().numpy(), rtol=1e-5, atol=1e-8)


def test_the_numbers_of_the_vectors_decide_and_not_their_company() -> None:
    product = HessianProduct(perceptron(), batches())
    everywhere = np.ones(product.size, dtype=bool)

    def nodes(vectors: list[int], seed: int = 0) -> np.ndarray:
        return lanczos_quadrature(product.partial, everywhere, vectors, steps=6, seed=seed).nodes

    together = nodes([0, 1, 2])
    np.testing.assert_array_equal(together, np.concatenate([nodes([0]), nodes([1, 2])]))
    assert len(np.unique(together[:, 0])) == 3
    assert not np.array_equal(nodes([0], 1), nodes([0]))


def test_shares_of_two_processes_give_the_same_density() -> None:
    module, parts = perceptron(), batches()
    whole = HessianProduct(module, parts)
    ranks = [HessianProduct(module, share, total=9) for share in (parts[:1], parts[1:])]
    everywhere = np.ones(whole.size, dtype=bool)

    def summed(vectors: np.ndarray) -> np.ndarray:
        shares: np.ndarray = ranks[0].partial(vectors) + ranks[1].partial(vectors)
        return shares

    one, two = (
        lanczos_quadrature(product, everywhere, range(2), steps=8, dtype=torch.float64)
        for product in (whole.partial, summed)
    )
    np.testing.assert_allclose(two.nodes, one.nodes, rtol=1e-9, atol=1e-12)


def rescaled(network: CellNetwork, factor: float) -> CellNetwork:
    """The same function with every convolution before a batch norm scaled."""
    layers = [layer for layer in network.modules() if isinstance(layer, nn.Sequential)]
    for layer in layers:
        children = list(layer.children())
        for convolution, norm in pairwise(children):
            if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                assert norm.running_mean is not None
                assert norm.running_var is not None
                with torch.no_grad():
                    convolution.weight.mul_(factor)
                    norm.running_mean.mul_(factor)
                    norm.running_var.copy_(factor**2 * (norm.running_var + norm.eps) - norm.eps)
    return network


@pytest.mark.parametrize("matrix", ["hessian", "gauss_newton"])
def test_only_the_normalised_density_ignores_the_scale_before_batch_norm(matrix: str) -> None:
    genotype = Genotype([("sep_conv_3x3", 0), ("skip_connect", 1)], [2], [("max_pool_3x3", 0)] * 2, [2])
    torch.manual_seed(0)
    network = CellNetwork(genotype, 3, init_channels=2, num_cells=3).double().eval()
    images = torch.randn(4, 3, 8, 8, dtype=torch.float64), torch.randint(3, (4,))

    def nodes(normalized: bool) -> np.ndarray:
        found = spectral_density(network, [images], matrix, steps=6, start_vectors=1, normalized=normalized)
        return found.nodes

    plain, normalised = nodes(False), nodes(True)
    expected = network(images[0])
    rescaled(network, 3.0)
    torch.testing.assert_close(network(images[0]), expected)
    np.testing.assert_allclose(nodes(True), normalised, rtol=0, atol=1e-5 * normalised.max())
    assert abs(nodes(False).max() / plain.max() - 1) > 0.03


def test_the_squared_first_components_are_the_weights() -> None:
    # The last components, or the squares of the values, give another trace.
    values = np.array([0.0, 1.0, 5.0, 9.0])
    found = lanczos_quadrature(
        lambda v: values[:, None] * v, np.ones(4, dtype=bool), [0], steps=4, dtype=torch.float64
    )
    np.testing.assert_allclose(found.nodes[0], values, atol=1e-12)
    np.testing.assert_allclose(found.weights[0], 0.25, atol=1e-12)
    trace, error = moments_of(found, 1.0)["trace"]
    assert trace == pytest.approx(15.0)
    assert math.isnan(error)  # of one start vector


def test_a_density_integrates_to_one_and_its_logarithm_has_an_error() -> None:
    found = spectral_density(perceptron(), batches(), steps=10, start_vectors=3)
    density = density_of(found, 0.01)
    assert len(density.points) == 1 + 4 * 110
    assert np.trapezoid(density.values, density.points) == pytest.approx(1, abs=1e-4)
    here = density.values > 1e-3
    np.testing.assert_allclose(10 ** density.log10[here], density.values[here])
    slope = 1 / (density.values[here] * math.log(10))
    np.testing.assert_allclose(density.log10_errors[here], density.errors[here] * slope)
    one = density_of(spectral_density(perceptron(), batches(), steps=10, start_vectors=1), 0.01)
    assert np.isnan(one.errors).all()


def test_a_flat_loss_is_one_peak_at_zero() -> None:
    module = nn.Linear(3, 3).double()

    def linear(outputs: Tensor, targets: Tensor) -> Tensor:
        return outputs.sum(1)

    found = spectral_density(module, batches(), loss=linear)
    assert found.is_invariant.all()
    assert (found.nodes[:, 0] == 0).all()
    assert np.isnan(found.nodes[:, 1:]).all()
    density = density_of(found, 0.01)
    assert np.isfinite(density.values).all()
    assert abs(density.points[density.values.argmax()]) <= density.width
    assert moments_of(found, 1.0) == dict.fromkeys(exact_moments(np.zeros(1)), (0.0, 0.0))


def test_weights_without_a_finite_loss_give_nan() -> None:
    module = perceptron()
    with torch.no_grad():
        next(module.parameters())[0, 0] = math.nan
    found = spectral_density(module, batches(), steps=5, start_vectors=2)
    assert np.isnan(found.nodes).all()
    density = density_of(found, 0.1)
    assert np.isnan(density.values).all()
    assert len(density.points) == 1 + 4 * 20
    assert all(math.isnan(value) for value, _ in moments_of(found, 1.0).values())


def test_a_convex_loss_has_one_matrix() -> None:
    module = nn.Linear(3, 3).double()

    def squares(outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs - functional.one_hot(targets, 3)).square()

    hessian, part = (
        spectral_density(module, batches(), matrix, loss=squares, start_vectors=2).nodes[:, -1]
        for matrix in ("hessian", "gauss_newton")
    )
    np.testing.assert_allclose(hessian, part)


def test_settings_out_of_range_are_refused() -> None:
    found = spectral_density(perceptron(), batches(), steps=2, start_vectors=2)
    with pytest.raises(ValueError, match=r"`ridge` \(=0\) must be above 0"):
        moments_of(found, 0)
    with pytest.raises(ValueError, match=r"`width` \(=1\) must be above 0 and below 1"):
        density_of(found, 1)
    with pytest.raises(ValueError, match=r"`matrix` \(='fisher'\) must be one of 'hessian', 'gauss_newton'"):
        spectral_density(perceptron(), batches(), "fisher")
    with pytest.raises(ValueError, match=r"`start_vectors` \(=0\) must be at least 1"):
        spectral_density(perceptron(), batches(), start_vectors=0)
    with pytest.raises(ValueError, match="no parameter counts"):
        lanczos_quadrature(lambda v: v, np.zeros(3, dtype=bool), [0], steps=2)
