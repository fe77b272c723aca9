"""Paths through a cell and through a network, in stages of convolution and batch norm, in plain Python.

Width and depth say where a cell's edges start and how many follow one another. How far a gradient really
travels depends on what lies on the edges and on how cells are stacked: a cell that never reads input 0 makes
the network a chain. The path counts that.

A path leads from the classifier back to the image: from a concatenation to one of its nodes, from a node
along one of its edges, from a cell input to the cell that made it, from the first cells to the stem. Its
length counts stages: 2 for a separable convolution, 3 for an inverted residual, 1 for every other convolution
(operations of your own count as one), 0 for pooling and skips; 1 for the projection of each cell input, and 1
for the stem. The mean path is the expected length of a random walk that chooses uniformly among the nodes of
a concatenation and among the edges of a node. ``none`` and
``noise`` carry nothing; they and what they alone feed are never walked.

The mean path is this project's own; Shu, Wang and Cai (ICLR 2020) know width and depth.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from nas_lightning.cells.genotype import Edge, Genotype, cell_edges
from nas_lightning.cells.operations import carries
from nas_lightning.cells.stack import reduction_indices
from nas_lightning.cells.topology import (
    cell_depth,
    cell_width,
    duplicate_edges,
    reads_inputs,
)

PROJECTION_STAGES = 1
"""Stages of the projection that brings a cell input to the cell's channels."""
STEM_STAGES = 1
"""Stages of the stem."""
_STAGES = {"none": 0, "noise": 0, "skip_connect": 0}
_STAGES |= {f"{kind}_pool_{size}x{size}": 0 for kind in ("max", "avg") for size in (3, 5, 7)}
_STAGES |= {f"sep_conv_{size}x{size}": 2 for size in (3, 5, 7)} | {"inv_res_3x3": 3, "inv_res_5x5": 3}


class PathLengths(NamedTuple):
    """Length in stages of the shortest, the longest and the mean path through a network."""

    shortest: int
    longest: int
    mean: float


@dataclass(frozen=True)
class Topology:
    """What the connections of a genotype make of a network; None of it where its number of cells is unknown.

    Attributes:
        width: Width of the normal cell in units of c.
        depth: Depth of the normal cell.
        path: Mean path of the normal cell in stages.
        reduce_width: Width of the reduction cell.
        reduce_depth: Depth of the reduction cell.
        reduce_path: Mean path of the reduction cell.
        network_width: Mean width over the network's cells.
        network_depth: Number of connections on the longest path through the network.
        network_path: Mean path through the network in stages.
        shortest_path: Shortest path through the network in stages.
        longest_path: Longest path through the network in stages.
        reads_input_0: Whether the normal cell reads the cell before the last.
        reads_input_1: Whether the normal cell reads the last cell.
        duplicate_edges: Nodes of both cells that read one node more than once.
    """

    width: float
    depth: int
    path: float
    reduce_width: float
    reduce_depth: int
    reduce_path: float
    network_width: float | None
    network_depth: int | None
    network_path: float | None
    shortest_path: int | None
    longest_path: int | None
    reads_input_0: bool
    reads_input_1: bool
    duplicate_edges: int


def operation_stages(op: str) -> int:
    """Stages of convolution and batch norm in an operation."""
    return _STAGES.get(op, 1)


def cell_path(edges: Sequence[Edge], concat: Sequence[int]) -> float:
    r"""Mean path of a cell: expected stages from its output back to the cell that an input comes from.

    .. math:: \ell(0) = \ell(1) = 1, \quad \ell(n) = \mathrm{mean}_{e \to n} (s_e + \ell(\mathrm{source}_e)),
        \quad \ell = \mathrm{mean}_{n \in \mathrm{concat}} \ell(n)

    with s_e the stages of edge e and 1 for the projection of an input.
    """
    return _walk(edges, concat).mean


def network_paths(genotype: Genotype, num_cells: int = 20) -> PathLengths:
    """Shortest, longest and mean path through a network, from the classifier back to the image.

    Exact: L(k), the expected length from the output of cell k, is the mean path of the cell plus p L(k - 2) +
    (1 - p) L(k - 1), where p is the probability that a walk leaves the cell through input 0; before the first
    cell there is the stem.

    Args:
        genotype: The cells.
        num_cells: Number of cells, two of them reduction cells.

    Returns:
        The lengths in stages.
    """
    walks = {reduction: _walk(*genotype.cell(reduction)) for reduction in (False, True)}
    mean, shortest, longest = ([float(STEM_STAGES)] * 2 for _ in range(3))
    reductions = reduction_indices(num_cells)
    for index in range(num_cells):
        walk = walks[index in reductions]
        mean.append(walk.mean + walk.input_0 * mean[-2] + (1 - walk.input_0) * mean[-1])
        shortest.append(min(a + b for a, b in zip(walk.shortest, shortest[-2:], strict=True)))
        longest.append(max(a + b for a, b in zip(walk.longest, longest[-2:], strict=True)))
    return PathLengths(int(shortest[-1]), int(longest[-1]), mean[-1])


