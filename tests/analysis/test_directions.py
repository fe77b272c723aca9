"""Directions against a filter-by-filter oracle."""

from __future__ import annotations

import copy
import hashlib
import math
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from nas_lightning.analysis.directions import (
    Normalization,
    cosine,
    random_direction,
    random_directions,
)
from nas_lightning.cells import get_genotype
from nas_lightning.networks import CellNetwork
from tests.networks.cases import WIRINGS
from tests.oracles.loss_surface import filter_normalized, layer_normalized, not_normalized

NORMALIZATIONS: tuple[Normalization, ...] = ("filter", "layer", "none")


ORACLES = {"filter": filter_normalized, "layer": layer_normalized, "none": not_normalized}


def network(auxiliary: bool = False) -> CellNetwork:
    torch.manual_seed(3)
    return CellNetwork(get_genotype("darts_v2"), 5, 4, 3, auxiliary=auxiliary)


def drawn(name: str, shape: torch.Size, seed: int) -> Tensor:
    digest = hashlib.sha256(f"{seed} {name}".encode()).digest()
    state = int.from_bytes(digest[:8], "big") // 2
    return torch.randn(shape, generator=torch.Generator().manual_seed(state))


def flat(direction: dict[str, Tensor]) -> Tensor:
    return torch.cat([value.double().flatten() for value in direction.values()])


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_direction_is_the_oracles(normalization: Normalization) -> None:
    module = network()
    with torch.no_grad():
        module.classifier.weight[0] = 0  # a filter without size has a direction without size
    direction = random_direction(module, 11, normalization)
    live = {name: p for name, p in module.named_parameters() if p.requires_grad}
    assert list(direction) == list(live)
    for name, parameter in live.items():
        raw = drawn(name, parameter.shape, 11)
        expected = ORACLES[normalization](raw, parameter)
        torch.testing.assert_close(direction[name].double(), expected, rtol=1e-6, atol=1e-9)
    # Depthwise, pointwise, dense filters alike; without normalisation nothing is left out.
    still = {name for name, value in direction.items() if not value.any()}
    assert still == (set() if normalization == "none" else {n for n, p in live.items() if p.dim() < 2})
    assert direction["classifier.weight"][0].any() == (normalization != "filter")


def test_direction_depends_on_seed_and_name_alone() -> None:
    with_tower, without = network(auxiliary=True), network()
    without.load_state_dict(with_tower.state_dict(), strict=False)
    direction, other = random_direction(with_tower, 0), random_direction(without, 0)
    # The tower keeps cells alive for training, so the network that has it has more directions.
    assert other.keys() < direction.keys()
    assert all(torch.equal(direction[name], other[name]) for name in other)
    only = random_direction(with_tower, 0, names=[name for name, _ in without.named_parameters()])
    assert only.keys() == other.keys()
    torch.randn(7)  # the global generator plays no part
    assert all(torch.equal(random_direction(without, 0)[name], other[name]) for name in other)
    assert not torch.equal(random_direction(without, 1)["classifier.weight"], other["classifier.weight"])
    # Two tensors of one shape differ, and so do seed 1 of "2x" and seed 12 of "x".
    pair = nn.ParameterDict({"a": nn.Parameter(torch.zeros(9)), "b": nn.Parameter(torch.zeros(9))})
    values = random_direction(pair, 1, "none")
    assert not torch.equal(values["a"], values["b"])


def test_dead_parameters_have_no_direction() -> None:
    module = CellNetwork(WIRINGS["input 0 read in vain"], 5, 4, 3)
    dead = {name for name, p in module.named_parameters() if not p.requires_grad}
    assert dead
    assert not dead & random_direction(module, 0).keys()
    assert not dead & random_direction(module, 0, names=[n for n, _ in module.named_parameters()]).keys()


