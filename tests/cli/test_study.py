"""`nas-lightning study` as a user types it: real trainings that are killed, fail, and go on elsewhere."""

from __future__ import annotations

import html
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from nas_lightning.cli import study as study_cli
from nas_lightning.cli.study import main
from nas_lightning.study.attempts import read_attempts
from nas_lightning.study.executors import LocalExecutor
from nas_lightning.study.read import read_study
from nas_lightning.study.results import collect_results
from nas_lightning.study.state import Status, run_state
from nas_lightning.study.study import Run
from tests.cli.commands import command, environment, read_metrics, read_result, run_process
from tests.study.made_up_runs import is_alive
from tests.study.test_executors import processes_below

EPOCHS = 24
BASE: dict[str, Any] = {
    "model": {"init_channels": 4, "num_cells": 3, "stem_stride": 2},
    "data": {
        "class_path": "nas_lightning.datamodules.Digits",
        "init_args": {"batch_size": 16, "cutout": 4},
    },
    "trainer": {"max_epochs": EPOCHS, "accelerator": "cpu", "limit_train_batches": 3},
}
GOOD: dict[str, Any] = {"name": "good", "configs": ["base.yaml"], "experiment": "tiny"}
GOOD |= {"axes": {"architectures": ["darts_v2", "darts_v2:C1"]}}
BAD: dict[str, Any] = {"name": "bad", "configs": ["base.yaml"], "experiment": "tiny"}
BAD |= {"settings": {"trainer.profiler": "none", "data.cutout": 5}, "axes": {"architectures": ["darts_v2"]}}
ALL: dict[str, Any] = {"name": "all", "experiment": "tiny", "include": ["good.yaml", "bad.yaml"]}


