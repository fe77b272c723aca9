from __future__ import annotations

import time
from collections import Counter
from itertools import combinations, product

import pytest

from nas_lightning.cells import Edge, cell_depth, cell_width, get_genotype
from nas_lightning.cells.census import all_wirings, rank_cell, take_census, widths_and_depths
from tests.oracles import cells_paths as oracle


def listed(nodes: int, concat: tuple[int, ...], *, distinct: bool) -> Counter[tuple[float, int]]:
    """The census by the plain functions, wiring by wiring."""
    choices = [
        list(combinations(range(node), 2)) if distinct else list(product(range(node), repeat=2))
        for node in range(2, nodes + 2)
    ]
    counts: Counter[tuple[float, int]] = Counter()
    for pairs in product(*choices):
        edges = [Edge("skip_connect", source) for pair in pairs for source in pair]
        counts[cell_width(edges, concat), cell_depth(edges, concat)] += 1
    return counts


@pytest.mark.parametrize("concat", [(2, 3, 4, 5), (4, 5), (5,), (3,)])
def test_four_nodes_equal_the_plain_functions_on_all_14400(concat: tuple[int, ...]) -> None:
    wirings = all_wirings(4)
    assert wirings.shape == (14_400, 8)
    assert len({tuple(row) for row in wirings.tolist()}) == 14_400
    double_widths, depths = widths_and_depths(wirings, concat)
    for row, double_width, depth in zip(
        wirings.tolist(), double_widths.tolist(), depths.tolist(), strict=True
    ):
        edges = [Edge("skip_connect", source) for source in row]
        assert (cell_width(edges, concat), cell_depth(edges, concat)) == (double_width / 2, depth)
    assert dict(take_census(4, concat).counts) == listed(4, concat, distinct=False)
    assert dict(take_census(4, concat, distinct=True).counts) == listed(4, concat, distinct=True)


def test_one_to_three_nodes_equal_the_listing_of_paths() -> None:
    for nodes in (1, 2, 3):
        for size in range(1, nodes + 1):
            for concat in combinations(range(2, nodes + 2), size):
                counts: Counter[tuple[float, int]] = Counter()
                for row in all_wirings(nodes).tolist():
                    edges = [Edge("skip_connect", source) for source in row]
                    counts[oracle.width(edges, concat), oracle.depth(edges, concat)] += 1
                assert dict(take_census(nodes, concat).counts) == counts


def test_five_nodes_in_seconds() -> None:
    start = time.perf_counter()
    census = take_census(5, [6, 4, 5])
    assert time.perf_counter() - start < 5
    assert census.total == 518_400
    assert census.concat == (4, 5, 6)
    assert take_census(5, distinct=True).total == 2_700
    assert take_census(4, distinct=True).total == 180
    # Widest and shallowest of all wirings: every edge reads an input.
    assert take_census(5).counts[5.0, 2] == 2**10
    assert max(take_census(5).counts) == (5.0, 2)


def test_ranks_of_the_papers_cells() -> None:
    darts = get_genotype("darts")
    rank = rank_cell(darts.normal, darts.normal_concat)
    assert (rank.width, rank.depth, rank.total) == (3.5, 3, 14_400)
    assert (rank.at_least_as_wide, rank.at_least_as_shallow, rank.both) == (1_792, 6_852, 1_792)
    wirings = listed(4, darts.normal_concat, distinct=True)
    distinct = rank_cell(darts.normal, darts.normal_concat, distinct=True)
    assert distinct.at_least_as_wide == sum(count for (width, _), count in wirings.items() if width >= 3.5)
    assert distinct.at_least_as_shallow == sum(count for (_, depth), count in wirings.items() if depth <= 3)
    snas = get_genotype("snas")
    assert rank_cell(snas.normal, snas.normal_concat).both == 2**8


@pytest.mark.parametrize(
    ("nodes", "concat", "message"),
    [
        (0, None, "`nodes` .=0."),
        (6, None, "1 to 5"),
        (4, [], "`concat`"),
        (4, [2, 2], "distinct"),
        (4, [6], "2 to 5"),
    ],
)
def test_impossible_spaces_are_refused(nodes: int, concat: list[int] | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        take_census(nodes, concat)
