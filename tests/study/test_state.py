"""How far a run is, from files in every condition."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from filelock import FileLock

from nas_lightning.netcdf import write_dataset
from nas_lightning.study.attempts import (
    LOG,
    RECORD,
    Attempt,
    begin_log,
    log_end,
    read_attempts,
    write_attempts,
)
from nas_lightning.study.state import Status, lock_is_held, run_progress, run_state
from nas_lightning.study.study import AnalysisFile, Run
from tests.study.made_up_runs import made_up_run

METRICS = """epoch,loss/train,accuracy/train,loss/test,accuracy/test,accuracy_top5/test
0,2.3,0.1,2.2,0.25,0.5
1,1.3,0.5,1.2,0.75,1.0
"""
RESULT = json.dumps({"finished": True, "epochs": 2, "final": {"accuracy/test": 0.75}}, indent=2)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    analyses = tuple(AnalysisFile(stem, {}) for stem in ("loss_contour", "hessian_spectrum"))
    made = made_up_run(tmp_path, "one", analyses=analyses)
    (made.folder / "landscape").mkdir(parents=True)
    return made


def write_contour(run: Run, done: int) -> None:
    flags = (np.arange(9) < done).astype(np.int8).reshape(1, 3, 3)
    dataset = xr.Dataset(
        {"done": (("direction_seed", "alpha", "beta"), flags)}, attrs={"kind": "loss_contour"}
    )
    write_dataset(run.folder / "landscape" / "loss_contour-epoch0001.nc", dataset)


def write_hessian(run: Run) -> None:
    dataset = xr.Dataset({"trace": ((), 3.0)}, attrs={"kind": "hessian_spectrum"})
    write_dataset(run.folder / "landscape" / "hessian_spectrum-epoch0001.nc", dataset)


@contextmanager
def held_by_another_process(path: Path) -> Iterator[None]:
    program = (
        "import sys; from filelock import FileLock\n"
        "lock = FileLock(sys.argv[1]); lock.acquire(); print('held', flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    try:
        yield
    finally:
        process.communicate(timeout=20)


def test_a_run_becomes_finished_step_by_step(run: Run) -> None:
    assert run_state(made_up_run(run.folder, "none")).status is Status.MISSING
    assert run_state(run).status is Status.MISSING

    (run.folder / "metrics.csv").write_text(METRICS)
    state = run_state(run)
    assert (state.status, state.epoch, state.accuracy) == (Status.UNFINISHED, 2, 0.75)
    assert state.problems == (f"{run.folder / 'result.json'} does not exist",)

    (run.folder / "result.json").write_text(RESULT)
    contour = run.folder / "landscape" / "loss_contour-epoch0001.nc"
    hessian = run.folder / "landscape" / "hessian_spectrum-epoch0001.nc"
    assert run_state(run).problems == (f"{contour} does not exist", f"{hessian} does not exist")
    write_contour(run, done=7)
    write_hessian(run)
    state = run_state(run)
    assert state.status is Status.UNFINISHED
    assert state.problems == (f"{contour}: 7 of 9 points are done",)
    write_contour(run, done=9)
    assert run_state(run).status is Status.FINISHED
    assert run_state(run).problems == ()

    hessian.write_bytes(hessian.read_bytes()[:40])
    state = run_state(run)
    assert state.status is Status.UNFINISHED
    assert len(state.problems) == 1
    assert str(hessian) in state.problems[0]


def test_a_training_that_was_stopped_is_not_finished(tmp_path: Path) -> None:
    run = made_up_run(tmp_path, "one")
    run.folder.mkdir(parents=True)
    (run.folder / "metrics.csv").write_text(METRICS)
    (run.folder / "result.json").write_text(RESULT.replace("true", "false"))
    assert run_state(run).status is Status.UNFINISHED
    (run.folder / "result.json").write_text(RESULT)
    assert run_state(run).status is Status.FINISHED


def test_a_training_that_ended_early_in_order_is_finished(run: Run) -> None:
    planned = replace(run, epochs=9)
    (run.folder / "metrics.csv").write_text(METRICS)
    write_contour(run, done=9)
    (run.folder / "result.json").write_text(RESULT)
    assert run_state(planned).status is Status.UNFINISHED  # of an earlier version, which said no reason
    ended = json.loads(RESULT) | {"ended": "early stopping: loss/test is not finite"}
    (run.folder / "result.json").write_text(json.dumps(ended))
    hessian = run.folder / "landscape" / "hessian_spectrum-epoch0001.nc"
    assert run_state(planned).problems == (f"{hessian} does not exist",)
    write_hessian(run)
    state = run_state(planned)
    assert (state.status, state.epoch, state.ended) == (Status.FINISHED, 2, ended["ended"])
    assert run_state(run).ended is None  # of a plan with as many epochs
    limited = replace(planned, settings={"trainer.max_steps": 5})
    assert run_state(limited).ended is None  # planned by steps


def test_no_part_of_a_result_is_one(tmp_path: Path) -> None:
    run = made_up_run(tmp_path, "one")
    run.folder.mkdir(parents=True)
    for length in range(len(RESULT)):
        (run.folder / "result.json").write_text(RESULT[:length])
        state = run_state(run)
        assert state.status is Status.MISSING
        assert state.problems[0].startswith(f"{run.folder / 'result.json'} cannot be read")


def test_curves_cut_anywhere_are_read_as_far_as_they_go(tmp_path: Path) -> None:
    run = made_up_run(tmp_path, "one")
    run.folder.mkdir(parents=True)
    lines = METRICS.splitlines(keepends=True)
    ends = [sum(map(len, lines[:count])) for count in range(len(lines) + 1)]
    for length in range(len(METRICS) + 1):
        (run.folder / "metrics.csv").write_text(METRICS[:length])
        epoch, accuracy = run_progress(run)
        whole = max(sum(end <= length for end in ends) - 2, 0)
        assert whole <= epoch <= whole + 1
        if length in ends[1:]:
            assert (epoch, accuracy) == [(0, None), (1, 0.25), (2, 0.75)][ends.index(length) - 1]


@pytest.mark.parametrize(
    "content",
    [
        b"\xff\xfe\x00garbage",
        b"name,value\na,1\n",
        b"epoch,accuracy/test\nnone,0.5\n",
        b'epoch\n"0\n',
        b"\0",
        b"",
    ],
)
def test_foreign_curves_are_named(tmp_path: Path, content: bytes) -> None:
    run = made_up_run(tmp_path, "one")
    run.folder.mkdir(parents=True)
    (run.folder / "metrics.csv").write_bytes(content)
    state = run_state(run)
    assert (state.status, state.epoch, state.accuracy) == (Status.MISSING, 0, None)
    assert state.problems[0].startswith(f"{run.folder / 'metrics.csv'} is damaged: ")


def test_epochs_without_evaluation_keep_the_last_accuracy(tmp_path: Path) -> None:
    run = made_up_run(tmp_path, "one")
    run.folder.mkdir(parents=True)
    (run.folder / "metrics.csv").write_text("epoch,accuracy/train,accuracy/val\n0,0.5,0.4\n1,0.6,\n")
    assert run_progress(run) == (2, 0.4)


@pytest.mark.parametrize("name", [".lock", ".study.lock"])
def test_a_run_that_a_process_works_on_is_running(tmp_path: Path, name: str) -> None:
    run = made_up_run(tmp_path, "one")
    run.folder.mkdir(parents=True)
    write_attempts(run.folder, [Attempt("2026-01-01T00:00:00+00:00", "local", "here", outcome="failed")])
    assert run_state(run).status is Status.FAILED
    with held_by_another_process(run.folder / name):
        assert lock_is_held(run.folder / name)
        assert run_state(run).status is Status.RUNNING
        (run.folder / "metrics.csv").write_text(METRICS)
        (run.folder / "result.json").write_text(RESULT)
        assert run_state(run).status is Status.FINISHED
    assert not lock_is_held(run.folder / name)
    with FileLock(run.folder / name, timeout=0):  # whoever only looked has let go
        assert lock_is_held(run.folder / name)


def test_the_record_comes_back_and_a_damaged_one_counts_as_none(tmp_path: Path) -> None:
    attempts = (
        Attempt("2026-01-01T00:00:00+00:00", "local", "a", "2026-01-01T00:01:00+00:00", -9, "lost", "killed"),
        Attempt("2026-01-01T00:02:00+00:00", "ray", "b"),
    )
    write_attempts(tmp_path, attempts)
    assert read_attempts(tmp_path) == attempts
    text = (tmp_path / RECORD).read_text()
    for damaged in (text[:-20], "[]", '{"attempts": [1]}', '{"attempts": [{"start": "x"}]}', ""):
        (tmp_path / RECORD).write_text(damaged)
        assert read_attempts(tmp_path) == ()
    # A later version may note more.
    (tmp_path / RECORD).write_text(text.replace('"host"', '"weather": "fine", "host"'))
    assert read_attempts(tmp_path) == attempts


def test_the_end_of_the_log_is_that_of_the_last_attempt(tmp_path: Path) -> None:
    assert log_end(tmp_path) == []
    begin_log(tmp_path, 1, "then")
    with (tmp_path / LOG).open("ab") as log:
        log.write(b"ValueError: old\n")
    begin_log(tmp_path, 2, "now")
    assert log_end(tmp_path) == []
    with (tmp_path / LOG).open("ab") as log:
        log.write(b"\xff bytes\n 10%\r 20%\n\n" + b"".join(b"line %d\n" % i for i in range(30)))
    assert log_end(tmp_path, 3) == ["line 27", "line 28", "line 29"]
    assert log_end(tmp_path, 99)[:2] == ["\N{REPLACEMENT CHARACTER} bytes", " 20%"]


def test_an_analysis_of_other_settings_keeps_a_run_from_being_finished(run: Run) -> None:
    run = replace(run, analyses=(AnalysisFile("loss_contour", {"init_args": {"resolution": 3}}),))
    (run.folder / "metrics.csv").write_text(METRICS)
    (run.folder / "result.json").write_text(RESULT)
    write_contour(run, done=9)
    assert run_state(run).status is Status.FINISHED
    assert run_state(run).blocking is None
    run = replace(run, analyses=(AnalysisFile("loss_contour", {"init_args": {"resolution": 5}}),))
    write_attempts(run.folder, [Attempt("2026-01-01T00:00:00+00:00", "local", "here", outcome="failed")])
    state = run_state(run)
    assert state.status is Status.UNFINISHED  # and not failed: its log would not say why
    path = run.folder / "landscape" / "loss_contour-epoch0001.nc"
    assert state.blocking == (
        f"{path} was measured with resolution 3, the plan says 5; move it away to measure again"
    )
    assert state.problems == (state.blocking,)


def test_what_can_be_measured_no_more_leaves_a_run_finished(tmp_path: Path) -> None:
    given = {"init_args": {"at_start": True, "every_n_epochs": 1, "at_end": False}}
    run = made_up_run(tmp_path, "r", analyses=(AnalysisFile("loss_contour", given),))
    run.folder.mkdir(parents=True)
    (run.folder / "metrics.csv").write_text(METRICS)
    (run.folder / "result.json").write_text(RESULT)
    assert run_state(run).status == Status.FINISHED


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("result.json", '{"finished": true, "epochs": 2}', "`final` is missing"),
        ("result.json", '{"finished": true, "epochs": 2, "final": 3}', "`final` is missing"),
        ("metrics.csv", None, "metrics.csv does not exist"),
    ],
)
def test_a_finished_run_without_its_numbers_is_resumed(
    tmp_path: Path, name: str, text: str | None, reason: str
) -> None:
    run = made_up_run(tmp_path, "one")
    (run.folder / "checkpoints").mkdir(parents=True)
    (run.folder / "checkpoints" / "last.ckpt").touch()
    (run.folder / "metrics.csv").write_text(METRICS)
    (run.folder / "result.json").write_text(RESULT)
    assert run_state(run).status is Status.FINISHED
    if text is None:
        (run.folder / name).unlink()
    else:
        (run.folder / name).write_text(text)
    state = run_state(run)
    assert state.status is Status.UNFINISHED
    assert reason in state.problems[0]
