"""What a study measures between seeds: which runs, in which order, and what happens to a failing process."""

from __future__ import annotations

import dataclasses
import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from nas_lightning.cli.study import between_text
from nas_lightning.study import jobs
from nas_lightning.study.between import Between, between_seeds
from nas_lightning.study.executors import ExecutorGoneError, Job, LocalExecutor
from nas_lightning.study.read import read_study
from nas_lightning.study.results import collect_results
from nas_lightning.study.run import run_study
from nas_lightning.study.study import Run, Study
from tests.study.made_up_runs import made_up_command, made_up_run, made_up_study

CONFIGS = Path(__file__).parents[2] / "configs"
PROGRAM = """
import os, signal, sys
import numpy as np, xarray as xr
from nas_lightning.netcdf import write_dataset
folder, stem, behaviour = sys.argv[1:]
with open(os.path.join(folder, "starts.txt"), "a") as file:
    file.write("x")
number = len(open(os.path.join(folder, "starts.txt")).read())
if behaviour == "killed" and number == 1:
    os.kill(os.getpid(), signal.SIGKILL)
if behaviour == "fails":
    sys.exit("no such line")
done = np.ones((1, 2), np.int8)
dataset = xr.Dataset({"done": (("pair", "position"), done)}, attrs={"kind": stem})
write_dataset(os.path.join(folder, "landscape", stem + "-x.nc"), dataset)
"""


@pytest.fixture(autouse=True)
def made_up_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "run_command", made_up_command)


def seeded(root: Path, cell: str, seed: int) -> Run:
    deciding = {"seed_everything": seed, "model.genotype": cell}
    run = made_up_run(root, f"{cell}-digits-seed{seed}-12345678", trained_seed=seed)
    return dataclasses.replace(run, seed=seed, deciding={**run.deciding, **deciding})


def study_with(root: Path, *measures: str, cells: str = "ab", seeds: int = 3) -> Study:
    runs = [seeded(root, cell, seed) for seed in range(seeds) for cell in cells]
    files = {measure: (root / f"{measure}.yaml",) for measure in measures}
    return dataclasses.replace(made_up_study(root, runs), between_seeds=files)


def run_all(study: Study) -> tuple[int, list[str]]:
    output = io.StringIO()
    code = run_study(study, LocalExecutor(2), output=output)
    return code, output.getvalue().splitlines()


def with_processes(monkeypatch: pytest.MonkeyPatch, **behaviour: str) -> None:
    def command(one: Between) -> tuple[str, ...]:
        stem = "mode_connectivity" if one.measure == "connectivity" else "interpolation"
        how = behaviour.get(one.name[0], "finishes")
        return (sys.executable, "-c", PROGRAM, str(one.folder), stem, how)

    monkeypatch.setattr(Between, "command", property(command))


def test_lines_are_between_all_seeds_and_a_curve_between_two(tmp_path: Path) -> None:
    study = study_with(tmp_path, "interpolation", "connectivity")
    lines_a, lines_b, curve_a, _ = between_seeds(study)
    assert [run.name for run in lines_a.runs] == [f"a-digits-seed{seed}-12345678" for seed in range(3)]
    assert [run.name for run in curve_a.runs] == [f"a-digits-seed{seed}-12345678" for seed in range(2)]
    assert lines_a.name.startswith("a-digits-interpolation-")
    assert lines_b.name.startswith("b-digits-interpolation-")
    checkpoints = [str(run.folder.absolute() / "checkpoints" / "last.ckpt") for run in lines_a.runs]
    at = lines_a.command.index("--between")
    assert list(lines_a.command[at + 1 : at + 4]) == checkpoints
    assert json.dumps(checkpoints[:2]) in curve_a.command
    assert curve_a.command[curve_a.command.index("--run") + 1] == curve_a.name
    assert between_seeds(study_with(tmp_path, "interpolation", seeds=1)) == ()