def topology(genotype: Genotype, num_cells: int | None = 20) -> Topology:
    """Width, depth and mean path of both cells and of the network, and what is odd in the connections."""
    normal, reduction = genotype.cell(reduction=False), genotype.cell(reduction=True)
    paths = None if num_cells is None else network_paths(genotype, num_cells)
    widths = cell_width(*normal), cell_width(*reduction)
    reads = reads_inputs(*normal)
    return Topology(
        width=widths[0],
        depth=cell_depth(*normal),
        path=cell_path(*normal),
        reduce_width=widths[1],
        reduce_depth=cell_depth(*reduction),
        reduce_path=cell_path(*reduction),
        network_width=None if num_cells is None else _mean_width(*widths, num_cells),
        network_depth=None if num_cells is None else _network_depth(genotype, num_cells),
        network_path=None if paths is None else paths.mean,
        shortest_path=None if paths is None else paths.shortest,
        longest_path=None if paths is None else paths.longest,
        reads_input_0=reads[0],
        reads_input_1=reads[1],
        duplicate_edges=len(duplicate_edges(genotype.normal)) + len(duplicate_edges(genotype.reduce)),
    )


def _mean_width(normal: float, reduction: float, num_cells: int) -> float:
    share = len(set(reduction_indices(num_cells))) / num_cells
    return (1 - share) * normal + share * reduction


def _network_depth(genotype: Genotype, num_cells: int) -> int:
    """Connections on the longest path; edges count whatever their operation, as for a cell's depth."""
    depths = {}
    for reduction in (False, True):
        edges, concat = genotype.cell(reduction)
        of_inputs = []
        for start in (0, 1):
            reached = [-math.inf, -math.inf]
            reached[start] = 0
            for own in edges.by_node:
                reached.append(1 + max((reached[source] for _, source in own), default=-math.inf))
            of_inputs.append(1 + max(reached[node] for node in concat))
        depths[reduction] = of_inputs
    longest: list[float] = [0, 0]
    for index in range(num_cells):
        before = zip(depths[index in reduction_indices(num_cells)], longest[-2:], strict=True)
        longest.append(max(a + b for a, b in before))
    return int(longest[-1])


@dataclass(frozen=True)
class _Walk:
    """Walks from a cell's output to its inputs: mean stages, chance of input 0, fewest and most by input."""

    mean: float
    input_0: float
    shortest: tuple[float, float]
    longest: tuple[float, float]


def _walk(edges: Sequence[Edge], concat: Sequence[int]) -> _Walk:
    start = float(PROJECTION_STAGES)
    nodes: list[_Walk | None] = [
        _Walk(start, 1.0, (start, math.inf), (start, -math.inf)),
        _Walk(start, 0.0, (math.inf, start), (-math.inf, start)),
    ]
    for own in cell_edges(edges).by_node:
        walked = [(operation_stages(op), nodes[source]) for op, source in own if carries(op)]
        nodes.append(_choose([(stages, node) for stages, node in walked if node is not None]))
    walked = [(0, nodes[node]) for node in concat]
    found = _choose([(stages, node) for stages, node in walked if node is not None])
    assert found is not None  # a genotype has a path without `none`
    return found


def _choose(ways: Sequence[tuple[int, _Walk]]) -> _Walk | None:
    """The walk that goes one of several ways, each after a number of stages; None where there is no way."""
    if not ways:
        return None
    return _Walk(
        sum(stages + walk.mean for stages, walk in ways) / len(ways),
        sum(walk.input_0 for _, walk in ways) / len(ways),
        _by_input(min, [(stages, walk.shortest) for stages, walk in ways]),
        _by_input(max, [(stages, walk.longest) for stages, walk in ways]),
    )


def _by_input(
    best: Callable[[Iterable[float]], float], ways: Sequence[tuple[int, tuple[float, float]]]
) -> tuple[float, float]:
    zero, one = (best(stages + ends[end] for stages, ends in ways) for end in (0, 1))
    return zero, one
