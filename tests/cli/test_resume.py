"""Resuming exactly: within an epoch, in a moved folder, in a requeued job of SLURM."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback

from nas_lightning.cli.checkpoint_settings import latest_checkpoint
from nas_lightning.cli.main import main
from nas_lightning.cli.run_folder import lock_folder
from tests.cli.commands import TINY, command, environment, read_checkpoint, read_metrics, read_result, refusal
from tests.datamodules.official_layouts import write_fashion_mnist

RANDOM = (*TINY, "--model.drop_path=0.3", "--data.cutout=4", "--trainer.max_epochs=3")
EVERY_STEP = (
    "--trainer.callbacks=ModelCheckpoint",
    "--trainer.callbacks.filename={step}",
    "--trainer.callbacks.save_top_k=-1",
    "--trainer.callbacks.every_n_train_steps=1",
)
"""A checkpoint after every step of the optimiser; an epoch has three batches."""


PLATEAU = (
    "--model.lr_scheduler=lightning.pytorch.cli.ReduceLROnPlateau",
    "--model.lr_scheduler.monitor=loss/test",
    "--model.lr_scheduler.threshold=0.5",
)


def fit(root: Path, *arguments: str, run: str = "run") -> Path:
    """Train in this process, and return the run's folder."""
    main(["fit", *RANDOM, f"--trainer.default_root_dir={root}", f"--run={run}", *arguments])
    return root / "synthetic" / run


def assert_equal(first: Any, second: Any, where: str = "") -> None:
    """Bit for bit, through dictionaries and lists."""
    if isinstance(first, dict):
        assert first.keys() == second.keys(), where
        for key, value in first.items():
            assert_equal(value, second[key], f"{where}/{key}")
    elif isinstance(first, list | tuple):
        assert len(first) == len(second), where
        for index, (one, other) in enumerate(zip(first, second, strict=True)):
            assert_equal(one, other, f"{where}/{index}")
    elif isinstance(first, torch.Tensor):
        assert torch.equal(first, second), where
    else:
        assert first == second, where


def assert_same_run(first: Path, second: Path) -> None:
    """Two runs ended alike: weights, optimiser, schedule, steps, curves and result."""
    states = [read_checkpoint(run / "checkpoints" / "last.ckpt") for run in (first, second)]
    for key in ("state_dict", "optimizer_states", "lr_schedulers", "epoch", "global_step"):
        assert_equal(states[0][key], states[1][key], key)
    best = [read_checkpoint(run / "checkpoints" / "best.ckpt") for run in (first, second)]
    assert_equal(best[0]["state_dict"], best[1]["state_dict"], "best")
    rows = [
        [
            {name: value for name, value in row.items() if name != "images_per_second"}
            for row in read_metrics(run)
        ]
        for run in (first, second)
    ]
    assert rows[0] == rows[1]
    results = [read_result(run) for run in (first, second)]
    for key in ("finished", "ended", "epochs"):
        assert results[0][key] == results[1][key]


@pytest.mark.parametrize(
    ("settings", "steps"),
    [
        ((), (1, 3, 4, 9)),
        (("--trainer.val_check_interval=1",), (1, 3, 5)),
        (("--trainer.check_val_every_n_epoch=2",), (2, 3, 6)),
        (("--trainer.accumulate_grad_batches=2",), (1, 2, 3)),
        (("--trainer.max_steps=8", "--trainer.max_epochs=9"), (2, 3, 4)),
        (("--model.lr_scheduler=StepLR", "--model.lr_scheduler.step_size=1"), (2, 3)),
        (("--trainer.callbacks+=EMAWeightAveraging", "--trainer.callbacks.decay=0.5"), (2, 3)),
        ((*PLATEAU, "--model.lr_scheduler.patience=0"), (2, 3, 5)),
    ],
    ids=["plain", "evaluated often", "every other epoch", "accumulated", "steps", "rate", "EMA", "plateau"],
)
def test_a_checkpoint_within_an_epoch_resumes_bit_for_bit(
    settings: tuple[str, ...], steps: tuple[int, ...], tmp_path: Path
) -> None:
    unbroken = fit(tmp_path, *EVERY_STEP, *settings)
    for step in steps:
        resumed = tmp_path / "synthetic" / f"from-{step}"
        shutil.copytree(unbroken / "checkpoints", resumed / "checkpoints")
        (resumed / "checkpoints" / "last.ckpt").unlink()
        checkpoint = next(resumed.glob(f"checkpoints/step={step}*.ckpt"))
        fit(tmp_path, *EVERY_STEP, *settings, f"--ckpt_path={checkpoint}", run=resumed.name)
        assert_same_run(unbroken, resumed)


