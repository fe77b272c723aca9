"""Edge and Genotype: what a cell is, validated and hashable."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


class Edge(NamedTuple):
    """One edge of a cell: an operation applied to the output of an earlier node.

    Attributes:
        op: Name of the primitive operation, for example ``"sep_conv_3x3"``.
        source: Node the edge reads: 0 and 1 are the cell inputs (output of the cell before the last, and of the
            last), intermediate nodes count from 2.
    """

    op: str
    source: int


@dataclass(frozen=True)
class Genotype:
    """The normal and the reduction cell of a network, as search codes print them.

    Intermediate node ``n`` (from 2) sums the two edges ``normal[2 * (n - 2)]`` and ``normal[2 * (n - 2) + 1]``; the
    cell's output concatenates the nodes listed in ``normal_concat``, in that order. Likewise for the reduction cell.
    """

    normal: tuple[Edge, ...]
    normal_concat: tuple[int, ...]
    reduce: tuple[Edge, ...]
    reduce_concat: tuple[int, ...]
