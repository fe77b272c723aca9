"""Where a trainer's loggers keep a run, and how each of them takes pictures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from weakref import WeakSet

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import (
    CometLogger,
    CSVLogger,
    Logger,
    MLFlowLogger,
    TensorBoardLogger,
    WandbLogger,
)
from lightning.pytorch.loggers.logger import DummyLogger
from lightning.pytorch.utilities import rank_zero_info
from matplotlib.figure import Figure

from nas_lightning.figures import figure_to_array, write_figure

_told: WeakSet[Logger] = WeakSet()
"""Loggers of which was said that they take no pictures."""


def run_folder(trainer: Trainer) -> Path:
    """The folder of a run: that of its first logger, where Lightning puts its checkpoints too.

    Without a logger it is the trainer's ``default_root_dir``. All ranks must ask together.
    """
    first = trainer.loggers[0] if trainer.loggers else None
    if first is None or isinstance(first, TensorBoardLogger | CSVLogger | DummyLogger):
        return Path(trainer.log_dir or trainer.default_root_dir)
    version = first.version if isinstance(first.version, str) else f"version_{first.version}"
    folder = Path(first.save_dir or trainer.default_root_dir, str(first.name), version)
    return Path(trainer.strategy.broadcast(str(folder)))


def log_figures(loggers: Iterable[Logger], figures: Mapping[str, Figure], step: int, folder: Path) -> None:
    """Send pictures, by tag (``landscape/NAME``), to loggers in the way of each; on rank 0.

    TensorBoard gets images, W&B ``log_image``, MLflow and Comet figures. For any other logger they become
    files ``pictures/TAG-epochEEEE.png`` in the run's folder.
    """
    file_loggers = []
    for logger in loggers:
        if isinstance(logger, TensorBoardLogger):
            for tag, figure in figures.items():
                image = figure_to_array(figure, dots_per_inch=140.0)
                logger.experiment.add_image(tag, image, global_step=step, dataformats="HWC")
            logger.experiment.flush()
        elif isinstance(logger, WandbLogger):
            for tag, figure in figures.items():
                logger.log_image(tag, [figure_to_array(figure, dots_per_inch=140.0)], step=step)
        elif isinstance(logger, MLFlowLogger):
            for tag, figure in figures.items():
                logger.experiment.log_figure(logger.run_id, figure, f"{tag}-epoch{step:04d}.png")
        elif isinstance(logger, CometLogger):
            for tag, figure in figures.items():
                logger.experiment.log_figure(figure_name=tag, figure=figure, step=step)
        elif not isinstance(logger, DummyLogger):
            file_loggers.append(logger)
    if file_loggers:
        for tag, figure in figures.items():
            write_figure(figure, folder / "pictures" / f"{tag}-epoch{step:04d}.png")
        for logger in file_loggers:
            if logger not in _told:
                _told.add(logger)
                rank_zero_info(
                    f"{type(logger).__name__} takes no pictures: they are in {folder / 'pictures'}"
                )


def log_settings(loggers: Iterable[Logger], settings: Mapping[str, Any]) -> None:
    """Give the loggers the settings of a run, before it starts.

    TensorBoard writes them into its ``hparams.yaml``; its table takes them with the results, at the end.
    """
    for logger in loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.hparams.update(settings)
        else:
            logger.log_hyperparams(dict(settings))
