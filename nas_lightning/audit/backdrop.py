"""The published cells behind an audited one: their shapes, sizes and initial weights.

Initial weights of all published cells take half a minute. Those of the default network on the embedded digits
are kept in ``backdrop.json``; ``python -m nas_lightning.audit.backdrop`` measures them anew. With other
settings they are measured during the audit and kept in its folder.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from nas_lightning.audit.data import AuditData, audit_data
from nas_lightning.audit.initial import STATISTICS, measure_all
from nas_lightning.audit.level_0 import initial_settings, level_0_network
from nas_lightning.audit.pieces import piece_key, read_piece, write_piece
from nas_lightning.audit.settings import AuditSettings
from nas_lightning.audit.structure import NetworkSettings
from nas_lightning.cells import (
    cell_depth,
    cell_path,
    cell_width,
    count_parameters,
    multiply_adds,
    published_genotypes,
)
from nas_lightning.files import atomic_write
from nas_lightning.provenance import software_versions

KEPT = "backdrop.json"
_DIGITS = 6

Medians = dict[str, dict[str, float | None]]
"""Median over seeds of every statistic, by the name of the cell."""


def published_backdrop(
    settings: AuditSettings, network: NetworkSettings, data: AuditData, folder: Path | None
) -> list[dict[str, Any]]:
    """What is known of every published cell in the audit's network.

    Args:
        settings: The settings of the audit.
        network: The network of level 0.
        data: The data set.
        folder: The audit's folder, where measurements are kept; None keeps none.

    Returns:
        For every cell its ``name``, ``normal_width`` (in units of c), ``normal_depth``, ``normal_path`` (in
        stages), ``live_parameters``, ``multiply_adds`` and ``initial``, the medians over seeds of every
        statistic of initial weights (None if they are not measured).
    """
    medians = initial_medians(settings, network, data, folder) if settings.initial else {}
    entries = []
    for name, published in published_genotypes().items():
        genotype = published.genotype
        cell = genotype.normal, genotype.normal_concat
        entries.append(
            {
                "name": name,
                "normal_width": cell_width(*cell),
                "normal_depth": cell_depth(*cell),
                "normal_path": cell_path(*cell),
                "live_parameters": count_parameters(
                    genotype,
                    init_channels=network.init_channels,
                    num_cells=network.num_cells,
                    num_classes=network.num_classes,
                    live=True,
                ),
                "multiply_adds": multiply_adds(genotype, **asdict(network)),
                "initial": medians.get(name),
            }
        )
    return entries


def initial_medians(
    settings: AuditSettings, network: NetworkSettings, data: AuditData, folder: Path | None
) -> Medians:
    """Medians over seeds of the published cells' initial weights, kept or measured."""
    decides = _decides(settings, network, data)
    kept = _kept()
    if kept is not None and kept["decides"] == decides:
        found: Medians = kept["medians"]
        return found
    path = None if folder is None else folder / KEPT
    key = piece_key(decides)
    piece = read_piece(path, key)
    if piece is None:
        piece = measured_medians(settings, network, data)
        write_piece(path, key, piece)
    return piece


def measured_medians(settings: AuditSettings, network: NetworkSettings, data: AuditData) -> Medians:
    """Measure every published cell."""
    published = published_genotypes()
    genotypes = [entry.genotype for entry in published.values()]
    images, targets = data.images(settings.images)
    measured = measure_all(genotypes, images, targets, initial_settings(settings, network))
    return {
        name: {statistic: _rounded(float(np.median(of_one[statistic]))) for statistic in STATISTICS}
        for name, of_one in zip(published, measured, strict=True)
    }


def _decides(settings: AuditSettings, network: NetworkSettings, data: AuditData) -> dict[str, Any]:
    return {
        "network": asdict(network),
        "seeds": list(settings.initial_seeds),
        "images": settings.images,
        "data": data.checksums,
    }


def _rounded(value: float) -> float | None:
    return float(f"{value:.{_DIGITS}g}") if np.isfinite(value) else None


def _kept() -> Mapping[str, Any] | None:
    file = files("nas_lightning.audit") / KEPT
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None


def main() -> None:
    """Measure the default backdrop and keep it beside this module."""
    settings = AuditSettings()
    data = audit_data(settings)
    network = level_0_network(settings, data)
    decides = _decides(settings, network, data)
    record = {
        "decides": decides,
        "versions": software_versions(),
        "medians": measured_medians(settings, network, data),
    }
    with atomic_write(Path(__file__).with_name(KEPT)) as file:
        json.dump(record, file, indent=1)
        file.write("\n")


if __name__ == "__main__":
    main()
