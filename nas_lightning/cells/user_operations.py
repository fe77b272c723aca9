"""Imports the modules and files in which users register their own operations."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

from nas_lightning.cells.own_modules import (
    cannot_import,
    import_named,
    imported_own_file,
    own_file,
    run_module,
)


def import_operations(modules: Sequence[str]) -> None:
    """Import the modules in which a user registers operations, each once in a process.

    Args:
        modules: Names of importable modules (the current folder is searched too), or paths of Python files,
            which end in ``.py``. A file is known by its path, not by its name: it hides no other module and
            no other file of the same name.

    Raises:
        ValueError: If a module or file cannot be found, or fails while it is imported.
    """
    for module in modules:
        if Path(module).suffix == ".py":
            _import_file(module)
        elif not import_named("operations", module, module):
            raise ValueError(
                f"`operations` names {module!r}, which is neither an importable module nor a file"
            )


def is_imported(module: str) -> bool:
    """Whether a module, or a Python file, is imported already."""
    if Path(module).suffix != ".py":
        return module in sys.modules
    path = _located(module)
    # Not getattr, which some modules answer by importing what they hold.
    files = [getattr(loaded, "__dict__", {}).get("__file__") for loaded in list(sys.modules.values())]
    return any(isinstance(f, str) and f.endswith(path.name) and Path(f).resolve() == path for f in files)


def operations_file(module: str) -> Path | None:
    """The file of an imported own module, or of a path of a Python file; None for all others."""
    if module.endswith(".py"):
        path = _located(module)
        return path if path.is_file() else None
    return imported_own_file(module)


def _located(file: str) -> Path:
    """A Python file in the working folder, or in one of the other folders of own modules."""
    return Path(file if Path(file).is_file() else own_file(file) or file).resolve()


def _import_file(file: str) -> None:
    path = _located(file)
    if not path.is_file():
        raise ValueError(f"`operations` names {file!r}, which is no file ({path})")
    if is_imported(file):
        return
    name = f"nas_lightning_operations_{hashlib.sha256(bytes(path)).hexdigest()[:16]}"
    try:
        run_module(importlib.util.spec_from_file_location(name, path))
    except (Exception, SystemExit) as error:
        raise cannot_import("operations", file, error) from error
