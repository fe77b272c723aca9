"""Small trainings without the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor

from nas_lightning.classifier import CellClassifier
from nas_lightning.datamodules import Synthetic

EPOCHS = 2


def data(**settings: Any) -> Synthetic:
    return Synthetic(image_size=16, train_size=48, test_size=37, batch_size=16, **settings)


def small_classifier(**settings: Any) -> CellClassifier:
    return CellClassifier(**{"init_channels": 4, "num_cells": 3} | settings)


def trainer(*callbacks: Callback, **settings: Any) -> Trainer:
    quiet: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_model_summary": False}
    short: dict[str, Any] = {"max_epochs": EPOCHS, "num_sanity_val_steps": 0, "log_every_n_steps": 1}
    return Trainer(accelerator="cpu", callbacks=list(callbacks), **quiet | short | settings)


def trained(
    folder: Path, *callbacks: Callback, classifier: CellClassifier | None = None, **settings: Any
) -> tuple[CellClassifier, Trainer]:
    """A finished training whose files are in a folder, and whose events are in ``folder/tb``."""
    seed_everything(0)
    classifier = classifier or small_classifier()
    logger = TensorBoardLogger(folder, name="", version="tb")
    fit = trainer(*callbacks, logger=logger, enable_progress_bar=False, **settings)
    fit.fit(classifier, datamodule=data())
    return classifier, fit


def images(split: str = "test") -> tuple[Tensor, Tensor]:
    made = data()
    made.setup()
    raw, targets = made.split_arrays(split)  # type: ignore[arg-type]
    return made.normalise(raw), targets
