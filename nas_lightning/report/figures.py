"""Which figures a report has: one table of them, those of the paper in its order, then ours."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import pandas as pd
from matplotlib.figure import Figure

from nas_lightning.cells.published import SECTION4_CELLS
from nas_lightning.report.between import paths_between_seeds
from nas_lightning.report.budget_picks import budget_picks
from nas_lightning.report.claims import Claim
from nas_lightning.report.densities import spectral_densities
from nas_lightning.report.forest import forest
from nas_lightning.report.landscapes import (
    Variable,
    family_contours,
    family_surfaces,
    has_surface,
    loss_profiles,
    section4_contours,
    section4_heat_maps,
    section4_surfaces,
)
from nas_lightning.report.lines import interpolations, loss_lines
from nas_lightning.report.live import Drawing, Live
from nas_lightning.report.observation_views import observation_figure
from nas_lightning.report.paper import family_title
from nas_lightning.report.paths import training_paths
from nas_lightning.report.sampled import sampled_curves
from nas_lightning.report.selection import Selection
from nas_lightning.report.topology import adapted_cells, base_cells, variant_cells, width_depth_plane
from nas_lightning.report.training import (
    accuracy_at_convergence,
    connection_curves,
    operation_curves,
    other_rate_curves,
    section4_curves,
)
from nas_lightning.report.words import listed
from nas_lightning.study.results import Results

Section: TypeAlias = Literal["claims", "plane", "budget", "paper", "more"]
Kind: TypeAlias = Literal["", "original", "connections", "other connections", "operations", "adapted"]
Draw: TypeAlias = Callable[[Selection, Sequence[str], str], Drawing | None]


@dataclass(frozen=True)
class FigureKind:
    """A row of the table of figures: one of the paper, or one of ours with number 0 and a name.

    Base cells: those of the paper's figure; ``"others"``, one figure for each base cell that no other row
    with the same function shows; or ``"together"``, one figure for all of these. There is no figure without
    an architecture of the kind that it ``needs``, a surface of its ``variable``, or, with ``other_rates``,
    runs at another learning rate than the default one. ``"other connections"`` are those of other cells than
    section 4's C1 to C4.
    """

    number: int
    name: str
    shows: str
    families: tuple[str, ...] | Literal["others", "together"]
    needs: Kind
    draw: Draw | None
    per_data: bool = True
    variable: Variable | None = None
    other_rates: bool = False
    section: Section = "paper"


_ALL = ("nasnet", "amoebanet", "enas", "darts_v2", "snas_mild")
_FOUR = ("darts_v2", "enas", "amoebanet", "nasnet")
_DARTS = ("darts_v2",)


_HEAT = "heat maps of the standard deviation of the gradient"
_DEVIATION = "surfaces of the standard deviation of the gradient"
_VARIANCE = "surfaces of the gradient variance"


def _paper(
    number: int,
    shows: str,
    families: tuple[str, ...],
    needs: Kind,
    draw: Draw | None,
    variable: Variable | None = None,
    *,
    other_rates: bool = False,
) -> FigureKind:
    return FigureKind(number, "", shows, families, needs, draw, shows != "cells", variable, other_rates)


# fmt: off
FIGURES: tuple[FigureKind, ...] = (
    FigureKind(0, "claims", "", (), "", lambda of, *_: forest(of.claims, "primary"),
               per_data=False, section="claims"),
    FigureKind(0, "claims-other-predictors", "", (), "", lambda of, *_: forest(of.claims, "predictors"),
               per_data=False, section="claims"),
    FigureKind(0, "claims-other-statistics", "", (), "", lambda of, *_: forest(of.claims, "statistics"),
               per_data=False, section="claims"),
    FigureKind(0, "width-depth", "", (), "", width_depth_plane, section="plane"),
    FigureKind(0, "observation", "", (), "", lambda *_: observation_figure(),
               per_data=False, section="plane"),
    FigureKind(0, "sampled", "", (), "", sampled_curves, section="plane"),
    FigureKind(0, "budget", "", "others", "", budget_picks, section="budget"),
    _paper(1, "cells", _ALL, "original", base_cells),
    _paper(2, "cells", _DARTS, "connections", variant_cells),
    _paper(3, "loss and accuracy curves", _DARTS, "connections", section4_curves),
    _paper(4, "accuracy curves", _DARTS, "connections", other_rate_curves, other_rates=True),
    _paper(5, "accuracy curves", _FOUR, "operations", operation_curves),
    _paper(6, "loss contours", _DARTS, "connections", section4_contours, "loss"),
    _paper(7, _HEAT, _DARTS, "connections", section4_heat_maps, "standard_deviation"),
    _paper(8, _DEVIATION, _DARTS, "connections", section4_surfaces, "standard_deviation"),
    _paper(9, "accuracy at convergence", _FOUR, "other connections", accuracy_at_convergence),
    _paper(10, "cells", ("amoebanet",), "connections", variant_cells),
    _paper(11, "cells", ("snas_mild",), "connections", variant_cells),
    _paper(12, "accuracy curves", _FOUR, "operations", None),  # the figure numbered 5 holds both
    _paper(13, "loss curves", _DARTS, "other connections", connection_curves),
    _paper(14, "loss curves", ("amoebanet",), "other connections", connection_curves),
    _paper(15, "loss curves", ("enas",), "other connections", connection_curves),
    _paper(16, "loss curves", ("nasnet",), "other connections", connection_curves),
    _paper(17, "loss contours", _DARTS, "other connections", family_contours, "loss"),
    _paper(18, "loss contours", ("amoebanet",), "other connections", family_contours, "loss"),
    _paper(19, "loss contours", ("enas",), "other connections", family_contours, "loss"),
    _paper(20, "loss contours", ("nasnet",), "other connections", family_contours, "loss"),
    _paper(21, _VARIANCE, ("amoebanet",), "other connections", family_surfaces, "variance"),
    _paper(22, _VARIANCE, _DARTS, "other connections", family_surfaces, "variance"),
    _paper(23, _VARIANCE, ("enas",), "other connections", family_surfaces, "variance"),
    _paper(24, _VARIANCE, ("nasnet",), "other connections", family_surfaces, "variance"),
    _paper(25, "cells", _ALL, "adapted", adapted_cells),
    _paper(26, "the two linear cells of section 4.3", (), "", None),
    FigureKind(0, "cells-others", "", "together", "", base_cells, per_data=False, section="more"),
    FigureKind(0, "cells", "", "others", "", variant_cells, per_data=False, section="more"),
    FigureKind(0, "loss-curves", "", "others", "", connection_curves, section="more"),
    FigureKind(0, "loss-profiles", "", "others", "", loss_profiles, section="more"),
    FigureKind(0, "loss-lines", "", "others", "", loss_lines, section="more"),
    FigureKind(0, "interpolations", "", "others", "", interpolations, section="more"),
    FigureKind(0, "spectral-densities", "", "others", "", spectral_densities, section="more"),
    FigureKind(0, "training-paths", "", "others", "", training_paths, section="more"),
    FigureKind(0, "between-seeds", "", "others", "", paths_between_seeds, section="more"),
    FigureKind(0, "loss-contours", "", "others", "", family_contours, section="more"),
    FigureKind(0, "gradient-variance", "", "others", "", family_surfaces, section="more"),
)
# fmt: on
"""Every figure: the paper's number, our name, what it shows, of which base cells, what it needs, function."""

