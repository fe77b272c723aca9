"""The drop-path probability over the epochs, and the seeds it draws from."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from nas_lightning.callbacks.protocols import cell_module
from nas_lightning.provenance import run_seed


class DropPathSchedule(Callback):
    """Raises the drop-path probability linearly: epoch e of E (from 0) trains with ``drop_path * e / E``.

    Source: Zoph et al. (CVPR 2018) as used in appendix A.4 of Shu et al. (ICLR 2020). Before every batch
    PyTorch's generators are seeded from (seed, epoch, batch, rank): ranks drop different paths, and a resumed
    run drops the same as an unbroken one, whatever else draws random numbers.
    """

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Set the probability where a training goes on within an epoch."""
        self.on_train_epoch_start(trainer, pl_module)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Set this epoch's probability."""
        module = cell_module(pl_module)
        epochs = trainer.max_epochs
        if module.drop_path > 0 and (epochs is None or epochs < 1):
            raise ValueError(
                f"`trainer.max_epochs` (={epochs}) must be at least 1 with `drop_path`"
                f" (={module.drop_path}): the probability grows over all epochs"
            )
        epoch = trainer.current_epoch
        module.network.drop_path_probability = module.drop_path * epoch / max(epochs or 1, 1)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Seed the random numbers of this batch."""
        entropy = (run_seed() or 0, trainer.current_epoch, batch_idx, trainer.global_rank)
        torch.manual_seed(int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0]))
