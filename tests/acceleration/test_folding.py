from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from nas_lightning.acceleration.copies import sharing_copy
from nas_lightning.acceleration.folding import Folding


def module_of_pairs() -> nn.Sequential:
    torch.manual_seed(0)
    module = nn.Sequential(
        *(nn.Conv2d(3, 4, 3, bias=True), nn.BatchNorm2d(4, affine=False), nn.ReLU()),
        *(nn.Conv2d(4, 2, 1, groups=2), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2 * 6 * 6, 10)),
    ).double()
    module(images())  # statistics other than 0 and 1
    return module.eval()


def images() -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(5, 3, 8, 8, generator=generator, dtype=torch.float64)


def folded(module: nn.Module) -> tuple[nn.Module, Folding]:
    computing = sharing_copy(module)
    folding = Folding(computing)
    folding.refresh()
    return computing, folding


def test_convolutions_with_bias_and_norms_without_weights_are_folded() -> None:
    module = module_of_pairs()
    before = copy.deepcopy(module.state_dict())
    computing, folding = folded(module)
    assert folding.count == 2
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in computing.modules())
    torch.testing.assert_close(computing(images()), module(images()), rtol=1e-10, atol=1e-12)
    assert all(torch.equal(before[name], values) for name, values in module.state_dict().items())


@torch.no_grad()
def scale_weights(module: nn.Sequential) -> None:
    for parameter in module.parameters():
        parameter.mul_(1.25)


@torch.no_grad()
def shift_statistics(module: nn.Sequential) -> None:
    module[4].running_mean.add_(0.5)  # type: ignore[operator]


def load_weights(module: nn.Sequential) -> None:
    module.load_state_dict({name: values * 2 for name, values in module.state_dict().items()})


def train_a_step(module: nn.Sequential) -> None:
    optimizer = torch.optim.SGD(module.parameters(), 0.1, fused=True)
    module.train()(images()).square().mean().backward()
    optimizer.step()
    module.eval()


def in_inference_mode(module: nn.Sequential) -> None:
    with torch.inference_mode():
        module[0].weight.mul_(2)  # type: ignore[operator]


@pytest.mark.parametrize(
    "change", [scale_weights, shift_statistics, load_weights, train_a_step, in_inference_mode]
)
def test_changed_weights_are_noticed(change: object) -> None:
    module = module_of_pairs()
    computing, folding = folded(module)
    change(module)  # type: ignore[operator]
    assert not torch.allclose(computing(images()), module(images()))
    folding.refresh()
    torch.testing.assert_close(computing(images()), module(images()), rtol=1e-10, atol=1e-12)


def test_unchanged_weights_are_not_folded_again(monkeypatch: pytest.MonkeyPatch) -> None:
    module = module_of_pairs()
    _, folding = folded(module)
    multiplied: list[Tensor] = []
    multiply = torch.mul

    def noted(*arguments: Tensor, out: Tensor) -> Tensor:
        multiplied.append(out)
        return multiply(*arguments, out=out)

    monkeypatch.setattr(torch, "mul", noted)
    folding.refresh()
    assert not multiplied
    module[0].weight.data.mul_(2)  # type: ignore[operator]
    folding.refresh()
    assert not multiplied  # what goes through .data counts no version up
    folding.forget()
    folding.refresh()
    assert len(multiplied) == 4


class Doubled(nn.BatchNorm2d):
    def forward(self, input: Tensor) -> Tensor:
        return 2 * super().forward(input)


@pytest.mark.parametrize(
    "norm", [Doubled(4), nn.BatchNorm2d(4, track_running_stats=False), nn.GroupNorm(2, 4)]
)
def test_other_norms_are_not_folded(norm: nn.Module) -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 1), norm).double().eval()
    computing, folding = folded(module)
    assert folding.count == 0
    torch.testing.assert_close(computing(images()), module(images()))