_IN_WORDS = {
    "original": "cell",
    "connections": "variant by random connections",
    "other connections": "variant by random connections other than section 4's",
    "operations": "variant by random operations",
    "adapted": "adapted cell",
}


@dataclass(frozen=True, eq=False)
class ReportFigure:
    """A figure of the report.

    Attributes:
        key: Stem of its files, such as ``"figure03-cifar10"``.
        number: The paper's number, such as ``"Figure 3"``; empty for what the paper does not have.
        section: Part of the page.
        title: What it shows.
        caption: What the reader must know.
        still: For files and print.
        live: For the page; None where the still figure says it all.
    """

    key: str
    number: str
    section: Section
    title: str
    caption: str
    still: Figure
    live: Live | None = None


def report_figures(results: Results, claims: Sequence[Claim] | None = None) -> list[ReportFigure]:
    """Draw every figure that the results cover.

    A figure of the paper is drawn for every data set of the study, with what is there of its architectures;
    the caption says what is missing and where the training differs.

    Args:
        results: What the study gave so far.
        claims: The claims, where they have been examined already.

    Returns:
        The figures, in the order of :data:`FIGURES`. Empty without a finished run.
    """
    if results.runs.empty:
        return []
    selection = Selection(results, claims)
    return [figure for kind in FIGURES for figure in _draw(selection, kind)]


