from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from nas_lightning.acceleration import twice_differentiable
from nas_lightning.analysis import GaussNewtonProduct, HessianProduct
from nas_lightning.cells import get_genotype
from nas_lightning.networks import CellNetwork
from tests.acceleration.cases import batch


def set_norms(module: nn.Module) -> None:
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d) and layer.running_mean is not None:
            if layer.affine:
                nn.init.uniform_(layer.weight, 0.5, 1.5)
                nn.init.uniform_(layer.bias, -0.5, 0.5)
            assert layer.running_var is not None
            layer.running_mean.uniform_(-0.2, 0.2)
            layer.running_var.uniform_(0.1, 0.5)


class Layers(nn.Module):
    """Convolutions and batch norms of every kind, some of which are left as they are."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(2, 4, 3, bias=False),
            nn.BatchNorm2d(4),
            nn.Tanh(),
            nn.Conv2d(4, 4, 3, padding=2, dilation=2, groups=4, bias=False),
            nn.Conv2d(4, 6, (1, 3), stride=(1, 2), padding=(0, 1), groups=2, bias=False),
            nn.BatchNorm2d(6, affine=False),
            nn.Tanh(),
            nn.Conv2d(6, 4, 2),
            nn.BatchNorm2d(4, track_running_stats=False),
            nn.Conv2d(4, 2, 3, padding=1, padding_mode="reflect", bias=False),
            nn.BatchNorm2d(2),
            nn.Conv2d(2, 2, 3, padding="same", bias=False),
            nn.Flatten(),
            nn.LazyLinear(3),
        )

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.layers(x)
        return logits


@pytest.mark.parametrize("frozen", ["", "0.weight", "1.weight", "1.bias", "3.weight", "4.weight"])
def test_products_with_layers_of_every_kind_are_those_of_the_module(frozen: str) -> None:
    torch.manual_seed(0)
    module = Layers().double()
    x, targets = torch.randn(4, 2, 8, 10, dtype=torch.float64), torch.randint(3, (4,))
    module(x)
    set_norms(module)
    module.eval()
    if frozen:
        module.layers.get_parameter(frozen).requires_grad_(False)
    forward = twice_differentiable(module)
    torch.testing.assert_close(forward(x), module(x))
    for kind in (HessianProduct, GaussNewtonProduct):
        plain, cheap = (kind(module, [(x, targets)], forward=own) for own in (None, forward))
        vectors = np.random.default_rng(0).standard_normal((plain.size, 3))
        np.testing.assert_allclose(cheap.partial(vectors), plain.partial(vectors), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["darts_v2", "nasnet", "eeea_net_c"])
def test_products_with_a_network_of_cells_are_those_of_the_network(name: str) -> None:
    torch.manual_seed(0)
    network = CellNetwork(get_genotype(name), 3, init_channels=2, num_cells=3).double()
    x, targets = batch()
    x, targets = x[:3], targets[:3] % 3
    set_norms(network)
    forward = twice_differentiable(network)
    keys = list(network.state_dict())
    plain, cheap = (HessianProduct(network, [(x, targets)], forward=own) for own in (None, forward))
    vector = np.random.default_rng(0).standard_normal(plain.size)
    expected = plain.partial(vector)
    np.testing.assert_allclose(cheap.partial(vector), expected, rtol=0, atol=1e-11 * np.abs(expected).max())
    assert list(network.state_dict()) == keys
    with torch.no_grad():  # it follows the weights, which it shares
        next(network.parameters()).mul_(1.5)
    moved = plain.partial(vector)
    assert not np.allclose(moved, expected)
    np.testing.assert_allclose(cheap.partial(vector), moved, rtol=0, atol=1e-11 * np.abs(moved).max())


def test_an_ordinary_gradient_is_that_of_the_module_and_a_recorded_one_zero() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(2, 4, 3, bias=False), nn.BatchNorm2d(4), nn.Flatten()).eval().double()
    x = torch.randn(3, 2, 5, 5, dtype=torch.float64, requires_grad=True)
    wanted = [x, *module.parameters()]
    forward = twice_differentiable(module)
    expected, found = (torch.autograd.grad(own(x).square().sum(), wanted) for own in (module, forward))
    torch.testing.assert_close(found, expected)
    recorded = torch.autograd.grad(forward(x).square().sum(), wanted, create_graph=True)
    torch.testing.assert_close(recorded[0].detach(), expected[0])
    assert not any(gradient.any() for gradient in recorded[1:])


def test_a_module_with_hooks_is_left_as_it_is() -> None:
    module = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False))
    assert twice_differentiable(module) is not module
    module[0].register_forward_hook(lambda *_: None)
    assert twice_differentiable(module) is module


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_products_on_a_gpu_are_those_of_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    torch.manual_seed(0)
    network = CellNetwork(get_genotype("darts_v2"), 3, init_channels=2, num_cells=3).double()
    x, targets = batch()
    targets %= 3
    set_norms(network)
    expected = HessianProduct(network, [(x, targets)])
    vectors = np.random.default_rng(0).standard_normal((expected.size, 2))
    here = expected.partial(vectors)
    network.cuda()
    moved = [(x.cuda(), targets.cuda())]
    there = HessianProduct(network, moved, forward=twice_differentiable(network)).partial(vectors)
    np.testing.assert_allclose(there, here, rtol=0, atol=1e-9 * np.abs(here).max())
