"""Matched random controls of a genotype: the same operations in the same places, wired at random.

A control rewires both cells; operations and concat lists stay. Two pairs of wirings match if each of their
cells reads as many of its two inputs as the other's, and their networks have the same number of live
parameters within 5 %. To make "within 5 %" an equivalence, the sizes that occur are divided into bands: the
largest size opens a band that reaches down to 1/1.05 of it, the next smaller one opens the next band. A
cell's controls are the other pairs of its band.

Why bands and equal numbers of inputs: every member of a class has the same class. So a cell that was drawn
uniformly from all pairs of wirings is, given its class, a uniform draw from it, and its controls are further
draws without replacement: cell and controls are exchangeable, and the cell's rank among them is uniform. A
window around the cell's own size, or "as many inputs or more", would give each member another set of
controls: cells that read one input would be compared with wider ones and be extreme more often than stated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
from jaxtyping import Bool, Int

from nas_lightning.cells.census import MAX_WIRINGS, all_wirings, count_wirings
from nas_lightning.cells.genotype import CellEdges, Edge, Genotype
from nas_lightning.cells.operations import carries
from nas_lightning.cells.size import UnknownOperationSize, count_parameters, operation_cost
from nas_lightning.cells.stack import reduction_indices, stack_plan
from nas_lightning.cells.topology import reads_inputs
from nas_lightning.cells.variants import MAX_SEED

TOLERANCE_PERCENT = 5
"""Largest difference of live parameters within a band, in per cent of the smaller."""
LEAST_CONTROLS = 3

_CELLS = (False, True)


@dataclass(frozen=True)
class Controls:
    """Matched controls of a genotype.

    Attributes:
        base: The audited genotype.
        genotypes: The controls, distinct, in the order of their draw.
        live_parameters: Live parameters of each.
        total: Number of matched pairs of wirings but for the audited one; exact.
        asked: How many were asked for; all are given where there are fewer.
        seed: Of the draw.
        own_live_parameters: Live parameters of the audited network.
        smallest: Smallest live parameters in the class.
        largest: Largest.
        inputs_read: How many of its two inputs the normal and the reduction cell read.
    """

    base: Genotype
    genotypes: tuple[Genotype, ...]
    live_parameters: tuple[int, ...]
    total: int
    asked: int
    seed: int
    own_live_parameters: int
    smallest: int
    largest: int
    inputs_read: tuple[int, int]

    @property
    def is_everyone(self) -> bool:
        """Whether the controls are all there are."""
        return len(self.genotypes) == self.total

    @cached_property
    def wirings(self) -> tuple[str, ...]:
        """The sources of every control as in ``BASE:wiring=DIGITS/DIGITS``."""
        return tuple(wiring_text(genotype) for genotype in self.genotypes)

    def record(self) -> dict[str, Any]:
        """Plain values for JSON."""
        names = ("total", "asked", "seed", "own_live_parameters", "smallest", "largest")
        return {name: getattr(self, name) for name in names} | {
            "count": len(self.genotypes),
            "is_everyone": self.is_everyone,
            "tolerance_percent": TOLERANCE_PERCENT,
            "inputs_read": list(self.inputs_read),
            "wirings": list(self.wirings),
            "live_parameters": list(self.live_parameters),
        }


def wiring_text(genotype: Genotype) -> str:
    """``DIGITS/DIGITS``: the source of every edge of both cells; no source of a listed space exceeds 9."""
    return "/".join("".join(str(edge.source) for edge in cell) for cell in (genotype.normal, genotype.reduce))


def matched_controls(
    genotype: Genotype,
    count: int = 200,
    *,
    seed: int = 0,
    init_channels: int = 36,
    num_cells: int = 20,
    num_classes: int = 10,
) -> Controls:
    """Draw matched random controls, uniformly and without replacement.

    NumPy's legacy generator ``RandomState(seed)`` draws, whose stream is frozen. Wirings are counted as in
    the census: both orders of two sources count, since an operation stays on its edge.

    Args:
        genotype: The audited cells.
        count: How many controls, at least 3; all where the class has fewer.
        seed: Of the draw, from 0 to 2**32 - 1.
        init_channels: Channels of the nodes of the first cell.
        num_cells: Number of cells.
        num_classes: Outputs of the classifier.

    Returns:
        The controls, with the exact number of pairs that match.

    Raises:
        ValueError: If ``count`` or ``seed`` is out of range, a cell has more than ``MAX_WIRINGS`` wirings, or
            no other pair of wirings matches.
        UnknownOperationSize: If an operation of the user's own has no size formula.
    """
    if count < LEAST_CONTROLS:
        raise ValueError(f"`count` (={count}) must be at least {LEAST_CONTROLS}: fewer controls tell nothing")
    if isinstance(seed, bool) or not 0 <= seed <= MAX_SEED:
        raise ValueError(f"seed {seed!r} must be an integer from 0 to {MAX_SEED}")
    for reduction, name in ((False, "normal"), (True, "reduction")):
        wirings = count_wirings(genotype.cell(reduction)[0])
        if wirings > MAX_WIRINGS:
            raise ValueError(
                f"the {name} cell has {wirings:,} wirings; matched controls are counted among at most "
                f"{MAX_WIRINGS:,}"
            )
    try:
        space = PairSpace(genotype, init_channels, num_cells, num_classes)
    except UnknownOperationSize as error:
        raise UnknownOperationSize(f"there are no controls of the same size: {error}") from error
    total = space.class_size - 1
    if not total:
        raise ValueError(
            "no other wiring of these cells has the same operations, as many inputs read and live parameters "
            f"within {TOLERANCE_PERCENT} % of {space.own_size:,}: there is no matched control"
        )
    found = [space.pair(index) for index in _draw(np.random.RandomState(seed), space, min(count, total))]
    return Controls(
        base=genotype,
        genotypes=tuple(pair for pair, _ in found),
        live_parameters=tuple(size for _, size in found),
        total=total,
        asked=count,
        seed=seed,
        own_live_parameters=space.own_size,
        smallest=space.smallest,
        largest=space.largest,
        inputs_read=space.inputs_read,
    )


def _draw(generator: np.random.RandomState, space: PairSpace, count: int) -> list[int]:
    """Distinct indices of the class but for the audited pair, in random order."""
    size, own = space.class_size, space.own_index
    if size <= 4 * count + 4:
        return [int(index) for index in generator.permutation(size) if index != own][:count]
    drawn: dict[int, None] = {}
    while len(drawn) < count:
        index = int(generator.randint(0, size, dtype=np.int64))
        if index != own:
            drawn[index] = None
    return list(drawn)


class PairSpace:
    """All pairs of wirings of a genotype by the size of their network, and the class of the genotype itself.

    The live parameters of a network depend on each cell's wiring through a few numbers only: which inputs it
    reads, and the live parameters of its edges at every number of channels. The wirings of each cell are
    grouped by these, and sizes are computed for pairs of groups.

    Attributes:
        own_size: Live parameters of the genotype's network.
        inputs_read: How many inputs each of its cells reads.
        class_size: Number of pairs in its class, itself included.
        own_index: Its place in the class.
        smallest: Smallest size in the class.
        largest: Largest.
    """

    def __init__(self, genotype: Genotype, init_channels: int, num_cells: int, num_classes: int) -> None:
        self._genotype = genotype
        self._count = partial(
            count_parameters,
            init_channels=init_channels,
            num_cells=num_cells,
            num_classes=num_classes,
            live=True,
        )
        self._plan = partial(stack_plan, init_channels=init_channels, num_cells=num_cells)
        self.own_size = self._count(genotype)
        channels = _channels(genotype, init_channels, num_cells)
        self._cells = [_CellGroups(*genotype.cell(r), r, channels[r]) for r in _CELLS]
        self.inputs_read = (
            sum(reads_inputs(*genotype.cell(reduction=False))),
            sum(reads_inputs(*genotype.cell(reduction=True))),
        )
        sizes = self._sizes(channels)
        normal, reduce = self._cells
        self.largest, self.smallest = _band(np.unique(sizes[sizes > 0]), self.own_size)
        rows, columns = np.nonzero((sizes >= self.smallest) & (sizes <= self.largest))
        self._pairs = np.stack([rows, columns], axis=1)
        self._pair_sizes = sizes[rows, columns]
        self._ends = np.cumsum(normal.counts[rows] * reduce.counts[columns])
        self.class_size = int(self._ends[-1])
        (row, first), (column, second) = normal.own, reduce.own
        place = int(np.flatnonzero((rows == row) & (columns == column))[0])
        self.own_index = self._start(place) + first * int(reduce.counts[column]) + second

    def pair(self, index: int) -> tuple[Genotype, int]:
        """A member of the class by its number, from 0, and its live parameters."""
        normal, reduce = self._cells
        place = int(np.searchsorted(self._ends, index, side="right"))
        row, column = self._pairs[place].tolist()
        first, second = divmod(index - self._start(place), int(reduce.counts[column]))
        pair = self._with(normal.wiring(row, first), reduce.wiring(column, second))
        return pair, int(self._pair_sizes[place])

    def _start(self, place: int) -> int:
        return int(self._ends[place - 1]) if place else 0

    def _with(self, normal: Sequence[int], reduce: Sequence[int]) -> Genotype:
        cells = [
            edges.with_edges(Edge(edge.op, int(source)) for edge, source in zip(edges, sources, strict=True))
            for edges, sources in ((self._genotype.normal, normal), (self._genotype.reduce, reduce))
        ]
        return Genotype(cells[0], self._genotype.normal_concat, cells[1], self._genotype.reduce_concat)

    def _sizes(self, channels: list[list[int]]) -> Int[np.ndarray, "normal_groups reduction_groups"]:
        """Live parameters of every pair of groups; 0 where the numbers of inputs read are others."""
        normal, reduce = self._cells
        sizes = np.zeros((len(normal.counts), len(reduce.counts)), dtype=np.int64)
        ways = [np.unique(cell.reads, axis=0) for cell in self._cells]
        for of_normal in ways[0]:
            for of_reduce in ways[1]:
                if (of_normal.sum(), of_reduce.sum()) != self.inputs_read:
                    continue
                rows = np.flatnonzero((normal.reads == of_normal).all(axis=1))
                columns = np.flatnonzero((reduce.reads == of_reduce).all(axis=1))
                # Which cells are live depends on the inputs read alone: one pair stands for all.
                one = self._with(normal.wiring(int(rows[0]), 0), reduce.wiring(int(columns[0]), 0))
                plan = self._plan(one)
                live = [
                    np.array(
                        [
                            sum(p.live and p.reduction == r and p.channels == c for p in plan.cells)
                            for c in channels[r]
                        ],
                        dtype=np.int64,
                    )
                    for r in _CELLS
                ]
                of_edges = [
                    cell.edge_parameters @ number for cell, number in zip(self._cells, live, strict=True)
                ]
                rest = self._count(one)
                rest -= int(of_edges[0][rows[0]] + of_edges[1][columns[0]])
                sizes[np.ix_(rows, columns)] = rest + of_edges[0][rows][:, None] + of_edges[1][columns]
        return sizes


class _CellGroups:
    """The wirings of one cell with a path, grouped by what the size of the network depends on.

    Attributes:
        reads: Of every group, whether input 0 and input 1 are read.
        edge_parameters: Of every group, the live edges' parameters by number of channels.
        counts: Number of wirings.
        own: Group of the cell's own wiring, and its place in it.
    """

    reads: Bool[np.ndarray, "groups 2"]
    edge_parameters: Int[np.ndarray, "groups channels"]
    counts: Int[np.ndarray, " groups"]

    def __init__(
        self, edges: CellEdges, concat: Sequence[int], reduction: bool, channels: Sequence[int]
    ) -> None:
        sources = all_wirings(edges.counts)
        live = live_edge_masks(edges, concat, sources)
        reads = np.stack([(live & (sources == node)).any(axis=1) for node in (0, 1)], axis=1)
        has_path = reads.any(axis=1)
        sources, live, reads = sources[has_path], live[has_path], reads[has_path]
        strided = live & (sources < 2) & reduction
        # Far fewer patterns than wirings: costs are looked up once for each.
        bits = np.concatenate([reads, live, strided], axis=1)
        codes = np.zeros(len(bits), dtype=np.int64)
        for column in bits.T:
            codes = codes * 2 + column
        _, first, of_pattern = np.unique(codes, return_index=True, return_inverse=True)
        costs = np.zeros((len(first), len(channels)), dtype=np.int64)
        for at, width in enumerate(channels):
            for edge, (op, _) in enumerate(edges):
                by_stride = [operation_cost(op, width, stride, 1).parameters for stride in (1, 2)]
                costs[:, at] += np.where(live[first, edge], np.take(by_stride, strided[first, edge] * 1), 0)
        keys = np.concatenate([reads[first], costs], axis=1)
        groups, of_group = np.unique(keys, axis=0, return_inverse=True)
        group = of_group.reshape(-1)[of_pattern]
        self.reads, self.edge_parameters = groups[:, :2].astype(bool), groups[:, 2:]
        self.counts = np.bincount(group, minlength=len(groups)).astype(np.int64)
        order = np.argsort(group, kind="stable")
        self._members = np.split(sources[order], np.cumsum(self.counts)[:-1])
        own = int(np.flatnonzero((sources == [edge.source for edge in edges]).all(axis=1))[0])
        self.own = int(group[own]), int((group[:own] == group[own]).sum())

    def wiring(self, group: int, place: int) -> list[int]:
        """The sources of a member of a group."""
        wiring: list[int] = self._members[group][place].tolist()
        return wiring


def live_edge_masks(
    edges: CellEdges, concat: Sequence[int], sources: Int[np.ndarray, "wirings edges"]
) -> Bool[np.ndarray, "wirings edges"]:
    """Whether each edge's value reaches the cell's output, in every wiring."""
    rows = np.arange(len(sources))
    feeding = np.zeros((len(sources), edges.node_count + 2), dtype=bool)
    feeding[:, list(concat)] = True
    live = np.zeros(sources.shape, dtype=bool)
    for edge, node in reversed(list(enumerate(edges.nodes))):
        if carries(edges[edge].op):
            live[:, edge] = feeding[:, node]
            feeding[rows, sources[:, edge]] |= feeding[:, node]
    return live


def _channels(genotype: Genotype, init_channels: int, num_cells: int) -> list[list[int]]:
    """Numbers of channels of the normal and of the reduction cells."""
    plan = stack_plan(genotype, init_channels=init_channels, num_cells=num_cells)
    reductions = reduction_indices(num_cells)
    return [
        sorted({cell.channels for cell in plan.cells if (cell.index in reductions) == reduction})
        for reduction in _CELLS
    ]


def _band(sizes: Int[np.ndarray, " sizes"], own: int) -> tuple[int, int]:
    """Largest and smallest size of the band that holds ``own``; sizes ascend."""
    remaining = sizes
    while True:
        largest = int(remaining[-1])
        # In integers, so that no rounding decides who is in: largest <= 1.05 size.
        inside = remaining * (100 + TOLERANCE_PERCENT) >= largest * 100
        smallest = int(remaining[inside][0])
        if own >= smallest:
            return largest, smallest
        remaining = remaining[~inside]
