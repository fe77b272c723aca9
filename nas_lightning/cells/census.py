"""Census: width, depth and path of every cell in a connection space, counted exactly.

It puts the paper's Observation 3.1 (popular cells are nearly the widest and shallowest) into a number: the
share of all wirings that are at least as wide, at least as shallow, or both; and finds wirings that agree in
one of these and differ in another. It needs NumPy, so ``nas_lightning.cells`` does not import it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate, combinations, pairwise
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from nas_lightning.cells.genotype import Edge, Genotype, cell_edges, edge_nodes
from nas_lightning.cells.operations import carries
from nas_lightning.cells.paths import PROJECTION_STAGES, STEM_STAGES, operation_stages
from nas_lightning.cells.stack import reduction_indices
from nas_lightning.cells.topology import cell_depth, cell_width, width_unit

MAX_NODES = 5
"""Largest number of nodes of two edges each; a sixth would make 25 million wirings."""
MAX_WIRINGS = 2_000_000
"""Largest space: five nodes of two edges have 518,400 wirings, four of three 1.7 million."""

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
    those in which no node reads one node twice, in any order (the space DARTS searches). ``edge_counts`` is
    the number of edges of every node.
    """

    edge_counts: tuple[int, ...]
    concat: tuple[int, ...]
    distinct: bool
    counts: Mapping[tuple[float, int], int]

    @property
    def nodes(self) -> int:
        """Number of intermediate nodes."""
        return len(self.edge_counts)

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


def take_census(
    nodes: int | Sequence[int], concat: Sequence[int] | None = None, *, distinct: bool = False
) -> Census:
    """Count width and depth over every wiring of a space with two cell inputs.

    Four intermediate nodes have 14,400 ordered wirings, five have 518,400; 180 and 2,700 with distinct
    sources. All of them are concatenated by default.

    Args:
        nodes: Number of intermediate nodes of two edges each, or the number of edges of every node.
        concat: Nodes that the output concatenates.
        distinct: Whether the space has only wirings in which no node reads one node twice.

    Raises:
        ValueError: If ``nodes`` is out of range, the space too large, or ``concat`` is empty, repeats a
            node or names one that does not exist.
    """
    if isinstance(nodes, int) and not 1 <= nodes <= MAX_NODES:
        raise ValueError(f"`nodes` (={nodes}) must be from 1 to {MAX_NODES}")
    edge_counts = (2,) * nodes if isinstance(nodes, int) else tuple(nodes)
    _check_size(edge_counts)
    nodes = len(edge_counts)
    chosen = tuple(range(2, nodes + 2)) if concat is None else tuple(sorted(concat))
    if not chosen or len(set(chosen)) != len(chosen) or not set(chosen) <= set(range(2, nodes + 2)):
        raise ValueError(
            f"`concat` (={list(chosen)}) must name one or more distinct intermediate nodes, "
            f"from 2 to {nodes + 1}"
        )
    return _census(edge_counts, chosen, distinct)


def rank_cell(edges: Sequence[Edge], concat: Sequence[int], *, distinct: bool = False) -> Rank:
    """Rank a cell among all wirings with its numbers of edges and its concat list."""
    census = take_census(cell_edges(edges).counts, concat, distinct=distinct)
    return census.rank(cell_width(edges, concat), cell_depth(edges, concat))


def count_wirings(edges: Sequence[Edge]) -> int:
    """Number of wirings of a cell, each edge reading any node before its own."""
    return math.prod(edge_nodes(edges))


def all_wirings(edge_counts: Sequence[int]) -> Int[np.ndarray, "wirings edges"]:
    """Sources of every ordered wiring of a space with two cell inputs and a given number of edges a node."""
    nodes = _nodes(edge_counts)
    small = np.int8 if len(edge_counts) < 100 else np.int64
    return np.indices(nodes, dtype=small).reshape(len(nodes), -1).T