def test_direction_is_the_same_in_every_precision_and_when_compiled() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4, 2))
    single = random_direction(module, 5)
    double = random_direction(copy.deepcopy(module).double(), 5)
    for name in single:
        assert double[name].dtype == torch.float64
        torch.testing.assert_close(single[name], double[name].float(), rtol=1e-7, atol=0)
    compiled = torch.compile(module)
    assert isinstance(compiled, nn.Module)
    wrapped = nn.ModuleDict({"network": compiled})
    plain = nn.ModuleDict({"network": module})
    renamed = {n.replace("_orig_mod.", ""): v for n, v in random_direction(wrapped, 5).items()}
    assert all(torch.equal(renamed[name], value) for name, value in random_direction(plain, 5).items())


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
def test_pair_is_orthogonal_and_keeps_its_norms(normalization: Normalization) -> None:
    module = nn.Sequential(nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 3, groups=6), nn.Linear(20, 4)).double()
    first, second = random_directions(module, 4, normalization)
    assert torch.equal(flat(first), flat(random_direction(module, 8, normalization)))
    assert torch.equal(flat(second), flat(random_direction(module, 9, normalization)))
    assert 1e-4 < abs(cosine(first, second)) < 0.3
    assert cosine(first, second) == pytest.approx(
        float(flat(first) @ flat(second) / (flat(first).norm() * flat(second).norm()))
    )
    same, turned = random_directions(module, 4, normalization, orthogonal=True)
    assert torch.equal(flat(same), flat(first))
    assert abs(cosine(same, turned)) < 1e-14
    assert not torch.allclose(flat(turned), flat(second), rtol=1e-3)
    for name, value in turned.items():
        if normalization == "filter" and value.dim() > 1:
            products = (value.flatten(1) * first[name].flatten(1)).sum(1)
            norms = value.flatten(1).norm(dim=1), second[name].flatten(1).norm(dim=1)
        elif normalization == "layer":
            products, norms = (value * first[name]).sum(), (value.norm(), second[name].norm())
        else:
            continue
        assert products.abs().max() < 1e-13
        torch.testing.assert_close(*norms)
    torch.testing.assert_close(flat(turned).norm(), flat(second).norm())


def test_units_of_one_element_stay_and_the_cosine_tells() -> None:
    module = nn.Linear(1, 3, bias=False)  # every filter is one number
    first, second = random_directions(module, 1, "filter", orthogonal=True)
    assert torch.equal(second["weight"], random_direction(module, 3, "filter")["weight"])
    torch.testing.assert_close(second["weight"].abs(), module.weight.abs())
    assert abs(cosine(first, second)) > 1e-3
    alone = nn.Linear(1, 1, bias=False)
    assert abs(cosine(*random_directions(alone, 0, orthogonal=True))) == pytest.approx(1)


def test_cosine_of_nothing_is_not_a_number() -> None:
    zero, one = {"w": torch.zeros(3)}, {"w": torch.ones(3)}
    assert math.isnan(cosine(zero, one))
    assert math.isnan(cosine(zero, zero))
    # Sums in float64: in float32 the small entries would be lost.
    large = {"w": torch.cat([torch.tensor([1e4]), torch.full((10**5,), 0.1)])}
    ones = {"w": torch.ones(10**5 + 1)}
    assert cosine(large, ones) == pytest.approx(2e4 / math.sqrt((1e8 + 1e3) * (1e5 + 1)), rel=1e-7)


def test_unknown_and_missing_parameters_are_refused() -> None:
    module = nn.Linear(3, 2)
    with pytest.raises(ValueError, match=r"`names` holds 'wieght'"):
        random_direction(module, 0, names=["wieght"])
    with pytest.raises(ValueError, match="no parameter with requires_grad=True"):
        random_direction(module.requires_grad_(False), 0)


def wrapped(kind: str, module: nn.Module) -> nn.Module:
    if kind == "compiled":
        compiled: Any = torch.compile(module)
        return cast(nn.Module, compiled)
    return nn.DataParallel(module) if kind == "parallel" else AveragedModel(module)


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("kind", ["parallel", "average", "compiled"])
def test_a_wrapper_changes_no_direction(kind: str, inside: bool) -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = nn.Linear(3, 2)  # a name that is no wrapper's here

    module = Own()
    expected = list(random_direction(module, 5).values())
    if inside:
        module.module = wrapped(kind, module.module)  # type: ignore[assignment]
        found = random_direction(module, 5)
    else:
        found = random_direction(wrapped(kind, module), 5)
    assert all(torch.equal(one, other) for one, other in zip(expected, found.values(), strict=True))
    assert any("module.module" in name or "_orig_mod" in name for name in found)
