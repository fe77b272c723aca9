"""Census: width and depth of every cell in a connection space, counted exactly.

It puts the paper's Observation 3.1 (popular cells are nearly the widest and shallowest) into a number: the
share of all wirings that are at least as wide, at least as shallow, or both. It needs NumPy, so
``nas_lightning.cells`` does not import it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType

import numpy as np
from jaxtyping import Bool, Int

from nas_lightning.cells.genotype import Edge
from nas_lightning.cells.topology import cell_depth, cell_width

MAX_NODES = 5
"""Largest number of intermediate nodes: 518,400 wirings; a sixth node would make 25 million."""

_DEPTH_CODES = 64


@dataclass(frozen=True)
class Rank:
    """Where a cell stands: how many of its space's wirings are at least as wide, as shallow, and both."""

    width: float
    depth: int
    total: int
    at_least_as_wide: int
    at_least_as_shallow: int
    both: int


@dataclass(frozen=True)
class Census:
    """Number of wirings of a space for every (width, depth) that occurs, ascending.

    The space has all ordered wirings, every edge reading any node before its own; or, where ``distinct``,
    those in which every node reads two distinct nodes, in any order (the space DARTS searches).
    """

    nodes: int
    concat: tuple[int, ...]
    distinct: bool
    counts: Mapping[tuple[float, int], int]

    @property
    def total(self) -> int:
        """Number of wirings."""
        return sum(self.counts.values())

    def rank(self, width: float, depth: int) -> Rank:
        """How many wirings are at least as wide as a cell, at least as shallow, and both."""
        wide = sum(count for (other, _), count in self.counts.items() if other >= width)
        shallow = sum(count for (_, other), count in self.counts.items() if other <= depth)
        both = sum(count for (w, d), count in self.counts.items() if w >= width and d <= depth)
        return Rank(width, depth, self.total, wide, shallow, both)


def take_census(nodes: int, concat: Sequence[int] | None = None, *, distinct: bool = False) -> Census:
    """Count width and depth over every wiring of a space with two cell inputs.

    Four intermediate nodes have 14,400 ordered wirings, five have 518,400; 180 and 2,700 with distinct
    sources. All of them are concatenated by default.

    Raises:
        ValueError: If ``nodes`` is out of range, or ``concat`` is empty, repeats a node or names one that
            does not exist.
    """
    if not 1 <= nodes <= MAX_NODES:
        raise ValueError(f"`nodes` (={nodes}) must be from 1 to {MAX_NODES}")
    chosen = tuple(range(2, nodes + 2)) if concat is None else tuple(sorted(concat))
    if not chosen or len(set(chosen)) != len(chosen) or not set(chosen) <= set(range(2, nodes + 2)):
        raise ValueError(
            f"`concat` (={list(chosen)}) must name one or more distinct intermediate nodes, "
            f"from 2 to {nodes + 1}"
        )
    return _census(nodes, chosen, distinct)


def rank_cell(edges: Sequence[Edge], concat: Sequence[int], *, distinct: bool = False) -> Rank:
    """Rank a cell among all wirings with its number of nodes, at most 5, and its concat list."""
    census = take_census(len(edges) // 2, concat, distinct=distinct)
    return census.rank(cell_width(edges, concat), cell_depth(edges, concat))


def all_wirings(nodes: int) -> Int[np.ndarray, "wirings edges"]:
    """Sources of every ordered wiring of a space with two cell inputs; edge i belongs to node i // 2 + 2."""
    choices = [edge // 2 + 2 for edge in range(2 * nodes)]
    return np.indices(choices, dtype=np.int8).reshape(2 * nodes, -1).T


def widths_and_depths(
    wirings: Int[np.ndarray, "wirings edges"], concat: Sequence[int]
) -> tuple[Int[np.ndarray, " wirings"], Int[np.ndarray, " wirings"]]:
    """Twice the width in units of c (an integer), and the depth, of every wiring."""
    count, edges = wirings.shape
    rows = np.arange(count)
    depth = np.zeros((count, edges // 2 + 2), dtype=np.int8)
    for node in range(2, edges // 2 + 2):
        first, second = wirings[:, 2 * node - 4], wirings[:, 2 * node - 3]
        depth[:, node] = 1 + np.maximum(depth[rows, first], depth[rows, second])
    feeding = np.zeros(depth.shape, dtype=bool)
    feeding[:, list(concat)] = True
    for edge in range(edges - 1, -1, -1):
        # One column after the other: a row may name the same node in both.
        feeding[rows, wirings[:, edge]] |= feeding[:, edge // 2 + 2]
    from_inputs: Bool[np.ndarray, "wirings edges"] = (wirings < 2) & np.repeat(feeding[:, 2:], 2, axis=1)
    return from_inputs.sum(axis=1), 1 + depth[:, list(concat)].max(axis=1).astype(np.int64)


@cache
def _census(nodes: int, concat: tuple[int, ...], distinct: bool) -> Census:
    wirings = all_wirings(nodes)
    if distinct:
        # One of the 2**nodes orders of each wiring: the first source below the second.
        wirings = wirings[np.all(wirings[:, ::2] < wirings[:, 1::2], axis=1)]
    double_width, depth = widths_and_depths(wirings, concat)
    # Numbers sort far faster than pairs; depths stay far below the factor.
    codes, counts = np.unique(double_width * _DEPTH_CODES + depth, return_counts=True)
    widths, depths = codes // _DEPTH_CODES / 2, codes % _DEPTH_CODES
    pairs = zip(widths.tolist(), depths.tolist(), strict=True)
    return Census(nodes, concat, distinct, MappingProxyType(dict(zip(pairs, counts.tolist(), strict=True))))
