"""Figures of architectures: drawings of cells (1, 2, 10, 11, 25), and the plane of width and depth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from nas_lightning.cells import CellEdges
from nas_lightning.cells.census import MAX_WIRINGS, count_wirings, take_census
from nas_lightning.cells.variants import adapted
from nas_lightning.figures.cell import CellDrawing, draw_cells
from nas_lightning.figures.width_depth import WidthDepthPlane, draw_width_depth
from nas_lightning.report.live import Drawing
from nas_lightning.report.live_charts import live_planes
from nas_lightning.report.paper import data_title, family_title, paper_families
from nas_lightning.report.selection import (
    SECTION4_FAMILY,
    Selection,
    Shown,
    architectures,
    conditions,
    other_connections,
    section4_cells,
    table2_note,
)
from nas_lightning.report.statements import statistics
from nas_lightning.report.words import counted, say

MOST_CELLS = 16
"""How many cells a drawing holds at most."""
DEFAULT_STATISTIC = "area_under_loss_clipped"
"""What colours the marks of the still plane; the page offers the others."""
_FAMILIES = 6
_SHORT = {"connections": "s", "operations": "o"}


def base_cells(selection: Selection, families: Sequence[str], data: str = "") -> Drawing | None:
    """Figure 1: the base cells."""
    return _one_each(selection, families, ["original", "own"], "Cells of the base architectures")


def adapted_cells(selection: Selection, families: Sequence[str], data: str = "") -> Drawing | None:
    """Figure 25: the widest and shallowest cells; those that the authors did not publish are ours."""
    return _one_each(selection, selection.families, ["adapted"], "Adapted cells, wide and shallow")


def variant_cells(selection: Selection, families: Sequence[str], data: str = "") -> Drawing | None:
    """Figures 2, 10 and 11: a base cell and its variants by random connections."""
    (family,) = families
    runs = selection.results.runs
    shown = other_connections(runs, family)
    names: Mapping[str, str] = {one.label: one.name for one in shown}
    note = table2_note(family, shown)
    if family == SECTION4_FAMILY:
        shown, names, note = section4_cells(runs)
    if all(one.is_base for one in shown):
        return None
    title = f"Cells of {family_title(family)} and its variants by random connections"
    return _cells(shown, names, title, note)


def _one_each(
    selection: Selection, families: Sequence[str], kinds: Sequence[str], title: str
) -> Drawing | None:
    found = architectures(selection.results.runs, families, kinds) if families else []
    shown = sorted(found, key=lambda one: families.index(one.family))
    missing = [family_title(family) for family in paper_families() if family not in _families(shown)]
    of_paper = set(families) & set(paper_families())
    note = f"Missing: {', '.join(missing)}." if missing and of_paper else ""
    ours = [one for one in shown if one.kind == "adapted" and adapted(one.family) is None]
    if ours:
        titles = ", ".join(family_title(one.family) for one in ours)
        note += f" Chosen by this project, as the authors' are not public: {titles}."
    return _cells(shown, {one.label: family_title(one.family) for one in shown}, title, note)


def _families(shown: Sequence[Shown]) -> list[str]:
    return list(dict.fromkeys(one.family for one in shown))


def _cells(shown: Sequence[Shown], names: Mapping[str, str], title: str, note: str) -> Drawing | None:
    if not shown:
        return None
    drawings = [
        CellDrawing(one.genotype.normal, one.genotype.normal_concat, names[one.label])
        for one in shown[:MOST_CELLS]
    ]
    columns = 2 if len(drawings) in (2, 4, 7, 8) else 3
    caption = say("cells", note=note, count=len(shown), most=MOST_CELLS)
    return Drawing(title, caption, draw_cells(drawings, min(columns, len(drawings))))


def width_depth_plane(selection: Selection, families: Sequence[str], data: str) -> Drawing | None:
    """Every architecture in the plane of width and depth, over all wirings of its space.

    One panel a base cell, or, where these are many, one a space: a number of nodes and the nodes that are
    concatenated. None where no statistic is known.
    """
    runs = selection.runs(data)
    means = {
        _label(one.name, one.unit): found
        for one in sorted(statistics("sizes"), key=lambda one: one.column != DEFAULT_STATISTIC)
        if one.column in runs and np.isfinite(found := _means(runs, one.column)).any()
    }
    if not means:
        return None
    label, shown = next(iter(means)), architectures(runs)
    planes: list[WidthDepthPlane] = []
    names: list[list[str]] = []
    values: dict[str, list[np.ndarray]] = {key: [] for key in means}
    for title, concat, members in _spaces(selection, shown):
        names.append([one.full_name for one in members])
        labels = [one.label for one in members]
        for key, mean in means.items():
            values[key].append(mean.reindex(labels).to_numpy(np.float64))
        planes.append(
            WidthDepthPlane(
                [_short_name(one) for one in members],
                [one.width for one in members],
                [one.depth for one in members],
                values[label][-1],
                _counts(members[0].genotype.normal, concat),
                title,
            )
        )
    kinds = {"sampled" if one.kind == "sampled" else one.variant.partition("=")[0] for one in shown}
    return Drawing(
        f"Architectures by width and depth, {data_title(data)}",
        say(
            "plane",
            label=label,
            kinds=kinds,
            stand_ins=any(one.is_stand_in for one in shown),
            conditions=conditions(runs),
        ),
        draw_width_depth(planes, label=label),
        live_planes(planes, names, values),
    )


def _spaces(selection: Selection, shown: Sequence[Shown]) -> list[tuple[str, tuple[int, ...], list[Shown]]]:
    """Title, concatenated nodes and architectures of every panel."""
    by_family = len(_families(shown)) <= _FAMILIES
    groups: dict[tuple[str, tuple[int, ...], tuple[int, ...]], list[Shown]] = {}
    for one in sorted(shown, key=lambda one: selection.families.index(one.family)):
        genotype = one.genotype
        edge_counts, concat = genotype.normal.counts, tuple(sorted(genotype.normal_concat))
        groups.setdefault((one.family if by_family else "", edge_counts, concat), []).append(one)
    found = []
    for (_, edge_counts, concat), members in groups.items():
        nodes = len(edge_counts)
        space = "all" if len(concat) == nodes else ", ".join(map(str, concat))
        families = _families(members)
        name = family_title(families[0]) if len(families) == 1 else f"{len(families)} base cells"
        edges = "" if set(edge_counts) == {2} else f" of {', '.join(map(str, edge_counts))} edges"
        found.append((f"{name} ({counted(nodes, 'node')}{edges}, {space} concatenated)", concat, members))
    return found


def _counts(edges: CellEdges, concat: tuple[int, ...]) -> Mapping[tuple[float, int], int]:
    """Number of wirings of a cell by width and depth; none where they are too many."""
    return take_census(edges.counts, concat).counts if count_wirings(edges) <= MAX_WIRINGS else {}


def _means(runs: pd.DataFrame, column: str) -> pd.Series:
    """Mean over seeds by architecture; NaN where no seed has a value."""
    values = pd.to_numeric(runs[column], errors="coerce").astype(float)
    means: pd.Series = values.groupby(runs["architecture"]).mean()
    return means


def _label(name: str, unit: str) -> str:
    if not unit:
        return name
    return f"{name}, {unit}" if name.endswith(")") else f"{name} ({unit})"


def _short_name(one: Shown) -> str:
    """A name that fits below a mark; none for original cells."""
    if one.is_base:
        return ""
    if one.kind == "adapted":
        return "A"
    if one.kind == "sampled":
        return one.variant.rpartition(" ")[2]
    kind, _, seed = one.variant.partition("=")
    kind = kind.removeprefix(f"{one.family.partition('_')[0]}_")  # darts_conn1 is a variant of darts_v2
    return f"{_SHORT.get(kind, kind)}{seed}" + "*" * one.is_stand_in