def uncovered(results: Results) -> list[str]:
    """The paper's figures that the results do not cover: a line each, with the reason."""
    if len(results.runs) and results.runs["kind"].eq("sampled").all():
        return ["They show published cells and their variants; these runs have sampled cells alone."]
    selection = None if results.runs.empty else Selection(results)
    found = []
    for kind in FIGURES:
        if not kind.number:
            continue
        reason = "no run is finished" if selection is None else _reason(selection, kind)
        if not kind.needs:
            reason = "it shows the linear cells of the theory; `nas-lightning theory` measures them"
        if reason:
            found.append(f"Figure {kind.number} ({kind.shows}): {reason}")
    return found


def _draw(selection: Selection, kind: FigureKind) -> Iterator[ReportFigure]:
    """The figures of a row: one, or one a data set, or one a base cell and data set."""
    if kind.draw is None or (kind.number and _reason(selection, kind)):
        return
    for families in _families(selection, kind):
        for data in selection.data_sets if kind.per_data else [""]:
            drawing = kind.draw(selection, families, data)
            if drawing is None:
                continue
            stem = f"figure{kind.number:02d}" if kind.number else kind.name
            parts = [stem, *(families if kind.families == "others" else ()), data.lower()]
            number = f"Figure {kind.number}" if kind.number else ""
            yield ReportFigure(
                "-".join(filter(None, parts)),
                "Figures 5 and 12" if kind.number == 5 else number,
                kind.section,
                **vars(drawing),
            )


def _families(selection: Selection, kind: FigureKind) -> list[Sequence[str]]:
    """The base cells of each figure of a row."""
    if not isinstance(kind.families, str):
        # A drawing of base cells has those that are there; other figures say which are missing.
        there = [family for family in selection.families if family in kind.families]
        return [there if kind.draw is base_cells else kind.families]
    rows = [row.families for row in FIGURES if row.draw is kind.draw and not isinstance(row.families, str)]
    shown = {family for families in rows for family in families}
    others = [family for family in selection.families if family not in shown]
    return [others] if kind.families == "together" else [[family] for family in others]


def _reason(selection: Selection, kind: FigureKind) -> str:
    """Why a figure of the paper cannot be drawn; empty if it can."""
    runs = selection.results.runs if kind.shows == "cells" else selection.all_rates
    if not _has(runs, kind):
        titles = [family_title(family) for family in kind.families]
        article = "an" if kind.needs == "adapted" else "a"
        return f"no finished run of {article} {_IN_WORDS.get(kind.needs)} of {listed(titles, 'or')}"
    if kind.shows == "cells":
        return ""
    data_sets = selection.data_sets
    if kind.other_rates:
        others = [selection.runs(data, rate) for data in data_sets for rate in selection.other_rates(data)]
        if any(_has(chosen, kind) for chosen in others):
            return ""
        rates = {selection.default_rate(data) for data in data_sets} - {None}
        return (
            f"no finished run has another learning rate than {listed([f'{rate:g}' for rate in rates], 'or')}"
        )
    # All other figures show the default learning rate.
    chosen = pd.concat([selection.runs(data) for data in data_sets])
    if not _has(chosen, kind):
        return f"no finished run of a {_IN_WORDS.get(kind.needs)} at the default learning rate"
    chosen = chosen[chosen["family"].isin(list(kind.families))]
    if kind.variable and not has_surface(chosen, kind.variable):
        return f"no run has a {'loss contour' if kind.variable == 'loss' else 'gradient variance surface'}"
    return ""


def _has(runs: pd.DataFrame, kind: FigureKind) -> bool:
    needed = runs["family"].isin(list(kind.families)) & (runs["kind"] == kind.needs.removeprefix("other "))
    if kind.needs == "other connections":
        needed &= ~runs["variant"].isin(list(SECTION4_CELLS.values()))
    return bool(needed.any())
