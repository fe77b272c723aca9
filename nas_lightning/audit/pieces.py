"""Pieces of an audit that are kept: a killed audit goes on where it was.

A file names what decides its piece, the code that measured it included: one of other settings or of another
version is measured again, and so is a damaged one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from nas_lightning.files import atomic_write

_MEASURING = ("controls", "initial", "stacked", "standing", "structure", "verdict")


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
