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
import struct
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


def compute_stages(
    x: Tensor, stages: Sequence[Stage], factors: Tensor | None = None, addend: Tensor | None = None
) -> Tensor:
    """Output of stages in training; tracks the statistics of their norms.

    Args:
        x: ``[batch, channels, height, width]``; whether it is rectified already does not matter.
        stages: The stages, see :func:`can_compute_stages`.
        factors: Factor of every image's output, ``[batch]``, a constant; None is 1.
        addend: What is added to the output, ``[batch, channels, _, _]``; None is 0.

    Returns:
        ``[batch, channels, _, _]``, channels-last.
    """
    weights, sizes, eps = _described(stages)
    dtype = stages[0].pointwise.weight.dtype
    factors, addend = (None if value is None else value.to(dtype) for value in (factors, addend))
    output, *statistics = _Stages.apply(x.to(dtype), factors, addend, sizes, eps, *weights)
    count = output.numel() // output.shape[1]
    for stage, mean, variance in zip(stages, statistics[::2], statistics[1::2], strict=True):
        stage.norm.track(mean, variance, count)
    return output  # type: ignore[no-any-return]


def evaluate_stages(x: Tensor, stages: Sequence[Stage], addend: Tensor | None = None) -> Tensor:
    """Output of stages with the running statistics of their norms; it has no gradient.

    Args:
        x: ``[batch, channels, height, width]``; whether it is rectified already does not matter.
        stages: The stages, see :func:`can_compute_stages`.
        addend: What is added to the output, ``[batch, channels, _, _]``; None is 0.

    Returns:
        ``[batch, channels, _, _]``, channels-last.
    """
    weights, sizes, eps = _described(stages)
    statistics = [value for stage in stages for value in (stage.norm.running_mean, stage.norm.running_var)]
    dtype = stages[0].pointwise.weight.dtype
    addend = None if addend is None else addend.to(dtype)
    output: Tensor = _evaluate(x.to(dtype), addend, weights, statistics, sizes, eps)
    return output


def _described(stages: Sequence[Stage]) -> tuple[list[Tensor | None], list[int], list[float]]:
    """Weights (depthwise, pointwise, norm's weight and bias), strides and dilations, and eps of stages."""
    weights: list[Tensor | None] = []
    sizes: list[int] = []
    for depthwise, pointwise, norm in stages:
        weights += [None if depthwise is None else depthwise.weight, pointwise.weight, norm.weight, norm.bias]
        sizes += (1, 1) if depthwise is None else (depthwise.stride[0], depthwise.dilation[0])
    return weights, sizes, [stage.norm.eps for stage in stages]


