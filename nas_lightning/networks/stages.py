"""Stages of convolution and batch norm, each computed in one pass over memory on a CPU.

A stage is ReLU, a depthwise convolution (or none), a 1x1 convolution and batch norm. Layer by layer, each
reads and writes the whole batch; ``stages.c`` takes a stage through an image at a time, in a core's cache,
and computes in the backward pass what lies inside anew. The system's C compiler makes it, once for a machine.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.library import custom_op

from nas_lightning.files import atomic_write
from nas_lightning.networks.layers import BatchNorm

_SOURCE = Path(__file__).with_suffix(".c")
_FLAGS = ("-O3", "-march=native", "-fopenmp", "-fPIC", "-shared", "-Wno-psabi")
_TYPES = {torch.float32: "float", torch.float64: "double"}


class Stage(NamedTuple):
    """The layers of a stage behind its ReLU."""

    depthwise: nn.Conv2d | None
    pointwise: nn.Conv2d
    norm: BatchNorm


def can_compute_stages(weight: Tensor) -> bool:
    """Whether stages with weights like this one can be computed in one pass each.

    Args:
        weight: Any of them; it must be a CPU's, float32 or float64, and a C compiler with OpenMP be found.
    """
    return (
        weight.device.type == "cpu" and weight.dtype in _TYPES and _library(_TYPES[weight.dtype]) is not None
    )


def compute_stages(x: Tensor, stages: Sequence[Stage]) -> Tensor:
    """Output of stages in training; tracks the statistics of their norms.

    Args:
        x: ``[batch, channels, height, width]``; whether it is rectified already does not matter.
        stages: The stages, see :func:`can_compute_stages`.

    Returns:
        ``[batch, channels, _, _]``, channels-last.
    """
    weights: list[Tensor | None] = []
    sizes: list[int] = []
    for depthwise, pointwise, norm in stages:
        weights += [None if depthwise is None else depthwise.weight, pointwise.weight, norm.weight, norm.bias]
        sizes += (1, 1) if depthwise is None else (depthwise.stride[0], depthwise.dilation[0])
    x = x.to(stages[0].pointwise.weight.dtype)
    output, *statistics = _Stages.apply(x, sizes, [stage.norm.eps for stage in stages], *weights)
    count = output.numel() // output.shape[1]
    for stage, mean, variance in zip(stages, statistics[::2], statistics[1::2], strict=True):
        stage.norm.track(mean, variance, count)
    return output  # type: ignore[no-any-return]


class _Stages(torch.autograd.Function):
    """Output; mean and (biased) variance of every stage's norm."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, sizes: list[int], eps: list[float], *weights: Tensor | None) -> Any:
        output, *inner = _forward(x, list(weights), sizes, eps)
        ctx.save_for_backward(x, *inner, *weights)
        ctx.sizes, ctx.eps = sizes, eps
        statistics = [value for index, value in enumerate(inner) if index % 3]
        ctx.mark_non_differentiable(*statistics)
        return output, *statistics

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        x, *rest = ctx.saved_tensors
        inner, weights = rest[: 3 * len(ctx.eps)], rest[3 * len(ctx.eps) :]
        towards_x, *found = _backward(gradient, x, inner, weights, ctx.sizes, ctx.eps)
        of_weights = iter(found)
        return towards_x, None, None, *(None if weight is None else next(of_weights) for weight in weights)


