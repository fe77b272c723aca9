"""The data set of an audit."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pkgutil import resolve_name
from typing import Any, get_args

from jaxtyping import Float, Int64
from torch import Tensor

from nas_lightning.audit.initial import fixed_images
from nas_lightning.audit.settings import AuditSettings
from nas_lightning.datamodules import ImageDataModule
from nas_lightning.datamodules.base import Split
from nas_lightning.study.resolve import resolve_settings, setting_arguments

_ROWS = 4096
_OF_TRAININGS = (".batch_size", ".cutout")


@dataclass(frozen=True)
class AuditData:
    """The data set of an audit.

    Attributes:
        module: The data module, not yet set up.
        settings: What decides its images, by dotted keys.
    """

    module: ImageDataModule
    settings: Mapping[str, Any]

    @cached_property
    def checksums(self) -> dict[str, str]:
        """SHA-256 of every split's images and targets, in their order."""
        with _in_silence("lightning.pytorch.utilities.rank_zero"):
            self.module.prepare_data()
            self.module.setup("fit")
        splits: list[Split] = [split for split in get_args(Split) if split in self.module.split_sizes]
        return {split: _checksum(*self.module.split_arrays(split)) for split in splits}

    def require(self) -> None:
        """Load the data, so that what cannot be read is refused before a folder is made."""
        _ = self.checksums

    @cached_property
    def name(self) -> str:
        """Name of the data class, or of the folder of any images."""
        return str(self.settings.get("data.folder", type(self.module).__name__))

    def images(
        self, count: int
    ) -> tuple[Float[Tensor, "count channels height width"], Int64[Tensor, " count"]]:
        """Images that initial weights are measured on, and their classes."""
        return fixed_images(self.module, count)


def audit_data(settings: AuditSettings) -> AuditData:
    """The data set that the settings name.

    Raises:
        ValueError: If ``nas-lightning fit`` would refuse the settings.
        OSError: If a configuration cannot be read.
    """
    # As for the trainings: configurations go before the level's own data, and a stated name before both.
    arguments = ["fit", "--data", settings.data_class]
    arguments += [word for path in settings.configs for word in ("--config", str(path))]
    arguments += ["--model.genotype", "darts_v2"]
    if settings.data is not None:
        arguments += ["--data", settings.data]
    classes_first = sorted(settings.settings.items(), key=lambda item: item[0].count("."))
    arguments += setting_arguments(dict(classes_first))
    resolved = resolve_settings(arguments, settings.configs)
    prefix = "data.init_args."
    given = {k.removeprefix(prefix): v for k, v in resolved.settings.items() if k.startswith(prefix)}
    module: ImageDataModule = resolve_name(resolved.settings["data.class_path"])(**given)
    of_images = {
        key: value
        for key, value in resolved.deciding.items()
        if key.startswith("data.") and not key.endswith(_OF_TRAININGS)
    }
    return AuditData(module, of_images)


@contextmanager
def _in_silence(name: str) -> Iterator[None]:
    """Without a logger's information: data modules speak of trainings."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


def _checksum(images: Tensor, targets: Tensor) -> str:
    digest = hashlib.sha256()
    for tensor in (images, targets):
        digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
        for first in range(0, len(tensor), _ROWS):
            digest.update(tensor[first : first + _ROWS].contiguous().numpy().tobytes())
    return digest.hexdigest()