def test_where_the_images_are_may_change(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    held = fit(tmp_path, *EVERY_STEP, run="held")
    kept = fit(tmp_path, *EVERY_STEP, "--data.resident=host", run="kept")
    assert_same_run(held, kept)
    assert read_result(held)["identity"] == read_result(kept)["identity"]
    assert read_result(held)["settings"] == read_result(kept)["settings"]
    last = read_checkpoint(kept / "checkpoints" / "last.ckpt")
    assert "resident" not in last["datamodule_hyper_parameters"]
    step = next(kept.glob("checkpoints/step=4*.ckpt"))
    step.replace(kept / "checkpoints" / "last.ckpt")
    fit(tmp_path, *EVERY_STEP, "--data.resident=device", "--ckpt_path=last", run="kept")
    assert_same_run(held, kept)
    line = refusal(["fit", *TINY, "--data.resident=disk", f"--trainer.default_root_dir={tmp_path}"], capsys)
    assert line == "`data.resident` (=disk) must be one of auto, device, host"


def test_a_checkpoint_between_two_steps_of_the_optimiser_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = fit(tmp_path, *EVERY_STEP, "--trainer.max_epochs=1")
    path = run / "checkpoints" / "step=2.ckpt"
    whole = read_checkpoint(path)
    batches = whole["loops"]["fit_loop"]["epoch_loop.batch_progress"]
    batches["current"]["started"] += 1
    batches["current"]["ready"] += 1
    torch.save(whole, path)
    before = read_metrics(run)
    line = refusal(["fit", f"--ckpt_path={path}"], capsys)
    assert "step=2.ckpt" in line
    assert "in the middle of a step; use `--ckpt_path last`" in line
    batches["current"]["started"] -= 1
    batches["current"]["ready"] -= 1
    for keys, fragment in (
        (("callbacks", "RunRecord", "epoch_so_far"), "without the metrics"),
        (("optimizer_states",), "weights without `optimizer_states`"),
        (("loops",), "weights without `loops`"),
        (("loops", "fit_loop", "epoch_progress"), "does not say how far"),
    ):
        changed = read_checkpoint(run / "checkpoints" / "step=1.ckpt")
        inner = changed
        for key in keys[:-1]:
            inner = inner[key]
        del inner[keys[-1]]
        torch.save(changed, path)
        assert fragment in refusal(["fit", f"--ckpt_path={path}"], capsys)
    assert read_metrics(run) == before


@pytest.mark.parametrize("given", ["checkpoint", "config"])
def test_a_moved_run_keeps_its_best_epoch(given: str, tmp_path: Path) -> None:
    unbroken = fit(tmp_path / "first", *EVERY_STEP)
    moved = tmp_path / "elsewhere" / "renamed"
    shutil.copytree(unbroken, moved)
    checkpoints = moved / "checkpoints"
    (checkpoints / "step=6.ckpt").replace(checkpoints / "last.ckpt")
    # The best epoch so far must not be overwritten by a worse one: no epoch is as good as this.
    state = read_checkpoint(checkpoints / "last.ckpt")
    key = next(key for key in state["callbacks"] if key.startswith("RunCheckpoint") and "accuracy" in key)
    best = state["callbacks"][key]["best_k_models"]
    state["callbacks"][key]["best_k_models"] = {path: torch.tensor(2.0) for path in best}
    state["callbacks"][key]["kth_value"] = state["callbacks"][key]["best_model_score"] = torch.tensor(2.0)
    torch.save(state, checkpoints / "last.ckpt")
    (checkpoints / "best.ckpt").write_bytes(b"the best epoch")
    before = {path.name: path.read_bytes() for path in (unbroken / "checkpoints").iterdir()}
    how = {
        "checkpoint": [f"--ckpt_path={checkpoints / 'last.ckpt'}"],
        "config": [f"--config={moved / 'config.yaml'}", "--ckpt_path=last"],
    }
    main(["fit", *how[given]])
    assert read_result(moved)["epochs"] == 3
    assert (checkpoints / "best.ckpt").read_bytes() == b"the best epoch"
    assert {path.name: path.read_bytes() for path in (unbroken / "checkpoints").iterdir()} == before


def test_a_moved_run_without_its_best_epoch_keeps_the_best_of_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unbroken = fit(tmp_path, *EVERY_STEP)
    moved = tmp_path / "synthetic" / "moved"
    (moved / "checkpoints").mkdir(parents=True)
    shutil.copy(unbroken / "checkpoints" / "step=6.ckpt", moved / "checkpoints" / "last.ckpt")
    main(["fit", f"--ckpt_path={moved / 'checkpoints' / 'last.ckpt'}"])
    assert read_checkpoint(moved / "checkpoints" / "best.ckpt")["epoch"] in (1, 2)


SLURM = {
    "SLURM_JOB_ID": "4711",
    "SLURM_JOB_NAME": "train",
    "SLURM_NTASKS": "1",
    "SLURM_NTASKS_PER_NODE": "1",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "0",
    "SLURM_NNODES": "1",
}


ONE_TASK = {name: value for name, value in SLURM.items() if name != "SLURM_NTASKS_PER_NODE"}


@pytest.fixture
def scontrol(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A job of SLURM: its variables, and a `scontrol` that notes what it is asked. Returns its notes."""
    notes = tmp_path / "scontrol.txt"
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "scontrol").write_text(f'#!/bin/sh\necho "$@" >> {notes}\nexit ${{SCONTROL_FAILS:-0}}\n')
    (programs / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    for name, value in SLURM.items():
        monkeypatch.setenv(name, value)
    return notes


class AskedAt(Callback):
    """Sends SLURM's signal to this process at a moment of the training, once."""

    moment = ("", 0)
    sent = False

    def _at(self, hook: str, number: int) -> None:
        if (hook, number) == self.moment and not AskedAt.sent:
            AskedAt.sent = True
            os.kill(os.getpid(), signal.SIGUSR1)

    def on_before_optimizer_step(self, trainer: Any, *_: Any) -> None:
        self._at("step", trainer.global_step)

    def on_validation_batch_start(self, trainer: Any, *_: Any) -> None:
        self._at("validation", trainer.current_epoch)

    def on_train_epoch_end(self, trainer: Any, *_: Any) -> None:
        self._at("epoch", trainer.current_epoch)

    def on_train_end(self, *_: Any) -> None:
        self._at("end", 0)


@pytest.mark.parametrize(
    "moment", [("step", 0), ("step", 4), ("step", 5), ("validation", 1), ("epoch", 1)], ids=str
)
def test_a_requeued_job_goes_on_by_itself(
    moment: tuple[str, int], tmp_path: Path, scontrol: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    watched = ("--trainer.callbacks=tests.cli.test_resume.AskedAt", "--data.evaluation_batch_size=10")
    monkeypatch.setattr(AskedAt, "sent", True)
    unbroken = fit(tmp_path, *watched, run="unbroken")
    monkeypatch.setattr(AskedAt, "sent", False)
    monkeypatch.setattr(AskedAt, "moment", moment)
    with pytest.raises(SystemExit) as stopped:
        fit(tmp_path, *watched)
    assert stopped.value.code == 128 + signal.SIGUSR1
    run = tmp_path / "synthetic" / "run"
    assert [path.name for path in run.glob("**/hpc_ckpt_*")] == ["hpc_ckpt_4711.ckpt"]
    assert not list(tmp_path.glob("hpc_ckpt_*"))
    assert scontrol.read_text() == "requeue 4711\n"
    assert "stopped to be requeued; the same command resumes" in capsys.readouterr().err
    # Another run takes nothing of it, whatever differs.
    command_line = ["fit", *RANDOM, *watched, f"--trainer.default_root_dir={tmp_path}", "--run=run"]
    for other in ("seed_everything=1", "model.optimizer.init_args.lr=0.1", "trainer.max_epochs=2"):
        line = refusal([*command_line, f"--{other}"], capsys)
        assert "hpc_ckpt_4711.ckpt is of another training" in line
        assert other.partition("=")[0] in line
    fresh = fit(tmp_path, *watched, run="fresh")
    assert [row["epoch"] for row in read_metrics(fresh)] == [0, 1, 2]
    # The same command goes on.
    fit(tmp_path, *watched)
    assert_same_run(unbroken, run)
    assert not list(run.glob("**/hpc_ckpt_*"))


def test_a_job_is_requeued_out_of_an_analysis(
    tmp_path: Path, scontrol: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    analysis = (
        "--trainer.callbacks+=LossProfile",
        "--trainer.callbacks.resolution=3",
        "--trainer.callbacks.curvature_samples=0",
    )
    arguments = ("--trainer.callbacks=tests.cli.test_resume.AskedAt", *analysis)
    monkeypatch.setattr(AskedAt, "sent", False)
    monkeypatch.setattr(AskedAt, "moment", ("end", 0))
    with pytest.raises(SystemExit) as stopped:
        fit(tmp_path, *arguments)
    assert stopped.value.code == 128 + signal.SIGUSR1
    assert scontrol.read_text() == "requeue 4711\n"
    run = tmp_path / "synthetic" / "run"
    assert not (run / "result.json").exists()
    weights = read_checkpoint(run / "checkpoints" / "last.ckpt")["state_dict"]
    fit(tmp_path, *arguments)
    assert read_result(run)["finished"]
    assert (run / "landscape" / "loss_profile-epoch0002.nc").exists()
    assert_equal(read_checkpoint(run / "checkpoints" / "last.ckpt")["state_dict"], weights)
    assert not list(run.glob("**/hpc_ckpt_*"))


def tasks(arguments: Sequence[str], folder: Path, port: int) -> list[subprocess.Popen[bytes]]:
    """Both tasks of a job of SLURM, as srun starts them."""
    shared = {**environment(), "SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2", "MASTER_PORT": str(port)}
    return [
        subprocess.Popen(
            command(arguments),
            cwd=folder,
            env={**shared, "MASTER_ADDR": "127.0.0.1", "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)},
            stderr=subprocess.PIPE,
        )
        for rank in range(2)
    ]


@pytest.mark.slow
def test_both_ranks_stop_at_the_same_step_and_go_on_exactly(tmp_path: Path, scontrol: Path) -> None:
    arguments = ["fit", *RANDOM, "--trainer.max_epochs=8", "--trainer.default_root_dir=logs"]
    arguments += ["--trainer.devices=2", "--trainer.strategy=ddp"]
    run = tmp_path / "logs" / "synthetic" / "run"
    codes = []
    for name, port in (("unbroken", 29611), ("run", 29612), ("run", 29613)):
        ranks = tasks([*arguments, f"--run={name}"], tmp_path, port)
        if port == 29612:
            while not (run / "metrics.csv").exists() and ranks[0].poll() is None:
                time.sleep(0.01)
            ranks[0].send_signal(signal.SIGUSR1)  # to one of them only
        messages = [rank.communicate(timeout=120)[1].decode() for rank in ranks]
        assert not any("Traceback" in message for message in messages), messages
        codes.append([rank.returncode for rank in ranks])
    assert codes == [[0, 0], [138, 138], [0, 0]]
    assert scontrol.read_text() == "requeue 4711\n"
    assert_same_run(tmp_path / "logs" / "synthetic" / "unbroken", run)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_when_a_rank_is_killed_the_other_says_so_and_the_run_goes_on(number: int, tmp_path: Path) -> None:
    arguments = ["fit", *RANDOM, "--trainer.max_epochs=60", "--trainer.default_root_dir=logs", "--run=run"]
    arguments += ["--trainer.devices=2", "--trainer.strategy=ddp"]
    run = tmp_path / "logs" / "synthetic" / "run"
    first = subprocess.Popen(
        command(arguments), cwd=tmp_path, env=environment(), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    while not (run / "metrics.csv").exists() and first.poll() is None:
        time.sleep(0.01)
    found = subprocess.run(["pgrep", "-P", str(first.pid)], capture_output=True, text=True, check=True)
    second = next(int(child) for child in found.stdout.split() if _is_rank(int(child)))
    os.kill(second, number)
    said = first.communicate(timeout=120)[1].decode()
    assert first.returncode != 0
    assert "another process of this training has ended" in said
    assert "Traceback" not in said
    assert not (run / "result.json").exists()
    before = len(read_metrics(run))
    resumed = subprocess.run(
        command([*arguments, "--ckpt_path=last"]), cwd=tmp_path, env=environment(), timeout=240, check=True
    )
    assert resumed.returncode == 0
    assert before < len(read_metrics(run)) == 60
    assert read_result(run)["finished"]


def _is_rank(number: int) -> bool:
    return b"nas_lightning" in Path(f"/proc/{number}/cmdline").read_bytes()


def test_a_job_that_cannot_be_requeued_trains_on(
    tmp_path: Path, scontrol: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SCONTROL_FAILS", "1")
    monkeypatch.setattr(AskedAt, "sent", False)
    monkeypatch.setattr(AskedAt, "moment", ("step", 1))
    run = fit(tmp_path, "--trainer.callbacks=tests.cli.test_resume.AskedAt")
    assert read_result(run)["finished"]
    assert "the job could not be requeued (exit code 1)" in capsys.readouterr().err
    assert not list(run.glob("**/hpc_ckpt_*"))


def test_a_job_that_slurm_started_again_goes_on_from_the_last_epoch(
    tmp_path: Path, scontrol: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    run = fit(tmp_path, *EVERY_STEP)  # nothing there yet: it starts
    (run / "result.json").unlink()
    checkpoints = run / "checkpoints"
    (checkpoints / "step=6.ckpt").replace(checkpoints / "last.ckpt")
    fit(tmp_path, *EVERY_STEP)
    assert read_result(run)["epochs"] == 3
    monkeypatch.delenv("SLURM_RESTART_COUNT")
    root = f"--trainer.default_root_dir={tmp_path}"
    assert "already holds a run" in refusal(["fit", *RANDOM, *EVERY_STEP, root, "--run=run"], capsys)


def test_a_checkpoint_left_in_the_root_is_left_alone(
    tmp_path: Path, scontrol: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    before = fit(tmp_path, "--seed_everything=5", run="before")
    shutil.copy(before / "checkpoints" / "last.ckpt", tmp_path / "hpc_ckpt_1.ckpt")
    run = fit(tmp_path)
    assert len(read_metrics(run)) == 3
    assert "hpc_ckpt_1.ckpt lies in no run's folder: it is left alone" in caplog.text
    assert read_checkpoint(run / "checkpoints" / "last.ckpt")["seed_everything"] == 0
    inside = tmp_path / "synthetic" / "other"
    inside.mkdir()
    (tmp_path / "hpc_ckpt_1.ckpt").replace(inside / "hpc_ckpt_1.ckpt")
    root = f"--trainer.default_root_dir={tmp_path}"
    assert "hpc_ckpt_1.ckpt" in refusal(["fit", *RANDOM, root, "--run=other"], capsys)


def test_of_two_checkpoints_of_a_run_the_further_one_counts_and_another_run_s_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = f"--trainer.default_root_dir={tmp_path}"
    run = fit(tmp_path, *EVERY_STEP)
    before = read_metrics(run)
    requeued = run / "checkpoints" / "hpc_ckpt_7.ckpt"
    other = fit(tmp_path, *EVERY_STEP, "--seed_everything=1", run="other")
    shutil.copy(other / "checkpoints" / "step=5.ckpt", requeued)
    line = refusal(["fit", *RANDOM, *EVERY_STEP, root, "--run=run", "--ckpt_path=last"], capsys)
    assert "hpc_ckpt_7.ckpt is of another training than last.ckpt: move it away" in line
    assert read_metrics(run) == before
    # An older one of the same run repeats nothing; one that is further goes on.
    shutil.copy(run / "checkpoints" / "step=5.ckpt", requeued)
    assert latest_checkpoint(run) == run / "checkpoints" / "last.ckpt"
    shutil.copy(run / "checkpoints" / "step=3.ckpt", run / "checkpoints" / "last.ckpt")
    assert latest_checkpoint(run) == requeued


def test_a_run_goes_on_with_its_own_batches_and_precision(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    limited = ("--trainer.limit_train_batches=2", "--trainer.check_val_every_n_epoch=2")
    run = fit(tmp_path, *EVERY_STEP, *limited)
    whole = tmp_path / "synthetic" / "whole"
    shutil.copytree(run, whole)
    shutil.copy(run / "checkpoints" / "step=3.ckpt", run / "checkpoints" / "last.ckpt")
    arguments = ["fit", *RANDOM, f"--trainer.default_root_dir={tmp_path}", "--run=run", "--ckpt_path=last"]
    for other in ("limit_train_batches=1", "precision=bf16-true", "limit_val_batches=1", "max_steps=5"):
        line = refusal([*arguments, *EVERY_STEP, f"--trainer.{other}"], capsys)
        assert f"was trained otherwise (trainer.{other.partition('=')[0]} " in line
    fit(tmp_path, *EVERY_STEP, "--ckpt_path=last", "--trainer.precision=32-true")
    assert_same_run(whole, run)
    assert read_result(run)["identity"] == read_result(whole)["identity"]


def test_the_record_of_a_finished_run_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = fit(tmp_path)
    result, rows = (run / "result.json").read_text(), (run / "metrics.csv").read_text()
    (run / "metrics.csv").write_text(rows[:-9])
    fit(tmp_path, "--ckpt_path=last", "--trainer.callbacks=LearningRateMonitor")
    assert (run / "result.json").read_text() == result
    assert (run / "metrics.csv").read_text() == rows
    # Without its checkpoint it is not trained again.
    (run / "checkpoints" / "last.ckpt").unlink()
    root = f"--trainer.default_root_dir={tmp_path}"
    line = refusal(["fit", *RANDOM, root, "--run=run", "--ckpt_path=last"], capsys)
    assert "holds a finished run whose `checkpoints/last.ckpt` is gone" in line
    assert (run / "metrics.csv").read_text() == rows


@pytest.mark.slow
def test_a_signal_to_a_process_requeues_it_and_it_ends_as_without(tmp_path: Path, scontrol: Path) -> None:
    arguments = ["fit", *RANDOM, "--trainer.max_epochs=12", "--trainer.default_root_dir=logs"]
    arguments += ["--model.auxiliary_weight=0.4", "--data.image_size=32", "--trainer.callbacks=LossProfile"]
    arguments += ["--trainer.callbacks.resolution=3", "--trainer.callbacks.max_samples=20"]
    run = tmp_path / "logs" / "synthetic" / "run"
    unbroken = subprocess.run(
        command([*arguments, "--run=unbroken"]), cwd=tmp_path, env=environment(), timeout=240, check=True
    )
    assert unbroken.returncode == 0
    codes: list[int] = []
    for _ in range(9):
        process = subprocess.Popen(
            command([*arguments, "--run=run"]), cwd=tmp_path, env=environment(), stderr=subprocess.PIPE
        )
        written = (run / "metrics.csv").stat().st_mtime_ns if (run / "metrics.csv").exists() else 0
        while process.poll() is None and len(codes) < 3:
            now = (run / "metrics.csv").stat().st_mtime_ns if (run / "metrics.csv").exists() else 0
            if now != written:
                process.send_signal(signal.SIGUSR1)
                break
            time.sleep(0.005)
        message = process.communicate(timeout=120)[1].decode()
        assert "Traceback" not in message
        codes.append(process.returncode)
        if process.returncode == 0:
            break
    assert codes == [138, 138, 138, 0]
    assert scontrol.read_text() == "requeue 4711\n" * 3
    assert_same_run(tmp_path / "logs" / "synthetic" / "unbroken", run)


@pytest.mark.parametrize("variable", ["RANK", "SLURM_PROCID", "LOCAL_RANK"])
def test_a_rank_in_the_environment_of_one_process_protects_no_less(
    variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(variable, "1")
    run = fit(tmp_path, "--trainer.max_epochs=1")
    assert list(run.glob("events.*"))
    assert read_result(run)["finished"]
    before = (run / "checkpoints" / "last.ckpt").read_bytes()
    root = f"--trainer.default_root_dir={tmp_path}"
    assert "already holds a run" in refusal(["fit", *RANDOM, root, "--run=run"], capsys)
    assert (run / "checkpoints" / "last.ckpt").read_bytes() == before


def test_a_random_seed_is_drawn_kept_and_found_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    root = f"--trainer.default_root_dir={tmp_path}"
    arguments = ["fit", *RANDOM, root, "--seed_everything=true", *EVERY_STEP]
    main(arguments)
    run = next((tmp_path / "synthetic").iterdir())
    seed = read_result(run)["provenance"]["seed"]
    assert run.name == f"darts_v2-random{seed}"
    assert seed > 1  # one in two thousand million
    assert f"seed_everything: {seed}, a random one" in caplog.text
    assert f"seed_everything: {seed}\n" in (run / "config.yaml").read_text()
    (run / "checkpoints" / "step=3.ckpt").replace(run / "checkpoints" / "last.ckpt")
    losses = [row["loss/test"] for row in read_metrics(run)]
    main([*arguments, "--ckpt_path=last"])
    assert read_result(run)["provenance"]["seed"] == seed
    assert [row["loss/test"] for row in read_metrics(run)] == losses
    main([*arguments, "--trainer.max_epochs=1"])
    assert len(list((tmp_path / "synthetic").iterdir())) == 2
    line = refusal([*arguments, "--ckpt_path=last"], capsys)
    assert run.name in line
    assert "--run NAME" in line


@pytest.mark.parametrize("given", [("--run=#1",), ("--experiment", " # 1")], ids=str)
def test_a_name_that_yaml_takes_for_a_comment_is_not_dropped(
    given: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["fit", *RANDOM, f"--trainer.default_root_dir={tmp_path}", *given]
    assert "must not begin with `#`, as a comment does" in refusal(arguments, capsys)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "name", ["..", ".", "", "a/b", "a\nb", "a\0b", "a\udcffb", "a\tb", "\x1b[31m", "x" * 300]
)
@pytest.mark.parametrize("key", ["run", "experiment"])
def test_a_name_that_is_no_folder_is_refused(
    key: str, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = f"--trainer.default_root_dir={tmp_path / 'logs'}"
    line = refusal(["fit", *RANDOM, root, f"--{key}={name}"], capsys)
    assert f"`{key}` (=" in line
    assert line.isprintable()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("variables", "fragment"),
    [
        ({"RANK": "abc"}, "RANK"),
        ({"LOCAL_RANK": ""}, "LOCAL_RANK"),
        ({"PL_GLOBAL_SEED": "x"}, "PL_GLOBAL_SEED"),
        ({"SLURM_NTASKS": "two"}, "SLURM_NTASKS"),
        (SLURM | {"SLURM_PROCID": "0x1"}, "SLURM_PROCID"),
        ({"SLURM_NTASKS": "2"}, "srun"),
        (ONE_TASK | {"SLURM_NTASKS": "2"}, "--ntasks-per-node"),
        (SLURM | {"SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2"}, "trainer.devices"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_launcher_s_variables_are_checked(
    variables: dict[str, str], fragment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    line = refusal(["fit", *RANDOM, f"--trainer.default_root_dir={tmp_path / 'logs'}"], capsys)
    assert fragment in line
    assert not re.search(r"invalid literal|KeyError|base 10", line)
    assert not list(tmp_path.iterdir())


def test_evaluations_read_the_data_where_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data, fresh = tmp_path / "data sets", tmp_path / "working folder"
    fresh.mkdir()
    write_fashion_mnist(data, monkeypatch)
    tiny = [argument for argument in TINY if not argument.startswith("--data")]
    fit_arguments = ["fit", *tiny, "--data=FashionMNIST", "--data.batch_size=10", "--trainer.max_epochs=1"]
    monkeypatch.chdir(tmp_path)
    main([*fit_arguments, "--data.root=data sets", f"--trainer.default_root_dir={tmp_path / 'logs'}"])
    run = tmp_path / "logs" / "fashionmnist" / "darts_v2"
    checkpoint = f"--ckpt_path={run / 'checkpoints' / 'last.ckpt'}"
    monkeypatch.chdir(fresh)
    capsys.readouterr()
    for arguments in (
        ["validate", checkpoint],
        ["test", checkpoint],
        ["validate", checkpoint, f"--config={run / 'config.yaml'}"],
    ):
        main(arguments)
        accuracy = read_metrics(run)[-1]["accuracy/test"]
        assert f"accuracy/test {accuracy:.6f}" in capsys.readouterr().out
    main(["landscape", checkpoint, "--trainer.callbacks=LossProfile", "--trainer.callbacks.resolution=3"])
    data.rename(tmp_path / "moved data")
    for arguments in (["validate", checkpoint], ["landscape", checkpoint]):
        line = refusal(arguments, capsys)
        assert str(data) in line
        assert "--data.root" in line
    data.mkdir()  # as an empty mount point
    assert "--data.root" in refusal(["test", checkpoint], capsys)
    main(["validate", checkpoint, f"--data.root={tmp_path / 'moved data'}"])
    assert not list(fresh.iterdir())


def test_what_a_killed_process_left_half_written_goes_when_the_folder_is_free(tmp_path: Path) -> None:
    left_over, kept = tmp_path / ".metrics.csv.k3s.tmp", tmp_path / "mine.tmp"
    first = lock_folder(tmp_path)
    left_over.touch()
    kept.touch()
    with pytest.raises(ValueError, match="written by another process"):
        lock_folder(tmp_path)
    assert left_over.exists()
    first.release()
    lock_folder(tmp_path).release()
    assert not left_over.exists()
    assert kept.exists()