@custom_op(
    "nas_lightning::stages",
    mutates_args=(),
    schema="(Tensor x, Tensor?[] weights, int[] sizes, float[] eps) -> Tensor[]",
)
def _forward(
    x: Tensor, weights: Sequence[Tensor | None], sizes: Sequence[int], eps: Sequence[float]
) -> list[Tensor]:
    """The output, and of every stage what comes out of its 1x1 convolution, with mean and variance."""
    library = _loaded(x.dtype)
    source = x.contiguous(memory_format=torch.channels_last)
    affine: tuple[Tensor, Tensor] | None = None
    inner: list[Tensor] = []
    y, scale, shift = source, source, source
    for depthwise, pointwise, weight, bias, stride, dilation, own_eps in _by_stage(weights, sizes, eps):
        shape = _Shape.of(source, depthwise, pointwise, stride, dilation)
        y = _empty_output(source, pointwise, stride)
        mean, variance = torch.empty_like(weight), torch.empty_like(weight)
        library.stage_forward(
            ctypes.byref(shape),
            *_pointers(source, *(affine or (None, None)), depthwise, pointwise, y, mean, variance),
        )
        inner += [y, mean, variance]
        scale, shift = _scale_and_shift(weight, bias, mean, variance, own_eps)
        source, affine = y, (scale, shift)
    output = torch.empty_like(y)
    library.normalise(*_norm_sizes(y), *_pointers(y, scale, shift, output))
    return [output, *inner]


@custom_op(
    "nas_lightning::stages_backward",
    mutates_args=(),
    schema="(Tensor gradient, Tensor x, Tensor[] inner, Tensor?[] weights, int[] sizes, float[] eps)"
    " -> Tensor[]",
)
def _backward(
    gradient: Tensor,
    x: Tensor,
    inner: Sequence[Tensor],
    weights: Sequence[Tensor | None],
    sizes: Sequence[int],
    eps: Sequence[float],
) -> list[Tensor]:
    """Gradients of the input and of every weight there is."""
    library = _loaded(x.dtype)
    gradient = gradient.contiguous(memory_format=torch.channels_last)
    stages = list(_by_stage(weights, sizes, eps))
    y, mean, _ = inner[-3:]
    sums = torch.empty(2, y.shape[1], dtype=torch.float64)
    library.norm_sums(*_norm_sizes(y), *_pointers(gradient, y, mean, sums))
    found: list[Tensor] = []
    for index in reversed(range(len(stages))):
        depthwise, pointwise, weight, _, stride, dilation, own_eps = stages[index]
        y, mean, variance = inner[3 * index : 3 * index + 3]
        deviation = torch.rsqrt(variance + own_eps)
        source = x.contiguous(memory_format=torch.channels_last)
        before: tuple[Tensor | None, ...] = (None, None, None)
        if index:
            source, mean_before, variance_before = inner[3 * index - 3 : 3 * index]
            _, _, weight_before, bias_before, _, _, eps_before = stages[index - 1]
            before = (
                *_scale_and_shift(weight_before, bias_before, mean_before, variance_before, eps_before),
                mean_before,
            )
        towards_source, towards_pointwise = torch.empty_like(source), torch.empty_like(pointwise)
        towards_depthwise = None if depthwise is None else torch.empty_like(depthwise)
        sums_before = torch.empty(2, source.shape[1], dtype=torch.float64)
        library.stage_backward(
            ctypes.byref(_Shape.of(source, depthwise, pointwise, stride, dilation)),
            *_pointers(source, *before, depthwise, pointwise, y, gradient, weight, mean, deviation, sums),
            *_pointers(towards_source, towards_depthwise, towards_pointwise, sums_before),
        )
        of_stage = (
            towards_depthwise,
            towards_pointwise,
            (sums[1] * deviation).to(x.dtype),
            sums[0].to(x.dtype),
        )
        found = [*(value for value in of_stage if value is not None), *found]
        gradient, sums = towards_source, sums_before
    return [gradient, *found]


@_forward.register_fake
def _(
    x: Tensor, weights: Sequence[Tensor | None], sizes: Sequence[int], eps: Sequence[float]
) -> list[Tensor]:
    inner: list[Tensor] = []
    y = x
    for _depthwise, pointwise, weight, _bias, stride, _dilation, _eps in _by_stage(weights, sizes, eps):
        y = _empty_output(y, pointwise, stride)
        inner += [y, torch.empty_like(weight), torch.empty_like(weight)]
    return [torch.empty_like(y), *inner]


