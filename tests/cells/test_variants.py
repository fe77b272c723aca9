from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas_lightning.cells import (
    Genotype,
    cell_depth,
    cell_width,
    genotype_slug,
    get_genotype,
    random_connections,
    random_operations,
    rewired,
    table2_variant,
    widest_shallowest,
)
from nas_lightning.cells.spec import origin
from nas_lightning.cells.table2 import RELEASED_SEEDS, TABLE2, is_stand_in
from nas_lightning.cells.variants import MAX_SEED, adapted, table3_spec
from tests.cells.data import PAPER

PAPER_NAMES = {"darts_v2": "darts", "enas": "enas", "amoebanet": "amoebanet", "nasnet": "nasnet"}


def sources(genotype: Genotype) -> tuple[list[int], list[int]]:
    return [edge.source for edge in genotype.normal], [edge.source for edge in genotype.reduce]


def operations(genotype: Genotype) -> list[str]:
    return [edge.op for edge in genotype.normal + genotype.reduce]


def drawn_sources(edges: int, seed: int) -> tuple[list[int], list[int]]:
    """The documented rule, restated: both cells of equal size, draws alternating between them."""
    generator = np.random.RandomState(seed)
    draws = [int(generator.randint(2 + position // 4)) for position in range(2 * edges)]
    return draws[0::2], draws[1::2]


@given(st.sampled_from(["darts", "amoebanet", "nasnet", "pdarts"]), st.integers(0, MAX_SEED))
def test_random_connections_follow_the_rule_and_keep_the_rest(base: str, seed: int) -> None:
    original = get_genotype(base)
    variant = random_connections(original, seed)
    assert sources(variant) == drawn_sources(len(original.normal), seed)
    assert operations(variant) == operations(original)
    assert (variant.normal_concat, variant.reduce_concat) == (original.normal_concat, original.reduce_concat)
    assert random_connections(original, seed) == variant


def test_random_connections_of_seed_seven_never_change() -> None:
    assert sources(get_genotype("darts:connections=7")) == (
        [1, 1, 0, 2, 1, 2, 0, 0],
        [0, 0, 1, 0, 2, 2, 4, 4],
    )


def test_random_connections_are_uniform() -> None:
    genotype = get_genotype("darts")
    counts = np.zeros((2, 8, 5))
    for seed in range(2000):
        for cell, drawn in enumerate(sources(random_connections(genotype, seed))):
            counts[cell, np.arange(8), drawn] += 1
    for edge in range(8):
        expected = 2000 / (edge // 2 + 2)
        # Five standard deviations of a binomial count.
        assert np.all(np.abs(counts[:, edge, : edge // 2 + 2] - expected) < 5 * np.sqrt(expected))
        assert np.all(counts[:, edge, edge // 2 + 2 :] == 0)


def test_cells_of_different_size_are_rewired_to_the_end() -> None:
    short, long = [("skip_connect", 0), ("skip_connect", 1)], [("skip_connect", 0)] * 6
    variant = random_connections(Genotype(short, [2], long, [4]), 3)
    generator = np.random.RandomState(3)
    expected: tuple[list[int], list[int]] = ([], [])
    for node in (2, 2, 3, 3, 4, 4):
        if node == 2:
            expected[0].append(int(generator.randint(node)))
        expected[1].append(int(generator.randint(node)))
    assert sources(variant) == expected


def test_random_operations_keep_connections_and_draw_from_the_seven() -> None:
    original = get_genotype("amoebanet")
    drawn = [operations(random_operations(original, seed)) for seed in range(200)]
    assert {op for ops in drawn for op in ops} == {
        "max_pool_3x3",
        "avg_pool_3x3",
        "skip_connect",
        "sep_conv_3x3",
        "sep_conv_5x5",
        "dil_conv_3x3",
        "dil_conv_5x5",
    }
    assert sources(random_operations(original, 5)) == sources(original)
    assert operations(random_operations(original, 5)) == drawn[5]


@pytest.mark.parametrize("base", TABLE2)
def test_the_seeds_of_table_2_are_those_of_the_rule(base: str) -> None:
    """C_i takes the first of 1..10, 0, 11.. with its width and depth that no earlier C has taken."""
    genotype = get_genotype(base)
    seeds: dict[tuple[float, int], list[int]] = {}
    for seed in [*RELEASED_SEEDS, 0, *range(11, max(entry.seed for entry in TABLE2[base]) + 1)]:
        normal = random_connections(genotype, seed).normal
        pair = cell_width(normal, genotype.normal_concat), cell_depth(normal, genotype.normal_concat)
        seeds.setdefault(pair, []).append(seed)
    chosen = [seeds[width, depth].pop(0) for width, depth in PAPER["table2"][PAPER_NAMES[base]]]
    assert [entry.seed for entry in TABLE2[base]] == chosen
    assert [[entry.width, entry.depth] for entry in TABLE2[base]] == PAPER["table2"][PAPER_NAMES[base]]


def test_every_variant_but_those_of_the_release_is_a_stand_in() -> None:
    marked = {base: [e.seed for e in rows if e.stand_in] for base, rows in TABLE2.items()}
    assert marked == {
        "darts_v2": [14, 34, 40, 19, 20],
        "enas": [23, 125, 188, 20, 0, 22],
        "amoebanet": [23, 125, 188, 57],
        "nasnet": [23, 125, 188, 20, 0, 22],
    }
    for base, rows in TABLE2.items():
        assert [is_stand_in(base, f"C{i}") for i in range(1, 14)] == [row.stand_in for row in rows]
    others = (("darts_v2", None), ("darts_v2", "connections=14"), ("darts_v2", "C14"), ("gdas", "C1"))
    assert not any(is_stand_in(base, variant) for base, variant in others)


@pytest.mark.parametrize("base", ["darts_v2", "enas", "amoebanet", "nasnet", "snas_mild"])
@pytest.mark.parametrize("seed", RELEASED_SEEDS)
def test_random_connections_are_those_of_the_release(base: str, seed: int) -> None:
    """Its rule, restated: one list of nodes that both cells draw from, longer by one after each pair."""
    genotype = get_genotype(base)
    generator, nodes = np.random.RandomState(seed), [0, 1]
    drawn: tuple[list[int], list[int]] = ([], [])
    for index in range(len(genotype.normal)):
        for cell in drawn:
            cell.append(int(generator.choice(nodes, 1)[0]))
        if index % 2:
            nodes.append(len(nodes))
    assert sources(random_connections(genotype, seed)) == drawn


def test_table_3_has_the_authors_c1_to_c5_of_darts() -> None:
    assert [table3_spec("darts_v2", number) for number in (0, 1, 5, 6)] == [
        "darts_v2",
        "darts_ops1",
        "darts_ops5",
        "darts_v2:operations=6",
    ]
    assert table3_spec("enas", 1) == "enas:operations=1"


@pytest.mark.parametrize("base", ["nasnet", "amoebanet", "enas", "snas_mild"])
def test_adapted_cells_are_the_authors_where_they_published_them(base: str) -> None:
    authors, ours = get_genotype(f"{base}:adapted"), widest_shallowest(get_genotype(base))
    assert adapted(base) == authors
    assert operations(authors) == operations(ours)
    assert (authors == ours) == (base == "amoebanet")
    if base != "enas":  # node 3 of the normal ENAS cell reads input 0 twice
        assert all(set(drawn[i : i + 2]) == {0, 1} for drawn in sources(authors) for i in (0, 2, 4, 6))


def test_the_adapted_darts_cell_is_ours() -> None:
    assert adapted("darts_v2") is None
    assert get_genotype("darts:adapted") == widest_shallowest(get_genotype("darts"))
    assert origin("darts_v2", "adapted") == "ours; the authors' are not public"
    assert [origin("enas", "adapted"), origin("gdas", "adapted")] == ["the authors'", "ours"]
    assert origin("enas", "C1") == "stand-in, seed 23"
    assert [origin("enas", "C3"), origin("enas", None)] == ["the authors' seed 2", ""]


def test_table_2_variants_are_13_different_wirings_with_the_bases_operations() -> None:
    for base in TABLE2:
        variants = [table2_variant(base, number) for number in range(1, 14)]
        assert len({variant.normal for variant in variants}) == 13
        assert {tuple(operations(variant)) for variant in variants} == {tuple(operations(get_genotype(base)))}


@pytest.mark.parametrize(
    ("base", "number", "message"), [("darts_v1", 1, "darts_v1"), ("enas", 14, "C1 to C13")]
)
def test_other_variants_of_table_2_are_refused(base: str, number: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        table2_variant(base, number)


@pytest.mark.parametrize("base", ["nasnet", "amoebanet", "enas", "darts", "snas", "gdas", "relativenas"])
def test_adapted_cells_read_both_inputs_at_every_node(base: str) -> None:
    original = get_genotype(base)
    adapted = widest_shallowest(original)
    for drawn in sources(adapted):
        assert all(set(drawn[index : index + 2]) == {0, 1} for index in range(0, len(drawn), 2))
    assert operations(adapted) == operations(original)
    assert (adapted.normal_concat, adapted.reduce_concat) == (original.normal_concat, original.reduce_concat)
    assert cell_width(adapted.normal, adapted.normal_concat) == len(original.normal_concat)
    assert cell_depth(adapted.normal, adapted.normal_concat) == 2
    assert widest_shallowest(adapted) == adapted


def test_the_snas_normal_cell_is_adapted_already() -> None:
    snas = get_genotype("snas")
    assert widest_shallowest(snas).normal == snas.normal


@pytest.mark.parametrize("seed", [-1, 2**32, True])
def test_seeds_out_of_range_are_refused(seed: int) -> None:
    for build in (random_connections, random_operations):
        with pytest.raises(ValueError, match="must be an integer from 0 to 4294967295"):
            build(get_genotype("darts"), seed)


def test_a_wiring_gives_the_sources_of_every_edge() -> None:
    base = get_genotype("darts_v2")
    variant = get_genotype("darts:wiring=01011002")
    assert [edge.source for edge in variant.normal] == [0, 1, 0, 1, 1, 0, 0, 2]
    assert [edge.op for edge in variant.normal] == [edge.op for edge in base.normal]
    assert variant.reduce == base.reduce
    both = get_genotype("darts_v2:wiring=01011002/00112233")
    assert [edge.source for edge in both.reduce] == [0, 0, 1, 1, 2, 2, 3, 3]
    assert genotype_slug("darts_v2:wiring=01011002/00112233") == "darts_v2-wiring01011002_00112233"
    with pytest.raises(ValueError, match=r"must have a digit for each of the reduction cell's 8 edges"):
        get_genotype("darts_v2:wiring=01011002/0")


FEW_AND_MANY = Genotype(
    [[("sep_conv_3x3", 1)], [], [("conv_1x1", 3), ("skip_connect", 2), ("max_pool_5x5", 0)]],
    [2, 4],
    [("skip_connect", 0), ("sep_conv_3x3", 1), ("skip_connect", 2), ("none", 0)],
    [2, 3],
)


def test_variants_keep_the_nodes_of_edges_in_any_number() -> None:
    drawn = [random_connections(FEW_AND_MANY, seed) for seed in range(200)]
    read = np.array([[edge.source for edge in variant.normal] for variant in drawn])
    assert [sorted(set(column)) for column in read.T.tolist()] == [[0, 1], *[[0, 1, 2, 3]] * 3]
    generator = np.random.RandomState(5)  # edge by edge, one draw of each cell
    own = [[int(generator.choice(node)) for node in pair] for pair in ((2, 2), (4, 2), (4, 3), (4, 3))]
    assert sources(random_connections(FEW_AND_MANY, 5)) == tuple(map(list, zip(*own, strict=True)))
    adapted_cells = widest_shallowest(FEW_AND_MANY)
    assert sources(adapted_cells) == ([1, 0, 1, 0], [0, 1, 1, 0])
    assert widest_shallowest(adapted_cells) == adapted_cells
    assert (cell_width(*adapted_cells.cell(False)), cell_depth(*adapted_cells.cell(False))) == (2, 2)
    changed = rewired(FEW_AND_MANY, "0123", "0120")
    assert sources(changed) == ([0, 1, 2, 3], [0, 1, 2, 0])
    for variant in (*drawn, adapted_cells, changed, random_operations(FEW_AND_MANY, 3)):
        assert variant.normal.counts == FEW_AND_MANY.normal.counts == (1, 0, 3)
        assert variant.reduce.counts == (2, 2)
    with pytest.raises(ValueError, match="each of the normal cell's 4 edges"):
        rewired(FEW_AND_MANY, "012")
