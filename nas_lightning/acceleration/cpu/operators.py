"""Torch's operators for what ``stages.c`` computes: stages of convolution and batch norm, and max pooling.

The operators are a CPU's, take and return channels-last images, and have no gradients of their own. Shapes
are for the caller to check. What several of them take:

- ``x``: the images, ``[batch, channels, height, width]``, maybe in parts with some of the channels each;
- ``weights``: of every stage, the depthwise convolution's ``[channels, 1, kernel, kernel]`` or None, the 1x1
  convolution's ``[outputs, channels, 1, 1]``, the norm's weight and bias ``[outputs]``;
- ``sizes``: of every stage, stride and dilation; ``eps``: of every stage's norm;
- ``parts``: channels of every output, which are together those of the last stage;
- ``factors``: of every image's output, ``[batch]``; ``addend``: added to the output, of its shape;
- ``window``: size, stride and padding of a pooling, in pixels.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, library

from nas_lightning.acceleration.cpu.library import stage_library


def _operator(schema: str, fake: Callable[..., object]) -> Callable[[Callable[..., object]], Any]:
    """Make a function an operator of torch, with one that only makes room for what it returns.

    It is defined one level below torch's decorator for operators, whose checks at every call take longer
    than the stages of small images.
    """

    def define(function: Callable[..., object]) -> Any:
        name = schema[: schema.index("(")]
        _operators.define(schema)  # type: ignore[no-untyped-call]
        library.impl(_operators, name, "CPU")(torch.compiler.disable(function))  # type: ignore[no-untyped-call]
        library.register_fake(f"nas_lightning::{name}", fake)
        return getattr(torch.ops.nas_lightning, name).default

    return define


_operators = library.Library("nas_lightning", "FRAGMENT")  # type: ignore[no-untyped-call]
_STAGES = "Tensor?[] weights, int[] parts, int[] sizes, float[] eps"


def _room_forward(
    x: Any, factors: Any, addend: Any, weights: Any, parts: Any, sizes: Any, eps: Any
) -> list[Tensor]:
    outputs, ys, statistics = _room(x, weights, parts, sizes)
    return [*outputs, *ys, statistics]


@_operator(f"stages(Tensor[] x, Tensor? factors, Tensor? addend, {_STAGES}) -> Tensor[]", _room_forward)
def stages_forward(
    x: Sequence[Tensor],
    factors: Tensor | None,
    addend: Tensor | None,
    weights: Sequence[Tensor | None],
    parts: Sequence[int],
    sizes: Sequence[int],
    eps: Sequence[float],
) -> list[Tensor]:
    """The outputs, what comes out of every 1x1 convolution, and the statistics of all of these."""
    x, sources = _arranged(x)
    outputs, ys, statistics = _room(x, weights, parts, sizes)
    addend = None if addend is None else addend.contiguous(memory_format=torch.channels_last)
    stages = _packed(x, weights, sizes, eps, ys, _addresses(statistics, ys), factors=factors, addend=addend)
    _loaded(x[0]).stages_forward(stages, len(eps), sources, _arranged(outputs)[1])
    return [*outputs, *ys, statistics]


def _room_evaluated(
    x: Any, addend: Any, statistics: Any, weights: Any, parts: Any, sizes: Any, eps: Any
) -> list[Tensor]:
    return _empty_outputs(x, weights, parts, sizes)


@_operator(
    f"stages_evaluated(Tensor[] x, Tensor? addend, Tensor[] statistics, {_STAGES}) -> Tensor[]",
    _room_evaluated,
)
def stages_evaluated(
    x: Sequence[Tensor],
    addend: Tensor | None,
    statistics: Sequence[Tensor],
    weights: Sequence[Tensor | None],
    parts: Sequence[int],
    sizes: Sequence[int],
    eps: Sequence[float],
) -> list[Tensor]:
    """The outputs, with the statistics that are given."""
    x, sources = _arranged(x)
    outputs = _empty_outputs(x, weights, parts, sizes)
    addend = None if addend is None else addend.contiguous(memory_format=torch.channels_last)
    means = [value.data_ptr() for value in statistics]
    stages = _packed(x, weights, sizes, eps, [None] * len(eps), means, addend=addend)
    _loaded(x[0]).stages_evaluate(stages, len(eps), sources, _arranged(outputs)[1])
    return outputs


def _room_backward(
    gradients: Any, x: Any, factors: Any, inner: Any, weights: Any, sizes: Any, eps: Any
) -> list[Tensor]:
    towards_x = [torch.empty_like(part, memory_format=torch.channels_last) for part in x]
    return [*towards_x, *(torch.empty_like(weight) for weight in weights if weight is not None)]


@_operator(
    "stages_backward(Tensor[] gradients, Tensor[] x, Tensor? factors, Tensor[] inner, Tensor?[] weights,"
    " int[] sizes, float[] eps) -> Tensor[]",
    _room_backward,
)
def stages_backward(
    gradients: Sequence[Tensor],
    x: Sequence[Tensor],
    factors: Tensor | None,
    inner: Sequence[Tensor],
    weights: Sequence[Tensor | None],
    sizes: Sequence[int],
    eps: Sequence[float],
) -> list[Tensor]:
    """Gradients of the inputs and of every weight there is."""
    x, sources = _arranged(x)
    gradients, arriving = _arranged(gradients)
    *ys, statistics = inner
    towards_x = [torch.empty_like(part, memory_format=torch.channels_last) for part in x]
    towards = [None if weight is None else torch.empty_like(weight) for weight in weights]
    between = [*map(torch.empty_like, ys[:-1]), None]
    means = _addresses(statistics, ys)
    stages = _packed(x, weights, sizes, eps, ys, means, towards, between, factors=factors)
    _loaded(x[0]).stages_backward(stages, len(eps), sources, arriving, _arranged(towards_x)[1])
    return [*towards_x, *(gradient for gradient in towards if gradient is not None)]


def _room_pooled(x: Tensor, window: Sequence[int], with_places: bool) -> tuple[Tensor, Tensor]:
    size, stride, padding = window
    batch, channels, *sides = x.shape
    height, width = ((side + 2 * padding - size) // stride + 1 for side in sides)
    shape = (batch, channels, height, width)
    places = _empty(shape if with_places else (0, 0, 0, 0), x, torch.uint8)
    return _empty(shape, x), places


@_operator("max_pool(Tensor x, int[] window, bool with_places) -> (Tensor, Tensor)", _room_pooled)
def max_pool(x: Tensor, window: Sequence[int], with_places: bool) -> tuple[Tensor, Tensor]:
    """The largest of every window (size, stride, padding), and where in it that is, if asked for."""
    x = x.contiguous(memory_format=torch.channels_last)
    output, places = _room_pooled(x, window, with_places)
    at = places.data_ptr() if with_places else None
    _loaded(x).max_pool(_packed_window(x, output, window), x.data_ptr(), output.data_ptr(), at)
    return output, places


def _room_unpooled(gradient: Tensor, places: Any, shape: Any, window: Any) -> Tensor:
    return _empty(tuple(shape), gradient)


@_operator(
    "max_pool_backward(Tensor gradient, Tensor places, int[] shape, int[] window) -> Tensor", _room_unpooled
)
def max_pool_backward(
    gradient: Tensor, places: Tensor, shape: Sequence[int], window: Sequence[int]
) -> Tensor:
    """Gradient of images of a shape."""
    gradient = gradient.contiguous(memory_format=torch.channels_last)
    towards_x = _empty(tuple(shape), gradient)
    pointers = (gradient.data_ptr(), places.data_ptr(), towards_x.data_ptr())
    _loaded(gradient).max_pool_backward(_packed_window(towards_x, gradient, window), *pointers)
    return towards_x


def refuse_second_gradient() -> None:
    """Say so in a backward pass whose own gradient is wanted: what is computed in C has none."""
    if torch.is_grad_enabled() and not torch.compiler.is_compiling():
        raise RuntimeError(
            "a gradient of gradients cannot be had of what is computed in one pass: choose speed 'reference'"
        )


def output_shapes(
    x: Sequence[Tensor], weights: Sequence[Tensor | None], sizes: Sequence[int]
) -> list[tuple[int, int, int, int]]:
    """Of what comes out of every stage."""
    shapes = []
    batch, _, height, width = x[0].shape
    for norm, stride in zip(weights[2::4], sizes[::2], strict=True):
        assert norm is not None
        height, width = (height + stride - 1) // stride, (width + stride - 1) // stride
        shapes.append((batch, norm.shape[0], height, width))
    return shapes


def _empty(shape: tuple[int, ...], like: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    dtype = dtype or like.dtype
    return torch.empty(shape, dtype=dtype, device=like.device, memory_format=torch.channels_last)


def _empty_outputs(
    x: Sequence[Tensor], weights: Sequence[Tensor | None], parts: Sequence[int], sizes: Sequence[int]
) -> list[Tensor]:
    batch, _, height, width = output_shapes(x, weights, sizes)[-1]
    return [_empty((batch, channels, height, width), x[0]) for channels in parts]


def _room(
    x: Sequence[Tensor], weights: Sequence[Tensor | None], parts: Sequence[int], sizes: Sequence[int]
) -> tuple[list[Tensor], list[Tensor], Tensor]:
    """For the outputs, for what comes out of every 1x1 convolution, and for the statistics of these."""
    ys = [_empty(shape, x[0]) for shape in output_shapes(x, weights, sizes)]
    statistics = ys[0].new_empty(2 * sum(y.shape[1] for y in ys))
    return _empty_outputs(x, weights, parts, sizes), ys, statistics


def _addresses(statistics: Tensor, ys: Sequence[Tensor]) -> list[int]:
    """Where mean and variance of every stage are."""
    at, addresses = statistics.data_ptr(), []
    for y in ys:
        size = y.shape[1] * y.itemsize
        addresses += [at, at + size]
        at += 2 * size
    return addresses


def _arranged(images: Sequence[Tensor]) -> tuple[list[Tensor], bytes]:
    """Images channels-last, maybe some channels of wider ones, and ``part`` of ``stages.c`` for each."""
    arranged, packed = [], []
    for one in images:
        _, channels, height, width = one.shape
        step = one.stride(3)
        if step < channels or one.stride() != (height * width * step, 1, width * step, step):
            one, step = one.contiguous(memory_format=torch.channels_last), channels
        arranged.append(one)
        packed += [channels, step, one.data_ptr()]
    return arranged, struct.pack(f"@{len(packed) + 3}q", *packed, 0, 0, 0)


_STAGE = struct.Struct("@9q d 14P")
"""``stage`` of ``stages.c``."""


def _packed(
    x: Sequence[Tensor],
    weights: Sequence[Tensor | None],
    sizes: Sequence[int],
    eps: Sequence[float],
    ys: Sequence[Tensor | None],
    means: Sequence[int],
    towards: Sequence[Tensor | None] = (),
    between: Sequence[Tensor | None] = (),
    *,
    factors: Tensor | None = None,
    addend: Tensor | None = None,
) -> bytes:
    """The stages as C sees them; the tensors must outlive them."""
    packed = []
    batch, _, *sides = x[0].shape
    channels, threads, last = sum(part.shape[1] for part in x), torch.get_num_threads(), len(eps) - 1
    shapes = output_shapes(x, weights, sizes)
    for index, own_eps in enumerate(eps):
        own = weights[4 * index : 4 * index + 4]
        depthwise, pointwise, *_ = own
        assert pointwise is not None
        stride, dilation = sizes[2 * index : 2 * index + 2]
        kernel = 0 if depthwise is None else depthwise.shape[-1]
        outputs = shapes[index][1]
        packed.append(
            _STAGE.pack(
                *(batch, *sides, channels, outputs, kernel, stride, dilation, threads, own_eps),
                *map(_address, own),
                *(_address(ys[index]), means[2 * index], means[2 * index + 1]),
                *(_address(factors), _address(addend)) if index == last else (0, 0),
                _address(between[index] if between else None),
                *map(_address, towards[4 * index : 4 * index + 4] or (None,) * 4),
            )
        )
        channels, sides = outputs, list(shapes[index][2:])
    return b"".join(packed)


def _address(value: Tensor | None) -> int:
    return 0 if value is None else value.data_ptr()


def _packed_window(x: Tensor, output: Tensor, window: Sequence[int]) -> bytes:
    """``window`` of ``stage_pooling.h``."""
    batch, channels, height, width = x.shape
    sizes = (batch, height, width, channels, *window, *output.shape[2:], torch.get_num_threads())
    return struct.pack("@10q", *sizes)


def _loaded(x: Tensor) -> Any:
    loaded = stage_library(x.dtype)
    assert loaded is not None, "can_compute_stages() was not asked"
    return loaded
