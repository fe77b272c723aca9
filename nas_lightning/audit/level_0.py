"""Level 0 of an audit in pieces that are kept: a killed audit goes on where it was.

A piece is one cell's structure, controls, initial weights and verdict. Its file names what decides it, and a
piece of other settings or of an older version is measured again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache, cached_property
from importlib.metadata import version
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, get_args

from jaxtyping import Float, Int64
from torch import Tensor

from nas_lightning.audit.controls import Controls, matched_controls
from nas_lightning.audit.initial import Initial, InitialSettings, audit_initial, fixed_images
from nas_lightning.audit.plan import AuditSettings
from nas_lightning.audit.structure import NetworkSettings, audit_structure
from nas_lightning.audit.subjects import Subject
from nas_lightning.audit.verdict import level_0_verdict
from nas_lightning.datamodules import ImageDataModule
from nas_lightning.datamodules.base import Split
from nas_lightning.files import atomic_write
from nas_lightning.study.resolve import resolve_settings

FOLDER = "level_0"
INIT_CHANNELS, NUM_CELLS, STEM_STRIDE = 8, 20, 2
"""The network of level 0, where the settings name none."""

_ROWS = 4096
_MEASURING = ("controls", "initial", "stacked", "standing", "structure", "verdict")


@dataclass(frozen=True)
class AuditData:
    """The data set of an audit.

    Attributes:
        module: The data module, not yet set up.
        settings: Its deciding settings, by their dotted keys.
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
    for key, value in sorted(settings.settings.items(), key=lambda item: item[0].count(".")):
        arguments += [f"--{key}", value if isinstance(value, str) else json.dumps(value)]
    resolved = resolve_settings(arguments, settings.configs)
    prefix = "data.init_args."
    given = {k.removeprefix(prefix): v for k, v in resolved.settings.items() if k.startswith(prefix)}
    module: ImageDataModule = resolve_name(resolved.settings["data.class_path"])(**given)
    return AuditData(module, {k: v for k, v in resolved.deciding.items() if k.startswith("data.")})


def level_0_network(settings: AuditSettings, data: AuditData) -> NetworkSettings:
    """The network of level 0, for the data's images.

    It is small unless ``settings.settings`` say otherwise; configurations are those of the trainings.

    Raises:
        ValueError: If the settings ask for another stem than CIFAR's.
    """
    own = settings.settings
    if own.get("model.stem", "cifar") != "cifar":
        raise ValueError(f"`model.stem` (={own['model.stem']}) must be cifar: an audit knows this stem alone")
    return NetworkSettings(
        init_channels=int(own.get("model.init_channels", INIT_CHANNELS)),
        num_cells=int(own.get("model.num_cells", NUM_CELLS)),
        num_classes=data.module.num_classes,
        stem_stride=int(own.get("model.stem_stride", STEM_STRIDE)),
        image_size=data.module.image_size,
    )


def initial_settings(settings: AuditSettings, network: NetworkSettings) -> InitialSettings:
    """How initial weights are measured."""
    return InitialSettings(
        seeds=settings.initial_seeds,
        init_channels=network.init_channels,
        num_cells=network.num_cells,
        num_classes=network.num_classes,
        stem_stride=network.stem_stride,
    )


def draw_controls(subject: Subject, count: int, seed: int, network: NetworkSettings) -> Controls:
    """Matched controls of a cell; errors name it."""
    try:
        return matched_controls(
            subject.genotype,
            count,
            seed=seed,
            init_channels=network.init_channels,
            num_cells=network.num_cells,
            num_classes=network.num_classes,
        )
    except ValueError as error:
        raise type(error)(f"{subject.name}: {error}") from None


def audit_level_0(
    subject: Subject,
    controls: Controls | None,
    settings: AuditSettings,
    network: NetworkSettings,
    data: AuditData,
    folder: Path | None,
) -> dict[str, Any]:
    """Level 0 of a cell, measured or taken from its file.

    Args:
        subject: The cell.
        controls: Its controls; None leaves initial weights out.
        settings: The settings.
        network: The network of level 0.
        data: The data set.
        folder: The audit's folder, where the piece is kept; None keeps none.

    Returns:
        The records ``structure``, ``initial_controls``, ``initial`` and ``verdict``, and ``seconds``.
    """
    decides = {
        "genotype": str(subject.genotype),
        "network": asdict(network),
        "controls": None if controls is None else controls.record(),
        "initial_seeds": settings.initial_seeds,
        "images": settings.images,
        "data": None if controls is None else data.checksums,
    }
    path = None if folder is None else folder / FOLDER / f"{subject.name}.json"
    key = piece_key(decides)
    kept = read_piece(path, key)
    if kept is not None:
        return kept
    start = time.perf_counter()
    structure = audit_structure(subject.genotype, network)
    initial: Initial | None = None
    if controls is not None:
        initial = audit_initial(
            subject.genotype, controls, *data.images(settings.images), initial_settings(settings, network)
        )
    found = {
        "structure": structure.record(),
        "initial_controls": None if controls is None else controls.record(),
        "initial": None if initial is None else initial.record(),
        "verdict": level_0_verdict(structure, initial).record(),
        "seconds": round(time.perf_counter() - start, 2),
    }
    write_piece(path, key, found)
    return found


def piece_key(decides: Mapping[str, Any]) -> str:
    """SHA-256 of what decides a piece, and of the code that measures it."""
    text = json.dumps([_code(), decides], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


@cache
def _code() -> list[str]:
    """The version, and the SHA-256 of the modules that make a piece: a version changes while it is made."""
    here = Path(__file__).parent
    sources = [(here / f"{name}.py").read_bytes() for name in _MEASURING]
    return [version("nas-lightning"), *(hashlib.sha256(source).hexdigest() for source in sources)]


def read_piece(path: Path | None, key: str) -> dict[str, Any] | None:
    """A piece that is kept; None if there is none of this key."""
    if path is None or not path.is_file():
        return None
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        found = dict(kept["found"])
        whole = kept["key"] == key and kept["sum"] == _sum(found)
    except (ValueError, LookupError, TypeError):  # damaged: it is measured again
        return None
    return found if whole else None


def write_piece(path: Path | None, key: str, found: Mapping[str, Any]) -> None:
    """Keep a piece."""
    if path is not None:
        with atomic_write(path) as file:
            json.dump({"key": key, "sum": _sum(found), "found": found}, file)


def _sum(found: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(found).encode()).hexdigest()


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
