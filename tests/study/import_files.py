"""Made-up files in the formats of published results."""

from __future__ import annotations

import json
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from nas_lightning.cells import Genotype, cell_width, get_genotype, random_connections, random_operations


def random_cells(count: int) -> list[Genotype]:
    """Different cells of the DARTS space."""
    base = get_genotype("darts_v2")
    return [random_operations(random_connections(base, seed), seed) for seed in range(count)]


def grouped_text(genotype: Genotype) -> str:
    """A genotype in the form of the pickle."""

    def nodes(edges: Sequence[Any]) -> list[list[tuple[str, int]]]:
        pairs = [tuple(edge) for edge in edges]
        return [pairs[at : at + 2] for at in range(0, len(pairs), 2)]

    return (
        f"GENOTYPE=Genotype(normal={nodes(genotype.normal)}, normal_concat=range(2, 6), "
        f"reduce={nodes(genotype.reduce)}, reduce_concat=range(2, 6))"
    )


def accuracy_curves(cells: Sequence[Genotype], epochs: int) -> np.ndarray:
    """Percents [cells, epochs]: wide cells learn faster, all end alike but for a little noise."""
    noise = np.random.default_rng(0)
    widths = np.array([cell_width(cell.normal, cell.normal_concat) for cell in cells])
    time = np.arange(1, epochs + 1)
    error = (
        3 + 50 * np.exp(-(0.2 + 0.2 * widths[:, None]) * time) + noise.normal(0, 0.1, (len(cells), epochs))
    )
    return np.round(100 - error, 2)


def write_random_darts(folder: Path, count: int = 12, epochs: int = 10) -> tuple[Path, Path]:
    """The pickle of pairs and the array of curves."""
    cells = random_cells(count)
    curves = accuracy_curves(cells, epochs)
    pairs = [(grouped_text(cell), np.float64(row.max())) for cell, row in zip(cells, curves, strict=True)]
    pickled, array = folder / "genotypes.pkl", folder / "curves.npy"
    pickled.write_bytes(pickle.dumps(pairs, protocol=3))
    np.save(array, curves)
    return pickled, array


def nds_training(genotype: Genotype | dict[str, Any], accuracy: np.ndarray, seed: int = 1) -> dict[str, Any]:
    """One training of an NDS file."""
    epochs = len(accuracy)
    return {
        "job_id": 7,
        "rng_seed": seed,
        "net": {
            "genotype": genotype.as_mapping() if isinstance(genotype, Genotype) else genotype,
            "depth": 5,
            "width": 8,
            "aux": False,
            "drop_prob": 0.0,
        },
        "optim": {"base_lr": 0.1, "wd": 0.0005, "max_ep": epochs, "lr_policy": "cos", "mom": 0.9},
        "test_ep_top1": (100 - accuracy).tolist(),
        "train_ep_top1": (99 - accuracy).clip(0).tolist(),
        "train_ep_loss": (1 - accuracy / 100).tolist(),
        "params": 1.0,
        "flops": 1.0,
    }


def write_nds(path: Path, trainings: Sequence[Any] | None = None, *, halves: bool = False) -> Path:
    """A file of trainings, as a list or in the two lists ``top`` and ``mid``."""
    if trainings is None:
        cells = random_cells(6)
        trainings = [nds_training(*pair) for pair in zip(cells, accuracy_curves(cells, 10), strict=True)]
    content: Any = {"top": trainings[:3], "mid": trainings[3:]} if halves else trainings
    path.write_text(json.dumps(content))
    return path


def tidy_table(count: int = 4, epochs: int = 5, **columns: Any) -> pd.DataFrame:
    """A table of curves with the columns that must be there, and further ones."""
    cells = random_cells(count)
    curves = accuracy_curves(cells, epochs) / 100
    return pd.DataFrame(
        {
            "genotype": [str(cell) for cell in cells for _ in range(epochs)],
            "data": "CIFAR10",
            "seed": 0,
            "epoch": list(range(1, epochs + 1)) * count,
            "accuracy": curves.ravel(),
            **columns,
        }
    )
