"""An audit with trainings, from its plan to its document."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from nas_lightning.audit import backdrop, level_0, run
from nas_lightning.audit.controls import matched_controls
from nas_lightning.audit.plan import plan_audit
from nas_lightning.audit.run import run_audit
from nas_lightning.audit.settings import AuditSettings
from nas_lightning.audit.subjects import Subject, read_subjects
from nas_lightning.cells import Genotype, get_genotype, published_genotypes
from nas_lightning.study.study import Study
from tests.study.run_files import write_run

COUNT = 4
SETTINGS = AuditSettings(
    level=1,
    settings={"model.num_cells": 6, "data.batch_size": 48, "trainer.max_epochs": 4},
    controls=COUNT,
    seeds=(0, 1),
    initial=False,
)
"""Those of the runs that `write_run` writes."""


@pytest.fixture(autouse=True)
def one_published_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    few = {"darts_v2": published_genotypes()["darts_v2"]}
    monkeypatch.setattr(backdrop, "published_genotypes", lambda: few)


def test_cells_of_one_class_share_runs_and_are_ranked_among_their_own_controls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reports: list[tuple[int, Path]] = []
    monkeypatch.setattr(run, "write_page", lambda results, path: reports.append((len(results.runs), path)))
    # The second cell is a control of the first: it is trained once, and called by its own name.
    darts = get_genotype("darts_v2")
    other = matched_controls(darts, COUNT, init_channels=8, num_cells=6).genotypes[0]
    subjects = (*read_subjects(["darts_v2"]), Subject("other", str(other), other))
    plan = plan_audit(subjects, SETTINGS)
    assert [controls.seed for _, controls in plan.audited] == [0, 1]
    genotypes = {g for one, controls in plan.audited for g in (one.genotype, *controls.genotypes)}
    trained: list[int] = []

    def train(study: Study, most: int) -> int:
        assert len(study.runs) == 2 * len(genotypes) < 2 * 2 * (COUNT + 1)
        for one in study.runs[:most]:
            if not one.folder.exists():
                cell = one.architecture.genotype
                end = 0.9 if cell == darts else 0.95 if cell == other else 0.92
                accuracy = [0.5, 0.6, 0.7, end + 0.001 * one.seed]
                write_run(one.folder, spec=str(cell), seed=one.seed, accuracy=accuracy, stems=())
                trained.append(one.seed)
        return int(most < len(study.runs))

    def audited(most: int) -> tuple[dict[str, Any], int, str]:
        said: list[str] = []
        document, code = run_audit(
            plan, tmp_path / "a", "command", lambda study: train(study, most), said.append
        )
        return document, code, "\n".join(said)

    document, code, said = audited(2)
    assert code == 1
    assert "not started" in said
    for cell in document["cells"]:
        assert (cell["training"], cell["problem"]) == (None, "its trainings are not finished")
        assert cell["badge"].startswith("level 0: ")
        assert cell["training_controls"]["count"] == COUNT

    seconds = document["repeat"]["seconds"]
    assert not reports
    # From level 2 on, the surfaces of all runs are drawn.
    monkeypatch.setattr(run, "REPORTED_FROM", 1)
    document, code, _ = audited(1000)
    assert reports == [(2 * len(genotypes), tmp_path / "a" / "level_1" / "report.html")]
    # What was done before counts, whoever did it.
    assert document["repeat"]["seconds"]["level_0"] == seconds["level_0"]
    assert document["repeat"]["seconds"]["level_1"] == pytest.approx(
        len(genotypes) * seconds["level_1"], abs=0.1 * len(genotypes)
    )
    assert code == 0
    assert len(trained) == 2 * len(genotypes)
    first, second = (cell["training"] for cell in document["cells"])
    # All others beat or equal the first; the second beats all of its own controls.
    assert (first["quantities"][0]["rank"], second["quantities"][0]["rank"]) == (COUNT + 1, 1)
    assert "other" in first["quantities"][0]["control_names"]
    assert document["cells"][1]["badge"] == f"level 1: rank 1 of {COUNT + 1}, p = 0.2"
    assert document["repeat"]["seeds"] == {"controls": [0, 1], "trainings": [0, 1]}
    assert document["settings"]["training"]["data"] == "Digits"

    (tmp_path / "a" / "audit.json").write_text(json.dumps(document))
    lower = plan_audit(subjects, dataclasses.replace(SETTINGS, level=0))
    with pytest.raises(ValueError, match="holds an audit of level 1, whose page --level 0 would replace"):
        run_audit(lower, tmp_path / "a", "command", lambda study: 0, print)


def test_published_cells_are_measured_once_or_say_why_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gdas = published_genotypes()["gdas"]
    single = [[("sep_conv_3x3", 0)]]
    alone = dataclasses.replace(gdas, name="alone", genotype=Genotype(single, [2], single, [2]))
    monkeypatch.setattr(run, "published_genotypes", lambda: {"gdas": gdas, "alone": alone})
    settings = AuditSettings(
        settings={"model.num_cells": 4, "model.init_channels": 4},
        initial_controls=3,
        initial_seeds=(0,),
        images=2,
    )
    said: list[str] = []
    first, second = run.audit_published_initial(settings, tmp_path / "all", said.append)
    assert (first["name"], first["problem"], first["initial_controls"]["count"]) == ("gdas", None, 3)
    assert (second["name"], set(second)) == ("alone", {"name", "problem"})
    assert "no matched control" in second["problem"]
    assert said == [f"{name}: initial weights, {n} of 2 ..." for n, name in ((1, "gdas"), (2, "alone"))]
    monkeypatch.setattr(level_0, "audit_initial", None)
    assert run.audit_published_initial(settings, tmp_path / "all", said.append) == [first, second]