def has_distinct_sources(
    wirings: Int[np.ndarray, "wirings edges"], edge_counts: Sequence[int], *, ascending: bool = False
) -> Bool[np.ndarray, " wirings"]:
    """Whether no node of a wiring reads one node twice; if ``ascending``, also whether its sources ascend."""
    distinct = np.ones(len(wirings), dtype=bool)
    for place in _places(edge_counts):
        for first, second in combinations(place, 2):
            one, other = wirings[:, first], wirings[:, second]
            distinct &= one < other if ascending else one != other
    return distinct


def widths_and_depths(
    wirings: Int[np.ndarray, "wirings edges"], edge_counts: Sequence[int], concat: Sequence[int]
) -> tuple[Float[np.ndarray, " wirings"], Int[np.ndarray, " wirings"]]:
    """The width in units of c, and the depth, of every wiring."""
    parts, depth = _parts_and_depths(wirings, edge_counts, concat)
    return parts / width_unit(edge_counts), depth


def _parts_and_depths(
    wirings: Int[np.ndarray, "wirings edges"], edge_counts: Sequence[int], concat: Sequence[int]
) -> tuple[Int[np.ndarray, " wirings"], Int[np.ndarray, " wirings"]]:
    """The width in parts of its unit, an integer, and the depth of every wiring."""
    count, nodes, unit = len(wirings), len(edge_counts) + 2, width_unit(edge_counts)
    rows = np.arange(count)
    depth = np.zeros((count, nodes), dtype=np.int8)
    for node, place in enumerate(_places(edge_counts), start=2):
        reached = [np.where(wirings[:, e] < 2, 1, _one_deeper(depth[rows, wirings[:, e]])) for e in place]
        if reached:
            depth[:, node] = np.max(reached, axis=0)
    feeding = np.zeros(depth.shape, dtype=bool)
    feeding[:, list(concat)] = True
    parts = np.zeros(count, dtype=np.int64)
    for edge, node in reversed(list(enumerate(_nodes(edge_counts)))):
        # One column after the other: a row may name the same node in both.
        feeding[rows, wirings[:, edge]] |= feeding[:, node]
        parts += ((wirings[:, edge] < 2) & feeding[:, node]) * (unit // edge_counts[node - 2])
    return parts, 1 + depth[:, list(concat)].max(axis=1).astype(np.int64)


def _one_deeper(depth: Int[np.ndarray, " wirings"]) -> Int[np.ndarray, " wirings"]:
    """A depth and one more, but 0 where no path leads."""
    deeper: np.ndarray = np.where(depth > 0, depth + 1, 0)
    return deeper


def _nodes(edge_counts: Sequence[int]) -> list[int]:
    """Node of every edge."""
    return [node for node, count in enumerate(edge_counts, start=2) for _ in range(count)]


def _places(edge_counts: Sequence[int]) -> list[range]:
    """Positions of every node's edges."""
    ends = list(accumulate(edge_counts, initial=0))
    return [range(*ends) for ends in pairwise(ends)]


def _check_size(edge_counts: Sequence[int]) -> None:
    """Refuse spaces that are too large to list."""
    count = math.prod(_nodes(edge_counts))
    if count > MAX_WIRINGS:
        edges = ", ".join(map(str, edge_counts))
        raise ValueError(
            f"a cell whose nodes have {edges} edges has {count:,} wirings; "
            f"a census lists at most {MAX_WIRINGS:,}"
        )


@cache
def _census(edge_counts: tuple[int, ...], concat: tuple[int, ...], distinct: bool) -> Census:
    wirings = all_wirings(edge_counts)
    if distinct:
        # One of the orders of every node's sources.
        wirings = wirings[has_distinct_sources(wirings, edge_counts, ascending=True)]
    parts, depth = _parts_and_depths(wirings, edge_counts, concat)
    # Numbers sort far faster than pairs; depths stay far below the factor.
    codes, counts = np.unique(parts * _DEPTH_CODES + depth, return_counts=True)
    widths, depths = codes // _DEPTH_CODES / width_unit(edge_counts), codes % _DEPTH_CODES
    pairs = zip(widths.tolist(), depths.tolist(), strict=True)
    found = MappingProxyType(dict(zip(pairs, counts.tolist(), strict=True)))
    return Census(edge_counts, concat, distinct, found)


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
        distinct: Whether the space has only wirings in which no node reads one node twice.

    Returns:
        The wirings: 14,400 of four nodes, 518,400 of five (2,880 and 86,400 distinct ones: both orders of two
        sources count, since an operation stays on its edge).

    Raises:
        ValueError: If there are more than ``MAX_WIRINGS``.
    """
    edge_counts = genotype.cell(reduction)[0].counts
    _check_size(edge_counts)
    wirings = all_wirings(edge_counts)
    if distinct:
        wirings = wirings[has_distinct_sources(wirings, edge_counts)]
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
    width, depth = widths_and_depths(wirings, edges.counts, concat)
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
    return Wirings(wirings, width, depth, path, last, _tidy(edges, concat, wirings))


def wiring_paths(
    edges: Sequence[Edge], concat: Sequence[int], wirings: Int[np.ndarray, "wirings edges"]
) -> Float[np.ndarray, " wirings"]:
    """Mean path of a cell in every wiring of its edges, in stages; NaN where ``none`` leaves no path."""
    return _walks(edges, concat, wirings)[0]


def _walks(
    edges: Sequence[Edge], concat: Sequence[int], wirings: Int[np.ndarray, "wirings edges"]
) -> tuple[Float[np.ndarray, " _"], Float[np.ndarray, " _"]]:
    """Mean path, and the chance of leaving through input 0, of every wiring of a cell."""
    places = cell_edges(edges).positions
    count, nodes = len(wirings), len(places) + 2
    rows = np.arange(count)
    length, through = np.zeros((count, nodes)), np.zeros((count, nodes))
    reached = np.zeros((count, nodes), dtype=bool)
    length[:, :2], through[:, 0], reached[:, :2] = PROJECTION_STAGES, 1, True
    for node, place in enumerate(places, start=2):
        ways = np.zeros(count)
        for edge in place:
            source = wirings[:, edge]
            walked = reached[rows, source] & carries(edges[edge].op)
            length[:, node] += walked * (operation_stages(edges[edge].op) + length[rows, source])
            through[:, node] += walked * through[rows, source]
            ways += walked
        reached[:, node] = ways > 0
        length[:, node] /= np.maximum(ways, 1)
        through[:, node] /= np.maximum(ways, 1)
    of_output = reached[:, list(concat)]
    ways = of_output.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        path = (length[:, list(concat)] * of_output).sum(axis=1) / ways
        input_0 = (through[:, list(concat)] * of_output).sum(axis=1) / ways
    return path, input_0


def _tidy(
    edges: Sequence[Edge], concat: Sequence[int], wirings: Int[np.ndarray, "wirings edges"]
) -> Bool[np.ndarray, " wirings"]:
    rows, edge_counts = np.arange(len(wirings)), cell_edges(edges).counts
    live = np.zeros((len(wirings), len(edge_counts) + 2), dtype=bool)
    live[:, list(concat)] = True
    for edge, node in reversed(list(enumerate(edge_nodes(edges)))):
        if carries(edges[edge].op):
            live[rows, wirings[:, edge]] |= live[:, node]
    tidy: Bool[np.ndarray, " wirings"] = has_distinct_sources(wirings, edge_counts) & live.all(axis=1)
    return tidy


def _mid_percentile(space: np.ndarray, own: float | np.number) -> float:
    known = space[np.isfinite(space)]
    equal = np.isclose(known, own, rtol=0, atol=1e-9)
    return float(np.mean((known < own) & ~equal) + np.mean(equal) / 2)
