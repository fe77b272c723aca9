from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jsonschema import Draft202012Validator

from nas_lightning.audit import audit_structure, level_0_verdict, matched_controls
from nas_lightning.audit import page as page_module
from nas_lightning.audit.document import (
    badge_file,
    cell_record,
    level_0_badge,
    plain,
    read_document,
    schema,
    validate,
    write_document,
)
from nas_lightning.cells import get_genotype
from tests.audit.made_up import NETWORK, made_up_cell, made_up_document, made_up_initial


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return made_up_document([made_up_cell("darts_v2", initial=made_up_initial(40), level=2)], 2)


def subschemas(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
        for entry in value.values():
            yield from subschemas(entry)
    elif isinstance(value, list):
        for entry in value:
            yield from subschemas(entry)


def test_every_field_of_the_schema_is_described() -> None:
    Draft202012Validator.check_schema(schema())
    fields = 0
    for part in subschemas(schema()):
        properties = part.get("properties")
        if not isinstance(properties, dict) or "description" in properties.get("type", {}):
            continue
        for name, field in properties.items():
            assert len(field.get("description", "")) > 4, name
            fields += 1
    assert fields > 150
    open_parts = [name for name, part in schema()["$defs"].items() if "properties" in part]
    open_parts = [name for name in open_parts if "additionalProperties" not in schema()["$defs"][name]]
    assert open_parts == ["settings", "repeat"]


def test_records_of_the_package_fit_the_schema() -> None:
    genotype = get_genotype("gdas")
    structure = audit_structure(genotype, NETWORK)
    initial = made_up_initial(20)
    controls = matched_controls(genotype, 20, init_channels=4, num_cells=3)
    cell = cell_record(
        "gdas",
        "gdas",
        genotype,
        level_0_verdict(structure, initial).record(),
        structure.record(),
        initial=initial.record(),
        initial_controls=controls.record(),
    )
    validate(made_up_document([cell]))


@pytest.fixture
def blank_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages take a second; these tests are about the other files."""
    monkeypatch.setattr(page_module, "page", lambda document: "<!DOCTYPE html>")


@pytest.mark.usefixtures("blank_page")
@pytest.mark.parametrize("level", [0, 1, 2])
def test_what_is_written_is_read(level: int, tmp_path: Path) -> None:
    written = made_up_document([made_up_cell("darts_v2", level=level, controls=5)], level)
    assert write_document(tmp_path, written) == tmp_path / "index.html"
    assert read_document(tmp_path) == read_document(tmp_path / "audit.json") == written
    assert {path.name for path in tmp_path.iterdir()} == {"audit.json", "badge.svg", "index.html"}


@pytest.mark.usefixtures("blank_page")
def test_every_one_of_several_cells_has_a_badge(tmp_path: Path) -> None:
    write_document(tmp_path, made_up_document([made_up_cell("darts_v2"), made_up_cell("gdas")]))
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"audit.json", "badge-darts_v2.svg", "badge-gdas.svg", "index.html"}


def test_the_same_document_gives_the_same_bytes(tmp_path: Path) -> None:
    written = made_up_document([made_up_cell("darts_v2")])
    folders = []
    for name in ("one", "two"):
        write_document(tmp_path / name, written)
        folders.append({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()})
    assert folders[0] == folders[1]


def test_nothing_is_written_of_a_document_that_does_not_fit(document: dict[str, Any], tmp_path: Path) -> None:
    damaged = document | {"level": 7}
    with pytest.raises(ValueError, match="level: 7 is not one of"):
        write_document(tmp_path / "out", damaged)
    assert not (tmp_path / "out").exists()


def test_not_finite_values_are_null() -> None:
    found = plain({"a": (np.float64("nan"), np.inf, -np.inf, np.int64(3)), "b": np.array([1.5, np.nan])})
    assert found == {"a": [None, None, None, 3], "b": [1.5, None]}
    assert json.dumps(plain({"path": Path("a/b"), 1: True, "none": None}), allow_nan=False) == (
        '{"path": "a/b", "1": true, "none": null}'
    )


def at(document: dict[str, Any], *path: str | int) -> Any:
    found: Any = document
    for key in path:
        found = found[key]
    return found


def with_rank_0(document: dict[str, Any]) -> None:
    at(document, "cells", 0, "training", "quantities", 1)["rank"] = 0


def without_badge(document: dict[str, Any]) -> None:
    del at(document, "cells", 0)["badge"]


def with_a_typo(document: dict[str, Any]) -> None:
    at(document, "cells", 0, "verdict")["as_expcted"] = True


def with_a_wrong_edge(document: dict[str, Any]) -> None:
    at(document, "cells", 0, "genotype")["normal"][0] = ["sep_conv_3x3", "zero"]


def with_half_a_standing(document: dict[str, Any]) -> None:
    del at(document, "cells", 0, "structure", "normal", "standings", "ordered", "width")["p_value"]


def without_cells(document: dict[str, Any]) -> None:
    document["cells"] = []


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (with_rank_0, "cells/0/training/quantities/1/rank: 0 is less than"),
        (without_badge, "cells/0: 'badge' is a required property"),
        (with_a_typo, "cells/0/verdict: Additional properties are not allowed .'as_expcted'"),
        (with_a_wrong_edge, "cells/0/genotype/normal"),
        (with_half_a_standing, "standings/ordered/width: 'p_value' is a required"),
        (without_cells, "cells: "),
    ],
)
def test_damage_is_named(
    damage: Callable[[dict[str, Any]], None], message: str, document: dict[str, Any], tmp_path: Path
) -> None:
    damaged = copy.deepcopy(document)
    damage(damaged)
    (tmp_path / "audit.json").write_text(json.dumps(damaged))
    with pytest.raises(ValueError, match=f"audit.json is damaged: .*{message}") as caught:
        read_document(tmp_path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is no audit: it is not JSON"),
        ("{", "is no audit: it is not JSON"),
        ("[" * 100_000, "is no audit: it is not JSON"),
        ("[1]", "is no audit: it is JSON, but"),
        ('{"format": "other"}', "is no audit: it is JSON, but"),
        ('{"format": "nas_lightning audit", "level": NaN}', "NaN is no value of JSON"),
        ('{"format": "nas_lightning audit", "version": 2}', "an audit of version 2, from a newer"),
        (
            '{"format": "nas_lightning audit", "version": 1}',
            "is damaged: the document: 'level' is a required",
        ),
        ('{"format": "nas_lightning audit", "version": "1"}', "is damaged: "),
    ],
)
def test_other_files_are_refused_in_one_line(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"mine.json .*{message}") as caught:
        read_document(path)
    assert "\n" not in str(caught.value)


def test_bytes_that_are_no_text_and_files_that_are_not_there(tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(ValueError, match="is no audit: it is not JSON"):
        read_document(tmp_path / "mine.json")
    with pytest.raises(OSError, match=r"audit\.json"):
        read_document(tmp_path)


def test_the_badge_of_level_0_counts_what_was_decided() -> None:
    many, few = {"count": 200}, {"count": 20}
    keys = ("normal/width", "normal/depth", "normal/path", "reduction/width", "parameters", "multiply_adds")
    plain_wiring: list[dict[str, Any]] = [{"key": key, "stands_out": False} for key in keys]
    weights = [{"stands_out": False}] * 4
    assert level_0_badge({"structure": plain_wiring, "initial": weights}, many) == (
        "level 0: as expected of a random cell"
    )
    assert level_0_badge({"structure": plain_wiring, "initial": weights}, few) == (
        "level 0: wiring and size as expected of a random cell"
    )
    out = [plain_wiring[0] | {"stands_out": True}, *plain_wiring[1:]]
    assert level_0_badge({"structure": out, "initial": weights}, many) == (
        "level 0: unusual in 1 of 10 properties"
    )
    assert level_0_badge({"structure": [], "initial": []}, None) == "level 0: nothing could be tested"
    # 159 controls are the fewest with which four properties can stand out: 4 * 2 / 160 = 0.05.
    for count, said in ((159, "as expected"), (158, "wiring and size as expected")):
        found = level_0_badge({"structure": plain_wiring, "initial": weights}, {"count": count})
        assert found.startswith(f"level 0: {said}")


def test_sentences_of_the_trainings_come_first() -> None:
    cell = made_up_cell("darts_v2", level=1, controls=3)
    assert cell["sentences"] == [*cell["training"]["sentences"], *cell["verdict"]["sentences"]]
    assert cell["badge"] == cell["training"]["badge"]


def test_a_wrong_document_is_refused_when_it_is_assembled() -> None:
    with pytest.raises(ValueError, match="date: '27 November' does not match"):
        made_up_document([made_up_cell("darts_v2")], date="27 November")
    assert badge_file("mine", alone=False) == "badge-mine.svg"
