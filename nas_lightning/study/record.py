"""What one run of a study stored: ``result.json``, ``metrics.csv`` and the files of its analyses.

Nothing is derived from the names of folders: what was trained is what ``result.json`` says, and that must be
what is planned.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import xarray as xr

from nas_lightning.identity import ANALYSES, differing_settings, flatten, identity_hash
from nas_lightning.netcdf import read_dataset
from nas_lightning.study.study import AnalysisFile, Run

Row: TypeAlias = dict[str, float]
Statistics: TypeAlias = dict[str, float | int | str]

_SECTIONS = ("final", "best", "cell", "settings", "provenance")
# What a file of an analysis says of its points and directions, not of the loss.
_NO_STATISTICS = frozenset({"done", "cosine"})
# Settings of an analysis that change none of its numbers.
_FREE = frozenset({"at_end", "at_start", "batch_size", "every_n_epochs", "folder", "name", "speed"})


@dataclass(frozen=True, eq=False)
class Result:
    """A ``result.json``, of whichever training. NaN and infinity are texts in it."""

    path: Path
    content: Mapping[str, Any]

    def value(self, *keys: str) -> Any:
        """What stands under these keys; ValueError if it is missing."""
        value: Any = self.content
        for key in keys:
            if not isinstance(value, Mapping) or key not in value:
                raise ValueError(f"{self.path} is damaged: `{'` of `'.join(reversed(keys))}` is missing")
            value = value[key]
        return value

    def number(self, *keys: str) -> float:
        """The number under these keys; ValueError if it is missing or no number."""
        value = self.value(*keys)
        try:
            if isinstance(value, bool):
                raise TypeError
            return float(value)
        except (TypeError, ValueError):
            raise ValueError(f"{self.path}: `{keys[-1]}` is {value!r}, a number was expected") from None

    def integer(self, *keys: str) -> int:
        """The whole number under these keys; ValueError if it is missing or no whole number."""
        value = self.number(*keys)
        if not value.is_integer():
            raise ValueError(f"{self.path}: `{keys[-1]}` is {value}, a whole number was expected")
        return int(value)

    def text(self, *keys: str) -> str:
        """The text under these keys; ValueError if it is missing or no text."""
        value = self.value(*keys)
        if not isinstance(value, str):
            raise ValueError(f"{self.path}: `{keys[-1]}` is {value!r}, text was expected")
        return value

    @property
    def learning_rate(self) -> float | None:
        """Initial learning rate of the optimiser, or None where the file has none."""
        rate = flatten(self.content["settings"]).get("model.optimizer.init_args.lr")
        return float(rate) if isinstance(rate, int | float) else None


@dataclass(frozen=True, eq=False)
class Record:
    """A finished run's files.

    ``metrics`` are the rows of ``metrics.csv``, one an epoch, without what was not measured in it;
    ``train_batches`` and ``steps_per_epoch`` (of the optimiser) are for an epoch; ``analyses`` are the
    statistics of each by the stem of its file and the number of epochs after which they were measured;
    ``problems`` name analyses that are missing, unfinished, damaged or of other weights; ``epochs`` is the
    number of epochs trained, and ``ended`` says why they are fewer than planned, None if they are not.
    """

    run: Run
    result: Result
    metrics: tuple[Row, ...]
    train_batches: int
    steps_per_epoch: int
    analyses: Mapping[str, Mapping[int, Statistics]]
    problems: tuple[str, ...]
    epochs: int
    ended: str | None = None


def trained_epochs(run: Run, content: Mapping[str, Any]) -> int:
    """Number of epochs after which a finished run ended, by its ``result.json``."""
    epochs = content.get("epochs")
    # An earlier version finished runs only at their last planned epoch.
    return epochs if isinstance(epochs, int) and "ended" in content else run.epochs


def ended_early(run: Run, content: Mapping[str, Any]) -> str | None:
    """Why a finished run has fewer epochs than planned, such as early stopping; None if it has all.

    A limit of steps in the settings is part of the plan.
    """
    if run.settings.get("trainer.max_steps", -1) not in (None, -1):
        return None
    return str(content.get("ended")) if trained_epochs(run, content) < run.epochs else None


def read_record(run: Run) -> Record:
    """Read the files of a run.

    Raises a ValueError of one line, which names the file, if the run is missing or unfinished, is another
    training than planned, or a file of it is damaged.
    """
    path = run.folder / "result.json"
    if not path.exists():
        raise ValueError(_how_far(run))
    result = read_result(path)
    if differences := _differences(run, result):
        raise ValueError(f"{path} is foreign, of another training than planned: {'; '.join(differences)}")
    if result.content.get("finished") is not True:
        raise ValueError(f"unfinished, {path} was written after {result.content['epochs']} epochs")
    metrics = _whole_metrics(run.folder)
    _check_agreement(result, metrics)
    # The training loader drops an incomplete last batch, on any number of devices.
    images = result.integer("provenance", "data", "split_sizes", "train")
    batches = run.limited_batches(images // result.integer("settings", "data.batch_size"))
    steps = math.ceil(batches / (run.settings.get("trainer.accumulate_grad_batches") or 1))
    epochs = trained_epochs(run, result.content)
    analyses, problems = _read_analyses(run, epochs, result.text("provenance", "weights_sha256"))
    ended = ended_early(run, result.content)
    return Record(run, result, metrics, batches, steps, analyses, problems, epochs, ended)


def read_result(path: Path) -> Result:
    """Read a ``result.json``, of whichever training; a ValueError names the file if it is damaged or none."""
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from None
    for name in _SECTIONS:
        if not isinstance(content, dict) or not isinstance(content.get(name), dict):
            raise ValueError(f"{path} is no result of a training: `{name}` is missing")
    result = Result(path, content)
    result.integer("epochs")
    return result


def in_one_line(error: Exception) -> str:
    """What went wrong, with the file's name, without numbers of system errors."""
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__


