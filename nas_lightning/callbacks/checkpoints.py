"""The checkpoints of a run, written atomically: the last epoch's, the best epoch's, the initial weights."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from lightning.fabric.plugins.io import TorchCheckpointIO
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from nas_lightning.callbacks.loggers import run_folder
from nas_lightning.torch_files import read_torch_file, write_torch_file

CHECKPOINTS = "checkpoints"
"""The folder of a run's checkpoints, in the folder of the run."""
START_CHECKPOINT = "start.ckpt"
"""Name of the file with a run's initial weights, among its checkpoints."""


def folder_of(checkpoint: Path) -> Path:
    """The folder of the run that a checkpoint belongs to; its own where it lies in no ``checkpoints``."""
    folder = checkpoint.parent
    return folder.parent if folder.name == CHECKPOINTS else folder


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes checkpoints atomically: a kill or a full disk keeps the old one. Checks those that it reads."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | os.PathLike[str], storage_options: Any | None = None
    ) -> None:
        """Write a checkpoint and remove temporary files of a killed process; an OSError names the file."""
        for left_over in Path(path).parent.glob(f".{Path(path).name}.*.tmp"):
            left_over.unlink(missing_ok=True)
        write_torch_file(path, checkpoint)

    def load_checkpoint(
        self,
        path: str | os.PathLike[str],
        map_location: Any | None = None,
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """Read a checkpoint of tensors and plain values on the CPU; a ValueError names a damaged file."""
        checkpoint: dict[str, Any] = read_torch_file(path, "ckpt_path")
        return checkpoint


class RunCheckpoint(ModelCheckpoint):
    """A checkpoint of the run, in a class of its own so that the user can add a ModelCheckpoint."""


def run_checkpoints(folder: str | os.PathLike[str], split: str) -> list[RunCheckpoint]:
    """The two checkpoints of a run: ``last.ckpt`` after every epoch, ``best.ckpt`` of the best accuracy.

    ``last`` has no monitor: Lightning's ``save_last`` with one skips epochs that do not improve. `split` is
    the one whose accuracy chooses the best epoch, ``"test"`` or ``"val"``.
    """
    last = RunCheckpoint(
        dirpath=Path(folder), filename="last", save_on_train_epoch_end=True, enable_version_counter=False
    )
    best = RunCheckpoint(
        dirpath=Path(folder),
        filename="best",
        monitor=f"accuracy/{split}",
        mode="max",
        save_on_train_epoch_end=True,
        enable_version_counter=False,
    )
    return [best, last]


def save_start(trainer: Trainer) -> None:
    """Write a run's initial weights to ``checkpoints/start.ckpt`` in its folder, atomically, on rank 0.

    To be called on every rank in `on_train_start`, by a callback that needs them after the training. A
    training that is resumed after its first step no longer has them and leaves the file as it is.
    """
    if trainer.global_step or trainer.fast_dev_run:  # type: ignore[attr-defined]
        return
    path = run_folder(trainer) / CHECKPOINTS / START_CHECKPOINT
    checkpoint = trainer._checkpoint_connector.dump_checkpoint(weights_only=True)
    if trainer.is_global_zero:
        write_torch_file(path, checkpoint)
