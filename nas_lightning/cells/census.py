"""Census: width, depth and path of every cell in a connection space, counted exactly.

It puts the paper's Observation 3.1 (popular cells are nearly the widest and shallowest) into a number: the
share of all wirings that are at least as wide, at least as shallow, or both; and finds wirings that agree in
one of these and differ in another. It needs NumPy, so ``nas_lightning.cells`` does not import it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from nas_lightning.cells.genotype import Edge, Genotype
from nas_lightning.cells.paths import PROJECTION_STAGES, STEM_STAGES, operation_stages
from nas_lightning.cells.stack import reduction_indices
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


@dataclass(frozen=True, eq=False)
class Wirings:
    """Every wiring of one cell of a genotype; operations stay in their places, and so does the other cell.

    Attributes:
        sources: Source of every edge.
        width: Width in units of c.
        depth: Depth.
        path: Mean path of the cell in stages, see :mod:`nas_lightning.cells.paths`; NaN where ``none`` leaves
            no path.
        network_path: Mean path of the network in stages.
        tidy: Whether every node is live, no node reads one node twice, and both inputs are read: then all
            such wirings of a normal cell have the same live parameters.
    """

    sources: Int[np.ndarray, "wirings edges"]
    width: Float[np.ndarray, " wirings"]
    depth: Int[np.ndarray, " wirings"]
    path: Float[np.ndarray, " wirings"]
    network_path: Float[np.ndarray, " wirings"]
    tidy: Bool[np.ndarray, " wirings"]


class Percentiles(NamedTuple):
    """Mid-percentiles of a cell in its space: the share of wirings below it and half that of its equals."""

    width: float
    depth: float
    path: float
    network_path: float


def list_wirings(
    genotype: Genotype, *, reduction: bool = False, num_cells: int = 20, distinct: bool = False
) -> Wirings:
    """Width, depth and path of every wiring of a genotype's normal or reduction cell.

    Args:
        genotype: Gives the operations, the concat lists, and the cell that stays as it is.
        reduction: Whether the reduction cell is rewired, not the normal one.
        num_cells: Number of cells of the network.
        distinct: Whether the space has only wirings in which every node reads two distinct nodes.

    Returns:
        The wirings: 14,400 of four nodes, 518,400 of five (2,880 and 86,400 distinct ones: both orders of two
        sources count, since an operation stays on its edge).

    Raises:
        ValueError: If the cell has more than ``MAX_NODES`` nodes.
    """
    nodes = len(genotype.cell(reduction)[0]) // 2
    if nodes > MAX_NODES:
        raise ValueError(f"a census takes cells of at most {MAX_NODES} nodes; this one has {nodes}")
    wirings = all_wirings(nodes)
    if distinct:
        wirings = wirings[np.all(wirings[:, ::2] != wirings[:, 1::2], axis=1)]
    return _measured(genotype, reduction, num_cells, wirings)


def census_percentiles(
    genotype: Genotype, *, reduction: bool = False, num_cells: int = 20, distinct: bool = False
) -> Percentiles:
    """Where a genotype's normal or reduction cell stands among its :func:`list_wirings`, from 0 to 1."""
    edges, _ = genotype.cell(reduction)
    space = list_wirings(genotype, reduction=reduction, num_cells=num_cells, distinct=distinct)
    sources = np.array([[edge.source for edge in edges]], dtype=np.int8)
    own = _measured(genotype, reduction, num_cells, sources)
    values = ((getattr(space, name), getattr(own, name)[0]) for name in Percentiles._fields)
    return Percentiles(*(_mid_percentile(*pair) for pair in values))


def choose_wirings(
    space: Wirings, vary: str, hold: Mapping[str, float | int], count: int, tolerance: float | int
) -> list[int]:
    """Wirings that agree in some quantities and spread evenly over the range of another.

    Tidy wirings are taken where there are such. Where neither held nor varied, the depth is that with the
    widest range.

    Args:
        space: The wirings.
        vary: ``"width"``, ``"depth"`` or ``"path"`` (the network's).
        hold: Value of each quantity that is held; paths may differ by the tolerance.
        count: How many wirings at most.
        tolerance: In stages.

    Returns:
        Rows of the space, by rising value of what varies.

    Raises:
        ValueError: If no wiring has what is held.
    """
    values = {"width": space.width, "depth": space.depth, "path": space.network_path}
    fits = np.isfinite(space.network_path)
    for name, value in hold.items():
        fits &= np.abs(values[name] - value) <= (tolerance if name == "path" else 0)
    if not fits.any():
        held = " and ".join(f"{name} {value:g}" for name, value in hold.items())
        raise ValueError(f"no wiring of this cell has {held}")
    if (fits & space.tidy).any():
        fits &= space.tidy
    varied = values[vary]
    if vary != "depth" and "depth" not in hold:
        depths = np.unique(space.depth[fits])
        fits &= space.depth == max(depths, key=lambda depth: np.ptp(varied[fits & (space.depth == depth)]))
    rows = np.flatnonzero(fits)
    _, first = np.unique(np.round(varied[rows], 9), return_index=True)
    rows = rows[first]
    wanted = np.linspace(varied[rows[0]], varied[rows[-1]], max(2, count))
    nearest = [int(np.abs(varied[rows] - target).argmin()) for target in wanted]
    return [int(row) for row in rows[sorted(set(nearest))]][:count]


