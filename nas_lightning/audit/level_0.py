"""Level 0 of one cell: its structure, its controls, its initial weights and the verdict on them."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nas_lightning.audit.controls import Controls, matched_controls
from nas_lightning.audit.data import AuditData
from nas_lightning.audit.initial import Initial, InitialSettings, audit_initial
from nas_lightning.audit.pieces import piece_key, read_piece, write_piece
from nas_lightning.audit.settings import AuditSettings
from nas_lightning.audit.structure import NetworkSettings, audit_structure
from nas_lightning.audit.subjects import Subject
from nas_lightning.audit.verdict import level_0_verdict

FOLDER = "level_0"
INIT_CHANNELS, NUM_CELLS, STEM_STRIDE = 8, 20, 2
"""The network of level 0, where the settings name none."""


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
