from __future__ import annotations

import pytest
from hypothesis import given

from nas_lightning.cells import (
    Edge,
    cell_depth,
    cell_edges,
    cell_width,
    dead_nodes,
    duplicate_edges,
    format_width,
    get_genotype,
    live_nodes,
    node_depths,
)
from tests.cells.data import COUNTED, PAPER
from tests.cells.strategies import cells
from tests.oracles import cells_paths as oracle


def width_and_depth(spec: str) -> list[float]:
    genotype = get_genotype(spec)
    return [
        cell_width(genotype.normal, genotype.normal_concat),
        cell_depth(genotype.normal, genotype.normal_concat),
    ]


@given(cells())
def test_plain_functions_equal_the_listing_of_all_paths(
    cell: tuple[tuple[Edge, ...], tuple[int, ...]],
) -> None:
    edges, concat = cell
    nodes = range(2, cell_edges(edges).node_count + 2)
    assert cell_depth(edges, concat) == oracle.depth(edges, concat)
    assert cell_width(edges, concat) == oracle.width(edges, concat)
    # To the output it is one connection more; no path, as to a node without edges, has depth 0.
    depths = [oracle.depth(edges, (node,)) for node in nodes]
    assert node_depths(edges) == (0, 0, *(max(0, depth - 1) for depth in depths))
    live = {node for node in nodes if oracle.reaches_output(edges, concat, node)}
    assert live_nodes(edges, concat) == live
    assert dead_nodes(edges, concat) == set(nodes) - live


@pytest.mark.parametrize("base", PAPER["original"])
def test_figure_1_and_figure_25(base: str) -> None:
    assert width_and_depth(base) == PAPER["original"][base]
    assert width_and_depth(f"{base}:adapted") == PAPER["adapted"][base]


def test_section_4_s_cells_have_the_width_and_depth_of_figure_2() -> None:
    found = [width_and_depth(f"darts_conn{number}") for number in range(1, 5)]
    assert found == [[2.5, 3], [2.5, 3], [2, 4], [2, 4]]


@pytest.mark.parametrize("name", COUNTED)
def test_every_published_cell(name: str) -> None:
    assert width_and_depth(name) == COUNTED[name]["topology"]


@pytest.mark.parametrize(
    ("base", "number"), [(base, number) for base in PAPER["table2"] for number in range(1, 14)]
)
def test_table_2(base: str, number: int) -> None:
    assert width_and_depth(f"{base}:C{number}") == PAPER["table2"][base][number - 1]


def test_a_dead_end_counts_neither_for_width_nor_for_depth() -> None:
    # Node 4, three connections deep and reading an input, feeds nothing.
    edges = [Edge("skip_connect", source) for source in (0, 1, 2, 0, 3, 1)]
    assert dead_nodes(edges, [2]) == {3, 4}
    assert (cell_width(edges, [2]), cell_depth(edges, [2])) == (1.0, 2)
    assert (cell_width(edges, [4]), cell_depth(edges, [4])) == (2.0, 4)


def test_none_cuts_liveness_but_counts_for_width_and_depth() -> None:
    edges = [Edge("skip_connect", 0), Edge("skip_connect", 1), Edge("none", 2), Edge("skip_connect", 0)]
    assert live_nodes(edges, [3]) == {3}
    assert (cell_width(edges, [3]), cell_depth(edges, [3])) == (1.5, 3)


def test_duplicate_edges_are_those_that_read_one_node_twice() -> None:
    edges = [Edge("skip_connect", source) for source in (1, 1, 0, 1, 2, 2)]
    assert duplicate_edges(edges) == (2, 4)
    assert duplicate_edges(get_genotype("darts_v2").normal) == ()


def test_widths_are_written_as_in_the_paper() -> None:
    assert [format_width(width) for width in (1.5, 2.0, 3.5, 4.0)] == ["1.5c", "2c", "3.5c", "4c"]
