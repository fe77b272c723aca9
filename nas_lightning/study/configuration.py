"""Configuration files as data: read, put over one another and hashed, without the command line's parser."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

from nas_lightning.cells import Genotype
from nas_lightning.cells.operations import nearest

DEFAULTS: dict[str, Any] = {
    "model": {
        "genotype": "darts_v2",
        "init_channels": 36,
        "num_cells": 20,
        "stem_stride": 1,
        "drop_path": 0.0,
        "auxiliary_weight": 0.0,
        "lr_scheduler": None,
        "speed": "auto",
    },
    "data": {
        "class_path": "nas_lightning.datamodules.Digits",
        "init_args": {
            "batch_size": 80,
            "cutout": 0,
            "validation_fraction": 0.0,
            "validation_seed": 0,
            "seed": None,
        },
    },
    "trainer": {
        "max_epochs": 600,
        "gradient_clip_val": 5.0,
        "accumulate_grad_batches": 1,
        "precision": None,
    },
}
"""What ``nas-lightning fit`` takes where nothing is said, of what decides a training."""

DATA_CLASSES = ("CIFAR10", "CIFAR100", "TinyImageNet", "FashionMNIST", "Digits", "Synthetic")
_INIT = "data.init_args"
_RANGES: dict[str, tuple[type, float, float]] = {
    "model.init_channels": (int, 1, math.inf),
    "model.num_cells": (int, 1, math.inf),
    "model.stem_stride": (int, 1, math.inf),
    "model.drop_path": (float, 0, 1),
    "model.auxiliary_weight": (float, 0, math.inf),
    f"{_INIT}.batch_size": (int, 1, math.inf),
    f"{_INIT}.cutout": (int, 0, math.inf),
    f"{_INIT}.validation_fraction": (float, 0, 1),
    "trainer.max_epochs": (int, 1, math.inf),
}

DEFAULT_OPTIMIZER: dict[str, Any] = {
    "class_path": "torch.optim.SGD",
    "init_args": {"lr": 0.025, "momentum": 0.9, "weight_decay": 3e-4},
}
"""The optimiser where no configuration names one; one that is named has its own defaults."""

NOT_DECIDING = (
    "ckpt_path",
    "config",
    "experiment",
    "run",
    "data.init_args.evaluation_batch_size",
    "data.init_args.root",
    "trainer.accelerator",
    "trainer.barebones",
    "trainer.default_root_dir",
    "trainer.devices",
    "trainer.enable_checkpointing",
    "trainer.enable_model_summary",
    "trainer.enable_progress_bar",
    "trainer.log_every_n_steps",
    "trainer.logger",
    "trainer.num_nodes",
    "trainer.num_sanity_val_steps",
    "trainer.plugins",
    "trainer.profiler",
    "trainer.strategy",
)
"""Settings, with what lies below them, that leave the training what it is: where it runs and writes."""

SAME_MATHEMATICS = ("auto", "reference", "fast", "compiled")
"""Values of ``model.speed`` with which a network computes the same in float32, up to the order of sums: they
do not decide a training, as the device does not. What rounds otherwise ("max") does, as a precision does."""

CLASSES = (("data",), ("model", "optimizer"), ("model", "lr_scheduler"))
"""Settings that name a class: a string is its name, unknown keys are its arguments."""

# Here 1 and 1.0 differ: so many batches, and all of them.
_COUNT_OR_SHARE = ("trainer.limit_", "trainer.overfit_batches", "trainer.val_check_interval")
_BELOW_NOT_DECIDING = tuple(f"{name}." for name in NOT_DECIDING)
_DEFAULT_PRECISION = "32-true"
_PRECISIONS = {"16": "16-mixed", "bf16": "bf16-mixed", "32": _DEFAULT_PRECISION, "64": "64-true"}
_OWN_PACKAGES = ("nas_lightning.", "torch.")


def merge(base: Mapping[str, Any], overlay: Mapping[str, Any]) -> dict[str, Any]:
    """Put settings over settings, as the command line does with a second ``--config``.

    Mappings are merged deeply, anything else is replaced; a key that ends in ``+`` appends to the list of
    that name. A changed ``class_path`` keeps the ``init_args``.

    Args:
        base: Settings.
        overlay: Settings that win.

    Returns:
        New settings; the arguments are left as they are.
    """
    merged = dict(base)
    for key, value in overlay.items():
        name = key.removesuffix("+")
        before = merged.get(name)
        if key.endswith("+"):
            merged[name] = [*as_list(before), *as_list(value)]
        elif isinstance(value, Mapping):
            merged[name] = merge(before if isinstance(before, Mapping) else {}, value)
        else:
            merged[name] = value
    return merged


def with_class_paths(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Write in full what the command line takes in short for a class.

    Args:
        settings: Settings such as ``{"data": "CIFAR10"}`` or ``{"data": {"batch_size": 40}}``.

    Returns:
        The same with ``class_path`` and ``init_args``.
    """
    full = dict(settings)
    for first, *rest in CLASSES:
        if not rest:
            full |= {first: _class_in_full(full[first])} if first in full else {}
        elif isinstance(full.get(first), Mapping) and rest[0] in full[first]:
            full[first] = full[first] | {rest[0]: _class_in_full(full[first][rest[0]])}
    return full


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Settings with dotted keys; lists, empty mappings and a genotype are values.

    Args:
        settings: Nested settings.
        prefix: What the keys begin with.

    Returns:
        For example ``{"model.num_cells": 20}``.
    """
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping) and value and f"{prefix}{key}" != "model.genotype":
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The inverse of :func:`flatten`.

    Args:
        flat: Settings with dotted keys.

    Returns:
        Nested settings.
    """
    nested: dict[str, Any] = {}
    for key, value in flat.items():
        for part in reversed(key.split(".")):
            value = {part: value}
        nested = merge(nested, value)
    return nested


