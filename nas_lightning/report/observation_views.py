"""The figure and the table of where published cells stand among all wirings of their spaces."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from nas_lightning.figures.percentiles import PercentilePanel, draw_percentiles
from nas_lightning.report.live import Drawing
from nas_lightning.report.observation import (
    QUANTITIES,
    Place,
    Quantity,
    compare_places,
    paper_means,
    select,
)
from nas_lightning.report.table_files import ReportTable
from nas_lightning.report.words import MISSING, p_value_text, say, signed

_FEWEST_PAPERS = 3
_KINDS = {False: "normal", True: "reduction"}
_NAMES = {"width": "width", "depth": "depth", "path": "mean path"}


def observation_figure() -> Drawing:
    """Mid-percentiles by year: width, depth and path of normal and of reduction cells."""
    panels = []
    for reduction, kind in _KINDS.items():
        chosen = select(reduction=reduction, distinct=False)
        for quantity in QUANTITIES:
            known = [place for place in chosen if np.isfinite(place.percentiles[quantity])]
            panels.append(
                PercentilePanel(
                    f"percentile of the {_NAMES[quantity]}",
                    f"{kind} cells",
                    np.array([place.cell.year for place in known], dtype=float),
                    np.array([place.percentiles[quantity] for place in known]),
                    _yearly_means(known, quantity),
                )
            )
    cells = [place.cell for place in select(reduction=False, distinct=False)]
    caption = say("percentiles", cells=len(cells), papers=len({cell.title for cell in cells}))
    title = "Published cells among all wirings of their spaces"
    return Drawing(title, caption, draw_percentiles(panels))


def observation_table() -> ReportTable:
    """Mean mid-percentiles of all years with interval and p-value, and of each year."""
    rows = []
    for distinct in (False, True):
        space = "two distinct sources" if distinct else "all wirings"
        every = {kind: select(reduction=reduction, distinct=distinct) for reduction, kind in _KINDS.items()}
        rows.append(_row(space, "all", every, tested=True))
        for year in sorted({place.cell.year for places in every.values() for place in places}):
            of_year = {
                kind: [place for place in places if place.cell.year == year] for kind, places in every.items()
            }
            rows.append(_row(space, str(year), of_year, tested=False))
    title = "Published cells among all wirings of their spaces, by year"
    return ReportTable("observation", "", title, say("observation_table"), pd.DataFrame(rows))


def _row(space: str, years: str, chosen: dict[str, list[Place]], *, tested: bool) -> dict[str, object]:
    titles = {place.cell.title for places in chosen.values() for place in places}
    genotypes = {place.cell.name for places in chosen.values() for place in places}
    row: dict[str, object] = {
        "Space": space,
        "Years": years,
        "Papers": str(len(titles)),
        "Genotypes": str(len(genotypes)),
    }
    for kind, places in chosen.items():
        for quantity in QUANTITIES:
            row[f"{_NAMES[quantity].capitalize()}, {kind}"] = _entry(places, quantity, tested=tested)
    return row


def _entry(places: Sequence[Place], quantity: Quantity, *, tested: bool) -> str:
    if not tested:
        means = paper_means(places, quantity)
        return signed(float(means.mean())) if len(means) else MISSING
    result = compare_places(places, quantity)
    interval = f"{signed(result.low)} to {signed(result.high)}"
    return f"{signed(result.effect)} ({interval}; p {p_value_text(result.p_value, sign=True)})"


def _yearly_means(places: Sequence[Place], quantity: Quantity) -> dict[int, float]:
    """Means over the papers of a year, where there are enough."""
    found = {}
    for year in sorted({place.cell.year for place in places}):
        means = paper_means([place for place in places if place.cell.year == year], quantity)
        if len(means) >= _FEWEST_PAPERS:
            found[year] = float(means.mean())
    return found
