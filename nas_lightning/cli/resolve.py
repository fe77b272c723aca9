"""What the command line makes of the arguments of a training, without training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any, ClassVar

import torch
from jsonargparse import Namespace

from nas_lightning import datamodules
from nas_lightning.cli.deciding import decisive, plain_settings
from nas_lightning.cli.training import TrainingCLI


class SettingsOnly(TrainingCLI):
    """`nas-lightning fit` up to the settings: it makes the data and the model, so that they check them.

    The model's parameters have no memory, nothing is read or written, and no seed is set.
    """

    _made: ClassVar[dict[str, Any] | None] = None
    """The parser of the last one: making it takes longer than all else, and a study has many runs."""

    def setup_parser(self, *arguments: Any) -> None:
        """Make the parser, or take the one that is made."""
        made, SettingsOnly._made = SettingsOnly._made, None
        if made is None:
            super().setup_parser(*arguments)
            names = ("parser", "_subcommand_parsers", "_subcommand_method_arguments")
            made = {name: getattr(self, name) for name in names}
        vars(self).update(made)
        SettingsOnly._made = made

    def _parse_again(self, defaults: dict[str, Any]) -> Namespace:
        """Leave the parser to this one: it gets defaults of its own."""
        SettingsOnly._made = None
        return super()._parse_again(defaults)

    def instantiate_classes(self) -> None:
        """Make data and model, on no device."""
        with torch.device("meta"):
            super().instantiate_classes()

    def instantiate_trainer(self, **_: Any) -> Any:
        """What the checks ask of a trainer."""
        return SimpleNamespace(max_epochs=self.settings.trainer.max_epochs)

    def _set_seed(self) -> None: ...

    def _run_subcommand(self, subcommand: str) -> None: ...


def resolve(arguments: Sequence[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The settings that ``nas-lightning`` would train with, given its arguments from ``fit`` on.

    First all settings, nested, as plain values; then, with dotted keys, those that decide the training. What
    ``nas-lightning fit`` would refuse raises a ValueError.
    """
    settings = plain_settings(SettingsOnly(list(arguments)).settings.as_dict())
    return settings, decisive(settings)


def data_size(name: str, arguments: Mapping[str, Any]) -> dict[str, int]:
    """Images of both splits, side in pixels and classes of a folder of images, from its files.

    Raises:
        OSError: If the folder is not there, or holds no image.
        ValueError: If it is no data set.
    """
    data: datamodules.ImageFolder = getattr(datamodules, name)(**arguments)
    counts = data.listed_counts()
    sizes = {"image_size": data.image_size, "num_classes": data.num_classes}
    return {"train": counts["train"], "test": counts["test"], **sizes}
