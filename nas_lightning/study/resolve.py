"""The settings of a run, resolved by the command line's own parser and kept for the next time.

The parser imports torch, which takes seconds. What it makes of a run's arguments is therefore kept in the
user's cache folder, by a hash of all that it depends on.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from nas_lightning.files import atomic_write
from nas_lightning.identity import flatten
from nas_lightning.private_files import cache_folder
from nas_lightning.yaml_files import read_config

_PACKAGE = Path(__file__).parents[1]
_KNOWN_PACKAGES = ("nas_lightning.", "torch.", "lightning.")


@dataclass(frozen=True)
class Resolved:
    """All settings of a training, and those that decide it, both with dotted keys.

    See :func:`nas_lightning.identity.deciding_settings`.
    """

    settings: Mapping[str, Any]
    deciding: Mapping[str, Any]


def resolve_settings(arguments: Sequence[str], files: Sequence[Path]) -> Resolved:
    """The settings of a training from the arguments of ``nas-lightning``, from ``fit`` on.

    ``files`` are the configuration files among them. What ``nas-lightning fit`` would refuse raises a
    ValueError.
    """
    contents = [read_config(path) for path in files]
    text = json.dumps([_software(), list(arguments), contents], default=str)
    folder = _cache_folder()
    kept = None if folder is None else folder / f"{hashlib.sha256(text.encode()).hexdigest()}.json"
    if kept is not None:
        try:
            nested, deciding = json.loads(kept.read_text(encoding="utf-8"))
            return Resolved(flatten(nested), deciding)
        except (OSError, ValueError, TypeError, AttributeError):
            pass
    from nas_lightning.cli.resolve import resolve

    nested, deciding = resolve(arguments)
    if kept is not None and _is_known(nested):
        try:
            with atomic_write(kept) as file:
                json.dump([nested, deciding], file)
        except OSError:  # a full disk: it is resolved again the next time
            pass
    return Resolved(flatten(nested), deciding)


def setting_arguments(settings: Mapping[str, Any]) -> list[str]:
    """Settings with dotted keys as arguments of the command line, in their order."""
    return [
        argument
        for key, value in settings.items()
        for argument in (f"--{key}", value if isinstance(value, str) else json.dumps(value, default=str))
    ]


def _is_known(settings: Mapping[str, Any]) -> bool:
    """Whether the defaults of all classes belong to software that :func:`_software` knows."""
    paths = re.findall(r'"class_path": "([^"]*)"', json.dumps(settings))
    return not settings["model"]["operations"] and all(path.startswith(_KNOWN_PACKAGES) for path in paths)


@cache
def _software() -> list[Any]:
    """What decides how settings are resolved, besides the arguments."""
    newest = max(path.stat().st_mtime_ns for path in _PACKAGE.rglob("*.py"))
    versions = [version(name) for name in ("lightning", "jsonargparse", "torch")]
    return [str(_PACKAGE), newest, *versions]


def _cache_folder() -> Path | None:
    folder = cache_folder()
    return None if folder is None else folder / "settings"
