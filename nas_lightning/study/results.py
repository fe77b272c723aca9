"""Result tables of a study: one row a run, and one row a run and epoch.

The tables are made anew from the runs' files each time, so nothing that a killed study leaves behind can be
out of date. Runs that are missing, unfinished, damaged or another training than planned are named, not
guessed.

Columns and their types do not depend on what the runs have. Types are pandas' names: ``str`` (missing: NaN),
``float64`` (missing: NaN), ``int64`` where every run has a value, ``Int64`` and ``boolean`` where one may
lack it (missing: NA), as imported results do. Settings are text, as their types differ between runs
(``null``, ``5``, ``5.0``, ``"auto"``).
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pandas as pd

from nas_lightning.cells import topology
from nas_lightning.files import atomic_write
from nas_lightning.identity import ANALYSES, flatten
from nas_lightning.study.between import between_seeds
from nas_lightning.study.convergence import convergence_statistics
from nas_lightning.study.imported import imported_results
from nas_lightning.study.record import Record, Statistics, in_one_line, read_record, read_result
from nas_lightning.study.study import Run, Study

TEXT = "str"
NUMBER = "float64"
COUNT = "int64"
OPTIONAL_COUNT = "Int64"
OPTIONAL_TRUTH = "boolean"

AT_START = "start."
"""Beginning of the columns of what was measured with the initial weights."""

_AT_CENTER = (
    *("center_variance", "center_mean_gradient_norm", "center_noise_scale"),
    *("center_loss", "center_normalized_variance", "tangent_kernel_trace"),
)
"""Measured once at w*, not in the plane of a pair of directions."""
_PROFILE_AT_CENTER = ("second_derivative", "second_derivative_standard_error")
_STATISTICS = {
    "loss_contour": (
        *("near_convex_share", "near_convex_radius", "convexity_ratio", "convexity_ratio_square"),
        *("curvature_center", "curvature_center_max", "curvature_mean", "curvature_max"),
    ),
    "gradient_variance": (*_AT_CENTER, "variance_center", "standard_deviation_center"),
    "loss_profile": ("mean_rise", "one_nat_radius", *_PROFILE_AT_CENTER),
    "curvature_map": (
        *("nearly_convex_share", "mean_ratio", "converged_share", "eigenvalue_ratio_center"),
        *("largest_eigenvalue_center", "smallest_eigenvalue_center"),
    ),
    "block_curvature": (
        *("network_largest_eigenvalue", "network_smallest_eigenvalue", "largest_block_eigenvalue"),
        *("largest_node_eigenvalue", "block_share"),
    ),
    "loss_line": ("train_mean_rise", "test_mean_rise"),
    "interpolation": (
        *("train_barrier", "test_barrier", "train_accuracy_barrier", "test_accuracy_barrier"),
        *("test_barrier_position", "distance"),
    ),
    "hessian_spectrum": (
        *("largest_eigenvalue", "smallest_eigenvalue", "trace", "trace_standard_error"),
        *("products", "converged", "center_loss", "normalized_largest_eigenvalue"),
    ),
    "spectral_density": (
        *("hessian_trace", "hessian_frobenius_norm", "hessian_effective_dimension"),
        *("gauss_newton_trace", "gauss_newton_effective_dimension"),
        *("normalized_hessian_trace", "normalized_hessian_frobenius_norm"),
        *("normalized_hessian_effective_dimension", "normalized_gauss_newton_trace"),
        "normalized_gauss_newton_effective_dimension",
    ),
    "trajectory": ("plane_variance", "path_length", "path_straightness"),
    "mode_connectivity": (
        *("curve_train_barrier", "curve_test_barrier", "line_train_barrier", "line_test_barrier"),
    ),
}
_WITHOUT_PLANE = (
    *("block_curvature", "hessian_spectrum", "spectral_density"),
    *("interpolation", "trajectory", "mode_connectivity"),
)
_LOGARITHMIC = ("center_", "normalized_largest_eigenvalue")
"""Beginnings of the names of statistics whose logarithms are averaged over the epochs."""
_ON_TRAINING_SPLIT = ("gradient_variance", "hessian_spectrum")
"""Analyses that studies also measure on the training split, as STEM_train, during the training."""

_PACKAGES = ("python", "nas_lightning", "torch", "torchvision", "lightning", "torchmetrics", "numpy")
_SETTINGS = (
    *(f"model.{name}" for name in ("genotype", "init_channels", "num_cells", "num_classes")),
    *(f"model.{name}" for name in ("stem_stride", "stem")),
    *(f"model.{name}" for name in ("drop_path", "auxiliary_weight", "speed", "optimizer.class_path")),
    *(f"model.optimizer.init_args.{name}" for name in ("lr", "momentum", "weight_decay")),
    *(f"model.{name}" for name in ("lr_scheduler", "operations")),
    *(f"data.{name}" for name in ("class", "root", "batch_size", "cutout", "validation_fraction")),
    *(f"data.{name}" for name in ("validation_seed", "seed", "evaluation_batch_size")),
    *(f"trainer.{name}" for name in ("max_epochs", "gradient_clip_val", "precision", "world_size")),
)


def optional_dtype(name: str) -> str:
    """Type of a column that only some studies have.

    Text for settings, versions, file names and splits; counts of samples, seeds and epochs may be missing;
    all else are statistics.
    """
    if name.startswith(("settings.", "version_")) or name.endswith(("_file", ".split")):
        return TEXT
    counts = (".samples", ".direction_seeds", ".epochs_measured")
    return OPTIONAL_COUNT if name.endswith(counts) else NUMBER


def _analysis_columns() -> dict[str, str]:
    kinds = {stem: stem for stem in ANALYSES.values()} | {
        f"{kind}_train": kind for kind in _ON_TRAINING_SPLIT
    }
    names = [f"{stem}_file" for stem in kinds]
    for stem, kind in kinds.items():
        names += _columns_of(stem, kind)
        averaged = [name for name in _STATISTICS[kind] if name.startswith(_LOGARITHMIC)]
        if averaged:
            names += [*(f"{stem}.mean_log.{name}" for name in averaged), f"{stem}.epochs_measured"]
    for stem in _ON_TRAINING_SPLIT:
        names += [f"{AT_START}{stem}_file", *(AT_START + name for name in _columns_of(stem, stem))]
    return {name: optional_dtype(name) for name in names}


def _columns_of(stem: str, kind: str) -> list[str]:
    names = []
    in_plane = kind not in _WITHOUT_PLANE
    for statistic in _STATISTICS[kind]:
        names.append(f"{stem}.{statistic}")
        if in_plane and statistic not in (*_AT_CENTER, *_PROFILE_AT_CENTER):
            names.append(f"{stem}.{statistic}.sd")
    return [*names, f"{stem}.samples", f"{stem}.split", *([f"{stem}.direction_seeds"] if in_plane else [])]


def _convergence_columns() -> dict[str, str]:
    names = convergence_statistics({name: [0.0] for name in ("loss", "accuracy", "train_loss")}, 2, 1)
    return dict.fromkeys(names, NUMBER) | {"diverged": OPTIONAL_TRUTH}


RUN_COLUMNS = MappingProxyType(
    dict.fromkeys(("run", "folder", "study", "spec", "genotype"), TEXT)
    | dict.fromkeys(("architecture", "family", "variant", "kind"), TEXT)
    | {"width": NUMBER, "depth": COUNT, "path": NUMBER}
    | {"reduce_width": NUMBER, "reduce_depth": COUNT, "reduce_path": NUMBER}
    | {"network_width": NUMBER, "network_depth": OPTIONAL_COUNT, "network_path": NUMBER}
    | dict.fromkeys(("shortest_path", "longest_path"), OPTIONAL_COUNT)
    | {"reads_input_0": OPTIONAL_TRUTH, "reads_input_1": OPTIONAL_TRUTH, "duplicate_edges": COUNT}
    | dict.fromkeys(("parameters", "live_parameters", "multiply_adds"), OPTIONAL_COUNT)
    | {"data": TEXT, "num_classes": OPTIONAL_COUNT, "learning_rate": NUMBER}
    | {"seed": OPTIONAL_COUNT, "epochs": COUNT}
    | dict.fromkeys(("steps_per_epoch", "batch_size", "cutout"), OPTIONAL_COUNT)
    | {"drop_path": NUMBER, "auxiliary_weight": NUMBER, "regularized": OPTIONAL_TRUTH}
    | {"evaluation_split": TEXT}
    | dict.fromkeys(("init_channels", "num_cells", "train_size", "evaluation_size"), OPTIONAL_COUNT)
    | dict.fromkeys(("final_loss", "final_accuracy", "final_error_percent"), NUMBER)
    | dict.fromkeys(("final_train_loss", "final_train_accuracy", "best_accuracy"), NUMBER)
    | {"best_epoch": OPTIONAL_COUNT, "training_seconds": NUMBER}
    | _convergence_columns()
    | _analysis_columns()
    | {"weights_sha256": TEXT, "device": TEXT}
    | {f"version_{name}": TEXT for name in _PACKAGES}
    | {f"settings.{name}": TEXT for name in _SETTINGS}
)
"""Columns of the table of runs, in order, and their types."""

CURVE_COLUMNS = MappingProxyType(
    dict.fromkeys(("run", "architecture", "family", "variant", "data"), TEXT)
    | {"learning_rate": NUMBER, "seed": OPTIONAL_COUNT, "epoch": COUNT, "step": OPTIONAL_COUNT}
    | dict.fromkeys(("loss", "accuracy", "accuracy_top5", "train_loss", "train_accuracy"), NUMBER)
    | dict.fromkeys(("learning_rate_now", "images_per_second"), NUMBER)
)
"""Columns of the table of curves, in order, and their types."""

_NAMED = 3


@dataclass(frozen=True, eq=False)
class Results:
    """What a study gave so far.

    Attributes:
        study: The study.
        runs: One row per finished run, in the order of the study; columns and types are those of
            :data:`RUN_COLUMNS`, and further statistics and settings after them.
        curves: One row per finished run and epoch, columns :data:`CURVE_COLUMNS`.
        problems: What is missing, unfinished, damaged or foreign; a line each.
        notes: Which runs have fewer epochs than planned, and why; a line each.
    """

    study: Study
    runs: pd.DataFrame
    curves: pd.DataFrame
    problems: tuple[str, ...]
    notes: tuple[str, ...] = ()


def collect_results(study: Study) -> Results:
    """Read the results of all finished runs of a study, or of the runs that it imported.

    Args:
        study: The study.

    Returns:
        The tables. Columns and their types do not depend on what is there, so that the tables of several
        studies can be put one after the other.
    """
    rows: list[dict[str, Any]] = []
    curves: list[dict[str, Any]] = []
    problems: list[str] = []
    notes: list[str] = []
    if study.imported is not None:
        rows, imported_curves = imported_results(study.name, study.imported)
        typed = imported_curves.reindex(columns=list(CURVE_COLUMNS)).astype(dict(CURVE_COLUMNS))
        return Results(study, _frame(rows, RUN_COLUMNS), typed, study.imported.problems)
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
        if record.ended is not None:
            notes.append(f"{run.name} has {record.epochs} of {run.epochs} epochs: {record.ended}")
    problems.extend(_foreign_folders(study))
    tables = _frame(rows, RUN_COLUMNS), _frame(curves, CURVE_COLUMNS)
    return Results(study, *tables, tuple(problems), tuple(notes))


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
    run, split = record.run, record.result.text("evaluation_split")
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
            "data": run.data_set,
            "learning_rate": record.result.learning_rate,
            "seed": run.seed,
            "epoch": epoch,
            "step": (epoch + 1) * record.steps_per_epoch,
            **{name: metrics.get(tag, math.nan) for name, tag in tags.items()},
        }
        for epoch, metrics in enumerate(record.metrics)
    ]


def _run_row(study: Study, record: Record, curve: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    run, result, cell, last = record.run, record.result, record.run.architecture, curve[-1]
    settings, provenance = result.content["settings"], result.content["provenance"]
    split, best = result.text("evaluation_split"), result.content["best"]
    model = {
        name: result.integer("settings", f"model.{name}")
        for name in ("num_classes", "init_channels", "num_cells")
    }
    batch_size = result.integer("settings", "data.batch_size")
    # Data sets of one's own may have no cutout.
    cutout = None if settings.get("data.cutout") is None else result.integer("settings", "data.cutout")
    drop_path = result.number("settings", "model.drop_path")
    auxiliary_weight = result.number("settings", "model.auxiliary_weight")
    images = record.train_batches * batch_size
    sizes = ("parameters", "live_parameters", "multiply_adds")
    row: dict[str, Any] = {
        "run": run.name,
        "folder": str(run.folder),
        "study": study.name,
        "genotype": result.text("cell", "genotype"),
        "architecture": cell.label,
        **{name: getattr(cell, name) for name in ("spec", "family", "variant", "kind")},
        **dataclasses.asdict(topology(cell.genotype, model["num_cells"])),
        **{name: result.integer("cell", name) for name in sizes},
        "data": run.data_set,
        **model,
        "learning_rate": result.learning_rate,
        "seed": run.seed,
        # Runs that ended early are compared with those that they were planned with.
        "epochs": result.content["epochs"] if record.ended is None else run.epochs,
        "steps_per_epoch": record.steps_per_epoch,
        "batch_size": batch_size,
        "cutout": cutout,
        "drop_path": drop_path,
        "auxiliary_weight": auxiliary_weight,
        "regularized": bool(cutout) or drop_path > 0 or auxiliary_weight > 0,
        "evaluation_split": split,
        "train_size": result.integer("provenance", "data", "split_sizes", "train"),
        "evaluation_size": result.integer("provenance", "data", "split_sizes", split),
        "final_loss": last["loss"],
        "final_accuracy": last["accuracy"],
        "final_error_percent": 100 * (1 - last["accuracy"]),
        "final_train_loss": last["train_loss"],
        "final_train_accuracy": last["train_accuracy"],
        "best_accuracy": result.number("best", f"accuracy/{split}") if best else None,
        "best_epoch": result.integer("best", "epoch") if best else None,
        "training_seconds": sum(images / epoch["images_per_second"] for epoch in curve),
        **convergence_statistics(
            {name: [epoch[name] for epoch in curve] for name in ("loss", "accuracy", "train_loss")},
            model["num_classes"],
            record.steps_per_epoch,
        ),
        "weights_sha256": result.text("provenance", "weights_sha256"),
        "device": result.text("provenance", "device"),
    }
    for stem, measured in record.analyses.items():
        row |= _analysis_values(stem, measured, run, record.epochs)
    versions = provenance.get("versions")
    if isinstance(versions, dict):
        row |= {f"version_{name.replace('-', '_')}": str(value) for name, value in versions.items()}
    return row | {f"settings.{key}": _as_text(value) for key, value in flatten(settings).items()}


def _analysis_values(
    stem: str, measured: Mapping[int, Statistics], run: Run, trained_epochs: int
) -> dict[str, Any]:
    """What an analysis found at the end and at the start of a run, and the means of logarithms between."""
    values: dict[str, Any] = {}
    for prefix, epochs in (("", trained_epochs), (AT_START, 0)):
        for name, value in measured.get(epochs, {}).items():
            values[f"{prefix}{stem}_file" if name == "file" else f"{prefix}{stem}.{name}"] = value
    planned = next(
        (one.measured_after(trained_epochs) for one in run.analyses if one.stem == stem), (trained_epochs,)
    )
    trained = [epochs for epochs in planned if epochs]
    if trained and all(epochs in measured for epochs in trained):
        for name in measured[trained[-1]]:
            if name.startswith(_LOGARITHMIC) and not name.endswith(".sd"):
                found = [float(measured[epochs].get(name, math.nan)) for epochs in trained]
                values |= {
                    f"{stem}.mean_log.{name}": mean_log(found),
                    f"{stem}.epochs_measured": len(trained),
                }
    return values


def mean_log(values: Sequence[float]) -> float:
    """Mean of the natural logarithms; NaN if a value is not positive, or not finite."""
    if not all(0 < value < math.inf for value in values):
        return math.nan
    return math.fsum(map(math.log, values)) / len(values)


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
    known = {run.folder.name for run in study.runs} | {one.name for one in between_seeds(study)} | {"reports"}
    names = sorted(
        path.name
        for path in study.folder.glob("[!.]*")
        if path.is_dir() and path.name not in known and not _has_result(path)
    )
    if not names:
        return []
    others = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    noun = "folder belongs" if len(names) == 1 else "folders belong"
    return [
        f"{len(names)} {noun} to no run of this study, in {study.folder}: {', '.join(names[:_NAMED])}{others}"
    ]
