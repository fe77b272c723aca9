from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from nas_lightning.analysis.bezier_curve import (
    at_weights,
    curve_coefficients,
    curve_point,
    flat_weights,
    line_point,
    named_weights,
)
from tests.oracles.bezier import bezier_by_halving, linear_loss_gradient


def three(shape: tuple[int, ...] = (3, 4)) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    first, second, third = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(3))
    return first, second, third


@pytest.mark.parametrize("t", [0.0, 0.125, 0.5, 0.8, 1.0])
def test_the_formula_is_de_casteljau_s(t: float) -> None:
    start, bend, end = three()
    point = curve_point({"w": start}, {"w": bend}, {"w": end}, t)["w"]
    np.testing.assert_allclose(
        point, bezier_by_halving(start.numpy(), bend.numpy(), end.numpy(), t), atol=1e-15
    )
    assert sum(curve_coefficients(t)) == pytest.approx(1)


def test_the_gradient_in_the_bend_is_that_of_the_loss_times_2t_1_minus_t() -> None:
    start, bend, end = three()
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(5, 4, generator=generator, dtype=torch.float64)
    targets = torch.tensor([0, 1, 2, 0, 1])
    module = nn.Linear(4, 3, bias=False).double()
    for t in (0.0625, 0.5, 0.9):
        theta = bend.clone().requires_grad_()
        point = curve_point({"weight": start}, {"weight": theta}, {"weight": end}, t)
        loss = functional.cross_entropy(functional_call(module, point, (inputs,)), targets)
        (gradient,) = torch.autograd.grad(loss, theta)
        by_hand = linear_loss_gradient(
            bezier_by_halving(start.numpy(), bend.numpy(), end.numpy(), t), inputs.numpy(), targets.numpy()
        )
        np.testing.assert_allclose(gradient, 2 * t * (1 - t) * by_hand, atol=1e-14)


@pytest.mark.parametrize("point", [curve_point, lambda a, _, b, t: line_point(a, b, t)])
def test_the_ends_are_exact(point: object) -> None:
    odd = torch.tensor([-0.0, 0.0, math.inf, math.nan, 1e-42, 3.0])
    bend, end = torch.full((6,), math.nan), odd.flip(0)
    for t, wanted in ((0.0, odd), (1.0, end)):
        found = point({"w": odd}, {"w": bend}, {"w": end}, t)["w"]  # type: ignore[operator]
        assert found.numpy().tobytes() == wanted.numpy().tobytes()
        assert found.data_ptr() != wanted.data_ptr()


def test_a_bend_half_way_makes_the_straight_line() -> None:
    start, _, end = ({"w": values} for values in three())
    half_way = line_point(start, end, 0.5)
    for t in np.linspace(0, 1, 9):
        curve, line = curve_point(start, half_way, end, t), line_point(start, end, t)
        torch.testing.assert_close(curve["w"], line["w"], rtol=0, atol=1e-15)


def test_weights_are_one_vector_and_back() -> None:
    module = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
    weights = dict(module.named_parameters())
    back = named_weights(flat_weights(weights), weights)
    assert back.keys() == weights.keys()
    assert all(torch.equal(back[name], weights[name]) for name in weights)
    with pytest.raises(ValueError, match=r"`flat` has shape \(3,\), the weights have 11 numbers"):
        named_weights(torch.zeros(3), weights)


def test_a_module_is_as_before_after_an_exception() -> None:
    module = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    before = {name: values.clone() for name, values in module.state_dict().items()}
    ones = {name: torch.ones_like(values) for name, values in module.named_parameters()}

    def broken_off() -> None:
        with at_weights(module) as move_to:
            move_to(ones)
            assert float(module.state_dict()["0.weight"].min()) == 1
            module(torch.randn(4, 3))  # changes the running statistics
            assert not torch.equal(module.state_dict()["1.running_mean"], before["1.running_mean"])
            raise KeyError

    with pytest.raises(KeyError):
        broken_off()
    assert all(torch.equal(values, before[name]) for name, values in module.state_dict().items())


def test_bad_input_is_named() -> None:
    start, bend, end = ({"w": values} for values in three())
    with pytest.raises(ValueError, match=r"`position` \(=1.5\) must be from 0 to 1"):
        curve_point(start, bend, end, 1.5)
    with pytest.raises(ValueError, match=r"the weights of 'w' have the shapes \(3, 4\) and \(3,\)"):
        curve_point(start, bend, {"w": torch.zeros(3)}, 0.5)
    with pytest.raises(ValueError, match=r"the weights of 'v' have the shapes None and \(3, 4\)"):
        line_point(start, {**start, "v": start["w"]}, 0.5)