class _Stages(torch.autograd.Function):
    """Output; mean and (biased) variance of every stage's norm."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        factors: Tensor | None,
        addend: Tensor | None,
        sizes: list[int],
        eps: list[float],
        *weights: Tensor | None,
    ) -> Any:
        output, *inner = _forward(x, factors, addend, list(weights), sizes, eps)
        ctx.save_for_backward(x, factors, *inner, *weights)
        ctx.sizes, ctx.eps = sizes, eps
        statistics = [value for index, value in enumerate(inner) if index % 3]
        ctx.mark_non_differentiable(*statistics)
        return output, *statistics

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        x, factors, *rest = ctx.saved_tensors
        inner, weights = rest[: 3 * len(ctx.eps)], rest[3 * len(ctx.eps) :]
        towards_x, *found = _backward(gradient, x, factors, inner, weights, ctx.sizes, ctx.eps)
        of_weights = iter(found)
        towards_weights = (None if weight is None else next(of_weights) for weight in weights)
        towards_addend = gradient if ctx.needs_input_grad[2] else None
        return towards_x, None, towards_addend, None, None, *towards_weights


@custom_op(
    "nas_lightning::stages",
    mutates_args=(),
    device_types="cpu",
    schema="(Tensor x, Tensor? factors, Tensor? addend, Tensor?[] weights, int[] sizes, float[] eps)"
    " -> Tensor[]",
)
def _forward(
    x: Tensor,
    factors: Tensor | None,
    addend: Tensor | None,
    weights: Sequence[Tensor | None],
    sizes: Sequence[int],
    eps: Sequence[float],
) -> list[Tensor]:
    """The output, and of every stage what comes out of its 1x1 convolution, with mean and variance."""
    x = x.contiguous(memory_format=torch.channels_last)
    inner = _empty_inner(x, weights, sizes)
    output = torch.empty_like(inner[-3])
    if addend is not None:
        addend = addend.contiguous(memory_format=torch.channels_last)
    stages = _packed(x, weights, sizes, eps, inner, factors=factors, addend=addend)
    _loaded(x.dtype).stages_forward(stages, len(eps), x.data_ptr(), output.data_ptr())
    return [output, *inner]


@custom_op(
    "nas_lightning::stages_evaluated",
    mutates_args=(),
    device_types="cpu",
    schema="(Tensor x, Tensor? addend, Tensor?[] weights, Tensor[] statistics, int[] sizes, float[] eps)"
    " -> Tensor",
)
def _evaluate(
    x: Tensor,
    addend: Tensor | None,
    weights: Sequence[Tensor | None],
    statistics: Sequence[Tensor],
    sizes: Sequence[int],
    eps: Sequence[float],
) -> Tensor:
    x = x.contiguous(memory_format=torch.channels_last)
    if addend is not None:
        addend = addend.contiguous(memory_format=torch.channels_last)
    output = _empty_outputs(x, weights, sizes)[-1]
    inner: list[Tensor | None] = []
    for mean, variance in zip(statistics[::2], statistics[1::2], strict=True):
        inner += [None, mean, variance]
    stages = _packed(x, weights, sizes, eps, inner, addend=addend)
    _loaded(x.dtype).stages_evaluate(stages, len(eps), x.data_ptr(), output.data_ptr())
    return output


@custom_op(
    "nas_lightning::stages_backward",
    mutates_args=(),
    device_types="cpu",
    schema="(Tensor gradient, Tensor x, Tensor? factors, Tensor[] inner, Tensor?[] weights, int[] sizes,"
    " float[] eps) -> Tensor[]",
)
def _backward(
    gradient: Tensor,
    x: Tensor,
    factors: Tensor | None,
    inner: Sequence[Tensor],
    weights: Sequence[Tensor | None],
    sizes: Sequence[int],
    eps: Sequence[float],
) -> list[Tensor]:
    """Gradients of the input and of every weight there is."""
    x = x.contiguous(memory_format=torch.channels_last)
    step = _pixel_step(gradient)
    if step is None:
        gradient, step = gradient.contiguous(memory_format=torch.channels_last), gradient.shape[1]
    towards_x = torch.empty_like(x)
    towards = [None if weight is None else torch.empty_like(weight) for weight in weights]
    between = [torch.empty_like(y) for y in inner[:-3:3]]
    stages = _packed(x, weights, sizes, eps, inner, towards, between, factors=factors)
    pointers = (x.data_ptr(), gradient.data_ptr(), step, towards_x.data_ptr())
    _loaded(x.dtype).stages_backward(stages, len(eps), *pointers)
    return [towards_x, *(gradient for gradient in towards if gradient is not None)]


@_forward.register_fake
def _(
    x: Tensor,
    factors: Tensor | None,
    addend: Tensor | None,
    weights: Sequence[Tensor | None],
    sizes: Sequence[int],
    eps: Sequence[float],
) -> list[Tensor]:
    inner = _empty_inner(x, weights, sizes)
    return [torch.empty_like(inner[-3]), *inner]


@_backward.register_fake
def _(
    gradient: Tensor,
    x: Tensor,
    factors: Tensor | None,
    inner: Sequence[Tensor],
    weights: Sequence[Tensor | None],
    sizes: Sequence[int],
    eps: Sequence[float],
) -> list[Tensor]:
    towards_x = torch.empty_like(x, memory_format=torch.channels_last)
    return [towards_x, *(torch.empty_like(weight) for weight in weights if weight is not None)]


@_evaluate.register_fake
def _(
    x: Tensor,
    addend: Tensor | None,
    weights: Sequence[Tensor | None],
    statistics: Sequence[Tensor],
    sizes: Sequence[int],
    eps: Sequence[float],
) -> Tensor:
    return _empty_outputs(x, weights, sizes)[-1]


def _empty_outputs(x: Tensor, weights: Sequence[Tensor | None], sizes: Sequence[int]) -> list[Tensor]:
    """Room for what comes out of every stage's 1x1 convolution."""
    outputs: list[Tensor] = []
    height, width = x.shape[2:]
    for norm, stride in zip(weights[2::4], sizes[::2], strict=True):
        assert norm is not None
        height, width = (height + stride - 1) // stride, (width + stride - 1) // stride
        shape = (x.shape[0], norm.shape[0], height, width)
        outputs.append(torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last))
    return outputs


