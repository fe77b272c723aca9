"""Modules, data and losses that are none of the project's."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset


class Own(LightningModule):
    """Any layers and a loss, trained by plain SGD."""

    def __init__(self, layers: nn.Module, loss: Any = functional.cross_entropy) -> None:
        super().__init__()
        self.layers, self.training_loss = layers, loss
        self.unused = nn.Linear(2, 2)

    def forward(self, inputs: Tensor) -> Any:
        return self.layers(inputs)

    def training_step(self, batch: Any, batch_index: int) -> Tensor:
        loss: Tensor = self.training_loss(self(batch[0]), batch[1])
        return loss

    def validation_step(self, batch: Any, batch_index: int) -> None:
        self.log("val_loss", self.training_loss(self(batch[0]), batch[1]))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.layers.parameters(), lr=0.05)


def convolutions(classes: int = 3) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, classes)
    )


def samples(count: int = 24, classes: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(count, 2, 4, 4, generator=generator)
    return inputs, torch.randint(classes, (count,), generator=generator)


def loader(inputs: Tensor, targets: Tensor, *, shuffle: bool = False) -> DataLoader[Any]:
    return DataLoader(TensorDataset(inputs, targets), batch_size=8, shuffle=shuffle)


def squared_errors(outputs: Tensor, targets: Tensor) -> Tensor:
    return functional.mse_loss(outputs[:, 0], targets, reduction="none")


def mean_squared_error(outputs: Tensor, targets: Tensor) -> Tensor:
    return functional.mse_loss(outputs[:, 0], targets)


def pixel_losses(outputs: Tensor, targets: Tensor) -> Tensor:
    return functional.cross_entropy(outputs, targets, reduction="none")


def summed_errors(outputs: Tensor, targets: Tensor) -> Tensor:
    return functional.mse_loss(outputs[:, 0], targets, reduction="sum")
