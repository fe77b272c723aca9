"""The user's own modules in checkpoints: their files are noted, and found again where the user allows it."""

from __future__ import annotations

import os
import re
import stat
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info

from nas_lightning.callbacks.checkpoint_structure import check_structure, named_code, refuse_foreign_code
from nas_lightning.callbacks.checkpoints import folder_of
from nas_lightning.cells.own_modules import (
    import_named,
    own_file,
    own_folders,
    same_file,
    search_own_modules,
)
from nas_lightning.cells.user_operations import import_operations, is_imported, operations_file
from nas_lightning.identity import as_list
from nas_lightning.torch_files import read_torch_file
from nas_lightning.yaml_files import read_mapping

OWN_CODE = "own_code"
"""Entry of a checkpoint: the files of the user's own modules, by the names that the settings give them."""


class OwnCode(Callback):
    """Writes the files of the user's own modules into every checkpoint."""

    def __init__(self, code: Mapping[str, str]) -> None:
        self.code = dict(code)

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the files."""
        checkpoint[OWN_CODE] = self.code


def recall_own_code(
    said: str,
    path: Path,
    checkpoint: Mapping[str, Any],
    model: Mapping[str, Any],
    data_class: object,
    data: Mapping[str, Any],
) -> None:
    """Import the own modules that a checkpoint names, where the user has allowed it.

    What the command names is imported already. Of the rest, a module is imported from

    - a file in the working folder or in a folder of ``--code``;
    - the file that the checkpoint remembers, if the ``config.yaml`` of its run names that file too (as
      ``code``), if both belong to the user and not everybody may write to them, and if the file lies outside
      the run's folder, so that a folder from elsewhere brings no code along.

    In both cases the file must contain the name of the class, or ``register_operation``.

    Args:
        said: The checkpoint, for messages.
        path: Its file.
        checkpoint: What it holds.
        model: The settings of its network.
        data_class: The import path of its data set, None where it has none.
        data: The settings of its data set.

    Raises:
        ValueError: If a module is gone, or must not be imported; one line says how to give or allow it.
    """
    remembered = checkpoint.get(OWN_CODE)
    operations, named = named_code(said, model, data_class, data)
    wanted = dict.fromkeys(operations, "register_operation")
    for _, name in named:
        module, _, word = str(name).rpartition(".")
        wanted |= {module: word} if module else {}
    for module, word in wanted.items():
        file = remembered.get(module) if isinstance(remembered, Mapping) else None
        trained = Path(file if isinstance(file, str) else module)
        if is_imported(module):
            now = operations_file(module)
            if now is not None and trained.is_file() and not same_file(now, trained):
                rank_zero_info(f"{module} is taken from {now}; the checkpoint was trained with {trained}")
        elif module.partition(".")[0] not in sys.stdlib_module_names:
            _recall(said, path, module, word, trained)


def read_allowed_checkpoint(
    path: Path, known: Mapping[str, Any], settings: Mapping[str, Any]
) -> Mapping[str, Any]:
    """Read a checkpoint of a CellClassifier, and import the own modules that its network needs.

    Args:
        path: The file.
        known: The settings of a CellClassifier, by name.
        settings: Settings in place of the checkpoint's.

    Raises:
        ValueError: If it is damaged, no such checkpoint, or names code that is not allowed.
    """
    import_operations(settings.get("operations") or ())
    checkpoint: Mapping[str, Any] = read_torch_file(path, mmap=True)
    check_structure(str(path), checkpoint, known)
    model = {**(checkpoint.get("hyper_parameters") or {}), **settings}
    recall_own_code(str(path), path, checkpoint, model, None, {})
    refuse_foreign_code(str(path), model)
    return checkpoint


def _recall(said: str, checkpoint: Path, module: str, word: str, trained: Path) -> None:
    """Import one module, if its file is where the user has allowed it."""
    file = own_file(module)
    is_there = trained.is_file()
    if file is not None and not any(file.resolve().is_relative_to(f.resolve()) for f in own_folders()):
        file = None
    if file is not None and is_there and not same_file(file, trained):
        file = None  # which of the two is meant?
    if file is None and is_there and _run_names(checkpoint, trained):
        search_own_modules([trained])
        file = trained
    if file is not None and re.search(rf"\b{re.escape(word)}\b", file.read_text(errors="replace")):
        if module.endswith(".py"):
            import_operations([module])
        else:
            import_named("ckpt_path", module, module)
    elif trained.is_absolute():
        raise ValueError(_not_imported(said, module, trained))


def _not_imported(said: str, module: str, file: Path) -> str:
    if not file.is_file():
        return f"{said} needs {module!r} of {file}, which is gone: `--code FOLDER` says where it is now"
    return (
        f"{said} needs {module!r} of {file}, which it must not import by itself:"
        f" allow it with `--code {file}`, or import it first in Python"
    )


def _run_names(checkpoint: Path, file: Path) -> bool:
    """Whether the run's own ``config.yaml`` names a file, and only the user could have written both."""
    run = folder_of(checkpoint)
    config = run / "config.yaml"
    try:
        if file.resolve().is_relative_to(run.resolve()) or not all(map(_is_users, (config, file))):
            return False
        named = [Path(entry).resolve() for entry in as_list(read_mapping(config).get("code"))]
    except (OSError, ValueError, TypeError):
        return False
    return any(entry == file.resolve() or entry in file.resolve().parents for entry in named)


def _is_users(path: Path) -> bool:
    status = path.stat()
    return status.st_uid == os.getuid() and not status.st_mode & stat.S_IWOTH
