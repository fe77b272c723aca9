"""What is found out about a module before an analysis runs."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from nas_lightning.analysis.trial import check_evaluation, check_second_derivative, evaluated_parameters

INPUTS, TARGETS = torch.randn(4, 5, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 0])


class Tower(nn.Module):
    """Has a part that only training uses."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.tower = nn.Sequential(nn.Linear(5, 3), nn.BatchNorm1d(3)), nn.Linear(3, 3)

    def forward(self, inputs: Tensor) -> Any:
        logits = self.body(inputs)
        return (logits, self.tower(logits)) if self.training else logits


class Named(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(5, 3)

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        return {"out": self.layer(inputs)}


def named_loss(outputs: dict[str, Tensor], targets: Tensor) -> Tensor:
    return functional.cross_entropy(outputs["out"], targets)


def test_a_good_module_passes_and_stays_as_it_is() -> None:
    module = Tower().train()
    before = copy.deepcopy(module.state_dict())
    check_evaluation(module, INPUTS, TARGETS)
    check_second_derivative(module, INPUTS, TARGETS)
    assert evaluated_parameters(module, INPUTS, TARGETS) == [
        *("body.0.weight", "body.0.bias", "body.1.weight", "body.1.bias")
    ]
    assert module.training
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())


def test_outputs_of_any_structure_have_an_own_loss() -> None:
    check_evaluation(Named(), INPUTS, TARGETS, named_loss)
    check_second_derivative(Named(), INPUTS, TARGETS, named_loss)
    assert evaluated_parameters(Named(), INPUTS, TARGETS, named_loss) == ["layer.weight", "layer.bias"]


def test_weights_that_diverged_can_still_be_measured() -> None:
    module = nn.Linear(5, 3)
    nn.init.constant_(module.bias, torch.nan)
    check_evaluation(module, INPUTS, TARGETS)


def test_dropout_is_no_randomness_in_evaluation() -> None:
    check_evaluation(nn.Sequential(nn.Dropout(), nn.Linear(5, 3)), INPUTS, TARGETS)


@pytest.mark.parametrize("layer", [nn.ReLU(), nn.Hardtanh(), nn.MaxPool1d(1), nn.GELU()], ids=repr)
def test_kinks_are_no_reason_to_refuse_a_hessian(layer: nn.Module) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(5, 300), layer, nn.Linear(300, 300), layer, nn.Linear(300, 3))
    check_second_derivative(module, INPUTS, TARGETS)


def test_regions_on_a_kink_are_no_reason_to_refuse_a_hessian() -> None:
    # Where an image is zero, so are the convolutions of a new network and the shifts of its batch norms.
    torch.manual_seed(0)
    images = torch.randn(2, 3, 8, 8)
    images[:, :, :, 4:] = 0
    layers = [nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU()]
    more = [nn.Conv2d(4, 4, 1, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)]
    check_second_derivative(nn.Sequential(*layers, *more), images, TARGETS[:2])
