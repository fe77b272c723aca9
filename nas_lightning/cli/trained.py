"""A trained network from a checkpoint, with its data, for subcommands that do not train."""

from __future__ import annotations

import argparse
import pkgutil
from pathlib import Path

from nas_lightning.cells.own_modules import search_own_modules
from nas_lightning.classifier import CellClassifier
from nas_lightning.cli.checkpoint_settings import read_checkpoint_settings
from nas_lightning.cli.run_folder import checkpoint_file
from nas_lightning.datamodules import ImageDataModule
from nas_lightning.image_record import ImageRecord
from nas_lightning.torch_files import read_torch_file


def load_trained(options: argparse.Namespace) -> tuple[CellClassifier, ImageRecord | ImageDataModule | None]:
    """The module of a checkpoint, in evaluation mode, and what its images were like.

    That is the data set itself where only its name is in the checkpoint, and None where nothing is.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged, no checkpoint of this program, or names code that is not allowed.
    """
    path = checkpoint_file(options.checkpoint)
    search_own_modules([Path(code).absolute() for code in options.code])
    module = CellClassifier.load_from_checkpoint(path).eval()
    return module, module.images or trained_data(path)


def trained_data(checkpoint: Path, root: str | None = None) -> ImageDataModule | None:
    """The data that a checkpoint was trained on, not yet read; None if it does not say.

    Raises:
        FileNotFoundError: If there is no such data or checkpoint.
        ValueError: If the data has other classes than that of the training.
    """
    settings = read_checkpoint_settings(checkpoint_file(checkpoint))
    if settings.data_class is None:
        return None
    root = settings.root if root is None else root
    arguments = settings.data | ({} if root is None else {"root": root})
    data: ImageDataModule = pkgutil.resolve_name(settings.data_class)(**arguments)
    state = read_torch_file(checkpoint_file(checkpoint), mmap=True).get(type(data).__qualname__)
    if state:
        data.load_state_dict(state)
    return data