def write_studies(folder: Path) -> None:
    for name, content in {"base": BASE, "good": GOOD, "bad": BAD, "all": ALL}.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(content))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_studies(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@dataclass(frozen=True)
class Broken:
    """A study that was broken off under the local executor and ended under Ray.

    Attributes:
        folder: Working folder.
        first: The run that was finished when the whole study was killed.
        second: The run in progress then.
        failing: The run that always fails.
        result: Identity of the first run's result when the study was killed.
        table: Names of the runs in the result table then.
        left: Whether anything was alive some seconds after the kill.
        exit_code: Of the second command.
        output: What it printed.
        remains: Whether anything of it was alive after its end.
    """

    folder: Path
    first: Run
    second: Run
    failing: Run
    result: tuple[int, int]
    table: list[str]
    left: bool
    exit_code: int
    output: str
    remains: bool


def wait_for(condition: Callable[[], Any], process: subprocess.Popen[str], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.02)


def epochs_of(run: Run) -> int:
    path = run.folder / "metrics.csv"
    return len(path.read_text().splitlines()) - 1 if path.exists() else 0


def training_of(run: Run, process: subprocess.Popen[str]) -> int:
    """The process below another one that trains a run."""
    for pid in processes_below(process.pid):
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().decode().split("\0")
        if run.name in arguments and "fit" in arguments:
            return pid
    raise AssertionError("no process trains it")


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def start_study(arguments: list[str], folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command(["study", "run", "all.yaml", "--retries", "0", *arguments]),
        cwd=folder,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Broken:
    pytest.importorskip("ray")
    folder = tmp_path_factory.mktemp("broken")
    write_studies(folder)
    study = read_study(folder / "all.yaml", folder / "tb_logs")
    first, second, failing = study.runs
    result = first.folder / "result.json"

    local = start_study(["--jobs", "1"], folder)
    wait_for(lambda: epochs_of(first) >= 2, local)
    os.kill(training_of(first, local), signal.SIGKILL)
    wait_for(lambda: epochs_of(second) >= 2, local)
    below = processes_below(local.pid)
    local.kill()
    local.communicate()
    deadline = time.monotonic() + 10
    while (left := any(map(is_alive, below))) and time.monotonic() < deadline:
        time.sleep(0.1)
    identity = (result.stat().st_ino, result.stat().st_mtime_ns)
    table = pd.read_parquet(study.output_folder / "results.parquet")["run"].tolist()

    ray = start_study(["--jobs", "2", "--executor", "ray"], folder)
    done = epochs_of(second)
    wait_for(lambda: epochs_of(second) >= done + 2, ray)
    below = processes_below(ray.pid)
    os.kill(parent_of(training_of(second, ray)), signal.SIGKILL)
    output = ray.communicate(timeout=200)[0]
    time.sleep(2)
    remains = any(map(is_alive, below))
    return Broken(folder, first, second, failing, identity, table, left, ray.returncode, output, remains)


@pytest.mark.slow
def test_a_killed_worker_is_replaced_and_its_run_goes_on(broken: Broken) -> None:
    outcomes = [(one.executor, one.outcome) for one in read_attempts(broken.first.folder)]
    assert outcomes == [("local", "lost"), ("local", "finished")]
    outcomes = [(one.executor, one.outcome) for one in read_attempts(broken.second.folder)]
    assert outcomes == [("local", None), ("ray", "lost"), ("ray", "finished")]
    assert read_result(broken.second.folder)["finished"] is True


@pytest.mark.slow
def test_a_killed_study_repeats_no_finished_run(broken: Broken) -> None:
    assert not broken.left
    assert broken.table == [broken.first.name]
    result = broken.first.folder / "result.json"
    assert (result.stat().st_ino, result.stat().st_mtime_ns) == broken.result
    assert f"3 runs in {broken.first.folder.parent.relative_to(broken.folder)}, 1 of them" in broken.output


@pytest.mark.slow
def test_what_always_fails_is_reported_with_its_log(broken: Broken) -> None:
    assert broken.exit_code == 1
    assert "2 of 3 runs are finished\nmissing:\n" in broken.output
    assert f"{broken.failing.name}: ended with exit code 2" in broken.output.splitlines()[-1]
    assert "  | nas-lightning: error: When passing string value for the `profiler`" in broken.output
    assert "Traceback" not in broken.output
    assert not broken.remains


@pytest.mark.slow
def test_a_run_that_was_broken_off_twice_has_the_curves_of_an_unbroken_one(broken: Broken) -> None:
    arguments = list(broken.second.arguments)
    arguments[arguments.index("--run") + 1] = "unbroken"
    completed = run_process(arguments, broken.folder)
    assert completed.returncode == 0, completed.stderr
    rows = [
        read_metrics(folder) for folder in (broken.second.folder, broken.second.folder.parent / "unbroken")
    ]
    for row in [row for run_rows in rows for row in run_rows]:
        del row["images_per_second"]
    assert [row["epoch"] for row in rows[0]] == list(range(EPOCHS))
    assert rows[0] == rows[1]


@pytest.mark.slow
def test_status_tells_what_is_on_disk(
    broken: Broken, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(broken.folder)
    main(["study", "status", "all.yaml"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "all: 3 runs in tb_logs/tiny: 2 finished, 1 failed"
    accuracy = read_metrics(broken.first.folder)[-1]["accuracy/test"]
    assert lines[3].split() == [broken.first.name, "finished", f"{EPOCHS}/{EPOCHS}", f"{accuracy:.4f}"]
    assert lines[5].split() == [broken.failing.name, "failed", f"0/{EPOCHS}"]
    assert lines[-1].startswith(f"{broken.failing.name}: ended with exit code 2; see tb_logs/tiny/")
    main(["study", "status", "all.yaml", "--json"])
    record = json.loads(capsys.readouterr().out)
    assert [run["state"] for run in record["runs"]] == ["finished", "finished", "failed"]
    assert [run["attempts"] for run in record["runs"]] == [2, 3, 1]
    assert record["seconds_left"] is None  # one has failed for good, two are finished


@pytest.mark.slow
def test_the_result_tables_have_the_runs_that_ended_under_ray(broken: Broken) -> None:
    study = read_study(broken.folder / "all.yaml", broken.folder / "tb_logs")
    runs = pd.read_parquet(study.output_folder / "results.parquet")
    assert runs["run"].tolist() == [broken.first.name, broken.second.name]
    for row, run in zip(runs.to_dict("records"), (broken.first, broken.second), strict=True):
        assert (row["data"], row["steps_per_epoch"], row["epochs"]) == ("Digits", 3, EPOCHS)
        assert row["final_accuracy"] == read_metrics(run.folder)[-1]["accuracy/test"]
    curves = pd.read_parquet(study.output_folder / "curves.parquet")
    assert len(curves) == 2 * EPOCHS


@pytest.mark.slow
def test_a_report_of_a_half_finished_study_says_what_is_missing(
    broken: Broken, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(broken.folder)
    main(["study", "report", "all.yaml"])
    captured = capsys.readouterr()
    page = Path(captured.out.splitlines()[-1])
    assert page.parts == ("tb_logs", "tiny", "reports", "all", "index.html")
    problems = [line for line in captured.err.splitlines() if line.startswith(broken.failing.name)]
    assert len(problems) == 1
    assert re.search("not started|unfinished", problems[0])
    text = page.read_text()
    assert problems[0] in html.unescape(text)
    assert "darts_v2:C1" in text
    monkeypatch.setattr("nas_lightning.report.page.report_figures", lambda *_: [])  # drawn above
    main(["study", "report", "all.yaml", "--page", "alone.html"])
    assert capsys.readouterr().out.splitlines()[-1] == "alone.html"
    assert "darts_v2:C1" in Path("alone.html").read_text()


@pytest.mark.parametrize(
    ("page", "said"),
    [("alone", "'alone' must end in .html"), ("all.yaml/a.html", "is not a writable folder")],
)
def test_the_page_of_a_report_must_be_one_that_can_be_written(folder: Path, page: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        main(["report", "all.yaml", "--page", page])
    assert not (folder / "tb_logs").exists()


def test_status_of_a_study_that_was_never_started(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["status", "all.yaml", "--root", "elsewhere"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "all: 3 runs in elsewhere/tiny: 3 missing"
    assert [line.split()[1:] for line in lines[3:]] == [["missing", f"0/{EPOCHS}"]] * 3
    assert not (folder / "elsewhere").exists()


def test_plan_lists_the_runs_and_starts_none(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["plan", "all.yaml", "--no_measure"])  # an option of earlier versions
    output = capsys.readouterr().out
    # 3,456 = 3 runs x 24 epochs x 48 images.
    assert re.search(r"^3 runs of 2 architectures, .*, 3,456 training images", output, re.MULTILINE)
    lines = output.splitlines()
    assert "no finished run yet: time unknown" in lines
    assert lines[-1] == "detects nothing: the report has no test for these architectures"
    assert not (folder / "tb_logs").exists()


def test_power_says_what_the_study_can_detect(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    architectures = ["darts_v2", "darts_v2:C1", "darts_v2:C5", "darts_v2:C9", "darts_v2:C12"]
    axes = {"axes": {"architectures": architectures, "seeds": [0, 1]}}
    (folder / "good.yaml").write_text(yaml.safe_dump(GOOD | axes))
    main(["power", "good.yaml", "--noise", "1.5", "--spread", "3", "--studies", "100", "--json"])
    record = json.loads(capsys.readouterr().out)
    assert (record["study"], record["simulated_studies"]) == ("good", 100)
    assert (record["noise"]["seed_points"], record["noise"]["architecture_points"]) == (1.5, 3)
    assert [row["predictor"] for row in record["comparisons"]] == ["width", "depth", "path", "original"]
    assert not (folder / "tb_logs").exists()
    main(["plan", "good.yaml"])
    assert capsys.readouterr().out.splitlines()[-1].startswith("detects nothing: no outcome of its")


def test_no_torch_is_needed_once_settings_are_resolved(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    main(["status", "all.yaml"])
    program = (
        "import sys; from nas_lightning.cli.main import main\n"
        "import nas_lightning.study.run, nas_lightning.study.ray_executor, nas_lightning.study.results\n"
        "for name in ('status', 'commands'): main(['study', name, 'all.yaml'])\n"
        "found = [name for name in ('torch', 'lightning', 'ray', 'matplotlib') if name in sys.modules]\n"
        "for name in ('plan', 'power'): main(['study', name, 'all.yaml'])\n"
        "print(found + [name for name in ('torch', 'lightning', 'ray') if name in sys.modules])"
    )
    completed = subprocess.run(
        [sys.executable, "-c", program], cwd=folder, capture_output=True, text=True, timeout=120, check=True
    )
    assert completed.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["status", "none.yaml"], r"none\.yaml"),
        (["power", "bad.yaml"], "`architectures`: darts_v2 alone has nothing to be compared with"),
        (["power", "all.yaml", "--noise", "0"], "--noise: 0 must be a standard deviation above 0 points"),
        (["power", "all.yaml", "--spread", "-1"], "--spread: -1 must be a standard deviation above 0 points"),
        (["power", "all.yaml", "--studies", "5"], "--studies: 5 must be from 100 to 100000"),
        (["run", "all.yaml", "--jobs", "0"], "--jobs: 0 must be at least 1"),
        (["run", "all.yaml", "--retries", "-1"], "--retries: -1 must be at least 0"),
        (["run", "all.yaml", "--gpus_per_run", "1.5"], "1.5 must be a whole number, or a share from 0 to 1"),
        (["run", "all.yaml", "--gpus_per_run", "nan"], "nan must be a whole number"),
        (["run", "all.yaml", "--executor", "moon"], "invalid choice: 'moon'"),
        (["run", "all.yaml", "--address", "auto"], r"`--address` \(=auto\) is for `--executor ray`"),
        (["run", "all.yaml", "--gpus_per_run", "2"], "a run takes 2 GPUs, and there are 0"),
    ],
)
def test_bad_input_is_refused_before_anything_starts(
    folder: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        main(["study", *arguments])
    assert not (folder / "tb_logs").exists()


@pytest.mark.parametrize(
    ("devices", "arguments", "jobs", "threads"),
    [
        ("", [], 2, 4),  # two runs on eight cores
        ("", ["--jobs", "4"], 4, 2),
        ("0,1,2,3", ["--gpus_per_run", "2"], 2, 4),
        ("0", ["--gpus_per_run", "0.5"], 2, 4),
        ("0", ["--gpus_per_run", "1"], 1, 8),
    ],
)
def test_as_many_runs_at_a_time_as_the_machine_takes(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    devices: str,
    arguments: list[str],
    jobs: int,
    threads: int,
) -> None:
    made: list[LocalExecutor] = []

    def note(study: object, executor: LocalExecutor, **options: object) -> int:
        made.append(executor)
        return 0

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", devices)
    monkeypatch.setattr("nas_lightning.study.executors.cpu_count", lambda: 8)
    monkeypatch.setattr("nas_lightning.study.run.run_study", note)
    study_cli.main(["run", "good.yaml", *arguments])
    assert (made[0].jobs, made[0].threads) == (jobs, threads)
    assert made[0].gpus == len([name for name in devices.split(",") if name])


def test_a_plan_is_of_what_run_would_do(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # Without `accelerator: cpu`.
    (folder / "base.yaml").write_text(yaml.safe_dump({**BASE, "trainer": {"max_epochs": EPOCHS}}))
    (folder / "good.yaml").write_text(yaml.safe_dump(GOOD | {"axes": {"seeds": [0, 1, 2, 3, 4]}}))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5")
    monkeypatch.setattr("nas_lightning.study.estimate.run_seconds", lambda _: [100.0] * 5)
    for arguments, words in (
        ([], "one at a time: about 8.3 min"),
        (["--gpus_per_run", "0.25"], "4 at a time with 0.25 of a GPU each: about 2.1 min"),
        (["--gpus_per_run", "0.25", "--jobs", "2"], "2 at a time with 0.25 of a GPU each: about 4.2 min"),
        (["--gpus_per_run", "0.1"], "5 at a time with 0.1 of a GPU each: about 1.7 min"),
    ):
        main(["plan", "good.yaml", *arguments])
        assert words in capsys.readouterr().out


@pytest.mark.slow
def test_printed_commands_run_and_are_collected_and_resumed(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    contour = {"resolution": 3, "max_samples": 8}
    callback = {"class_path": "nas_lightning.callbacks.LossContour", "init_args": contour}
    (folder / "contour.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks+": [callback]}}))
    content = GOOD | {"analyses": ["contour.yaml"], "settings": {"trainer.max_epochs": 2}}
    (folder / "two words.yaml").write_text(yaml.safe_dump(content))
    main(["commands", "two words.yaml", "--root", "logs of it"])
    lines = capsys.readouterr().out.splitlines()
    study = read_study("two words.yaml", "logs of it")
    assert len(lines) == len(study.runs) == 2
    run = study.runs[1]
    for _ in range(2):  # of a finished run, there is nothing left to do
        completed = subprocess.run(
            ["sh", "-c", lines[1]],
            cwd=folder,
            env=environment() | {"SLURM_NTASKS": "8"},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert completed.returncode == 0, completed.stderr
    assert [run_state(one).status for one in study.runs] == [Status.MISSING, Status.FINISHED]
    result = read_result(run.folder)
    assert result["deciding"] == run.deciding
    results = collect_results(study)
    assert results.runs["run"].tolist() == [run.name]
    assert results.runs["loss_contour.curvature_center"].notna().all()
    assert [problem for problem in results.problems if run.name in problem] == []
    main(["plan", "two words.yaml", "--root", "logs of it"])
    output = capsys.readouterr().out
    assert re.search(r"^time of all runs, .*: about .*, by the runs so far$", output, re.MULTILINE)


def test_without_ray_one_line_says_how_to_get_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ValueError, match=r"pip install 'nas-lightning\[study\]'"):
        main(["run", "all.yaml", "--executor", "ray"])
