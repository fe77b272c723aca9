"""Table 2 of the paper: width and depth of the variants C1 to C13, with the seed chosen for each.

Widths (in units of c) and depths are the paper's. Seeds are those that the rule of
``nas_lightning.cells.variants.table2_variant`` finds; a test finds them again.
"""

from __future__ import annotations

from typing import NamedTuple


class Table2Variant(NamedTuple):
    """Width (in units of c) and depth of a normal cell, and the seed of ``random_connections``."""

    width: float
    depth: int
    seed: int


def _variants(text: str) -> tuple[Table2Variant, ...]:
    """C1 to C13 from ``width/depth/seed`` of each."""
    rows = (row.split("/") for row in text.split())
    return tuple(Table2Variant(float(width), int(depth), int(seed)) for width, depth, seed in rows)


# ENAS and NASNet share their variants: both normal cells have five nodes and concatenate all of them, so
# that a seed gives both the same wiring.
_FIVE_NODES_CONCATENATED = _variants(
    "1.5/6/23 1.5/5/125 2/6/2 2/6/188 2.5/5/1 2.5/5/8 3/4/3 3/3/20 3.5/5/0 3.5/4/5 3.5/4/22 3.5/3/4 3.5/3/7"
)

TABLE2: dict[str, tuple[Table2Variant, ...]] = {
    "darts_v2": _variants(
        "2/4/14 2/4/34 2/4/40 2.5/4/1 2.5/4/5 2.5/3/6 2.5/3/19 2.5/3/20 3/3/3 3/3/7 3/3/9 3.5/3/4 3.5/3/10"
    ),
    "enas": _FIVE_NODES_CONCATENATED,
    "amoebanet": _variants(
        "1.5/6/23 1.5/5/8 1.5/5/125 1.5/3/4 2/6/2 2/6/188 2/4/3 "
        "2.5/5/1 2.5/3/9 2.5/3/10 3/3/7 3.5/4/5 3.5/3/57"
    ),
    "nasnet": _FIVE_NODES_CONCATENATED,
}

SECTION4_NUMBERING: dict[str, str] = {"C1": "C6", "C2": "C7", "C3": "C1", "C4": "C2"}
"""Variants of the DARTS cell: section 4's names (figures 2, 3, 4, 6, 7, 8), in table 2's numbering."""
