"""Stages of convolution and batch norm, each computed in one pass over memory on a CPU.

A stage is ReLU, a depthwise convolution (or none), a 1x1 convolution and batch norm. Layer by layer, each
reads and writes the whole batch; ``stages.c`` takes a stage through an image at a time, in a core's cache,
and computes in the backward pass what lies inside anew. See ``stage_library.py`` for the compiler.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, library, nn

from nas_lightning.networks.layers import BatchNorm
from nas_lightning.networks.stage_library import stage_library

LARGEST_KERNEL = 7
"""Largest depthwise kernel of ``stages.c``."""


class Stage(NamedTuple):
    """The layers of a stage behind its ReLU; ``norm`` is a :class:`BatchNorm` if it can be computed here."""

    depthwise: nn.Conv2d | None
    pointwise: nn.Conv2d
    norm: nn.Module


def can_compute_stage(stage: Stage, training: bool) -> bool:
    """Whether a stage can be computed in one pass, to the values of its layers.

    Its weights must be a CPU's, float32 or float64, the norm in the mode asked for, with weights and running
    statistics of its own, the layers without hooks and of a geometry that ``stages.c`` knows, and a C
    compiler with OpenMP be found.

    Args:
        stage: The stage.
        training: Whether for training.
    """
    depthwise, pointwise, norm = stage
    if type(norm) is not BatchNorm or norm.training != training or not norm.track_running_stats:
        return False
    if torch.compiler.is_compiling():  # what follows is settled before
        return True
    weights = (pointwise.weight, norm.weight, pointwise.weight if depthwise is None else depthwise.weight)
    return (
        not (is_watched(norm) or is_watched(pointwise) or (depthwise is not None and is_watched(depthwise)))
        and all(weight is not None and can_compute_with(weight) for weight in weights)
        and _is_pointwise(pointwise)
        and (depthwise is None or _is_depthwise(depthwise))
    )


def can_compute_with(weight: Tensor) -> bool:
    """Whether ``stages.c`` can be had for a weight's device and numbers."""
    is_near = weight.device.type == "cpu" and weight.is_contiguous()
    return is_near and stage_library(weight.dtype) is not None


def _is_depthwise(layer: nn.Conv2d) -> bool:
    (size, _), (stride, _), (dilation, _) = layer.kernel_size, layer.stride, layer.dilation
    reach = dilation * (size - 1) // 2
    return (
        size % 2 == 1
        and size <= LARGEST_KERNEL
        and layer.groups == layer.in_channels == layer.out_channels
        and (layer.bias, layer.padding_mode, layer.padding) == (None, "zeros", (reach, reach))
        and (layer.kernel_size, layer.stride, layer.dilation)
        == ((size, size), (stride, stride), (dilation, dilation))
    )


def _is_pointwise(layer: nn.Conv2d) -> bool:
    geometry = (layer.kernel_size, layer.stride, layer.padding, layer.groups, layer.bias)
    return geometry == ((1, 1), (1, 1), (0, 0), 1, None)


def is_watched(layer: nn.Module) -> bool:
    """Whether a layer has hooks; compiled code does not look, as :func:`torch.compile` does not."""
    if torch.compiler.is_compiling():
        return False
    hooks = (layer._forward_hooks, layer._forward_pre_hooks, layer._backward_hooks, layer._backward_pre_hooks)
    return any(hooks)


def compute_stages(
    x: Tensor, stages: Sequence[Stage], factors: Tensor | None = None, addend: Tensor | None = None
) -> Tensor:
    """Output of stages in training; tracks the statistics of their norms.

    Args:
        x: ``[batch, channels, height, width]``; whether it is rectified already does not matter.
        stages: The stages, see :func:`can_compute_stage`.
        factors: Factor of every image's output, ``[batch]``, a constant; None is 1.
        addend: What is added to the output, ``[batch, channels, _, _]``; None is 0.

    Returns:
        ``[batch, channels, _, _]``, channels-last.
    """
    weights, sizes, eps = _described(stages)
    dtype = stages[0].pointwise.weight.dtype
    factors = None if factors is None else factors.to(dtype).contiguous()
    addend = None if addend is None else addend.to(dtype)
    output, *statistics = _Stages.apply(x.to(dtype), factors, addend, sizes, eps, *weights)
    count = output.numel() // output.shape[1]
    if count == 1:
        raise ValueError(
            f"batch norm needs more than 1 value per channel in training, got {tuple(output.shape)}"
        )
    for stage, mean, variance in zip(stages, statistics[::2], statistics[1::2], strict=True):
        _norm_of(stage).track(mean, variance, count)
    return output  # type: ignore[no-any-return]


def evaluate_stages(x: Tensor, stages: Sequence[Stage], addend: Tensor | None = None) -> Tensor:
    """Output of stages with the running statistics of their norms; it has no gradient.

    Args:
        x: ``[batch, channels, height, width]``; whether it is rectified already does not matter.
        stages: The stages, see :func:`can_compute_stage`.
        addend: What is added to the output, ``[batch, channels, _, _]``; None is 0.

    Returns:
        ``[batch, channels, _, _]``, channels-last.
    """
    weights, sizes, eps = _described(stages)
    norms = map(_norm_of, stages)
    statistics = [value for norm in norms for value in (norm.running_mean, norm.running_var)]
    dtype = stages[0].pointwise.weight.dtype
    addend = None if addend is None else addend.to(dtype)
    output: Tensor = _evaluate(x.to(dtype), addend, weights, statistics, sizes, eps)
    return output


def _described(stages: Sequence[Stage]) -> tuple[list[Tensor | None], list[int], list[float]]:
    """Weights (depthwise, pointwise, norm's weight and bias), strides and dilations, and eps of stages."""
    weights: list[Tensor | None] = []
    sizes: list[int] = []
    for stage in stages:
        depthwise, norm = stage.depthwise, _norm_of(stage)
        weights += [None if depthwise is None else depthwise.weight, stage.pointwise.weight]
        weights += [norm.weight, norm.bias]
        sizes += (1, 1) if depthwise is None else (depthwise.stride[0], depthwise.dilation[0])
    return weights, sizes, [_norm_of(stage).eps for stage in stages]


def _norm_of(stage: Stage) -> BatchNorm:
    assert isinstance(stage.norm, BatchNorm), "can_compute_stage() was not asked"
    return stage.norm


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


@library.custom_op(
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


@library.custom_op(
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


@library.custom_op(
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
def _(x: Tensor, factors: Any, addend: Any, weights: Any, sizes: Any, eps: Any) -> list[Tensor]:
    inner = _empty_inner(x, weights, sizes)
    return [torch.empty_like(inner[-3]), *inner]


@_backward.register_fake
def _(gradient: Any, x: Tensor, factors: Any, inner: Any, weights: Any, sizes: Any, eps: Any) -> list[Tensor]:
    towards_x = torch.empty_like(x, memory_format=torch.channels_last)
    return [towards_x, *(torch.empty_like(weight) for weight in weights if weight is not None)]


@_evaluate.register_fake
def _(x: Tensor, addend: Any, weights: Any, statistics: Any, sizes: Any, eps: Any) -> Tensor:
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
    loaded = stage_library(dtype)
    assert loaded is not None, "can_compute_stage() was not asked"
    return loaded
