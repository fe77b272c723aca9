"""Random genotypes for property tests."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from nas_lightning.cells import Edge
from nas_lightning.cells.operations import BUILT_IN_OPERATIONS


@st.composite
def cells(draw: st.DrawFn, max_nodes: int = 6) -> tuple[tuple[Edge, ...], tuple[int, ...]]:
    """A valid cell: any operations, `none` among them, any sources, any concat list in any order."""
    nodes = draw(st.integers(1, max_nodes))
    edges = [
        Edge(draw(st.sampled_from(BUILT_IN_OPERATIONS)), draw(st.integers(0, index // 2 + 1)))
        for index in range(2 * nodes)
    ]
    order = draw(st.permutations(range(2, nodes + 2)))
    concat = tuple(order[: draw(st.integers(1, nodes))])
    # One path without `none` makes the cell valid whatever the others are.
    edges[2 * concat[0] - 4] = Edge("skip_connect", draw(st.integers(0, 1)))
    return tuple(edges), concat


@st.composite
def genotype_arguments(draw: st.DrawFn) -> tuple[Any, Any, Any, Any]:
    """Arguments of a valid genotype; its two cells may differ in size."""
    return *draw(cells()), *draw(cells())
