"""The two trained networks that a curve of weights connects: read from checkpoints, refused unless alike."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nas_lightning.callbacks.checkpoint_structure import check_structure
from nas_lightning.callbacks.checkpoints import CHECKPOINTS
from nas_lightning.callbacks.likeness import check_alike, common_facts
from nas_lightning.torch_files import read_torch_file

KEY = "model.ends"
"""The setting that names the checkpoints, for messages."""
_PREFIX = "network."


@dataclass(frozen=True)
class CurveEnd:
    """A trained network at one end of a curve.

    Attributes:
        path: Its checkpoint.
        genotype: Its cells, as a literal.
        settings: Those of the module that trained it, by name.
        facts: What both ends must have in common.
        weights: The parameters and buffers of its network, by name.
    """

    path: Path
    genotype: str
    settings: Mapping[str, Any]
    facts: Mapping[str, Any]
    weights: Mapping[str, Tensor]

    def named(self, names: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The weights of some names and shapes; a ValueError names what is missing or not finite."""
        for name, like in names.items():
            found = self.weights.get(name)
            shape = None if found is None else tuple(found.shape)
            if found is None and name.startswith("auxiliary_tower."):
                raise ValueError(
                    f"`{KEY}`: {self.path} has no auxiliary tower: leave `model.auxiliary_weight` out"
                )
            if found is None or shape != tuple(like.shape):
                raise ValueError(
                    f"`{KEY}`: the tensor {name} of {self.path} has shape {shape}, but the network's has"
                    f" {tuple(like.shape)}: it is another network"
                )
            if not bool(found.isfinite().all()):
                raise ValueError(f"`{KEY}`: the tensor {name} of {self.path} holds NaN or infinity")
        return {name: self.weights[name] for name in names}


def holds_curve(checkpoint: Any) -> bool:
    """Whether the content of a checkpoint is a curve between two networks."""
    settings = checkpoint.get("hyper_parameters") if isinstance(checkpoint, Mapping) else None
    return isinstance(settings, Mapping) and "ends" in settings


def end_files(ends: Sequence[str | os.PathLike[str]]) -> list[Path]:
    """The two files that ``model.ends`` names; the folder of a run stands for its ``last.ckpt``.

    Raises:
        ValueError: If there are not two of them, or both are the same file.
    """
    paths = [Path(end) for end in ends]
    if len(paths) != 2:
        raise ValueError(f"`{KEY}` (={[str(end) for end in ends]}) must be two checkpoints: [A.ckpt, B.ckpt]")
    files = [path / CHECKPOINTS / "last.ckpt" if path.is_dir() else path for path in paths]
    if files[0].resolve() == files[1].resolve():
        raise ValueError(f"`{KEY}`: both are {files[0]}: a curve needs two networks")
    return files


def read_ends(ends: Sequence[str | os.PathLike[str]], known: Collection[str]) -> tuple[CurveEnd, CurveEnd]:
    """Read both ends of a curve.

    Args:
        ends: Two checkpoints of a CellClassifier, or folders of runs.
        known: The settings of a CellClassifier, by name.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If one is damaged or no such checkpoint, or genotype, sizes, classes or data differ.
    """
    first, second = (_read(path, known) for path in end_files(ends))
    said = (f"`{KEY}`: {first.path}", second.path)
    check_alike(first.facts, second.facts, said, "the ends of a curve are")
    return first, second


def check_different(first: Mapping[str, Tensor], second: Mapping[str, Tensor], said: str) -> None:
    """Refuse two ends with the same weights."""
    if all(torch.equal(values, second[name]) for name, values in first.items()):
        raise ValueError(f"`{KEY}`: {said} have the same weights: a curve needs two networks")


def _read(path: Path, known: Collection[str]) -> CurveEnd:
    said = f"`{KEY}`: {path}"
    checkpoint: Any = read_torch_file(path, KEY, mmap=True)
    check_structure(said, checkpoint, dict.fromkeys(known))
    weights = {
        name.removeprefix(_PREFIX): values
        for name, values in checkpoint["state_dict"].items()
        if name.startswith(_PREFIX)
    }
    settings = checkpoint.get("hyper_parameters") or {}
    return CurveEnd(path, checkpoint["genotype"], settings, common_facts(checkpoint), weights)
