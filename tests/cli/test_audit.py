"""`nas-lightning audit` as a user types it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from nas_lightning.audit import backdrop, initial, level_0, page, published, run
from nas_lightning.audit.document import read_document
from nas_lightning.audit.folder import claim_folder
from nas_lightning.audit.initial import Initial
from nas_lightning.audit.plan import plan_audit
from nas_lightning.audit.settings import AuditSettings
from nas_lightning.audit.study import write_study
from nas_lightning.audit.subjects import read_subjects
from nas_lightning.cells import Genotype, get_genotype, published_genotypes
from nas_lightning.cli import audit as audit_cli
from nas_lightning.cli.main import main
from tests.audit.test_page import unpainted
from tests.cli.commands import command, environment, refusal
from tests.study.run_files import write_run

TINY = (
    *("--initial_controls=3", "--initial_seeds=1", "--images=2"),
    *("--model.num_cells=3", "--model.init_channels=4"),
)


@pytest.fixture(autouse=True)
def two_published_cells_and_no_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    """All cells would be measured anew for the tiny network."""
    monkeypatch.setattr(page, "still", unpainted)
    few = {name: published_genotypes()[name] for name in ("darts_v2", "enas")}
    monkeypatch.setattr(backdrop, "published_genotypes", lambda: few)


def audit(folder: Path, *arguments: str) -> dict[str, Any]:
    main(["audit", *arguments, *TINY, "-o", str(folder)])
    return read_document(folder / "audit.json")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-o", "new"], "no SPEC"),
        (["darts_v2"], "no -o FOLDER"),
        (["darts_v2", "nasnet", "-o", "new"], "belong to different spaces"),
        (["darts_v2", "-o", "new", "--level", "3"], "--level"),
        (["darts_v2", "-o", "new", "--level", "1", "--controls", "2"], "2 must be from 3"),
        (["darts_v2", "-o", "new", "--initial_controls", "2"], "2 must be from 3"),
        (["darts_v2", "-o", "new", "--data", "MNIST"], "MNIST"),
        (["darts_v2", "-o", "new", "--data.rot", "x"], "data.rot"),
        (["darts_v2", "-o", "new", "--data.root"], "--data.root needs a value"),
        (["darts_v2", "-o", "new", "--model.genotype", "enas"], "as SPEC"),
        (["darts_v2", "-o", "new", "--model.num_cells", "0"], "num_cells"),
        (["darts_v2", "-o", "new", "--model.stem", "imagenet"], "must be cifar"),
        (["darts_v2", "-o", "new", "--trainer.max_epochs", "3"], "level 0 trains nothing"),
        (["darts_v2", "-o", "new", "--level=1", "--trainer.max_epocs", "3"], "max_epocs"),
        (["darts_v2", "-o", "new", "--level=1", "--address", "here"], "--executor ray"),
        (["darts_v2", "-o", "new", "--config", "absent.yaml"], "absent.yaml"),
        (["darts_v2", "-o", "new", "--compare", "absent.json"], "absent.json"),
        (["darts_v2", "-o", "new", "--data.batch_size", "5000"], "`batch_size` (=5000)"),
        (["darts_v2", "--plan"], "--plan is for --level 1 and 2"),
        (["darts_v2", "-o", "file/new"], "file"),
        (["--all", "darts_v2"], "leave out SPEC"),
        (["--all"], "--no_initial"),
        (["--all", "--no_initial", "--level", "1"], "--level"),
        (["--all", "--no_initial", "--trainer.max_epochs", "3"], "level 0 trains nothing"),
        (["--all", "--no_initial", "--model.num_cells", "few"], "`model.num_cells` (=few)"),
        (["--all", "-o", "new", "--model.num_classes", "2.5"], "`model.num_classes` (=2.5)"),
        (["--all", "--no_initial", "--model.num_cels", "3"], "--model.num_cels says nothing"),
        (["--all", "--no_initial", "--config", "absent.yaml"], "--config says nothing"),
        (["--all", "--no_initial", "-o", "file/new"], "file"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_gets_one_line_and_writes_nothing(
    arguments: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    line = refusal(["audit", *arguments], capsys)
    assert said in line
    assert len(line) < 400
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_cell_without_controls_or_sizes_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(
        "from torch import nn\n"
        "from nas_lightning.networks import register_operation\n"
        "register_operation('own_gate', lambda channels, stride, affine: nn.Identity())\n"
    )
    own = str(get_genotype("darts_v2")).replace("skip_connect", "own_gate")
    line = refusal(["audit", own, "--model.operations", "[mine.py]", "-o", "new"], capsys)
    assert "own_gate" in line
    assert not (tmp_path / "new").exists()


def test_level_0_says_and_writes_what_it_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document = audit(tmp_path / "a", "darts_v2", "darts_v2:connections=7")
    said = re.sub(r"\s+", " ", capsys.readouterr().out)
    assert [cell["name"] for cell in document["cells"]] == ["darts_v2", "darts_v2-connections7"]
    for cell in document["cells"]:
        assert all(sentence in said for sentence in cell["sentences"])
        assert (tmp_path / "a" / f"badge-{cell['name']}.svg").is_file()
        assert cell["initial_controls"]["count"] == 3
    seeds = [cell["initial_controls"]["seed"] for cell in document["cells"]]
    assert seeds == [0, 1]
    assert document["repeat"]["command"].startswith("nas-lightning audit darts_v2 darts_v2:connections=7 ")
    assert set(document["repeat"]["data"]["sha256"]) == {"train", "test"}
    text = (tmp_path / "a" / "index.html").read_text()
    assert document["repeat"]["data"]["sha256"]["train"] in text
    assert str(tmp_path / "a" / "index.html") in said


def test_an_audit_goes_on_where_it_was_and_beside_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first = audit(tmp_path / "a", "darts_v2")
    other = audit(tmp_path / "b", "enas")

    def fail(*_: object, **__: object) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr(level_0, "audit_initial", fail)
    again = audit(tmp_path / "a", "darts_v2", "--compare", str(tmp_path / "b"))
    assert again["cells"] == first["cells"]
    sides = again["compared_with"]["cells"]
    assert {side["badge"] for side in sides} == {first["cells"][0]["badge"], other["cells"][0]["badge"]}
    capsys.readouterr()
    line = refusal(["audit", "darts_v1", *TINY, "-o", str(tmp_path / "a")], capsys)
    assert "holds another audit, of darts_v2" in line
    assert read_document(tmp_path / "a" / "audit.json") == again


def test_a_level_that_is_stopped_early_leaves_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["audit", "darts_v2", "--no_initial", "-o", str(tmp_path / "a")]
    main(arguments)
    before = {
        name: (tmp_path / "a" / name).read_bytes() for name in ("audit.json", "index.html", "badge.svg")
    }
    monkeypatch.setattr(audit_cli, "run_with", lambda options, study: 130)
    with pytest.raises(SystemExit) as stopped:
        main([*arguments, "--level=1", "--controls=3", "--seeds=1"])
    assert stopped.value.code == 130
    assert "the page stays as it was" in capsys.readouterr().err
    assert {name: (tmp_path / "a" / name).read_bytes() for name in before} == before


@pytest.mark.slow
def test_a_killed_audit_keeps_the_cells_that_are_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    specs = [f"darts_v2:connections={seed}" for seed in (1, 2)]
    arguments = ["audit", *specs, *TINY[1:], "--initial_controls=12", "-o", "out"]
    process = subprocess.Popen(
        command(arguments), cwd=tmp_path, env=environment(), start_new_session=True, stderr=subprocess.PIPE
    )
    pieces = tmp_path / "out" / "level_0"
    deadline = time.monotonic() + 120
    while not list(pieces.glob("darts*.json")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert process.poll() is None, process.communicate()
    process.kill()
    try:
        process.communicate(timeout=60)  # its own processes hold the pipe until they have ended, too
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    kept = {path.name: path.read_bytes() for path in pieces.glob("darts*.json")}
    assert kept
    assert not (tmp_path / "out" / "audit.json").exists()

    measured = []
    real = initial.audit_initial

    def counted(genotype: Genotype, *rest: Any) -> Initial:
        measured.append(genotype)
        return real(genotype, *rest)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(level_0, "audit_initial", counted)
    main(arguments)
    capsys.readouterr()
    assert len(measured) == len(specs) - len(kept)
    assert {name: (pieces / name).read_bytes() for name in kept} == kept
    assert len(read_document(tmp_path / "out")["cells"]) == len(specs)


def test_the_plan_says_what_is_trained_and_what_it_detects(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    main(["audit", "darts_v2", "--level", "1", "--plan", "--seeds", "2"])
    said = capsys.readouterr().out
    assert "40 runs of 20 architectures" in said
    assert re.search(r"With 19 controls and 2 seeds, a cell that lies 0\.\d+ points", said.replace("\n", " "))
    assert not list(tmp_path.iterdir())


def test_a_plan_changes_no_audit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    subjects = read_subjects(["darts_v2"])
    settings = AuditSettings(level=1, controls=3, seeds=(0,), initial=False)
    plan = plan_audit(subjects, settings)
    claim_folder(tmp_path / "a", subjects, settings, {})
    assert plan.budget is not None
    study = write_study(tmp_path / "a", plan.audited, plan.budget)
    write_run(study.runs[0].folder, epochs=study.runs[0].epochs)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    main(["audit", "darts_v2", "--level=1", "--plan", "--controls=4", "--seeds=1", "-o", "a"])
    said = capsys.readouterr().out
    assert "5 runs of 5 architectures" in said
    assert "With 4 controls no rank has p <= 0.05" in said
    assert "by the runs so far" in said
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_published_cells_stand_in_a_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    few = {name: published_genotypes()[name] for name in ("nasnet", "darts_v2", "gdas")}
    monkeypatch.setattr(published, "published_genotypes", lambda: few)
    main(["audit", "--all", "--no_initial", "-o", str(tmp_path / "all")])
    said = capsys.readouterr().out
    record = json.loads((tmp_path / "all" / "published.json").read_text())
    assert [cell["name"] for cell in record["cells"]] == list(few)
    for cell in record["cells"]:
        assert f"\n{cell['name']} " in said
    assert "| darts_v2 " in (tmp_path / "all" / "published.md").read_text()


def test_initial_weights_of_published_cells_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    few = {name: published_genotypes()[name] for name in ("nasnet", "darts_v2")}
    for module in (published, run):
        monkeypatch.setattr(module, "published_genotypes", lambda: few)
    arguments = ["audit", "--all", *TINY, "-o", str(tmp_path)]
    main(arguments)
    assert "2 published cells audited" in capsys.readouterr().out
    record = json.loads((tmp_path / "published.json").read_text())
    assert [cell["name"] for cell in record["initial"]] == list(few)
    assert all(cell["initial_controls"]["count"] == 3 for cell in record["initial"])
    assert "### Initial weights" in (tmp_path / "published.md").read_text()

    def fail(*_: object, **__: object) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr(level_0, "audit_initial", fail)
    main(arguments)
    assert json.loads((tmp_path / "published.json").read_text()) == record
