"""Drop path draws from seed, epoch and batch."""

from __future__ import annotations

import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything

from tests.callbacks.cases import data, small_classifier, trainer


class DrawNumbers(Callback):
    """Keeps a random number of every batch, as drop path would draw it."""

    def __init__(self) -> None:
        self.numbers: list[float] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
        self.numbers.append(float(torch.rand(())))


def test_drop_path_draws_from_seed_epoch_and_batch() -> None:
    draws = []
    for seed in (0, 0, 1):
        seed_everything(seed)
        numbers = DrawNumbers()
        model = small_classifier(drop_path=0.3)
        trainer(numbers).fit(model, datamodule=data())
        draws.append(numbers.numbers)
    assert draws[0] == draws[1]
    assert not set(draws[0]) & set(draws[2])
    assert len(set(draws[0])) == 6  # three batches in each of two epochs
