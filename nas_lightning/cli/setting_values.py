"""Values of settings that the parser takes and no training can use."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from pkgutil import resolve_name
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch import Trainer

from nas_lightning.classifier import CellClassifier
from nas_lightning.cli.run_folder import check_folder_name, check_path
from nas_lightning.identity import as_list


def check_values(settings: Namespace) -> None:
    """Refuse values that the parser takes and no training can use; the ValueError names the setting."""
    _check_missing(settings.as_dict())
    seed, clip = settings.seed_everything, settings.trainer.gradient_clip_val
    if seed is False:
        raise ValueError("`seed_everything` (=False) must be a number, or true for a random one")
    if seed is not True and not 0 <= seed < 2**32:
        raise ValueError(f"`seed_everything` (={seed}) must be from 0 to 2**32 - 1")
    if clip is not None and clip < 0:
        raise ValueError(f"`trainer.gradient_clip_val` (={clip}) must not be negative; null: no clipping")
    for name in ("experiment", "run"):
        if settings[name] is not None:
            check_folder_name(name, settings[name])
    for key in ("ckpt_path", "weights", "reference_weights", "trainer.default_root_dir"):
        check_path(key, str(settings.get(key)))


def _check_missing(settings: Mapping[str, Any]) -> None:
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
                # The values of a mapping may be anything, and null, where the mapping may not.
                annotation = re.sub(r"\b(dict|Mapping)\[[^]]*\]", "", str(parameter.annotation))
                may_be_none = parameter.default is None or any(
                    word in annotation for word in ("None", "Optional", "Any", "inspect._empty", "_PRECISION")
                )
                if name in given and given[name] is None and not may_be_none:
                    yield name
