"""The folder of an audit: it belongs to one.

``audit.yaml`` says which, and is written before anything is measured. A later audit of the same cells may add
a level; with other cells or settings it is refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from nas_lightning.audit.settings import AuditSettings
from nas_lightning.audit.subjects import Subject
from nas_lightning.files import atomic_write
from nas_lightning.identity import flatten
from nas_lightning.yaml_files import read_mapping

FILE = "audit.yaml"


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
        if not isinstance(kept.get("cells"), dict):
            raise ValueError(f"{path} is damaged: it names no cells; give another folder")
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
    theirs, ours = kept["cells"], own["cells"]
    if theirs != ours:
        same = " in other forms" if set(theirs) == set(ours) else ""
        raise ValueError(f"{folder} holds another audit, of {', '.join(theirs)}{same}: give another folder")
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
