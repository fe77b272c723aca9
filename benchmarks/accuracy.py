"""Final accuracy on Digits at every level of speed, over seeds, against the reference.

A seed gives the same initial weights, batches and augmentation at every level, so that what differs within a
seed is the order of sums and their rounding, which a training amplifies. Whether a level ends elsewhere is
asked of the differences within seeds, by their mean, its confidence interval (Student's t) and the exact test
that flips their signs, corrected by Holm's method for the number of levels.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Trainer, seed_everything
from scipy import stats

from benchmarks.record import machine, write
from nas_lightning.acceleration.level import LEVELS
from nas_lightning.classifier import CellClassifier
from nas_lightning.datamodules import Digits
from nas_lightning.report.resampling import holm


def train(settings: argparse.Namespace, speed: Any, seed: int) -> float:
    """Accuracy on the test split after a training."""
    seed_everything(seed, verbose=False)
    data = Digits(batch_size=settings.batch_size, cutout=4, seed=seed)
    model = CellClassifier(
        settings.genotype,
        num_classes=10,
        init_channels=settings.init_channels,
        num_cells=settings.num_cells,
        stem_stride=2,
        speed=speed,
    )
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            default_root_dir=folder,
            max_epochs=settings.epochs,
            gradient_clip_val=5.0,
            limit_train_batches=settings.batches or 1.0,
            logger=False,
            devices=1,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(model, datamodule=data)
    return float(trainer.callback_metrics["accuracy/test"])


def compare(values: Sequence[float], reference: Sequence[float]) -> dict[str, float]:
    """Mean difference within seeds with its 95 % interval, and the p-value of flipped signs."""
    differences = np.subtract(values, reference)
    half = stats.t.ppf(0.975, len(differences) - 1) * stats.sem(differences)
    signs = np.array(list(itertools.product((-1, 1), repeat=len(differences))))
    # As far from 0 or farther, counted with the observed signs; rounding must not break ties.
    is_as_far = np.abs(signs @ differences) >= abs(differences.sum()) - 1e-12
    return {
        "mean_difference": float(differences.mean()),
        "lower": float(differences.mean() - half),
        "upper": float(differences.mean() + half),
        "p": float(is_as_far.mean()),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and keep the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--genotype", default="darts_v2")
    parser.add_argument("--levels", default=",".join(LEVELS), help="which levels, separated by commas")
    sizes = {"init_channels": 4, "num_cells": 3, "batch_size": 64, "epochs": 20, "seeds": 8, "batches": 0}
    for name, default in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    settings = parser.parse_args(arguments)
    if not 2 <= settings.seeds <= 16:
        parser.error(f"--seeds (={settings.seeds}) must be from 2 to 16")
    warnings.filterwarnings("ignore")
    torch.set_float32_matmul_precision("highest")
    levels = settings.levels.split(",")
    accuracies = {
        speed: [train(settings, speed, seed) for seed in range(settings.seeds)]
        for speed in dict.fromkeys(("reference", *levels))
    }
    comparisons = {
        speed: compare(accuracies[speed], accuracies["reference"]) for speed in levels if speed != "reference"
    }
    corrected = holm([found["p"] for found in comparisons.values()])
    for found, p in zip(comparisons.values(), corrected, strict=True):
        found["corrected_p"] = p
    print(f"{machine()['processor']}, {machine()['threads']} threads, {machine()['gpu'] or 'no GPU'}")
    for speed, values in accuracies.items():
        line = f"{speed:<10} {np.mean(values):.4f} ± {np.std(values, ddof=1):.4f} over {len(values)} seeds"
        if speed in comparisons:
            found = comparisons[speed]
            line += f", {found['mean_difference']:+.4f} ({found['lower']:+.4f} to {found['upper']:+.4f})"
            line += f" against reference, p {found['p']:.2f}, corrected {found['corrected_p']:.2f}"
        print(line)
    record = {"settings": vars(settings), "accuracy": accuracies, "against_reference": comparisons}
    print(f"written to {write('accuracy', record)}")


if __name__ == "__main__":
    main()