@_backward.register_fake
def _(
    gradient: Tensor,
    x: Tensor,
    inner: Sequence[Tensor],
    weights: Sequence[Tensor | None],
    sizes: Sequence[int],
    eps: Sequence[float],
) -> list[Tensor]:
    towards_x = torch.empty_like(x, memory_format=torch.channels_last)
    return [towards_x, *(torch.empty_like(weight) for weight in weights if weight is not None)]


def _by_stage(weights: Sequence[Tensor | None], sizes: Sequence[int], eps: Sequence[float]) -> Any:
    """(depthwise, pointwise, norm's weight and bias, stride, dilation, eps) of every stage."""
    for index, own_eps in enumerate(eps):
        yield *weights[4 * index : 4 * index + 4], *sizes[2 * index : 2 * index + 2], own_eps


def _empty_output(x: Tensor, pointwise: Tensor, stride: int) -> Tensor:
    height, width = ((size + stride - 1) // stride for size in x.shape[2:])
    shape = (x.shape[0], pointwise.shape[0], height, width)
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)


def _scale_and_shift(
    weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    scale = weight * torch.rsqrt(variance + eps)
    return scale, bias - mean * scale


_WINDOW = ("kernel", "stride", "dilation")


class _Shape(ctypes.Structure):
    """``stage`` of ``stages.c``."""

    _fields_ = tuple(
        (name, ctypes.c_int64)
        for name in ("batch", "height", "width", "in_channels", "channels", *_WINDOW, "threads")
    )

    @classmethod
    def of(cls, x: Tensor, depthwise: Tensor | None, pointwise: Tensor, stride: int, dilation: int) -> _Shape:
        batch, channels, height, width = x.shape
        kernel = 0 if depthwise is None else depthwise.shape[-1]
        sizes = (batch, height, width, channels, pointwise.shape[0], kernel, stride, dilation)
        return cls(*sizes, torch.get_num_threads())


def _norm_sizes(y: Tensor) -> list[ctypes.c_int64]:
    batch, channels, height, width = y.shape
    return [ctypes.c_int64(size) for size in (batch, height * width, channels, torch.get_num_threads())]


def _pointers(*tensors: Tensor | None) -> list[ctypes.c_void_p | None]:
    return [None if tensor is None else ctypes.c_void_p(tensor.data_ptr()) for tensor in tensors]


def _loaded(dtype: torch.dtype) -> Any:
    library = _library(_TYPES[dtype])
    assert library is not None, "can_compute_stages() was not asked"
    return library


@cache
def _library(number: str) -> ctypes.CDLL | None:
    """``stages.c`` for ``float`` or ``double``, compiled unless it has been; None where it cannot be."""
    compiler = next(filter(shutil.which, (os.environ.get("CC", ""), "gcc", "cc", "clang")), None)
    if compiler is None:
        return None
    command = [compiler, *_FLAGS, f"-DREAL={number}", str(_SOURCE), "-lm"]
    identity = "\n".join((*command, _processor(), _SOURCE.read_text()))
    name = f"stages-{number}-{hashlib.sha256(identity.encode()).hexdigest()[:16]}.so"
    path = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "nas_lightning" / name
    with suppress(OSError):
        return ctypes.CDLL(str(path))
    with tempfile.TemporaryDirectory() as folder, suppress(OSError, subprocess.SubprocessError):
        made = Path(folder) / name
        subprocess.run([*command, "-o", str(made)], check=True, capture_output=True)
        with suppress(OSError), atomic_write(path, "wb") as file:  # for the next process, where there is room
            file.write(made.read_bytes())
        return ctypes.CDLL(str(made))
    return None


def _processor() -> str:
    """What ``-march=native`` depends on: machines that share a home directory may differ."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return "\n".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}))
