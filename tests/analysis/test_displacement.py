"""Displaced weights come back bit for bit."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from nas_lightning.analysis.directions import (
    Normalization,
    random_directions,
)
from nas_lightning.analysis.displacement import displaced
from nas_lightning.provenance import weights_hash
from tests.analysis.test_directions import NORMALIZATIONS, network


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_displaced_weights_do_not_drift_and_come_back(normalization: Normalization) -> None:
    module = network()
    with torch.no_grad():
        module.classifier.weight.view(-1)[0] = -0.0
    before = {name: value.clone() for name, value in module.state_dict().items()}
    digest = weights_hash(module.state_dict())
    directions = random_directions(module, 0, normalization)
    identity = {name: id(p) for name, p in module.named_parameters()}
    steps = torch.randn(200, 2, generator=torch.Generator().manual_seed(0)).tolist()
    with displaced(module, directions) as move:
        for alpha, beta in steps:
            move(alpha, beta)
        fresh = copy.deepcopy(module)
        fresh.load_state_dict(before)
        with displaced(fresh, directions) as move_once:
            move_once(*steps[-1])
            for name, parameter in fresh.named_parameters():
                assert torch.equal(parameter, dict(module.named_parameters())[name])
        for name, parameter in module.named_parameters():
            assert id(parameter) == identity[name]
            expected = before[name]
            if name in directions[0]:
                expected = expected + steps[-1][0] * directions[0][name]
                expected = expected + steps[-1][1] * directions[1][name]
            torch.testing.assert_close(parameter.detach(), expected, rtol=1e-6, atol=1e-6)
        move(0.0, 0.0)
        assert weights_hash(module.state_dict()) == digest
        move(1.0, 1.0)
        assert weights_hash(module.state_dict()) != digest
    assert weights_hash(module.state_dict()) == digest
    assert math.copysign(1, module.classifier.weight.view(-1)[0].item()) == -1


def test_parameters_without_a_direction_are_not_touched() -> None:
    module = network()
    versions = {name: p._version for name, p in module.named_parameters()}
    with displaced(module, random_directions(module, 0)) as move:
        move(0.5, 0.5)
    for name, parameter in module.named_parameters():
        assert (parameter._version == versions[name]) == (parameter.dim() < 2 or not parameter.requires_grad)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_weights_come_back_from_an_error(error: type[BaseException]) -> None:
    module = network()
    digest = weights_hash(module.state_dict())

    def fail() -> None:
        with displaced(module, random_directions(module, 0, "none")) as move:
            move(0.3, math.inf)
            assert weights_hash(module.state_dict()) != digest
            raise error

    with pytest.raises(error):
        fail()
    assert weights_hash(module.state_dict()) == digest


def test_works_in_inference_mode_and_leaves_weights_that_train() -> None:
    first, last = nn.Linear(4, 3), nn.Linear(3, 2)
    module = nn.Sequential(first, last)
    outside = random_directions(module, 0)
    digest = weights_hash(module.state_dict())
    with torch.inference_mode():
        inside = random_directions(module, 0)
        with displaced(module, inside) as move:
            move(1.0, -1.0)
            with torch.inference_mode(False), torch.enable_grad():
                (gradient,) = torch.autograd.grad(module(torch.ones(5, 4)).sum(), [first.weight])
            move(0.0, 1.0)
            moved = first.weight.clone()
    assert weights_hash(module.state_dict()) == digest
    torch.testing.assert_close(moved, first.weight + outside[1]["0.weight"])
    for name, value in inside[0].items():
        assert not value.is_inference()
        assert torch.equal(value, outside[0][name])
    shifted = last.weight + outside[0]["1.weight"] - outside[1]["1.weight"]
    torch.testing.assert_close(gradient, 5 * shifted.sum(0)[:, None].expand(3, 4))
    module(torch.ones(1, 4)).sum().backward()
    assert all(p.grad is not None and p.requires_grad for p in module.parameters())


def test_directions_that_do_not_fit_are_refused_by_name() -> None:
    module = nn.Linear(3, 2)
    first, second = random_directions(module, 0)
    with pytest.raises(ValueError, match=r"'extra', which is not a parameter"):
        displaced(module, ({**first, "extra": torch.ones(1)}, {**second, "extra": torch.ones(1)})).__enter__()
    with pytest.raises(ValueError, match=r"one of them lacks 'bias'"):
        displaced(module, (first, {"weight": second["weight"]})).__enter__()
    with pytest.raises(ValueError, match=r"'weight' has shape \(2, 4\), the parameter \(2, 3\)"):
        displaced(module, random_directions(nn.Linear(4, 2), 0)).__enter__()
    with pytest.raises(ValueError, match="must be two directions, not 1"):
        displaced(module, (first,)).__enter__()
