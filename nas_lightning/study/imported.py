"""Imported results: how they are stored, and what is derived from them.

An imported study is a YAML file with the key ``imported`` and two Parquet tables beside it,
``NAME-runs.parquet`` and ``NAME-curves.parquet``. The tables hold what the source says and nothing else;
sizes, topology and statistics are computed anew each time, by the same functions as for runs of one's own.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from nas_lightning.cells import (
    Genotype,
    count_parameters,
    declare_operation,
    multiply_adds,
    parse_genotype,
    topology,
)
from nas_lightning.files import atomic_write
from nas_lightning.study.convergence import convergence_statistics
from nas_lightning.study.study import Architecture, Imported, Study, VariantKind
from nas_lightning.yaml_files import read_mapping

METRICS = ("accuracy", "loss", "accuracy_top5", "train_loss", "train_accuracy")
"""Columns of a curve; of those only the accuracy (of the evaluation split, a fraction) must be known."""

_WEIGHT_DECAY = "settings.model.optimizer.init_args.weight_decay"
SETTINGS: Mapping[str, str] = {
    **dict.fromkeys(("num_classes", "batch_size", "cutout", "init_channels", "num_cells"), "Int64"),
    **dict.fromkeys(("learning_rate", "weight_decay", "drop_path", "auxiliary_weight"), "float64"),
    **{"regularized": "boolean", "evaluation_split": "str"},
}
"""Settings of a run that a source may say, and the types of their columns."""

_RUN_TYPES: Mapping[str, str] = {
    **dict.fromkeys(("run", "genotype", "spec", "family", "variant", "kind", "data"), "str"),
    **{"seed": "Int64"},
    **SETTINGS,
}
_CURVE_TYPES: Mapping[str, str] = {"run": "str", "epoch": "int64", **dict.fromkeys(METRICS, "float64")}
_BOUNDS: Mapping[str, tuple[int, int]] = {
    **dict.fromkeys(("cutout", "learning_rate", "weight_decay", "drop_path", "auxiliary_weight"), (0, 10**6)),
    **{"seed": (0, 2**63 - 1), "batch_size": (1, 10**9), "num_classes": (1, 10**6)},
    **{"init_channels": (1, 10**4), "num_cells": (1, 1000)},
}
"""Least and largest values of what a source may say: beyond, sizes are no sizes of networks."""
_SOURCES = Path(__file__).with_name("import_sources.yaml")


@dataclass(frozen=True, eq=False)
class ImportedRun:
    """One training as a source has it.

    Attributes:
        name: Name of the run, unique within the import.
        architecture: The cells.
        data: Name of the data class, such as ``"CIFAR10"``.
        seed: Seed of the training; None where unknown.
        settings: Values of :data:`SETTINGS`, as far as they are known.
        curves: Values of :data:`METRICS` by epoch, each [epochs]; NaN where an epoch lacks one. Losses in
            nat, accuracies are fractions.
    """

    name: str
    architecture: Architecture
    data: str
    seed: int | None
    settings: Mapping[str, Any]
    curves: Mapping[str, np.ndarray]


@dataclass(eq=False)
class Batch:
    """What a reader found: runs, the number of those left out, and a line for everything worth knowing."""

    runs: list[ImportedRun] = field(default_factory=list)
    left_out: int = 0
    problems: list[str] = field(default_factory=list)
    _seen: dict[tuple[Any, ...], str] = field(default_factory=dict, init=False, repr=False)

    def leave_out(self, where: str, reason: object) -> None:
        """Count a run that cannot be used; ``where`` names file and row."""
        self.left_out += 1
        self.problems.append(f"{where} is left out: {reason}")

    def add(self, where: str, run: ImportedRun) -> None:
        """Take a run, unless the same training is there already."""
        accuracy = run.curves["accuracy"]
        if np.isnan(accuracy).all():
            self.leave_out(where, "it has no accuracy")
            return
        for name, (least, most) in _BOUNDS.items():
            value = run.seed if name == "seed" else run.settings.get(name)
            if value is not None and not (least <= value <= most or math.isnan(value)):
                self.leave_out(where, f"`{name}` (={value}) must be from {least} to {most}")
                return
        cell = run.architecture
        key = (cell.family, cell.genotype, run.data, run.seed, *map(run.settings.get, SETTINGS))
        if (other := self._seen.setdefault(key, run.name)) != run.name:
            self.leave_out(where, f"{other} has the same cells, data, settings and seed")
            return
        if missing := int(np.isnan(accuracy).sum()):
            epochs = "an epoch" if missing == 1 else f"{missing} epochs"
            self.problems.append(f"{where} has no accuracy for {epochs} of {accuracy.size}")
        self.runs.append(run)


def sources() -> tuple[str, ...]:
    """Names of the sources that can be imported."""
    return tuple(name for name in _content() if name != "data_sets")


def source_facts(source: str) -> Mapping[str, Any]:
    """What ``import_sources.yaml`` says of a source: title, citation, stated values, what is unknown."""
    facts: Mapping[str, Any] = _content()[source]
    return facts


def stated_settings(source: str) -> dict[str, Any]:
    """Values that a source's files do not record and that are said elsewhere."""
    return {name: entry["value"] for name, entry in source_facts(source)["stated"].items()}


