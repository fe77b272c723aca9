"""Pictures that the paper does not have: the plane of width and depth, convergence by width, the claims."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from nas_lightning.cells.census import MAX_NODES, take_census
from nas_lightning.figures.effects import Effect, EffectPanel, draw_effects
from nas_lightning.figures.width_depth import WidthDepthPlane, draw_width_depth
from nas_lightning.report.blocks import ReportPicture
from nas_lightning.report.claims import Claim
from nas_lightning.report.measures import MEASURES, PREDICTORS
from nas_lightning.report.paper import data_title, family_title
from nas_lightning.report.selection import Selection, Shown, architectures, conditions

DEFAULT_MEASURE = "area_under_loss_clipped"
"""What colours the marks of the printed plane; the page offers the others."""
_FAMILIES = 6
_SHORT = {"connections": "s", "operations": "o"}


def width_depth_plane(selection: Selection, data: str) -> ReportPicture | None:
    """Every architecture in the plane of width and depth, over all wirings of its space, or None.

    Args:
        selection: The runs.
        data: Data class.

    Returns:
        One panel a base cell, or, where these are many, one a space; a space is a number of nodes and the
        nodes that are concatenated.
    """
    runs = selection.runs(data)
    measures = {measure.column: _label(measure.name, measure.unit) for measure in MEASURES}
    known = {
        column: label
        for column, label in measures.items()
        if column in runs and np.isfinite(_values(runs, column)).any()
    }
    if not known:
        return None
    column = DEFAULT_MEASURE if DEFAULT_MEASURE in known else next(iter(known))
    shown = architectures(runs)
    means = {name: _means(runs, name) for name in known}
    planes, spaces = [], []
    for title, nodes, concat, members in _spaces(selection, shown):
        counts: Mapping[tuple[float, int], int] = {}
        if nodes <= MAX_NODES:
            counts = take_census(nodes, concat).counts
        values = np.array([means[column].get(one.label, np.nan) for one in members], dtype=np.float64)
        planes.append(
            WidthDepthPlane(
                [_short_name(one) for one in members],
                [one.width for one in members],
                [one.depth for one in members],
                values,
                counts,
                title,
            )
        )
        spaces.append(_live_space(title, counts, members, means))
    order = [column, *(name for name in known if name != column)]
    caption = [
        f"Colour: {known[column]}; mean over seeds. Grey squares: width and depth of all wirings of the"
        " space, with the share of wirings that have them; white: no wiring. Diamonds: original cells;"
        f"{_short_names(shown)} places within a square mean nothing.",
        conditions(runs),
    ]
    return ReportPicture(
        f"width-depth-{data.lower()}",
        "",
        f"Architectures by width and depth, {data_title(data)}",
        " ".join(caption),
        draw_width_depth(planes, label=known[column]),
        {"kind": "plane", "spaces": spaces, "measures": {name: known[name] for name in order}},
    )


def claims_plots(claims: Sequence[Claim]) -> list[ReportPicture]:
    """Effects of the claims with their intervals: of the measures that decide, and of the others.

    Args:
        claims: The tested claims.

    Returns:
        Forest plots with one panel a kind of effect; none without data.
    """
    meaning = (
        "Mark: effect; line: its 95 % interval; verdicts are those after Holm's correction, so that an"
        " interval without 0 can be undecided. Effects right of 0 are what the claim says; for"
        " generalisation, where the claim is that there is no effect, they mean that wide and shallow cells"
        " are better."
    )
    found = []
    for primary, key, title in (
        (True, "claims", "Effects behind the claims"),
        (False, "claims-other-measures", "The same by other measures"),
    ):
        chosen = [claim for claim in claims if claim.primary == primary]
        known = [claim for claim in chosen if np.isfinite(claim.effect)]
        if not known:
            continue
        panels = []
        for name in dict.fromkeys(claim.effect_name for claim in known):
            effects = [_effect(claim) for claim in known if claim.effect_name == name]
            limits = (-1.06, 1.06) if "tau" in name else None
            panels.append(EffectPanel(effects, name, limits=limits))
        empty = [_effect(claim).name for claim in chosen if claim not in known]
        caption = meaning + (f" Without data: {'; '.join(empty)}." if empty else "")
        found.append(ReportPicture(key, "", title, caption, draw_effects(panels)))
    return found


def _effect(claim: Claim) -> Effect:
    name = f"{claim.measure_name}, by {PREDICTORS[claim.predictor]}"
    return Effect(name, claim.effect, claim.low, claim.high, claim.verdict)


def _spaces(
    selection: Selection, shown: Sequence[Shown]
) -> list[tuple[str, int, tuple[int, ...], list[Shown]]]:
    """Title, nodes, concatenated nodes and architectures of every panel."""
    by_family = len({one.family for one in shown}) <= _FAMILIES
    groups: dict[tuple[str, int, tuple[int, ...]], list[Shown]] = {}
    for one in sorted(shown, key=lambda one: selection.families.index(one.family)):
        genotype = one.genotype
        nodes, concat = len(genotype.normal) // 2, tuple(sorted(genotype.normal_concat))
        groups.setdefault((one.family if by_family else "", nodes, concat), []).append(one)
    found = []
    for (_, nodes, concat), members in groups.items():
        space = f"{nodes} nodes, " + ("all" if len(concat) == nodes else ", ".join(map(str, concat)))
        space += " concatenated"
        families = list(dict.fromkeys(one.family for one in members))
        name = family_title(families[0]) if len(families) == 1 else f"{len(families)} base cells"
        found.append((f"{name} ({space})", nodes, concat, members))
    return found


def _live_space(
    title: str,
    counts: Mapping[tuple[float, int], int],
    members: Sequence[Shown],
    means: Mapping[str, Mapping[str, float]],
) -> dict[str, Any]:
    marks = [
        {
            "name": one.label,
            "original": one.is_base,
            "width": one.width,
            "depth": one.depth,
            "values": {
                name: value if np.isfinite(value := values.get(one.label, np.nan)) else None
                for name, values in means.items()
            },
        }
        for one in members
    ]
    cells = [{"width": width, "depth": depth, "count": count} for (width, depth), count in counts.items()]
    return {"title": title, "cells": cells, "marks": marks}


def _values(runs: pd.DataFrame, column: str) -> np.ndarray:
    return pd.to_numeric(runs[column], errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)


def _means(runs: pd.DataFrame, column: str) -> dict[str, float]:
    """Mean over seeds by architecture; NaN where no seed has a value."""
    table = pd.DataFrame({"architecture": runs["architecture"], "value": _values(runs, column)})
    means = table.groupby("architecture")["value"].mean()
    return {str(label): float(value) for label, value in means.items()}


def _label(name: str, unit: str) -> str:
    if not unit:
        return name
    return f"{name}, {unit}" if name.endswith(")") else f"{name} ({unit})"


def _short_name(one: Shown) -> str:
    """A name that fits below a mark; none for original cells."""
    if one.is_base:
        return ""
    kind, _, seed = one.variant.partition("=")
    return f"{_SHORT.get(kind, kind)}{seed}" if seed else "A" if one.kind == "adapted" else one.variant


def _short_names(shown: Sequence[Shown]) -> str:
    """What short names mean, of those that occur."""
    said = {
        "s7": "connections with seed 7" if any("connections=" in one.variant for one in shown) else "",
        "o7": "operations with seed 7" if any("operations=" in one.variant for one in shown) else "",
        "A": "adapted" if any(one.kind == "adapted" for one in shown) else "",
    }
    return "".join(f" {short}: {meaning};" for short, meaning in said.items() if meaning)
