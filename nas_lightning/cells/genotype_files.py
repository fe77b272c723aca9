"""Genotypes in files of any kind, read as text: programs, logs, notes, YAML and JSON."""

from __future__ import annotations

import codecs
import contextlib
import json
import re
from collections.abc import Sequence
from pathlib import Path

from nas_lightning.cells.forms import Reading
from nas_lightning.cells.genotype import FIELDS
from nas_lightning.cells.literal import FORM, Found, choose, find_genotypes, may_be_yaml
from nas_lightning.cells.python_text import shown
from nas_lightning.files import is_file
from nas_lightning.yaml_files import parse_yaml

_MAX_BYTES = 64 * 2**20
_DATA_SUFFIXES = (".yaml", ".yml", ".json")
_COLOURS = re.compile(r"\x1b\[[0-9;]{0,20}[A-Za-z]")


def read_genotype_file(path: Path, which: str = "") -> Reading:
    """Read a genotype of a file, with remarks on how it was read.

    Args:
        path: A file of any suffix. It is read as text: nothing in it is run or unpickled.
        which: Name or number (from 1) of one of several genotypes. By default the file's only one is taken,
            or the last where all have one name or none, as where a search prints one an epoch.

    Raises:
        FileNotFoundError: If there is no such file.
        OSError: If it cannot be read.
        ValueError: If it has no genotype, several names and none is chosen, or its genotype is not valid; one
            line that names the file.
    """
    found: list[Found] = []
    hint = ""
    try:
        found = list_genotypes(path)
        chosen = choose(found, which, str(path))
        hint = "" if which else _last_readable(path, found)
        reading = chosen.read()
    except ValueError as error:
        raise ValueError(f"genotype file {str(path)!r}: {error}{hint}") from None
    if len(found) > 1 and not which:
        last = "last" if found[-1].value is not None else "last that can be read"
        note = (
            f"{path} has {len(found)} genotypes: the {last} (line {chosen.line}) is taken; "
            f"{path}#1 is the first"
        )
        return Reading(reading.genotype, (note, *reading.notes))
    return reading


def _last_readable(path: Path, found: Sequence[Found]) -> str:
    """Which genotype to choose where the last is cut off or otherwise faulty; empty if all are."""
    for number in range(len(found), 0, -1):
        with contextlib.suppress(ValueError):
            found[number - 1].read()
            return f"; the last that can be read is {path}#{number} (line {found[number - 1].line})"
    return ""


def list_genotypes(path: Path) -> list[Found]:
    """All genotypes of a file, in their order; at least one.

    Raises:
        FileNotFoundError: If there is no such file.
        OSError: If it cannot be read.
        ValueError: If it has none, or is no text.
    """
    text = _read_text(path)
    found = find_genotypes(text)
    if not found:
        if path.suffix.lower() in _DATA_SUFFIXES and may_be_yaml(text):
            parse_yaml(text, str(path))  # says what is wrong with it
        raise ValueError(
            f"expected a mapping with the keys {', '.join(FIELDS)}, or a genotype literal: {FORM}"
        )
    return found


def _read_text(path: Path) -> str:
    if not is_file(path):
        name = str(path)
        raise FileNotFoundError(f"{name if len(name) < 500 else shown(name)} is not a file")
    with path.open("rb") as file:
        data = file.read(_MAX_BYTES + 1)
    if len(data) > _MAX_BYTES:
        raise ValueError(
            f"the file has more than {_MAX_BYTES // 2**20} MiB; cut out the part with the genotype"
        )
    if not data.strip():
        raise ValueError("the file is empty")
    if data.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        text = data.decode("utf-32", errors="replace")
    elif data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):  # what PowerShell writes
        text = data.decode("utf-16", errors="replace")
    elif b"\0" in data[:65536] or data.startswith((b"PK\x03\x04", b"\x80\x02", b"\x80\x04")):
        raise ValueError("this is no text file; genotypes are read from text alone, and nothing is unpickled")
    else:
        text = data.decode("utf-8-sig", errors="replace")
    if path.suffix.lower() == ".ipynb":
        text = _notebook_text(text)
    return _COLOURS.sub("", text)


def _notebook_text(text: str) -> str:
    """What stands in the cells of a notebook and in their outputs; another text as it is."""
    with contextlib.suppress(ValueError, RecursionError, KeyError, TypeError, AttributeError):
        lines: list[str] = []
        for cell in json.loads(text)["cells"]:
            for part in (cell, *cell.get("outputs", ())):
                source = part.get("source") or part.get("text") or part.get("data", {}).get("text/plain", "")
                lines.append(source if isinstance(source, str) else "".join(source))
        return "\n".join(lines)
    return text
