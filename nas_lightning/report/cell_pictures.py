"""Drawings of cells: figures 1, 2, 10, 11 and 25 of the paper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nas_lightning.figures.cell import CellDrawing, draw_cells
from nas_lightning.report.blocks import ReportPicture
from nas_lightning.report.paper import family_title, paper_families
from nas_lightning.report.selection import (
    SECTION4_FAMILY,
    Selection,
    Shown,
    architectures,
    missing_variants,
    section4_cells,
)

MOST_CELLS = 16
"""How many cells a drawing holds at most."""
_GREY = "Inputs left, output right, nodes by depth. Normal cells; width in units of c, the width of a node."


def original_cells(selection: Selection) -> ReportPicture | None:
    """Figure 1: the paper's base cells that the results have, or None."""
    families = [family for family in selection.families if family in paper_families()]
    return _families(
        selection, families, "figure01", "Figure 1", "Cells of the base architectures", "original"
    )


def other_cells(selection: Selection) -> ReportPicture | None:
    """Cells that the paper does not have, or None; the first of them if they are many."""
    families = [family for family in selection.families if family not in paper_families()]
    return _families(selection, families, "cells-others", "", "Other cells", "original")


def adapted_cells(selection: Selection) -> ReportPicture | None:
    """Figure 25: the widest and shallowest cells, or None."""
    return _families(
        selection, selection.families, "figure25", "Figure 25", "Adapted cells, wide and shallow", "adapted"
    )


def connection_cells(selection: Selection, family: str, number: int) -> ReportPicture | None:
    """Figures 2, 10 and 11: a base cell and its variants by random connections, or None.

    Args:
        selection: The runs.
        family: Base cell.
        number: The paper's number; 0 for a base cell that it does not show.

    Returns:
        The picture.
    """
    runs = selection.results.runs
    note = ""
    if family == SECTION4_FAMILY:
        shown, names, note = section4_cells(runs)
    else:
        shown = architectures(runs, [family], ["original", "connections"])
        names = {one.label: one.name for one in shown}
        note = missing_variants(family, shown)
    if all(one.is_base for one in shown):
        return None
    return _drawing(
        shown,
        names,
        f"figure{number:02d}" if number else f"cells-{family}",
        f"Figure {number}" if number else "",
        f"Cells of {family_title(family)} and its variants by random connections",
        note,
    )


def _families(
    selection: Selection, families: Sequence[str], key: str, number: str, title: str, kind: str
) -> ReportPicture | None:
    kinds = ["original", "own"] if kind == "original" else [kind]
    found = architectures(selection.results.runs, families, kinds) if families else []
    shown = sorted(found, key=lambda one: families.index(one.family))
    missing = [family for family in paper_families() if family not in {one.family for one in shown}]
    note = ""
    if number and missing:
        note = f"Missing: {', '.join(family_title(family) for family in missing)}."
    names = {one.label: family_title(one.family) for one in shown}
    return _drawing(shown, names, key, number, title, note)


def _drawing(
    shown: Sequence[Shown], names: Mapping[str, str], key: str, number: str, title: str, note: str
) -> ReportPicture | None:
    if not shown:
        return None
    drawings = [
        CellDrawing(one.genotype.normal, one.genotype.normal_concat, names[one.label])
        for one in shown[:MOST_CELLS]
    ]
    columns = 3 if len(drawings) in (3, 5, 6, 9) else 2 if len(drawings) in (2, 4) else 4
    caption = [_GREY, note]
    if len(shown) > MOST_CELLS:
        caption.append(f"The first {MOST_CELLS} of {len(shown)}.")
    figure = draw_cells(drawings, min(columns, len(drawings)))
    return ReportPicture(key, number, title, " ".join(part for part in caption if part), figure)
