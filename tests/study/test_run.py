"""What the runner does with runs that finish, fail, are killed, or belong to someone else."""

from __future__ import annotations

import fcntl
import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from nas_lightning.netcdf import write_dataset
from nas_lightning.study import jobs, progress
from nas_lightning.study.attempts import read_attempts, write_attempts
from nas_lightning.study.executors import ExecutorGoneError, Job, LocalExecutor
from nas_lightning.study.jobs import gpus_of, run_command, run_job
from nas_lightning.study.progress import StudyProgress
from nas_lightning.study.run import run_study
from nas_lightning.study.state import Status, run_state
from nas_lightning.study.study import AnalysisFile, Run, Study
from tests.study.made_up_runs import is_alive, made_up_command, made_up_run, made_up_study, starts
from tests.study.test_executors import wait_for


@pytest.fixture(autouse=True)
def made_up_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "run_command", made_up_command)


def run_all(study: Study, parallel: int = 2, **options: Any) -> tuple[int, list[str]]:
    """Exit code and printed lines."""
    output = io.StringIO()
    code = run_study(study, LocalExecutor(parallel), output=output, **options)
    return code, output.getvalue().splitlines()


def outcomes(run: Run) -> list[str | None]:
    return [attempt.outcome for attempt in read_attempts(run.folder)]


def test_every_run_is_started_once_in_order_and_a_finished_one_never_again(tmp_path: Path) -> None:
    runs = [made_up_run(tmp_path, f"r{number}", seconds=0.02) for number in range(4)]
    study = made_up_study(tmp_path, runs)
    code, lines = run_all(study, parallel=1)
    assert code == 0
    assert lines[0] == f"4 runs in {study.folder}, 0 of them finished"
    assert lines[1:9:2] == [f"r{number}: started" for number in range(4)]
    assert lines[-1] == "4 of 4 runs are finished"
    times = [starts(run)[0]["time"] for run in runs]
    assert times == sorted(times)
    assert all(outcomes(run) == ["finished"] for run in runs)

    (runs[2].folder / "result.json").unlink()
    results = [run.folder / "result.json" for run in (*runs[:2], runs[3])]
    before = [(path.stat().st_ino, path.stat().st_mtime_ns) for path in results]
    code, lines = run_all(study)
    assert code == 0
    assert lines[1] == "r2: continued after epoch 2, attempt 2"
    assert [len(starts(run)) for run in runs] == [1, 1, 2, 1]
    assert [(path.stat().st_ino, path.stat().st_mtime_ns) for path in results] == before


class GoneAfterOne(LocalExecutor):
    """A cluster that ends after its first process."""

    started = 0

    def start(self, job: Job) -> None:
        self.started += 1
        super().start(job)

    def has_room(self, gpus: float | int) -> bool:
        if self.started and not self._running:
            raise ExecutorGoneError("no machine is left")
        return super().has_room(gpus)


def test_without_a_machine_the_study_ends_and_names_what_is_unfinished(tmp_path: Path) -> None:
    study = made_up_study(tmp_path, [made_up_run(tmp_path, name, seconds=0.02) for name in "abc"])
    output = io.StringIO()
    assert run_study(study, GoneAfterOne(1), output=output) == 1
    lines = output.getvalue().splitlines()
    assert "1 of 3 runs are finished" in lines
    assert lines[-2:] == ["  b: no machine is left", "  c: no machine is left"]


def test_so_many_at_a_time_and_no_more(tmp_path: Path) -> None:
    runs = [made_up_run(tmp_path, f"r{number}", seconds=0.1) for number in range(6)]
    assert run_all(made_up_study(tmp_path, runs), parallel=3)[0] == 0
    spans = [
        (starts(run)[0]["time"], starts(run)[0]["time"] + 2 * 0.1) for run in runs
    ]  # at least so long: two epochs
    most = max(sum(begin <= at < end for begin, end in spans) for at, _ in spans)
    assert 2 <= most <= 3


def test_a_failing_run_is_tried_again_then_reported_and_stops_no_other(tmp_path: Path) -> None:
    runs = [made_up_run(tmp_path, "never", fails=9), made_up_run(tmp_path, "second", fails=1)]
    runs += [made_up_run(tmp_path, "good")]
    study = made_up_study(tmp_path, runs)
    code, lines = run_all(study, retries=1)
    assert code == 1
    assert outcomes(runs[0]) == ["failed", "failed"]
    assert outcomes(runs[1]) == ["failed", "finished"]
    assert outcomes(runs[2]) == ["finished"]
    assert lines[-3:] == [
        "2 of 3 runs are finished",
        "missing:",
        f"  never: ended with exit code 3 ({runs[0].folder / 'log.txt'})",
    ]
    at = lines.index(f"never: failed, ended with exit code 3; the end of {runs[0].folder / 'log.txt'}:")
    assert lines[at + 1 : at + 3] == ["  | start 2", "  | this cannot be"]
    assert run_state(runs[0]).status is Status.FAILED

    assert run_all(study, retries=0)[0] == 1
    assert len(starts(runs[0])) == 3
    assert [len(starts(run)) for run in runs[1:]] == [2, 1]