def check_names(files: Sequence[Path]) -> None:
    """Runs and cells go by the names of their files: a ValueError if two have one name."""
    seen: dict[str, Path] = {}
    for file in files:
        if file.stem in seen:
            raise ValueError(
                f"{seen[file.stem]} and {file} have one name, and runs go by it; rename one of them"
            )
        seen[file.stem] = file


def declare_operations(source: str) -> None:
    """Make the operations of a source's spaces valid in genotypes: names without a formula."""
    for name in source_facts(source).get("operations", ()):
        declare_operation(name)


def check_output(path: Path, files: Sequence[Path]) -> None:
    """Refuse to write an imported study over anything but an imported study.

    Raises:
        ValueError: If a file that would be written is one of the sources ``files``, or exists and is no part
            of an import.
    """
    if path.exists() and "imported" not in read_mapping(path):
        raise ValueError(f"{path} exists and is no imported study; give another name")
    for table, types in zip(_tables(path).values(), (_RUN_TYPES, _CURVE_TYPES), strict=True):
        if table.resolve() in {file.resolve() for file in files}:
            raise ValueError(f"{path} would overwrite {table}, which it imports; give another name")
        if table.exists() and not path.exists() and not _has_columns(table, list(types)):
            raise ValueError(f"{table} exists and is no part of an import; give another name")


def _tables(path: Path) -> dict[str, Path]:
    """The tables beside a study's file."""
    return {name: path.with_name(f"{path.stem}-{name}.parquet") for name in ("runs", "curves")}


def _has_columns(table: Path, columns: Sequence[str]) -> bool:
    """Whether a file is a Parquet table of these columns, such as a killed import leaves."""
    try:
        return list(pq.read_schema(table).names) == list(columns)
    except (OSError, pa.ArrowException):
        return False


def write_import(path: Path, study: Mapping[str, Any], imported: Mapping[str, Any], batch: Batch) -> None:
    """Write an imported study: the tables, then the file that names their sums.

    Args:
        path: The study's YAML file; the tables go beside it.
        study: ``name`` and ``title``.
        imported: The keys of ``imported`` but those of the tables.
        batch: The runs.

    Raises:
        OSError: If a file cannot be written; the message names it.
    """
    runs = pd.DataFrame([_stored(run) for run in batch.runs])
    curves = pd.concat(
        [pd.DataFrame({"run": run.name, **run.curves}).rename_axis("epoch") for run in batch.runs]
    ).reset_index()
    tables = {}
    for name, frame, types in (("runs", runs, _RUN_TYPES), ("curves", curves, _CURVE_TYPES)):
        table = _tables(path)[name]
        with atomic_write(table, "wb") as file:
            frame.reindex(columns=list(types)).astype(dict(types)).to_parquet(file, index=False)
        tables[name] = {"file": table.name, "sha256": sha256(table)}
    content = {**study, "imported": {**imported, "tables": tables, "left_out": batch.left_out}}
    content["imported"]["problems"] = batch.problems
    with atomic_write(path) as file:
        yaml.safe_dump(content, file, sort_keys=False, allow_unicode=True, width=110)


def read_import(path: Path, root: Path, content: Mapping[str, Any]) -> Study:
    """The study of a file with the key ``imported``; a ValueError names what is wrong with the file."""
    try:
        held = content["imported"]
        tables = [held["tables"][name] for name in ("runs", "curves")]
        runs, curves = (path.with_name(Path(str(table["file"])).name) for table in tables)
        imported = Imported(
            **{name: str(held[name]) for name in ("source", "date", "citation", "url", "licence")},
            files=tuple((str(file["name"]), str(file["sha256"])) for file in held["files"]),
            runs=runs,
            curves=curves,
            sums=(str(tables[0]["sha256"]), str(tables[1]["sha256"])),
            stated={str(name): dict(entry) for name, entry in held["stated"].items()},
            unknown=tuple(map(str, held["unknown"])),
            left_out=int(held["left_out"]),
            problems=tuple(map(str, held["problems"])),
        )
        name, title = str(content["name"]), str(content.get("title") or content["name"])
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(f"{path} is no valid import ({reason}); import again") from None
    if imported.source not in sources():
        raise ValueError(f"{path}: unknown source {imported.source!r}; there are {', '.join(sources())}")
    return Study(name, title, path, root, name, (), imported)


