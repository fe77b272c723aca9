"""Shorthands stand for the cells that they should, under one name each."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from nas_lightning.cells import get_genotype, published_genotypes, published_variants, random_connections
from nas_lightning.cells.table2 import TABLE2
from nas_lightning.study.architectures import Entry, expand_architectures, figure2_number


def labels(*entries: Entry) -> list[str]:
    return [architecture.label for architecture in expand_architectures(list(entries))]


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        ("darts", ["darts_v2"]),
        ("snas and adapted", ["snas_mild", "snas_mild:adapted"]),
        ("enas:C4", ["enas:C4"]),
        ("darts_v2:C1..C3", ["darts_v2:C1", "darts_v2:C2", "darts_v2:C3"]),
        ("enas and C1..C2", ["enas", "enas:C1", "enas:C2"]),
        ("enas  and  operations=9..10", ["enas", "enas:operations=9", "enas:operations=10"]),
        ("pdarts:connections=0..1", ["pdarts:connections=0", "pdarts:connections=1"]),
        ("enas and C2 and adapted", ["enas", "enas:C2", "enas:adapted"]),
        ({"base": "darts", "variants": ["C1", "C3"]}, ["darts_v2", "darts_v2:C1", "darts_v2:C3"]),
        ({"base": "enas", "variants": ["C2..C3", "adapted"]}, ["enas", "enas:C2", "enas:C3", "enas:adapted"]),
        (
            {"base": "enas", "variants": ["operations=1..2", "connections=700"]},
            ["enas", "enas:operations=1", "enas:operations=2", "enas:connections=700"],
        ),
        (
            "figure2 of darts",
            ["darts_v2", "darts_conn1", "darts_conn2", "darts_conn3", "darts_conn4"],
        ),
    ],
)
def test_shorthands(entry: Entry, expected: list[str]) -> None:
    found = expand_architectures([entry])
    assert [architecture.label for architecture in found] == expected
    for architecture in found:  # what the command line makes of the spec is what is planned
        assert get_genotype(architecture.spec) == architecture.genotype


def test_all_variants_of_table_2_have_its_width_and_depth() -> None:
    for base, rows in TABLE2.items():
        original, *variants = expand_architectures([f"{base} and C1..C13"])
        assert (original.family, original.variant, original.kind) == (base, "original", "original")
        assert [(v.width, v.depth) for v in variants] == [(row.width, row.depth) for row in rows]
        assert {(v.family, v.kind) for v in variants} == {(base, "connections")}


def test_published_cells_by_space() -> None:
    every = expand_architectures(["all published cells"])
    assert [architecture.family for architecture in every] == list(published_genotypes())
    four, five = (
        expand_architectures([f"all published cells of the {nodes}-node space"]) for nodes in (4, 5)
    )
    assert {len(architecture.genotype.normal) for architecture in four} == {8}
    assert {architecture.label for architecture in five} >= {"nasnet", "amoebanet", "enas"}
    others = {architecture.label for architecture in every} - {one.label for one in four + five}
    assert others == {f"fairdarts_{letter}" for letter in "abcefg"}  # nodes of none or one edge


def test_one_cell_has_one_name_however_it_is_asked_for() -> None:
    seed = TABLE2["darts_v2"][5].seed
    literal = str(get_genotype("darts_v2:C6"))
    assert labels("darts_v2:C6") == labels(f"darts:connections={seed}") == labels(literal) == ["darts_v2:C6"]
    assert labels("darts_v2:C6", literal, "darts", "darts_v2") == ["darts_v2:C6", "darts_v2"]
    assert labels("snas_moderate and adapted") == ["snas_moderate"]  # adapted it is what it was


@pytest.mark.parametrize("name", published_variants())
def test_a_published_variant_belongs_to_the_cell_that_it_varies(name: str) -> None:
    entry = published_variants()[name]
    (found,) = expand_architectures([name])
    assert (found.family, found.kind) == (entry.variant_of, entry.kind)
    assert found.genotype == entry.genotype == get_genotype(found.spec)
    if entry.kind == "adapted":  # one cell has one name
        assert (found.variant, found.label) == ("adapted", f"{entry.variant_of}:adapted")
    else:
        assert found.variant == found.label == found.spec == name
    assert labels(str(entry.genotype)) == [found.label]
    assert name not in labels("all published cells")


def test_own_cells(tmp_path: Path) -> None:
    genotype = random_connections(get_genotype("pdarts"), 77)
    lists = {
        "normal": [list(edge) for edge in genotype.normal],
        "normal_concat": list(genotype.normal_concat),
        "reduce": [list(edge) for edge in genotype.reduce],
        "reduce_concat": list(genotype.reduce_concat),
    }
    (tmp_path / "cells").mkdir()
    (tmp_path / "cells" / "mine.yaml").write_text(yaml.safe_dump(lists))
    file, operations = expand_architectures(["cells/mine.yaml and operations=3"], tmp_path)
    assert file.genotype == genotype
    assert (file.family, file.variant, file.kind, file.label) == ("mine", "own", "own", "mine")
    assert Path(file.spec) == tmp_path / "cells" / "mine.yaml"
    assert (operations.label, operations.kind) == ("mine:operations=3", "operations")
    assert get_genotype(operations.spec) == operations.genotype
    for entry in (lists, str(genotype)):
        (own,) = expand_architectures([entry])
        assert (own.genotype, own.kind) == (genotype, "own")
        assert own.label.startswith("genotype-")
        assert get_genotype(own.spec) == genotype


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    for folder, name in (("a", "darts_v1"), ("b", "pdarts:connections=5")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.yaml").write_text(yaml.safe_dump(str(get_genotype(name))))
    # The first is a published cell, and goes by its name.
    assert [a.label for a in expand_architectures(["a/mine.yaml", "b/mine.yaml"], tmp_path)] == [
        "darts_v1",
        "mine",
    ]
    (tmp_path / "a" / "mine.yaml").write_text(yaml.safe_dump(str(get_genotype("pdarts:connections=6"))))
    with pytest.raises(ValueError, match=r"a/mine.yaml and .*b/mine.yaml differ, .*'mine'; rename"):
        expand_architectures(["a/mine.yaml", "b/mine.yaml"], tmp_path)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("dart_v2", "entry 'dart_v2': unknown genotype 'dart_v2'; did you mean 'darts_v2'"),
        ("darts_v2 and C1..C14", "entry 'darts_v2 and C1..C14': .*C14"),
        ("darts_v2 and enas", "entry 'darts_v2 and enas': .*unknown variant 'enas'"),
        ("darts_v2:C4..C1", "'C4..C1' must rise"),
        ("enas:connections=0..99999", "at most 10000"),
        ("darts_conn1 and C2", "darts_conn1 is a variant of darts_v2 already; vary that one"),
        ("darts_conn7", "unknown genotype 'darts_conn7'; there are darts_conn1"),
        ("figure2 of enas", "darts_v2 and its variants only"),
        ("all published cells of the 7-node space", "no published cell has 7 .*there are such of 4, 5"),
        ({"normal": []}, "entry .*missing key"),
        ({"base": "enas", "variant": ["C1"]}, "entry .*unknown key 'variant'; did you mean 'variants'"),
        ({"base": "enas", "seeds": [1]}, "entry .*unknown key 'seeds'; there are `base` and `variants`"),
        ({"variants": ["C1"]}, r"entry .*`base` \(=None\) must name a cell"),
        ({"base": "enas"}, r"entry .*`variants` \(=None\) must be a list, such as"),
        ({"base": "enas", "variants": "C1..C13"}, r"entry .*`variants` \(='C1..C13'\) must be a list"),
        ({"base": "enas", "variants": []}, r"entry .*`variants` \(=\[\]\) must be a list"),
        ({"base": "enas", "variants": ["C14"]}, "entry .*C14"),
        ({"base": "enas", "variants": ["C3..C1"]}, "'C3..C1' must rise"),
        ({"base": "enos", "variants": ["C1"]}, "unknown genotype 'enos'"),
    ],
)
def test_a_wrong_entry_is_named(entry: Entry, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        expand_architectures(["darts_v2", entry])


def test_missing_files_and_entries() -> None:
    with pytest.raises(FileNotFoundError, match=r"entry 'nowhere.yaml': .*nowhere.yaml is not a file"):
        expand_architectures(["nowhere.yaml"])
    with pytest.raises(ValueError, match="at least one entry"):
        expand_architectures([])


def test_section_4_has_the_authors_cells() -> None:
    original, *variants = expand_architectures(["figure2 of darts_v2"])
    assert figure2_number(original) is None
    assert [figure2_number(variant) for variant in variants] == ["C1", "C2", "C3", "C4"]
    # The paper's figure 2.
    assert [(v.width, v.depth) for v in variants] == [(2.5, 3), (2.5, 3), (2, 4), (2, 4)]
    assert figure2_number(expand_architectures(["enas:C6"])[0]) is None
    assert figure2_number(expand_architectures(["darts_v2:C6"])[0]) is None


def test_a_genotype_under_a_name_of_one_s_own(tmp_path: Path) -> None:
    literal = str(get_genotype("darts_v2:connections=77"))
    (tmp_path / "search.log").write_text(f"genotype = {get_genotype('pdarts')}\ngenotype = {literal}\n")
    (architecture,) = expand_architectures([{"name": "mine", "genotype": literal}])
    assert (architecture.label, architecture.family, architecture.kind) == ("mine", "mine", "own")
    assert architecture.genotype == get_genotype(architecture.spec) == get_genotype(literal)
    (last,) = expand_architectures([{"name": "last", "genotype": "search.log"}], tmp_path)
    assert last.genotype == get_genotype(literal)
    assert "has 2 genotypes: the last (line 2) is taken" in last.notes[0]
    (first,) = expand_architectures(["search.log#1:connections=3"], tmp_path)
    assert first.genotype == random_connections(get_genotype("pdarts"), 3)
    assert first.label == "search-1:connections=3"
    (mapped,) = expand_architectures([{"name": "mapped", "genotype": get_genotype("enas").as_mapping()}])
    assert mapped.label == "mapped"  # though it is published: the name is the user's
    (again,) = expand_architectures([{"name": "PC-DARTS", "genotype": "pc_darts_cifar"}])
    assert again.label == "PC-DARTS"


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"name": "a/b", "genotype": "darts"}, "`name` \\(='a/b'\\) must be a word"),
        ({"name": 3, "genotype": "darts"}, "`name` \\(=3\\) must be a word"),
        ({"genotype": "darts"}, "`name` \\(=None\\) must be a word"),
        ({"name": "mine", "genotype": 3}, "`genotype` \\(=3\\) must be a genotype spec or a mapping"),
        ({"name": "mine", "genotyp": "darts"}, "genotyp"),
        (
            {"name": "mine", "genotype": "darts", "seed": 1},
            "unknown key 'seed'; there are `name` and `genotype`",
        ),
        ({"name": "enas", "genotype": "darts"}, "is that of the published cell enas; choose another"),
    ],
)
def test_a_wrong_name_is_refused(entry: Entry, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        expand_architectures([entry])
