"""The last lines of a command: what came out, where it is, what to do next."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

PROGRAM = "nas-lightning"
PICTURED = (
    "loss_contour",
    "gradient_variance",
    "loss_profile",
    "curvature_map",
    "block_curvature",
    "loss_line",
    "interpolation",
    "trajectory",
    "trajectories",
    "spectral_density",
    "mode_connectivity",
)
"""Beginnings of the names of files that `nas-lightning plot` draws, the first drawn first."""


def closing_block(
    result: str, place: Path | str, commands: Sequence[Sequence[str]] = (), *, kind: str = "folder"
) -> str:
    """The block, with an empty line before it; ``kind`` says what the place is, in at most seven letters.

    Examples:
        >>> print(closing_block("2 of 2 runs finished", "logs/a b", [["nas-lightning", "plot", "x y.nc"]]))
        <BLANKLINE>
        result  2 of 2 runs finished
        folder  logs/a b
        next    nas-lightning plot 'x y.nc'
    """
    lines = ["", f"result  {result}", f"{kind:<8}{place}"]
    for index, command in enumerate(commands):
        lines.append(f"{'' if index else 'next':<8}{shlex.join(map(str, command))}")
    return "\n".join(lines)


def say_end(
    result: str, place: Path | str, commands: Sequence[Sequence[str]] = (), *, kind: str = "folder"
) -> None:
    """Print the block, after everything that was printed before; ``commands`` are of this program."""
    sys.stderr.flush()
    typed = [[_program(), *command] for command in commands]
    print(closing_block(result, place, typed, kind=kind), flush=True)


def _program() -> str:
    """What the user types for this program: its path where it is not on the PATH."""
    is_script = Path(sys.argv[0]).name == PROGRAM
    return sys.argv[0] if is_script and shutil.which(PROGRAM) is None else PROGRAM


def fit_end(folder: Path) -> tuple[str, list[list[str]]]:
    """Result of a finished training in words, of its ``result.json``, and what to do next."""
    result: dict[str, Any] = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    split = result["evaluation_split"]
    epochs = int(result["epochs"])
    said = metrics_text(result["final"], split)
    text = f"{said} after " if said else "after "
    text += f"{epochs} epoch{'s' * (epochs != 1)}"
    ended = result.get("ended")  # results of older versions have none
    if ended and not ended.startswith("all "):
        text += f"; {ended}"
    pictures = landscape_files(folder / "landscape")
    checkpoint = folder / "checkpoints" / "last.ckpt"
    commands = [["plot", str(pictures[0])]] if pictures else []
    is_curve = "model.ends" in result.get("settings", {})  # between two networks: no other command takes it
    if checkpoint.is_file() and not pictures and not is_curve:
        commands.append(["landscape", "--ckpt_path", str(checkpoint)])
    return text, commands


def metrics_text(metrics: Mapping[str, Any], split: str) -> str:
    """Accuracies and loss of a split in words; empty where there are none.

    Examples:
        >>> metrics_text({"loss/test": 0.09, "accuracy/test": 0.975}, "test")
        'accuracy 0.9750, loss 0.0900 on the test split'
    """
    said = [
        f"{name.replace('_', ' ')} {float(metrics[f'{name}/{split}']):.4f}"
        for name in ("accuracy", "balanced_accuracy", "loss")
        if f"{name}/{split}" in metrics
    ]
    return f"{', '.join(said)} on the {split} split" if said else ""


def landscape_files(folder: Path) -> list[Path]:
    """Files that can be drawn, contours first, of each kind the latest epoch first."""
    return [path for kind in PICTURED for path in sorted(folder.glob(f"{kind}*.nc"), reverse=True)]