def test_a_process_without_an_error_or_a_result_has_failed(tmp_path: Path) -> None:
    run = made_up_run(tmp_path, "empty", no_result=True)
    code, lines = run_all(made_up_study(tmp_path, [run]), retries=0)
    assert code == 1
    assert f"ended without an error, but {run.folder / 'result.json'} does not exist" in lines[-1]


def test_a_killed_process_goes_on_without_a_retry_but_not_for_ever(tmp_path: Path) -> None:
    runs = [made_up_run(tmp_path, "twice", killed=2, epochs=4)]
    runs += [made_up_run(tmp_path, "always", killed=99, epochs=99)]
    code, lines = run_all(made_up_study(tmp_path, runs), retries=0)
    assert code == 1
    assert outcomes(runs[0]) == ["lost", "lost", "finished"]
    assert [attempt.exit_code for attempt in read_attempts(runs[0].folder)] == [-9, -9, 0]
    assert "twice: lost after epoch 1 (killed by SIGKILL); it will go on" in lines
    assert "twice: continued after epoch 2, attempt 3" in lines
    assert outcomes(runs[1]) == ["lost"] * 6
    assert lines[-1].startswith("  always: killed by SIGKILL")


def test_a_run_that_cannot_be_started_fails_alone(tmp_path: Path) -> None:
    runs = [made_up_run(tmp_path, "file"), made_up_run(tmp_path, "good")]
    runs[0].folder.parent.mkdir(parents=True)
    runs[0].folder.write_text("in the way")
    code, lines = run_all(made_up_study(tmp_path, runs), retries=1)
    assert code == 1
    assert run_state(runs[1]).status is Status.FINISHED
    assert lines[-1].startswith("  file: could not be started: ")


def test_a_run_that_was_started_by_hand_is_waited_for(tmp_path: Path) -> None:
    runs = [made_up_run(tmp_path, "by_hand", seconds=0.5, epochs=3), made_up_run(tmp_path, "good")]
    by_hand = subprocess.Popen(made_up_command(runs[0]))
    wait_for(lambda: starts(runs[0]))
    code, _ = run_all(made_up_study(tmp_path, runs), retries=0)
    assert by_hand.wait(10) == 0
    assert code == 0
    assert len(starts(runs[0])) == 1
    assert outcomes(runs[0]) == []


def test_a_run_of_another_command_that_is_killed_is_taken_over(tmp_path: Path) -> None:
    run = made_up_run(tmp_path, "one")
    run.folder.mkdir(parents=True)
    program = (
        "import fcntl, sys, time; f = open(sys.argv[1], 'a'); fcntl.flock(f, 2); print(flush=True);"
        " time.sleep(100)"
    )
    command = [sys.executable, "-c", program, str(run.folder / ".study.lock")]
    other = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert other.stdout is not None
    other.stdout.readline()
    os.set_blocking(other.stdout.fileno(), False)
    assert run_state(run).status is Status.RUNNING
    killer = subprocess.Popen(["sh", "-c", f"sleep 1; kill -9 {other.pid}"])
    assert run_all(made_up_study(tmp_path, [run]))[0] == 0
    assert killer.wait() == 0
    assert other.wait() == -9
    assert outcomes(run) == ["finished"]


DRIVER = """
import sys
from pathlib import Path
from nas_lightning.study import jobs
from nas_lightning.study.executors import LocalExecutor
from nas_lightning.study.run import run_study
from tests.study.made_up_runs import made_up_command, made_up_run, made_up_study
jobs.run_command = made_up_command
root, count, seconds, epochs = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
runs = [made_up_run(root, f"r{number}", seconds=seconds, epochs=epochs) for number in range(count)]
sys.exit(run_study(made_up_study(root, runs), LocalExecutor(2)))
"""


