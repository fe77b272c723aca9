"""The kernels of ``fused_blocks.c`` as operators of torch.

They run on a CPU, take and return channels-last images, and have no gradients of their own. The caller checks
shapes. Arguments that several operators share:

- ``x``: the images, ``[batch, channels, height, width]``, perhaps as several tensors of some channels each;
- ``weights``: of every block, the depthwise convolution's ``[channels, 1, kernel, kernel]`` or None, the 1x1
  convolution's ``[outputs, channels, 1, 1]``, the norm's weight and bias ``[outputs]``;
- ``sizes``: of every block, stride and dilation; ``eps``: of every block's norm;
- ``parts``: channels of every output tensor, which together are those of the last block;
- ``factors``: of every image's output, ``[batch]``; ``addend``: added to the output, of its shape;
- ``window``: size, stride and padding of a pooling, in pixels.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, library

from nas_lightning.acceleration.cpu.build import kernel_library


def _operator(schema: str, fake: Callable[..., object]) -> Callable[[Callable[..., object]], Any]:
    """Make a function an operator of torch; ``fake`` only allocates what it returns.

    The operator is defined one level below torch's decorator, whose checks at every call take longer than
    the blocks of small images.
    """

    def define(function: Callable[..., object]) -> Any:
        name = schema[: schema.index("(")]
        _operators.define(schema)  # type: ignore[no-untyped-call]
        library.impl(_operators, name, "CPU")(torch.compiler.disable(function))  # type: ignore[no-untyped-call]
        library.register_fake(f"nas_lightning::{name}", fake)
        return getattr(torch.ops.nas_lightning, name).default

    return define


_operators = library.Library("nas_lightning", "FRAGMENT")  # type: ignore[no-untyped-call]
_BLOCKS = "Tensor?[] weights, int[] parts, int[] sizes, float[] eps"


def _fake_forward(
    x: Any, factors: Any, addend: Any, weights: Any, parts: Any, sizes: Any, eps: Any
) -> list[Tensor]:
    outputs, ys, statistics = _allocate(x, weights, parts, sizes)
    return [*outputs, *ys, statistics]


@_operator(
    f"fused_blocks_forward(Tensor[] x, Tensor? factors, Tensor? addend, {_BLOCKS}) -> Tensor[]", _fake_forward
)
def blocks_forward(
    x: Sequence[Tensor],
    factors: Tensor | None,
    addend: Tensor | None,
    weights: Sequence[Tensor | None],
    parts: Sequence[int],
    sizes: Sequence[int],
    eps: Sequence[float],
) -> list[Tensor]:
    """The outputs, the input of every norm, and the norms' statistics (mean, biased variance of each)."""
    x, sources = _channels_last_parts(x)
    outputs, ys, statistics = _allocate(x, weights, parts, sizes)
    addend = None if addend is None else addend.contiguous(memory_format=torch.channels_last)
    means = _statistics_addresses(statistics, ys)
    blocks = _pack_blocks(x, weights, sizes, eps, ys, means, factors=factors, addend=addend)
    _library(x[0]).blocks_forward(blocks, len(eps), sources, _channels_last_parts(outputs)[1])
    return [*outputs, *ys, statistics]


def _fake_evaluation(
    x: Any, addend: Any, statistics: Any, weights: Any, parts: Any, sizes: Any, eps: Any
) -> list[Tensor]:
    return _empty_outputs(x, weights, parts, sizes)


@_operator(
    f"fused_blocks_evaluation(Tensor[] x, Tensor? addend, Tensor[] statistics, {_BLOCKS}) -> Tensor[]",
    _fake_evaluation,
)
def blocks_evaluation(
    x: Sequence[Tensor],
    addend: Tensor | None,
    statistics: Sequence[Tensor],
    weights: Sequence[Tensor | None],
    parts: Sequence[int],
    sizes: Sequence[int],
    eps: Sequence[float],
) -> list[Tensor]:
    """The outputs, with the statistics that are given."""
    x, sources = _channels_last_parts(x)
    outputs = _empty_outputs(x, weights, parts, sizes)
    addend = None if addend is None else addend.contiguous(memory_format=torch.channels_last)
    means = [value.data_ptr() for value in statistics]
    blocks = _pack_blocks(x, weights, sizes, eps, [None] * len(eps), means, addend=addend)
    _library(x[0]).blocks_evaluate(blocks, len(eps), sources, _channels_last_parts(outputs)[1])
    return outputs


