"""A LightningModule that writes down the batches it is given; run as a module it does so on two ranks."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn

from nas_lightning.datamodules import Synthetic


class Recorder(LightningModule):
    """Trains one linear layer and keeps every batch."""

    def __init__(self, image_size: int = 32, num_classes: int = 10) -> None:
        super().__init__()
        self.layer = nn.Linear(3 * image_size**2, num_classes)
        self.training_batches: list[tuple[int, Tensor, Tensor]] = []
        self.evaluation_batches: list[tuple[int, Tensor, Tensor]] = []

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        inputs, targets = batch
        self.training_batches.append((self.current_epoch, inputs.clone(), targets.clone()))
        return nn.functional.cross_entropy(self.layer(inputs.flatten(1)), targets)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        inputs, targets = batch
        self.evaluation_batches.append((self.current_epoch, inputs.clone(), targets.clone()))

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.validation_step(batch, batch_idx)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01)

    def on_train_end(self) -> None:
        folder = getattr(self.trainer, "recording_folder", None)
        if folder is not None:
            content = {"train": self.training_batches, "test": self.evaluation_batches}
            torch.save(content, Path(folder) / f"rank{self.global_rank}.pt")


def make_trainer(folder: Path, max_epochs: int, **options: Any) -> Trainer:
    """A quiet trainer, on the CPU unless told otherwise."""
    options = {"accelerator": "cpu", "devices": 1, "logger": False, "enable_checkpointing": False, **options}
    return Trainer(
        max_epochs=max_epochs,
        default_root_dir=folder,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **options,
    )


class HostOnOneRank(Synthetic):
    """The images stay on the host on rank 0, and not on the other."""

    def setup(self, stage: str | None = None) -> None:
        assert self.trainer is not None
        self.resident = "host" if self.trainer.global_rank == 0 else "device"
        super().setup(stage)


def two_ranks(folder: Path) -> None:
    """Record two epochs of two ranks on an odd-sized test split."""
    trainer = make_trainer(folder, 2, devices=2, strategy="ddp_fork")
    trainer.recording_folder = str(folder)  # type: ignore[attr-defined]
    data = HostOnOneRank(
        image_size=8, train_size=50, test_size=21, batch_size=16, cutout=4, evaluation_batch_size=4
    )
    trainer.fit(Recorder(image_size=8), datamodule=data)


if __name__ == "__main__":
    torch.set_num_threads(1)
    two_ranks(Path(sys.argv[1]))