def training_identity(genotype: Genotype, settings: Mapping[str, Any]) -> str:
    """What two trainings have in common if and only if they are the same.

    Args:
        genotype: The cells; how they were called does not count.
        settings: Merged settings with dotted keys; those of :data:`NOT_DECIDING` do not count, nor do the
            speeds of :data:`SAME_MATHEMATICS`.

    Returns:
        SHA-256 of the settings as JSON with sorted keys, in hexadecimal digits.
    """
    deciding = {
        key: _plain(key, value)
        for key, value in settings.items()
        if key not in NOT_DECIDING and not key.startswith(_BELOW_NOT_DECIDING)
    }
    precision = full_precision_name(deciding.get("trainer.precision"))
    deciding["trainer.precision"] = None if precision == _DEFAULT_PRECISION else precision
    if deciding.get("model.speed") in SAME_MATHEMATICS:
        del deciding["model.speed"]
    if not deciding.get("data.init_args.validation_fraction"):
        # There is no validation split that its seed could decide.
        deciding["data.init_args.validation_seed"] = 0
    text = json.dumps(deciding | {"model.genotype": str(genotype)}, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def full_precision_name(precision: object) -> str:
    """The one name of a precision, such as "32-true" for None, 32 and "32"; as Lightning has it."""
    return _DEFAULT_PRECISION if precision is None else _PRECISIONS.get(str(precision), str(precision))


def as_list(value: Any) -> list[Any]:
    """A list as it is, nothing as an empty list, anything else as a list of one."""
    return [] if value is None else list(value) if isinstance(value, list | tuple) else [value]


def _class_in_full(value: Any) -> Any:
    if isinstance(value, str):
        return {"class_path": value}
    if not isinstance(value, Mapping):
        return value
    own = {key: item for key, item in value.items() if key in ("class_path", "init_args", "dict_kwargs")}
    arguments = {key: item for key, item in value.items() if key not in own}
    if arguments:
        own["init_args"] = merge(own.get("init_args") or {}, arguments)
    return own


def _plain(key: str, value: Any) -> Any:
    """One form for what the command line takes in several: 5.0 and 5, long and short names of classes."""
    if key.endswith("class_path") and isinstance(value, str) and value.startswith(_OWN_PACKAGES):
        return value.rpartition(".")[2]
    if isinstance(value, list | tuple):
        return [_plain(key, item) for item in value]
    if isinstance(value, Mapping):
        return {name: _plain(f"{key}.{name}", item) for name, item in value.items()}
    if isinstance(value, float) and value.is_integer() and not key.startswith(_COUNT_OR_SHARE):
        return int(value)
    return value


def check_numbers(settings: Mapping[str, Any]) -> None:
    """Refuse numbers with which no run could start, so that a plan says so and not each of its runs.

    Args:
        settings: Merged settings with dotted keys.

    Raises:
        ValueError: If a number is of another type or out of range; the message names key and value.
    """
    for key, (kind, low, high) in _RANGES.items():
        value = settings[key]
        plain = key.replace(".init_args", "")
        known = isinstance(value, int) or (kind is float and isinstance(value, float))
        if isinstance(value, bool) or not known or not low <= value <= high:
            what = "an integer" if kind is int else "a number"
            limits = f"from {low} to {high}" if math.isfinite(high) else f"of at least {low}"
            raise ValueError(f"`{plain}` (={value!r}) must be {what} {limits}")
    data = str(settings["data.class_path"])
    if "." not in data and data not in DATA_CLASSES:
        hint = nearest(data, DATA_CLASSES) or f"; there are {', '.join(DATA_CLASSES)}"
        raise ValueError(f"`data` (={data}) is no data set that ships, and no import path{hint}")