def _fake_backward(
    gradients: Any, x: Any, factors: Any, saved: Any, weights: Any, sizes: Any, eps: Any
) -> list[Tensor]:
    grad_x = [torch.empty_like(part, memory_format=torch.channels_last) for part in x]
    return [*grad_x, *(torch.empty_like(weight) for weight in weights if weight is not None)]


@_operator(
    "fused_blocks_backward(Tensor[] gradients, Tensor[] x, Tensor? factors, Tensor[] saved,"
    " Tensor?[] weights, int[] sizes, float[] eps) -> Tensor[]",
    _fake_backward,
)
def blocks_backward(
    gradients: Sequence[Tensor],
    x: Sequence[Tensor],
    factors: Tensor | None,
    saved: Sequence[Tensor],
    weights: Sequence[Tensor | None],
    sizes: Sequence[int],
    eps: Sequence[float],
) -> list[Tensor]:
    """Gradients of the images and of every weight; ``saved`` are the norms' inputs and their statistics."""
    x, sources = _channels_last_parts(x)
    gradients, incoming = _channels_last_parts(gradients)
    *ys, statistics = saved
    grad_x = [torch.empty_like(part, memory_format=torch.channels_last) for part in x]
    grad_weights = [None if weight is None else torch.empty_like(weight) for weight in weights]
    grad_outputs = [*map(torch.empty_like, ys[:-1]), None]
    means = _statistics_addresses(statistics, ys)
    blocks = _pack_blocks(
        x,
        weights,
        sizes,
        eps,
        ys,
        means,
        factors=factors,
        grad_weights=grad_weights,
        grad_outputs=grad_outputs,
    )
    _library(x[0]).blocks_backward(blocks, len(eps), sources, incoming, _channels_last_parts(grad_x)[1])
    return [*grad_x, *(gradient for gradient in grad_weights if gradient is not None)]


