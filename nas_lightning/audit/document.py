"""The document of an audit: one JSON file of a stated schema, its badges and its page.

``schema.json`` states the form (JSON Schema 2020-12). A document is validated before it is written and when
it is read. NaN and infinity are null.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nas_lightning.audit.verdict import can_stand_out, tested_parts
from nas_lightning.cells import Genotype
from nas_lightning.files import atomic_write, shown

if TYPE_CHECKING:
    from jsonschema.protocols import Validator

FORMAT = "nas_lightning audit"
VERSION = 1
DOCUMENT, PAGE = "audit.json", "index.html"
_LONGEST = 160
"""Characters of an error that are shown: a whole part of a document may be quoted in it."""


def cell_record(
    name: str,
    spec: str,
    genotype: Genotype,
    verdict: Mapping[str, Any],
    structure: Mapping[str, Any],
    *,
    notes: Iterable[str] = (),
    initial_controls: Mapping[str, Any] | None = None,
    initial: Mapping[str, Any] | None = None,
    problem: str | None = None,
    training: Mapping[str, Any] | None = None,
    training_controls: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """One cell of a document, from the records of its parts; with its badge and its sentences.

    Args:
        name: Its name, fit for a file.
        spec: The genotype spec as it was given.
        genotype: The cells.
        verdict: ``Verdict.record()``.
        structure: ``Structure.record()``.
        notes: How the genotype was read.
        initial_controls: ``Controls.record()`` of the initial weights.
        initial: ``Initial.record()``.
        problem: Why a part is missing.
        training: ``Training.record()``.
        training_controls: ``Controls.record()`` of the trainings.
    """
    said = [*(training["sentences"] if training else ()), *verdict["sentences"]]
    return {
        "name": name,
        "spec": spec,
        "notes": list(notes),
        "genotype": genotype.as_mapping(),
        "badge": training["badge"] if training else level_0_badge(verdict, initial_controls),
        "sentences": said,
        "verdict": verdict,
        "structure": structure,
        "initial_controls": initial_controls,
        "initial": initial,
        "problem": problem,
        "training": training,
        "training_controls": training_controls,
    }


def level_0_badge(verdict: Mapping[str, Any], initial_controls: Mapping[str, Any] | None) -> str:
    """The verdict of level 0 in a few words, which count only what was decided.

    Where the controls are so few that no p-value could be small enough, initial weights decide nothing.
    """
    wiring, weights = verdict["structure"], verdict["initial"]
    if initial_controls is None or not can_stand_out(len(weights), initial_controls["count"]):
        weights = []
    tested = [*wiring, *weights]
    if not tested:
        return "level 0: nothing could be tested"
    out = sum(found["stands_out"] for found in tested)
    if out:
        return f"level 0: unusual in {out} of {len(tested)} properties"
    decided = "" if weights else f"{' and '.join(tested_parts(found['key'] for found in wiring))} "
    return f"level 0: {decided}as expected of a random cell"


def assemble(
    *,
    level: int,
    date: str,
    settings: Mapping[str, Any],
    cells: Sequence[Mapping[str, Any]],
    repeat: Mapping[str, Any],
    backdrop: Sequence[Mapping[str, Any]] = (),
    compared_with: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Put a document together and validate it.

    Args:
        level: 0, 1 or 2.
        date: Day of the audit, such as ``"2026-11-27"``.
        settings: Settings of the audit.
        cells: The cells, each by :func:`cell_record`.
        repeat: How to repeat the audit.
        backdrop: Published cells.
        compared_with: Another audit, by :func:`nas_lightning.audit.compare.compare`.

    Raises:
        ValueError: If it does not fit the schema.
    """
    document: dict[str, Any] = plain(
        {
            "format": FORMAT,
            "version": VERSION,
            "level": level,
            "date": date,
            "settings": settings,
            "cells": cells,
            "backdrop": backdrop,
            "repeat": repeat,
        }
        | ({} if compared_with is None else {"compared_with": compared_with})
    )
    validate(document)
    return document


def plain(value: Any) -> Any:
    """Values as JSON has them: NumPy's as Python's, tuples as lists, NaN and infinity as None."""
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, str | int | bool) else str(value)


def validate(document: Any, part: str = "") -> None:
    """Hold a document against the schema.

    Args:
        document: The document, or a part of one.
        part: Which definition of the schema it must fit, such as ``"training"``; empty for all of it.

    Raises:
        ValueError: If it does not fit; the message names the entry.
    """
    from jsonschema.exceptions import best_match

    error = best_match(_validator(part).iter_errors(document))
    if error is not None:
        place = "/".join(map(str, error.absolute_path)) or "the document"
        message = shown(error.message)
        if len(message) > _LONGEST:
            message = f"{message[: _LONGEST // 2]} ... {message[-_LONGEST // 2 :]}"
        raise ValueError(f"{place}: {message}")


@cache
def _validator(part: str) -> Validator:
    from jsonschema import Draft202012Validator

    definitions = schema()["$defs"]
    return Draft202012Validator(definitions[part] | {"$defs": definitions} if part else schema())


@cache
def schema() -> dict[str, Any]:
    """The schema of documents."""
    text = (files("nas_lightning.audit") / "schema.json").read_text(encoding="utf-8")
    read: dict[str, Any] = json.loads(text)
    return read


def write_document(folder: Path, document: Mapping[str, Any]) -> Path:
    """Write ``audit.json``, a badge a cell, and last the page.

    The badge of a single cell is ``badge.svg``; those of several are ``badge-NAME.svg``. The same document
    gives the same bytes.

    Args:
        folder: Where to; made where it does not exist.
        document: From :func:`assemble`.

    Returns:
        The page, ``index.html``.

    Raises:
        ValueError: If the document does not fit the schema; then nothing is written.
        OSError: If a file cannot be written.
    """
    from nas_lightning.audit.badge import badge
    from nas_lightning.audit.page import page

    document = plain(document)
    validate(document)
    cells = document["cells"]
    texts = {DOCUMENT: json.dumps(document, indent=1, allow_nan=False, ensure_ascii=False) + "\n"}
    for cell in cells:
        texts[badge_file(cell["name"], alone=len(cells) == 1)] = badge(cell["badge"])
    texts[PAGE] = page(document)
    for name, text in texts.items():
        with atomic_write(folder / name) as file:
            file.write(text)
    return folder / PAGE


def badge_file(name: str, *, alone: bool) -> str:
    """Name of the file of a cell's badge."""
    return "badge.svg" if alone else f"badge-{name}.svg"


def read_document(path: Path) -> dict[str, Any]:
    """Read a document, ``audit.json`` or the folder that holds it.

    Raises:
        ValueError: If the file is no audit, of a newer version, or damaged.
        OSError: If it cannot be read.
    """
    if path.is_dir():
        path = path / DOCUMENT
    name = shown(path)
    try:
        document = json.loads(path.read_bytes(), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name} is no audit: it is not JSON ({shown(str(error))})") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise ValueError(f"{name} is no audit: it is JSON, but not what nas-lightning audit writes")
    version = document.get("version")
    if isinstance(version, int) and version > VERSION:
        raise ValueError(
            f"{name} is an audit of version {version}, from a newer nas_lightning; this one reads version "
            f"{VERSION}"
        )
    try:
        validate(document)
    except ValueError as error:
        raise ValueError(f"{name} is damaged: {error}") from error
    return document


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no value of JSON")
