from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
from hypothesis import given

from nas_lightning.cells import (
    CellEdges,
    Edge,
    Genotype,
    declare_operation,
    edge_nodes,
    get_genotype,
    operation_names,
)
from nas_lightning.cells.operations import BUILT_IN_OPERATIONS
from tests.cells.strategies import genotype_arguments

CELL = [("sep_conv_3x3", 0), ("skip_connect", 1), ("max_pool_3x3", 2), ("none", 0)]


def make(**changes: Any) -> Genotype:
    arguments: dict[str, Any] = {
        "normal": CELL,
        "normal_concat": [2, 3],
        "reduce": CELL,
        "reduce_concat": [3],
    }
    return Genotype(**(arguments | changes))


def test_pairs_and_lists_become_edges_and_tuples() -> None:
    genotype = make(normal=[list(pair) for pair in CELL])
    assert genotype == make()
    assert genotype.normal[0] == Edge("sep_conv_3x3", 0)
    assert all(type(edge) is Edge for edge in genotype.normal + genotype.reduce)
    assert (genotype.normal_concat, genotype.reduce_concat) == ((2, 3), (3,))


def test_genotypes_are_frozen_hashable_and_survive_pickling() -> None:
    assert len({make(), make(), make(reduce_concat=[2])}) == 2
    assert pickle.loads(pickle.dumps(make())) == make()
    with pytest.raises(AttributeError):
        make().normal_concat = ()  # type: ignore[misc]


MANY = [[("sep_conv_3x3", 0)], [], [("skip_connect", 3), ("noise", 1), ("conv_3x3", 2)]]


def test_nodes_may_have_any_number_of_edges() -> None:
    genotype = make(normal=MANY, normal_concat=[2, 4])
    edges = genotype.normal
    assert edges == CellEdges([[Edge(*pair) for pair in node] for node in MANY])
    assert (edges.nodes, edges.counts, edges.node_count) == ((2, 4, 4, 4), (1, 0, 3), 3)
    assert edge_nodes(edges) == edges.nodes
    assert list(edges[1:3]) == [Edge("skip_connect", 3), Edge("noise", 1)]
    assert genotype.as_mapping()["normal"] == [[list(pair) for pair in node] for node in MANY]
    assert f"normal={MANY!r}, " in repr(genotype)
    assert genotype == get_genotype(repr(genotype)) == get_genotype(genotype.as_mapping())
    assert hash(genotype) == hash(get_genotype(repr(genotype)))
    assert pickle.loads(pickle.dumps(genotype)) == genotype
    assert copy.deepcopy(edges) == edges


def test_edges_of_other_nodes_are_others_and_pairs_are_a_plain_tuple() -> None:
    flat = [Edge(op, source) for op, source in CELL]
    pairs, ones = CellEdges([flat[:2], flat[2:]]), CellEdges([[edge] for edge in flat])
    more = CellEdges([flat[:2], flat[2:], []])
    assert pairs == tuple(flat) == pairs
    assert hash(pairs) == hash(tuple(flat))
    assert len({pairs, ones, more, tuple(flat)}) == 3
    assert ones != tuple(flat) != more
    assert edge_nodes(flat) == pairs.nodes == (2, 2, 3, 3)
    assert make(normal=[CELL[:2], CELL[2:]]) == make()
    assert repr(make(normal=[CELL[:2], CELL[2:]])) == repr(make())


