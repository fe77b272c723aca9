"""Random genotypes for property tests."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from nas_lightning.cells import CellEdges, Edge
from nas_lightning.cells.operations import BUILT_IN_OPERATIONS


@st.composite
def cells(
    draw: st.DrawFn, max_nodes: int = 6, max_edges: int = 5
) -> tuple[tuple[Edge, ...], tuple[int, ...]]:
    """A valid cell: any operations, `none` among them, any sources, any concat list in any order.

    Its nodes have any number of edges each, or all two: then the edges may be a plain tuple.
    """
    nodes = draw(st.integers(1, max_nodes))
    paired = draw(st.booleans())
    by_node = [
        [
            Edge(draw(st.sampled_from(BUILT_IN_OPERATIONS)), draw(st.integers(0, node - 1)))
            for _ in range(2 if paired else draw(st.integers(0, max_edges)))
        ]
        for node in range(2, nodes + 2)
    ]
    order = draw(st.permutations(range(2, nodes + 2)))
    concat = tuple(order[: draw(st.integers(1, nodes))])
    # One path without `none` makes the cell valid whatever the others are.
    by_node[concat[0] - 2][:1] = [Edge("skip_connect", draw(st.integers(0, 1)))]
    edges = CellEdges(by_node)
    return tuple(edges) if paired and draw(st.booleans()) else edges, concat


@st.composite
def genotype_arguments(draw: st.DrawFn) -> tuple[Any, Any, Any, Any]:
    """Arguments of a valid genotype; its two cells may differ in size."""
    return *draw(cells()), *draw(cells())
