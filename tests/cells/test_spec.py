from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from nas_lightning.cells import (
    genotype_slug,
    get_genotype,
    published_genotypes,
    random_connections,
    random_operations,
    table2_variant,
    widest_shallowest,
)

DARTS = get_genotype("darts_v2")


@pytest.fixture
def darts_file(tmp_path: Path) -> Path:
    path = tmp_path / "my cell.yaml"
    path.write_text(yaml.safe_dump(DARTS.as_mapping()))
    return path


def test_every_form_of_a_spec(darts_file: Path) -> None:
    assert get_genotype("darts") == get_genotype(" darts_v2 ") == get_genotype("DARTS-V2") == DARTS
    assert get_genotype(str(DARTS)) == get_genotype(DARTS.as_mapping()) == get_genotype(darts_file) == DARTS
    assert get_genotype("darts:connections=7") == random_connections(DARTS, 7)
    assert get_genotype("darts_v2:operations=3") == random_operations(DARTS, 3)
    assert get_genotype("darts:adapted") == widest_shallowest(DARTS)
    assert get_genotype("enas:adapted") == get_genotype("enas_adapted")
    assert get_genotype("darts:C4") == table2_variant("darts_v2", 4)
    assert get_genotype(f"{darts_file}:connections=7") == random_connections(DARTS, 7)
    assert get_genotype(f"{darts_file}:adapted") == widest_shallowest(DARTS)


def test_every_published_name_resolves_to_its_cells() -> None:
    for name, entry in published_genotypes().items():
        assert get_genotype(name) is entry.genotype


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("dart_v2", "unknown genotype 'dart_v2'; did you mean 'darts_v2'?"),
        ("sgas", "there are sgas_cri1, sgas_cri2"),
        ("qqqqqq", "cells list"),
        ("", "unknown genotype ''"),
        (
            "darts:conections=7",
            "unknown variant 'conections=7'; it must be connections=SEED, operations=SEED",
        ),
        ("darts:connections", "'connections'; it must be connections=SEED"),
        ("darts:connections=x", "the seed 'x' must be an integer"),
        ("darts:connections=-1", "the seed '-1'"),
        ("darts:operations=4294967296", "from 0 to 4294967295"),
        ("darts:C0", "C1 to C13"),
        ("darts:C14", "C1 to C13"),
        ("snas:C4", "table 2 has them for darts_v2, enas, amoebanet, nasnet"),
        ("datrs:C4", "did you mean 'darts'?"),
        ("darts:C4:adapted", "takes one variant"),
        ("darts:", "unknown variant ''"),
        ({"normal": []}, "missing key 'normal_concat', 'reduce', 'reduce_concat'"),
        (DARTS.as_mapping() | {"normall": []}, "unknown key 'normall'; did you mean 'normal'?"),
    ],
)
def test_a_bad_spec_gets_one_line_that_says_what_is_right(spec: Any, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        get_genotype(spec)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("normal: [", "no valid YAML"),
        ("[1, 2]", "expected a mapping"),
        ("", "the file is empty"),
        ("normal: []\nnormal_concat: [2]\nreduce: []\nreduce_concat: [2]\n", "normal cell: 0 edges"),
        ("!!python/object/apply:os.system ['true']", "no valid YAML"),
        ("darts", "or a genotype literal"),
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "cell.yaml"
    path.write_text(content)
    with pytest.raises(ValueError, match=message) as error:
        get_genotype(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
    with pytest.raises(FileNotFoundError, match=r"absent\.yaml is not a file"):
        get_genotype(tmp_path / "absent.yaml")


def test_only_published_cells_have_table_2_variants(darts_file: Path) -> None:
    with pytest.raises(ValueError, match="has no variants C1 to C13"):
        get_genotype(f"{darts_file}:C4")


def test_slugs_are_short_stable_and_fit_for_folders(darts_file: Path) -> None:
    assert genotype_slug("darts") == "darts_v2"
    assert (
        genotype_slug("darts_v2:connections=7")
        == genotype_slug("darts:connections=7")
        == "darts_v2-connections7"
    )
    assert genotype_slug("enas:C4") == "enas-C4"
    assert genotype_slug("snas:adapted") == "snas_mild-adapted"
    assert genotype_slug(darts_file) == "my_cell"
    assert genotype_slug(f"{darts_file}:operations=3") == "my_cell-operations3"
    literal = genotype_slug(str(DARTS))
    assert literal == genotype_slug(DARTS) == genotype_slug(DARTS.as_mapping()) == "genotype-95615ae0"
    assert literal != genotype_slug(get_genotype("darts_v1"))


def test_a_file_that_says_one_thing_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "twice.yaml"
    edges = "[[skip_connect, 0], [skip_connect, 1]]"
    path.write_text(
        f"normal: {edges}\nnormal: {edges}\nnormal_concat: [2]\nreduce: {edges}\nreduce_concat: [2]\n"
    )
    with pytest.raises(ValueError, match=r"twice\.yaml.*'normal' appears twice"):
        get_genotype(path)
