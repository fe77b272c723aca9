"""The figure, the table and the sentences on what a search with a given budget would have picked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
import pandas as pd

from nas_lightning.figures.budget import BudgetLine, BudgetPanel, draw_budget, few_epochs
from nas_lightning.report.budget import (
    Criterion,
    Estimate,
    Pick,
    Pool,
    early_epoch,
    expected_path,
    expected_picks,
    find_pools,
    rank_correlation,
    table_epochs,
)
from nas_lightning.report.live import Drawing
from nas_lightning.report.live_charts import live_budget
from nas_lightning.report.paper import data_title, family_title
from nas_lightning.report.samples import SETTINGS
from nas_lightning.report.selection import Selection, conditions
from nas_lightning.report.table_files import ReportTable
from nas_lightning.report.words import MISSING, distinct, say, setting_entries, signed
from nas_lightning.study.results import Results

LABELS: Mapping[str, str] = MappingProxyType(
    {
        "width": "width (c)",
        "depth": "depth",
        "path": "mean path (stages)",
        "parameters": "parameters (millions)",
        "regret": "regret (points of accuracy)",
    }
)
"""What the panels show, and their labels."""
_CRITERIA: Mapping[Criterion, str] = MappingProxyType({"best": "best so far", "mean": "mean so far"})
_DIGITS = {"path": 1}


def budget_picks(selection: Selection, families: Sequence[str], data: str) -> Drawing | None:
    """What a search among the cells of a base cell or space would have picked, by epochs trained.

    None where fewer than five cells have curves.
    """
    (family,) = families
    runs = selection.runs(data)
    runs = runs[runs["family"] == family]
    # Imported curves can differ in length: the most frequent one is shown.
    pools = find_pools(runs, selection.results.curves)
    if not pools:
        return None
    pool = max(pools, key=lambda one: one.size)
    panels = _panels(pool)
    caption = f"{sentences(pool)} {say('budget', pool=pool, conditions=conditions(pool.runs))}"
    title = f"What a search would have picked, {family_title(family)}, {data_title(data)}"
    return Drawing(title, caption, draw_budget(panels), live_budget(panels))


def sentences(pool: Pool) -> str:
    """Two sentences: what a search keeps that stops early, and what one keeps that trains to the end."""
    early = early_epoch(pool.epochs)
    picks = expected_picks(pool, pool.main_budget, [early, pool.epochs])
    means = {name: float(values.mean()) for name, values in pool.quantities.items()}
    return say("budget_sentences", pool=pool, early=picks[0], late=picks[1], means=means)


def budget_table(results: Results) -> ReportTable | None:
    """What searches would have picked in every pool of the results, after a few epochs; None without one."""
    pools = find_pools(results.runs, results.curves)
    if not pools:
        return None
    firsts = pd.DataFrame([pool.runs.iloc[0] for pool in pools])
    varying = [name for name in SETTINGS[2:] if name in firsts and len(distinct(firsts[name].tolist())) > 1]
    rows = [row for pool in pools for row in _rows(pool, varying)]
    frame = pd.DataFrame(rows).fillna(MISSING)
    caption = say("budget_table", random=all(pool.random for pool in pools))
    title = "What a search with a given budget would have picked"
    return ReportTable("budget", "", title, caption, frame)


def _rows(pool: Pool, varying: Sequence[str]) -> list[dict[str, object]]:
    first = pool.runs.iloc[0]
    about: dict[str, object] = {
        "Cells": f"{family_title(str(first['family']))}, {pool.size}",
        "Data": data_title(str(first["data"])),
    }
    about |= setting_entries(first, varying)
    means = {
        _column(name): f"{values.mean():.{_DIGITS.get(name, 2)}f}" for name, values in pool.quantities.items()
    }
    rows = [about | {"Drawn": "all", "Kept by": "mean of all", "Epochs": MISSING} | means]
    epochs = table_epochs(pool.epochs)
    plans: list[tuple[Criterion, int]] = [("best", k) for k in pool.budgets] + [("mean", pool.main_budget)]
    for criterion, budget in plans:
        for pick in expected_picks(pool, budget, epochs, criterion):
            row = about | {"Drawn": str(budget), "Kept by": _CRITERIA[criterion], "Epochs": str(pick.epoch)}
            rows.append(row | _entries(pick) | {"Rank correlation": _tau(pool, pick.epoch, criterion)})
    return rows


def _entries(pick: Pick) -> dict[str, str]:
    found = {}
    for name, estimate in pick.quantities.items():
        digits = _DIGITS.get(name, 2)
        found[_column(name)] = _with_interval(estimate, digits)
        if name in ("width", "path"):
            low, high = pick.ranges[name]
            found[f"{name.capitalize()}, 90 % of searches"] = f"{low:.{digits}f} to {high:.{digits}f}"
    return found | {"Regret (points)": _with_interval(pick.regret, 2)}


def _column(name: str) -> str:
    return {"parameters": "Parameters (M)", "path": "Mean path"}.get(name, name.capitalize())


def _with_interval(estimate: Estimate, digits: int) -> str:
    value, low, high = (signed(round(number, digits) + 0.0, digits) for number in estimate)
    return value if low == high else f"{value} ({low} to {high})"


def _tau(pool: Pool, epoch: int, criterion: Criterion) -> str:
    return _with_interval(rank_correlation(pool, epoch, criterion), 2)


def _panels(pool: Pool) -> list[BudgetPanel]:
    """A panel a known quantity, then regret and rank correlation."""
    epochs = np.arange(1, pool.epochs + 1, dtype=float)
    few = few_epochs(pool.epochs)
    main = pool.main_budget
    plans: list[tuple[Criterion, int]] = [("best", k) for k in pool.budgets] + [("mean", main)]
    paths = [expected_path(pool, budget, criterion) for criterion, budget in plans]
    picks = expected_picks(pool, main, few)
    panels = []
    for name, label in LABELS.items():
        if name not in paths[0]:
            continue
        found = [pick.regret if name == "regret" else pick.quantities[name] for pick in picks]
        band = np.array([few, [one.low for one in found], [one.high for one in found]], dtype=float)
        lines = []
        for (criterion, budget), path in zip(plans, paths, strict=True):
            is_mean = criterion == "mean"
            lines.append(
                BudgetLine(
                    f"{budget} cells, mean so far" if is_mean else f"{budget} cells",
                    pool.budgets.index(budget),
                    epochs,
                    path[name],
                    band if budget == main and not is_mean else None,
                    dashed=is_mean,
                )
            )
        reference = None if name == "regret" else float(pool.quantities[name].mean())
        panels.append(BudgetPanel(label, lines, reference))
    return [*panels, _correlations(pool, epochs, few)]


def _correlations(pool: Pool, epochs: np.ndarray, few: Sequence[int]) -> BudgetPanel:
    colour = pool.budgets.index(pool.main_budget)
    lines = []
    for criterion in _CRITERIA:
        estimates = [rank_correlation(pool, int(epoch), criterion) for epoch in epochs]
        chosen = [estimates[epoch - 1] for epoch in few]
        band = np.array([few, [one.low for one in chosen], [one.high for one in chosen]], dtype=float)
        values = np.array([one.value for one in estimates])
        is_mean = criterion == "mean"
        lines.append(BudgetLine("", colour, epochs, values, None if is_mean else band, is_mean))
    return BudgetPanel("Kendall's tau-b with the end", lines)