def start_driver(
    root: Path, count: int, seconds: float, epochs: int
) -> tuple[subprocess.Popen[str], list[Run]]:
    runs = [made_up_run(root, f"r{number}", seconds=seconds, epochs=epochs) for number in range(count)]
    arguments = [str(root), str(count), str(seconds), str(epochs)]
    process = subprocess.Popen(
        [sys.executable, "-c", DRIVER, *arguments],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    return process, runs


def test_two_commands_share_the_runs_and_both_end_with_all_of_them(tmp_path: Path) -> None:
    (first, runs), (second, _) = (start_driver(tmp_path, 8, 0.1, 2) for _ in range(2))
    outputs = [process.communicate(timeout=60)[0] for process in (first, second)]
    assert (first.returncode, second.returncode) == (0, 0), outputs
    assert [len(starts(run)) for run in runs] == [1] * 8
    assert all(output.splitlines()[-1] == "8 of 8 runs are finished" for output in outputs)
    started = [output.count(": started") for output in outputs]
    assert sum(started) == 8
    assert min(started) >= 1


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stopped_study_leaves_no_process_and_goes_on(
    tmp_path: Path, number: signal.Signals, code: int
) -> None:
    process, runs = start_driver(tmp_path, 2, 0.2, 5)
    wait_for(lambda: all(run_state(run).epoch for run in runs))
    process.send_signal(number)
    output = process.communicate(timeout=30)[0]
    assert process.returncode == code
    name = "Ctrl-C" if number == signal.SIGINT else "SIGTERM"
    assert output.splitlines()[-1] == (
        f"stopped by {name}; 0 of 2 runs are finished, and the same command goes on with the others"
    )
    assert "Traceback" not in output
    assert not any(is_alive(starts(run)[0]["pid"]) for run in runs)
    assert all(outcomes(run) == ["stopped"] for run in runs)
    assert all(run_state(run).status is Status.UNFINISHED for run in runs)
    assert run_all(made_up_study(tmp_path, runs))[0] == 0
    assert all(outcomes(run) == ["stopped", "finished"] for run in runs)


def test_a_killed_study_leaves_no_process_and_goes_on(tmp_path: Path) -> None:
    process, runs = start_driver(tmp_path, 3, 0.2, 5)
    wait_for(lambda: all(run_state(run).epoch for run in runs[:2]))
    process.kill()
    process.communicate()
    wait_for(lambda: not any(is_alive(starts(run)[0]["pid"]) for run in runs[:2]), 5)
    assert all(outcomes(run) == [None] for run in runs[:2])
    assert all(run_state(run).status is Status.UNFINISHED for run in runs[:2])
    assert run_all(made_up_study(tmp_path, runs))[0] == 0
    assert [outcomes(run) for run in runs] == [[None, "finished"], [None, "finished"], ["finished"]]


def test_result_tables_are_written_and_their_failure_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = [made_up_run(tmp_path, "one"), made_up_run(tmp_path, "two")]
    study = made_up_study(tmp_path, runs)
    assert run_all(study)[0] == 0
    assert isinstance(pd.read_parquet(study.output_folder / "results.parquet"), pd.DataFrame)

    def full(_: object) -> None:
        raise OSError(28, "cannot write results.csv: No space left on device")

    monkeypatch.setattr("nas_lightning.study.run.write_results", full)
    (runs[0].folder / "result.json").unlink()
    code, lines = run_all(study)
    assert code == 0
    said = [line for line in lines if "No space left" in line]
    assert len(said) == 2  # of those that were finished, and of the one run
    assert all(line.startswith("the result tables could not be written: ") for line in said)


def test_an_unwritable_record_stops_nothing(tmp_path: Path) -> None:
    run = made_up_run(tmp_path, "one")
    (run.folder / "study.json").mkdir(parents=True)
    code, lines = run_all(made_up_study(tmp_path, [run]))
    assert code == 0
    assert any("cannot write" in line for line in lines)


@pytest.mark.parametrize(
    ("settings", "available", "said", "gpus"),
    [
        ({}, 0, None, 0),
        ({}, 4, None, 1),
        ({"trainer.devices": "auto"}, 4, None, 1),
        ({"trainer.devices": 2}, 4, None, 2),
        ({"trainer.devices": "2"}, 4, None, 2),
        ({"trainer.devices": [0, 3]}, 4, None, 2),
        ({"trainer.devices": -1}, 4, None, 1),
        ({"trainer.devices": 2}, 0, None, 0),
        ({"trainer.devices": 2, "trainer.accelerator": "cpu"}, 4, None, 0),
        ({}, 4, 0.5, 0.5),
        ({}, 4, 0, 0),
        ({}, 4, 3.0, 3),
    ],
)
def test_gpus_of_a_run(
    tmp_path: Path, settings: dict[str, Any], available: int, said: float | None, gpus: float
) -> None:
    assert gpus_of(made_up_run(tmp_path, "one", settings=settings), available, said) == gpus


def test_what_cannot_be_is_refused(tmp_path: Path) -> None:
    study = made_up_study(tmp_path, [made_up_run(tmp_path, "one")])
    for said in (-1, 1.5):
        with pytest.raises(ValueError, match=rf"`gpus_per_run` \(={said}\) must be"):
            run_all(study, gpus_per_run=said)
    with pytest.raises(ValueError, match="a run takes 2 GPUs, and there are 0: one"):
        run_all(study, gpus_per_run=2)
    with pytest.raises(ValueError, match=r"`retries` \(=-1\) must not be negative"):
        run_all(study, retries=-1)
    assert not study.folder.exists()


def test_the_users_number_of_threads_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = made_up_run(tmp_path, "one")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert run_job(run, 0, threads=3).environment["OMP_NUM_THREADS"] == "3"
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    assert run_job(run, 0, threads=3).environment["OMP_NUM_THREADS"] == "8"


def test_the_command_continues_the_run(tmp_path: Path) -> None:
    command = run_command(made_up_run(tmp_path, "one"))
    assert command[:3] == (sys.executable, "-m", "nas_lightning")
    assert command[-4:] == ("--ckpt_path", "last", "--trainer.enable_progress_bar", "false")


def test_locks_of_finished_runs_are_free(tmp_path: Path) -> None:
    run = made_up_run(tmp_path, "one")
    write_attempts(run.folder, [])
    assert run_all(made_up_study(tmp_path, [run]))[0] == 0
    with (run.folder / ".study.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert time.monotonic() > starts(run)[0]["time"]


def test_an_analysis_of_other_settings_is_reported_and_nothing_is_started(tmp_path: Path) -> None:
    run = made_up_run(tmp_path, "one")
    assert run_all(made_up_study(tmp_path, [run]))[0] == 0
    arguments = {"split": "test", "max_samples": 64, "resolution": 3, "direction_seeds": [0]}
    settings = {"class_path": "LossContour", "init_args": arguments | {"every_n_epochs": None}}
    analysis = AnalysisFile("loss_contour", settings)
    path = analysis.path(run.folder, run.epochs)
    path.parent.mkdir()
    content = {"done": (("direction_seed", "alpha", "beta"), np.ones((1, 3, 3), np.int8))}
    attributes = {"kind": "loss_contour", "split": "train", "weights_sha256": "ab" * 32}
    write_dataset(path, xr.Dataset(content, attrs=attributes))
    measured = made_up_run(tmp_path, "one", analyses=(analysis,))
    code, lines = run_all(made_up_study(tmp_path, [measured]), retries=3)
    reason = f"{path} was measured with split train, the plan says test; move it away to measure again"
    assert code == 1
    assert [line for line in lines if "measured with" in line] == [
        f"one: not started, {reason}",
        f"  one: {reason}",
    ]
    assert len(starts(run)) == 1


def test_what_the_tables_refuse_of_finished_runs_is_told(tmp_path: Path) -> None:
    runs = [made_up_run(tmp_path, "foreign", trained_seed=7), made_up_run(tmp_path, "short", row_short=True)]
    runs += [made_up_run(tmp_path, "good"), made_up_run(tmp_path, "never", fails=9)]
    for _ in range(2):  # the second command finds them finished
        code, lines = run_all(made_up_study(tmp_path, runs), retries=0)
        assert code == 1
        assert lines[-6:-4] == ["3 of 4 runs are finished", "missing:"]
        assert lines[-3:] == [
            "not in the result tables:",
            f"  foreign: {runs[0].folder / 'result.json'} is foreign, of another training than planned:"
            " seed_everything 7, planned 0",
            f"  short: {runs[1].folder / 'metrics.csv'} has 1 epochs, result.json beside it 2",
        ]
    assert run_all(made_up_study(tmp_path, runs[:2]))[0] == 1
    assert run_all(made_up_study(tmp_path, runs[2:3]))[0] == 0


def test_the_time_left_is_told_once_a_run_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[int, float | None]] = []

    def note(_: object, finished: int, failed: int, runs: int, running: Any, left: Any, *__: Any) -> None:
        told.append((finished, left))

    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    monkeypatch.setattr(StudyProgress, "update", note)
    runs = [made_up_run(tmp_path, f"r{number}", seconds=0.5) for number in range(3)]
    assert run_all(made_up_study(tmp_path, runs), parallel=1)[0] == 0
    assert {left for finished, left in told if finished == 0} == {None}
    # Two runs of two epochs of half a second, and what starting them takes.
    first = next(left for finished, left in told if finished == 1)
    assert first is not None
    assert 2 <= first <= 6
