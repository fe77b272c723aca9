from __future__ import annotations

import copy
import itertools
import math
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nas_lightning.analysis.curvature_products import HessianProduct
from nas_lightning.analysis.directions import Normalization, random_direction
from nas_lightning.analysis.displacement import displaced
from nas_lightning.analysis.filters import direction_scale, filter_scale
from nas_lightning.analysis.loss import evaluate
from nas_lightning.analysis.second_derivative import second_derivative
from tests.oracles.dense_hessian import dense_hessian

NORMALIZATIONS: tuple[Normalization, ...] = ("filter", "layer", "none")


@cache
def perceptron() -> nn.Module:
    """Trained a little: its Hessian is mostly positive."""
    torch.manual_seed(1)
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 3)).double().eval()
    inputs, targets = (torch.cat(parts) for parts in zip(*samples(), strict=True))
    parameters: list[Tensor] = list(module.parameters())
    for _ in range(60):
        loss = nn.functional.cross_entropy(module(inputs), targets)
        gradients = torch.autograd.grad(loss, parameters)
        with torch.no_grad():
            torch._foreach_sub_(parameters, gradients, alpha=0.5)
    return module


def samples() -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(2)
    inputs = torch.randn(7, 3, generator=generator, dtype=torch.float64)
    targets = torch.randint(3, (7,), generator=generator)
    return [(inputs[:4], targets[:4]), (inputs[4:], targets[4:])]


def scaled_hessian(module: nn.Module, normalization: Normalization) -> np.ndarray:
    inputs, targets = (torch.cat(parts) for parts in zip(*samples(), strict=True))
    hessian = dense_hessian(module, inputs, targets).numpy()
    scale = slow_scale(module, normalization)
    made: np.ndarray = scale[:, None] * hessian * scale
    return made


def slow_scale(module: nn.Module, normalization: Normalization) -> np.ndarray:
    """Root mean square of the entries of many directions."""
    scales = []
    for parameter in module.parameters():
        weights = parameter.detach().numpy()
        if normalization == "none":
            scales.append(np.ones(weights.size))
        elif weights.ndim < 2:
            scales.append(np.zeros(weights.size))
        elif normalization == "layer":
            scales.append(np.full(weights.size, np.linalg.norm(weights) / math.sqrt(weights.size)))
        else:
            rows = [np.full(row.size, np.linalg.norm(row) / math.sqrt(row.size)) for row in weights]
            scales.append(np.concatenate(rows))
    return np.concatenate(scales)


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_the_scale_is_that_of_the_directions(normalization: Normalization) -> None:
    module = perceptron()
    expected = slow_scale(module, normalization)
    np.testing.assert_allclose(direction_scale(module, normalization), expected, rtol=1e-12)
    drawn = [
        np.concatenate([d.numpy().ravel() for d in random_direction(module, seed, normalization).values()])
        for seed in range(400)
    ]
    np.testing.assert_allclose(np.sqrt(np.mean(np.square(drawn), axis=0)), expected, rtol=0.2)
    if normalization == "filter":
        np.testing.assert_array_equal(direction_scale(module), filter_scale(module))


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_the_estimate_is_the_trace_of_the_dense_hessian_within_its_error(
    normalization: Normalization,
) -> None:
    module = perceptron()
    matrix = scaled_hessian(module, normalization)
    estimate, error = second_derivative(module, samples(), 200, normalization=normalization)
    assert abs(estimate - matrix.trace()) < 3 * error
    off_diagonal = matrix - np.diag(matrix.diagonal())
    assert error == pytest.approx(math.sqrt(2 * (off_diagonal**2).sum() / 200), rel=0.2)


def test_a_diagonal_matrix_is_exact() -> None:
    layer = nn.Linear(10, 4, bias=False).double()
    diagonal = np.arange(40.0) - 5
    estimate, error = second_derivative(layer, [], 2, product=lambda v: diagonal[:, None] * v)
    assert estimate == pytest.approx(float((filter_scale(layer) ** 2 * diagonal).sum()), rel=1e-12)
    assert error == pytest.approx(0, abs=1e-10)


def test_the_mean_over_all_directions_has_this_parabola() -> None:
    """Second differences of F along many directions, whose mean the closed form is."""
    module, batches, step = perceptron(), samples(), 1e-3
    bends = []
    for seed in range(200):
        direction = random_direction(module, seed)
        nothing = {name: torch.zeros_like(value) for name, value in direction.items()}
        with displaced(module, (direction, nothing)) as move:
            losses = []
            for place in (-step, 0.0, step):
                move(place, 0.0)
                losses.append(evaluate(module, batches)[0])
        bends.append((losses[0] - 2 * losses[1] + losses[2]) / step**2)
    expected = scaled_hessian(module, "filter").trace()
    error = np.std(bends, ddof=1) / math.sqrt(len(bends))
    assert abs(np.mean(bends) - expected) < 3 * error
    assert error < 0.2 * abs(expected)


def test_the_profile_of_a_quadratic_is_this_parabola_at_every_radius() -> None:
    """Filters of one weight have two directions each, +w and -w: their mean is a finite sum."""
    torch.manual_seed(0)
    first = nn.Linear(1, 3, bias=False)
    module = nn.Sequential(first, nn.Linear(3, 1, bias=False).requires_grad_(False)).double()
    batches = [(torch.tensor([[2.0], [-1.0]]).double(), torch.tensor([[1.0], [0.5]]).double())]
    squares: dict[str, Any] = {"loss": lambda outputs, targets: (outputs - targets).square().mean(1)}
    weight = first.weight.detach().clone()

    def value(moved: Tensor) -> float:
        with torch.no_grad():
            first.weight.copy_(moved)
        found = evaluate(module, batches, **squares)[0]
        with torch.no_grad():
            first.weight.copy_(weight)
        return found

    corners = [torch.tensor(signs).double()[:, None] for signs in itertools.product((-1.0, 1.0), repeat=3)]
    profile = {
        r: float(np.mean([value(weight + r * weight * corner) for corner in corners])) for r in (0, 0.7, 3)
    }
    matrix = np.stack([_products(module, batches, squares)(row) for row in np.eye(3)])
    scale = np.abs(weight.numpy().ravel())
    curvature = float((scale**2 * matrix.diagonal()).sum())
    assert profile[0.7] - profile[0] == pytest.approx(curvature * 0.7**2 / 2, rel=1e-10)
    assert profile[3] - profile[0] == pytest.approx(curvature * 3**2 / 2, rel=1e-10)
    estimate, error = second_derivative(module, batches, 400, **squares)
    assert abs(estimate - curvature) < 3 * error


def _products(module: nn.Module, batches: list[tuple[Tensor, Tensor]], settings: dict[str, Any]) -> Any:
    return HessianProduct(module, batches, **settings).partial


def test_the_seed_decides_and_one_vector_has_no_error() -> None:
    module, batches = perceptron(), samples()
    first, again = (second_derivative(module, batches, 3) for _ in range(2))
    assert first == again
    assert second_derivative(module, batches, 3, seed=1)[0] != first[0]
    estimate, error = second_derivative(module, batches, 1)
    assert math.isfinite(estimate)
    assert math.isnan(error)


def test_weights_without_a_finite_loss_give_nan() -> None:
    module = copy.deepcopy(perceptron())
    with torch.no_grad():
        next(module.parameters())[0, 0] = math.nan
    assert all(map(math.isnan, second_derivative(module, samples(), 2)))


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match=r"`samples` \(=0\) must be at least 1"):
        second_derivative(perceptron(), samples(), 0)
