"""Classes of the user's own: found where the command says, remembered by the run, found again from anywhere.

``--data mine.Mine`` needs ``mine.py`` in the working folder, in a folder of ``--code`` or installed. A run
writes the files of its own modules into its ``config.yaml`` (as ``code``) and into its checkpoints (as
``own_code``). A checkpoint alone imports nothing that the user has not allowed, see
:func:`nas_lightning.callbacks.own_code.recall_own_code`.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from nas_lightning.callbacks.checkpoint_structure import class_paths
from nas_lightning.cells.own_modules import (
    import_named,
    imported_own_file,
    module_root,
    own_file,
    search_own_modules,
)
from nas_lightning.cells.user_operations import operations_file
from nas_lightning.files import is_file
from nas_lightning.identity import as_list
from nas_lightning.yaml_files import read_mapping

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
    for key, value, given in settings_in(arguments):
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


def settings_in(arguments: Sequence[str]) -> Iterator[tuple[str, Any, list[str]]]:
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
