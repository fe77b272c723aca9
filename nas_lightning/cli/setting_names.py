"""The settings of a training by name, with those of the classes that settings name."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pkgutil import resolve_name
from typing import Any, Union, get_args

from jsonargparse import ArgumentParser
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from torch import optim
from torch.optim import lr_scheduler

from nas_lightning import callbacks, datamodules
from nas_lightning.classifier import CellClassifier
from nas_lightning.identity import ANALYSES, as_list

CALLBACKS: tuple[type[Callback], ...] = (
    *(getattr(callbacks, name) for name in ANALYSES),
    EarlyStopping,
    ModelCheckpoint,
)
"""The callbacks whose settings are completed and suggested."""


@cache
def class_names() -> dict[str, tuple[str, ...]]:
    """Short names of the classes that a setting takes, by its key."""
    data = [name for name in datamodules.__all__ if name != datamodules.ImageDataModule.__name__]
    return {
        "data": tuple(data),
        "model.optimizer": tuple(_subclasses(optim, optim.Optimizer)),
        "model.lr_scheduler": tuple(_subclasses(lr_scheduler, lr_scheduler.LRScheduler)),
        "trainer.callbacks": tuple(callback.__name__ for callback in CALLBACKS),
    }


def known_settings(parser: ArgumentParser) -> Iterator[str]:
    """The settings of a parser; of a subcommand's parser also those of the classes that settings name."""
    subcommands = parser._subcommands_action
    parser = parser if subcommands is None else next(iter(subcommands._name_parser_map.values()))
    names = [action.dest for action in parser._actions if not action.dest.startswith("print_")]
    yield from names
    if "trainer.max_epochs" in names:
        yield from nested_settings()


def refuse_missing_values(settings: Mapping[str, Any]) -> None:
    """Refuse null where an argument needs a value: the parser takes it anywhere."""
    for group, cls in (("model", CellClassifier), ("trainer", Trainer)):
        for name in _missing(cls, settings[group]):
            if f"{group}.{name}" not in ("model.num_classes", "model.operations"):
                raise ValueError(f"`{group}.{name}` (=null) needs a value")
    every = settings["trainer"].get("accumulate_grad_batches", 1)
    if every < 1:  # Lightning divides by it
        raise ValueError(f"`trainer.accumulate_grad_batches` (={every}) must be at least 1")
    if settings["trainer"].get("default_root_dir", "") is None:
        raise ValueError("`trainer.default_root_dir` (=null) needs a value")
    named = [("data", settings["data"])]
    named += [(f"model.{key}", settings["model"].get(key)) for key in ("optimizer", "lr_scheduler")]
    named += [("trainer.callbacks", callback) for callback in as_list(settings["trainer"].get("callbacks"))]
    for key, given in named:
        if isinstance(given, Mapping) and isinstance(given.get("class_path"), str):
            cls = resolve_name(given["class_path"])
            for name in _missing(cls, given.get("init_args") or {}):
                where = f"{key}.{cls.__name__}" if key == "trainer.callbacks" else key
                raise ValueError(f"`{where}.{name}` (=null) needs a value")


def _missing(cls: Any, given: Mapping[str, Any]) -> Iterator[str]:
    """Arguments given as None although neither their default nor their annotation has it."""
    for base in cls.__mro__ if isinstance(cls, type) else ():
        if "__init__" in vars(base):
            for name, parameter in inspect.signature(vars(base)["__init__"]).parameters.items():
                annotation = str(parameter.annotation)
                may_be_none = parameter.default is None or any(
                    word in annotation for word in ("None", "Optional", "Any", "inspect._empty", "_PRECISION")
                )
                if name in given and given[name] is None and not may_be_none:
                    yield name


@cache
def nested_settings() -> tuple[str, ...]:
    """Settings of the classes that settings name, such as ``data.cutout`` and ``model.optimizer.lr``."""
    groups: list[tuple[str, Iterable[type]]] = [
        ("data", (getattr(datamodules, name) for name in class_names()["data"])),
        ("model.optimizer", (getattr(optim, name) for name in class_names()["model.optimizer"])),
        ("model.lr_scheduler", (getattr(lr_scheduler, n) for n in class_names()["model.lr_scheduler"])),
        *((f"trainer.callbacks.{callback.__name__}", [callback]) for callback in CALLBACKS),
    ]
    names = (f"{key}.{name}" for key, classes in groups for cls in classes for name in _arguments(cls))
    return tuple(dict.fromkeys(names))


def count_batches(parser: ArgumentParser) -> None:
    """Read ``trainer.limit_val_batches=1`` and its like as one batch, and 1.0 as all of them.

    Python may give Lightning's ``int | float`` in the other order, in which jsonargparse makes 1.0 of 1.
    """
    action: Any  # jsonargparse keeps the type of an argument there
    for action in parser._actions:
        if re.fullmatch(r"trainer\.limit_\w+_batches", action.dest):
            kinds = sorted(get_args(action._typehint), key=lambda kind: kind is not int)
            action._typehint = Union[tuple(kinds)]  # noqa: UP007


def _subclasses(module: object, base: type) -> Iterator[str]:
    for name, value in vars(module).items():
        if isinstance(value, type) and issubclass(value, base) and value is not base and name[0] != "_":
            yield name


def _arguments(cls: type) -> Iterator[str]:
    parser = ArgumentParser(add_help=False)
    parser.add_class_arguments(cls, fail_untyped=False)
    for action in parser._actions:
        if "." not in action.dest and action.dest not in ("params", "optimizer"):
            yield action.dest
