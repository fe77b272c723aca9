"""Width, depth and liveness of a cell, in plain Python.

Edges come in pairs: intermediate node ``n`` (nodes 0 and 1 are the cell inputs, intermediate nodes start at 2) owns
``edges[2 * (n - 2)]`` and ``edges[2 * (n - 2) + 1]``. Sources precede their node, so edges are in topological order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
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
    live = set(concat)
    for index in range(len(edges) - 1, -1, -1):
        op, source = edges[index]
        if op != "none" and source >= 2 and index // 2 + 2 in live:
            live.add(source)
    return frozenset(live)
