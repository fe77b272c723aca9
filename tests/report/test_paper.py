from __future__ import annotations

import pytest

from nas_lightning.cells import cell_depth, cell_width, get_genotype
from nas_lightning.cells.table2 import TABLE2
from nas_lightning.report.paper import (
    data_title,
    family_title,
    paper_classes,
    paper_families,
    paper_misprints,
    paper_table1,
    paper_table2,
    paper_table3,
    paper_topologies,
    paper_training,
)
from tests.cells.data import PAPER

# The other transcription of the paper, made for the tests of the cells, has other names.
NAMES = {"darts_v2": "darts", "snas_mild": "snas"}
DATA = {"CIFAR10": "cifar10", "CIFAR100": "cifar100", "TinyImageNet": "tiny_imagenet"}


def test_table_1_has_30_entries_that_agree_with_the_other_transcription() -> None:
    entries = paper_table1()
    assert len(entries) == 30
    for entry in entries:
        column = ("original", "adapted").index(entry.cell)
        printed = PAPER["table1"][DATA[entry.data]][NAMES.get(entry.family, entry.family)]
        assert f"{entry.parameters_M:.2f}" == printed[column]


def test_errors_of_table_1_show_what_the_paper_reads_from_them() -> None:
    better = dict.fromkeys(paper_classes(), 0)
    errors = {(entry.data, entry.family, entry.cell): entry.error_percent for entry in paper_table1()}
    for data in better:
        better[data] = sum(
            errors[data, family, "adapted"] < errors[data, family, "original"] for family in paper_families()
        )
    # Section 5: smaller errors on CIFAR-100, for most cells larger ones on the others.
    assert better == {"CIFAR10": 1, "CIFAR100": 5, "TinyImageNet": 0}


def test_table_2_agrees_with_the_cells_and_with_the_other_transcription() -> None:
    entries = paper_table2()
    assert len(entries) == 52
    for entry in entries:
        number = int(entry.variant[1:])
        assert [entry.width, entry.depth] == PAPER["table2"][NAMES.get(entry.family, entry.family)][
            number - 1
        ]
        assert (entry.width, entry.depth) == TABLE2[entry.family][number - 1][:2]


def test_width_rises_and_depth_falls_from_c1_to_c13_as_the_caption_says() -> None:
    for family in ("darts_v2", "enas", "amoebanet", "nasnet"):
        widths = [entry.width for entry in paper_table2() if entry.family == family]
        assert widths == sorted(widths)


def test_topologies_are_those_of_the_cells() -> None:
    assert len(paper_topologies()) == 10
    for entry in paper_topologies():
        suffix = "" if entry.variant == "original" else ":adapted"
        genotype = get_genotype(entry.family + suffix)
        assert cell_width(genotype.normal, genotype.normal_concat) == entry.width
        assert cell_depth(genotype.normal, genotype.normal_concat) == entry.depth


def test_table_3_agrees_with_the_other_transcription_and_notes_the_one_that_differs() -> None:
    entries = paper_table3()
    assert len(entries) == 44
    for entry in entries:
        printed = PAPER["table3"][NAMES.get(entry.family, entry.family)][entry.number]
        assert f"{entry.parameters_M:.2f}" == printed
    noted = {(NAMES.get(e.family, e.family), e.number) for e in entries if e.note}
    assert noted == {
        (family, number) for family, numbers in PAPER["table3_differs"].items() for number in numbers
    }


def test_training_settings() -> None:
    training = paper_training()
    assert training.epochs == {"CIFAR10": 600, "CIFAR100": 600, "TinyImageNet": 300}
    assert (training.learning_rate, *training.other_learning_rates) == (0.025, 0.0025, 0.25)
    assert (training.batch_size, training.num_cells, training.weight_decay) == (80, 20, 3e-4)
    assert (training.cutout, training.drop_path, training.auxiliary_weight) == (16, 0.2, 0.4)


def test_titles() -> None:
    assert (family_title("snas_mild"), family_title("pdarts")) == ("SNAS", "pdarts")
    assert (data_title("TinyImageNet"), data_title("Digits")) == ("Tiny-ImageNet-200", "Digits")
    assert {where for where, _ in paper_misprints()} >= {"Figure 2", "Figure 10", "Figure 25", "Table 3"}


def test_quotations_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        paper_classes()["CIFAR10"] = 11  # type: ignore[index]