def _fake_max_pool(x: Tensor, window: Sequence[int], with_indices: bool) -> tuple[Tensor, Tensor]:
    size, stride, padding = window
    batch, channels, *sides = x.shape
    height, width = ((side + 2 * padding - size) // stride + 1 for side in sides)
    shape = (batch, channels, height, width)
    indices = _empty(shape if with_indices else (0, 0, 0, 0), x, torch.uint8)
    return _empty(shape, x), indices


@_operator("max_pool(Tensor x, int[] window, bool with_indices) -> (Tensor, Tensor)", _fake_max_pool)
def max_pool(x: Tensor, window: Sequence[int], with_indices: bool) -> tuple[Tensor, Tensor]:
    """The maximum of every window, and its index in the window if asked for."""
    x = x.contiguous(memory_format=torch.channels_last)
    output, indices = _fake_max_pool(x, window, with_indices)
    pointers = (x.data_ptr(), output.data_ptr(), indices.data_ptr() if with_indices else None)
    _library(x).max_pool(_pack_window(x, output, window), *pointers)
    return output, indices


def _fake_max_pool_backward(gradient: Tensor, indices: Any, shape: Any, window: Any) -> Tensor:
    return _empty(tuple(shape), gradient)


@_operator(
    "max_pool_backward(Tensor gradient, Tensor indices, int[] shape, int[] window) -> Tensor",
    _fake_max_pool_backward,
)
def max_pool_backward(
    gradient: Tensor, indices: Tensor, shape: Sequence[int], window: Sequence[int]
) -> Tensor:
    """Gradient of images of a shape."""
    gradient = gradient.contiguous(memory_format=torch.channels_last)
    grad_x = _empty(tuple(shape), gradient)
    pointers = (gradient.data_ptr(), indices.data_ptr(), grad_x.data_ptr())
    _library(gradient).max_pool_backward(_pack_window(grad_x, gradient, window), *pointers)
    return grad_x


def refuse_second_derivative() -> None:
    """Raise in a backward pass that is recorded for a gradient of its own."""
    if torch.is_grad_enabled() and not torch.compiler.is_compiling():
        raise RuntimeError("Fused blocks have no second derivative. Use `speed='reference'`.")


def output_shapes(
    x: Sequence[Tensor], weights: Sequence[Tensor | None], sizes: Sequence[int]
) -> list[tuple[int, int, int, int]]:
    """Shape of every block's output."""
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


def _allocate(
    x: Sequence[Tensor], weights: Sequence[Tensor | None], parts: Sequence[int], sizes: Sequence[int]
) -> tuple[list[Tensor], list[Tensor], Tensor]:
    """The outputs, every norm's input, and the norms' statistics, uninitialised."""
    ys = [_empty(shape, x[0]) for shape in output_shapes(x, weights, sizes)]
    statistics = ys[0].new_empty(2 * sum(y.shape[1] for y in ys))
    return _empty_outputs(x, weights, parts, sizes), ys, statistics


def _statistics_addresses(statistics: Tensor, ys: Sequence[Tensor]) -> list[int]:
    """Addresses of every block's mean and variance."""
    address, addresses = statistics.data_ptr(), []
    for y in ys:
        size = y.shape[1] * y.itemsize
        addresses += [address, address + size]
        address += 2 * size
    return addresses


def _channels_last_parts(images: Sequence[Tensor]) -> tuple[list[Tensor], bytes]:
    """Images channels-last, perhaps some channels of wider ones, and ``part`` of C for each."""
    parts, packed = [], []
    for image in images:
        _, channels, height, width = image.shape
        step = image.stride(3)
        if step < channels or image.stride() != (height * width * step, 1, width * step, step):
            image, step = image.contiguous(memory_format=torch.channels_last), channels
        parts.append(image)
        packed += [channels, step, image.data_ptr()]
    return parts, struct.pack(f"@{len(packed) + 3}q", *packed, 0, 0, 0)


_BLOCK = struct.Struct("@9q d 14P")
"""``block`` of ``block_loops.h``."""


def _pack_blocks(
    x: Sequence[Tensor],
    weights: Sequence[Tensor | None],
    sizes: Sequence[int],
    eps: Sequence[float],
    ys: Sequence[Tensor | None],
    means: Sequence[int],
    *,
    factors: Tensor | None = None,
    addend: Tensor | None = None,
    grad_weights: Sequence[Tensor | None] = (),
    grad_outputs: Sequence[Tensor | None] = (),
) -> bytes:
    """The blocks as C sees them; the tensors must outlive them."""
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
            _BLOCK.pack(
                *(batch, *sides, channels, outputs, kernel, stride, dilation, threads, own_eps),
                *map(_address, own),
                *(_address(ys[index]), means[2 * index], means[2 * index + 1]),
                *(_address(factors), _address(addend)) if index == last else (0, 0),
                _address(grad_outputs[index] if grad_outputs else None),
                *map(_address, grad_weights[4 * index : 4 * index + 4] or (None,) * 4),
            )
        )
        channels, sides = outputs, list(shapes[index][2:])
    return b"".join(packed)


def _address(value: Tensor | None) -> int:
    return 0 if value is None else value.data_ptr()


def _pack_window(x: Tensor, output: Tensor, window: Sequence[int]) -> bytes:
    """``window`` of ``pooling.h``."""
    batch, channels, height, width = x.shape
    sizes = (batch, height, width, channels, *window, *output.shape[2:], torch.get_num_threads())
    return struct.pack("@10q", *sizes)


def _library(x: Tensor) -> Any:
    library = kernel_library(x.dtype)
    assert library is not None, "can_fuse() was not asked"
    return library
