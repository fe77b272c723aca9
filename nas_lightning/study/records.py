"""What one run of a study left on disk, read with suspicion.

Nothing is derived from the names of folders: genotype, data, learning rate, seed and epochs are those of
``result.json``, and must be the planned ones.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from nas_lightning.study.configuration import DEFAULTS, NOT_DECIDING, flatten, full_precision_name
from nas_lightning.study.cost import limited_batches
from nas_lightning.study.measurements import Scalars, read_measurements
from nas_lightning.study.study import Run

Row: TypeAlias = dict[str, float]

# Compared by themselves, under plainer names.
_COMPARED = frozenset({"trainer.max_epochs", "model.optimizer.init_args.lr"})


@dataclass(frozen=True, eq=False)
class Record:
    """A finished run's files.

    Attributes:
        run: The run.
        result: ``result.json``.
        metrics: Rows of ``metrics.csv``, one an epoch; what was not measured in an epoch is missing.
        train_batches: Training batches an epoch.
        steps_per_epoch: Optimiser steps an epoch.
        surfaces: Scalars of each measurement, by the stem of its file.
        problems: Measurements that are missing, unfinished, damaged or of other weights; a line each.
    """

    run: Run
    result: Mapping[str, Any]
    metrics: tuple[Row, ...]
    train_batches: int
    steps_per_epoch: int
    surfaces: Mapping[str, Scalars]
    problems: tuple[str, ...]


def read_record(run: Run) -> Record:
    """Read the files of a run.

    Args:
        run: The run.

    Returns:
        What they hold.

    Raises:
        ValueError: If the run is missing or unfinished, is another training than planned, or a file of it is
            damaged; one line, which names the file.
        OSError: If a file cannot be read.
    """
    path = run.folder / "result.json"
    if not path.exists():
        raise ValueError(_how_far(run))
    result = read_result(path)
    if differences := _differences(run, result, path):
        raise ValueError(f"{path} is foreign, of another training than planned: {'; '.join(differences)}")
    if result.get("finished") is not True:
        raise ValueError(f"unfinished, {path} was written after {result['epochs']} epochs")
    metrics = _read_metrics(run.folder / "metrics.csv")
    _check_agreement(run, result, metrics)
    batches, steps = _batches_and_steps(run, result)
    surfaces, problems = read_measurements(run, text(result, "provenance", "weights_sha256", path=path))
    return Record(run, result, metrics, batches, steps, surfaces, problems)


def number(content: Mapping[str, Any], *keys: str, path: Path) -> float:
    """A number of a JSON file; NaN and infinity are written as text there.

    Args:
        content: The file's content.
        *keys: Where to find it.
        path: The file, for the message.

    Returns:
        The number.

    Raises:
        ValueError: If it is missing or no number.
    """
    value = _value(content, keys, path)
    try:
        if isinstance(value, bool):
            raise TypeError
        return float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{path}: `{keys[-1]}` is {value!r}, a number was expected") from None


def integer(content: Mapping[str, Any], *keys: str, path: Path) -> int:
    """A whole number of a JSON file.

    Args:
        content: The file's content.
        *keys: Where to find it.
        path: The file, for the message.

    Returns:
        The number.

    Raises:
        ValueError: If it is missing or no whole number.
    """
    value = number(content, *keys, path=path)
    if not value.is_integer():
        raise ValueError(f"{path}: `{keys[-1]}` is {value}, a whole number was expected")
    return int(value)


def text(content: Mapping[str, Any], *keys: str, path: Path) -> str:
    """A text of a JSON file.

    Args:
        content: The file's content.
        *keys: Where to find it.
        path: The file, for the message.

    Returns:
        The text.

    Raises:
        ValueError: If it is missing or no text.
    """
    value = _value(content, keys, path)
    if not isinstance(value, str):
        raise ValueError(f"{path}: `{keys[-1]}` is {value!r}, a text was expected")
    return value


def learning_rate(result: Mapping[str, Any]) -> float | None:
    """Initial learning rate of a result's optimiser, or None where it says none."""
    optimizer = result["settings"].get("model.optimizer")
    arguments = optimizer.get("init_args") if isinstance(optimizer, dict) else None
    rate = arguments.get("lr") if isinstance(arguments, dict) else None
    return float(rate) if isinstance(rate, int | float) else None


def _value(content: Mapping[str, Any], keys: tuple[str, ...], path: Path) -> Any:
    value: Any = content
    for key in keys:
        if not isinstance(value, Mapping) or key not in value:
            raise ValueError(f"{path} is damaged: `{'` of `'.join(reversed(keys))}` is missing")
        value = value[key]
    return value


def read_result(path: Path) -> dict[str, Any]:
    """Read a ``result.json``, of whichever training.

    Args:
        path: The file.

    Returns:
        Its content.

    Raises:
        ValueError: If it is damaged or no result; one line, which names the file.
        OSError: If it cannot be read.
    """
    try:
        result = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from None
    sections = ("final", "best", "cell", "settings", "provenance")
    for name in sections:
        if not isinstance(result, dict) or not isinstance(result.get(name), dict):
            raise ValueError(f"{path} is no result of a training: `{name}` is missing")
    integer(result, "epochs", path=path)
    return dict(result)


