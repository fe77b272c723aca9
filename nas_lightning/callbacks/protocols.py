"""What the callbacks need from the trained module and its data.

From Python 3.12 on ``isinstance`` does not see what a module keeps apart: submodules, parameters and buffers.
A protocol has such a member for type checkers only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn

from nas_lightning.cells import Genotype


@runtime_checkable
class CellNetworkLike(Protocol):
    """A network of cells, such as :class:`nas_lightning.networks.CellNetwork`."""

    drop_path_probability: float

    def evaluated_parameters(self) -> dict[str, nn.Parameter]:
        """Live parameters that the logits in evaluation mode depend on, by name."""

    def parameter_place(self, name: str) -> tuple[str, int | None, int | None]:
        """Part of the network, cell and node that a parameter belongs to."""

    def state_dict(self) -> dict[str, Tensor]:
        """Weights and buffers by name."""


@runtime_checkable
class CellModule(Protocol):
    """A module that trains cells, such as :class:`nas_lightning.classifier.CellClassifier`."""

    genotype: Genotype
    genotype_name: str
    drop_path: float
    hparams: Any
    if TYPE_CHECKING:
        network: CellNetworkLike

    def broadcast_statistics(self) -> None:
        """Give every rank the batch-norm statistics of rank 0."""

    def cell_description(self, image_size: int) -> dict[str, int | float]:
        """Width, depth, parameters and multiply-adds by name."""


@runtime_checkable
class ImageData(Protocol):
    """Data of one image size, such as :class:`nas_lightning.datamodules.ImageDataModule`."""

    name: str
    image_size: int
    evaluation_split: str
    split_sizes: dict[str, int]
    hparams: Any

    def split_source(self, split: Any) -> tuple[Tensor, Tensor, Tensor | None]:
        """Images, uint8, and classes that a split is taken from, and its rows in them; None: all."""

    def stays_on_host(self, size: int, device: torch.device) -> bool:
        """Whether images of so many bytes are too large for a device."""

    def normalise(self, images: Tensor, dtype: torch.dtype = ...) -> Tensor:
        """Inputs of the network."""


def cell_module(module: LightningModule) -> CellModule:
    """The trained module; a ValueError unless it trains cells."""
    if not isinstance(module, CellModule):
        raise ValueError(f"{type(module).__name__} trains no cells: this callback needs a CellClassifier")
    return module


def evaluation_split(trainer: Trainer) -> str:
    """The split that is evaluated after every epoch: that of image data, or ``"val"`` of any other."""
    data: object = trainer.datamodule  # type: ignore[attr-defined]
    return data.evaluation_split if isinstance(data, ImageData) else "val"
