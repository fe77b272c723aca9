from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nas_lightning.analysis.curvature_products import HessianProduct
from nas_lightning.analysis.filters import filter_scale
from nas_lightning.analysis.hessian import hessian_eigenvalues
from nas_lightning.cells import Genotype
from nas_lightning.networks import CellNetwork
from tests.oracles.dense_hessian import dense_hessian

# Node 3 of the normal cell is not concatenated: dead. Every kind of convolution and both pools are there.
GENOTYPE = Genotype(
    [("sep_conv_3x3", 0), ("max_pool_3x3", 1), ("dil_conv_3x3", 1), ("skip_connect", 2)],
    [2],
    [("dil_conv_3x3", 1), ("avg_pool_3x3", 0), ("skip_connect", 0), ("max_pool_3x3", 2)],
    [2],
)

Batches = list[tuple[Tensor, Tensor]]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def cell_network() -> CellNetwork:
    torch.manual_seed(0)
    network = CellNetwork(GENOTYPE, num_classes=3, init_channels=1, num_cells=3)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.uniform_(layer.bias, 0.0, 0.5)
            assert layer.running_mean is not None
            assert layer.running_var is not None
            layer.running_mean.uniform_(-0.2, 0.2)
            layer.running_var.uniform_(0.1, 0.5)
    return network


def perceptron() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 3)).double()


