"""Reads a tidy table of curves, CSV or Parquet: one row a training and epoch (``docs/import.md``)."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from nas_lightning.study.architectures import expand_architectures
from nas_lightning.study.imported import METRICS, SETTINGS, Batch, ImportedRun, check_names
from nas_lightning.study.study import Architecture

Row: TypeAlias = Mapping[str, str]
"""Texts by column; empty where there is no value."""

REQUIRED = ("genotype", "data", "epoch", "accuracy")
OPTIONAL = ("space", "seed", *(name for name in METRICS if name != "accuracy"), *SETTINGS)
_TRUTHS: Mapping[str, bool] = {"true": True, "false": False, "1": True, "0": False}
_MOST_EPOCHS = 100_000


def read_table(files: Sequence[Path]) -> Batch:
    """The runs of one or more tables."""
    check_names(files)
    batch = Batch()
    cells: dict[str, int] = {}
    for file in files:
        frame = _texts(file)
        held = [str(name) for name in frame]
        if missing := [name for name in REQUIRED if name not in held]:
            raise ValueError(f"{file} lacks the columns {', '.join(missing)}; it has {', '.join(held)}")
        if unknown := [name for name in held if name not in (*REQUIRED, *OPTIONAL)]:
            batch.problems.append(f"{file.name}: columns that are not read: {', '.join(unknown)}")
        _read_runs(batch, cells, file, frame.reindex(columns=[*REQUIRED, *OPTIONAL], fill_value=""))
    return batch


def _texts(file: Path) -> pd.DataFrame:
    """A table of texts, empty where a value is missing; nothing in the file is executed."""
    try:
        if file.suffix == ".parquet":
            frame = pq.read_table(file).to_pandas(ignore_metadata=True)
        elif file.suffix == ".csv":
            with warnings.catch_warnings():
                warnings.simplefilter("error", pd.errors.ParserWarning)
                # Else rows longer than the header would shift the columns.
                frame = pd.read_csv(file, dtype=str, keep_default_na=False, encoding="utf-8", index_col=False)
        else:
            raise ValueError("the name must end in .csv or .parquet")
        texts: pd.DataFrame = frame.astype(object).map(lambda one: "" if pd.isna(one) else str(one).strip())
    except pd.errors.ParserWarning:
        raise ValueError(f"{file} cannot be read: it has rows longer than its header") from None
    except (OSError, ValueError, pa.ArrowException) as error:
        raise ValueError(f"{file} cannot be read: {' '.join(str(error).split())}") from None
    return texts


def _read_runs(batch: Batch, cells: dict[str, int], file: Path, frame: pd.DataFrame) -> None:
    """Take the runs of a table: rows that agree in everything but epoch and metrics.

    ``cells`` are the numbers of the cells of all tables: those of one space may lie in several.
    """
    keys = [name for name in frame if name not in ("epoch", *METRICS)]
    trainings: dict[tuple[str, ...], list[int]] = {}
    for row, key in enumerate(frame[keys].itertuples(index=False, name=None)):
        trainings.setdefault(key, []).append(row)
    names = ("epoch", *METRICS)
    metrics = list(frame[list(names)].itertuples(index=False, name=None))
    for number, (key, rows) in enumerate(trainings.items(), start=1):
        first: Row = dict(zip(map(str, keys), key, strict=True))
        where = f"{file.name}, row {rows[0] + 1}"
        try:
            architecture = _architecture(first, cells, file.stem)
            settings = {name: _setting(name, first[name]) for name in ("seed", *SETTINGS)}
            if not first["data"]:
                raise ValueError("it has no `data`")
            curves = _curves(
                batch, file.name, {row: dict(zip(names, metrics[row], strict=True)) for row in rows}
            )
        except (ValueError, OSError) as error:
            batch.leave_out(f"{where}, with the other rows of its training,", error)
            continue
        name, seed = f"{file.stem}-{number:05d}", settings.pop("seed")
        batch.add(where, ImportedRun(name, architecture, first["data"], seed, settings, curves))


def _architecture(row: Row, cells: dict[str, int], name: str) -> Architecture:
    """The cells of a row: a published cell or its variant by that name, else one of a space."""
    text = row["genotype"]
    if not text or text.lower().endswith((".yaml", ".yml")):
        raise ValueError("`genotype` must be a literal or the name of a published cell")
    try:
        (architecture,) = expand_architectures([text])
    except (ValueError, OSError) as error:
        # The cause, without the key of a study's file.
        raise ValueError(f"`genotype`: {error.__cause__ or error}") from None
    if architecture.kind != "own":
        return architecture
    genotype = architecture.genotype
    number = cells.setdefault(str(genotype), len(cells) + 1)
    return Architecture(str(genotype), genotype, row["space"] or name, f"cell {number}", "sampled")


def _setting(name: str, text: str) -> Any:
    """A setting of a training, or its seed; None where it is not known."""
    dtype = "Int64" if name == "seed" else SETTINGS[name]
    if not text or dtype == "str":
        return text or None
    if dtype == "boolean":
        if text.lower() not in _TRUTHS:
            raise ValueError(f"`{name}` (={text!r}) must be true or false")
        return _TRUTHS[text.lower()]
    value, whole = _number(name, text), dtype == "Int64"
    if not 0 <= value < math.inf or (whole and not value.is_integer()):
        raise ValueError(f"`{name}` (={text}) must be a {'whole ' if whole else ''}number from 0 on")
    return int(value) if whole else value


def _curves(batch: Batch, file: str, rows: Mapping[int, Row]) -> dict[str, np.ndarray]:
    """Metrics by epoch. Rows that cannot be used are named; their epochs have no metrics."""
    found: dict[int, dict[str, float]] = {}
    for row, texts in rows.items():
        try:
            epoch, metrics = _epoch(texts)
            if epoch in found:
                raise ValueError(f"epoch {epoch} of this training appears twice")
        except ValueError as error:
            batch.problems.append(f"{file}, row {row + 1} is not used: {error}")
            continue
        found[epoch] = metrics
    epochs = range(1, max(found, default=0) + 1)
    return {
        name: np.array([found.get(epoch, {}).get(name, math.nan) for epoch in epochs], dtype=np.float64)
        for name in METRICS
    }


def _epoch(row: Row) -> tuple[int, dict[str, float]]:
    """Epoch and metrics of a row."""
    epoch = _number("epoch", row["epoch"])
    if not epoch.is_integer() or not 1 <= epoch <= _MOST_EPOCHS:
        raise ValueError(f"`epoch` (={row['epoch']}) must be a whole number; epochs count from 1")
    metrics = {name: _number(name, row[name]) for name in METRICS if row[name]}
    for name, value in metrics.items():
        if "accuracy" in name and not 0 <= value <= 1:
            raise ValueError(f"`{name}` (={value:g}) must be a fraction from 0 to 1")
    return int(epoch), metrics


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"`{name}` (={text!r}) must be a number") from None
