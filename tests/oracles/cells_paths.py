"""Width, depth and liveness by listing every path of a cell: slow and obvious."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction

from nas_lightning.cells import CellEdges, Edge


def edges_of(edges: Sequence[Edge], node: int) -> list[Edge]:
    """The edges of an intermediate node; a plain sequence has two a node."""
    nodes = edges.nodes if isinstance(edges, CellEdges) else [index // 2 + 2 for index in range(len(edges))]
    return [edge for edge, owner in zip(edges, nodes, strict=True) if owner == node]


def paths_to_output(
    edges: Sequence[Edge], concat: Sequence[int], *, through_none: bool
) -> Iterator[tuple[int, ...]]:
    """Every path from a cell input to the output, as the nodes it visits, the output left out."""

    def backwards(path: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        node = path[0]
        if node < 2:
            yield path
            return
        for edge in edges_of(edges, node):
            if through_none or edge.op not in ("none", "noise"):
                yield from backwards((edge.source, *path))

    for node in concat:
        yield from backwards((node,))


def depth(edges: Sequence[Edge], concat: Sequence[int]) -> int:
    # As many connections as nodes on the path: the last one leads to the output.
    return max((len(path) for path in paths_to_output(edges, concat, through_none=True)), default=0)


def width(edges: Sequence[Edge], concat: Sequence[int]) -> float:
    counting = {
        node for path in paths_to_output(edges, concat, through_none=True) for node in path if node >= 2
    }
    total = Fraction()
    for node in counting:
        sources = [edge.source for edge in edges_of(edges, node)]
        if sources:
            total += Fraction(sum(source in (0, 1) for source in sources), len(sources))
    return float(total)


def reaches_output(edges: Sequence[Edge], concat: Sequence[int], node: int) -> bool:
    """Whether a walk forward from a node ends in a concatenated node, along edges that read their source."""
    if node in concat:
        return True
    return any(
        edge.source == node and edge.op not in ("none", "noise") and reaches_output(edges, concat, reader)
        for reader in range(node + 1, node + len(edges) + 10)
        for edge in edges_of(edges, reader)
    )
