"""What an audit is: its cells, its settings and its folder.

A folder belongs to one audit. ``audit.yaml`` says which, and is written before anything is measured. A later
audit of the same cells may add a level; with other cells or settings it is refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from nas_lightning.audit.subjects import Subject
from nas_lightning.files import atomic_write
from nas_lightning.identity import flatten
from nas_lightning.yaml_files import read_mapping

FILE = "audit.yaml"
LEVELS = (0, 1, 2)
CONTROLS = 19
"""Controls that are trained: rank 1 of 20 is p = 0.05."""
INITIAL_CONTROLS = 200
IMAGES = 4
SMALL_DATA = "Digits"
PAPERS_DATA = "CIFAR10"


@dataclass(frozen=True)
class AuditSettings:
    """The settings of an audit.

    Attributes:
        level: 0, without training; 1, a short training; 2, the paper's.
        data: Name of the data class; None takes the embedded digits, at level 2 CIFAR-10.
        configs: Configurations of ``nas-lightning fit`` for data and training.
        settings: Further settings of ``fit``, with dotted keys: ``data.root``, ``model.num_cells``.
        controls: Controls that are trained for each cell.
        seeds: Training seeds.
        initial: Whether level 0 measures initial weights.
        initial_controls: Controls whose initial weights are measured.
        initial_seeds: Initial seeds.
        images: Images that initial weights are measured on.
        control_seed: Seed of the draw of controls; the n-th cell's is n higher.
    """

    level: int = 0
    data: str | None = None
    configs: tuple[Path, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    controls: int = CONTROLS
    seeds: tuple[int, ...] = (0, 1, 2)
    initial: bool = True
    initial_controls: int = INITIAL_CONTROLS
    initial_seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    images: int = IMAGES
    control_seed: int = 0

    @property
    def data_class(self) -> str:
        """Name of the data class, unless configurations name another."""
        return self.data or (PAPERS_DATA if self.level == 2 else SMALL_DATA)

    @property
    def named_data(self) -> str | None:
        """Name of the data class; None where configurations may name it."""
        return self.data or (None if self.configs else self.data_class)

    def of_level_0(self) -> dict[str, Any]:
        """What decides the numbers of level 0, beside data and network."""
        names = ("initial", "initial_controls", "initial_seeds", "images", "control_seed")
        return {name: _plain(getattr(self, name)) for name in names}

    def of_training(self) -> dict[str, Any]:
        """What decides the trainings, beside the cells."""
        return {
            "data": self.named_data,
            "configs": [str(path.resolve()) for path in self.configs],
            "settings": dict(sorted(self.settings.items())),
            "controls": self.controls,
            "seeds": list(self.seeds),
            "control_seed": self.control_seed,
        }


def claim_folder(
    folder: Path, subjects: Sequence[Subject], settings: AuditSettings, network: Mapping[str, Any]
) -> None:
    """Make the folder this audit's own, or find that it is.

    Args:
        folder: The folder; it may be new or empty.
        subjects: The audited cells.
        settings: The settings; a level that the folder does not have yet is added.
        network: Data and network of level 0.

    Raises:
        ValueError: If it holds another audit or other files; the message names what differs.
        OSError: If it cannot be written.
    """
    cells = {subject.name: str(subject.genotype) for subject in subjects}
    own: dict[str, Any] = {"cells": cells, "level_0": settings.of_level_0() | dict(network)}
    if settings.level:
        own[f"level_{settings.level}"] = settings.of_training()
    own = json.loads(json.dumps(own, default=str))
    path = folder / FILE
    kept: dict[str, Any] = {}
    if path.is_file():
        kept = dict(read_mapping(path))
        _refuse_another(folder, kept, own)
    elif folder.is_dir() and any(folder.iterdir()):
        raise ValueError(f"{folder} holds other files and no {FILE}: give a new or an empty folder")
    elif folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is no folder")
    if kept | own != kept:
        with atomic_write(path) as file:
            file.write("# The audit that this folder belongs to, by nas-lightning audit.\n")
            yaml.safe_dump(kept | own, file, sort_keys=False, width=100)


def _refuse_another(folder: Path, kept: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    theirs, ours = kept.get("cells"), own["cells"]
    if theirs != ours:
        names = ", ".join(theirs) if isinstance(theirs, Mapping) else "other cells"
        same = " in other forms" if isinstance(theirs, Mapping) and set(theirs) == set(ours) else ""
        raise ValueError(f"{folder} holds another audit, of {names}{same}: give another folder")
    for level in own:
        if level not in kept or kept[level] == own[level]:
            continue
        before, now = (_flat(one[level]) for one in (kept, own))
        key = next(key for key in {**before, **now} if before.get(key) != now.get(key))
        raise ValueError(
            f"{folder} holds an audit with another `{key}` ({before.get(key)}; now {now.get(key)}): give "
            "another folder"
        )


def _flat(section: Any) -> dict[str, Any]:
    return flatten(section) if isinstance(section, Mapping) else {"settings": section}


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
