"""Whether the fused kernels are faster than PyTorch's layers on this machine: measured once, then kept."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from torch import Tensor, nn
from torch.nn import functional

from nas_lightning.acceleration.cpu.fused_blocks import Block, fused_blocks, fused_projections
from nas_lightning.acceleration.cpu.library import (
    cache_folder,
    instruction_set,
    kernel_library,
    processor,
    processor_name,
)
from nas_lightning.acceleration.cpu.pooling import max_pool
from nas_lightning.files import atomic_write

Pair = tuple[Callable[[], object], Callable[[], object]]
"""The same computation by PyTorch's layers and by the kernels."""

_BUDGET = 0.15
"""Seconds for a pair, of which there are four, beyond the three times that each is called at least."""


@dataclass(frozen=True)
class Verdict:
    """What was measured, and what follows.

    Attributes:
        wins: Whether to use the fused kernels.
        ratio: Time of PyTorch's layers divided by that of the kernels, over all kinds; 0 without a library.
        ratios: The same for each kind of kernel.
        reason: One line for the log.
    """

    wins: bool
    ratio: float
    ratios: dict[str, float]
    reason: str


def fused_kernels_win(dtype: torch.dtype, *, training: bool, channels: int, image_size: int = 32) -> Verdict:
    """Whether the kernels compute a network faster than PyTorch's layers.

    Timed are a separable convolution in the first cell and behind two reductions (four times the channels, a
    quarter of the side), a projection of four nodes, and max pooling: forward and backward in training; in
    evaluation forward alone, against layers with their norms folded away. Layers and kernels alternate, and
    the least time of each counts: CPU seconds of one thread, wall seconds of several. It takes less than a
    second, and the result is kept beside the library, by CPU, library (its compiler, flags and sources),
    version of torch, number of threads and the arguments. Of several processes one measures while the
    others wait. The first call in a process logs the verdict.

    Args:
        dtype: Of weights and images.
        training: Whether for training.
        channels: Of the first cell's nodes.
        image_size: Side of the first cell's images, in pixels.

    Returns:
        The verdict; the kernels lose where there is no library of them.
    """
    march = instruction_set(dtype)
    return _verdict(dtype, training, channels, max(image_size, 4), torch.get_num_threads(), march)


@cache
def _verdict(
    dtype: torch.dtype, training: bool, channels: int, image_size: int, threads: int, march: str
) -> Verdict:
    work = f"CPU {'training' if training else 'evaluation'} in {str(dtype).removeprefix('torch.')}"
    library = kernel_library(dtype)
    if library is None:
        return Verdict(False, 0.0, {}, f"{work}: PyTorch's layers, as there are no kernels for them")
    identity = {
        "processor": processor(),
        "library": Path(library._name).name,
        "torch": torch.__version__,
        "threads": threads,
        "dtype": str(dtype),
        "training": training,
        "channels": channels,
        "image_size": image_size,
    }
    seconds = _kept_seconds(identity, lambda: _measure(dtype, training, channels, image_size))
    ratio = sum(layers for layers, _ in seconds.values()) / sum(fused for _, fused in seconds.values())
    machine = f"{processor_name()}, {march}, {threads} thread{'' if threads == 1 else 's'}"
    choice = (
        f"fused kernels, {ratio:.2f} times as fast as PyTorch's layers"
        if ratio >= 1
        else f"PyTorch's layers, as fused kernels take {1 / ratio:.2f} times as long"
    )
    reason = f"{work}: {choice} ({machine})"
    verdict = Verdict(ratio >= 1, ratio, {kind: a / b for kind, (a, b) in seconds.items()}, reason)
    _log(reason)
    return verdict


def _log(line: str) -> None:
    from lightning.pytorch.utilities import rank_zero_info  # not needed where nothing is accelerated

    rank_zero_info(line)


def _kept_seconds(
    identity: dict[str, Any], measure: Callable[[], dict[str, tuple[float, float]]]
) -> dict[str, tuple[float, float]]:
    """What is kept under an identity, or a measurement, kept for the next process if the folder allows."""
    folder = cache_folder()
    digest = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
    path = None if folder is None else folder / f"timings-{digest}.json"
    if path is not None and (kept := _read(path)) is not None:
        return kept
    with ExitStack() as stack:
        if path is not None:
            with suppress(OSError):
                path.parent.mkdir(parents=True, exist_ok=True)
                stack.enter_context(FileLock(path.with_suffix(".lock")))
            if (kept := _read(path)) is not None:  # another process has measured meanwhile
                return kept
        seconds = measure()
        if path is not None:
            with suppress(OSError), atomic_write(path) as file:
                json.dump({"seconds of layers, of kernels": seconds, **identity}, file, indent=2)
    return seconds