def test_a_study_measures_between_its_seeds_after_its_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_processes(monkeypatch, b="killed")
    study = study_with(tmp_path, "interpolation", "connectivity", seeds=2)
    assert between_text(study).endswith("0 of 2 by interpolation, 0 of 2 by connectivity")
    code, lines = run_all(study)
    assert code == 0, "\n".join(lines)
    assert lines[-1] == "4 of 4 runs are finished"
    names = [one.name for one in between_seeds(study)]
    for name in names:
        assert f"{name}: finished" in lines
    assert sum("lost (" in line for line in lines) == 2
    assert between_text(study).endswith("2 of 2 by interpolation, 2 of 2 by connectivity")
    _, lines = run_all(study)
    assert not any(line.startswith(tuple(names)) for line in lines)  # nothing is measured again
    retrained = study.runs[0].folder / "checkpoints" / "last.ckpt"
    retrained.parent.mkdir()
    retrained.touch()
    assert between_text(study).endswith("1 of 2 by interpolation, 1 of 2 by connectivity")


def test_its_folders_are_no_strangers_in_the_results(tmp_path: Path) -> None:
    study = study_with(tmp_path, "interpolation", "connectivity", seeds=2)
    for one in between_seeds(study):
        (one.folder / "landscape").mkdir(parents=True)
    assert not [problem for problem in collect_results(study).problems if "belong" in problem]


def test_what_fails_is_named_and_stops_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_processes(monkeypatch, a="fails")
    study = study_with(tmp_path, "interpolation", seeds=2)
    broken = dataclasses.replace(study, runs=(*study.runs, *(never(tmp_path, seed) for seed in range(2))))
    code, lines = run_all(broken)
    assert code == 1
    first, second, third = between_seeds(broken)
    assert f"{second.name}: finished" in lines
    assert "  | no such line" in lines
    at = lines.index("missing between seeds:")
    assert sorted(lines[at + 1 : at + 3]) == [
        f"  {first.name}: ended with exit code 1 ({first.folder / 'log.txt'})",
        f"  {third.name}: c-digits-seed0-12345678 is not finished",
    ]


def test_what_cannot_be_started_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = study_with(tmp_path, "interpolation", cells="a", seeds=2)
    names = [one.name for one in between_seeds(study)]
    started = LocalExecutor.start

    def start(self: LocalExecutor, job: Job) -> None:
        if job.name in names:
            raise OSError("no process left")
        started(self, job)

    monkeypatch.setattr(LocalExecutor, "start", start)
    code, lines = run_all(study)
    assert code == 1
    assert lines[-1:] == [f"  {name}: could not be started: no process left" for name in names]

    def gone(self: LocalExecutor, gpus: float | int) -> bool:
        raise ExecutorGoneError("no machine left")

    monkeypatch.setattr(LocalExecutor, "has_room", gone)
    code, lines = run_all(study)
    assert code == 1
    assert lines[-1:] == [f"  {name}: no machine left" for name in names]


def never(root: Path, seed: int) -> Run:
    run = made_up_run(root, f"c-digits-seed{seed}-12345678", fails=9)
    return dataclasses.replace(run, seed=seed, deciding={"seed_everything": seed, "model.genotype": "c"})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("between_seeds: {lines: []}", "unknown measurement of `between_seeds` 'lines'"),
        ("between_seeds: [a.yaml]", "`between_seeds` .* must be a mapping: interpolation, connectivity"),
        ("between_seeds: {interpolation: no.yaml}", "`interpolation` .* must be a list of files"),
        ("between_seeds: {connectivity: [no.yaml]}", "`between_seeds: connectivity`: no.yaml is not a file"),
        (
            f"between_seeds: {{interpolation: [{CONFIGS / 'connectivity.yaml'}]}}",
            "`between_seeds: interpolation`: .* holds ModeConnectivity, which measures something else",
        ),
        (
            f"between_seeds: {{connectivity: [{CONFIGS / 'landscape.yaml'}]}}",
            "`between_seeds: connectivity`: .* holds LossContour, which measures something else",
        ),
    ],
)
def test_wrong_settings_are_refused(tmp_path: Path, text: str, message: Any) -> None:
    configs = CONFIGS / "quickstart.yaml"
    path = tmp_path / "study.yaml"
    path.write_text(f"name: x\nconfigs: [{configs}]\naxes: {{seeds: [0, 1]}}\n{text}\n")
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        read_study(path)
