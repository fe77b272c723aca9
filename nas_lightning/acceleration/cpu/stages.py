"""Stages of convolution and batch norm, each computed in one pass over memory on a CPU.

A stage is ReLU, a depthwise convolution (or none), a 1x1 convolution and batch norm. Layer by layer, each
reads and writes the whole batch; ``stages.c`` takes a stage through an image at a time, in a core's cache,
and computes in the backward pass what lies inside anew. See ``stage_operators.py`` for the call.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from nas_lightning.acceleration.cpu.library import stage_library
from nas_lightning.acceleration.cpu.operators import (
    output_shapes,
    refuse_second_gradient,
    stages_backward,
    stages_evaluated,
    stages_forward,
)
from nas_lightning.acceleration.layers import BatchNorm

LARGEST_KERNEL = 7
"""Largest depthwise kernel of ``stages.c``."""


class Stage(NamedTuple):
    """The layers of a stage behind its ReLU; ``norm`` is a :class:`BatchNorm` if it can be computed here."""

    depthwise: nn.Conv2d | None
    pointwise: nn.Conv2d
    norm: nn.Module


def can_compute_stages(stages: Sequence[Stage], training: bool) -> bool:
    """Whether stages can be computed in one pass each, to the values of their layers.

    Their weights must be a CPU's, all float32 or float64, the norms in the mode asked for, with weights and
    running statistics of their own, the layers of a geometry that ``stages.c`` knows, and a C compiler with
    OpenMP be found. Whether they are altered is for the caller to ask (:func:`is_altered`).

    Args:
        stages: The stages, of which each reads what the one before makes.
        training: Whether for training.

    Returns:
        Whether they can; no stages cannot.
    """
    if not stages:
        return False
    dtype = stages[0].pointwise.weight.dtype
    is_known = torch.compiler.is_compiling() or stage_library(dtype) is not None
    # The sizes of all but the first are taken for granted.
    is_strided = any(depthwise and depthwise.stride != (1, 1) for depthwise, _, _ in stages[1:])
    return is_known and not is_strided and all(_can_compute(stage, dtype, training) for stage in stages)


def _can_compute(stage: Stage, dtype: torch.dtype, training: bool) -> bool:
    depthwise, pointwise, norm = stage
    if type(norm) is not BatchNorm or norm.training != training or not norm.track_running_stats:
        return False
    if torch.compiler.is_compiling():  # what follows is settled before
        return True
    values = [pointwise.weight, norm.weight, norm.bias, norm.running_mean, norm.running_var]
    if depthwise is not None:
        values.append(depthwise.weight)
        if not _is_depthwise(depthwise):
            return False
    return all(value is not None and _is_near(value, dtype) for value in values) and _is_pointwise(pointwise)


def _is_near(value: Tensor, dtype: torch.dtype) -> bool:
    return value.dtype == dtype and value.device.type == "cpu" and value.is_contiguous()


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


def is_altered(layer: nn.Module) -> bool:
    """Whether :func:`has_own_ways`; code that is being compiled does not look, it is settled before."""
    return not torch.compiler.is_compiling() and has_own_ways(layer)


def has_own_ways(layer: nn.Module) -> bool:
    """Whether a layer has hooks or a ``forward`` of its own."""
    hooks = (layer._forward_hooks, layer._forward_pre_hooks, layer._backward_hooks, layer._backward_pre_hooks)
    return any(hooks) or "forward" in vars(layer)


def compute_stages(
    x: Sequence[Tensor],
    stages: Sequence[Stage],
    factors: Tensor | None = None,
    addend: Tensor | None = None,
) -> Tensor:
    """Output of stages; in training, tracks the statistics of their norms.

    Args:
        x: ``[batch, channels, height, width]``, whether rectified already does not matter; if several, their
            channels one after the other.
        stages: The stages, see :func:`can_compute_stages`.
        factors: Factor of every image's output, ``[batch]``, a constant, in training; None is 1.
        addend: What is added to the output, ``[batch, channels, _, _]``; None is 0.

    Returns:
        ``[batch, channels, _, _]``, channels-last.

    Raises:
        ValueError: If shapes do not fit, or in training a channel has fewer than two values.
        RuntimeError: If a gradient is wanted in evaluation, or of a gradient.
    """
    weights: list[Tensor | None] = []
    sizes: list[int] = []
    for stage in stages:
        depthwise, norm = stage.depthwise, _norm_of(stage)
        weights += [None if depthwise is None else depthwise.weight, stage.pointwise.weight]
        weights += [norm.weight, norm.bias]
        sizes += (1, 1) if depthwise is None else (depthwise.stride[0], depthwise.dilation[0])
    norms = [(_norm_of(stage),) for stage in stages]
    return _compute(x, weights, sizes, norms, factors, addend)[0]


def project(x: Sequence[Tensor], projections: Sequence[Stage]) -> list[Tensor]:
    """Outputs of 1x1 convolutions that read the same images, which are read once.

    Args:
        x: As for :func:`compute_stages`.
        projections: Stages without a depthwise convolution, each for itself.

    Returns:
        The output of each, ``[batch, its channels, height, width]``, channels-last.

    Raises:
        ValueError, RuntimeError: As by :func:`compute_stages`.
    """
    norms = [_norm_of(stage) for stage in projections]
    if len({(norm.eps, norm.weight.dtype) for norm in norms}) > 1:  # a pass has one of each
        return [compute_stages(x, [stage]) for stage in projections]
    pointwise = _joined([stage.pointwise.weight for stage in projections])
    weight, bias = _joined([norm.weight for norm in norms]), _joined([norm.bias for norm in norms])
    return _compute(x, [None, pointwise, weight, bias], [1, 1], [norms])


def _joined(values: Sequence[Tensor]) -> Tensor:
    return torch.cat(list(values)) if len(values) > 1 else values[0]


def _norm_of(stage: Stage) -> BatchNorm:
    assert isinstance(stage.norm, BatchNorm), "can_compute_stages() was not asked"
    return stage.norm


def _compute(
    x: Sequence[Tensor],
    weights: list[Tensor | None],
    sizes: list[int],
    norms: Sequence[Sequence[BatchNorm]],
    factors: Tensor | None = None,
    addend: Tensor | None = None,
) -> list[Tensor]:
    """Outputs of stages, one for each norm of the last.

    Args:
        x: The images.
        weights: Of every stage: depthwise, pointwise, norm's weight and bias.
        sizes: Of every stage: stride and dilation.
        norms: Of every stage: those that share its channels.
        factors: Factor of every image.
        addend: What is added to the output, if it is one.
    """
    first, parts = norms[0][0], [norm.num_features for norm in norms[-1]]
    eps, dtype = [own[0].eps for own in norms], first.weight.dtype
    x = [part.to(dtype) for part in x]
    addend = None if addend is None else addend.to(dtype)
    shape = _checked_shape(x, weights, sizes, factors, addend)
    count = shape[0] * shape[2] * shape[3]
    outputs: list[Tensor]
    if not first.training:
        assert factors is None, "drop path is a matter of training"
        if torch.is_grad_enabled() and any(
            value is not None and value.requires_grad for value in (*x, *weights)
        ):
            raise RuntimeError(
                "what is computed in one pass has no gradient in evaluation: use torch.no_grad()"
            )
        statistics = []
        for own in norms:
            statistics += [_joined([norm.running_mean for norm in own])]  # type: ignore[misc]
            statistics += [_joined([norm.running_var for norm in own])]  # type: ignore[misc]
        outputs = stages_evaluated(x, addend, statistics, weights, parts, sizes, eps)
        return outputs
    if count < 2:
        raise ValueError(f"batch norm needs more than 1 value per channel in training, got {shape}")
    factors = None if factors is None else factors.to(dtype).contiguous()
    *outputs, found = _Stages.apply(len(x), factors, addend, parts, sizes, eps, *x, *weights)
    start = 0
    for own in norms:
        width = sum(norm.num_features for norm in own)
        for norm in own:
            end = start + norm.num_features
            norm.track(found[start:end], found[start + width : end + width], count)
            start = end
        start += width
    return outputs


def _checked_shape(
    x: Sequence[Tensor],
    weights: Sequence[Tensor | None],
    sizes: Sequence[int],
    factors: Tensor | None,
    addend: Tensor | None,
) -> tuple[int, ...]:
    """Shape of all outputs together; everything that is read in C has the shape that belongs to it."""
    batch, _, *sides = x[0].shape
    if any((part.shape[0], *part.shape[2:]) != (batch, *sides) for part in x):
        raise ValueError(f"images differ in more than channels: {[tuple(part.shape) for part in x]}")
    channels = sum(part.shape[1] for part in x)
    for depthwise, pointwise in zip(weights[::4], weights[1::4], strict=True):
        assert pointwise is not None
        for weight, own in ((depthwise, 0), (pointwise, 1)):
            if weight is not None and weight.shape[own] != channels:
                raise ValueError(f"{channels} channels do not fit weights of shape {tuple(weight.shape)}")
        channels = pointwise.shape[0]
    shape = output_shapes(x, weights, sizes)[-1]
    if addend is not None and tuple(addend.shape) != shape:
        raise ValueError(f"an addend of shape {tuple(addend.shape)} does not fit an output of shape {shape}")
    if factors is not None and tuple(factors.shape) != (batch,):
        raise ValueError(f"factors of shape {tuple(factors.shape)} do not fit {batch} images")
    return shape


class _Stages(torch.autograd.Function):
    """Outputs, then means and (biased) variances of every stage's norm one after the other."""

    @staticmethod
    def forward(
        ctx: Any,
        inputs: int,
        factors: Tensor | None,
        addend: Tensor | None,
        parts: list[int],
        sizes: list[int],
        eps: list[float],
        *tensors: Tensor | None,
    ) -> Any:
        """Of ``tensors`` the first are the images, as many as ``inputs`` says, the others the weights."""
        x, weights = list(tensors[:inputs]), list(tensors[inputs:])
        made = stages_forward(x, factors, addend, weights, parts, sizes, eps)
        inner = made[len(parts) :]
        ctx.save_for_backward(factors, *inner, *tensors)
        ctx.described = inputs, sizes, eps
        ctx.mark_non_differentiable(inner[-1])
        return (*made[: len(parts)], inner[-1])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        refuse_second_gradient()
        inputs, sizes, eps = ctx.described
        factors, *rest = ctx.saved_tensors
        inner, x, weights = rest[: len(eps) + 1], rest[len(eps) + 1 :][:inputs], rest[len(eps) + 1 + inputs :]
        found = stages_backward(list(gradients[:-1]), x, factors, inner, weights, sizes, eps)
        of_weights = iter(found[inputs:])
        towards_weights = (None if weight is None else next(of_weights) for weight in weights)
        towards_addend = gradients[0] if ctx.needs_input_grad[2] else None
        return None, None, towards_addend, None, None, None, *found[:inputs], *towards_weights
