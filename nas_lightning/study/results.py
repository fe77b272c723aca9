"""Result tables of a study: one row a run, and one row a run and epoch.

The tables are made anew from the runs' files each time, so nothing that a killed study leaves behind can be
out of date. Runs that are missing, unfinished, damaged or another training than planned are named, not
guessed.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from nas_lightning.files import atomic_write
from nas_lightning.study.columns import CURVE_COLUMNS, RUN_COLUMNS, optional_dtype
from nas_lightning.study.configuration import flatten
from nas_lightning.study.convergence import convergence_measures
from nas_lightning.study.measurements import in_one_line
from nas_lightning.study.records import (
    Record,
    integer,
    learning_rate,
    number,
    read_record,
    read_result,
    text,
)
from nas_lightning.study.study import Study

_NAMED = 3


@dataclass(frozen=True, eq=False)
class Results:
    """What a study gave so far.

    Attributes:
        study: The study.
        runs: One row per finished run, in the order of the study; columns and types are those of
            :data:`nas_lightning.study.columns.RUN_COLUMNS`, and further scalars and settings after them.
        curves: One row per finished run and epoch, columns :data:`nas_lightning.study.columns.CURVE_COLUMNS`.
        problems: What is missing, unfinished, damaged or foreign; a line each.
    """

    study: Study
    runs: pd.DataFrame
    curves: pd.DataFrame
    problems: tuple[str, ...]


def collect_results(study: Study) -> Results:
    """Read the results of all finished runs of a study.

    Args:
        study: The study.

    Returns:
        The tables. Columns and their types do not depend on what is there, so that the tables of several
        studies can be put one after the other.
    """
    rows: list[dict[str, Any]] = []
    curves: list[dict[str, Any]] = []
    problems: list[str] = []
    for run in study.runs:
        try:
            record = read_record(run)
            curve = _curve_rows(record)
            row = _run_row(study, record, curve)
        except (OSError, ValueError) as error:
            problems.append(f"{run.name}: {in_one_line(error)}")
            continue
        rows.append(row)
        curves.extend(curve)
        problems.extend(f"{run.name}: {problem}" for problem in record.problems)
    problems.extend(_foreign_folders(study))
    return Results(study, _frame(rows, RUN_COLUMNS), _frame(curves, CURVE_COLUMNS), tuple(problems))


def write_results(results: Results) -> tuple[Path, ...]:
    """Write both tables as Parquet and CSV into the study's output folder, each file whole or not at all.

    Args:
        results: The tables.

    Returns:
        ``results.parquet``, ``results.csv``, ``curves.parquet`` and ``curves.csv``. Numbers in CSV have the
        digits that give the same number back; what is unknown or not a number is empty, infinity is ``inf``.

    Raises:
        OSError: If a file cannot be written; the message names it.
    """
    paths = []
    for name, frame in (("results", results.runs), ("curves", results.curves)):
        for suffix in ("parquet", "csv"):
            path = results.study.output_folder / f"{name}.{suffix}"
            with atomic_write(path, "wb") as file:
                if suffix == "parquet":
                    frame.to_parquet(file, index=False)
                else:
                    frame.to_csv(file, index=False, lineterminator="\n")
            paths.append(path)
    return tuple(paths)


def _frame(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> pd.DataFrame:
    """A table of the given columns and types; further ones follow by name."""
    further = sorted({name for row in rows for name in row} - columns.keys())
    types = dict(columns) | {name: optional_dtype(name) for name in further}
    series = {name: pd.Series([row.get(name) for row in rows], dtype=dtype) for name, dtype in types.items()}
    return pd.DataFrame(series, columns=list(types))


def _curve_rows(record: Record) -> list[dict[str, Any]]:
    run, split = record.run, record.result["evaluation_split"]
    tags = {
        "loss": f"loss/{split}",
        "accuracy": f"accuracy/{split}",
        "accuracy_top5": f"accuracy_top5/{split}",
        "train_loss": "loss/train",
        "train_accuracy": "accuracy/train",
        "learning_rate_now": "learning_rate",
        "images_per_second": "images_per_second",
    }
    return [
        {
            "run": run.name,
            "architecture": run.architecture.label,
            "family": run.architecture.family,
            "variant": run.architecture.variant,
            "data": run.data,
            "learning_rate": learning_rate(record.result),
            "seed": run.seed,
            "epoch": epoch,
            "step": (epoch + 1) * record.steps_per_epoch,
            **{name: metrics.get(tag, math.nan) for name, tag in tags.items()},
        }
        for epoch, metrics in enumerate(record.metrics)
    ]


def _run_row(study: Study, record: Record, curve: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    run, result, path = record.run, record.result, record.run.folder / "result.json"
    settings, cell, last = result["settings"], run.architecture, curve[-1]
    num_classes = integer(result, "settings", "model.num_classes", path=path)
    batch_size = integer(result, "settings", "data.batch_size", path=path)
    split = text(result, "evaluation_split", path=path)
    # Data sets of one's own may have no cutout.
    has_cutout = settings.get("data.cutout") is not None
    cutout = integer(result, "settings", "data.cutout", path=path) if has_cutout else None
    drop_path = number(result, "settings", "model.drop_path", path=path)
    auxiliary_weight = number(result, "settings", "model.auxiliary_weight", path=path)
    images = record.train_batches * batch_size
    best = result["best"]
    row: dict[str, Any] = {
        "run": run.name,
        "folder": str(run.folder),
        "study": study.name,
        "spec": cell.spec,
        "genotype": result["cell"]["genotype"],
        "architecture": cell.label,
        "family": cell.family,
        "variant": cell.variant,
        "kind": cell.kind,
        "width": cell.width,
        "depth": cell.depth,
        **{
            name: integer(result, "cell", name, path=path)
            for name in ("parameters", "live_parameters", "multiply_adds")
        },
        "data": run.data,
        "num_classes": num_classes,
        "learning_rate": learning_rate(result),
        "seed": run.seed,
        "epochs": result["epochs"],
        "steps_per_epoch": record.steps_per_epoch,
        "batch_size": batch_size,
        "cutout": cutout,
        "drop_path": drop_path,
        "auxiliary_weight": auxiliary_weight,
        "regularized": bool(cutout) or drop_path > 0 or auxiliary_weight > 0,
        "evaluation_split": split,
        "init_channels": integer(result, "settings", "model.init_channels", path=path),
        "num_cells": integer(result, "settings", "model.num_cells", path=path),
        "train_size": integer(result, "provenance", "data", "split_sizes", "train", path=path),
        "evaluation_size": integer(result, "provenance", "data", "split_sizes", split, path=path),
        "final_loss": last["loss"],
        "final_accuracy": last["accuracy"],
        "final_error_percent": 100 * (1 - last["accuracy"]),
        "final_train_loss": last["train_loss"],
        "final_train_accuracy": last["train_accuracy"],
        "best_accuracy": number(result, "best", f"accuracy/{split}", path=path) if best else None,
        "best_epoch": integer(result, "best", "epoch", path=path) if best else None,
        "training_seconds": sum(images / epoch["images_per_second"] for epoch in curve),
        **convergence_measures(
            {name: [epoch[name] for epoch in curve] for name in ("loss", "accuracy", "train_loss")},
            num_classes,
            record.steps_per_epoch,
        ),
        "weights_sha256": result["provenance"]["weights_sha256"],
        "device": text(result, "provenance", "device", path=path),
    }
    for stem, scalars in record.surfaces.items():
        row[f"{stem}_file"] = scalars["file"]
        row |= {f"{stem}.{name}": value for name, value in scalars.items() if name != "file"}
    versions = result["provenance"].get("versions")
    if isinstance(versions, dict):
        row |= {f"version_{name.replace('-', '_')}": str(value) for name, value in versions.items()}
    return row | {f"settings.{key}": _as_text(value) for key, value in flatten(settings).items()}


def _as_text(value: object) -> str | None:
    """A setting: the type of its column must not depend on the value."""
    return value if value is None or isinstance(value, str) else json.dumps(value)


def _has_result(folder: Path) -> bool:
    """Whether a run ended there: studies of one experiment share its folder."""
    try:
        read_result(folder / "result.json")
    except (OSError, ValueError):
        return False
    return True


def _foreign_folders(study: Study) -> list[str]:
    """One line about the folders that belong to no run of this study and hold no result of another one."""
    if not study.folder.is_dir():
        return []
    known = {run.folder.name for run in study.runs} | {"reports"}
    names = sorted(
        path.name
        for path in study.folder.iterdir()
        if path.is_dir()
        and path.name not in known
        and not path.name.startswith(".")
        and not _has_result(path)
    )
    if not names:
        return []
    others = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    noun = "folder belongs" if len(names) == 1 else "folders belong"
    return [
        f"{len(names)} {noun} to no run of this study, in {study.folder}: {', '.join(names[:_NAMED])}{others}"
    ]
