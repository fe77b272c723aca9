"""The kernels as a machine with NEON computes them, in an emulator, against torch's layers."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from nas_lightning.acceleration.cpu import build

MISSING = [name for name in ("aarch64-linux-gnu-gcc", "qemu-aarch64") if shutil.which(name) is None]
HERE = Path(__file__).parent

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        bool(MISSING),
        reason=f"{' and '.join(MISSING)} not found: apt-get install gcc-aarch64-linux-gnu qemu-user",
    ),
]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("aarch64") / "kernels"
    flags = ("-O2", "-static", "-fopenmp", "-Wall", "-Wextra", "-Werror", "-DREAL=double")
    sources = (f"-I{Path(build.__file__).parent}", str(HERE / "kernels_main.c"), "-lm")
    subprocess.run(["aarch64-linux-gnu-gcc", *flags, "-o", str(path), *sources], check=True)
    return path


def channels_last(x: Tensor) -> bytes:
    return x.detach().permute(0, 2, 3, 1).contiguous().numpy().tobytes()


@pytest.mark.parametrize(
    ("in_channels", "channels", "kernel", "stride", "dilation"),
    [(16, 16, 3, 1, 1), (5, 5, 3, 1, 2), (7, 7, 3, 2, 1), (6, 6, 5, 1, 1), (5, 5, 5, 2, 2), (33, 9, 0, 1, 1)],
)
@pytest.mark.parametrize("size", [(8, 8), (9, 11)])
def test_a_block_and_a_pooling_are_torch_s(
    in_channels: int,
    channels: int,
    kernel: int,
    stride: int,
    dilation: int,
    size: tuple[int, int],
    program: Path,
) -> None:
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    try:
        x = torch.randn(3, in_channels, *size, requires_grad=True)
        depthwise = torch.randn(in_channels, 1, kernel, kernel, requires_grad=True)
        pointwise = torch.randn(channels, in_channels, 1, 1, requires_grad=True)
        weight, bias = torch.randn(channels, requires_grad=True), torch.randn(channels, requires_grad=True)
        factors = torch.tensor([0.0, 1.25, 2.0])
        padding = dilation * (kernel - 1) // 2
        y = x.relu()
        if kernel:
            y = functional.conv2d(y, depthwise, None, stride, padding, dilation, in_channels)
        y = functional.conv2d(y, pointwise)
        mean, variance = y.mean((0, 2, 3)), y.var((0, 2, 3), unbiased=False)
        addend, incoming = torch.randn_like(y), torch.randn_like(y)
        normalised = functional.batch_norm(y, None, None, weight, bias, training=True)
        output = normalised * factors.view(-1, 1, 1, 1) + addend
        wanted = [x, *((depthwise,) if kernel else ()), pointwise, weight, bias]
        gradients = torch.autograd.grad(output, wanted, incoming)
        pooled = functional.max_pool2d(x, 3, 2, 1)
        grad_pooled = torch.autograd.grad(pooled.square().sum() / 2, x)[0]
    finally:
        torch.set_default_dtype(torch.float32)
    values = [depthwise, pointwise, weight, bias, factors]
    given = b"".join(
        (
            struct.pack("=8q", 3, *size, in_channels, channels, kernel, stride, dilation),
            *(channels_last(x), channels_last(incoming)),
            *(value.detach().numpy().tobytes() for value in values),
            channels_last(addend),
        )
    )
    run = subprocess.run(["qemu-aarch64", str(program)], input=given, capture_output=True, check=True)
    first, *others = gradients
    expected = [output, mean, variance, first, *others, normalised + addend, pooled, grad_pooled]
    results = np.frombuffer(run.stdout)
    for value in expected:
        own, results = results[: value.numel()], results[value.numel() :]
        values_of = value.detach()
        if value.ndim == 4 and len(value) == len(x):  # images
            values_of = values_of.permute(0, 2, 3, 1)
        np.testing.assert_allclose(own, values_of.flatten().numpy(), rtol=1e-9, atol=1e-10)
    assert not len(results)
