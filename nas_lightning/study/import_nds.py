"""Reads the JSON files of "On Network Design Spaces for Visual Recognition" (Radosavovic et al., ICCV 2019).

The format is known from two public sources: the notebooks of https://github.com/facebookresearch/nds, and the
converter ``nds`` of https://github.com/microsoft/nni. A file holds a list of trainings, or two lists under
``top`` and ``mid``. A training has

- ``net``: ``genotype`` with ``normal``, ``normal_concat``, ``reduce`` and ``reduce_concat`` (edges as pairs
  of an operation and a node), ``depth`` (cells), ``width`` (initial channels), ``aux`` and ``drop_prob``;
- ``optim``: ``base_lr``, ``wd``, ``max_ep``; and ``rng_seed``;
- ``test_ep_top1`` and ``train_ep_top1``, errors in percent by epoch, and ``train_ep_loss``.

The name of a file says the space (``NASNet``, ``Amoeba``, ``PNAS``, ``ENAS``, ``DARTS``), after an underscore
how it was sampled, and with ``_in`` at its end that the data set is ImageNet, else CIFAR-10. Files of other
spaces (ResNet, ResNeXt, Vanilla) hold no genotypes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nas_lightning.cells import Genotype
from nas_lightning.study.imported import Batch, ImportedRun, check_names, stated_settings
from nas_lightning.study.study import Architecture

SPACES = ("NASNet", "Amoeba", "PNAS", "ENAS", "DARTS")


def read_nds(files: Sequence[Path]) -> Batch:
    """The runs of one or more files."""
    check_names(files)
    batch = Batch()
    for file in files:
        space, _, sample = file.stem.partition("_")
        if space not in SPACES or file.suffix != ".json":
            raise ValueError(
                f"{file} must be named SPACE.json or SPACE_SAMPLE.json; spaces: {', '.join(SPACES)}"
            )
        for number, entry in enumerate(_entries(file), start=1):
            where = f"{file.name}, row {number}"
            try:
                run = _run(entry, space, sample, number)
            except ValueError as error:
                batch.leave_out(where, error)
            except (KeyError, TypeError, AttributeError, IndexError, OverflowError) as error:
                batch.leave_out(where, f"it is no training of a cell ({type(error).__name__}: {error})")
            else:
                batch.add(where, run)
    return batch


def _entries(file: Path) -> list[Any]:
    try:
        content = json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is no JSON: {' '.join(str(error).split())}") from None
    if isinstance(content, dict) and "top" in content and "mid" in content:
        halves = content["top"], content["mid"]
        content = [*halves[0], *halves[1]] if all(isinstance(half, list) for half in halves) else None
    if not isinstance(content, list):
        raise ValueError(f"{file} must hold a list of trainings, or two under `top` and `mid`")
    return content


def _run(entry: Mapping[str, Any], space: str, sample: str, number: int) -> ImportedRun:
    net, optimiser = entry["net"], entry["optim"]
    genotype = Genotype.from_mapping(net["genotype"])
    accuracy = 1 - _percents(entry, "test_ep_top1") / 100
    epochs = int(optimiser["max_ep"])
    curves = {
        "accuracy": accuracy,
        "train_accuracy": 1 - _percents(entry, "train_ep_top1") / 100,
        "train_loss": np.array(entry["train_ep_loss"], dtype=np.float64),
    }
    lengths = {name: values.shape for name, values in curves.items()}
    if set(lengths.values()) != {(epochs,)}:
        shown = ", ".join(f"{name} {'x'.join(map(str, shape))}" for name, shape in lengths.items())
        raise ValueError(f"its curves have lengths other than its {epochs} epochs: {shown}")
    drop_path = float(net["drop_prob"])
    settings = {
        **stated_settings("nds"),
        "learning_rate": float(optimiser["base_lr"]),
        "weight_decay": float(optimiser["wd"]),
        "init_channels": int(net["width"]),
        "num_cells": int(net["depth"]),
        "drop_path": drop_path,
        # The weight of the tower is not recorded.
        "auxiliary_weight": None if net["aux"] else 0.0,
        "regularized": bool(net["aux"]) or drop_path > 0,
    }
    variant = f"{sample or 'cell'} {number}"
    architecture = Architecture(str(genotype), genotype, f"{space} space", variant, "sampled")
    data = "ImageNet" if f"_{sample}".endswith("_in") else "CIFAR10"
    name = f"{space}-{sample or 'cell'}-{number:05d}"
    return ImportedRun(name, architecture, data, int(entry["rng_seed"]), settings, curves)


def _percents(entry: Mapping[str, Any], key: str) -> np.ndarray:
    values = np.array(entry[key], dtype=np.float64)
    known = values[~np.isnan(values)]
    if known.size and not (known.min() >= 0 and known.max() <= 100):
        raise ValueError(f"`{key}` holds {known.min():g} to {known.max():g}, not percents")
    return values
