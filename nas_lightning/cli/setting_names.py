"""The settings of a training by name, with those of the classes that settings name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any, Union, get_args

from jsonargparse import ArgumentParser
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from torch import optim
from torch.optim import lr_scheduler

from nas_lightning import callbacks, datamodules
from nas_lightning.identity import ANALYSES

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
