from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import yaml

from nas_lightning.audit.folder import FILE, claim_folder
from nas_lightning.audit.settings import AuditSettings
from nas_lightning.audit.subjects import read_subjects

NETWORK = {"num_cells": 5, "data": {"data.class_path": "Digits"}}
SUBJECTS = read_subjects(["darts_v2"])


def claimed(folder: Path, settings: AuditSettings, network: dict[str, Any] | None = None) -> dict[str, Any]:
    claim_folder(folder, SUBJECTS, settings, network or NETWORK)
    content: dict[str, Any] = yaml.safe_load((folder / FILE).read_text())
    return content


def test_a_folder_gets_levels_and_keeps_them(tmp_path: Path) -> None:
    folder = tmp_path / "new"
    assert "level_1" not in claimed(folder, AuditSettings())
    trained = claimed(folder, AuditSettings(level=1))
    assert trained["level_1"]["controls"] == 19
    assert claimed(folder, AuditSettings()) == trained
    before = (folder / FILE).stat().st_mtime_ns
    assert claimed(folder, AuditSettings(level=1)) == trained
    assert (folder / FILE).stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"controls": 39}, "another `controls` (19; now 39)"),
        ({"seeds": (0,)}, "another `seeds`"),
        ({"control_seed": 5}, "another `control_seed` (0; now 5)"),
        ({"initial_controls": 100}, "another `initial_controls` (200; now 100)"),
        ({"settings": {"trainer.max_epochs": 3}}, "another `settings"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_an_audit_with_other_settings_is_refused(tmp_path: Path, changed: dict[str, Any], said: str) -> None:
    settings = AuditSettings(level=1)
    before = claimed(tmp_path / "a", settings)
    with pytest.raises(ValueError, match="give another folder") as error:
        claim_folder(tmp_path / "a", SUBJECTS, dataclasses.replace(settings, **changed), NETWORK)
    assert said in str(error.value)
    assert yaml.safe_load((tmp_path / "a" / FILE).read_text()) == before


def test_another_cell_or_network_is_refused(tmp_path: Path) -> None:
    claimed(tmp_path / "a", AuditSettings())
    with pytest.raises(ValueError, match="holds another audit, of darts_v2: give another folder"):
        claim_folder(tmp_path / "a", read_subjects(["darts_v1"]), AuditSettings(), NETWORK)
    with pytest.raises(ValueError, match=r"another `num_cells` \(5; now 6\)"):
        claim_folder(tmp_path / "a", SUBJECTS, AuditSettings(), NETWORK | {"num_cells": 6})


def test_a_folder_of_other_files_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("all of it")
    with pytest.raises(ValueError, match=f"holds other files and no {FILE}"):
        claimed(tmp_path, AuditSettings())
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="is no folder"):
        claimed(tmp_path / "file", AuditSettings())