def samples(count: int, *shape: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    inputs = torch.randn(count, *shape, generator=generator)
    return inputs, torch.randint(3, (count,), generator=generator)


def batches_of(size: int, inputs: Tensor, targets: Tensor) -> Batches:
    return list(zip(torch.split(inputs, size), torch.split(targets, size), strict=True))


@pytest.fixture(scope="module")
def images() -> tuple[Tensor, Tensor]:
    return samples(7, 3, 8, 8)


@pytest.fixture(scope="module")
def cell_hessian(images: tuple[Tensor, Tensor]) -> np.ndarray:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    hessian: np.ndarray = dense_hessian(cell_network(), *images).numpy()
    torch.set_num_threads(threads)
    return hessian


def matrix_of(product: HessianProduct) -> np.ndarray:
    return np.stack([product.partial(row) for row in np.eye(product.size)], axis=1)


def state_of(module: nn.Module) -> dict[str, object]:
    return {
        "tensors": {name: value.clone() for name, value in module.state_dict().items()},
        "modes": [layer.training for layer in module.modules()],
        "live": [parameter.requires_grad for parameter in module.parameters()],
        "grad": [parameter.grad for parameter in module.parameters()],
    }


def assert_same_state(before: dict[str, object], after: dict[str, object]) -> None:
    tensors = before.pop("tensors"), after.pop("tensors")
    torch.testing.assert_close(*tensors, rtol=0, atol=0)
    assert before == after


@pytest.mark.parametrize("size", [1, 3, 4, 7])
def test_products_give_the_dense_hessian_whatever_the_batches(size: int) -> None:
    module, (inputs, targets) = perceptron(), samples(7, 3)
    expected = dense_hessian(module, inputs, targets).numpy()
    matrix = matrix_of(HessianProduct(module, batches_of(size, inputs.double(), targets)))
    np.testing.assert_allclose(matrix, expected, rtol=0, atol=1e-12 * np.abs(expected).max())
    np.testing.assert_allclose(
        np.linalg.eigvalsh(matrix), np.linalg.eigvalsh(expected), rtol=1e-8, atol=1e-12
    )


def test_batches_of_one_weight_would_be_seen() -> None:
    module, (inputs, targets) = perceptron(), samples(7, 3)
    expected = dense_hessian(module, inputs, targets).numpy()
    unweighted = np.mean(
        [dense_hessian(module, *batch).numpy() for batch in batches_of(6, inputs, targets)], axis=0
    )
    largest = np.linalg.eigvalsh(expected)[-1]
    assert abs(np.linalg.eigvalsh(unweighted)[-1] - largest) > 0.1 * largest


@pytest.mark.parametrize(
    ("dtype", "tolerance", "bound"), [(torch.float64, 1e-9, 1e-8), (torch.float32, 1e-3, 1e-5)]
)
def test_eigenvalues_of_a_cell_network_equal_those_of_the_dense_hessian(
    images: tuple[Tensor, Tensor],
    cell_hessian: np.ndarray,
    dtype: torch.dtype,
    tolerance: float,
    bound: float,
) -> None:
    expected = np.linalg.eigvalsh(cell_hessian)
    batches = batches_of(4, images[0].to(dtype), images[1])
    spectrum = hessian_eigenvalues(
        cell_network().to(dtype), batches, 4, smallest=2, trace_samples=0, tolerance=tolerance
    )
    assert spectrum.converged
    assert spectrum.products < 120
    scale = expected[-1]
    np.testing.assert_allclose(spectrum.eigenvalues, expected[:-5:-1], rtol=0, atol=bound * scale)
    np.testing.assert_allclose(spectrum.smallest, expected[:2], rtol=0, atol=bound * scale)
    assert expected[0] < -0.01 * scale  # the lower end is not just zero
    # Within a residual's distance there is an eigenvalue; in float32 up to the rounding of a product.
    for value, residual in zip(
        [*spectrum.eigenvalues, *spectrum.smallest],
        [*spectrum.residuals, *spectrum.smallest_residuals],
        strict=True,
    ):
        assert np.abs(expected - value).min() <= residual + bound * scale
        assert residual <= tolerance * scale


def test_the_scaled_spectrum_is_that_of_the_scaled_dense_hessian(
    images: tuple[Tensor, Tensor], cell_hessian: np.ndarray
) -> None:
    network = cell_network().double()
    scale = np.concatenate(
        [
            np.repeat([np.sqrt(np.mean(row**2)) for row in p.detach().flatten(1).numpy()], p[0].numel())
            if p.ndim > 1
            else np.zeros(p.numel())
            for p in network.parameters()
            if p.requires_grad
        ]
    )
    np.testing.assert_allclose(filter_scale(network), scale, rtol=1e-14)
    expected = np.linalg.eigvalsh(scale[:, None] * cell_hessian * scale)
    batches = batches_of(4, images[0].double(), images[1])
    found = hessian_eigenvalues(
        network, batches, 2, smallest=1, trace_samples=0, tolerance=1e-10, scale=filter_scale(network)
    )
    np.testing.assert_allclose(found.eigenvalues, expected[:-3:-1], rtol=1e-8)
    np.testing.assert_allclose(found.smallest, expected[:1], rtol=0, atol=1e-8 * expected[-1])
    with pytest.raises(ValueError, match="`scale` has 3 entries"):
        hessian_eigenvalues(network, batches, scale=np.ones(3))


def test_dead_parameters_do_not_count(images: tuple[Tensor, Tensor], cell_hessian: np.ndarray) -> None:
    network = cell_network()
    live = sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
    assert live < sum(parameter.numel() for parameter in network.parameters())
    product = HessianProduct(network.double(), batches_of(4, images[0].double(), images[1]))
    assert product.size == live == len(cell_hessian)
    vector = np.random.default_rng(0).standard_normal(live)
    np.testing.assert_allclose(product.partial(vector), cell_hessian @ vector, rtol=1e-9, atol=1e-9)


def test_parameters_that_evaluation_does_not_use_add_zeros() -> None:
    class WithTower(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tower = nn.Linear(3, 2)
            self.body = perceptron()

        def forward(self, x: Tensor) -> Tensor:
            logits: Tensor = self.body(x)
            return logits

    module, (inputs, targets) = WithTower().double(), samples(7, 3)
    matrix = matrix_of(HessianProduct(module, batches_of(4, inputs.double(), targets)))
    assert not matrix[:8].any()
    assert not matrix[:, :8].any()
    np.testing.assert_allclose(
        matrix[8:, 8:], dense_hessian(perceptron(), inputs, targets).numpy(), atol=1e-12
    )
    module.body.requires_grad_(False)
    assert not matrix_of(HessianProduct(module, batches_of(4, inputs.double(), targets))).any()


def test_shares_of_several_processes_add_up() -> None:
    module, (inputs, targets) = perceptron(), samples(7, 3)
    batches = batches_of(3, inputs.double(), targets)
    vector = np.random.default_rng(0).standard_normal(HessianProduct(module, batches).size)
    whole = HessianProduct(module, batches).partial(vector)
    ranks = [HessianProduct(module, share, total=7) for share in (batches[:2], batches[2:], [])]
    shares = [rank.partial(vector) for rank in ranks]
    np.testing.assert_allclose(sum(shares), whole, rtol=1e-13, atol=1e-15)
    assert not shares[2].any()

    def summed(vector: np.ndarray) -> np.ndarray:
        total: np.ndarray = np.sum([rank.partial(vector) for rank in ranks], axis=0)
        return total

    alone = hessian_eigenvalues(module, batches, 3, tolerance=1e-10)
    together = hessian_eigenvalues(module, [], 3, tolerance=1e-10, product=summed)
    np.testing.assert_allclose(together.eigenvalues, alone.eigenvalues, rtol=1e-10)
    np.testing.assert_allclose(together.trace, alone.trace, rtol=1e-10)


def test_nothing_is_left_behind(images: tuple[Tensor, Tensor]) -> None:
    network = cell_network().train()
    network.cells[0].eval()
    before = state_of(network)
    hessian_eigenvalues(network, batches_of(4, *images), 1, smallest=0, trace_samples=0)
    assert_same_state(before, state_of(network))


def test_nothing_is_left_behind_by_a_failure(images: tuple[Tensor, Tensor]) -> None:
    network = cell_network().train()
    before = state_of(network)
    with pytest.raises(IndexError):
        hessian_eigenvalues(network, [(images[0], images[1] + 3)], 1, trace_samples=0)
    assert_same_state(before, state_of(network))


def test_works_in_inference_mode_without_gradients_and_under_autocast() -> None:
    module, (inputs, targets) = perceptron(), samples(7, 3)
    vector = np.random.default_rng(0).standard_normal(39)
    expected = dense_hessian(module, inputs, targets).numpy() @ vector
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        batches = batches_of(4, inputs.double() * 1, targets + 0)  # tensors of inference mode
        product = HessianProduct(module, batches).partial(vector)
    np.testing.assert_allclose(product, expected, rtol=1e-10)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        batches = batches_of(4, inputs, targets)
        single = HessianProduct(module.float(), batches).partial(vector)
    np.testing.assert_allclose(single, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.slow
def test_a_compiled_module_is_differentiated_uncompiled() -> None:
    module, (inputs, targets) = perceptron(), samples(7, 3)
    vector = np.random.default_rng(0).standard_normal(39)
    batches = batches_of(4, inputs.double(), targets)
    expected = HessianProduct(module, batches).partial(vector)
    module.compile(backend="aot_eager")
    module.eval()(batches[0][0])
    np.testing.assert_allclose(HessianProduct(module, batches).partial(vector), expected, rtol=1e-12)


def with_size(size: int) -> nn.Module:
    return nn.Linear(size - 1, 1)


def symmetric(size: int, *, seed: int = 0) -> np.ndarray:
    matrix = np.random.default_rng(seed).standard_normal((size, size))
    symmetrised: np.ndarray = matrix + matrix.T
    return symmetrised


def test_all_eigenvalues_of_a_tiny_module() -> None:
    module, (inputs, targets) = perceptron(), samples(7, 3)
    expected = np.linalg.eigvalsh(dense_hessian(module, inputs, targets).numpy())
    batches = batches_of(3, inputs.double(), targets)
    spectrum = hessian_eigenvalues(module, batches, len(expected), smallest=0)
    np.testing.assert_allclose(spectrum.eigenvalues, expected[::-1], rtol=1e-8, atol=1e-13)
    assert spectrum.smallest.shape == (0,)
    assert spectrum.products == len(expected)
    np.testing.assert_allclose(spectrum.trace, expected.sum(), rtol=1e-10)
    assert spectrum.trace_standard_error == 0


def test_trace_is_exact_for_a_diagonal_matrix_and_within_its_error_for_others() -> None:
    diagonal = np.arange(100.0) - 30
    exact = hessian_eigenvalues(with_size(100), [], 1, trace_samples=3, product=lambda v: diagonal * v)
    assert exact.trace == pytest.approx(diagonal.sum(), rel=1e-12)
    assert exact.trace_standard_error == pytest.approx(0, abs=1e-9)

    matrix = symmetric(100)
    estimate = hessian_eigenvalues(with_size(100), [], 1, trace_samples=400, product=lambda v: matrix @ v)
    off_diagonal = matrix - np.diag(matrix.diagonal())
    standard_error = math.sqrt(2 * (off_diagonal**2).sum() / 400)
    assert estimate.trace_standard_error == pytest.approx(standard_error, rel=0.15)
    assert abs(estimate.trace - matrix.trace()) < 3 * standard_error


def test_the_trace_has_an_error_only_with_two_samples_and_may_be_left_out() -> None:
    matrix = symmetric(100)
    none, one = (
        hessian_eigenvalues(with_size(100), [], 1, trace_samples=samples, product=lambda v: matrix @ v)
        for samples in (0, 1)
    )
    assert math.isnan(none.trace)
    assert math.isnan(none.trace_standard_error)
    assert math.isfinite(one.trace)
    assert math.isnan(one.trace_standard_error)
    assert one.products == none.products + 1


def test_the_seed_decides() -> None:
    matrix = symmetric(100)
    first, again, other = (
        hessian_eigenvalues(with_size(100), [], 2, seed=seed, product=lambda v: matrix @ v)
        for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first.eigenvalues, again.eigenvalues)
    assert first.trace == again.trace
    assert first.trace != other.trace
    np.testing.assert_allclose(first.eigenvalues, other.eigenvalues, rtol=1e-3)


def test_an_exhausted_budget_gives_bounds_and_says_so() -> None:
    matrix = symmetric(300)
    expected = np.linalg.eigvalsh(matrix)
    spectrum = hessian_eigenvalues(
        with_size(300), [], 5, smallest=3, trace_samples=0, max_products=30, product=lambda v: matrix @ v
    )
    assert not spectrum.converged
    assert (spectrum.eigenvalues <= expected[:-6:-1] + 1e-9).all()
    assert (spectrum.smallest >= expected[:3] - 1e-9).all()
    np.testing.assert_allclose(spectrum.eigenvalues, expected[:-6:-1], rtol=0.25)
    for value, residual in zip(spectrum.eigenvalues, spectrum.residuals, strict=True):
        assert np.abs(expected - value).min() <= residual + 1e-9
    assert spectrum.residuals.max() > 1e-3 * expected[-1]


@pytest.mark.parametrize("rank", [0, 1, 7])
def test_a_matrix_of_low_rank(rank: int) -> None:
    basis = np.linalg.qr(np.random.default_rng(0).standard_normal((60, rank)))[0]
    values = np.arange(1.0, rank + 1)
    spectrum = hessian_eigenvalues(
        with_size(60), [], 5, product=lambda v: basis @ (values * (basis.T @ v)), trace_samples=0
    )
    expected = np.concatenate([values[::-1], np.zeros(5)])[:5]
    np.testing.assert_allclose(spectrum.eigenvalues, expected, atol=1e-9)
    np.testing.assert_allclose(spectrum.smallest, [0.0], atol=1e-9)
    np.testing.assert_allclose(spectrum.residuals, 0, atol=1e-9)


def test_weights_without_a_finite_loss_give_nan() -> None:
    module, (inputs, targets) = perceptron(), samples(7, 3)
    with torch.no_grad():
        next(module.parameters())[0, 0] = math.nan
    spectrum = hessian_eigenvalues(module, batches_of(4, inputs.double(), targets), 3, smallest=2)
    assert np.isnan(spectrum.eigenvalues).all()
    assert spectrum.eigenvalues.shape == (3,)
    assert spectrum.smallest_residuals.shape == (2,)
    assert math.isnan(spectrum.trace)
    assert not spectrum.converged


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"k": 0}, r"`k` \(=0\) must be at least 1"),
        ({"smallest": -1}, r"`smallest` \(=-1\) must be at least 0"),
        ({"trace_samples": -1}, r"`trace_samples` \(=-1\)"),
        ({"tolerance": math.nan}, r"`tolerance` \(=nan\) must be above 0"),
        ({"max_products": 0}, r"`max_products` \(=0\)"),
        ({"k": 39}, r"`k` \(=39\) and `smallest` \(=1\) must not exceed 39 together"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, int], message: str) -> None:
    inputs, targets = samples(7, 3)
    with pytest.raises(ValueError, match=message):
        hessian_eigenvalues(perceptron(), [(inputs.double(), targets)], **settings)  # type: ignore[arg-type]


def test_a_product_without_samples_or_parameters_or_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="hold no samples"):
        HessianProduct(perceptron(), [])
    with pytest.raises(ValueError, match=r"`total` \(=0\) must be at least 1"):
        HessianProduct(perceptron(), [], total=0)
    with pytest.raises(ValueError, match="Sequential has no parameter with requires_grad=True"):
        HessianProduct(perceptron().requires_grad_(False), [])
    with pytest.raises(ValueError, match="`vector` has 38 entries, the module 39 live parameters"):
        HessianProduct(perceptron(), [], total=1).partial(np.zeros(38))
