"""Layers of fused blocks, images, and the instruction sets that kernels are compiled for."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from nas_lightning.acceleration.cpu.build import kernel_library
from nas_lightning.acceleration.cpu.fused_blocks import Block

needs_compiler = pytest.mark.skipif(
    kernel_library(torch.float32) is None, reason="needs a C compiler with OpenMP"
)

# Flags of /proc/cpuinfo without which a level of x86-64 does not run.
_FLAGS = {
    "x86-64": {"sse2"},
    "x86-64-v2": {"sse4_2", "ssse3"},
    "x86-64-v3": {"avx2", "fma"},
    "x86-64-v4": {"avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512cd"},
}
INSTRUCTION_SETS = {"x86-64": "SSE", "x86-64-v2": "SSE", "x86-64-v3": "AVX2", "x86-64-v4": "AVX-512"}


def _is_missing(march: str) -> bool:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return True
    flags = {word for line in lines if line.startswith("flags") for word in line.split()}
    return platform.machine() != "x86_64" or not _FLAGS[march] <= flags


MARCHES = [
    pytest.param(march, marks=pytest.mark.skipif(_is_missing(march), reason=f"this CPU is not {march}"))
    for march in _FLAGS
]


def separable(
    channels: int, kernel: int = 3, stride: int = 1, *, dilation: int = 1, depth: int = 2
) -> nn.Sequential:
    """``depth`` blocks of depthwise convolution, 1x1 convolution, batch norm, with ReLUs between them."""
    layers: list[nn.Module] = []
    padding = dilation * (kernel - 1) // 2
    for index in range(depth):
        layers += [nn.ReLU()] if index else []
        own = stride if index == 0 else 1
        layers += [
            nn.Conv2d(channels, channels, kernel, own, padding, dilation, groups=channels, bias=False),
            nn.Conv2d(channels, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
        ]
    return _randomised(nn.Sequential(*layers))


def projection(in_channels: int, channels: int) -> nn.Sequential:
    """1x1 convolution and batch norm."""
    return _randomised(
        nn.Sequential(nn.Conv2d(in_channels, channels, 1, bias=False), nn.BatchNorm2d(channels))
    )


def _randomised(layers: nn.Sequential) -> nn.Sequential:
    generator = torch.Generator().manual_seed(0)
    layers.double()
    for parameter in layers.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
    return layers


def blocks_of(layers: nn.Sequential) -> list[Block]:
    """The layers as blocks."""
    blocks, convolutions = [], []
    for layer in layers:
        if isinstance(layer, nn.Conv2d):
            convolutions.append(layer)
        elif isinstance(layer, nn.BatchNorm2d):
            *depthwise, pointwise = convolutions
            blocks.append(Block(depthwise[0] if depthwise else None, pointwise, layer))
            convolutions = []
    return blocks


def images(
    channels: int, size: tuple[int, int], dtype: torch.dtype = torch.float64, batch: int = 5
) -> Tensor:
    """Random channels-last images that want a gradient."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(batch, channels, *size, generator=generator, dtype=torch.float64).to(dtype)
    return x.contiguous(memory_format=torch.channels_last).requires_grad_()
