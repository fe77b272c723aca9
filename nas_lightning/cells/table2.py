"""Table 2 of the paper: width and depth of the variants C1 to C13, with the seed chosen for each.

Widths (in units of c) and depths are the paper's. Seeds are those that the rule of
``nas_lightning.cells.variants.table2_variant`` finds; a test finds them again.
"""

from __future__ import annotations

from typing import NamedTuple


class Table2Variant(NamedTuple):
    """One variant of table 2.

    Attributes:
        width: Width of the normal cell in units of c.
        depth: Depth of the normal cell.
        seed: Seed of ``random_connections``.
    """

    width: float
    depth: int
    seed: int


# ENAS and NASNet share their variants: both normal cells have five nodes and concatenate all of them, so
# that a seed gives both the same wiring.
_FIVE_NODES_CONCATENATED = (
    Table2Variant(1.5, 6, 23),
    Table2Variant(1.5, 5, 125),
    Table2Variant(2.0, 6, 2),
    Table2Variant(2.0, 6, 188),
    Table2Variant(2.5, 5, 1),
    Table2Variant(2.5, 5, 8),
    Table2Variant(3.0, 4, 3),
    Table2Variant(3.0, 3, 20),
    Table2Variant(3.5, 5, 0),
    Table2Variant(3.5, 4, 5),
    Table2Variant(3.5, 4, 22),
    Table2Variant(3.5, 3, 4),
    Table2Variant(3.5, 3, 7),
)

TABLE2: dict[str, tuple[Table2Variant, ...]] = {
    "darts_v2": (
        Table2Variant(2.0, 4, 14),
        Table2Variant(2.0, 4, 34),
        Table2Variant(2.0, 4, 40),
        Table2Variant(2.5, 4, 1),
        Table2Variant(2.5, 4, 5),
        Table2Variant(2.5, 3, 6),
        Table2Variant(2.5, 3, 19),
        Table2Variant(2.5, 3, 20),
        Table2Variant(3.0, 3, 3),
        Table2Variant(3.0, 3, 7),
        Table2Variant(3.0, 3, 9),
        Table2Variant(3.5, 3, 4),
        Table2Variant(3.5, 3, 10),
    ),
    "enas": _FIVE_NODES_CONCATENATED,
    "amoebanet": (
        Table2Variant(1.5, 6, 23),
        Table2Variant(1.5, 5, 8),
        Table2Variant(1.5, 5, 125),
        Table2Variant(1.5, 3, 4),
        Table2Variant(2.0, 6, 2),
        Table2Variant(2.0, 6, 188),
        Table2Variant(2.0, 4, 3),
        Table2Variant(2.5, 5, 1),
        Table2Variant(2.5, 3, 9),
        Table2Variant(2.5, 3, 10),
        Table2Variant(3.0, 3, 7),
        Table2Variant(3.5, 4, 5),
        Table2Variant(3.5, 3, 57),
    ),
    "nasnet": _FIVE_NODES_CONCATENATED,
}

SECTION4_NUMBERING: dict[str, str] = {"C1": "C6", "C2": "C7", "C3": "C1", "C4": "C2"}
"""Variants of the DARTS cell: section 4's names (figures 2, 3, 4, 6, 7, 8), in table 2's numbering."""
