"""Configuration files as data: read, put over one another and hashed, without the command line's parser."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import yaml

from nas_lightning.cells import Genotype

DEFAULTS: dict[str, Any] = {
    "model": {
        "genotype": "darts_v2",
        "init_channels": 36,
        "num_cells": 20,
        "stem_stride": 1,
        "drop_path": 0.0,
        "auxiliary_weight": 0.0,
        "lr_scheduler": None,
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

CLASSES = (("data",), ("model", "optimizer"), ("model", "lr_scheduler"))
"""Settings that name a class: a string is its name, unknown keys are its arguments."""

# Here 1 and 1.0 differ: so many batches, and all of them.
_COUNT_OR_SHARE = ("trainer.limit_", "trainer.overfit_batches", "trainer.val_check_interval")
_BELOW_NOT_DECIDING = tuple(f"{name}." for name in NOT_DECIDING)
_OWN_PACKAGES = ("nas_lightning.", "torch.")


class _Loader(yaml.SafeLoader):
    """Reads ``3e-4`` as the number it is to the command line, and refuses a key that stands there twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Build a mapping of different keys."""
        seen: list[Any] = []
        for key_node, _ in node.value:
            key = self.construct_object(key_node)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"{key!r} stands there twice", key_node.start_mark
                )
            seen.append(key)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def read_mapping(path: Path) -> dict[str, Any]:
    """Read a YAML file that holds a mapping.

    Args:
        path: The file.

    Returns:
        Its content; empty for an empty file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no YAML, says one thing twice or holds no mapping with strings as keys.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is not a file")
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, TypeError) as error:
        raise ValueError(f"{path} is no valid YAML: {' '.join(str(error).split())}") from error
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise ValueError(f"{path} must hold settings, such as `name: mine`")
    return content


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
    """Settings with dotted keys; lists and empty mappings are values.

    Args:
        settings: Nested settings.
        prefix: What the keys begin with.

    Returns:
        For example ``{"model.num_cells": 20}``.
    """
    flat: dict[str, Any] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping) and value:
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
        settings: Merged settings with dotted keys; those of :data:`NOT_DECIDING` do not count.

    Returns:
        SHA-256 of the settings as JSON with sorted keys, in hexadecimal digits.
    """
    deciding = {
        key: _plain(key, value)
        for key, value in settings.items()
        if key not in NOT_DECIDING and not key.startswith(_BELOW_NOT_DECIDING)
    }
    text = json.dumps(deciding | {"model.genotype": str(genotype)}, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


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
