"""Scaling weights before a batch norm leaves the function, and must leave what compares architectures."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nas_lightning.analysis import (
    block_eigenvalues,
    curvature_map,
    evaluate,
    filter_scale,
    gradient_statistics,
    hessian_eigenvalues,
    loss_line,
    loss_profile,
    random_direction,
    random_directions,
    second_derivative,
)
from nas_lightning.cells import Genotype
from nas_lightning.networks import CellNetwork
from tests.analysis.cases import make_batches, trained_network

# Separable and dilated convolutions, pools, a skip; the reduction cell's input halves the resolution.
GENOTYPE = Genotype(
    [("sep_conv_3x3", 0), ("max_pool_3x3", 1), ("dil_conv_3x3", 1), ("skip_connect", 2)],
    [2, 3],
    [("dil_conv_3x3", 1), ("avg_pool_3x3", 0), ("skip_connect", 0), ("sep_conv_3x3", 2)],
    [2, 3],
)

NODE = [f"cells.0.edges.0.{layer}_1.weight" for layer in ("depthwise", "pointwise")]
"""Weights of a node of the first cell."""


def scaled(network: CellNetwork, *, by_filter: bool, exact: bool) -> CellNetwork:
    """A copy whose weights before batch norms are scaled, with running statistics that follow.

    By 2, or by a factor for each filter. During a training the running variance follows as factor^2 times
    itself. The function then stays up to batch norm's eps, which is not scaled: the condition is a variance
    far above eps. `exact` makes up for eps.
    """
    network = copy.deepcopy(network)
    generator = torch.Generator().manual_seed(3)
    before: list[nn.Conv2d] = []
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d) and (layer.groups == 1 or layer.out_channels != layer.groups):
            before.append(layer)  # not depthwise: those lead to another convolution
        if not isinstance(layer, nn.BatchNorm2d):
            continue
        channels = layer.num_features
        factors = torch.full((channels,), 2.0, dtype=torch.float64)
        if by_filter:
            factors = torch.rand(channels, generator=generator, dtype=torch.float64) * 3 + 0.5
        with torch.no_grad():
            widths = [conv.out_channels for conv in before]  # side by side, they make up the channels
            assert sum(widths) == (channels if before else 0)
            for conv, own in zip(before, torch.split(factors, widths) if before else (), strict=True):
                conv.weight.mul_(own.view(-1, 1, 1, 1))
            if before:
                assert layer.running_mean is not None
                assert layer.running_var is not None
                layer.running_mean.mul_(factors)
                eps = layer.eps if exact else 0.0
                layer.running_var.copy_((layer.running_var + eps) * factors**2 - eps)
        before = []
    return network


@pytest.fixture(scope="module")
def network() -> CellNetwork:
    return trained_network(GENOTYPE)


@pytest.fixture(scope="module")
def batches() -> list[tuple[Tensor, Tensor]]:
    return make_batches((6, 5))


@pytest.mark.parametrize(("by_filter", "exact"), [(False, False), (False, True), (True, True)])
def test_the_statistics_do_not_see_the_scale(
    network: CellNetwork, batches: list[tuple[Tensor, Tensor]], by_filter: bool, exact: bool
) -> None:
    other = scaled(network, by_filter=by_filter, exact=exact)
    tolerance = 1e-6 if exact else 1e-3
    assert evaluate(other, batches)[0] == pytest.approx(evaluate(network, batches)[0], rel=tolerance)

    before, after = (gradient_statistics(module, batches) for module in (network, other))
    assert after.normalized_variance == pytest.approx(before.normalized_variance, rel=tolerance)
    assert after.variance < 0.95 * before.variance

    raw, normalized = [], []
    for module in (network, other):
        settings: dict[str, Any] = {"smallest": 0, "trace_samples": 0, "tolerance": 1e-8}
        raw.append(hessian_eigenvalues(module, batches, 1, **settings).eigenvalues[0])
        settings["scale"] = filter_scale(module)
        normalized.append(hessian_eigenvalues(module, batches, 1, **settings).eigenvalues[0])
    assert normalized[1] == pytest.approx(normalized[0], rel=tolerance)
    assert abs(raw[1] / raw[0] - 1) > 0.01

    profiles = [loss_profile(module, batches, [0, 0.3, 0.6, 1.0], [0, 1]) for module in (network, other)]
    assert profiles[1]["loss"].values == pytest.approx(profiles[0]["loss"].values, rel=tolerance)
    for name in ("mean_rise", "one_nat_radius"):
        assert profiles[1][name].values == pytest.approx(profiles[0][name].values, rel=tolerance)
    lines = [loss_line(module, {"test": batches}, [-0.5, 0, 0.5], [2]) for module in (network, other)]
    for name in map(str, lines[0].data_vars):
        assert lines[1][name].values == pytest.approx(lines[0][name].values, rel=tolerance), name
    first_products: dict[str, Any] = {"max_products": 4}
    maps = [
        curvature_map(module, batches, random_directions(module, 0), [0.4], [-0.4], **first_products)
        for module in (network, other)
    ]
    blocks = [
        block_eigenvalues(module, batches, NODE, **first_products, normalized=normalized)
        for normalized in (True, False)
        for module in (network, other)
    ]
    for name in ("largest_eigenvalue", "smallest_eigenvalue", "eigenvalue_ratio"):
        assert maps[1][name].values == pytest.approx(maps[0][name].values, rel=tolerance), name
    assert blocks[1].largest == pytest.approx(blocks[0].largest, rel=tolerance)
    assert blocks[1].ratio == pytest.approx(blocks[0].ratio, rel=tolerance)
    assert abs(blocks[3].largest / blocks[2].largest - 1) > 0.01
    curvatures = [second_derivative(module, batches, 2)[0] for module in (network, other)]
    assert curvatures[1] == pytest.approx(curvatures[0], rel=tolerance)
    steps = [random_direction(module, 0, "none") for module in (network, other)]
    moved = [moved_loss(module, step, batches) for module, step in zip((network, other), steps, strict=True)]
    assert abs(moved[1] - moved[0]) > 0.02 * moved[0]  # a step of a given length does see it


def moved_loss(module: CellNetwork, step: dict[str, Tensor], batches: list[tuple[Tensor, Tensor]]) -> float:
    module = copy.deepcopy(module)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name in step:
                parameter.add_(step[name], alpha=0.1)
    return evaluate(module, batches)[0]