def test_the_literal_of_darts_is_the_one_its_authors_printed() -> None:
    assert str(get_genotype("darts_v2")) == (
        "Genotype(normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), "
        "('sep_conv_3x3', 1), "
        "('sep_conv_3x3', 1), ('skip_connect', 0), ('skip_connect', 0), ('dil_conv_3x3', 2)], "
        "normal_concat=[2, 3, 4, 5], reduce=[('max_pool_3x3', 0), ('max_pool_3x3', 1), ('skip_connect', 2), "
        "('max_pool_3x3', 1), ('max_pool_3x3', 0), ('skip_connect', 2), ('skip_connect', 2), "
        "('max_pool_3x3', 1)], reduce_concat=[2, 3, 4, 5])"
    )


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"normal": CELL[:3]}, ["normal cell", "3 edges", "two per intermediate node"]),
        ({"reduce": []}, ["reduction cell", "0 edges"]),
        ({"reduce": "sep_conv_3x3"}, ["reduction cell", "must be a list", "'sep_conv_3x3'"]),
        ({"normal": [*CELL[:3], ("sep_conv", 0)]}, ["normal cell, node 3, edge 2 of 2", "'sep_conv'"]),
        (
            {"reduce": [("sep_conv3x3", 0), *CELL[1:]]},
            ["reduction cell, node 2, edge 1 of 2", "did you mean 'sep_conv_3x3'?"],
        ),
        ({"normal": [*CELL[:2], ("skip_connect", 3), CELL[3]]}, ["node 3, edge 1", "source 3", "0 to 2"]),
        ({"normal": [("skip_connect", -1), *CELL[1:]]}, ["node 2, edge 1", "source -1", "0 to 1"]),
        ({"normal": [("skip_connect", True), *CELL[1:]]}, ["node 2, edge 1", "node number", "True"]),
        ({"normal": [("skip_connect", 1.0), *CELL[1:]]}, ["node number", "1.0"]),
        ({"normal": [("skip_connect", 0, 2), *CELL[1:]]}, ["pair (operation, source)"]),
        ({"normal": [(0, "skip_connect"), *CELL[1:]]}, ["node number", "'skip_connect'"]),
        ({"normal": [CELL[:2], ("none", 0)]}, ["('none', 0) stands beside lists of edges"]),
        ({"normal": [[], [("skip_connect", 3)]]}, ["node 3, edge 1 of 1", "source 3"]),
        ({"normal": [[], []]}, ["normal cell", "no path"]),
        ({"normal": [[("noise", 0)], [("skip_connect", 2)]]}, ["normal cell", "no path", "'noise'"]),
        (
            {"normal": [[CELL[:2]], [("skip_connect", 0)]]},
            ["node 2, edge 1 of 1", "must be a node number"],
        ),
        ({"normal": [(None, 0), *CELL[1:]]}, ["operation must be a name", "None"]),
        ({"normal_concat": []}, ["normal cell", "concat list is empty", "2 to 3"]),
        ({"reduce_concat": [2, 4]}, ["reduction cell", "node 4", "2 to 3"]),
        ({"reduce_concat": [1]}, ["node 1", "2 to 3"]),
        ({"normal_concat": [3, 2, 3]}, ["node 3 twice"]),
        ({"normal_concat": "23"}, ["concat list must be a list"]),
        ({"normal": [("none", 0), ("none", 1)] * 2}, ["normal cell", "no path", "'none'"]),
        (
            {"reduce": [("none", 0), ("none", 1), ("skip_connect", 2), ("skip_connect", 2)]},
            ["reduction cell", "no path", "concat [3]"],
        ),
    ],
)
def test_a_bad_cell_is_refused_in_one_line_that_names_the_fault(
    changes: dict[str, Any], parts: list[str]
) -> None:
    with pytest.raises(ValueError, match=r"\A[^\n]*\Z") as error:
        make(**changes)
    assert [part for part in parts if part not in str(error.value)] == []


def test_a_declared_operation_is_valid_and_a_bad_name_is_not() -> None:
    with pytest.raises(ValueError, match="unknown operation 'declared_in_a_test'"):
        make(normal=[("declared_in_a_test", 0), *CELL[1:]])
    declare_operation("declared_in_a_test")
    declare_operation("declared_in_a_test")
    assert make(normal=[("declared_in_a_test", 0), *CELL[1:]]).normal[0].op == "declared_in_a_test"
    assert operation_names()[: len(BUILT_IN_OPERATIONS)] == BUILT_IN_OPERATIONS
    assert operation_names().count("declared_in_a_test") == 1
    for name in ("", "3x3", "a-b", "class", "a b"):
        with pytest.raises(ValueError, match="must be a Python identifier"):
            declare_operation(name)
    with pytest.raises(ValueError, match="built-in"):
        declare_operation("sep_conv_3x3")


@given(genotype_arguments())
def test_a_mapping_gives_the_genotype_back(arguments: tuple[Any, Any, Any, Any]) -> None:
    genotype = Genotype(*arguments)
    assert get_genotype(genotype.as_mapping()) == genotype
    assert get_genotype(genotype) is genotype
