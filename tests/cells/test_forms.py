"""Genotypes as other projects print them, and the cells in them by hand."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from nas_lightning.cells import Genotype, count_parameters, genotype_notes, get_genotype, parse_genotype
from tests.cells.forms import CELLS, FORMS

DARTS = get_genotype("darts_v2")
LITERAL = str(DARTS)


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_cells(form: str, tmp_path: Path) -> None:
    text = FORMS[form]
    assert parse_genotype(text) == CELLS
    if "YAML" not in form or "\n" in text.strip():
        assert get_genotype(text) == CELLS
    for name in ("cell", "cell.txt", "search.log", "genotypes.py", "arch.json", "arch.yaml"):
        path = tmp_path / name
        path.write_text(text)
        assert get_genotype(path) == get_genotype(str(path)) == CELLS, name


@pytest.mark.parametrize("form", ["JSON", "NNI"])
def test_a_mapping_is_read_as_its_text_is(form: str) -> None:
    assert get_genotype(json.loads(FORMS[form])) == CELLS
    assert get_genotype(yaml.safe_load(FORMS["YAML"])) == CELLS


@pytest.mark.parametrize(
    ("form", "notes"),
    [
        ("flat", []),
        ("nested by node", []),
        ("op, source, destination", []),
        ("weights", ["the weights of the edges are left out"]),
        (
            "further keys",
            ["left out: connectN, connects, primitives, source (says nothing of the cells)"],
        ),
        (
            "other spellings",
            [
                "operation 'sep 3x3' is read as sep_conv_3x3",
                "operation 'identity' is read as skip_connect",
                "operation 'MaxPool3x3' is read as max_pool_3x3",
                "operation 'avg_3x3' is read as avg_pool_3x3",
                "operation 'null' is read as none",
            ],
        ),
        ("NNI", ["left out: width, num_cells (says nothing of the cells)"]),
    ],
)
def test_what_is_left_out_or_renamed_is_said(form: str, notes: list[str]) -> None:
    assert sorted(genotype_notes(FORMS[form])) == sorted(notes)


# microsoft/nni, nni/nas/hub/pytorch/nasnet.py, the model darts-v2; half of its inputs stand in lists there.
NNI_DARTS_V2 = {
    f"{cell}/{kind}_{node}_{edge}": edges[2 * (node - 2) + edge][kind == "input"]
    for cell, edges in (("normal", DARTS.normal), ("reduce", DARTS.reduce))
    for node in range(2, 6)
    for edge in range(2)
    for kind in ("op", "input")
}


def test_nni_s_darts_space_concatenates_all_nodes_and_its_nasnet_space_those_that_none_reads() -> None:
    assert get_genotype(NNI_DARTS_V2) == DARTS
    assert get_genotype({key: [v] if "input" in key else v for key, v in NNI_DARTS_V2.items()}) == DARTS
    assert get_genotype({f"model/{key}": value for key, value in NNI_DARTS_V2.items()}) == DARTS
    nasnet = get_genotype("nasnet")
    model = {
        f"{cell}/{kind}_{index // 2 + 2}_{index % 2}": edge[kind == "input"]
        for cell, edges in (("normal", nasnet.normal), ("reduce", nasnet.reduce))
        for index, edge in enumerate(edges)
        for kind in ("op", "input")
    }
    assert get_genotype(model) == nasnet  # all nodes of the normal cell, and 4, 5, 6 of the reduction cell
    (note,) = genotype_notes(model)
    assert "that no node reads" in note


def test_nni_s_first_darts_example() -> None:
    # As its searches export it: an operation for every source, and a switch with the sources that are read.
    model: dict[str, Any] = {"normal_n2_p0": "sepconv5x5", "normal_n2_p1": "sepconv3x3"}
    model |= {"normal_n2_switch": ["normal_n2_p0", "normal_n2_p1"]}
    model |= {"normal_n3_p0": "skipconnect", "normal_n3_p1": "maxpool", "normal_n3_p2": []}
    model |= {"normal_n3_switch": ["normal_n3_p0", "normal_n3_p1"]}
    model |= {"reduce_n2_p0": 0, "reduce_n2_p1": 6, "reduce_n2_switch": ["reduce_n2_p0", "reduce_n2_p1"]}
    model |= {"reduce_n3_p0": "avgpool", "reduce_n3_p1": "none", "reduce_n3_p2": "dilconv3x3"}
    model |= {"reduce_n3_switch": ["reduce_n3_p0", "reduce_n3_p2"]}
    expected = Genotype(
        [("sep_conv_5x5", 0), ("sep_conv_3x3", 1), ("skip_connect", 0), ("max_pool_3x3", 1)],
        [2, 3],
        [("max_pool_3x3", 0), ("dil_conv_5x5", 1), ("avg_pool_3x3", 0), ("dil_conv_3x3", 2)],
        [2, 3],
    )
    assert get_genotype(model) == get_genotype(json.dumps(model, indent=2)) == expected


NASBENCH301 = {
    "edge_normal_0": "max_pool_3x3",
    "edge_normal_1": "sep_conv_5x5",
    "edge_reduce_0": "dil_conv_5x5",
    "edge_reduce_1": "sep_conv_3x3",
    "inputs_node_normal_3": "0_1",
    "inputs_node_normal_4": "0_1",
    "inputs_node_normal_5": "2_3",
    "inputs_node_reduce_3": "0_1",
    "inputs_node_reduce_4": "0_2",
    "inputs_node_reduce_5": "1_3",
    "edge_normal_11": "dil_conv_3x3",
    "edge_normal_12": "skip_connect",
    "edge_normal_2": "avg_pool_3x3",
    "edge_normal_3": "avg_pool_3x3",
    "edge_normal_5": "avg_pool_3x3",
    "edge_normal_6": "avg_pool_3x3",
    "edge_reduce_10": "max_pool_3x3",
    "edge_reduce_12": "dil_conv_3x3",
    "edge_reduce_2": "max_pool_3x3",
    "edge_reduce_3": "max_pool_3x3",
    "edge_reduce_5": "dil_conv_5x5",
    "edge_reduce_7": "avg_pool_3x3",
}
NASBENCH301_CELLS = Genotype(
    [
        ("max_pool_3x3", 0),
        ("sep_conv_5x5", 1),
        ("avg_pool_3x3", 0),
        ("avg_pool_3x3", 1),
        ("avg_pool_3x3", 0),
        ("avg_pool_3x3", 1),
        ("dil_conv_3x3", 2),
        ("skip_connect", 3),
    ],
    range(2, 6),
    [
        ("dil_conv_5x5", 0),
        ("sep_conv_3x3", 1),
        ("max_pool_3x3", 0),
        ("max_pool_3x3", 1),
        ("dil_conv_5x5", 0),
        ("avg_pool_3x3", 2),
        ("max_pool_3x3", 1),
        ("dil_conv_3x3", 3),
    ],
    range(2, 6),
)


@pytest.mark.parametrize(
    "prefix",
    ["NetworkSelectorDatasetInfo:darts:", "NetworkSelectorDatasetInfo_COLON_darts_COLON_", ""],
)
def test_a_configuration_of_nas_bench_301(prefix: str) -> None:
    config: dict[str, Any] = {f"{prefix}{key}": value for key, value in NASBENCH301.items()}
    config["NetworkSelectorDatasetInfo:darts:layers"] = 20
    config["OptimizerSelector:sgd:learning_rate"] = 0.025
    config[f"{prefix}edge_normal_4"] = None
    assert get_genotype(config) == NASBENCH301_CELLS
    assert (
        get_genotype(json.dumps({"budget": 50, "optimized_hyperparamater_config": config}))
        == NASBENCH301_CELLS
    )
    assert get_genotype(f"darts_config = {config}") == NASBENCH301_CELLS
    # Plain YAML makes 1 of 0_1 and 23 of 2_3.
    assert (
        get_genotype("\n".join(f"{key}: {value}" for key, value in NASBENCH301.items())) == NASBENCH301_CELLS
    )
    assert "left out: layers, learning_rate" in " ".join(genotype_notes(config))


def test_the_example_of_aw_nas() -> None:
    # walkerning/aw_nas, README.
    text = """CNNGenotype(normal_0=[('dil_conv_3x3', 1, 2), ('skip_connect', 1, 2), ('sep_conv_3x3', 0, 3),
    ('sep_conv_3x3', 2, 3), ('skip_connect', 3, 4), ('sep_conv_3x3', 0, 4), ('sep_conv_5x5', 1, 5),
    ('sep_conv_5x5', 0, 5)], reduce_1=[('max_pool_3x3', 0, 2), ('dil_conv_5x5', 0, 2), ('avg_pool_3x3', 1, 3),
    ('avg_pool_3x3', 2, 3), ('sep_conv_5x5', 1, 4), ('avg_pool_3x3', 1, 4), ('sep_conv_3x3', 1, 5),
    ('dil_conv_5x5', 3, 5)], normal_0_concat=[2, 3, 4, 5], reduce_1_concat=[2, 3, 4, 5])"""
    genotype = get_genotype(text)
    assert [edge.source for edge in genotype.normal] == [1, 1, 0, 2, 3, 0, 1, 0]
    assert [edge.op for edge in genotype.reduce][-1] == "dil_conv_5x5"
    assert genotype.reduce_concat == (2, 3, 4, 5)


def test_fairdarts_names_the_destination_before_the_source() -> None:
    # xiaomi-automl/FairDARTS, fairdarts/genotypes.py.
    text = """FairDARTS_d = Genotype(normal=[('sep_conv_3x3', 2, 0), ('sep_conv_5x5', 2, 1),
    ('dil_conv_3x3', 3, 1), ('max_pool_3x3', 3, 0), ('dil_conv_3x3', 4, 0), ('dil_conv_3x3', 4, 1),
    ('sep_conv_3x3', 5, 0), ('dil_conv_5x5', 5, 1)], normal_concat=range(2, 6),
    reduce=[('max_pool_3x3', 2, 0), ('sep_conv_5x5', 2, 1), ('avg_pool_3x3', 3, 0), ('dil_conv_5x5', 3, 2),
    ('dil_conv_3x3', 4, 3), ('avg_pool_3x3', 4, 0), ('avg_pool_3x3', 5, 0), ('skip_connect', 5, 3)],
    reduce_concat=range(2, 6))"""
    assert get_genotype(text) == get_genotype("fairdarts_d")


def test_fairdarts_s_network_does_not_concatenate_nodes_without_edges() -> None:
    # FairDARTS_a: its normal node 3 has no edges.
    text = """Genotype(normal=[('sep_conv_3x3', 2, 0), ('sep_conv_5x5', 2, 1), ('max_pool_3x3', 4, 0),
    ('sep_conv_3x3', 5, 0)], normal_concat=range(2, 6), reduce=[('max_pool_3x3', 2, 0),
    ('avg_pool_3x3', 2, 1), ('avg_pool_3x3', 3, 0), ('dil_conv_5x5', 3, 1), ('avg_pool_3x3', 4, 0),
    ('sep_conv_5x5', 4, 1), ('skip_connect', 5, 0), ('skip_connect', 5, 1)], reduce_concat=range(2, 6))"""
    assert get_genotype(text) == get_genotype("fairdarts_a")
    assert count_parameters(get_genotype(text), auxiliary=True) == 2_837_208
    (note,) = genotype_notes(text)
    assert note == "normal cell: node 3 has no edges; as in FairDARTS's network, it is not concatenated"


def test_nodes_without_edges_come_from_the_concat_list() -> None:
    # FairDARTS_a, whose normal node 3 and, in this variation, last node have no edge.
    text = """Genotype(normal=[('sep_conv_3x3', 2, 0), ('sep_conv_5x5', 2, 1), ('max_pool_3x3', 4, 0)],
    normal_concat=range(2, 6),
    reduce=[[('max_pool_3x3', 0)], [], [('skip_connect', 2), ('none', 1), ('none', 0)]], reduce_concat=[4])"""
    genotype = get_genotype(text)
    assert genotype.normal.counts == (2, 0, 1, 0)
    assert genotype.reduce.counts == (1, 0, 3)
    assert genotype.reduce.by_node[2][0] == ("skip_connect", 2)


def test_a_list_of_all_edges_of_a_search_space() -> None:
    # Two edges a node would make seven nodes of these, of which the concat list leaves three out.
    pairs = [("sep_conv_3x3", source) for node in range(2, 6) for source in range(node)]
    genotype = get_genotype(f"Genotype({pairs}, range(2, 6), {pairs}, [4, 5])")
    assert genotype.normal.counts == genotype.reduce.counts == (2, 3, 4, 5)
    assert get_genotype(f"Genotype({pairs}, range(2, 9), {pairs}, [8])").normal.counts == (2,) * 7
    assert genotype_notes(f"Genotype({pairs}, range(2, 6), {pairs}, [4, 5])") == (
        "every node reads all nodes before it: 4 nodes, 14 edges",
    )


def _cell(edges: str) -> str:
    reduce = "[('skip_connect', 0), ('skip_connect', 1)]"
    return f"Genotype(normal={edges}, normal_concat=[2], reduce={reduce}, reduce_concat=[2])"


@pytest.mark.parametrize(
    ("edges", "message"),
    [
        ("[('skip_connect', 0, 2), ('skip_connect', 2, 1)]", "in different orders"),
        ("[('skip_connect', 0, 2), ('skip_connect', 1, 1)]", "leads from a node to itself"),
        ("[('skip_connect', 0, 1), ('skip_connect', 0, 1)]", "must lead to an intermediate node"),
        ("[[('skip_connect', 0, 2), ('skip_connect', 1, 3)]]", "must lead to node 2, where it stands"),
        ("[('skip_connect', 0.5, 0.5), ('skip_connect', 0.5, 0.5)]", "names no source"),
        ("[('skip_connect', 0, 2), ('skip_connect', 1)]", "must be a pair"),
        ("[('skip_connect', 0, 2000), ('skip_connect', 1, 2000)]", "must lead to an intermediate node"),
        ("[(3, 0), (3, 1)]", "the operation must be a name"),
        ("[('skip_connect', 'x'), ('skip_connect', 1)]", "the source must be a node number"),
        ("[('blur', 0), ('skip_connect', 1)]", "unknown operation 'blur'"),
    ],
)
def test_what_is_not_sure_is_refused(edges: str, message: str) -> None:
    with pytest.raises(ValueError, match=rf"\A[^\n]*{message}[^\n]*\Z"):
        get_genotype(_cell(edges))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("|nor_conv_3x3~0|+|nor_conv_3x3~0|none~1|+|skip_connect~0|none~1|none~2|", "NAS-Bench-201"),
        ("NB201Genotype(arch_str='|nor_conv_3x3~0|+|none~0|none~1|')", "NAS-Bench-201"),
        ("{'name': 'infer.tiny', 'C': 16, 'arch_str': '|nor_conv_3x3~0|+|none~0|none~1|'}", "NAS-Bench-201"),
        ("ModelSpec(matrix=[[0, 1], [0, 0]], ops=['input', 'output'])", "NAS-Bench-101"),
        ('{"module_adjacency": [[0, 1], [0, 0]], "module_operations": ["input", "output"]}', "NAS-Bench-101"),
        ("{'matrix': [[0, 1], [0, 0]], 'ops': ['input', 'conv3x3-bn-relu', 'output']}", "NAS-Bench-101"),
        ("([[0, 1, 0], [0, 0, 1], [0, 0, 0]], ['input', 'conv3x3-bn-relu', 'output'])", "NAS-Bench-101"),
        ("DARTS_V2 = Genotype(recurrent=[('sigmoid', 0), ('relu', 1)], concat=range(1, 9))", "recurrent"),
        ("{'recurrent': [['tanh', 0]], 'concat': [1]}", "recurrent"),
    ],
)
def test_a_cell_of_another_network_is_called_so(text: str, message: str, tmp_path: Path) -> None:
    expected = rf"\A[^\n]*this is a {message} cell; this network stacks a normal and a reduction cell[^\n]*\Z"
    with pytest.raises(ValueError, match=expected):
        get_genotype(text)
    path = tmp_path / "arch.txt"
    path.write_text(text)
    with pytest.raises(ValueError, match=expected):
        get_genotype(path)


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"normal_0": [], "normal_1": [], "reduce_2": []}, "there are several normal cells"),
        (
            NNI_DARTS_V2 | {"normal/input_3_0": "x"},
            "must be the name of an operation and the number of a node",
        ),
        (
            NNI_DARTS_V2 | {"normal/op_2000_0": "none", "normal/input_2000_0": 1},
            "intermediate nodes are 2 and on",
        ),
        ({"normal/op_2_0": "none", "normal/input_2_0": 0}, "reduce: the cell has no edges"),
        ({"normal_n2_p0": 99, "reduce_n2_p0": 1}, "normal_n2_p0 (=99) must be the name of an operation"),
        (NASBENCH301 | {"inputs_node_normal_4": "1_2"}, "node 4 reads node 2, but edge_normal_7"),
        (NASBENCH301 | {"inputs_node_normal_4": "1-2"}, "must name nodes, such as 0_1"),
        (NASBENCH301 | {"inputs_node_normal_5": "2_5"}, "node 5 reads node 5"),
        (DARTS.as_mapping() | {"normal_bottom": [["skip_connect", 0]]}, "holds a further cell"),
        (DARTS.as_mapping() | {"normal_concats": [2]}, "did you mean 'normal_concat'?"),
        (DARTS.as_mapping() | {"reduction": []}, "key 'reduce' is given twice"),
        (DARTS.as_mapping() | {"normal": {"1": [], "2": []}}, "2 intermediate nodes have the numbers 2 to 3"),
        (DARTS.as_mapping() | {"normal": {"0->2": "none"}}, "not a mapping with '0->2'"),
        (DARTS.as_mapping() | {"normal": [{"op": "none", "from": 3, "to": 2}]}, "one of a larger number"),
        (DARTS.as_mapping() | {"normal": [{"op": "none", "from": "c", "to": 2}]}, "nodes by their numbers"),
        (DARTS.as_mapping() | {"normal": [{"op": "none", "weight": 2}]}, "an operation and its source"),
        ({}, "missing key 'normal', 'normal_concat', 'reduce', 'reduce_concat'"),
    ],
)
def test_a_faulty_mapping_says_what_is_wrong(mapping: dict[Any, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        get_genotype(mapping)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "usual"),
    [
        ("conv 3x3", "conv_3x3"),
        ("sep_5x5", "sep_conv_5x5"),
        ("dua_sepc_3x3", "sep_conv_3x3"),
        ("dil_sepc_5x5", "dil_conv_5x5"),
        ("MaxPool5x5", "max_pool_5x5"),
        ("nor_conv_3x3", "nor_conv_3x3"),
        ("sep_conv_3x3_single", "sep_conv_3x3_single"),
    ],
)
def test_names_of_operations_in_nasp_s_and_autodl_s_repositories(name: str, usual: str) -> None:
    assert get_genotype(LITERAL.replace("sep_conv_3x3", name)) == get_genotype(
        LITERAL.replace("sep_conv_3x3", usual)
    )


@pytest.mark.parametrize(
    ("counts", "note"),
    [
        ((1, 1, 1, 1), "one edge a node: the concat list ends with node 5"),
        ((2, 3, 3, 3), "up to 3 edges a node: the concat list ends with node 5"),
        ((3, 3, 3, 3), "two edges a node make nodes 2 to 7, and those after 5 reach no output"),
    ],
)
def test_a_flat_list_of_other_than_two_edges_a_node(counts: tuple[int, ...], note: str) -> None:
    """The concat list says how many nodes there are; what is not sure is told."""
    nodes = [
        [("sep_conv_3x3", source % node) for source in range(1, count + 1)]
        for node, count in enumerate(counts, 2)
    ]
    flat = [edge for edges in nodes for edge in edges]
    text = f"Genotype(normal={flat}, normal_concat=range(2, 6), reduce={flat}, reduce_concat=range(2, 6))"
    expected = Genotype(
        nodes if counts[0] < 3 else flat, range(2, 6), nodes if counts[0] < 3 else flat, range(2, 6)
    )
    assert get_genotype(text) == expected
    (told,) = genotype_notes(text)
    assert told.startswith(note)


def test_a_text_of_several_genotypes_says_how_to_choose() -> None:
    with pytest.raises(ValueError, match=r"A, B; give one alone, or put the text into a file .* FILE#A"):
        get_genotype(f"A = {LITERAL}\nB = {CELLS}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "normal = [('none', 0), ('none', 1)]\nreduce = [('none', 0), ('none', 1)]",
            "missing key 'normal_concat'",
        ),
        (
            "([(0, 5), (1, 0), (0, 4), (1, 4)], [(1, 6), (0, 7), (2, 5), (0, 3)])",
            "operations are numbers here",
        ),
        ("arch = [[[0, 5], [1, 0]], [[1, 6], [0, 7]]]", "operations are numbers here"),
        (
            "Genotype(cell=[('none', 0), ('none', 1)], cell_concat=[2])",
            "but 'normal' and 'reduce' must be given",
        ),
        ("Structure(4 nodes with |nor_conv_3x3~0|+|none~0|)", "this is a NAS-Bench-201 cell"),
    ],
)
def test_other_texts_are_refused_by_what_they_lack(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        get_genotype(text)


@pytest.mark.parametrize(
    ("op", "meant"),
    [("sep_cnov_3x3", "sep_conv_3x3"), ("dil_conv_7x7", ""), ("bin_conv_3x3", ""), ("dw_conv_7x7", "")],
)
def test_a_suggestion_never_names_another_operation(op: str, meant: str) -> None:
    with pytest.raises(ValueError, match="unknown operation") as error:
        get_genotype(LITERAL.replace("sep_conv_3x3", op))
    assert ("did you mean" in str(error.value)) == bool(meant)
    assert f"did you mean {meant!r}" in str(error.value) or not meant


def test_a_node_s_only_edge_needs_no_list_of_its_own() -> None:
    cells = DARTS.as_mapping() | {
        "normal": {"2": ["sep_conv_3x3", 0], "3": ["skip_connect", 1]},
        "normal_concat": [2, 3],
    }
    assert get_genotype(cells).normal.counts == (1, 1)