def _empty_inner(x: Tensor, weights: Sequence[Tensor | None], sizes: Sequence[int]) -> list[Tensor]:
    """The same, each with room for its mean and its variance."""
    outputs = _empty_outputs(x, weights, sizes)
    return [value for y in outputs for value in (y, y.new_empty(y.shape[1]), y.new_empty(y.shape[1]))]


def _pixel_step(gradient: Tensor) -> int | None:
    """Numbers between the pixels of channels-last images, maybe some channels of wider ones; else None."""
    _, channels, height, width = gradient.shape
    step = gradient.stride(3)
    is_usual = gradient.stride() == (height * width * step, 1, width * step, step) and step >= channels
    return step if is_usual else None


_STAGE = struct.Struct("@9q d 14P")
"""``stage`` of ``stages.c``."""


def _packed(
    x: Tensor,
    weights: Sequence[Tensor | None],
    sizes: Sequence[int],
    eps: Sequence[float],
    inner: Sequence[Tensor | None],
    towards: Sequence[Tensor | None] = (),
    between: Sequence[Tensor] = (),
    *,
    factors: Tensor | None = None,
    addend: Tensor | None = None,
) -> bytes:
    """The stages as C sees them; the tensors must outlive them."""
    packed = []
    (batch, channels, height, width), threads = x.shape, torch.get_num_threads()
    for index, own_eps in enumerate(eps):
        is_last = index == len(eps) - 1
        depthwise, pointwise, *norm = weights[4 * index : 4 * index + 4]
        assert pointwise is not None
        kernel = 0 if depthwise is None else depthwise.shape[-1]
        stride, dilation = sizes[2 * index : 2 * index + 2]
        tensors = (
            *(depthwise, pointwise, *norm, *inner[3 * index : 3 * index + 3]),
            *((factors, addend, None) if is_last else (None, None, between[index] if between else None)),
            *(towards[4 * index : 4 * index + 4] or (None,) * 4),
        )
        shape = (batch, height, width, channels, pointwise.shape[0], kernel, stride, dilation, threads)
        addresses = (0 if tensor is None else tensor.data_ptr() for tensor in tensors)
        packed.append(_STAGE.pack(*shape, own_eps, *addresses))
        channels = pointwise.shape[0]
        height, width = (height + stride - 1) // stride, (width + stride - 1) // stride
    return b"".join(packed)


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
        return _with_types(ctypes.CDLL(str(path)))
    with tempfile.TemporaryDirectory() as folder, suppress(OSError, subprocess.SubprocessError):
        made = Path(folder) / name
        subprocess.run([*command, "-o", str(made)], check=True, capture_output=True)
        with suppress(OSError), atomic_write(path, "wb") as file:  # for the next process, where there is room
            file.write(made.read_bytes())
        return _with_types(ctypes.CDLL(str(made)))
    return None


def _with_types(library: ctypes.CDLL) -> ctypes.CDLL:
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    library.stages_forward.argtypes = (pointer, number, pointer, pointer)
    library.stages_evaluate.argtypes = (pointer, number, pointer, pointer)
    library.stages_backward.argtypes = (pointer, number, pointer, pointer, number, pointer)
    return library


def _processor() -> str:
    """What ``-march=native`` depends on: machines that share a home directory may differ."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return "\n".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}))
