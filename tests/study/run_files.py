"""Folders of runs in the form that `nas-lightning fit` writes, with invented numbers."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from nas_lightning.cells import count_parameters, get_genotype, multiply_adds
from nas_lightning.netcdf import write_dataset
from nas_lightning.study.results import Results, collect_results
from nas_lightning.study.study import AnalysisFile, Architecture, Run, Study

STEMS = ("loss_contour", "gradient_variance", "hessian_spectrum")
TRAIN_SIZE = 1437
"""Images of Digits to train on: 29 batches of 48 and a rest."""


def planned_run(
    root: Path,
    name: str,
    *,
    spec: str = "darts_v2",
    data: str = "Digits",
    learning_rate: float | None = 0.1,
    seed: int = 0,
    epochs: int = 4,
    stems: Sequence[str] = STEMS,
    settings: Mapping[str, Any] | None = None,
) -> Run:
    """A run of the experiment "experiment"."""
    family, _, variant = spec.partition(":")
    architecture = Architecture(
        spec, get_genotype(spec), family, variant or "original", "connections" if variant else "original"
    )
    return Run(
        name,
        root / "experiment" / name,
        architecture,
        data,
        learning_rate,
        seed,
        epochs,
        settings or {},
        tuple(AnalysisFile(stem, {}) for stem in stems),
        (),
    )


def study_of(root: Path, runs: Sequence[Run], name: str = "comparison") -> Study:
    """A study of these runs."""
    return Study(name, "A comparison", root / f"{name}.yaml", root, "experiment", tuple(runs))


def write_run(
    folder: Path,
    *,
    spec: str | dict[str, Any] = "darts_v2",
    data: str = "Digits",
    learning_rate: float = 0.1,
    seed: int | None = 0,
    epochs: int = 4,
    loss: Sequence[float] | None = None,
    accuracy: Sequence[float] | None = None,
    train_loss: Sequence[float] | None = None,
    split: str = "test",
    finished: bool = True,
    stems: Sequence[str] = STEMS,
    direction_seeds: Sequence[int] = (0, 1),
    settings: Mapping[str, Any] | None = None,
) -> None:
    """Write what a finished run of Digits leaves in its folder, but no checkpoints.

    NaN in `accuracy` stands for an epoch without an evaluation: its cells stay empty.
    """
    genotype = get_genotype(spec)
    losses = [2.5 / (epoch + 1) for epoch in range(epochs)] if loss is None else loss
    accuracies = [1 - 0.5 / (epoch + 1) for epoch in range(epochs)] if accuracy is None else accuracy
    train_losses = [2.0 / (epoch + 1) for epoch in range(epochs)] if train_loss is None else train_loss
    rows: list[dict[str, float]] = []
    for epoch in range(epochs):
        row = {"epoch": epoch, "loss/train": train_losses[epoch], "accuracy/train": 0.5 + 0.1 * epoch}
        if not math.isnan(accuracies[epoch]):
            row |= {
                f"loss/{split}": losses[epoch],
                f"accuracy/{split}": accuracies[epoch],
                f"accuracy_top5/{split}": 1.0,
            }
        row |= {"learning_rate": learning_rate / (epoch + 1), "images_per_second": 100.5 + epoch}
        rows.append(row)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "metrics.csv").open("w", newline="") as file:
        writer = csv.DictWriter(
            file, list(dict.fromkeys(name for row in rows for name in row)), lineterminator="\n"
        )
        writer.writeheader()
        writer.writerows(rows)
    evaluated = [row for row in rows if f"accuracy/{split}" in row]
    arguments = {"lr": learning_rate, "momentum": 0.9, "weight_decay": 3e-4, "foreach": None}
    result = {
        "finished": finished,
        "epochs": epochs,
        "evaluation_split": split,
        "final": {name: value for name, value in rows[-1].items() if name != "epoch"},
        "best": max(evaluated, key=lambda row: row[f"accuracy/{split}"]) if evaluated else {},
        "cell": {
            "genotype": str(genotype),
            "width": 0.0,
            "depth": 0,
            "parameters": count_parameters(genotype, init_channels=8, num_cells=6),
            "live_parameters": count_parameters(genotype, init_channels=8, num_cells=6, live=True),
            "multiply_adds": multiply_adds(genotype, init_channels=8, num_cells=6),
        },
        "settings": {
            "model.genotype": spec,
            "model.init_channels": 8,
            "model.num_cells": 6,
            "model.stem_stride": 2,
            "model.drop_path": 0.0,
            "model.auxiliary_weight": 0.0,
            "model.optimizer": {"class_path": "torch.optim.SGD", "init_args": arguments},
            "model.lr_scheduler": None,
            "model.operations": [],
            "model.num_classes": 10,
            "data.root": "data",
            "data.batch_size": 48,
            "data.cutout": 0,
            "data.class": data,
            "trainer.max_epochs": epochs,
            "trainer.gradient_clip_val": 5.0,
            "trainer.precision": "32-true",
            **(settings or {}),
        },
        "provenance": {
            "seed": seed,
            "weights_sha256": "ab" * 32,
            "device": "cpu",
            "versions": {"python": "3.11.7", "nas-lightning": "0.1.0", "torch": "2.15.0"},
            "data": {"name": data, "split_sizes": {"train": TRAIN_SIZE, split: 360}},
        },
    }
    (folder / "result.json").write_text(json.dumps(_finite(result), allow_nan=False))
    for stem in stems:
        write_surface(folder / "landscape" / f"{stem}-epoch{epochs - 1:04d}.nc", stem, direction_seeds)


def write_surface(
    path: Path, stem: str, direction_seeds: Sequence[int] = (0, 1), *, done: int = 9, weights: str = "ab" * 32
) -> None:
    """Write a measurement; scalar k (from 0) of direction seed s is 10 k + s^2, of the network 10 k."""
    attributes = {"kind": stem, "samples": 256, "split": "test", "weights_sha256": weights}
    if stem == "hessian_spectrum":
        variables = {
            "eigenvalue": ("rank", [30.0, 7.0]),
            "residual": ("rank", [0.0, 0.0]),
            "smallest_eigenvalue": ("smallest_rank", [-2.5]),
            "smallest_residual": ("smallest_rank", [0.0]),
            "trace": ((), 55.0),
            "trace_standard_error": ((), 1.5),
            "products": ((), 40),
            "converged": ((), np.int8(1)),
        }
        write_dataset(path, xr.Dataset(variables, attrs=attributes))
        return
    finished = np.zeros(9, np.int8)
    finished[:done] = 1
    surface = ("direction_seed", "alpha", "beta")
    count = len(direction_seeds)
    squares = np.square(np.array(direction_seeds, dtype=np.float64))
    contour = ("near_convex_share", "near_convex_radius", "curvature_center")
    variance = ("variance_center", "standard_deviation_center")
    names = contour if stem == "loss_contour" else variance
    content: dict[str, Any] = {
        "done": (surface, np.broadcast_to(finished.reshape(1, 3, 3), (count, 3, 3))),
        "values": (surface, np.ones((count, 3, 3))),
        "cosine": ("direction_seed", np.full(count, 0.01)),
        **{name: ("direction_seed", 10 * index + squares) for index, name in enumerate(names)},
    }
    if stem == "gradient_variance":
        for index, name in enumerate(("center_variance", "center_mean_gradient_norm", "center_noise_scale")):
            content[name] = ((), 10.0 * index)
        content["variance_ring"] = (("direction_seed", "ring"), np.ones((count, 4)))
        content["variance_by_node"] = (("cell", "node"), np.ones((6, 5)))
    axis = np.array([-1.0, 0.0, 1.0])
    coordinates = {"direction_seed": list(direction_seeds), "alpha": axis, "beta": axis}
    write_dataset(path, xr.Dataset(content, coordinates, attrs=attributes))


def collect(root: Path, *runs: Run) -> Results:
    """Results of a study of these runs."""
    return collect_results(study_of(root, runs))


def only_row(results: Results) -> pd.Series[Any]:
    """The only run of results without a problem."""
    assert results.problems == ()
    assert len(results.runs) == 1
    return results.runs.iloc[0]


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
