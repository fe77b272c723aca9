"""The levels of the setting ``speed``: how a network is computed."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

Speed: TypeAlias = Literal["auto", "reference", "fast", "compiled", "max"]
"""Name of a level; ``"auto"`` chooses ``"fast"`` or ``"compiled"``."""


@dataclass(frozen=True)
class Level:
    """One way to compute a network.

    Attributes:
        name: Its name.
        fused: The same float32 mathematics in fewer passes over memory: channels-last tensors on a CPU, fused
            blocks where they are faster than PyTorch's layers, and in evaluation batch norm folded into
            convolutions; the optimiser's fused step.
        compiled: ``torch.compile`` on top; compiled code is kept on disk for the next process.
        mixed: Convolutions and matrix products in bfloat16, except in fused blocks, with float32 weights,
            batch norm, losses and optimiser; on a GPU, CUDA graphs in training.
    """

    name: Speed
    fused: bool
    compiled: bool
    mixed: bool


LEVELS: dict[str, Level] = {
    "reference": Level("reference", fused=False, compiled=False, mixed=False),
    "fast": Level("fast", fused=True, compiled=False, mixed=False),
    "compiled": Level("compiled", fused=True, compiled=True, mixed=False),
    "max": Level("max", fused=True, compiled=True, mixed=True),
}
"""The levels, each faster than the one before where the run is long enough."""

LONG_WORK = 2e13
"""Multiply-adds on a CPU above which compiling pays: about half an hour of two cores, uncompiled."""


def check_speed(speed: str) -> None:
    """Refuse a level that does not exist.

    Raises:
        ValueError: Naming the levels.
    """
    if speed not in get_args(Speed):
        raise ValueError(f"`speed` (={speed!r}) must be one of {', '.join(map(repr, get_args(Speed)))}")


def level_of(speed: Speed, device_type: str, *, work: float | int) -> Level:
    """The level that a setting means for a piece of work.

    ``"auto"`` is ``"compiled"`` on a CPU with so much work that compiling pays for itself, otherwise
    ``"fast"``. On a GPU it never compiles: on the one that was measured, compiled training steps took longer
    than plain ones (docs/performance.md).

    Args:
        speed: The setting.
        device_type: ``"cpu"``, ``"cuda"`` or another.
        work: Multiply-adds of all its passes.

    Returns:
        The level.

    Raises:
        ValueError: If the level does not exist, or needs a compiler that this machine does not have.

    Example:
        >>> level_of("auto", "cpu", work=1e9).name
        'fast'
    """
    check_speed(speed)
    if speed == "auto":
        pays = device_type == "cpu" and work >= LONG_WORK and _has_compiler()
        return LEVELS["compiled" if pays else "fast"]
    level = LEVELS[speed]
    if level.compiled and not _has_compiler():
        raise ValueError(
            f"`speed` (={speed!r}) needs a C++ compiler, such as g++, and none is found: install one, name it"
            " in the environment variable CXX, or choose 'fast'"
        )
    return level


def _has_compiler() -> bool:
    """Whether torch.compile finds a C++ compiler, which it needs on a GPU too."""
    return any(shutil.which(name) for name in (os.environ.get("CXX", ""), "g++", "clang++", "c++") if name)
