"""What a checkpoint must be made of before its settings are used, and which code it may name."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from nas_lightning.cells.user_operations import is_imported
from nas_lightning.image_record import read_image_record

# Entries of a checkpoint of this program, and what they are. Those of the second part are needed to resume.
_NEEDED = {"state_dict": Mapping, "genotype": str, "epoch": int}
_RESUMING = {"loops": Mapping, "optimizer_states": list, "lr_schedulers": list, "global_step": int}
_OPTIONAL = {
    "hyper_parameters": Mapping,
    "datamodule_hyper_parameters": Mapping,
    "trainer": Mapping,
    "callbacks": Mapping,
    "seed_everything": int,
    "ended": str,
}
_FACTORIES = ("optimizer", "lr_scheduler")
_IMPORT_PATH = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+")


def check_structure(
    said: str, checkpoint: Any, model_settings: Mapping[str, Any], *, resuming: bool = False
) -> None:
    """Refuse what is no checkpoint of a CellClassifier, by the entry that is not as it should be.

    Args:
        said: The file, for messages.
        checkpoint: What it holds.
        model_settings: The settings of a CellClassifier, by name.
        resuming: Whether a training is to go on, which takes more than the weights.
    """
    foreign = f"{said} is not a checkpoint of a CellClassifier"
    if not isinstance(checkpoint, Mapping):
        raise ValueError(f"{foreign}: it is of type {type(checkpoint).__name__}")
    needed = _NEEDED | (_RESUMING if resuming else {})
    for name, kind in (needed | _OPTIONAL).items():
        value = checkpoint.get(name)
        if value is None and name in needed and name in _RESUMING:
            raise ValueError(
                f"{said} cannot resume a training: it holds weights without `{name}`;"
                " use `--ckpt_path last` or another checkpoint"
            )
        if value is None and name in needed:
            raise ValueError(f"{foreign}: it has no `{name}`")
        if value is not None and (not isinstance(value, kind) or isinstance(value, bool)):
            what = {Mapping: "a mapping", str: "text", int: "a whole number", list: "a list"}[kind]
            raise ValueError(f"{foreign}: its `{name}` is of type {type(value).__name__}, not {what}")
        if isinstance(value, Mapping) and not all(isinstance(key, str) for key in value):
            raise ValueError(f"{foreign}: a name in its `{name}` is no text")
    for name, tensor in checkpoint["state_dict"].items():
        if not isinstance(tensor, Tensor):
            raise ValueError(
                f"{foreign}: `{name}` of its state dict is of type {type(tensor).__name__}, no tensor"
            )
    if checkpoint["epoch"] < 0:
        raise ValueError(f"{foreign}: its `epoch` (={checkpoint['epoch']}) is negative")
    for name in ("hyper_parameters", "datamodule_hyper_parameters", "trainer"):
        if (odd := _other_than_plain(checkpoint.get(name))) is not None:
            raise ValueError(
                f"{foreign}: a value in its `{name}` is of type {type(odd).__name__}, which no setting has"
            )
    if checkpoint.get("images") is not None:
        try:
            read_image_record(checkpoint["images"])
        except ValueError as error:
            raise ValueError(f"{said}: {error}") from error
    settings = checkpoint.get("hyper_parameters") or {}
    unknown = [name for name in settings if not name.startswith("_") and name not in model_settings]
    if "ends" in unknown:
        raise ValueError(f"{said} holds a curve between two networks (`model.ends`), not one network")
    if unknown:
        raise ValueError(f"{foreign}: it has no setting `{unknown[0]}`")


def check_shapes(own: Mapping[str, Tensor], loaded: Mapping[str, Tensor]) -> None:
    """Refuse a checkpoint's tensors that are not those of the network, by the name of the first."""
    for name in {**own, **loaded}:
        shapes = [tuple(state[name].shape) if name in state else None for state in (own, loaded)]
        if shapes[0] != shapes[1]:
            raise ValueError(
                f"the checkpoint's tensor {name} has shape {shapes[1]}, but the network's has"
                f" {shapes[0]}: it was trained with another network"
            )


def refuse_foreign_code(
    said: str, settings: Mapping[str, Any], data_class: object = None, data: Mapping[str, Any] | None = None
) -> None:
    """Refuse a checkpoint that names code which is neither this program's nor imported already.

    A checkpoint imports nothing: the user decides which code runs. What the command names is imported before
    this is asked.

    Args:
        said: The checkpoint, for messages.
        settings: The settings of its network.
        data_class: The import path of its data set, None where it has none.
        data: The settings of its data set.
    """
    operations, named = named_code(said, settings, data_class, data)
    for operation in operations:
        if not is_imported(operation):
            raise ValueError(
                f"{said} uses operations of {operation!r}, which it must not import by itself: name it with"
                f" `--model.operations '[{operation}]'`"
            )
    for key, name in named:
        if not _is_available(name):
            raise ValueError(
                f"{said} names {name!r}, which it must not import by itself: name it with `--{key} {name}`"
            )


def named_code(
    said: str, settings: Mapping[str, Any], data_class: object, data: Mapping[str, Any] | None
) -> tuple[list[str], list[tuple[str, object]]]:
    """The modules of operations that a checkpoint names, and key and import path of its classes.

    A ValueError if ``operations`` is no list of names.
    """
    operations = settings.get("operations") or ()
    if not isinstance(operations, list | tuple) or not all(isinstance(name, str) for name in operations):
        raise ValueError(f"{said}: its setting `operations` (={operations!r}) must be a list of modules")
    named = [("data", data_class)] if data_class is not None else []
    named += [("data", name) for name in class_paths(data)]
    named += [(f"model.{key}", name) for key in _FACTORIES for name in _import_paths(settings.get(key))]
    return list(operations), named


def class_paths(value: Any) -> Iterator[object]:
    """The classes in nested settings."""
    if isinstance(value, Mapping):
        if "class_path" in value:
            yield value["class_path"]
        value = list(value.values())
    if isinstance(value, list | tuple):
        for nested in value:
            yield from class_paths(nested)


def _other_than_plain(value: Any) -> Any:
    """A part of nested settings that YAML has no form for; None if there is none."""
    if isinstance(value, Mapping):
        value = [*value.keys(), *value.values()]
    if isinstance(value, list | tuple):
        return next((odd for part in value if (odd := _other_than_plain(part)) is not None), None)
    return None if isinstance(value, str | int | float | None) else value


def _import_paths(value: Any) -> Iterator[str]:
    """All texts in nested settings that the parser could take for the path of a class or function."""
    if isinstance(value, Mapping):
        for nested in value.values():
            yield from _import_paths(nested)
    elif isinstance(value, list | tuple):
        for nested in value:
            yield from _import_paths(nested)
    elif isinstance(value, str) and _IMPORT_PATH.fullmatch(value):
        yield value


def _is_available(name: object) -> bool:
    """Whether an import path leads to something in a module that is imported already."""
    module, _, attribute = str(name).rpartition(".")
    # Not hasattr, which some modules answer by importing what they hold.
    return module in sys.modules and attribute in vars(sys.modules[module])
