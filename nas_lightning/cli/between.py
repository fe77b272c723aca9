"""`nas-lightning landscape --between A.ckpt B.ckpt`: which checkpoints can be compared, and what came out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nas_lightning.callbacks import likeness
from nas_lightning.cli.checkpoint_settings import read_checkpoint_settings
from nas_lightning.cli.run_folder import checkpoint_file
from nas_lightning.cli.tables import table
from nas_lightning.torch_files import read_torch_file

if TYPE_CHECKING:
    import xarray as xr

KEY = "between"
"""The setting that names the checkpoints, for messages."""


def between_files(given: Sequence[str]) -> list[Path]:
    """The checkpoints that `between` names; the folder of a run stands for its ``last.ckpt``.

    Raises:
        FileNotFoundError: If a folder is no run.
        ValueError: If there are fewer than two, or one twice.
    """
    paths = [checkpoint_file(Path(path)) for path in given]
    if len(paths) < 2:
        raise ValueError(f"`{KEY}` (={' '.join(given)}) must be two checkpoints or more")
    found = [path.resolve() for path in paths]
    for path in paths:
        if found.count(path.resolve()) > 1:
            raise ValueError(f"`{KEY}` (={' '.join(given)}) has {path} twice: there is no line between them")
    return paths


def check_alike(paths: Sequence[Path]) -> None:
    """Refuse checkpoints of different cells, sizes, classes or data.

    Seeds, batch sizes, epochs, optimisers and augmentation may differ.

    Raises:
        FileNotFoundError: If one is no file.
        ValueError: If one is damaged, no checkpoint of this program, or unlike the first: the message names
            both and the first difference.
    """
    for path in paths:
        read_checkpoint_settings(path, key=KEY)
    first, *others = (likeness.common_facts(read_torch_file(path, KEY, mmap=True)) for path in paths)
    for path, other in zip(paths[1:], others, strict=True):
        likeness.check_alike(first, other, (f"`{KEY}`: {paths[0]}", path), "a line is between networks")


def barrier_table(dataset: xr.Dataset) -> str:
    """The barriers of every pair and split; of several pairs also mean and standard deviation.

    Args:
        dataset: A complete file of an interpolation.
    """
    labels = json.loads(str(dataset.attrs["labels"]))
    names = ("barrier", "accuracy_barrier")
    rows: list[list[str]] = []
    for split in str(dataset.attrs["splits"]).split(", "):
        found = [dataset[f"{split}_{name}"].values for name in names]
        where = [dataset[f"{split}_{name}_position"].values for name in names]
        for number, (first, second) in enumerate(labels):
            row = [f"{first} to {second}", split]
            for heights, places in zip(found, where, strict=True):
                row += [f"{heights[number]:.4g}", f"{places[number]:.2f}"]
            rows.append(row)
        if len(labels) > 1:
            with np.errstate(invalid="ignore"):
                for words, statistic in (("mean", np.mean), ("sd", lambda v: np.std(v, ddof=1))):
                    values = [f"{statistic(heights):.4g}" for heights in found]
                    rows.append([f"{words} of {len(labels)} pairs", split, values[0], "", values[1], ""])
    header = ["between", "split", "barrier", "at t", "accuracy barrier", "at t"]
    return table(header, rows, left=2)
