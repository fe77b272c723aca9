"""Width, depth and liveness of a cell, in plain Python.

Edges come in pairs: intermediate node ``n`` (nodes 0 and 1 are the cell inputs, intermediate nodes start at
2) owns ``edges[2 * (n - 2)]`` and ``edges[2 * (n - 2) + 1]``. Sources precede their node, so edges are in
topological order.

Source of width and depth: Shu, Wang and Cai, Understanding Architectures Learnt by Cell-based Neural
Architecture Search, ICLR 2020, section 3.
"""

from __future__ import annotations

from collections.abc import Sequence

from nas_lightning.cells.genotype import Edge


def live_nodes(edges: Sequence[Edge], concat: Sequence[int]) -> frozenset[int]:
    """Intermediate nodes whose value reaches the cell's output.

    A node is live when it is concatenated or feeds a live node through an operation other than ``none``.

    Args:
        edges: Two edges per intermediate node.
        concat: Nodes that the cell's output concatenates.

    Returns:
        The live intermediate nodes.
    """
    return _feeding(edges, concat, through_none=False)


def dead_nodes(edges: Sequence[Edge], concat: Sequence[int]) -> frozenset[int]:
    """Intermediate nodes whose value is computed for nothing: those that are not live.

    Args:
        edges: Two edges per intermediate node.
        concat: Nodes that the cell's output concatenates.

    Returns:
        The dead intermediate nodes.
    """
    return frozenset(range(2, len(edges) // 2 + 2)) - live_nodes(edges, concat)


def duplicate_edges(edges: Sequence[Edge]) -> tuple[int, ...]:
    """Intermediate nodes whose two edges read the same node, as independent random draws allow.

    Args:
        edges: Two edges per intermediate node.

    Returns:
        The nodes, ascending.
    """
    return tuple(
        index + 2
        for index, (first, second) in enumerate(zip(edges[::2], edges[1::2], strict=True))
        if first.source == second.source
    )


def cell_width(edges: Sequence[Edge], concat: Sequence[int]) -> float:
    """Width of a cell in units of c, the width of one intermediate node.

    The sum, over the intermediate nodes that lead to the output, of the fraction of the node's edges that
    read a cell input. Edges count whatever their operation, ``none`` included; nodes that do not lead to the
    output count nothing.

    Args:
        edges: Two edges per intermediate node.
        concat: Nodes that the cell's output concatenates.

    Returns:
        The width, a multiple of one half.
    """
    counting = _feeding(edges, concat, through_none=True)
    return sum(edge.source < 2 for index, edge in enumerate(edges) if index // 2 + 2 in counting) / 2


def cell_depth(edges: Sequence[Edge], concat: Sequence[int]) -> int:
    """Depth of a cell: the number of connections on the longest path from a cell input to the output.

    The connection from a concatenated node to the output counts one; edges count whatever their operation.

    Args:
        edges: Two edges per intermediate node.
        concat: Nodes that the cell's output concatenates.

    Returns:
        The depth, at least 2.
    """
    depths = node_depths(edges)
    return 1 + max(depths[node] for node in concat)


def node_depths(edges: Sequence[Edge]) -> tuple[int, ...]:
    """Depth of every node: the number of edges on the longest path from a cell input to it.

    Args:
        edges: Two edges per intermediate node.

    Returns:
        One depth per node, the two inputs (0) first.
    """
    depths = [0, 0]
    for first, second in zip(edges[::2], edges[1::2], strict=True):
        depths.append(1 + max(depths[first.source], depths[second.source]))
    return tuple(depths)


def format_width(width: float) -> str:
    """A width as the paper prints it.

    Args:
        width: Width in units of c, for example 3.5 or 4.0.

    Returns:
        For example ``"3.5c"`` or ``"4c"``.
    """
    return f"{width:g}c"


def _feeding(edges: Sequence[Edge], concat: Sequence[int], *, through_none: bool) -> frozenset[int]:
    feeding = set(concat)
    for index in range(len(edges) - 1, -1, -1):
        op, source = edges[index]
        if source >= 2 and index // 2 + 2 in feeding and (through_none or op != "none"):
            feeding.add(source)
    return frozenset(feeding)
