"""Gradient statistics: sums over batches and processes, estimates from mini-batches, surfaces."""

from __future__ import annotations

import copy
import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nas_lightning.analysis import (
    PerSampleGradients,
    estimate_statistics,
    gradient_statistics,
    gradient_variance_surface,
    hessian_eigenvalues,
    loss_surface,
    random_directions,
    sum_gradients,
)
from nas_lightning.analysis.filters import squared_norms
from nas_lightning.cells import get_genotype
from nas_lightning.provenance import weights_hash
from tests.analysis.cases import assert_same, make_batches, small_network, trained_network
from tests.oracles.per_sample_gradients import every_gradient, mean_loss, slow_statistics


def test_the_mean_is_summed_in_float64() -> None:
    """Where all samples nearly agree, the variance is a small difference of large numbers."""
    network = small_network().float()
    inputs, targets = make_batches((1,), dtype=torch.float32)[0]
    noise = torch.randn(200, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    batches = [(inputs + 1e-3 * noise, targets.expand(200))]
    slow = slow_statistics(network, batches)
    assert slow.variance < 1e-4 * slow.mean_gradient_norm**2
    assert gradient_statistics(network, batches).variance == pytest.approx(slow.variance, rel=1e-3)


def test_autocast_and_compiled_modules_are_measured_as_they_are() -> None:
    network, batches = small_network().float(), make_batches(dtype=torch.float32)
    expected = gradient_statistics(network, batches)
    estimate = gradient_statistics(network, batches, method="minibatch")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert gradient_statistics(network, batches) == expected
        assert gradient_statistics(network, batches, method="minibatch") == estimate
    network.compile(backend="eager")
    assert gradient_statistics(network, batches).variance == pytest.approx(expected.variance, rel=1e-6)


def test_batches_that_can_be_read_once_are_refused() -> None:
    with pytest.raises(ValueError, match="`batches` can be iterated only once"):
        gradient_statistics(small_network(), iter(make_batches()))


def test_nothing_to_measure_is_refused() -> None:
    with pytest.raises(ValueError, match="depends on no parameter with requires_grad"):
        gradient_statistics(small_network().requires_grad_(False), make_batches())
    for nothing in ([], [(torch.zeros(0, 3, 8, 8).double(), torch.zeros(0).long())]):
        with pytest.raises(ValueError, match="`batches` is empty"):
            gradient_statistics(small_network(), nothing)
    with pytest.raises(ValueError, match="at least 3"):
        gradient_statistics(small_network(), make_batches((3, 3)), method="minibatch")


def test_it_works_in_inference_mode() -> None:
    network, batches = trained_network(get_genotype("darts_v2")), make_batches()
    expected = gradient_statistics(network, batches)
    with torch.inference_mode():
        made_inside = [(inputs.clone(), targets.clone()) for inputs, targets in batches]
        assert made_inside[0][0].is_inference()
        assert gradient_statistics(network, made_inside) == expected
        assert gradient_statistics(network, made_inside, method="minibatch").count == expected.count


def test_sums_of_two_processes_add_up() -> None:
    network, batches = trained_network(get_genotype("darts_v2")), make_batches()
    gradients = PerSampleGradients(network, *batches[0])
    first, second, none = (sum_gradients(gradients, part) for part in (batches[:1], batches[1:], []))
    for one, other, zero in zip(first.tensors(), second.tensors(), none.tensors(), strict=True):
        one += other + zero
    expected, found = gradient_statistics(network, batches), first.statistics()
    assert found.count == expected.count
    assert found.variance == pytest.approx(expected.variance, rel=1e-12)
    assert found.mean_gradient_norm == pytest.approx(expected.mean_gradient_norm, rel=1e-12)
    assert found.normalized_variance == pytest.approx(expected.normalized_variance, rel=1e-12)
    assert found.loss == pytest.approx(expected.loss, rel=1e-12)


def test_batches_that_the_sums_do_not_take_go_through_the_layers() -> None:
    network, batches = small_network(), make_batches((4, 4, 3))
    gradients = PerSampleGradients(network, *batches[0])
    expected = sum_gradients(gradients, batches)
    taken = []

    def batch_sums(
        inputs: Tensor, targets: Tensor
    ) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]] | None:
        taken.append(len(targets) == 4)
        every = every_gradient(network, [(inputs, targets)])
        if not taken[-1]:
            return None
        return (
            torch.tensor(len(targets) * mean_loss(network, [(inputs, targets)]), dtype=torch.float64),
            {name: squared_norms(torch.stack([g[name] for g in every])) for name in every[0]},
            {name: torch.stack([g[name] for g in every]).sum(0) for name in every[0]},
        )

    found = sum_gradients(gradients, batches, batch_sums)
    assert taken == [True, True, False]
    for one, other in zip(found.tensors(), expected.tensors(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-14)


def test_equal_samples_have_no_variance() -> None:
    inputs, targets = make_batches((1,))[0]
    statistics = gradient_statistics(small_network(), [(inputs.expand(6, -1, -1, -1), targets.expand(6))])
    assert statistics.variance == pytest.approx(0, abs=1e-12)
    assert statistics.mean_gradient_norm > 0.1


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_stays_so(value: float) -> None:
    network = small_network()
    with torch.no_grad():
        dict(network.named_parameters())["3.bias"][0] = value
    assert math.isnan(gradient_statistics(network, make_batches()).variance)


def partitions(count: int, size: int) -> list[list[list[int]]]:
    """Every way to deal samples to batches of a size, the last one smaller."""
    dealt = []
    for order in itertools.permutations(range(count)):
        batches = [sorted(order[start : start + size]) for start in range(0, count, size)]
        dealt.append(batches)
    return dealt


def test_the_mini_batch_estimate_is_unbiased_over_all_partitions() -> None:
    inputs, targets = make_batches((5,))[0]
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 256, 10)).double()
    gradients = PerSampleGradients(network, inputs, targets)
    exact = gradient_statistics(network, [(inputs, targets)])
    estimates = []
    for batches in partitions(5, 2):  # two of two and one of one
        estimates.append(estimate_statistics(gradients, [(inputs[rows], targets[rows]) for rows in batches]))
    assert np.mean([e.variance for e in estimates]) == pytest.approx(exact.variance, rel=1e-10)
    assert {round(e.mean_gradient_norm / exact.mean_gradient_norm, 10) for e in estimates} == {1.0}
    assert np.std([e.variance for e in estimates]) > 1e-3 * exact.variance
    mean = np.mean([e.normalized_variance for e in estimates])
    assert mean == pytest.approx(exact.normalized_variance, rel=1e-10)
    assert {round(e.loss / exact.loss, 10) for e in estimates} == {1.0}
    assert estimates[0].variance_by_parameter.keys() == exact.variance_by_parameter.keys()
    assert sum(estimates[0].variance_by_parameter.values()) == pytest.approx(estimates[0].variance)


