"""What a cell's wiring and operations are among all there could be: exact, and without training.

Width, depth and mean path of each cell stand among all wirings of its edges, and among those in which no node
reads one node twice; the network's parameters and multiply-adds stand among all choices of operations on the
same wiring. Wirings and operations are drawn uniformly under the null hypothesis of every p-value.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from nas_lightning.audit.standing import Standing, in_space
from nas_lightning.cells.census import MAX_WIRINGS, count_wirings, has_distinct_sources, list_wirings
from nas_lightning.cells.genotype import CellEdges, Genotype
from nas_lightning.cells.paths import cell_path
from nas_lightning.cells.size import UnknownOperationSize, count_parameters, multiply_adds, operation_cost
from nas_lightning.cells.stack import stack_plan
from nas_lightning.cells.topology import cell_depth, cell_width, dead_nodes, reads_inputs
from nas_lightning.cells.variants import RANDOM_OPERATIONS

QUANTITIES = ("width", "depth", "path")
SPACES = ("ordered", "distinct")
"""All wirings, each edge reading any node before its own; those in which no node reads one node twice."""

MAX_SUMS = 4_000_000
"""Most different sums that a distribution over operations is combined from exactly."""
SAMPLES = 100_000
"""Draws of operations where there are more."""

# Widths and paths are fractions: rounding must not break ties.
_DIGITS = 9


@dataclass(frozen=True)
class CellStructure:
    """One cell of a genotype.

    Attributes:
        reduction: Whether it is the reduction cell.
        wirings: Number of all wirings of its edges.
        standings: For each of ``SPACES``, that of width (in units of c), depth and mean path (in stages);
            None where the space is too large for a census, is empty, or the cell has no such value.
        inputs_not_read: Which of its inputs, 0 and 1, no live edge reads.
        dead_nodes: Nodes that do not reach the output.
        duplicate_edges: (node, source, operation) of edges that another edge of the node repeats.
    """

    reduction: bool
    wirings: int
    standings: dict[str, dict[str, Standing | None]]
    inputs_not_read: tuple[int, ...]
    dead_nodes: tuple[int, ...]
    duplicate_edges: tuple[tuple[int, int, str], ...]

    @property
    def name(self) -> str:
        """``"normal"`` or ``"reduction"``."""
        return "reduction" if self.reduction else "normal"

    def record(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "wirings": self.wirings,
            "inputs_not_read": list(self.inputs_not_read),
            "dead_nodes": list(self.dead_nodes),
            "duplicate_edges": [list(edge) for edge in self.duplicate_edges],
            "standings": {
                space: {name: found and found.record() for name, found in of_space.items()}
                for space, of_space in self.standings.items()
            },
        }


@dataclass(frozen=True)
class SizeStanding:
    """Where a size stands among all choices of ``RANDOM_OPERATIONS`` for the edges of both cells.

    Attributes:
        standing: The standing; ``total`` is the number of choices, or of draws and the cell itself.
        is_exact: Whether all choices were counted, not ``SAMPLES`` drawn.
    """

    standing: Standing
    is_exact: bool

    def record(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"standing": self.standing.record(), "is_exact": self.is_exact}


@dataclass(frozen=True)
class Structure:
    """Wiring and size of a genotype.

    Attributes:
        normal: The normal cell.
        reduction: The reduction cell.
        parameters: All parameters of the network, those of dead branches included; None with operations of
            the user's own.
        live_parameters: Those whose value reaches the classifier.
        multiply_adds: For one image.
        dead_cells: Cells of the stack that do not reach the classifier.
        parameters_standing: Where the parameters stand over operations.
        multiply_adds_standing: Where the multiply-adds stand.
    """

    normal: CellStructure
    reduction: CellStructure
    parameters: int | None
    live_parameters: int | None
    multiply_adds: int | None
    dead_cells: tuple[int, ...]
    parameters_standing: SizeStanding | None
    multiply_adds_standing: SizeStanding | None

    def record(self) -> dict[str, Any]:
        """Plain values for JSON."""
        sizes = {name: getattr(self, name) for name in ("parameters", "live_parameters", "multiply_adds")}
        standings = {
            name: found and found.record()
            for name, found in (
                ("parameters", self.parameters_standing),
                ("multiply_adds", self.multiply_adds_standing),
            )
        }
        return {
            "normal": self.normal.record(),
            "reduction": self.reduction.record(),
            **sizes,
            "dead_cells": list(self.dead_cells),
            "over_operations": standings,
        }


@dataclass(frozen=True)
class NetworkSettings:
    """The network and the images that sizes are counted for."""

    init_channels: int = 36
    num_cells: int = 20
    num_classes: int = 10
    stem_stride: int = 1
    image_size: int = 32


def audit_structure(genotype: Genotype, settings: NetworkSettings | None = None) -> Structure:
    """Rank a genotype's wirings and its size, exactly.

    Args:
        genotype: The audited cells.
        settings: The network; the paper's by default.

    Returns:
        The structure. Sizes are None where an operation of the user's own has no formula.

    Raises:
        ValueError: If a setting is out of range or the images do not fit.
    """
    settings = settings or NetworkSettings()
    given = asdict(settings)
    of_parameters = {name: given[name] for name in ("init_channels", "num_cells", "num_classes")}
    plan = stack_plan(genotype, init_channels=settings.init_channels, num_cells=settings.num_cells)
    structure = Structure(
        normal=_cell_structure(genotype, False, settings.num_cells),
        reduction=_cell_structure(genotype, True, settings.num_cells),
        parameters=None,
        live_parameters=None,
        multiply_adds=None,
        dead_cells=tuple(cell.index for cell in plan.cells if not cell.live),
        parameters_standing=None,
        multiply_adds_standing=None,
    )
    try:
        parameters = count_parameters(genotype, **of_parameters)
        live = count_parameters(genotype, **of_parameters, live=True)
        operations = multiply_adds(genotype, **given)
    except UnknownOperationSize:
        return structure
    return replace(
        structure,
        parameters=parameters,
        live_parameters=live,
        multiply_adds=operations,
        parameters_standing=_size_standing(genotype, settings, parameters, live=False),
        multiply_adds_standing=_size_standing(genotype, settings, operations, live=True),
    )


def _cell_structure(genotype: Genotype, reduction: bool, num_cells: int) -> CellStructure:
    edges, concat = genotype.cell(reduction)
    measured = cell_width(edges, concat), cell_depth(edges, concat), cell_path(edges, concat)
    own = dict(zip(QUANTITIES, measured, strict=True))
    standings: dict[str, dict[str, Standing | None]] = {space: dict.fromkeys(QUANTITIES) for space in SPACES}
    if count_wirings(edges) <= MAX_WIRINGS:
        is_distinct = all(len({source for _, source in node}) == len(node) for node in edges.by_node)
        wirings = list_wirings(genotype, reduction=reduction, num_cells=num_cells)
        everyone = np.ones(len(wirings.sources), dtype=bool)
        members = dict(
            zip(SPACES, (everyone, has_distinct_sources(wirings.sources, edges.counts)), strict=True)
        )
        for (space, chosen), member in zip(members.items(), (True, is_distinct), strict=True):
            for name, value in own.items():
                of_space = getattr(wirings, name)[chosen]
                standings[space][name] = in_space(value, of_space, digits=_DIGITS, member=member)
    reads = reads_inputs(edges, concat)
    return CellStructure(
        reduction=reduction,
        wirings=count_wirings(edges),
        standings=standings,
        inputs_not_read=tuple(node for node in (0, 1) if not reads[node]),
        dead_nodes=tuple(sorted(dead_nodes(edges, concat))),
        duplicate_edges=tuple(repeated_edges(edges)),
    )


def repeated_edges(edges: CellEdges) -> list[tuple[int, int, str]]:
    """(node, source, operation) of every edge that an earlier edge of its node repeats."""
    return [
        (node, edge.source, edge.op)
        for node, own in enumerate(edges.by_node, start=2)
        for place, edge in enumerate(own)
        if edge in own[:place]
    ]


def _size_standing(genotype: Genotype, settings: NetworkSettings, own: int, *, live: bool) -> SizeStanding:
    """Where a size stands over ``RANDOM_OPERATIONS``: parameters of all edges, or multiply-adds of live ones.

    With these operations every edge carries, so which edges are live depends on the wiring alone and the size
    is a constant plus a sum of one independent term an edge.
    """
    terms = edge_costs(genotype, settings, live=live)
    first = [[terms_of[0] for terms_of in terms]]
    constant = _size(_with_first_operation(genotype), settings, live=live) - sum(first[0])
    member = all(edge.op in RANDOM_OPERATIONS for cell in (genotype.normal, genotype.reduce) for edge in cell)
    values, counts, is_exact = sum_distribution(terms)
    if member and not is_exact:  # the cell is one of the draws: no p-value is 0
        values, counts = np.append(values, own - constant), np.append(counts, 1.0)
    found = in_space(own, values + constant, counts, member=member)
    assert found is not None  # sizes are finite
    return SizeStanding(found, is_exact)


def _size(genotype: Genotype, settings: NetworkSettings, *, live: bool) -> int:
    given = asdict(settings)
    if live:
        return multiply_adds(genotype, **given)
    return count_parameters(genotype, **{k: given[k] for k in ("init_channels", "num_cells", "num_classes")})


def _with_first_operation(genotype: Genotype) -> Genotype:
    """The wiring with the first of ``RANDOM_OPERATIONS`` on every edge."""
    cells = [
        edges.with_edges(edge._replace(op=RANDOM_OPERATIONS[0]) for edge in edges)
        for edges in (genotype.normal, genotype.reduce)
    ]
    return Genotype(cells[0], genotype.normal_concat, cells[1], genotype.reduce_concat)


def edge_costs(
    genotype: Genotype, settings: NetworkSettings, *, live: bool
) -> Int[np.ndarray, "edges operations"]:
    """What each of ``RANDOM_OPERATIONS`` would cost on every edge, the normal cell's first, over the network.

    Args:
        genotype: Gives the wiring.
        settings: The network.
        live: Multiply-adds of edges that reach the classifier; else the parameters of all edges.
    """
    plan = stack_plan(
        _with_first_operation(genotype), init_channels=settings.init_channels, num_cells=settings.num_cells
    )
    start = {False: 0, True: len(genotype.normal)}
    costs = np.zeros((len(genotype.normal) + len(genotype.reduce), len(RANDOM_OPERATIONS)), dtype=np.int64)
    size = -(-settings.image_size // settings.stem_stride)
    for cell in plan.cells:
        inner = -(-size // 2) if cell.reduction else size
        for place, edge in enumerate(genotype.cell(cell.reduction)[0]):
            if live and not cell.live_edges[place]:
                continue
            for number, op in enumerate(RANDOM_OPERATIONS):
                seen = size if edge.source < 2 else inner
                cost = operation_cost(op, cell.channels, cell.stride(edge.source), seen)
                costs[start[cell.reduction] + place, number] += (
                    cost.multiply_adds if live else cost.parameters
                )
        size = inner
    return costs


def sum_distribution(
    terms: Int[np.ndarray, "edges operations"], limit: int = MAX_SUMS
) -> tuple[Int[np.ndarray, " sums"], Float[np.ndarray, " sums"], bool]:
    """Distribution of a sum of independent terms, each uniform over a row.

    Args:
        terms: The possible values of each term.
        limit: Most sums to combine; where there would be more, ``SAMPLES`` sums are drawn.

    Returns:
        The values, how often each occurs among all choices (or draws), and whether all choices were counted.
    """
    values: np.ndarray = np.zeros(1, dtype=np.int64)
    counts: np.ndarray = np.ones(1)
    for term in _most_alike_first(terms):
        own, often = np.unique(term, return_counts=True)
        if len(values) * len(own) > limit:
            return *_sampled(terms), False
        sums, place = np.unique(np.add.outer(values, own), return_inverse=True)
        counts = np.bincount(place.reshape(-1), np.multiply.outer(counts, often).reshape(-1))
        values = sums
    return values, counts, True


def _most_alike_first(terms: np.ndarray) -> Sequence[np.ndarray]:
    """Rows with equal ones together: sums of equal terms coincide."""
    return sorted(terms, key=lambda term: sorted(term.tolist()))


def _sampled(terms: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    drawn = np.random.RandomState(0).randint(0, terms.shape[1], size=(SAMPLES, len(terms)))
    values, counts = np.unique(terms[np.arange(len(terms)), drawn].sum(axis=1), return_counts=True)
    return values, counts.astype(float)
