"""Width, depth and liveness of a cell, in plain Python.

Every function takes ``edges``, a cell's ``CellEdges`` or a plain sequence with two edges a node, and most
take ``concat``, the nodes that the cell's output concatenates. Nodes 0 and 1 are the cell inputs,
intermediate nodes count from 2. Sources precede their node, so edges are in topological order.

Source of width and depth: Shu, Wang and Cai, Understanding Architectures Learnt by Cell-based Neural
Architecture Search, ICLR 2020, section 3.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from nas_lightning.cells.genotype import Edge, cell_edges, edge_nodes
from nas_lightning.cells.operations import carries


def live_nodes(edges: Sequence[Edge], concat: Sequence[int]) -> frozenset[int]:
    """Intermediate nodes whose value reaches the cell's output.

    A node is live when it is concatenated or feeds a live node through an operation that reads it: any but
    ``none`` and ``noise``.
    """
    return _feeding(edges, concat, through_none=False)


def dead_nodes(edges: Sequence[Edge], concat: Sequence[int]) -> frozenset[int]:
    """Intermediate nodes whose value does not reach the cell's output."""
    return frozenset(range(2, cell_edges(edges).node_count + 2)) - live_nodes(edges, concat)


def reads_inputs(edges: Sequence[Edge], concat: Sequence[int]) -> tuple[bool, bool]:
    """Whether an edge that reaches the output reads input 0, and whether one reads input 1.

    An edge counts unless its operation is ``none`` or ``noise``. A network of cells that never read input 0
    is a chain.
    """
    live = live_nodes(edges, concat)
    nodes = edge_nodes(edges)
    read = {edge.source for edge, node in zip(edges, nodes, strict=True) if carries(edge.op) and node in live}
    return 0 in read, 1 in read


def duplicate_edges(edges: Sequence[Edge]) -> tuple[int, ...]:
    """Intermediate nodes that read one node more than once, ascending; random wirings may have some."""
    return tuple(
        node
        for node, own in enumerate(cell_edges(edges).by_node, start=2)
        if len({edge.source for edge in own}) < len(own)
    )


def cell_width(edges: Sequence[Edge], concat: Sequence[int]) -> float:
    """Width of a cell in units of c, the width of one intermediate node.

    The sum, over the intermediate nodes that lead to the output, of the fraction of the node's edges that
    read a cell input: a multiple of one half where every node has two edges. Edges count whatever their
    operation, ``none`` included; nodes without edges and other nodes count nothing.
    """
    counting = _feeding(edges, concat, through_none=True)
    by_node = cell_edges(edges).by_node
    unit = width_unit(map(len, by_node))
    parts = (
        sum(edge.source < 2 for edge in own) * (unit // len(own))
        for node, own in enumerate(by_node, start=2)
        if own and node in counting
    )
    return sum(parts) / unit


def width_unit(counts: Iterable[int]) -> int:
    """The number whose fractions all widths are, from the number of edges of every node: 2 for two a node."""
    return math.lcm(*(count for count in counts if count))


def cell_depth(edges: Sequence[Edge], concat: Sequence[int]) -> int:
    """Depth of a cell: the number of connections on the longest path from a cell input to the output.

    The connection from a concatenated node to the output counts one, so the depth is at least 2; edges count
    whatever their operation.
    """
    depths = node_depths(edges)
    return 1 + max(depths[node] for node in concat)


def node_depths(edges: Sequence[Edge]) -> tuple[int, ...]:
    """Number of edges on the longest path from a cell input to every node.

    It is 0 for the two inputs and for nodes that no path reaches, as those without edges.
    """
    depths = [0, 0]
    for own in cell_edges(edges).by_node:
        reached = [depths[source] for _, source in own if source < 2 or depths[source]]
        depths.append(1 + max(reached, default=-1))
    return tuple(depths)


def format_width(width: float) -> str:
    """A width in units of c as the paper prints it: ``"3.5c"``, ``"4c"``; thirds as ``"2.33c"``."""
    return f"{round(width, 2):g}c"


def _feeding(edges: Sequence[Edge], concat: Sequence[int], *, through_none: bool) -> frozenset[int]:
    feeding = set(concat)
    for (op, source), node in zip(reversed(edges), reversed(edge_nodes(edges)), strict=True):
        if source >= 2 and node in feeding and (through_none or carries(op)):
            feeding.add(source)
    return frozenset(feeding)