def _read(path: Path) -> dict[str, tuple[float, float]] | None:
    """The seconds in a file, or None if it does not exist or is damaged."""
    try:
        kept = json.loads(path.read_text())["seconds of layers, of kernels"]
        seconds = {str(kind): (float(layers), float(fused)) for kind, (layers, fused) in kept.items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    is_valid = all(math.isfinite(value) and value > 0 for pair in seconds.values() for value in pair)
    return seconds if seconds and is_valid else None


def _measure(
    dtype: torch.dtype, training: bool, channels: int, image_size: int
) -> dict[str, tuple[float, float]]:
    """Seconds of layers and of kernels by kind."""
    with _undisturbed(training):
        pairs = {
            "separable convolution": _separable(dtype, training, channels, image_size),
            "separable convolution behind two reductions": _separable(
                dtype, training, 4 * channels, image_size // 4
            ),
            "projection": _projection(dtype, training, channels, image_size),
            "max pooling": _pooling(dtype, training, channels, image_size),
        }
        return {kind: _least_seconds(pair) for kind, pair in pairs.items()}


def _least_seconds(pair: Pair) -> tuple[float, float]:
    """The least time of each of two calls, which alternate after a round of warming up."""
    clock = time.thread_time if torch.get_num_threads() == 1 else time.perf_counter
    least = [math.inf, math.inf]
    start, rounds = time.perf_counter(), 0
    while rounds < 4 or (rounds < 30 and time.perf_counter() - start < _BUDGET):
        for index, call in enumerate(pair):
            before = clock()
            call()
            seconds = max(clock() - before, 1e-9)
            if rounds > 0:
                least[index] = min(least[index], seconds)
        rounds += 1
    return least[0], least[1]


@contextmanager
def _undisturbed(training: bool) -> Iterator[None]:
    """Whatever the caller is doing: its random numbers stay, its modes of autograd and autocast are off."""
    with (
        torch.random.fork_rng(devices=[]),
        torch.inference_mode(False),
        torch.set_grad_enabled(training),
        torch.autocast("cpu", enabled=False),
        torch.device("cpu"),
    ):
        yield


def _images(dtype: torch.dtype, training: bool, channels: int, size: int, count: int = 1) -> list[Tensor]:
    """``count`` batches, whose images are few enough for the budget and as many as the threads at least."""
    work = 6 * size * size * channels * (9 + channels)
    batch = torch.get_num_threads() * min(max(50_000_000 // work, 1), 64)
    x = torch.randn(count, batch, size, size, channels, dtype=dtype).permute(0, 1, 4, 2, 3)
    return [part.detach().requires_grad_(training) for part in x]


def _call(
    compute: Callable[[], Tensor], training: bool, weights: nn.Module, images: list[Tensor]
) -> Callable[[], object]:
    """Forward and, in training, backward."""
    if not training:
        return compute
    wanted = [*images, *weights.parameters()]
    incoming = torch.ones_like(compute())
    return lambda: torch.autograd.grad(compute(), wanted, incoming)


def _folded(layers: nn.Sequential, training: bool) -> nn.Sequential:
    """In evaluation, layers as they are once their norms are folded into biases."""
    if training:
        return layers
    kept: list[nn.Module] = []
    for layer in layers:
        if isinstance(layer, nn.BatchNorm2d):
            convolution = kept[-1]
            assert isinstance(convolution, nn.Conv2d)
            convolution.bias = nn.Parameter(convolution.weight.new_zeros(convolution.out_channels))
        else:
            kept.append(layer)
    return nn.Sequential(*kept)


def _separable(dtype: torch.dtype, training: bool, channels: int, size: int) -> Pair:
    def layers() -> nn.Sequential:
        modules: list[nn.Module] = []
        for _ in range(2):
            depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
            pointwise = nn.Conv2d(channels, channels, 1, bias=False)
            modules += [nn.ReLU(), depthwise, pointwise, nn.BatchNorm2d(channels)]
        return nn.Sequential(*modules).to(dtype).train(training)

    images = _images(dtype, training, channels, size)
    plain, fused = _folded(layers(), training), layers()
    blocks = [Block(fused[1], fused[2], fused[3]), Block(fused[5], fused[6], fused[7])]  # type: ignore[arg-type]
    return (
        _call(lambda: plain(images[0]), training, plain, images),
        _call(lambda: fused_blocks(images, blocks), training, fused, images),
    )


def _projection(dtype: torch.dtype, training: bool, channels: int, size: int) -> Pair:
    def layers() -> nn.Sequential:
        convolution = nn.Conv2d(4 * channels, channels, 1, bias=False)
        return nn.Sequential(nn.ReLU(), convolution, nn.BatchNorm2d(channels)).to(dtype).train(training)

    images = _images(dtype, training, channels, size, 4)
    plain, fused = _folded(layers(), training), layers()
    block = Block(None, fused[1], fused[2])  # type: ignore[arg-type]
    return (
        _call(lambda: plain(torch.cat(images, dim=1)), training, plain, images),
        _call(lambda: fused_projections(images, [block])[0], training, fused, images),
    )


def _pooling(dtype: torch.dtype, training: bool, channels: int, size: int) -> Pair:
    images = _images(dtype, training, channels, size)
    none = nn.Module()
    return (
        _call(lambda: functional.max_pool2d(images[0], 3, 2, 1), training, none, images),
        _call(lambda: max_pool(images[0], 3, 2, 1), training, none, images),
    )
