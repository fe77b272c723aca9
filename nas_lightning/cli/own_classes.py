"""Classes of the user's own: found where the command says, remembered by the run, found again from anywhere.

``--data mine.Mine`` needs ``mine.py`` in the working folder, in a folder of ``--code`` or installed. A run
writes the files of its own modules into its ``config.yaml`` (as ``code``) and into its checkpoints (as
``own_code``). A checkpoint alone imports nothing that the user has not allowed, see :func:`recall_own_code`.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import stat
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info

from nas_lightning.callbacks.checkpoint_structure import class_paths, named_code
from nas_lightning.cells.own_modules import (
    import_named,
    imported_own_file,
    module_root,
    own_file,
    own_folders,
    same_file,
    search_own_modules,
)
from nas_lightning.cells.user_operations import import_operations, is_imported, operations_file
from nas_lightning.cli.run_folder import folder_of
from nas_lightning.files import is_file
from nas_lightning.identity import as_list
from nas_lightning.yaml_files import read_mapping

OWN_CODE = "own_code"
"""Entry of a checkpoint: the files of the user's own modules, by the names that the settings give them."""

_CLASS_SETTINGS = (
    *("data", "model.optimizer", "model.lr_scheduler", "trainer.callbacks", "trainer.logger"),
    *("trainer.strategy", "trainer.plugins", "trainer.profiler", "trainer.accelerator"),
)
_IMPORT_PATH = re.compile(r"([^\W\d]\w*(?:\.[^\W\d]\w*)*)\.[^\W\d]\w*")


def with_own_classes(arguments: Sequence[str]) -> list[str]:
    """Import the own modules that the arguments name, so that the parser finds their classes.

    Args:
        arguments: The arguments of the command, configuration files among them.

    Returns:
        The arguments, with all values of ``code`` as one list of absolute paths.

    Raises:
        ValueError: If a value of ``code`` is no file and no folder, or a module fails while it is imported.
    """
    code: list[str] = []
    gone: list[Path] = []  # what a file of settings remembers, such as a run's own
    rest: list[str] = []
    named: list[tuple[str, str]] = []
    for key, value, given in _settings(arguments):
        if key == "code":
            if value is None:
                raise ValueError("`code` needs a value")
            code += [_path(entry) for entry in as_list(value)]
            continue
        rest += given
        if key == "config" and isinstance(value, Mapping):
            for entry in as_list(value.get("code")):
                if isinstance(entry, str) and Path(entry).is_absolute() and not Path(entry).exists():
                    gone.append(Path(entry))
                else:
                    code.append(_path(entry))
            named += _named_in_file(value)
        elif key.removesuffix(".class_path") in _CLASS_SETTINGS:
            named += [(key, name) for name in _names(value)]
    search_own_modules(map(Path, dict.fromkeys(code)))
    for key, name in named:
        module = _IMPORT_PATH.fullmatch(name)
        if module is not None:
            _import_class(key, name, module.group(1), gone)
    return rest + ([f"--code={json.dumps(list(dict.fromkeys(code)))}"] if code or gone else [])


def _settings(arguments: Sequence[str]) -> Iterator[tuple[str, Any, list[str]]]:
    """Key, value and text of each argument; files of settings as what they hold."""
    remaining = list(arguments)
    while remaining:
        argument = remaining.pop(0)
        key, equals, value = argument.partition("=")
        given = [argument]
        if argument.startswith("--") and not equals and remaining and not remaining[0].startswith("--"):
            value = remaining.pop(0)
            given.append(value)
        key = key.removeprefix("--").removesuffix("+")
        try:
            content = (
                read_mapping(Path(value)) if key == "config" and is_file(value) else yaml.safe_load(value)
            )
        except (ValueError, yaml.YAMLError, RecursionError):  # the parser explains it
            content = value
        yield key, content, given


def _path(entry: Any) -> str:
    """A file or folder of ``code``, made absolute."""
    path = Path(entry) if isinstance(entry, str) and entry else None
    if path is None or not (path.is_dir() or (path.suffix == ".py" and path.is_file())):
        raise ValueError(f"`code` (={entry}) must be a Python file or a folder that exists")
    return os.path.abspath(path)  # noqa: PTH100 (without links followed: the name is the user's)


def _named_in_file(settings: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key in _CLASS_SETTINGS:
        group, _, name = key.partition(".")
        value = settings.get(group)
        if name and isinstance(value, Mapping):
            value = as_list(value.get(name)) + as_list(value.get(f"{name}+"))
        elif name:
            continue
        yield from ((key, path) for path in _names(value))


def _names(value: Any) -> Iterator[str]:
    """The classes in a value: a name, a mapping with ``class_path``, or a list of them."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        if isinstance(value.get("class_path"), str):
            yield value["class_path"]
        for inner in value.values():
            if isinstance(inner, Mapping | list):
                yield from _names(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _names(inner)


def _import_class(key: str, name: str, module: str, gone: Sequence[Path]) -> None:
    """Import the module of an own class; the parser explains what is not there."""
    top = module.partition(".")[0]
    if own_file(top) is not None:
        import_named(key, name, module)
    elif top not in sys.modules and importlib.util.find_spec(top) is None:
        for path in gone:
            if path.stem == top or path.suffix != ".py":
                raise ValueError(
                    f"`{key}` names {name!r} of {path}, which is gone: `--code FOLDER` says where it is now"
                )


def own_code(settings: Mapping[str, Any]) -> dict[str, str]:
    """The files of the own modules that settings name, by module, or for operations by their path."""
    modules = [str(path).rpartition(".")[0] for path in class_paths(settings)]
    files = {module: imported_own_file(module) for module in modules if module}
    files |= {name: operations_file(name) for name in settings["model"].get("operations") or ()}
    return {name: str(file) for name, file in files.items() if file is not None}


def code_setting(code: Mapping[str, str]) -> list[str]:
    """The value of ``code`` with which the modules are found: files, and for packages the folder above."""
    entries = []
    for name, file in code.items():
        root = module_root(Path(file))
        is_alone = name.endswith(".py") or root == Path(file).parent
        entries.append(file if is_alone else str(root))
    return list(dict.fromkeys(entries))


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
    must_not = "which it must not import by itself"
    return f"{said} needs {module!r} of {file}, {must_not}: allow it with `--code {file}`"


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
