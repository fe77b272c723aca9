"""What the callbacks ask of the module that is trained and of its data, whoever wrote those."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from nas_lightning.cells import Genotype


@runtime_checkable
class CellNetworkLike(Protocol):
    """A network of cells, such as :class:`nas_lightning.networks.CellNetwork`."""

    drop_path_probability: float

    def state_dict(self) -> dict[str, Tensor]:
        """Weights and buffers by name."""


@runtime_checkable
class CellModule(Protocol):
    """A module that trains cells, such as :class:`nas_lightning.classifier.CellClassifier`."""

    genotype: Genotype
    genotype_name: str
    drop_path: float
    network: CellNetworkLike
    hparams: Any

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


def cell_module(module: LightningModule) -> CellModule:
    """The trained module, seen as one that trains cells.

    Raises:
        ValueError: If it is not.
    """
    if not isinstance(module, CellModule):
        raise ValueError(f"{type(module).__name__} trains no cells: this callback needs a CellClassifier")
    return module


def image_data(trainer: Trainer) -> ImageData:
    """The trainer's data module, seen as one of images.

    Raises:
        ValueError: If it is not.
    """
    data: object = trainer.datamodule  # type: ignore[attr-defined]
    if not isinstance(data, ImageData):
        raise ValueError(
            "this callback needs a data module of images, such as ImageDataModule: trainer.fit(...,"
            " datamodule=...)"
        )
    return data
