"""A study's plan for the terminal: its runs, what they cost and how long they take."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from nas_lightning.cells import format_width
from nas_lightning.study.architectures import figure2_number
from nas_lightning.study.cost import RunCost
from nas_lightning.study.study import Architecture, Run, Study

MOST_LINES = 60
"""Above so many runs, a line stands for a group of them."""

NUMBERED_ALIKE = ("2", "3", "4", "6", "7", "8")
"""Figures of the paper that number the variants of the DARTS cell as section 4 does."""

_Row = tuple[Run, RunCost]


def format_plan(study: Study, costs: Sequence[RunCost], jobs: int = 1, gpus_per_run: float | int = 0) -> str:
    """Print a study's plan.

    Args:
        study: The study.
        costs: The cost of each run, in order.
        jobs: Runs at a time; the times of the costs are taken to be those of a run among so many.
        gpus_per_run: GPUs of a run, of which a share below 1 is told.

    Returns:
        A table, a line for each run, or above :data:`MOST_LINES` runs for each group of family, data set,
        learning rate, regularisation and kind of variant; then the totals. Where the study has variants of
        figures 2 to 8, section 4's numbers stand beside those of table 2.

    Raises:
        ValueError: If there is not one cost for each run, or ``jobs`` is not positive.
    """
    if jobs < 1:
        raise ValueError(f"`jobs` (={jobs}) must be at least 1")
    rows = list(zip(study.runs, costs, strict=True))
    lines = [f"{study.name}: {study.title}", ""]
    lines += _aligned(_single(rows) if len(rows) <= MOST_LINES else _grouped(rows))
    lines += ["", *_totals(rows, jobs, gpus_per_run)]
    return "\n".join([*lines, *_notes(rows)])


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
    table[0] += ["measured", "parameters (M)", "multiply-adds (M)", "time"]
    for run, cost in rows:
        table.append(
            [
                _numbered(run.architecture),
                format_width(run.architecture.width),
                str(run.architecture.depth),
                run.data + _regularised(run),
                "" if run.learning_rate is None else f"{run.learning_rate:g}",
                str(run.seed),
                str(run.epochs),
                _measured(run),
                "?" if cost.parameters is None else f"{cost.parameters / 1e6:.2f}",
                "?" if cost.multiply_adds is None else f"{cost.multiply_adds / 1e6:.0f}",
                "" if cost.seconds is None else in_words(cost.seconds),
            ]
        )
    return table


def _grouped(rows: Iterable[_Row]) -> list[list[str]]:
    groups: dict[tuple[str, ...], list[_Row]] = {}
    for run, cost in rows:
        architecture = run.architecture
        rate = "" if run.learning_rate is None else f"{run.learning_rate:g}"
        key: tuple[str, ...] = (architecture.family, run.data + _regularised(run), rate, architecture.kind)
        groups.setdefault(key, []).append((run, cost))
    table = [["family", "data", "lr", "cells", "architectures", "seeds", "runs"]]
    table[0] += ["parameters (M)", "multiply-adds (M)", "time"]
    for key, members in groups.items():
        costs = [cost for _, cost in members]
        seconds = [cost.seconds for cost in costs if cost.seconds is not None]
        table.append(
            [
                *key,
                str(len({run.architecture.label for run, _ in members})),
                str(len({run.seed for run, _ in members})),
                str(len(members)),
                _span([cost.parameters for cost in costs], 2),
                _span([cost.multiply_adds for cost in costs], 0),
                in_words(sum(seconds)) if seconds else "",
            ]
        )
    return table


def _totals(rows: Sequence[_Row], jobs: int, gpus_per_run: float | int) -> list[str]:
    costs = [cost for _, cost in rows]
    known = [cost for cost in costs if cost.training_images is not None]
    computed = [cost.total_multiply_adds for cost in costs if cost.total_multiply_adds is not None]
    seconds = [cost.seconds for cost in costs if cost.seconds is not None]
    lines = [
        f"{len(rows)} runs of {len({run.architecture.genotype for run, _ in rows})} architectures,"
        f" {_span([cost.parameters for cost in costs], 2) or '?'} M parameters,"
        f" {_large(sum(cost.training_images or 0 for cost in known))} training images,"
        f" {_large(sum(computed))} multiply-adds in all, measurements included"
    ]
    if seconds:
        # No more runs than there are can go at a time, and the longest one takes its time.
        whole = max(sum(seconds) / min(jobs, len(seconds)), max(seconds))
        at_a_time = "one at a time" if jobs == 1 else f"{jobs} at a time"
        if 0 < gpus_per_run < 1:
            at_a_time += f" with {gpus_per_run:.3g} of a GPU each"
        lines.append(f"time on this machine, {at_a_time}: about {in_words(whole)} (an estimate)")
    reasons: dict[str, int] = {}
    for cost in costs:
        if cost.unknown is not None:
            reasons[cost.unknown] = reasons.get(cost.unknown, 0) + 1
    return lines + [f"{count} runs are not counted: {reason}" for reason, count in reasons.items()]


def _notes(rows: Iterable[_Row]) -> list[str]:
    architectures = {run.architecture.label: run.architecture for run, _ in rows}
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


def _measured(run: Run) -> str:
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


def _aligned(table: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    used = [column for column in range(len(widths)) if any(row[column] for row in table[1:])]
    return ["  ".join(row[column].ljust(widths[column]) for column in used).rstrip() for row in table]