def test_the_standard_error_is_the_spread_of_the_estimate() -> None:
    torch.manual_seed(0)
    network = nn.Linear(6, 10).double()
    estimates, exact = [], []
    for _ in range(100):
        inputs, targets = torch.randn(240, 6).double(), torch.randint(10, (240,))
        gradients = PerSampleGradients(network, inputs, targets)
        batches = [(inputs[i : i + 10], targets[i : i + 10]) for i in range(0, 240, 10)]
        estimates.append(estimate_statistics(gradients, batches))
        exact.append(gradient_statistics(network, batches).variance)
    spread = np.std([e.variance for e in estimates])
    claimed = np.sqrt(np.mean([e.standard_error**2 for e in estimates]))
    assert claimed == pytest.approx(spread, rel=0.2)
    # Around the variance of the very samples it spreads less.
    around = np.sqrt(np.mean([(e.variance - v) ** 2 for e, v in zip(estimates, exact, strict=True)]))
    assert 0.4 * claimed < around < 0.9 * claimed


def test_an_estimate_ends_where_its_error_suffices() -> None:
    torch.manual_seed(0)
    module = nn.Linear(12, 3, bias=False).double()
    count, size = 1200, 6
    inputs = torch.randn(count, 12, dtype=torch.float64) + 1
    targets = torch.randint(3, (count,))
    exact = gradient_statistics(module, [(inputs, targets)])
    gradients = PerSampleGradients(module, inputs, targets)
    taken, deviations, norms = [], [], []
    for seed in range(40):
        order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
        batches = list(zip(torch.split(inputs[order], size), torch.split(targets[order], size), strict=True))
        found = estimate_statistics(gradients, batches, tolerance=0.08)
        assert found.standard_error <= 0.08 * found.variance
        taken.append(found.count)
        deviations.append((found.variance - exact.variance) / found.standard_error)
        norms.append(found.mean_gradient_norm**2)
    assert size * 8 <= min(taken)
    assert max(taken) < count / 2
    assert np.mean(np.abs(deviations) < 2) > 0.8
    spread = np.std(norms, ddof=1) / np.sqrt(len(norms))
    assert abs(np.mean(norms) - exact.mean_gradient_norm**2) < 4 * spread
    whole = estimate_statistics(gradients, batches)
    assert whole.count == count
    assert whole.mean_gradient_norm == pytest.approx(exact.mean_gradient_norm)
    with pytest.raises(ValueError, match=r"`tolerance` \(=-1\) must not be negative"):
        estimate_statistics(gradients, batches, -1)


