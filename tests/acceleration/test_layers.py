from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from nas_lightning.acceleration.layers import BatchNorm, Convolution, MaxPool, replace_layers
from tests.acceleration.cases import needs_compiler, without_kernels


@pytest.mark.parametrize(("stride", "kernel"), [(1, 3), (2, 3), (1, 5), (2, 5)])
@pytest.mark.parametrize("size", [8, 9])
def test_a_dilated_convolution_is_torch_s(stride: int, kernel: int, size: int) -> None:
    torch.manual_seed(0)
    geometry: dict[str, Any] = {"stride": stride, "padding": kernel - 1, "dilation": 2, "groups": 4}
    layer = Convolution(4, 4, kernel, **geometry).double()
    x = torch.randn(3, 4, size, size, dtype=torch.float64, requires_grad=True)
    expected = functional.conv2d(x, layer.weight, layer.bias, **geometry)
    actual = layer(x)
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)
    weights = torch.randn_like(expected)
    gradients = [
        torch.autograd.grad((y * weights).sum(), [x, layer.weight], retain_graph=True)
        for y in (actual, expected)
    ]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize("momentum", [0.1, None])
def test_compiled_batch_norm_is_torch_s(momentum: float | None) -> None:
    torch.manual_seed(0)
    layer = BatchNorm(4, momentum=momentum).double()
    expected = nn.BatchNorm2d(4, momentum=momentum).double()
    compiled = torch.compile(layer, backend="aot_eager", dynamic=False)
    for step in range(3):
        x = (torch.randn(5, 4, 3, 6, dtype=torch.float64) * 3 + step).requires_grad_()
        outputs = compiled(x), expected(x)
        torch.testing.assert_close(*outputs, rtol=1e-10, atol=1e-12)
        weights = torch.randn_like(x)
        gradients = [
            torch.autograd.grad((y * weights).sum(), [x, one.weight, one.bias])
            for y, one in zip(outputs, (layer, expected), strict=True)
        ]
        for one, other in zip(*gradients, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(dict(layer.named_buffers()), dict(expected.named_buffers()))


@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize("settings", [{"affine": False}, {"track_running_stats": False}])
def test_compiled_batch_norm_without_weights_or_statistics_is_torch_s(settings: dict[str, bool]) -> None:
    torch.manual_seed(0)
    layer, expected = BatchNorm(4, **settings).double(), nn.BatchNorm2d(4, **settings).double()
    x = torch.randn(5, 4, 3, 6, dtype=torch.float64)
    compiled = torch.compile(layer, backend="aot_eager", dynamic=False)
    torch.testing.assert_close(compiled(x), expected(x), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(dict(layer.named_buffers()), dict(expected.named_buffers()))


@pytest.mark.parametrize("kernels", [False, pytest.param(True, marks=needs_compiler)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_max_pooling_is_torch_s(kernels: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    if not kernels:
        without_kernels(monkeypatch)
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(4, 4, 1), nn.MaxPool2d(3, 2, 1)).to(dtype)
    expected = nn.MaxPool2d(3, 2, 1)
    replace_layers(module)
    pool = module[1]
    assert isinstance(pool, MaxPool)
    assert pool.has_kernel == (kernels and dtype != torch.bfloat16)
    x = torch.randn(3, 4, 9, 9).to(dtype).requires_grad_()
    outputs = pool(x), expected(x)
    assert torch.equal(*outputs)
    gradients = [torch.autograd.grad((y * y).sum(), x)[0] for y in outputs]
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize(
    "layer",
    [
        nn.MaxPool2d((3, 5), 1, padding=1),
        nn.MaxPool2d(3, 1, padding=1, dilation=2),
        nn.MaxPool2d(2, 2, ceil_mode=True),
        nn.Conv3d(3, 4, 1),
        nn.BatchNorm1d(3),
        nn.LazyConv2d(3, 1),
    ],
    ids=str,
)
def test_other_layers_stay(layer: nn.Module) -> None:
    module = nn.Sequential(layer)
    kind = type(layer)
    replace_layers(module)
    assert type(module[0]) is kind


@pytest.mark.parametrize(
    "settings",
    [
        {"padding": 2, "padding_mode": "reflect"},
        {"padding": 2, "padding_mode": "circular"},
        {"padding": "same"},
        {"padding": 1},
        {"padding": 3, "kernel_size": 4},
        {"padding": 2, "stride": (2, 1)},
        {"padding": 2, "stride": 3},
        {"padding": 1, "stride": 2},
    ],
    ids=str,
)
def test_other_dilated_convolutions_are_left_to_torch(settings: dict[str, Any]) -> None:
    torch.manual_seed(0)
    expected = nn.Conv2d(**{"in_channels": 2, "out_channels": 3, "kernel_size": 3, "dilation": 2} | settings)
    module = copy.deepcopy(nn.Sequential(expected))
    replace_layers(module)
    assert isinstance(module[0], Convolution)
    x = torch.randn(2, 2, 12, 12)
    torch.testing.assert_close(module(x), expected(x))
