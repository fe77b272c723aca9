from __future__ import annotations

import copy
from typing import Any

import pytest

from nas_lightning.audit.compare import compare
from nas_lightning.audit.document import validate
from tests.audit.made_up import made_up_cell, made_up_document, made_up_initial


@pytest.fixture(scope="module")
def trained() -> dict[str, Any]:
    return made_up_document([made_up_cell("darts_v2", initial=made_up_initial(40), level=1)], 1)


@pytest.fixture(scope="module")
def untrained() -> dict[str, Any]:
    return made_up_document([made_up_cell("darts_v2"), made_up_cell("gdas")])


def compared(document: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    found = compare(document, other, "other/audit.json")
    validate(document | {"compared_with": found})
    return found


def test_an_audit_beside_itself_agrees_in_everything(trained: dict[str, Any]) -> None:
    found = compared(trained, copy.deepcopy(trained))
    assert found["settings"] == []
    assert len(found["comparable"]) == 4
    (only,) = found["not_comparable"]
    assert only.startswith("Ranks of two cells with one another")
    one, two = found["cells"]
    assert one | {"audit": "other"} == two
    assert one["same_as"] == ["darts_v2"]
    ranks = [(found["name"], found["rank"]) for found in trained["cells"][0]["training"]["quantities"]]
    assert [(found["name"], found["rank"]) for found in one["ranks"]] == ranks


def test_cells_are_matched_by_their_genotypes_not_their_names(
    trained: dict[str, Any], untrained: dict[str, Any]
) -> None:
    renamed = copy.deepcopy(untrained)
    renamed["cells"][0]["name"], renamed["cells"][1]["name"] = "mine", "darts_v2"
    found = compared(trained, renamed)
    assert [(side["audit"], side["name"], side["same_as"]) for side in found["cells"]] == [
        ("this", "darts_v2", ["mine"]),
        ("other", "mine", ["darts_v2"]),
        ("other", "darts_v2", []),
    ]


def test_trainings_of_one_audit_alone_are_not_compared(
    trained: dict[str, Any], untrained: dict[str, Any]
) -> None:
    found = compared(trained, untrained)
    assert "Trainings: only this audit has any." in found["not_comparable"]
    assert [entry["setting"] for entry in found["settings"]] == []
    assert "Trainings: only the other audit has any." in compared(untrained, trained)["not_comparable"]
    assert compared(untrained, untrained)["not_comparable"] == []


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("settings", "network", "init_channels"), 36, "Parameters, multiply-adds and initial weights"),
        (("settings", "data", "name"), "CIFAR10", "Values at the initial weights"),
        (("repeat", "data", "sha256", "train"), "c" * 64, "Values at the initial weights"),
        (("cells", 0, "training", "epochs"), 7, "Accuracies and other results of trainings"),
        (("cells", 0, "training", "seeds"), [5], "Accuracies and other results of trainings"),
        (("repeat", "versions", "torch"), "2.15.0", "Exact values to the last digit"),
    ],
)
def test_settings_that_differ_are_shown_and_rule_things_out(
    path: tuple[str | int, ...], value: Any, said: str, trained: dict[str, Any]
) -> None:
    other = copy.deepcopy(trained)
    place: Any = other
    for key in path[:-1]:
        place = place[key]
    before, place[path[-1]] = place[path[-1]], value
    found = compared(trained, other)
    assert any(line.startswith(said) for line in found["not_comparable"])
    assert not any(line.startswith(said) for line in found["comparable"])
    (entry,) = found["settings"]
    assert (entry["this"], entry["other"]) == (before, value)
    assert entry["setting"].endswith(str(path[-1]))


def test_where_the_data_lie_makes_no_difference(trained: dict[str, Any]) -> None:
    other = copy.deepcopy(trained)
    other["settings"]["data"]["root"] = "/elsewhere"
    assert compared(trained, other)["settings"] == []