def _how_far(run: Run) -> str:
    """What a run without a result has instead."""
    if not run.folder.is_dir():
        return f"not started, there is no folder {run.folder}"
    epochs = len(_whole_metrics(run.folder))
    done = f"{epochs} of {run.epochs} epochs are" if epochs else "no epoch is"
    return f"unfinished, {done} done in {run.folder}"


def _differences(run: Run, result: Result) -> list[str]:
    """In which settings a result is not of the planned training."""
    label = f"another genotype than {run.architecture.label}"
    deciding = result.content.get("deciding")
    if isinstance(deciding, dict) and "identity" in result.content:
        if result.text("identity") == identity_hash(run.deciding):
            return []
        found = differing_settings(run.deciding, deciding) or ["another identity"]
    else:
        found = _differences_without_identity(run, result)
    return [label if text == "another genotype" else text for text in found]


def _differences_without_identity(run: Run, result: Result) -> list[str]:
    """The same of a result that an earlier version wrote: what it says is compared."""
    recorded = {
        key.replace("data.", "data.init_args.", 1): value
        for key, value in flatten(result.content["settings"]).items()
    }
    recorded |= {
        "data.class_path": result.text("settings", "data.class"),
        "model.genotype": result.text("cell", "genotype"),
        "seed_everything": result.value("provenance", "seed"),
    }
    planned = {
        **run.settings,
        "data.class_path": run.data,
        "model.genotype": str(run.architecture.genotype),
        "seed_everything": run.seed,
        "trainer.max_epochs": run.epochs,
    }
    if run.learning_rate is not None:
        planned["model.optimizer.init_args.lr"] = run.learning_rate
    for settings in (planned, recorded):
        for key in ("model.optimizer", "model.lr_scheduler"):
            if key in settings and settings[key] is None:
                settings[f"{key}.class_path"] = "none"
    return differing_settings(planned, recorded, common=True)


def read_metrics(path: Path) -> tuple[tuple[Row, ...], str | None]:
    """Read a ``metrics.csv`` as far as it goes: its rows, and one line about what is wrong with it, or None.

    An empty cell is no number and ``nan`` is one. A missing file has no rows.
    """
    rows: list[Row] = []
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            if "epoch" not in (reader.fieldnames or ()):
                return (), f"{path} is damaged: it has no column `epoch`"
            for cells in reader:
                if None in cells or None in cells.values():
                    raise ValueError(f"line {reader.line_num} has not as many cells as line 1")
                row = {name: float(cell) for name, cell in cells.items() if cell}
                if row.get("epoch") != len(rows):
                    raise ValueError("its epochs are not 0, 1, 2, ...")
                rows.append(row)
    except FileNotFoundError:
        return (), None
    except (OSError, ValueError, csv.Error) as error:
        return tuple(rows), f"{path} is damaged: {in_one_line(error)}"
    return tuple(rows), None


def _whole_metrics(folder: Path) -> tuple[Row, ...]:
    rows, problem = read_metrics(folder / "metrics.csv")
    if problem is not None:
        raise ValueError(problem)
    return rows


def _check_agreement(result: Result, metrics: tuple[Row, ...]) -> None:
    """Refuse curves that are not those that ended in the result."""
    path, epochs = result.path.with_name("metrics.csv"), result.content["epochs"]
    if len(metrics) != epochs or not metrics:
        raise ValueError(f"{path} has {len(metrics)} epochs, result.json beside it {epochs}")
    for key in result.content["final"]:
        value, last = result.number("final", key), metrics[-1].get(key, math.nan)
        if last != value and not (math.isnan(last) and math.isnan(value)):
            raise ValueError(f"{path} ends with `{key}` {last}, result.json beside it with {value}")


# The files of analyses.


