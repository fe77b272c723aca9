from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nas_lightning.audit import backdrop, level_0, pieces
from nas_lightning.audit.backdrop import initial_medians, measured_medians, published_backdrop
from nas_lightning.audit.data import audit_data
from nas_lightning.audit.level_0 import audit_level_0, draw_controls, level_0_network
from nas_lightning.audit.settings import AuditSettings
from nas_lightning.audit.study import Budget
from nas_lightning.audit.subjects import read_subjects
from nas_lightning.cells import cell_width, published_genotypes

SMALL = AuditSettings(
    settings={"model.num_cells": 3, "model.init_channels": 4},
    initial_controls=3,
    initial_seeds=(0, 1),
    images=2,
)
(SUBJECT,) = read_subjects(["darts_v2"])


def measured(folder: Path | None, settings: AuditSettings = SMALL) -> dict[str, Any]:
    data = audit_data(settings)
    network = level_0_network(settings, data)
    controls = draw_controls(SUBJECT, settings.initial_controls, settings.control_seed, network)
    return audit_level_0(SUBJECT, controls, settings, network, data, folder)


def test_a_piece_is_kept_and_measured_anew_for_other_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = measured(tmp_path)
    assert first["initial_controls"]["count"] == 3
    assert first["initial"]["statistics"]["gradient_norm"]["standing"]["total"] == 3

    def fail(*_: object, **__: object) -> None:
        raise AssertionError("measured again")

    with monkeypatch.context() as patch:
        patch.setattr(level_0, "audit_initial", fail)
        assert measured(tmp_path) == json.loads(json.dumps(first))
        with pytest.raises(AssertionError, match="measured again"):
            measured(tmp_path, AuditSettings(**{**vars(SMALL), "images": 3}))
    path = tmp_path / level_0.FOLDER / "darts_v2.json"
    path.write_text(path.read_text()[:100])
    again = measured(tmp_path)
    assert again["initial"] == first["initial"]


@pytest.mark.parametrize("damage", [("3", "4"), ('"value": 3', '"other": 3'), ("}}", "}"), ("{", "[")])
def test_a_damaged_piece_is_none(tmp_path: Path, damage: tuple[str, str]) -> None:
    path, found = tmp_path / "a.json", {"value": 3, "none": float("nan"), "text": "é"}
    pieces.write_piece(path, "key", found)
    assert str(pieces.read_piece(path, "key")) == str(found)
    text = path.read_text()
    start = text.index('"found"')
    path.write_text(text[:start] + text[start:].replace(*damage))
    assert pieces.read_piece(path, "key") is None


def test_the_data_say_what_they_are_and_hash_alike(capfd: pytest.CaptureFixture[str]) -> None:
    first, second = audit_data(SMALL), audit_data(SMALL)
    assert first.name == "Digits"
    assert first.checksums == second.checksums
    assert set(first.checksums) == {"train", "test"}
    held_out = AuditSettings(settings={"data.validation_fraction": 0.1})
    assert audit_data(held_out).checksums["train"] != first.checksums["train"]
    assert "test split" not in capfd.readouterr().err


@pytest.mark.parametrize(
    ("level", "config", "data", "wanted"),
    [
        (1, "trainer: {max_epochs: 2}", None, "Digits"),
        (2, "trainer: {max_epochs: 2}", None, "CIFAR10"),
        (2, "data: {class_path: FashionMNIST}", None, "FashionMNIST"),
        (1, "data: {class_path: FashionMNIST}", "CIFAR100", "CIFAR100"),
    ],
)
def test_the_data_are_those_of_the_trainings(
    tmp_path: Path, level: int, config: str, data: str | None, wanted: str
) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(config)
    settings = AuditSettings(level=level, data=data, configs=(path,))
    trained = Budget(level, (0,), settings.named_data, settings.configs).resolved()
    assert audit_data(settings).name == str(trained["data.class_path"]).rpartition(".")[2] == wanted


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (AuditSettings(data="MNIST"), "MNIST"),
        (AuditSettings(settings={"data.rot": "x"}), "data.rot"),
        (AuditSettings(settings={"model.num_cells": 0}), "num_cells"),
        (AuditSettings(configs=(Path("absent.yaml"),)), "absent.yaml"),
    ],
    ids=["data", "key", "value", "file"],
)
def test_wrong_settings_are_those_of_fit(settings: AuditSettings, said: str) -> None:
    with pytest.raises((ValueError, OSError), match=said):
        audit_data(settings)


def test_the_kept_backdrop_is_what_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = AuditSettings()
    data = audit_data(settings)
    network = level_0_network(settings, data)
    monkeypatch.setattr(backdrop, "measured_medians", None)
    kept = initial_medians(settings, network, data, None)
    monkeypatch.undo()
    few = {name: published_genotypes()[name] for name in ("snas_aggressive", "darts_v2")}
    monkeypatch.setattr(backdrop, "published_genotypes", lambda: few)
    for name, statistics in measured_medians(settings, network, data).items():
        # In float32, a unit that is at its kink in one order of sums is not in another.
        assert statistics == pytest.approx(kept[name], rel=0.1)


def test_the_backdrop_has_every_published_cell(tmp_path: Path) -> None:
    settings = AuditSettings(initial=False)
    data = audit_data(settings)
    entries = published_backdrop(settings, level_0_network(settings, data), data, tmp_path)
    assert [entry["name"] for entry in entries] == list(published_genotypes())
    for entry in entries:
        cell = published_genotypes()[entry["name"]].genotype
        assert entry["normal_width"] == cell_width(cell.normal, cell.normal_concat)
        assert entry["initial"] is None
