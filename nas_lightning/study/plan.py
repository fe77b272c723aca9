"""A study's plan in words: its runs, what they cost, and how long they take."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from tabulate import tabulate

from nas_lightning.cells import format_width
from nas_lightning.cells.table2 import is_stand_in
from nas_lightning.study.architectures import figure2_number
from nas_lightning.study.cost import RunCost, run_cost
from nas_lightning.study.study import Run, Study

MOST_LINES = 60
"""Most runs that a plan lists one by one; of more, a line stands for a group."""


class _Row(NamedTuple):
    run: Run
    cost: RunCost
    seconds: float | None


def format_plan(
    study: Study, seconds: Sequence[float] | None = None, jobs: int = 1, gpus_per_run: float | int = 0
) -> str:
    """A study's plan: a table and the totals.

    The table has a line for each run, or above :data:`MOST_LINES` runs for each group of family, data set,
    learning rate, regularisation and kind of variant. Where the study has section 4's variants, a
    line names them. ``seconds`` is the time of each run; None if no run was timed.
    """
    if jobs < 1:
        raise ValueError(f"`jobs` (={jobs}) must be at least 1")
    times: Sequence[float | None] = [None] * len(study.runs) if seconds is None else seconds
    rows = [_Row(run, run_cost(run), time) for run, time in zip(study.runs, times, strict=True)]
    table = [_single(row) for row in rows] if len(rows) <= MOST_LINES else _grouped(rows)
    used = [name for name in table[0] if any(line[name] for line in table)]
    cells = [used, *([line[name] for name in used] for line in table)]
    return "\n".join(
        [
            f"{study.name}: {study.title}\n",
            tabulate(cells, tablefmt="plain", disable_numparse=True),
            "",
            *_totals(rows, jobs, gpus_per_run),
            *_figure_names(study),
        ]
    )


def in_words(seconds: float | int) -> str:
    """A time in the unit that suits it, such as ``"40 s"``, ``"12 min"``, ``"7.5 h"`` or ``"31 days"``."""
    for unit, size, below in (("s", 1, 100), ("min", 60, 100), ("h", 3600, 48), ("days", 86400, 1000)):
        if seconds < below * size:
            return f"{_three_digits(seconds / size)} {unit}"
    return f"{_three_digits(seconds / (365.25 * 86400))} years"


def _single(row: _Row) -> dict[str, str]:
    run, cost = row.run, row.cost
    cell = run.architecture
    number = figure2_number(cell)
    remark = (
        f"{number} of figure 2" if number else "stand-in" if is_stand_in(cell.family, cell.variant) else ""
    )
    return {
        "architecture": f"{cell.label} ({remark})" if remark else cell.label,
        "width": format_width(run.architecture.width),
        "depth": str(run.architecture.depth),
        **_data_and_rate(run),
        "seed": str(run.seed),
        "epochs": str(run.epochs),
        "analyses": ", ".join(analysis.stem.replace("_", " ") for analysis in run.analyses) or "-",
        "parameters (M)": _millions([cost.parameters], 2) or "?",
        "multiply-adds (M)": _millions([cost.multiply_adds], 0) or "?",
        "time": "" if row.seconds is None else in_words(row.seconds),
    }


def _grouped(rows: Iterable[_Row]) -> list[dict[str, str]]:
    groups: dict[tuple[str, ...], list[_Row]] = {}
    for row in rows:
        architecture = row.run.architecture
        key = (architecture.family, *_data_and_rate(row.run).values(), architecture.kind)
        groups.setdefault(key, []).append(row)
    table = []
    for key, members in groups.items():
        seconds = [row.seconds for row in members if row.seconds is not None]
        table.append(
            dict(zip(("family", "data", "lr", "cells"), key, strict=True))
            | {
                "architectures": str(len({row.run.architecture.label for row in members})),
                "seeds": str(len({row.run.seed for row in members})),
                "runs": str(len(members)),
                "parameters (M)": _millions([row.cost.parameters for row in members], 2),
                "multiply-adds (M)": _millions([row.cost.multiply_adds for row in members], 0),
                "time": in_words(sum(seconds)) if seconds else "",
            }
        )
    return table


def _data_and_rate(run: Run) -> dict[str, str]:
    regularised = ", regularised" if run.is_regularized else ""
    rate = "" if run.learning_rate is None else f"{run.learning_rate:g}"
    return {"data": run.data_set + regularised, "lr": rate}


def _totals(rows: Sequence[_Row], jobs: int, gpus_per_run: float | int) -> list[str]:
    costs = [row.cost for row in rows]
    seconds = [row.seconds for row in rows if row.seconds is not None]
    architectures = len({row.run.architecture.genotype for row in rows})
    lines = [
        f"{len(rows)} run{'' if len(rows) == 1 else 's'}"
        f" of {architectures} architecture{'' if architectures == 1 else 's'},"
        f" {_millions([cost.parameters for cost in costs], 2) or '?'} M parameters,"
        f" {_large(sum(cost.training_images or 0 for cost in costs))} training images,"
        f" {_large(sum(cost.total_multiply_adds or 0 for cost in costs))} multiply-adds in all, analyses"
        " included"
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
    reasons = Counter(cost.unknown for cost in costs if cost.unknown is not None)
    return lines + [
        f"{count} {'run is' if count == 1 else 'runs are'} not counted: {reason}"
        for reason, count in reasons.items()
    ]


def _figure_names(study: Study) -> list[str]:
    """What section 4 of the paper calls the authors' cells."""
    labels = {run.architecture.label: figure2_number(run.architecture) for run in study.runs}
    named = sorted(f"{number} = {label}" for label, number in labels.items() if number is not None)
    figures = "names in figures 2, 3, 4, 6, 7 and 8 of the paper"
    return [f"{figures}: {', '.join(named)}"] if named else []


def _millions(values: Iterable[int | None], digits: int) -> str:
    """Smallest and largest of the known values, in millions."""
    known = [value / 1e6 for value in values if value is not None]
    if not known:
        return ""
    low, high = (
        f"{value:.{digits}f}" if value >= 10**-digits else f"{value:.1g}"
        for value in (min(known), max(known))
    )
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
