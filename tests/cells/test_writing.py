from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings

from nas_lightning.cells import Genotype, get_genotype
from nas_lightning.cells.writing import FORMS, write_genotype
from tests.cells.forms import CELLS
from tests.cells.strategies import genotype_arguments

ANY = ("literal", "nested", "yaml", "json", "autodl")


@settings(deadline=None, max_examples=60)
@given(genotype_arguments())
def test_what_is_written_is_read_back(arguments: tuple[Any, Any, Any, Any]) -> None:
    genotype = Genotype(*arguments)
    for form in ANY:
        assert get_genotype(write_genotype(genotype, form)) == genotype, form
    # A last node without edges that nothing concatenates is not named in the others.
    for form in ("fairdarts", "aw_nas", "nni", "nasbench301"):
        try:
            text = write_genotype(genotype, form)
        except ValueError as error:
            reason = str(error)
        else:
            read = get_genotype(text)
            assert [sorted(node) for node in read.normal.by_node] == [
                sorted(node) for node in genotype.normal.by_node
            ]
            assert (read.normal_concat, read.reduce_concat) == (
                genotype.normal_concat,
                genotype.reduce_concat,
            )
            reason = "cannot hold"
        assert "cannot hold" in reason
    if genotype.normal.has_pairs and genotype.reduce.has_pairs:
        for form in ("fairdarts", "aw_nas", "nni"):
            assert get_genotype(write_genotype(genotype, form)) == genotype, form


@pytest.mark.parametrize("name", ["darts_v2", "pdarts", "pc_darts_cifar", "gdas"])
def test_a_cell_of_four_nodes_survives_every_form_one_after_the_other(name: str) -> None:
    genotype = get_genotype(name)
    text = str(genotype)
    for form in FORMS:
        text = write_genotype(get_genotype(text), form)
    edges = [sorted(genotype.normal[at : at + 2]) for at in range(0, 8, 2)]
    read = get_genotype(text)
    assert [sorted(read.normal[at : at + 2]) for at in range(0, 8, 2)] == edges
    assert write_genotype(read, "nasbench301") == write_genotype(genotype, "nasbench301")


def test_the_forms_of_one_cell() -> None:
    assert write_genotype(CELLS, "nested").startswith(
        "Genotype(normal=[[('sep_conv_3x3', 0), ('dil_conv_5x5', 1)], ["
    )
    assert "normal_0=[('sep_conv_3x3', 0, 2), ('dil_conv_5x5', 1, 2), (" in write_genotype(CELLS, "aw_nas")
    assert "normal=[('sep_conv_3x3', 2, 0), ('dil_conv_5x5', 2, 1), (" in write_genotype(CELLS, "fairdarts")
    assert "normal=[(('sep_conv_3x3', 0), ('dil_conv_5x5', 1)), (" in write_genotype(CELLS, "autodl")
    assert '"normal/op_2_0": "sep_conv_3x3",\n  "normal/input_2_0": [\n    0\n  ]' in write_genotype(
        CELLS, "nni"
    )
    darts = write_genotype(get_genotype("darts_v2"), "nasbench301")
    assert '"NetworkSelectorDatasetInfo:darts:edge_normal_11": "dil_conv_3x3"' in darts
    assert '"NetworkSelectorDatasetInfo:darts:inputs_node_reduce_5": "1_2"' in darts


def test_a_form_that_cannot_hold_a_cell_says_so() -> None:
    with pytest.raises(ValueError, match="nasbench301 cannot hold this genotype: it takes four nodes"):
        write_genotype(get_genotype("nasnet"), "nasbench301")
    with pytest.raises(ValueError, match=r"`to` \(=xml\) must be one of literal, nested, yaml"):
        write_genotype(CELLS, "xml")


def test_a_form_says_what_it_cannot_hold() -> None:
    pair = [("sep_conv_3x3", 0), ("skip_connect", 1)]
    genotype = Genotype([pair, []], [2, 3], [pair, []], [2, 3])
    for form in ("nni", "fairdarts"):
        with pytest.raises(ValueError, match=f"{form} cannot hold this genotype: it cannot name nodes"):
            write_genotype(genotype, form)
