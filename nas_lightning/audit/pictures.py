"""The pictures of an audit's page, each with what it shows for those who cannot see it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from nas_lightning.audit.tables import statistic_label
from nas_lightning.audit.verdict import TESTED, can_stand_out
from nas_lightning.cells.genotype import CellEdges, Edge, cell_edges
from nas_lightning.figures.audit import (
    AuditCurves,
    StandingRow,
    Strip,
    draw_audit_curves,
    draw_picks,
    draw_rank_by_epoch,
    draw_standings,
    draw_strips,
)
from nas_lightning.figures.cell import draw_cell
from nas_lightning.report.words import counted

_CURVES = {"loss": "loss (nat)", "accuracy": "accuracy (%)"}


class Picture(NamedTuple):
    """A figure of the page.

    Attributes:
        figure: The figure.
        alt: What it shows.
    """

    figure: Figure
    alt: str


def drawing(cell: Mapping[str, Any]) -> list[Picture]:
    """Both cells, each by itself."""
    genotype = cell["genotype"]
    return [
        Picture(
            draw_cell(read_edges(genotype[kind]), genotype[f"{kind}_concat"], f"{name} cell"),
            f"The {name} cell of {cell['name']}: inputs left, nodes by depth, output right, an operation on "
            "every edge",
        )
        for kind, name in (("normal", "normal"), ("reduce", "reduction"))
    ]


def read_edges(listed: Sequence[Any]) -> CellEdges:
    """Edges as a document has them: flat with two a node, or a list for each node."""
    if listed and all(len(entry) == 2 and isinstance(entry[0], str) for entry in listed):
        return cell_edges([Edge(*entry) for entry in listed])
    return CellEdges([Edge(*edge) for edge in node] for node in listed)


def standings(cell: Mapping[str, Any]) -> Picture | None:
    """Level 0 at a glance; None where nothing was ranked."""
    rows = [
        StandingRow(
            group="Wiring and size: exact",
            label=found["label"],
            percentile=found["percentile"],
            low=found["percentile"],
            high=found["percentile"],
            stands_out=found["stands_out"],
        )
        for found in cell["verdict"]["structure"]
    ]
    if cell["initial"] is not None:
        count = len(next(iter(cell["initial"]["statistics"].values()))["controls"])
        tested = {found["label"]: found["stands_out"] for found in cell["verdict"]["initial"]}
        if not can_stand_out(len(tested), count):
            tested = {}
        rows += [
            StandingRow(
                group=f"Initial weights: among {counted(count, 'control')}",
                label=statistic_label(name),
                **{end: found["standing"][end] for end in ("percentile", "low", "high")},
                stands_out=tested.get(TESTED[name]) if name in TESTED else None,
            )
            for name, found in cell["initial"]["statistics"].items()
        ]
    if not rows:
        return None
    out = sum(row.stands_out is True for row in rows)
    alt = f"Percentiles of {cell['name']} in {len(rows)} properties, of which {out or 'none'} are unusual"
    return Picture(draw_standings(rows), alt)


def _array(values: Sequence[Any]) -> np.ndarray:
    return np.array(values, dtype=float)  # None becomes NaN


def initial_strips(cell: Mapping[str, Any], backdrop: Sequence[Mapping[str, Any]]) -> Picture:
    """Initial weights among those of the controls, published cells behind them."""
    strips = [
        Strip(
            label=statistic_label(name),
            controls=_array(found["controls"]),
            own=float(_array([found["standing"]["value"]])[0]),
            seeds=_array(found["own"]),
            published=_array([one["initial"].get(name) for one in backdrop if one["initial"]]),
        )
        for name, found in cell["initial"]["statistics"].items()
    ]
    count = len(strips[0].controls)
    alt = f"{len(strips)} statistics at the initial weights of {cell['name']} and of {count} controls"
    return Picture(draw_strips(strips, cell["name"]), alt)


def training_strips(name: str, training: Mapping[str, Any]) -> Picture:
    """Everything that was trained or measured at convergence, among the controls."""
    found = training["quantities"]
    strips = [
        Strip(
            label=f"{one['label']}" + (f" ({one['unit']})" if one["unit"] else ""),
            controls=_array(one["controls"]),
            own=float(_array([one["own_mean"]])[0]),
            seeds=_array(one["own"]),
        )
        for one in found
    ]
    ranks = "; ".join(f"{one['label']}: rank {one['rank']} of {one['of']}" for one in found)
    return Picture(draw_strips(strips, name), f"{name} among its controls, a dot each. {ranks}")


def curves(name: str, training: Mapping[str, Any]) -> list[Picture]:
    """Loss and accuracy by epoch; those without a finite value are left out."""
    found = training["curves"]
    if found is None or not found["epochs"]:
        return []
    pictures: list[Picture] = []
    for kind, label in _CURVES.items():
        scale = 100.0 if kind == "accuracy" else 1.0
        own, controls = (scale * _array(found[side][kind]) for side in ("own", "controls"))
        if own.ndim == 2 and controls.ndim == 2 and np.isfinite(own).any():
            panel = AuditCurves(label, own, controls)
            alt = f"{label} of {name} (each seed) and of {len(controls)} controls by epoch"
            pictures.append(Picture(draw_audit_curves(_array(found["epochs"]), [panel], name), alt))
    return pictures


def budget(name: str, training: Mapping[str, Any]) -> list[Picture]:
    """Whether a search with fewer epochs would have picked the cell; empty for one epoch."""
    found = training["budget"]
    if found is None or training["epochs"] < 2:
        return []
    pictures: list[Picture] = []
    ranks = _array(found["rank_by_epoch"])
    if np.isfinite(ranks).any():
        first, last = (int(rank) for rank in ranks[np.isfinite(ranks)][[0, -1]])
        alt = f"Rank of {name} by epochs trained, from {first} at first to {last} at the end"
        pictures.append(Picture(draw_rank_by_epoch(ranks, training["controls"] + 1, name), alt))
    known = [one for one in found["by_epoch"] if one["regret"] is not None]
    controls = set(training["quantities"][0]["control_names"])
    if known:
        figure = draw_picks(
            _array([one["epoch"] for one in known]),
            _array([one["regret"] for one in known]),
            np.array([not controls.issuperset(one["picked"].split(" or ")) for one in known]),
            name,
        )
        pictures.append(Picture(figure, "Points of accuracy that the pick after each epoch loses at the end"))
    return pictures
