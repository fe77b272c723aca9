"""The pictures of a report: those of the paper that the results cover, in its order, then ours."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pandas as pd

from nas_lightning.report.blocks import ReportPicture
from nas_lightning.report.cell_pictures import adapted_cells, connection_cells, original_cells, other_cells
from nas_lightning.report.claims import Claim, examine_claims
from nas_lightning.report.curve_pictures import (
    accuracy_at_convergence,
    connection_curves,
    operation_curves,
    other_rate_curves,
    section4_curves,
)
from nas_lightning.report.paper import PaperFigure, family_title, paper_figures
from nas_lightning.report.plane_pictures import claims_plots, width_depth_plane
from nas_lightning.report.selection import SECTION4_FAMILY, Selection
from nas_lightning.report.summary import listed
from nas_lightning.report.surface_pictures import Variable, family_surfaces, has_surface, section4_surfaces
from nas_lightning.study.results import Results

_KINDS = {
    "originals": "original",
    "connections": "connections",
    "operations": "operations",
    "adapted": "adapted",
}
_IN_WORDS = {
    "original": "cell",
    "connections": "variant by random connections",
    "operations": "variant by random operations",
    "adapted": "adapted cell",
}
_SAME_PICTURE = {12: 5}
"""Figures that continue another one; that picture holds both."""


def report_pictures(results: Results, claims: Sequence[Claim] | None = None) -> list[ReportPicture]:
    """Draw every picture that the results cover.

    A figure of the paper is drawn for every data set of the study, with what is there of its architectures;
    the caption says what is missing and where the training differs.

    Args:
        results: What the study gave so far.
        claims: The claims, where they have been examined already.

    Returns:
        The paper's figures in its order; then the plane of width and depth, the effects behind the claims,
        and the same pictures of base cells that the paper does not have. Empty without a finished run.
    """
    if results.runs.empty:
        return []
    selection = Selection(results)
    found = []
    for figure in paper_figures():
        if figure.number not in _SAME_PICTURE and not _reason(selection, figure):
            found += [picture for picture in _draw(selection, figure) if picture]
    found += [
        picture for data in selection.data_sets if (picture := width_depth_plane(selection, data)) is not None
    ]
    found += claims_plots(examine_claims(results.runs) if claims is None else claims)
    others = [other_cells(selection), *_draw_others(selection)]
    return found + [picture for picture in others if picture]


def uncovered(results: Results) -> list[str]:
    """The paper's figures that the results do not cover.

    Args:
        results: What the study gave so far.

    Returns:
        A line each, with the reason, such as "Figure 4: no run has another learning rate than 0.025".
    """
    selection = None if results.runs.empty else Selection(results)
    found = []
    for figure in paper_figures():
        reason = "no run is finished" if selection is None else _reason(selection, figure)
        if figure.variants == "none":
            reason = "it shows the linear cells of the theory; `nas-lightning theory` measures them"
        if reason:
            found.append(f"Figure {figure.number} ({figure.shows}): {reason}")
    return found


def _reason(selection: Selection, figure: PaperFigure) -> str:
    """Why a figure cannot be drawn; empty if it can."""
    if figure.variants == "none":
        return "not of a study"
    kind = _KINDS[figure.variants]
    cells_only = figure.shows == "cells"
    runs = selection.results.runs if cells_only else selection.all_rates
    if not _has(runs, figure.families, kind):
        titles = [family_title(family) for family in figure.families]
        return f"no finished run of a{'n' * (kind == 'adapted')} {_IN_WORDS[kind]} of {listed(titles, 'or')}"
    if cells_only:
        return ""
    if figure.number == 4:
        others = [
            selection.runs(data, rate) for data in selection.data_sets for rate in selection.other_rates(data)
        ]
        if any(_has(chosen, figure.families, kind) for chosen in others):
            return ""
        rates = {selection.default_rate(data) for data in selection.data_sets}
        known = [f"{rate:g}" for rate in rates if rate is not None]
        return f"no finished run has another learning rate than {listed(known, 'or')}"
    # All other figures show the default learning rate.
    chosen = pd.concat([selection.runs(data) for data in selection.data_sets])
    if not _has(chosen, figure.families, kind):
        return f"no finished run of a {_IN_WORDS[kind]} at the default learning rate"
    variable = _variable(figure)
    if variable is None:
        return ""
    chosen = chosen[chosen["family"].isin(list(figure.families))]
    if not has_surface(chosen, variable):
        return f"no run has a {'loss contour' if variable == 'loss' else 'gradient variance surface'}"
    return ""


def _variable(figure: PaperFigure) -> Variable | None:
    """What a figure shows of a surface; None for other figures."""
    if "contour" in figure.shows:
        return "loss"
    if "standard deviation" in figure.shows:
        return "standard_deviation"
    return "variance" if "variance" in figure.shows else None


def _has(runs: pd.DataFrame, families: Sequence[str], kind: str) -> bool:
    return bool((runs["family"].isin(list(families)) & (runs["kind"] == kind)).any())


def _draw(selection: Selection, figure: PaperFigure) -> Iterator[ReportPicture | None]:
    """The pictures of a figure of the paper: one, or one a data set."""
    number, family = figure.number, figure.families[0]
    if figure.shows == "cells":
        if figure.variants == "connections":
            yield connection_cells(selection, family, number)
        else:
            yield original_cells(selection) if figure.variants == "originals" else adapted_cells(selection)
        return
    # Pictures of many base cells show those that the paper does not have too.
    families = [*figure.families, *(name for name in selection.families if name not in figure.families)]
    for data in selection.data_sets:
        variable = _variable(figure)
        if number == 3:
            yield section4_curves(selection, data)
        elif number == 4:
            yield other_rate_curves(selection, data)
        elif number == 5:
            yield operation_curves(selection, data, families)
        elif number == 9:
            yield accuracy_at_convergence(selection, data, families)
        elif variable is None:
            yield connection_curves(selection, data, family, number)
        elif number in (6, 7, 8):
            yield section4_surfaces(selection, data, number)
        else:
            yield family_surfaces(selection, data, family, number, variable)


def _draw_others(selection: Selection) -> Iterator[ReportPicture | None]:
    """Pictures like the paper's of base cells that the paper does not show so."""
    figures = [figure for figure in paper_figures() if figure.variants == "connections"]
    cells = {figure.families[0] for figure in figures if figure.shows == "cells"}
    curves = {figure.families[0] for figure in figures if figure.shows == "loss curves"}
    for family in selection.families:
        if family not in {*cells, SECTION4_FAMILY}:
            yield connection_cells(selection, family, 0)
        if family not in curves:
            for data in selection.data_sets:
                yield connection_curves(selection, data, family, 0)
                yield family_surfaces(selection, data, family, 0, "loss")
                yield family_surfaces(selection, data, family, 0, "variance")