def imported_results(study: str, imported: Imported) -> tuple[list[dict[str, Any]], pd.DataFrame]:
    """Rows of the table of runs, and the table of curves, of imported results.

    Raises:
        FileNotFoundError: If a table is missing.
        ValueError: If a table is not the one that was imported.
    """
    frames = []
    for path, total in zip((imported.runs, imported.curves), imported.sums, strict=True):
        if not path.is_file():
            raise FileNotFoundError(f"{path} does not exist; import again")
        if sha256(path) != total:
            raise ValueError(f"{path} is not the table that was imported; import again")
        frames.append(pd.read_parquet(path))
    runs, curves = frames
    declare_operations(imported.source)
    # Columns without any value were not recorded.
    recorded = [name for name in METRICS if curves[name].notna().any()]
    by_run = {str(name): group for name, group in curves.groupby("run", sort=False)}
    rows = [
        _run_row(study, dict(zip(map(str, runs), values, strict=True)), by_run[values[0]], recorded)
        for values in runs.itertuples(index=False, name=None)
    ]
    of_run = pd.DataFrame(rows).set_index("run")
    columns = ["architecture", "family", "variant", "data", "learning_rate", "seed", "steps_per_epoch"]
    merged = curves.join(of_run[columns], on="run")
    merged["step"] = (merged["epoch"] + 1) * merged["steps_per_epoch"].astype("Int64")
    return rows, merged


def sha256(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _stored(run: ImportedRun) -> dict[str, Any]:
    cell = run.architecture
    return {
        "run": run.name,
        "genotype": str(cell.genotype),
        **{name: getattr(cell, name) for name in ("spec", "family", "variant", "kind")},
        "data": run.data,
        "seed": run.seed,
        **{name: run.settings.get(name) for name in SETTINGS},
    }


def _run_row(
    study: str, run: Mapping[str, Any], curve: pd.DataFrame, recorded: Sequence[str]
) -> dict[str, Any]:
    """A row of the table of runs: what the source says, and what follows from it."""
    known = {name: None if pd.isna(value) else _plain(value) for name, value in run.items()}
    genotype = parse_genotype(str(run["genotype"]))
    kind: VariantKind = run["kind"]
    cell = Architecture(run["spec"], genotype, run["family"], run["variant"], kind)
    data_set = _content()["data_sets"].get(run["data"], {})
    known["num_classes"] = num_classes = known["num_classes"] or data_set.get("num_classes")
    train_size, batch_size = data_set.get("train"), known["batch_size"]
    steps = train_size // batch_size if train_size and batch_size else None
    values = {name: curve[name].to_numpy(np.float64) if name in recorded else None for name in METRICS}
    last = {name: math.nan if array is None else float(array[-1]) for name, array in values.items()}
    accuracy = curve["accuracy"].to_numpy(np.float64)
    best = int(np.nanargmax(accuracy))
    decay = known.pop("weight_decay")
    return {
        **known,
        "study": study,
        "architecture": cell.label,
        **asdict(topology(genotype, known["num_cells"])),
        **_sizes(genotype, known, data_set),
        "epochs": len(curve),
        "steps_per_epoch": steps,
        "regularized": _regularized(known),
        "train_size": train_size,
        "evaluation_size": data_set.get(known["evaluation_split"]),
        **{f"final_{name}": last[name] for name in ("loss", "accuracy", "train_loss", "train_accuracy")},
        "final_error_percent": 100 * (1 - last["accuracy"]),
        "best_accuracy": float(accuracy[best]),
        "best_epoch": best,
        **convergence_statistics(values, num_classes, steps),
        _WEIGHT_DECAY: None if decay is None else f"{decay:g}",
    }


def _plain(value: Any) -> Any:
    """A NumPy scalar as Python's own."""
    return value.item() if isinstance(value, np.generic) else value


def _regularized(known: Mapping[str, Any]) -> bool | None:
    """Whether cutout, drop path or a tower was used: the source's word, else what its values say."""
    if known["regularized"] is not None:
        return bool(known["regularized"])
    values = [known[name] for name in ("cutout", "drop_path", "auxiliary_weight")]
    if any(value is not None and value > 0 for value in values):
        return True
    return None if None in values else False


def _sizes(genotype: Genotype, known: Mapping[str, Any], data_set: Mapping[str, Any]) -> dict[str, Any]:
    """Sizes of the network, counted by formula; unknown where its shape or an operation's formula is."""
    shape = {name: known[name] for name in ("init_channels", "num_cells", "num_classes")}
    if None in shape.values() or "image_size" not in data_set:
        return {}
    count: Any = partial(count_parameters, genotype, **shape)
    try:
        return {
            "parameters": count(),
            "live_parameters": count(live=True),
            "multiply_adds": multiply_adds(genotype, image_size=data_set["image_size"], **shape),
        }
    except ValueError:  # an operation without a formula, or a shape that no network has
        return {}


@cache
def _content() -> dict[str, Any]:
    return read_mapping(_SOURCES)
