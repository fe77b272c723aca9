"""The content of a study's file: its keys, its settings and its axes, checked."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nas_lightning.cells.operations import nearest
from nas_lightning.study.architectures import expand_architectures
from nas_lightning.study.configuration import flatten, merge, nest, with_class_paths
from nas_lightning.yaml_files import read_config

KEYS = ("name", "title", "experiment", "configs", "analyses", "settings", "axes", "include")
AXES = ("architectures", "data", "learning_rates", "seeds")
_DATA_CLASS = "data.class_path"
LEARNING_RATE = "model.optimizer.init_args.lr"

# Settings that have an axis or a key of their own, or that a study decides itself.
_ELSEWHERE = {
    "model.genotype": "`axes: architectures`",
    "seed_everything": "`axes: seeds`",
    "experiment": "the study's `experiment`",
    "trainer.callbacks": "a file of `analyses`",
    "trainer.callbacks+": "a file of `analyses`",
}
_DECIDED = ("run", "ckpt_path", "config", "trainer.fast_dev_run")


def check_keys(content: Mapping[str, Any]) -> None:
    """Refuse what is no study.

    Args:
        content: Content of the file.

    Raises:
        ValueError: If a key is unknown (the nearest one is suggested), the name is missing or fits no folder,
            or `settings` or `axes` is no mapping.
    """
    _refuse_unknown("key", content, KEYS)
    for key in ("name", "experiment"):
        value = content.get(key, "missing" if key == "name" else "default")
        if not isinstance(value, str) or re.fullmatch(r"\w[\w.+-]*", value) is None or "name" not in content:
            raise ValueError(
                f"`{key}` (={content.get(key)!r}) must be the name of one folder: letters, digits, - and _"
            )
    for key in ("settings", "axes"):
        if not isinstance(content.get(key) or {}, Mapping):
            raise ValueError(f"`{key}` must be a mapping")


def file_names(content: Mapping[str, Any], key: str) -> list[str]:
    """The files that a key lists, as they are written.

    Args:
        content: Content of the file.
        key: The key; it may be missing.

    Raises:
        ValueError: If it is no list of strings.
    """
    value = content.get(key)
    value = [] if value is None else value
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ValueError(f"`{key}` (={value!r}) must be a list of files")
    return value


def existing_file(folder: Path, name: Any, key: str) -> Path:
    """A file that a study names, as an absolute path.

    Args:
        folder: Folder of the study's file.
        name: The file, relative to it.
        key: Who names it, for the message.

    Raises:
        FileNotFoundError: If there is no such file.
    """
    path = (folder / str(name)).resolve()
    if not path.is_file():
        raise FileNotFoundError(f"`{key}`: {name} is not a file in {folder}")
    return path


def fixed_settings(content: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of all runs, with dotted keys however they are written.

    Args:
        content: Content of the file.

    Raises:
        ValueError: If one belongs elsewhere, or to no part of the command line.
    """
    nested: dict[str, Any] = {}
    for key, value in flatten(content.get("settings") or {}).items():
        # One by one: the name of a class and its arguments may both stand there, in short.
        nested = merge(nested, with_class_paths(nest({key: value})))
    fixed = flatten(nested)
    for key in fixed:
        _check_setting(key, "settings")
    if _DATA_CLASS in fixed and "data" in (content.get("axes") or {}):
        raise ValueError("`settings`: `data` would overrule the files of `axes: data`; leave one of them out")
    # The command line knows an argument only after its class.
    return dict(sorted(fixed.items(), key=lambda item: not item[0].endswith(".class_path")))


def measurements(paths: Iterable[Path]) -> list[Any]:
    """Callbacks of overlays that hold nothing else.

    Args:
        paths: The overlays of `analyses`.

    Raises:
        ValueError: If one holds other settings, which belong to `configs`.
    """
    callbacks: list[Any] = []
    for path in paths:
        for content in read_config(path) or [{}]:
            trainer = content.get("trainer")
            keys = list(trainer) if isinstance(trainer, Mapping) else []
            if trainer is None or list(content) != ["trainer"] or keys not in (["callbacks+"], ["callbacks"]):
                raise ValueError(
                    f"`analyses`: {path} must hold `trainer: callbacks+:` and nothing else; other settings"
                    " belong to `configs`"
                )
            callbacks += trainer[keys[0]] or []
    return callbacks


