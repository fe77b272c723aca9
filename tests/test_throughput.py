"""Only epochs in which all trainings were under way count, and nothing of a measurement stays."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from benchmarks import throughput
from benchmarks.throughput import Throughput, measure_throughput
from nas_lightning.study.executors import Job, JobEnd, LocalExecutor
from tests.cli.parsing import ParsedOnly
from tests.study.made_up_runs import is_alive
from tests.study.test_executors import processes_below

TINY: dict[str, Any] = {
    "model": {"init_channels": 2, "num_cells": 3},
    "data": {
        "class_path": "nas_lightning.datamodules.Synthetic",
        "init_args": {"train_size": 48, "test_size": 10, "image_size": 16, "batch_size": 16},
    },
    "trainer": {"accelerator": "cpu", "max_epochs": 1},
}


class Scripted(LocalExecutor):
    """An executor whose processes write curves and end as a script says, a step a look.

    Args:
        steps: For each look the epochs' rates that each process adds; None: it ends with an error.
        log: What each process prints.
    """

    def __init__(self, steps: Sequence[Sequence[Sequence[float] | None]], log: str = "") -> None:
        super().__init__(len(steps[0]), threads=1)
        self.steps, self.log = list(steps), log
        self.started: list[Job] = []
        self.curves: list[list[float]] = []
        self.stopped = 0

    def has_room(self, gpus: float | int) -> bool:
        return len(self.started) < self.jobs

    def start(self, job: Job) -> None:
        self.started.append(job)
        self.curves.append([])
        job.log.write_text(self.log)

    def ended(self) -> list[JobEnd]:
        ends = []
        for job, curve, rates in zip(self.started, self.curves, self.steps.pop(0), strict=True):
            if rates is None:
                ends.append(JobEnd(job.name, 1, reason="ended with exit code 1"))
                continue
            curve += rates
            if curve:
                folder = job.log.parent / "throughput" / job.name
                folder.mkdir(parents=True, exist_ok=True)
                lines = [f"{epoch},{rate}" for epoch, rate in enumerate(curve)]
                (folder / "metrics.csv").write_text("\n".join(["epoch,images_per_second", *lines]) + "\n")
        return ends

    def stop(self) -> list[JobEnd]:
        self.stopped += 1
        return []


def measured(executor: Scripted, processes: int, **options: Any) -> Throughput:
    """What the scripted processes reach; the look after a step sees what the step wrote."""
    found = measure_throughput(TINY, executor, processes, seconds=0, **options)
    assert executor.stopped == 1
    return found


@pytest.fixture(autouse=True)
def without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(throughput, "POLL_SECONDS", 0)


def test_a_process_alone_counts_from_its_second_epoch() -> None:
    found = measured(Scripted([[[]], [[1.0]], [[]], [[20.0, 30.0]], [[]]]), 1)
    assert found.images_per_second == pytest.approx((24.0,))  # 2 / (1/20 + 1/30)


def test_among_several_only_epochs_beside_all_others_count() -> None:
    steps: list[list[list[float]]] = [
        [[900.0], []],  # the first trains alone
        [[900.0, 900.0], []],
        [[], [1.0]],  # now the second has trained, while the first was in its fourth epoch
        [[], []],
        [[500.0], [7.0]],  # the epochs that they were in then
        [[40.0, 60.0], []],
        [[], [10.0]],
        [[], []],
    ]
    found = measured(Scripted(steps, "GPU available: True (cuda), used: True\n"), 2)
    assert found.images_per_second == pytest.approx((48.0, 10.0))  # 2 / (1/40 + 1/60)
    assert found.total == pytest.approx(58.0)
    assert found.device == "cuda"


def test_they_train_beside_each_other_for_as_long_as_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(100))
    made_up = SimpleNamespace(monotonic=lambda: float(next(clock)), sleep=lambda seconds: None)
    monkeypatch.setattr(throughput, "time", made_up)
    executor = Scripted([[[5.0]], *[[[10.0]] for _ in range(9)]])
    found = measure_throughput(TINY, executor, seconds=4)
    # Started at 0 s, looked at each second from 1 s on; its first epoch is seen at 2 s.
    assert len(executor.curves[0]) == 6
    assert found.images_per_second == (10.0,)


@pytest.mark.parametrize(
    ("log", "device"),
    [
        ("GPU available: False, used: False\nTPU available: False, using: 0 TPU cores\n", "cpu"),
        ("GPU available: True (cuda), used: False\n", "cpu"),
        ("GPU available: True (mps), used: True\n", "mps"),
        ("", "unknown"),
    ],
)
def test_the_device_is_the_one_that_lightning_names(log: str, device: str) -> None:
    assert measured(Scripted([[[1.0]], [[]], [[1.0]], [[]]], log), 1).device == device


@pytest.mark.parametrize(
    ("log", "message"),
    [
        ("first\nout of memory\n", r"^out of memory$"),
        ("first\nRuntimeError: bad\nnanobind: leaked 3 instances!\n", r"^RuntimeError: bad$"),
        ("", r"^ended with exit code 1$"),
    ],
)
def test_a_process_that_ends_is_an_error(log: str, message: str) -> None:
    executor = Scripted([[[1.0], []], [[], None]], log)
    with pytest.raises(OSError, match=message):
        measured(executor, 2)
    assert executor.stopped == 1


def test_what_cannot_be_measured_is_said() -> None:
    executor = Scripted([[[]]])
    with pytest.raises(ValueError, match=r"^there is room for 1 of 2 processes$"):
        measured(executor, 2)
    assert executor.stopped == 1
    with pytest.raises(ValueError, match=r"`processes` \(=0\) must be at least 1"):
        measured(executor, 0)
    with pytest.raises(OSError, match=r"^a training took more than 0 s$"):
        measured(Scripted([[[]]]), 1, timeout=0)


def test_a_measured_training_is_a_command_that_keeps_nothing(tmp_path: Path) -> None:
    executor = Scripted([[[1.0]], [[]], [[1.0]], [[]]])
    configurations: list[list[str]] = []
    start = executor.start

    def parse_and_start(job: Job) -> None:
        configurations.append(list(job.command[3:]))
        settings = ParsedOnly(list(job.command[3:])).settings.as_dict()
        trainer = settings["trainer"]
        assert (settings["experiment"], settings["run"]) == ("throughput", "0")
        assert (trainer["logger"], trainer["enable_checkpointing"]) == (False, False)
        assert (trainer["max_epochs"], trainer["accelerator"]) == (throughput.EPOCHS, "cpu")
        start(job)

    executor.start = parse_and_start  # type: ignore[method-assign]
    measured(executor, 1)
    assert [line[:2] for line in configurations] == [["fit", "--config"]]
    assert not Path(configurations[0][2]).parent.exists()


def test_a_measured_training_is_no_rank_and_keeps_to_its_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    found: dict[str, str] = {}

    def start(command: object, *, env: dict[str, str], **options: object) -> None:
        found.update(env)
        raise OSError("started")

    names = {"PMI_RANK", "OMPI_COMM_WORLD_SIZE", "NODE_RANK", "TORCHELASTIC_RUN_ID", "SLURM_PROCID"}
    for name in names:
        monkeypatch.setenv(name, "3")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)))
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(subprocess, "Popen", start)
    with pytest.raises(OSError, match="started"):
        measure_throughput(TINY, LocalExecutor(2), 2)
    assert found["OMP_NUM_THREADS"] == "3"
    assert not names & found.keys()


@pytest.mark.slow
def test_two_real_trainings_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(throughput, "POLL_SECONDS", 0.05)
    started: list[int] = []
    others = set(processes_below(os.getpid()))  # a compiler's workers, left by another test

    class Noting(LocalExecutor):
        def stop(self) -> list[JobEnd]:
            started.extend(set(processes_below(os.getpid())) - others)
            return super().stop()

    executor = Noting(2, threads=1)
    found = measure_throughput(TINY, executor, 2, seconds=0.5, timeout=120)
    assert found.device == "cpu"
    assert len(found.images_per_second) == 2
    assert all(1 < rate < 100_000 for rate in found.images_per_second)
    assert not any(map(is_alive, started))
    assert not list(tmp_path.iterdir())
