"""Small networks, batches, and the comparison with one backward pass a sample."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from nas_lightning.analysis import (
    gradient_statistics,
)
from nas_lightning.cells import Genotype
from nas_lightning.networks import CellNetwork
from tests.oracles.per_sample_gradients import slow_statistics

Batches = list[tuple[Tensor, Tensor]]


def make_batches(
    sizes: Sequence[int] = (4, 4, 3), *, size: int = 16, dtype: torch.dtype = torch.float64
) -> Batches:
    generator = torch.Generator().manual_seed(1)
    return [
        (
            torch.randn(n, 3, size, size, generator=generator).to(dtype),
            torch.randint(10, (n,), generator=generator),
        )
        for n in sizes
    ]


def trained_network(genotype: Genotype, *, auxiliary: bool = False, cells: int = 3) -> CellNetwork:
    """A small network whose batch norms are not the identity."""
    torch.manual_seed(0)
    network = CellNetwork(genotype, 10, init_channels=4, num_cells=cells, auxiliary=auxiliary).double()
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            assert layer.running_mean is not None
            assert layer.running_var is not None
            layer.running_mean.normal_(std=0.3)
            layer.running_var.uniform_(0.5, 2.0)
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias, std=0.3)
    return network


def assert_same(module: nn.Module, batches: Batches, *, tolerance: float, **settings: str) -> None:
    slow = slow_statistics(module, batches)
    fast = gradient_statistics(module, batches, **settings)  # type: ignore[arg-type]
    assert fast.count == slow.count
    assert fast.variance == pytest.approx(slow.variance, rel=tolerance)
    assert fast.mean_gradient_norm == pytest.approx(slow.mean_gradient_norm, rel=tolerance)
    assert fast.normalized_variance == pytest.approx(slow.normalized_variance, rel=tolerance)
    assert fast.loss == pytest.approx(slow.loss, rel=tolerance)
    assert fast.variance_by_parameter.keys() == slow.variance_by_parameter.keys()
    for name, variance in slow.variance_by_parameter.items():
        # A parameter may have next to no gradient: it is compared with the whole.
        assert fast.variance_by_parameter[name] == pytest.approx(
            variance, rel=tolerance, abs=tolerance * slow.variance * 1e-3
        ), name
    assert fast.noise_scale == pytest.approx(slow.variance / slow.mean_gradient_norm**2, rel=2 * tolerance)


class Shift(nn.Module):
    """A layer of a user's own: a learnt shift of every channel, squared."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.linspace(0.1, 0.5, channels))

    def forward(self, x: Tensor) -> Tensor:
        return x + (self.shift**2).view(-1, 1, 1)


def small_network(*layers: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), *layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 10)
    ).double()