def test_a_surface_is_the_statistics_of_displaced_copies() -> None:
    network, batches = trained_network(get_genotype("darts_v2")), make_batches()
    before = weights_hash(network.state_dict())
    directions = random_directions(network, 3)
    alphas, betas = [-0.5, 0.0, 0.25], [0.0, 1.0]
    surface = gradient_variance_surface(network, batches, directions, alphas, betas)
    assert weights_hash(network.state_dict()) == before
    assert surface["variance"].dims == ("alpha", "beta")
    assert not {"standard_error"} & set(surface.data_vars)
    for alpha, beta in itertools.product(alphas, betas):
        moved = copy.deepcopy(network)
        with torch.no_grad():
            for name, parameter in moved.named_parameters():
                if name in directions[0]:
                    parameter.add_(alpha * directions[0][name] + beta * directions[1][name])
        slow = slow_statistics(moved, batches)
        point = surface.sel(alpha=alpha, beta=beta)
        assert float(point["variance"]) == pytest.approx(slow.variance, rel=1e-10)
        assert float(point["mean_gradient_norm"]) == pytest.approx(slow.mean_gradient_norm, rel=1e-10)


def test_a_surface_of_estimates_has_errors() -> None:
    network, batches = trained_network(get_genotype("darts_v2")), make_batches((2, 2, 2, 2, 2, 1))
    directions = random_directions(network, 3)
    surface = gradient_variance_surface(network, batches, directions, [0.0, 1.0], [0.0], method="minibatch")
    estimate = gradient_statistics(network, batches, method="minibatch")
    assert float(surface["variance"][0, 0]) == pytest.approx(estimate.variance, rel=1e-12)
    assert float(surface["standard_error"][0, 0]) == pytest.approx(estimate.standard_error, rel=1e-12)
    assert estimate.standard_error > 0


def test_the_definition_itself() -> None:
    """Two samples with gradients a and b: the variance is |a - b|^2 / 4."""
    network, batches = small_network(), make_batches((2,))
    first, second = every_gradient(network, batches)
    quarter = sum(float(((first[name] - second[name]) ** 2).sum()) for name in first) / 4
    assert gradient_statistics(network, batches).variance == pytest.approx(quarter, rel=1e-12)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_measures_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    network, batches = trained_network(get_genotype("darts_v2")), make_batches()
    expected = gradient_statistics(network, batches)
    directions = random_directions(network, 0)
    losses = loss_surface(network, batches, directions, [0.0, 0.5], [0.0])
    top = hessian_eigenvalues(network, batches, 1, trace_samples=0).eigenvalues[0]
    network.cuda()
    moved = [(inputs.cuda(), targets.cuda()) for inputs, targets in batches]
    for here, there in zip(random_directions(network, 0), directions, strict=True):
        assert all((tensor.cpu() == there[name]).all() for name, tensor in here.items())
    found = gradient_statistics(network, moved)
    assert found.variance == pytest.approx(expected.variance, rel=1e-8)
    assert found.mean_gradient_norm == pytest.approx(expected.mean_gradient_norm, rel=1e-8)
    assert_same(network.float(), [(x.float(), y) for x, y in moved], tolerance=1e-5)
    network.double()
    surface = loss_surface(network, moved, random_directions(network, 0), [0.0, 0.5], [0.0])
    assert surface["loss"].values == pytest.approx(losses["loss"].values, rel=1e-5)
    assert hessian_eigenvalues(network, moved, 1, trace_samples=0).eigenvalues[0] == pytest.approx(
        top, rel=1e-3
    )