def _measured(
    genotype: Genotype, reduction: bool, num_cells: int, wirings: Int[np.ndarray, "wirings edges"]
) -> Wirings:
    edges, concat = genotype.cell(reduction)
    double_width, depth = widths_and_depths(wirings, concat)
    path, input_0 = _walks(edges, concat, wirings)
    other_edges, other_concat = genotype.cell(not reduction)
    other = np.array([[edge.source for edge in other_edges]], dtype=np.int8)
    other_path, other_input_0 = _walks(other_edges, other_concat, other)
    before = last = np.full(len(wirings), float(STEM_STAGES))
    reductions = reduction_indices(num_cells)
    for index in range(num_cells):
        rewired = (index in reductions) == reduction
        stages, share = (path, input_0) if rewired else (other_path, other_input_0)
        before, last = last, stages + share * before + (1 - share) * last
    return Wirings(wirings, double_width / 2, depth, path, last, _tidy(edges, concat, wirings))


def wiring_paths(
    edges: Sequence[Edge], concat: Sequence[int], wirings: Int[np.ndarray, "wirings edges"]
) -> Float[np.ndarray, " wirings"]:
    """Mean path of a cell in every wiring of its edges, in stages; NaN where ``none`` leaves no path."""
    return _walks(edges, concat, wirings)[0]


def _walks(
    edges: Sequence[Edge], concat: Sequence[int], wirings: Int[np.ndarray, "wirings edges"]
) -> tuple[Float[np.ndarray, " _"], Float[np.ndarray, " _"]]:
    """Mean path, and the chance of leaving through input 0, of every wiring of a cell."""
    count, nodes = len(wirings), len(edges) // 2 + 2
    rows = np.arange(count)
    length, through = np.zeros((count, nodes)), np.zeros((count, nodes))
    carries = np.zeros((count, nodes), dtype=bool)
    length[:, :2], through[:, 0], carries[:, :2] = PROJECTION_STAGES, 1, True
    for node in range(2, nodes):
        ways = np.zeros(count)
        for edge in (2 * node - 4, 2 * node - 3):
            source = wirings[:, edge]
            walked = carries[rows, source] & (edges[edge].op != "none")
            length[:, node] += walked * (operation_stages(edges[edge].op) + length[rows, source])
            through[:, node] += walked * through[rows, source]
            ways += walked
        carries[:, node] = ways > 0
        length[:, node] /= np.maximum(ways, 1)
        through[:, node] /= np.maximum(ways, 1)
    of_output = carries[:, list(concat)]
    ways = of_output.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        path = (length[:, list(concat)] * of_output).sum(axis=1) / ways
        input_0 = (through[:, list(concat)] * of_output).sum(axis=1) / ways
    return path, input_0


def _tidy(
    edges: Sequence[Edge], concat: Sequence[int], wirings: Int[np.ndarray, "wirings edges"]
) -> Bool[np.ndarray, " wirings"]:
    rows = np.arange(len(wirings))
    live = np.zeros((len(wirings), len(edges) // 2 + 2), dtype=bool)
    live[:, list(concat)] = True
    for edge in range(len(edges) - 1, -1, -1):
        if edges[edge].op != "none":
            live[rows, wirings[:, edge]] |= live[:, edge // 2 + 2]
    distinct: Bool[np.ndarray, " wirings"] = np.all(wirings[:, ::2] != wirings[:, 1::2], axis=1)
    return distinct & live.all(axis=1)


def _mid_percentile(space: np.ndarray, own: float | np.number) -> float:
    known = space[np.isfinite(space)]
    equal = np.isclose(known, own, rtol=0, atol=1e-9)
    return float(np.mean((known < own) & ~equal) + np.mean(equal) / 2)
