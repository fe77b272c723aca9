"""How a network is computed, not what: the levels of the setting ``speed``."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

Speed: TypeAlias = Literal["auto", "reference", "fast", "compiled", "max"]
"""Name of a level; ``"auto"`` chooses ``"fast"`` or ``"compiled"``."""


@dataclass(frozen=True)
class Level:
    """What a level of speed does.

    Attributes:
        name: Its name.
        rearranged: The same float32 mathematics in another order: channels-last tensors on a CPU and, with a
            C compiler, convolutions and batch norm in one pass over memory; where nothing is trained, other
            batch norm folded into convolutions; the optimiser's fused step.
        compiled: The network compiled by ``torch.compile``; what is compiled is kept on disk for the next
            process.
        mixed: Convolutions and matrix products in bfloat16 (but those in one pass) with float32 weights,
            batch norm, losses and optimiser; in training on a GPU, CUDA graphs.
    """

    name: Speed
    rearranged: bool
    compiled: bool
    mixed: bool


LEVELS: dict[str, Level] = {
    "reference": Level("reference", rearranged=False, compiled=False, mixed=False),
    "fast": Level("fast", rearranged=True, compiled=False, mixed=False),
    "compiled": Level("compiled", rearranged=True, compiled=True, mixed=False),
    "max": Level("max", rearranged=True, compiled=True, mixed=True),
}
"""The levels, each faster than the one before where the run is long enough."""

LONG_WORK = 2e13
"""Multiply-adds on a CPU above which compiling is repaid: about half an hour of two cores, uncompiled."""

LONG_PASSES = 20_000
"""Passes on a GPU, forward alone or forward and backward, above which compiling is repaid."""


def check_speed(speed: str) -> None:
    """Refuse a level that does not exist.

    Args:
        speed: The setting.

    Raises:
        ValueError: Naming the levels.
    """
    if speed not in get_args(Speed):
        raise ValueError(f"`speed` (={speed!r}) must be one of {', '.join(map(repr, get_args(Speed)))}")


def level_of(speed: Speed, device_type: str, *, passes: float | int, work: float | int) -> Level:
    """The level that a setting means for a piece of work.

    ``"auto"`` is ``"compiled"`` where compiling is repaid, by the work on a CPU, which is limited by
    arithmetic and memory, and by the number of passes on a GPU, which is limited by the start of kernels;
    otherwise ``"fast"``.

    Args:
        speed: The setting.
        device_type: ``"cpu"`` or ``"cuda"``; on any other device ``"auto"`` never compiles.
        passes: Passes through the network.
        work: Multiply-adds of all of them.

    Returns:
        The level.

    Raises:
        ValueError: If the level does not exist, or must be compiled and there is no compiler.

    Example:
        >>> level_of("auto", "cpu", passes=100, work=1e9).name
        'fast'
    """
    check_speed(speed)
    if speed == "auto":
        enough = {"cpu": work >= LONG_WORK, "cuda": passes >= LONG_PASSES}
        return LEVELS["compiled" if enough.get(device_type, False) and _has_compiler() else "fast"]
    level = LEVELS[speed]
    if level.compiled and not _has_compiler():
        raise ValueError(
            f"`speed` (={speed!r}) needs a C++ compiler, such as g++, and none is found: install one, name it"
            " in the environment variable CXX, or choose 'fast'"
        )
    return level


def _has_compiler() -> bool:
    """Whether torch.compile finds what it writes C++ for; on a GPU it needs one too."""
    return any(shutil.which(name) for name in (os.environ.get("CXX", ""), "g++", "clang++", "c++") if name)