def _read_analyses(
    run: Run, trained: int, weights: str
) -> tuple[dict[str, dict[int, Statistics]], tuple[str, ...]]:
    """Statistics of the analyses that the study asks for and of those that are there all the same.

    What is missing, unfinished, damaged or of other weights is told, a line each, which names the file.
    """
    planned = {analysis.stem: analysis for analysis in run.analyses}
    usual = {stem: AnalysisFile(stem, {}) for stem in ANALYSES.values()}
    found: dict[str, dict[int, Statistics]] = {}
    problems = []
    for stem, analysis in (usual | planned).items():
        wanted = analysis.measured_after(trained) if stem in planned else ()
        for epochs in sorted({0, *wanted, trained}):
            path = analysis.path(run.folder, epochs)
            if not path.exists():
                if epochs in wanted:
                    problems.append(f"there is no {path}")
                continue
            try:
                dataset = read_dataset(path)
                if epochs == trained and dataset.attrs.get("weights_sha256", weights) != weights:
                    raise ValueError("measured with other weights than those that the run ended with")
                if stem in planned and (difference := measured_otherwise(run, analysis, dataset, path)):
                    raise ValueError(difference)
                statistics = {"file": str(path), **analysis_statistics(dataset)}
                found.setdefault(stem, {})[epochs] = statistics
            except (OSError, ValueError) as error:
                reason = in_one_line(error)
                problems.append(reason if str(path) in reason else f"{path}: {reason}")
    return found, tuple(problems)


def measured_otherwise(run: Run, analysis: AnalysisFile, dataset: xr.Dataset, path: Path) -> str | None:
    """One line with the file and the first setting in which it is not what a study asks for, or None.

    Settings that do not decide the numbers (batch size, file name, level) are not compared, nor is what the
    file does not say.
    """
    planned = dict(analysis.settings.get("init_args") or {})
    for name, wanted, found in _compared(run, planned, dataset):
        if found != wanted:
            return (
                f"{path} was measured with {name} {_shown(found)}, the plan says {_shown(wanted)};"
                " move it away to measure again"
            )
    return None


def _compared(run: Run, planned: dict[str, Any], dataset: xr.Dataset) -> Iterator[tuple[str, object, object]]:
    """Names of settings, what the plan says of them, and what the file does."""
    for name in planned:
        if name in dataset.attrs and name not in _FREE:
            found = dataset.attrs[name]
            if name in ("splits", "matrices"):
                found = str(found).split(", ")
            yield name, str(planned[name]) if isinstance(found, str) else planned[name], found
    if "max_samples" in planned and "samples" in dataset.attrs:
        samples = planned["max_samples"]
        if samples is None:
            samples = _split_size(run, planned.get("split", dataset.attrs.get("split")))
        if samples is not None:
            yield "samples", samples, dataset.attrs["samples"]
    if "direction_seeds" in planned and "direction_seed" in dataset.variables:
        seeds = dataset["direction_seed"].values.tolist()
        yield "direction_seeds", list(planned["direction_seeds"]), seeds
    axis = next((name for name in ("radius", "position") if name in dataset.sizes), "alpha")
    if "resolution" in planned and "resolution" not in dataset.attrs:
        yield "resolution", planned["resolution"], dataset.sizes.get(axis)
    if "extent" in planned and axis in dataset.coords:
        steps, extent = dataset[axis].values, planned["extent"]
        if not isinstance(extent, list | tuple):
            extent = (0 if axis == "radius" else -extent, extent)
        yield "extent", [float(end) for end in extent], [float(steps[0]), float(steps[-1])]


def _shown(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(_shown, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _split_size(run: Run, split: object) -> int | None:
    """Number of images of a split, as the run's result says."""
    try:
        return read_result(run.folder / "result.json").integer(
            "provenance", "data", "split_sizes", str(split)
        )
    except (OSError, ValueError):
        return None


def analysis_statistics(dataset: xr.Dataset) -> Statistics:
    """The statistics of an analysis; ValueError if it is unfinished.

    Of every variable without dimensions its value; of every variable over ``direction_seed`` or ``pair`` the
    mean and, as ``NAME.sd``, the standard deviation of a sample (divided by their number less one; NaN for
    one). Values that are not finite make both not finite. Of a spectrum ``largest_eigenvalue`` and
    ``smallest_eigenvalue`` (NaN where none was asked for). ``samples``, ``split`` and ``direction_seeds``
    where the file has them.
    """
    if "done" in dataset and (done := int((dataset["done"] == 1).sum())) < dataset["done"].size:
        raise ValueError(f"unfinished, {done} of {dataset['done'].size} points are measured")
    statistics: Statistics = {}
    for name, variable in dataset.data_vars.items():
        if name in _NO_STATISTICS or variable.dims not in ((), ("direction_seed",), ("pair",)):
            continue
        values = np.atleast_1d(variable.to_numpy()).astype(np.float64)
        statistics[str(name)] = float(values.mean()) if values.size else math.nan
        if variable.dims:
            with np.errstate(invalid="ignore"):
                statistics[f"{name}.sd"] = float(values.std(ddof=1)) if values.size > 1 else math.nan
    for name, source in (
        ("largest_eigenvalue", "eigenvalue"),
        ("smallest_eigenvalue", "smallest_eigenvalue"),
    ):
        if source in dataset and dataset[source].dims in (("rank",), ("smallest_rank",)):
            statistics[name] = float(dataset[source][0]) if dataset[source].size else math.nan
    if "direction_seed" in dataset.sizes:
        statistics["direction_seeds"] = dataset.sizes["direction_seed"]
    return statistics | {name: dataset.attrs[name] for name in ("samples", "split") if name in dataset.attrs}