def study_axes(content: Mapping[str, Any], folder: Path, base: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The values along each axis.

    Args:
        content: Content of the file.
        folder: Its folder.
        base: Merged settings of its configurations.

    Returns:
        ``architectures`` (expanded), ``data`` (overlays as written), ``seeds``, and the other axes with the
        full dotted key of the setting that each sets, the learning rate first.

    Raises:
        ValueError: If an axis is unknown, empty, has a value twice or sets what another one sets.
        FileNotFoundError: If a genotype file does not exist.
    """
    given = dict(content.get("axes") or {})
    for key, values in given.items():
        if key not in AXES and "." not in key:
            _refuse_unknown("axis", [key], AXES)
        if not isinstance(values, list) or not values:
            raise ValueError(f"`axes: {key}` (={values!r}) must be a list of values")
    architectures = given.pop("architectures", [base.get("model", {}).get("genotype", "darts_v2")])
    for entry in architectures:
        if not isinstance(entry, str | Mapping):
            raise ValueError(f"`axes: architectures`: {entry!r} must be a genotype spec or a mapping")
    seeds = given.pop("seeds", [0])
    for seed in seeds:
        if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**32:
            raise ValueError(f"`axes: seeds`: {seed!r} must be a number from 0 to 2**32 - 1")
    axes: dict[str, list[Any]] = {
        "architectures": expand_architectures(architectures, folder),
        "data": given.pop("data", []),
        "seeds": seeds,
    }
    if "learning_rates" in given:
        axes[LEARNING_RATE] = _learning_rates(given.pop("learning_rates"), base)
    for key, values in given.items():
        (full,) = flatten(with_class_paths(nest({key: None})))
        _check_setting(full, "axes")
        if full in axes:
            raise ValueError(f"`axes`: `{key}` and `learning_rates` set the same")
        if full in fixed_settings(content):
            raise ValueError(f"`axes`: `{key}` is fixed in `settings`")
        axes[full] = values
    for key, values in axes.items():
        if key != "architectures":
            _refuse_twice(key, values)
    return axes


def _learning_rates(rates: list[Any], base: Mapping[str, Any]) -> list[Any]:
    for rate in rates:
        number = isinstance(rate, int | float) and not isinstance(rate, bool)
        if not number or not 0 < rate < math.inf:
            raise ValueError(f"`axes: learning_rates`: {rate!r} must be a number above 0")
    if not isinstance(base.get("model", {}).get("optimizer"), Mapping):
        raise ValueError("`axes: learning_rates` needs a file of `configs` that names `model.optimizer`")
    return rates


def _refuse_twice(key: str, values: Iterable[Any]) -> None:
    shown = [str(value) for value in values]
    for value in shown:
        if shown.count(value) > 1:
            raise ValueError(f"`axes: {key}` has {value} twice")


def _check_setting(key: str, where: str) -> None:
    if key in _ELSEWHERE:
        raise ValueError(f"`{where}`: `{key}` belongs to {_ELSEWHERE[key]}")
    if key == _DATA_CLASS and where == "axes":
        raise ValueError(f"`axes`: `{key}` belongs to a file of `axes: data`")
    if key in _DECIDED:
        raise ValueError(f"`{where}`: `{key}` must be left out: a study decides it for every run")
    if key.partition(".")[0] not in ("model", "data", "trainer") or "." not in key:
        hint = nearest(key, ("model", "data", "trainer"))
        raise ValueError(
            f"`{where}`: {key!r} must be a setting of `model`, `data` or `trainer`, such as"
            f" `model.num_cells`{hint}"
        )


def _refuse_unknown(what: str, found: Iterable[str], known: Sequence[str]) -> None:
    for key in found:
        if key not in known:
            hint = nearest(key, known) or f"; there are {', '.join(known)}"
            raise ValueError(f"unknown {what} {key!r}{hint}")