def _how_far(run: Run) -> str:
    """What a run without a result has instead."""
    if not run.folder.is_dir():
        return f"not started, there is no folder {run.folder}"
    metrics = run.folder / "metrics.csv"
    if not metrics.exists():
        return f"unfinished, no epoch is done in {run.folder}"
    epochs = len(_read_metrics(metrics))
    return f"unfinished, {epochs} of {run.epochs} epochs are done in {run.folder}"


def _differences(run: Run, result: Mapping[str, Any], path: Path) -> list[str]:
    """In what a result is not of the planned training."""
    settings = flatten(result["settings"])
    found: dict[str, object] = {
        "data": text(result, "settings", "data.class", path=path),
        "learning rate": learning_rate(result),
        "seed": _value(result, ("provenance", "seed"), path),
        "epochs": settings.get("trainer.max_epochs"),
    }
    planned: dict[str, object] = {
        "data": run.data,
        "learning rate": run.learning_rate,
        "seed": run.seed,
        "epochs": run.epochs,
    }
    if run.learning_rate is None:
        del planned["learning rate"]
    for key, value in run.settings.items():
        recorded = key.replace("data.init_args.", "data.", 1)
        # Most texts can name the same thing in two ways; numbers cannot.
        if _is_compared(run, key, value) and _is_number(settings.get(recorded)):
            planned[recorded], found[recorded] = value, settings[recorded]
    for key in ("model.optimizer", "model.lr_scheduler"):
        ours, theirs = _class_name(run.settings, key), _class_name(settings, key)
        if ours and theirs:
            planned[key], found[key] = ours, theirs
    if "trainer.precision" in run.settings.keys() & settings.keys():
        planned["precision"], found["precision"] = (
            full_precision_name(given["trainer.precision"]) for given in (run.settings, settings)
        )
    differences = [
        f"{key} {found[key]}, planned {value}" for key, value in planned.items() if found[key] != value
    ]
    if text(result, "cell", "genotype", path=path) != str(run.architecture.genotype):
        differences.insert(0, f"another genotype than {run.architecture.label}")
    return differences


def _is_compared(run: Run, key: str, value: object) -> bool:
    """Whether a planned setting must be that of the result."""
    section, _, name = key.rpartition(".")
    default = section == "data.init_args" and value == DEFAULTS["data"]["init_args"].get(name)
    class_path = str(run.settings.get("data.class_path", run.data))
    # A plan cannot know the defaults of data sets that are not the package's.
    if default and "." in class_path and not class_path.startswith("nas_lightning."):
        return False
    # Without a validation split, its seed decides nothing.
    if name == "validation_seed" and not run.settings.get("data.init_args.validation_fraction"):
        return False
    return _is_number(value) and key not in _COMPARED and key not in NOT_DECIDING


def _class_name(settings: Mapping[str, Any], key: str) -> str | None:
    """Last part of a class's name, "none" where there is no class; None where nothing is said."""
    if f"{key}.class_path" in settings:
        return str(settings[f"{key}.class_path"]).rpartition(".")[2]
    return "none" if settings.get(key, "") is None else None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float)


def _read_metrics(path: Path) -> tuple[Row, ...]:
    """Rows of ``metrics.csv``; an empty cell is no number, ``nan`` is one."""
    rows: list[Row] = []
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            for cells in reader:
                if None in cells or None in cells.values():
                    raise ValueError(f"line {reader.line_num} has not as many cells as line 1")
                rows.append({name: float(cell) for name, cell in cells.items() if cell})
    except (ValueError, csv.Error) as error:
        raise ValueError(f"{path} is damaged: {error}") from None
    if [row.get("epoch") for row in rows] != list(range(len(rows))):
        raise ValueError(f"{path} is damaged: its epochs are not 0, 1, 2, ...")
    return tuple(rows)


def _check_agreement(run: Run, result: Mapping[str, Any], metrics: tuple[Row, ...]) -> None:
    """Refuse curves that are not those that ended in the result."""
    path = run.folder / "metrics.csv"
    if len(metrics) != result["epochs"] or not metrics:
        raise ValueError(f"{path} has {len(metrics)} epochs, result.json beside it {result['epochs']}")
    final = result["final"]
    for key in final:
        value = number(result, "final", key, path=run.folder / "result.json")
        last = metrics[-1].get(key, math.nan)
        if last != value and not (math.isnan(last) and math.isnan(value)):
            raise ValueError(f"{path} ends with `{key}` {last}, result.json beside it with {value}")


def _batches_and_steps(run: Run, result: Mapping[str, Any]) -> tuple[int, int]:
    """Training batches and optimiser steps an epoch.

    The training loader drops an incomplete last batch: floor(n / B) batches, on any number of devices.
    """
    path = run.folder / "result.json"
    images = integer(result, "provenance", "data", "split_sizes", "train", path=path)
    batches = images // integer(result, "settings", "data.batch_size", path=path)
    path = run.folder / "config.yaml"
    try:
        config = yaml.safe_load(path.read_bytes())
    except yaml.YAMLError:
        raise ValueError(f"{path} is damaged: it is no YAML") from None
    trainer = config.get("trainer") if isinstance(config, dict) else None
    if not isinstance(trainer, dict):
        raise ValueError(f"{path} is damaged: `trainer` is missing")
    for key in ("limit_train_batches", "overfit_batches"):
        limit = trainer.get(key)
        if isinstance(limit, int | float) and limit > 0:
            batches = limited_batches(batches, limit)
    return batches, math.ceil(batches / (trainer.get("accumulate_grad_batches") or 1))
