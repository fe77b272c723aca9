"""Width, depth and liveness by listing every path of a cell: slow and obvious."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from nas_lightning.cells import Edge


def paths_to_output(
    edges: Sequence[Edge], concat: Sequence[int], *, through_none: bool
) -> Iterator[tuple[int, ...]]:
    """Every path from a cell input to the output, as the nodes it visits, the output left out."""

    def backwards(path: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        node = path[0]
        if node < 2:
            yield path
            return
        for edge in edges[2 * node - 4 : 2 * node - 2]:
            if through_none or edge.op != "none":
                yield from backwards((edge.source, *path))

    for node in concat:
        yield from backwards((node,))


def depth(edges: Sequence[Edge], concat: Sequence[int]) -> int:
    # As many connections as nodes on the path: the last one leads to the output.
    return max(len(path) for path in paths_to_output(edges, concat, through_none=True))


def width(edges: Sequence[Edge], concat: Sequence[int]) -> float:
    counting = {
        node for path in paths_to_output(edges, concat, through_none=True) for node in path if node >= 2
    }
    total = 0.0
    for node in counting:
        sources = [edge.source for edge in edges[2 * node - 4 : 2 * node - 2]]
        total += sum(source in (0, 1) for source in sources) / len(sources)
    return total


def reaches_output(edges: Sequence[Edge], concat: Sequence[int], node: int) -> bool:
    """Whether a walk forward from a node, along edges other than `none`, ends in a concatenated node."""
    if node in concat:
        return True
    return any(
        edge.source == node and edge.op != "none" and reaches_output(edges, concat, index // 2 + 2)
        for index, edge in enumerate(edges)
    )
