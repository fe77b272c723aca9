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

from nas_lightning.acceleration.cpu.build import instruction_set, kernel_library
from nas_lightning.acceleration.cpu.fused_blocks import Block, fused_blocks, fused_projections
from nas_lightning.acceleration.cpu.pooling import max_pool
from nas_lightning.files import atomic_write
from nas_lightning.private_files import cache_folder
from nas_lightning.provenance import processor, processor_name

SEPARABLE, PROJECTION, MAX_POOLING = "separable convolutions", "projections", "max pooling"
KINDS = frozenset({SEPARABLE, PROJECTION, MAX_POOLING})
"""Kinds of fused kernels, each of which has PyTorch's layers as an alternative."""

Pair = tuple[Callable[[], object], Callable[[], object]]
"""The same computation by PyTorch's layers and by the kernels."""

_BUDGET = 0.15
"""Seconds for a pair, of which there are four, unless three calls of each take longer."""


@dataclass(frozen=True)
class Choice:
    """What was measured, and what follows.

    Attributes:
        kinds: The kinds whose fused kernels are at least as fast as PyTorch's layers.
        ratios: Time of PyTorch's layers divided by that of the kernels, by kind; empty without a library.
        reason: One line for the log.
    """

    kinds: frozenset[str]
    ratios: dict[str, float]
    reason: str


def choose_kernels(dtype: torch.dtype, *, training: bool, channels: int, image_size: int = 32) -> Choice:
    """The kinds of kernels that compute a network faster on this machine than PyTorch's layers do.

    Timed are separable convolutions in the first cell and behind two reductions (four times the channels, a
    quarter of the side), a projection of four nodes, and max pooling: forward and backward in training; in
    evaluation forward alone, against layers with their norms folded away. Layers and kernels alternate, and
    the least time of each counts: CPU seconds of one thread, wall seconds of several. It takes less than a
    second, and the result is kept beside the library, by CPU, library (its compiler, flags and sources),
    version of torch, number of threads and the arguments. Of several processes one measures while the
    others wait. The first call in a process logs the choice.
    """
    march = instruction_set(dtype)
    return _choice(dtype, training, channels, max(image_size, 4), torch.get_num_threads(), march)


@cache
def _choice(
    dtype: torch.dtype, training: bool, channels: int, image_size: int, threads: int, march: str
) -> Choice:
    work = f"CPU {'training' if training else 'evaluation'} in {str(dtype).removeprefix('torch.')}"
    library = kernel_library(dtype)
    if library is None:
        return Choice(frozenset(), {}, f"{work}: PyTorch's layers, as there are no kernels")
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
    ratios = {kind: layers / fused for kind, (layers, fused) in seconds.items()}
    kinds = frozenset(kind for kind, ratio in ratios.items() if ratio >= 1)
    results = ", ".join(f"{kind} {r:.2f} ({'fused' if r >= 1 else 'layers'})" for kind, r in ratios.items())
    machine = f"{processor_name()}, {march}, {threads} thread{'' if threads == 1 else 's'}"
    reason = f"{work}, fused kernels' speed over PyTorch's layers: {results}; {machine}"
    _log(reason)
    return Choice(kinds, ratios, reason)


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
    return seconds if seconds.keys() == KINDS and is_valid else None


def _measure(
    dtype: torch.dtype, training: bool, channels: int, image_size: int
) -> dict[str, tuple[float, float]]:
    """Seconds of layers and of kernels by kind."""
    with _undisturbed(training):
        late = _least_seconds(_separable(dtype, training, 4 * channels, image_size // 4))
        early = _least_seconds(_separable(dtype, training, channels, image_size))
        return {
            SEPARABLE: (early[0] + late[0], early[1] + late[1]),
            PROJECTION: _least_seconds(_projection(dtype, training, channels, image_size)),
            MAX_POOLING: _least_seconds(_pooling(dtype, training, channels, image_size)),
        }


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
    ):
        yield


def _images(dtype: torch.dtype, training: bool, channels: int, size: int, count: int = 1) -> list[Tensor]:
    """``count`` batches, whose images are few enough for the budget and as many as the threads at least."""
    work = 6 * size * size * channels * (9 + channels)
    batch = torch.get_num_threads() * min(max(50_000_000 // work, 1), 64)
    x = torch.randn(count, batch, size, size, channels, dtype=dtype, device="cpu").permute(0, 1, 4, 2, 3)
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
        return nn.Sequential(*modules).to("cpu", dtype).train(training)

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
        return (
            nn.Sequential(nn.ReLU(), convolution, nn.BatchNorm2d(channels)).to("cpu", dtype).train(training)
        )

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
