"""Width, depth and liveness of a cell, in plain Python.

Every function takes ``edges``, two per intermediate node, and most take ``concat``, the nodes that the cell's
output concatenates. Nodes 0 and 1 are the cell inputs; intermediate node ``n``, from 2, owns
``edges[2 * (n - 2)]`` and ``edges[2 * (n - 2) + 1]``. Sources precede their node, so edges are in topological
order.

Source of width and depth: Shu, Wang and Cai, Understanding Architectures Learnt by Cell-based Neural
Architecture Search, ICLR 2020, section 3.
"""

from __future__ import annotations

from collections.abc import Sequence

from nas_lightning.cells.genotype import Edge


def live_nodes(edges: Sequence[Edge], concat: Sequence[int]) -> frozenset[int]:
    """Intermediate nodes whose value reaches the cell's output.

    A node is live when it is concatenated or feeds a live node through an operation other than ``none``.
    """
    return _feeding(edges, concat, through_none=False)


def dead_nodes(edges: Sequence[Edge], concat: Sequence[int]) -> frozenset[int]:
    """Intermediate nodes whose value does not reach the cell's output."""
    return frozenset(range(2, len(edges) // 2 + 2)) - live_nodes(edges, concat)


def reads_inputs(edges: Sequence[Edge], concat: Sequence[int]) -> tuple[bool, bool]:
    """Whether an edge that reaches the output reads input 0, and whether one reads input 1.

    An edge counts unless its operation is ``none``. A network of cells that never read input 0 is a chain.
    """
    live = live_nodes(edges, concat)
    read = {edge.source for i, edge in enumerate(edges) if edge.op != "none" and i // 2 + 2 in live}
    return 0 in read, 1 in read


def duplicate_edges(edges: Sequence[Edge]) -> tuple[int, ...]:
    """Intermediate nodes whose two edges read the same node, ascending; random wirings may have some."""
    pairs = zip(edges[::2], edges[1::2], strict=True)
    return tuple(node for node, (one, other) in enumerate(pairs, start=2) if one.source == other.source)


def cell_width(edges: Sequence[Edge], concat: Sequence[int]) -> float:
    """Width of a cell in units of c, the width of one intermediate node: a multiple of one half.

    The sum, over the intermediate nodes that lead to the output, of the fraction of the node's edges that
    read a cell input. Edges count whatever their operation, ``none`` included; other nodes count nothing.
    """
    counting = _feeding(edges, concat, through_none=True)
    return sum(edge.source < 2 for index, edge in enumerate(edges) if index // 2 + 2 in counting) / 2


def cell_depth(edges: Sequence[Edge], concat: Sequence[int]) -> int:
    """Depth of a cell: the number of connections on the longest path from a cell input to the output.

    The connection from a concatenated node to the output counts one, so the depth is at least 2; edges count
    whatever their operation.
    """
    depths = node_depths(edges)
    return 1 + max(depths[node] for node in concat)


def node_depths(edges: Sequence[Edge]) -> tuple[int, ...]:
    """Number of edges on the longest path from a cell input to every node; 0 for the two inputs."""
    depths = [0, 0]
    for first, second in zip(edges[::2], edges[1::2], strict=True):
        depths.append(1 + max(depths[first.source], depths[second.source]))
    return tuple(depths)


def format_width(width: float) -> str:
    """A width in units of c as the paper prints it: ``"3.5c"``, ``"4c"``."""
    return f"{width:g}c"


def _feeding(edges: Sequence[Edge], concat: Sequence[int], *, through_none: bool) -> frozenset[int]:
    feeding = set(concat)
    for index in range(len(edges) - 1, -1, -1):
        op, source = edges[index]
        if source >= 2 and index // 2 + 2 in feeding and (through_none or op != "none"):
            feeding.add(source)
    return frozenset(feeding)
