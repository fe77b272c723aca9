from __future__ import annotations

import math
import time
from collections import Counter
from itertools import combinations, product

import numpy as np
import pytest

from nas_lightning.cells import (
    CellEdges,
    Edge,
    Genotype,
    cell_depth,
    cell_width,
    dead_nodes,
    duplicate_edges,
    edge_nodes,
    get_genotype,
    reads_inputs,
    topology,
)
from nas_lightning.cells.census import (
    all_wirings,
    census_percentiles,
    choose_wirings,
    list_wirings,
    rank_cell,
    take_census,
    widths_and_depths,
)
from tests.oracles import cells_paths as oracle

FEW_PATHS = (
    "Genotype(normal=[('none', 0), ('sep_conv_3x3', 1), ('none', 2), ('skip_connect', 2)], "
    "normal_concat=[3], "
    "reduce=[('none', 0), ('none', 1), ('none', 2), ('inv_res_3x3', 0)], reduce_concat=[2, 3])"
)


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
    wirings = all_wirings((2,) * 4)
    assert wirings.shape == (14_400, 8)
    assert len({tuple(row) for row in wirings.tolist()}) == 14_400
    widths, depths = widths_and_depths(wirings, (2,) * 4, concat)
    for row, width, depth in zip(wirings.tolist(), widths.tolist(), depths.tolist(), strict=True):
        edges = [Edge("skip_connect", source) for source in row]
        assert (cell_width(edges, concat), cell_depth(edges, concat)) == (width, depth)
    assert dict(take_census(4, concat).counts) == listed(4, concat, distinct=False)
    assert dict(take_census(4, concat, distinct=True).counts) == listed(4, concat, distinct=True)


def test_one_to_three_nodes_equal_the_listing_of_paths() -> None:
    for nodes in (1, 2, 3):
        for size in range(1, nodes + 1):
            for concat in combinations(range(2, nodes + 2), size):
                counts: Counter[tuple[float, int]] = Counter()
                for row in all_wirings((2,) * nodes).tolist():
                    edges = [Edge("skip_connect", source) for source in row]
                    counts[oracle.width(edges, concat), oracle.depth(edges, concat)] += 1
                assert dict(take_census(nodes, concat).counts) == counts


@pytest.mark.parametrize("distinct", [False, True])
@pytest.mark.parametrize("edge_counts", [(1, 0, 2), (3, 1), (2, 3, 0, 1), (0, 2, 3)])
def test_any_number_of_edges_equals_the_listing_of_paths(
    edge_counts: tuple[int, ...], distinct: bool
) -> None:
    concat = tuple(range(2, len(edge_counts) + 2))[-2:]
    choices = [
        list(combinations(range(node), count)) if distinct else list(product(range(node), repeat=count))
        for node, count in enumerate(edge_counts, start=2)
    ]
    counts: Counter[tuple[float, int]] = Counter()
    for sources in product(*choices):
        edges = CellEdges([Edge("skip_connect", source) for source in own] for own in sources)
        depth = oracle.depth(edges, concat)
        counts[oracle.width(edges, concat), max(1, depth)] += 1
    census = take_census(edge_counts, concat, distinct=distinct)
    assert dict(census.counts) == counts
    assert (census.nodes, census.total) == (len(edge_counts), counts.total())


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
        ((2,) * 6, None, "2, 2 edges has 25,401,600 wirings; a census lists at most 2,000,000"),
        (4, [], "`concat`"),
        (4, [2, 2], "distinct"),
        (4, [6], "2 to 5"),
    ],
)
def test_impossible_spaces_are_refused(
    nodes: int | tuple[int, ...], concat: list[int] | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        take_census(nodes, concat)


@pytest.mark.parametrize("reduction", [False, True])
@pytest.mark.parametrize("spec", ["darts_v2", "amoebanet", FEW_PATHS, "fairdarts_c"])
def test_listed_wirings_equal_the_plain_functions(spec: str, reduction: bool) -> None:
    genotype = get_genotype(spec)
    edges, concat = genotype.cell(reduction)
    space = list_wirings(genotype, reduction=reduction, num_cells=5)
    assert len(space.sources) == math.prod(edge_nodes(edges))
    for row in np.random.default_rng(0).choice(len(space.sources), 150):
        sources = space.sources[row].tolist()
        rewired = edges.with_edges(Edge(e.op, s) for e, s in zip(edges, sources, strict=True))
        cells = {"reduce": rewired} if reduction else {"normal": rewired}
        try:
            variant = Genotype.from_mapping(genotype.as_mapping() | cells)
        except ValueError:  # `none` leaves no path
            assert math.isnan(space.path[row])
            continue
        found = topology(variant, 5)
        of_cell = "reduce_" if reduction else ""
        assert (space.width[row], space.depth[row]) == (
            cell_width(rewired, concat),
            cell_depth(rewired, concat),
        )
        assert space.path[row] == pytest.approx(getattr(found, f"{of_cell}path"))
        assert space.network_path[row] == pytest.approx(found.network_path)
        plain = not dead_nodes(rewired, concat) and not duplicate_edges(rewired)
        assert space.tidy[row] == (plain and all(reads_inputs(rewired, concat)))


def test_mid_percentiles_count_half_of_the_equals() -> None:
    genotype = get_genotype("darts_v2")
    space = list_wirings(genotype)
    found = census_percentiles(genotype)
    for name, own in (("width", 3.5), ("depth", 3)):
        values = getattr(space, name)
        assert getattr(found, name) == pytest.approx(np.mean(values < own) + np.mean(values == own) / 2)
    assert 0 < found.network_path < found.width < 1
    assert sum(list_wirings(genotype, distinct=True).tidy) <= 2_880
    assert len(list_wirings(genotype, distinct=True).sources) == 2_880


def test_chosen_wirings_hold_one_quantity_and_vary_another() -> None:
    genotype = get_genotype("darts_v2")
    space = list_wirings(genotype)
    rows = choose_wirings(space, "path", {"width": 2.5}, 6, 0.5)
    assert len(rows) == 6
    assert set(space.width[rows]) == {2.5}
    assert len(set(space.depth[rows])) == 1
    assert space.tidy[rows].all()
    paths = space.network_path[rows]
    assert list(paths) == sorted(paths)
    steps = np.diff(paths)
    assert steps.min() > 0.5 * steps.mean()
    alike = space.tidy & (space.width == 2.5) & (space.depth == space.depth[rows[0]])
    assert (paths[0], paths[-1]) == (space.network_path[alike].min(), space.network_path[alike].max())
    rows = choose_wirings(space, "width", {"path": 30}, 4, 0.5)
    assert np.all(np.abs(space.network_path[rows] - 30) <= 0.5)
    assert len(set(space.width[rows])) == len(rows) > 1
    with pytest.raises(ValueError, match=r"no wiring of this cell has width 9 and depth 3"):
        choose_wirings(space, "path", {"width": 9, "depth": 3}, 4, 0.5)
