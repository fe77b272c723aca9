"""Results with invented numbers in the form of real ones, for tests of the report.

The numbers follow a rule that a test can count on: wider cells converge faster, are flatter and have a
smaller gradient variance, each seed adds a little noise, and the final error knows nothing of width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from nas_lightning.cells import (
    cell_depth,
    cell_width,
    count_parameters,
    get_genotype,
    multiply_adds,
    published_variants,
    topology,
)
from nas_lightning.netcdf import write_dataset
from nas_lightning.study.results import Results
from nas_lightning.study.study import Study, VariantKind

CLASSES = {"CIFAR10": 10, "CIFAR100": 100, "TinyImageNet": 200, "Digits": 10}
STEPS = 4
"""Optimiser steps an epoch."""


def made_up_results(
    folder: Path,
    *,
    families: Sequence[str] = ("darts_v2",),
    variants: Sequence[str] = ("original", "C1", "C4", "C6", "C7", "C9", "C12"),
    data: Sequence[str] = ("CIFAR10",),
    learning_rates: Sequence[float] = (0.025,),
    seeds: Sequence[int] = (0, 1),
    epochs: int = 8,
    surfaces: bool = True,
    regularized: bool = False,
    problems: Sequence[str] = (),
) -> Results:
    """Make results of every combination.

    Args:
        folder: Where surface files go.
        families: Published genotypes.
        variants: ``"original"``, ``"C1"``, ``"connections=3"``, ``"operations=3"``, ``"adapted"``,
            ``"darts_conn1"``.
        data: Names of data classes.
        learning_rates: Initial learning rates.
        seeds: Seeds.
        epochs: Length of the curves.
        surfaces: Whether the runs have surfaces and the scalars of them.
        regularized: Whether the runs are trained with the paper's regularisation.
        problems: What the results complain about.

    Returns:
        The results; study.runs is empty.
    """
    rows, curves = [], []
    for family in families:
        for variant in variants:
            for name in data:
                for rate in learning_rates:
                    for seed in seeds:
                        row, curve = _run(
                            folder, family, variant, name, rate, seed, epochs, surfaces, regularized
                        )
                        rows.append(row)
                        curves.append(curve)
    study = Study("made_up", "Invented numbers", folder / "study.yaml", folder, "made_up", ())
    frame = pd.DataFrame(rows)
    if "loss_contour_file" not in frame:
        stems = ("loss_contour", "loss_profile", "gradient_variance", "hessian_spectrum")
        frame[[f"{stem}_file" for stem in stems]] = None
    return Results(study, frame, pd.concat(curves, ignore_index=True), tuple(problems))


def label_of(family: str, variant: str) -> str:
    """The name that a study gives a variant."""
    if variant == "original":
        return family
    return variant if variant in published_variants() else f"{family}:{variant}"


def _kind(variant: str) -> VariantKind:
    if variant in published_variants():
        return published_variants()[variant].kind
    if variant in ("original", "adapted"):
        return "original" if variant == "original" else "adapted"
    return "operations" if variant.startswith("operations") else "connections"


def _run(
    folder: Path,
    family: str,
    variant: str,
    data: str,
    rate: float,
    seed: int,
    epochs: int,
    surfaces: bool,
    regularized: bool,
) -> tuple[dict[str, object], pd.DataFrame]:
    label = label_of(family, variant)
    genotype = get_genotype(label)
    width = cell_width(genotype.normal, genotype.normal_concat)
    depth = cell_depth(genotype.normal, genotype.normal_concat)
    noise = np.random.default_rng([seed, *label.encode(), *data.encode(), int(rate * 1e4)])
    classes = CLASSES[data]
    speed = 0.4 + 0.15 * width
    time = np.arange(1, epochs + 1)
    error = np.clip(0.06 + 0.8 * np.exp(-speed * time) + noise.normal(0, 0.004, epochs), 0.0, 1.0)
    loss = 0.2 + np.log(classes) * 1.3 * np.exp(-speed * time) + noise.normal(0, 0.01, epochs)
    loss[0] *= 3.0
    run = f"{label.replace(':', '-').replace('=', '')}-{data.lower()}-lr{rate:g}-seed{seed}"
    curve = pd.DataFrame(
        {
            "run": run,
            "architecture": label,
            "family": family,
            "variant": variant,
            "data": data,
            "learning_rate": rate,
            "seed": seed,
            "epoch": time - 1,
            "step": time * STEPS,
            "loss": loss,
            "accuracy": 1 - error,
            "accuracy_top5": np.minimum(1 - error / 4, 1.0),
            "train_loss": loss * 0.8,
            "train_accuracy": 1 - error * 0.8,
            "learning_rate_now": rate * (1 + np.cos(np.pi * (time - 1) / epochs)) / 2,
            "images_per_second": 300.0,
        }
    )
    row: dict[str, object] = {
        "run": run,
        "folder": str(folder / run),
        "study": "made_up",
        "spec": label,
        "genotype": str(genotype),
        "architecture": label,
        "family": family,
        "variant": variant,
        "kind": _kind(variant),
        **asdict(topology(genotype)),
        "width": width,
        "depth": depth,
        "network_path": 20.0 * depth / width,
        "parameters": count_parameters(genotype, num_classes=classes, auxiliary=regularized),
        "live_parameters": count_parameters(genotype, num_classes=classes, auxiliary=regularized, live=True),
        "multiply_adds": multiply_adds(genotype, num_classes=classes),
        "data": data,
        "num_classes": classes,
        "learning_rate": rate,
        "seed": seed,
        "epochs": epochs,
        "batch_size": 80,
        "cutout": 16 if regularized else 0,
        "drop_path": 0.2 if regularized else 0.0,
        "auxiliary_weight": 0.4 if regularized else 0.0,
        "regularized": regularized,
        "evaluation_split": "test",
        "init_channels": 36,
        "num_cells": 20,
        "final_loss": loss[-1],
        "final_accuracy": 1 - error[-1],
        "final_error_percent": 100 * error[-1],
        "final_train_loss": loss[-1] * 0.8,
        "final_train_accuracy": 1 - error[-1] * 0.8,
        "best_accuracy": 1 - error.min(),
        "best_epoch": int(error.argmin()),
        "training_seconds": 60.0,
        "area_under_loss": loss.mean(),
        "area_under_loss_clipped": np.minimum(loss, np.log(classes)).mean(),
        "mean_error": error.mean(),
        "oscillation_loss": 0.1 / speed + abs(noise.normal(0, 0.001)),
        "oscillation_accuracy": 0.05 / speed + abs(noise.normal(0, 0.001)),
        "diverged": False,
        "weights_sha256": "0" * 64,
        "device": "cpu",
        "version_torch": "2.15.0",
        "version_lightning": "2.6.6",
        "version_nas_lightning": "0.1.0",
        "settings.trainer.precision": "32-true",
    }
    for threshold in ("0.5", "0.8", "0.9", "0.95"):
        reached = np.flatnonzero(1 - error >= float(threshold))
        first = float(reached[0] + 1) if len(reached) else np.nan
        row |= {f"epochs_to_accuracy_{threshold}": first, f"steps_to_accuracy_{threshold}": first * STEPS}
    for threshold in ("1", "0.5", "0.2"):
        reached = np.flatnonzero(loss <= float(threshold))
        first = float(reached[0] + 1) if len(reached) else np.nan
        row |= {f"epochs_to_loss_{threshold}": first, f"steps_to_loss_{threshold}": first * STEPS}
    if surfaces:
        row |= _surfaces(folder / run / "landscape", label, width, noise)
    return row, curve


def _surfaces(folder: Path, label: str, width: float, noise: np.random.Generator) -> dict[str, object]:
    steps = np.linspace(-1.0, 1.0, 9)
    bowl = np.add.outer(steps**2, steps**2)[None] * (24.0 / width) * (1 + noise.normal(0, 0.03))
    variance = 5.0 * (1 + bowl) / width
    dims = ("direction_seed", "alpha", "beta")
    coords = {"direction_seed": [0], "alpha": steps, "beta": steps}
    done = (dims, np.ones(bowl.shape, np.int8))
    attributes = {"title": label, "split": "test", "samples": 128, "epoch": 7, "data": "invented"}
    loss_file, variance_file = folder / "loss_contour-epoch0007.nc", folder / "gradient_variance-epoch0007.nc"
    write_dataset(
        loss_file,
        xr.Dataset(
            {"loss": (dims, 0.2 + bowl), "accuracy": (dims, np.exp(-bowl)), "done": done},
            coords,
            {"kind": "loss_contour", **attributes},
        ),
    )
    write_dataset(
        variance_file,
        xr.Dataset(
            {"variance": (dims, variance), "mean_gradient_norm": (dims, np.sqrt(bowl)), "done": done},
            coords,
            {"kind": "gradient_variance", **attributes},
        ),
    )
    profile_file = folder / "loss_profile-epoch0007.nc"
    radii = np.linspace(0.0, 1.0, 5)
    rise = np.multiply.outer(1 + noise.normal(0, 0.03, 3), radii**2) * 24.0 / width
    plane = ("direction_seed", "radius")
    write_dataset(
        profile_file,
        xr.Dataset(
            {
                "loss": (plane, 0.2 + rise),
                "accuracy": (plane, np.exp(-rise)),
                "done": (plane, np.ones(rise.shape, np.int8)),
            },
            {"direction_seed": [0, 1, 2], "radius": radii},
            {"kind": "loss_profile", **attributes},
        ),
    )
    radius, curvature = float(np.sqrt(width / 24)), 48.0 / width
    center = float(variance[0, 4, 4])
    return {
        "loss_contour_file": str(loss_file),
        "gradient_variance_file": str(variance_file),
        "loss_profile_file": str(profile_file),
        "hessian_spectrum_file": None,
        "loss_contour.near_convex_radius": radius,
        "loss_contour.near_convex_radius.sd": np.nan,
        "loss_contour.near_convex_share": np.pi * radius**2 / 4,
        "loss_contour.near_convex_share.sd": np.nan,
        "loss_contour.convexity_ratio": 1.0,
        "loss_contour.curvature_center": curvature,
        "loss_contour.curvature_center_max": curvature * 1.1,
        "loss_contour.curvature_mean": curvature,
        "loss_contour.curvature_max": curvature,
        "loss_contour.samples": 128,
        "gradient_variance.center_variance": center * (1 + abs(noise.normal(0, 0.02))),
        "gradient_variance.center_mean_gradient_norm": 0.1,
        "gradient_variance.center_noise_scale": 100 * center,
        "gradient_variance.standard_deviation_center": center**0.5,
        "gradient_variance.center_normalized_variance": center * (1 + abs(noise.normal(0, 0.02))) / 10,
        "gradient_variance.samples": 128,
        "loss_profile.mean_rise": curvature * (1 + abs(noise.normal(0, 0.02))) / 20,
        "loss_profile.mean_rise.sd": curvature / 400,
        "loss_profile.direction_seeds": 5,
    }
