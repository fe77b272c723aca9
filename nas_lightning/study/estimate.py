"""What a study costs: parameters, images, multiply-adds, and the time by the runs so far.

Everything is counted in training images: a forward and a backward pass of one image, about three forward
passes. An evaluated image counts a third of that, one of a gradient-variance point 1.5 (the gradient of every
sample), one of a product with the Hessian 3.5. Time follows from the multiply-adds of all that and from the
runs that were timed; it is an estimate, good for planning.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any

from tabulate import tabulate

from nas_lightning.cells import (
    Genotype,
    UnknownOperationSize,
    count_parameters,
    format_width,
    multiply_adds,
)
from nas_lightning.study.architectures import figure2_number
from nas_lightning.study.record import read_metrics
from nas_lightning.study.state import RunState, Status
from nas_lightning.study.study import AnalysisFile, Architecture, Run, Study

FORWARD_PASSES = 3
"""Forward passes that a training image counts, the backward pass being two."""
EVALUATION = 1 / FORWARD_PASSES
"""Training images that an evaluated image counts."""
# `benchmarks/results/landscape.json`: 1.57 times an ordinary forward and backward pass with the set-up of a
# surface, 1.12 times without it.
GRADIENT_OF_AN_IMAGE = 1.5
"""Training images that an image of a gradient-variance point counts."""
# Three to four times a gradient, see `nas_lightning.analysis.hessian.HessianProduct`.
HESSIAN_PRODUCT = 3.5
"""Training images that an image of a product with the Hessian counts."""
# Lanczos takes some tens to hundreds, 48 for five values of a small network (`docs/method.md`).
HESSIAN_PRODUCTS = 100
"""Products that the largest and the smallest eigenvalues take, about."""

MOST_LINES = 60
"""Above so many runs, a line of a plan stands for a group of them."""
NUMBERED_ALIKE = ("2", "3", "4", "6", "7", "8")
"""Figures of the paper that number the variants of the DARTS cell as section 4 does."""


@dataclass(frozen=True)
class DataSize:
    """Size of a data set.

    Attributes:
        train: Images of the official training split.
        test: Images of the official test split.
        image_size: Height and width in pixels.
        num_classes: Number of classes.
    """

    train: int
    test: int
    image_size: int
    num_classes: int


DATA_SIZES = {
    "CIFAR10": DataSize(50_000, 10_000, 32, 10),
    "CIFAR100": DataSize(50_000, 10_000, 32, 100),
    "TinyImageNet": DataSize(100_000, 10_000, 64, 200),
    "FashionMNIST": DataSize(60_000, 10_000, 32, 10),
    "Digits": DataSize(1_437, 360, 32, 10),
}
"""The data sets that ship; that of ``Synthetic`` is in its settings."""


@dataclass(frozen=True)
class RunCost:
    """What one run costs.

    Attributes:
        parameters: Parameters of the network, with the auxiliary tower where there is one; None where an
            operation has no formula.
        multiply_adds: Multiply-adds of an image's forward pass; None where they are not known.
        training_images: Images that the training sees, all epochs together; None for unknown data.
        work: All that the run computes, evaluation and analyses included, in training images; None for
            unknown data.
        unknown: What is not known, and why; None where all is.
    """

    parameters: int | None
    multiply_adds: int | None
    training_images: int | None
    work: float | int | None
    unknown: str | None = None

    @property
    def total_multiply_adds(self) -> float | int | None:
        """Multiply-adds of the whole run: three forward passes for each training image of ``work``."""
        if self.work is None or self.multiply_adds is None:
            return None
        return FORWARD_PASSES * self.work * self.multiply_adds


def run_cost(run: Run) -> RunCost:
    """Cost of a run by formula, without its time.

    Args:
        run: The run.

    Returns:
        The cost; what the data set or an operation leaves unknown is None.
    """
    data = data_size(run)
    if data is None:
        return RunCost(None, None, None, None, unknown=f"the size of the data set {run.data} is not known")
    settings = run.settings
    parameters = forward = None
    unknown = None
    try:
        parameters, forward = _network_size(
            run.architecture.genotype,
            tuple(settings[f"model.{key}"] for key in ("init_channels", "num_cells", "stem_stride")),
            data,
            settings["model.auxiliary_weight"] > 0,
        )
    except UnknownOperationSize as error:
        unknown = str(error)
    held_out = round(settings["data.init_args.validation_fraction"] * data.train)
    splits = {"train": data.train - held_out, "val": held_out, "test": data.test}
    batch_size = settings["data.init_args.batch_size"]
    batches = run.limited_batches(splits["train"] // batch_size)
    training = run.epochs * batches * batch_size
    evaluation = run.epochs * splits["val" if held_out else "test"]
    analyses = sum(_analysis_work(analysis, splits, run.epochs) for analysis in run.analyses)
    return RunCost(
        parameters, forward, training, training + EVALUATION * evaluation + analyses, unknown=unknown
    )


def data_size(run: Run) -> DataSize | None:
    """Size of a run's data set.

    Args:
        run: The run.

    Returns:
        The size, or None for data that do not ship.
    """
    if run.data != "Synthetic":
        return DATA_SIZES.get(run.data)
    names = ("train_size", "test_size", "image_size", "num_classes")
    return DataSize(*(run.settings[f"data.init_args.{name}"] for name in names))


def _analysis_work(analysis: AnalysisFile, splits: Mapping[str, int], epochs: int) -> float:
    """What an analysis computes, in training images: its points times its images."""
    name = str(analysis.settings["class_path"]).rpartition(".")[2]
    given = analysis.settings["init_args"]
    images = splits[given["split"]]
    images = min(given["max_samples"] or images, images)
    every = given["every_n_epochs"]
    times = math.ceil(epochs / every) if every else 1
    if name == "HessianSpectrum":
        products = HESSIAN_PRODUCTS + given["trace_samples"]
        return float(times * products * images * HESSIAN_PRODUCT)
    points = given["resolution"] ** 2 * len(given["direction_seeds"])
    return float(times * points * images * (EVALUATION if name == "LossContour" else GRADIENT_OF_AN_IMAGE))


@cache
def _network_size(
    genotype: Genotype, sizes: tuple[int, int, int], data: DataSize, auxiliary: bool
) -> tuple[int, int]:
    """Parameters and multiply-adds; one network stands in many runs."""
    network: dict[str, Any] = dict(zip(("init_channels", "num_cells", "stem_stride"), sizes, strict=True))
    network["num_classes"] = data.num_classes
    return (
        count_parameters(genotype, auxiliary=auxiliary, **network),
        multiply_adds(genotype, image_size=data.image_size, **network),
    )


# Time, by the runs so far.


@dataclass(frozen=True)
class TimeLeft:
    """How long a study will take.

    Attributes:
        seconds: The time.
        at_a_time: Number of runs at a time that it is for.
    """

    seconds: float
    at_a_time: int


def run_weights(runs: Iterable[Run]) -> list[float]:
    """What the times of runs are proportional to.

    Args:
        runs: The runs of a study.

    Returns:
        Their multiply-adds, analyses included; their epochs if a run's multiply-adds are not known.
    """
    runs = list(runs)
    weights = [run_cost(run).total_multiply_adds for run in runs]
    known = [float(weight) for weight in weights if weight]
    return known if len(known) == len(runs) else [float(run.epochs) for run in runs]


def run_seconds(states: Sequence[RunState], now: datetime | None = None) -> list[float] | None:
    """The time that each run takes from its start to its end, analyses included.

    The rate is that of all runs that were timed, beside as many others as they had: what ``study run``
    started is timed by the clock, other finished runs by the images a second of their training. A run with an
    attempt whose end is not known, as after a kill, is not timed by the clock.

    Args:
        states: All runs of a study.
        now: The time (default: the clock's).

    Returns:
        Seconds for each; None if no run was timed.
    """
    now = now or datetime.now(UTC)
    seconds, work = 0.0, 0.0
    weights = run_weights(state.run for state in states)
    for state, weight in zip(states, weights, strict=True):
        spent = _seconds_spent(state, now)
        if spent is not None:
            done = weight * min(1.0, state.epoch / state.run.epochs)
        elif state.status is Status.FINISHED:
            spent, done = _training_seconds(state.run), weight * _training_share(state.run)
        if spent and done:
            seconds, work = seconds + spent, work + done
    return [seconds / work * weight for weight in weights] if work else None


def time_left(states: Sequence[RunState], now: datetime | None = None) -> TimeLeft | None:
    """How long the runs that are to do will take; runs that failed are not waited for.

    Args:
        states: All runs of a study.
        now: The time (default: the clock's).

    Returns:
        The time for as many at a time as are running, or one; None where no run was timed or none is left.
    """
    each = run_seconds(states, now)
    if each is None:
        return None
    waited_for = (Status.RUNNING, Status.UNFINISHED, Status.MISSING)
    left = sum(
        seconds * (1 - state.epoch / state.run.epochs)
        for state, seconds in zip(states, each, strict=True)
        if state.status in waited_for
    )
    at_a_time = max(1, sum(state.status is Status.RUNNING for state in states))
    return TimeLeft(left / at_a_time, at_a_time) if left > 0 else None


def _seconds_spent(state: RunState, now: datetime) -> float | None:
    """Time of all attempts of a run; None if it is not known."""
    seconds = 0.0
    for attempt in state.attempts:
        running = state.status is Status.RUNNING and attempt is state.attempts[-1]
        if attempt.end is None and not running:
            return None
        try:
            end = now if attempt.end is None else datetime.fromisoformat(attempt.end)
            seconds += (end - datetime.fromisoformat(attempt.start)).total_seconds()
        except (TypeError, ValueError):
            return None
    return seconds if state.attempts else None


def _training_seconds(run: Run) -> float | None:
    """Time of a finished run's training alone, from its curves; None if they do not tell."""
    rows, problem = read_metrics(run.folder / "metrics.csv")
    rates = [row.get("images_per_second", 0.0) for row in rows]
    if problem is not None or not all(rates):
        return None
    images = (run_cost(run).training_images or 0) / run.epochs
    return sum(images / rate for rate in rates)


def _training_share(run: Run) -> float:
    cost = run_cost(run)
    return (cost.training_images or 0) / cost.work if cost.work else 0.0


# A plan in words.


def format_plan(
    study: Study, seconds: Sequence[float] | None = None, jobs: int = 1, gpus_per_run: float | int = 0
) -> str:
    """A study's plan.

    Args:
        study: The study.
        seconds: The time of each run, in order; None if no run was timed.
        jobs: Runs at a time.
        gpus_per_run: GPUs of a run, of which a share below 1 is told.

    Returns:
        A table, a line for each run, or above :data:`MOST_LINES` runs for each group of family, data set,
        learning rate, regularisation and kind of variant; then the totals. Where the study has variants of
        figures 2 to 8, section 4's numbers stand beside those of table 2.

    Raises:
        ValueError: If there is not one time for each run, or ``jobs`` is not positive.
    """
    if jobs < 1:
        raise ValueError(f"`jobs` (={jobs}) must be at least 1")
    times: Sequence[float | None] = [None] * len(study.runs) if seconds is None else seconds
    rows = [_Row(run, run_cost(run), time) for run, time in zip(study.runs, times, strict=True)]
    table = _single(rows) if len(rows) <= MOST_LINES else _grouped(rows)
    used = [column for column in range(len(table[0])) if any(row[column] for row in table[1:])]
    table = [[row[column] for column in used] for row in table]
    return "\n".join(
        [
            *(f"{study.name}: {study.title}", ""),
            *tabulate(table, tablefmt="plain", disable_numparse=True).splitlines(),
            *("", *_totals(rows, jobs, gpus_per_run), *_notes(rows)),
        ]
    )


@dataclass(frozen=True)
class _Row:
    run: Run
    cost: RunCost
    seconds: float | None


def in_words(seconds: float | int) -> str:
    """A time in the unit that suits it.

    Args:
        seconds: Seconds.

    Returns:
        For example ``"40 s"``, ``"12 min"``, ``"7.5 h"`` or ``"31 days"``.
    """
    for unit, size, below in (("s", 1, 100), ("min", 60, 100), ("h", 3600, 48), ("days", 86400, 1000)):
        if seconds < below * size:
            return f"{_three_digits(seconds / size)} {unit}"
    return f"{_three_digits(seconds / (365.25 * 86400))} years"


def _single(rows: Iterable[_Row]) -> list[list[str]]:
    table = [["architecture", "width", "depth", "data", "lr", "seed", "epochs"]]
    table[0] += ["analyses", "parameters (M)", "multiply-adds (M)", "time"]
    for row in rows:
        run, cost = row.run, row.cost
        table.append(
            [
                _numbered(run.architecture),
                format_width(run.architecture.width),
                str(run.architecture.depth),
                run.data + _regularised(run),
                "" if run.learning_rate is None else f"{run.learning_rate:g}",
                str(run.seed),
                str(run.epochs),
                _analyses(run),
                "?" if cost.parameters is None else f"{cost.parameters / 1e6:.2f}",
                "?" if cost.multiply_adds is None else f"{cost.multiply_adds / 1e6:.0f}",
                "" if row.seconds is None else in_words(row.seconds),
            ]
        )
    return table


def _grouped(rows: Iterable[_Row]) -> list[list[str]]:
    groups: dict[tuple[str, ...], list[_Row]] = {}
    for row in rows:
        run, architecture = row.run, row.run.architecture
        rate = "" if run.learning_rate is None else f"{run.learning_rate:g}"
        key: tuple[str, ...] = (architecture.family, run.data + _regularised(run), rate, architecture.kind)
        groups.setdefault(key, []).append(row)
    table = [["family", "data", "lr", "cells", "architectures", "seeds", "runs"]]
    table[0] += ["parameters (M)", "multiply-adds (M)", "time"]
    for key, members in groups.items():
        costs = [row.cost for row in members]
        seconds = [row.seconds for row in members if row.seconds is not None]
        table.append(
            [
                *key,
                str(len({row.run.architecture.label for row in members})),
                str(len({row.run.seed for row in members})),
                str(len(members)),
                _span([cost.parameters for cost in costs], 2),
                _span([cost.multiply_adds for cost in costs], 0),
                in_words(sum(seconds)) if seconds else "",
            ]
        )
    return table


def _totals(rows: Sequence[_Row], jobs: int, gpus_per_run: float | int) -> list[str]:
    costs = [row.cost for row in rows]
    known = [cost for cost in costs if cost.training_images is not None]
    computed = [cost.total_multiply_adds for cost in costs if cost.total_multiply_adds is not None]
    seconds = [row.seconds for row in rows if row.seconds is not None]
    lines = [
        f"{len(rows)} runs of {len({row.run.architecture.genotype for row in rows})} architectures,"
        f" {_span([cost.parameters for cost in costs], 2) or '?'} M parameters,"
        f" {_large(sum(cost.training_images or 0 for cost in known))} training images,"
        f" {_large(sum(computed))} multiply-adds in all, analyses included"
    ]
    if seconds:
        # No more runs than there are can go at a time, and the longest one takes its time.
        whole = max(sum(seconds) / min(jobs, len(seconds)), max(seconds))
        at_a_time = "one at a time" if jobs == 1 else f"{jobs} at a time"
        if 0 < gpus_per_run < 1:
            at_a_time += f" with {gpus_per_run:.3g} of a GPU each"
        lines.append(f"time of all runs, {at_a_time}: about {in_words(whole)}, by the runs so far")
    else:
        lines.append("no finished run yet: time unknown")
    reasons: dict[str, int] = {}
    for cost in costs:
        if cost.unknown is not None:
            reasons[cost.unknown] = reasons.get(cost.unknown, 0) + 1
    return lines + [f"{count} runs are not counted: {reason}" for reason, count in reasons.items()]


def _notes(rows: Iterable[_Row]) -> list[str]:
    architectures = {run.architecture.label: run.architecture for run in (row.run for row in rows)}
    numbers = {label: figure2_number(architecture) for label, architecture in architectures.items()}
    named = [f"{number} = {label}" for label, number in numbers.items() if number is not None]
    if not named:
        return []
    figures = f"{', '.join(NUMBERED_ALIKE[:-1])} and {NUMBERED_ALIKE[-1]}"
    return [f"names in figures {figures} of the paper, and here by table 2: {', '.join(sorted(named))}"]


def _numbered(architecture: Architecture) -> str:
    number = figure2_number(architecture)
    return architecture.label if number is None else f"{architecture.label} ({number} of figure 2)"


def _regularised(run: Run) -> str:
    keys = ("model.drop_path", "model.auxiliary_weight", "data.init_args.cutout")
    return ", regularised" if any(run.settings.get(key) for key in keys) else ""


def _analyses(run: Run) -> str:
    return ", ".join(analysis.stem.replace("_", " ") for analysis in run.analyses) or "-"


def _span(values: Iterable[int | None], digits: int) -> str:
    """Smallest and largest of the known values, in millions."""
    known = [value / 1e6 for value in values if value is not None]
    if not known:
        return ""
    low, high = f"{min(known):.{digits}f}", f"{max(known):.{digits}f}"
    return low if low == high else f"{low} to {high}"


def _large(number: float | int) -> str:
    """A number of at least a million in millions, or of at least a tera or peta in those."""
    for unit, size in (("P", 1e15), ("T", 1e12), ("M", 1e6)):
        if number >= size:
            return f"{_three_digits(number / size)} {unit}"
    return f"{number:,.0f}"


def _three_digits(value: float | int) -> str:
    digits = max(0, 1 - int(math.log10(value))) if value >= 1 else 1
    return f"{value:,.{digits}f}"
