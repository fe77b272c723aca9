"""The averaged weights of Lightning's callbacks, which analyses measure in place of the last step's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import StochasticWeightAveraging, WeightAveraging
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor, nn


@contextmanager
def averaged_weights(trainer: Trainer, module: LightningModule) -> Iterator[None]:
    """Give a module the average that a callback of the trainer keeps; afterwards its own weights.

    The average of :class:`~lightning.pytorch.callbacks.WeightAveraging` (EMAWeightAveraging among them) is
    what validations measure and checkpoints hold, at every epoch. That of StochasticWeightAveraging exists
    after the last epoch; before it the weights of the training are measured. A line says which.
    """
    with torch.no_grad():
        pairs: list[tuple[Tensor, Tensor]] = []
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            name, average = type(callback).__name__, getattr(callback, "_average_model", None)
            if isinstance(callback, WeightAveraging) and average is not None:
                pairs = list(zip(_tensors(average.module), _tensors(module), strict=True))
                rank_zero_info(f"weights: the average of {name}")
            elif isinstance(callback, StochasticWeightAveraging) and average is not None:
                is_over = callback._max_epochs != -1 and trainer.current_epoch > callback.swa_end
                if is_over and not callback._model_contains_batch_norm:
                    pairs = list(zip(average.parameters(), module.parameters(), strict=True))
                words = "the average" if is_over else "those of the training, before the average"
                rank_zero_info(f"weights: {words} of {name}")
        kept = [own.clone() for _, own in pairs]
        for average, own in pairs:
            own.copy_(average)
    try:
        yield
    finally:
        with torch.no_grad():
            for (_, own), value in zip(pairs, kept, strict=True):
                own.copy_(value)


def _tensors(module: nn.Module) -> list[Any]:
    return [*module.parameters(), *module.buffers()]
