"""Table 2 of the paper: width and depth of the variants C1 to C13, with the seed chosen for each.

Widths (in units of c) and depths are the paper's. The authors' release (shuyao95/Understanding-NAS,
``genotypes.py``) draws ten variants by connections of each cell, by the rule of
``nas_lightning.cells.random_connections`` with seeds 1 to 10; it does not say which of them table 2 prints.
C1 to C13 in turn take the first seed of 1, ..., 10, then 0, 11, 12, ... whose normal cell has the printed
width and depth and that no C of the same cell has taken. A seed after 10 (or 0) is not the authors': such a
variant is a stand-in. A test finds the seeds again.
"""

from __future__ import annotations

import re
from typing import NamedTuple

RELEASED_SEEDS = range(1, 11)
"""Seeds of the variants by connections in the authors' release."""


class Table2Variant(NamedTuple):
    """Width (in units of c) and depth of a normal cell, and the seed of ``random_connections``."""

    width: float
    depth: int
    seed: int

    @property
    def stand_in(self) -> bool:
        """Whether the wiring is not one of the authors' ten: it has the printed width and depth, no more."""
        return self.seed not in RELEASED_SEEDS


def is_stand_in(base: str, variant: str | None) -> bool:
    """Whether a variant of a base cell, such as ``"C4"`` of ``"enas"``, is a stand-in of table 2."""
    rows, number = TABLE2.get(base, ()), re.fullmatch(r"C([0-9]{1,3})", variant or "")
    return number is not None and 1 <= int(number[1]) <= len(rows) and rows[int(number[1]) - 1].stand_in


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
