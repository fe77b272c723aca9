"""How many runs share a machine, and what each of them gets."""

from __future__ import annotations

import json
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from benchmarks.record import RESULTS
from nas_lightning.study import jobs as jobs_module
from nas_lightning.study.executors import LocalExecutor
from nas_lightning.study.jobs import RUNS_PER_GPU, Sharing, gpus_of, local_sharing
from nas_lightning.study.study import Run
from tests.study.run_files import planned_run

NOTHING: MappingProxyType[str, Any] = MappingProxyType({})


def runs(count: int, settings: Any = NOTHING) -> list[Run]:
    return [planned_run(Path("logs"), f"run{number}", settings=settings) for number in range(count)]


@pytest.mark.parametrize(
    ("gpus", "jobs", "share", "jobs_at_most", "at_a_time", "gpus_of_a_run"),
    [
        (0, None, None, 8, 8, 0),  # a run a core
        (0, 3, None, 3, 3, 0),
        (0, 30, None, 30, 20, 0),  # there are twenty runs
        (2, None, None, 2, 2, 1),
        (2, None, 0.25, 8, 8, 0.25),
        (2, None, 1 / 3, 6, 6, 1 / 3),
        (2, None, 0.4, 4, 4, 0.4),  # two on a GPU, the rest of it idle
        (2, 3, 0.25, 3, 3, 0.25),
        (2, 8, None, 8, 2, 1),  # the GPUs are the limit, the cores are divided by eight
        (3, None, 2, 1, 1, 2),
        (1, None, 2, 1, 0, 2),
        (1, None, 1 / 49, 20, 20, 1 / 49),
        (2, None, 0, 8, 8, 0),
    ],
)
def test_runs_at_a_time(
    gpus: int,
    jobs: int | None,
    share: float | int | None,
    jobs_at_most: int,
    at_a_time: int,
    gpus_of_a_run: float | int,
) -> None:
    devices = tuple(map(str, range(gpus)))
    found = local_sharing(runs(20), devices, 8, jobs, share)
    assert found == Sharing(jobs_at_most, at_a_time, devices, gpus_of_a_run)


def test_as_many_start_as_are_planned_for(tmp_path: Path) -> None:
    from tests.study.test_executors import SLEEP, job

    sharing = local_sharing(runs(20), ("0", "1"), 8, gpus_per_run=1 / 3)
    executor = LocalExecutor(sharing.jobs, sharing.devices)
    try:
        count = 0
        while executor.has_room(sharing.gpus):
            executor.start(job(tmp_path, str(count), SLEEP, gpus=sharing.gpus))
            count += 1
        assert count == sharing.at_a_time == 6
    finally:
        executor.close()


@pytest.mark.parametrize(
    ("settings", "gpus"),
    [
        ({}, 0.25),
        ({"trainer.devices": "auto"}, 0.25),
        ({"trainer.devices": 1}, 0.25),
        ({"trainer.devices": 2}, 2),
        ({"trainer.devices": "2"}, 2),
        ({"trainer.devices": [0, 1, 3]}, 3),
        ({"trainer.accelerator": "cpu", "trainer.devices": 2}, 0),
    ],
)
def test_without_a_word_of_the_user(
    monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], gpus: float | int
) -> None:
    (run,) = runs(1, settings)
    monkeypatch.setattr(jobs_module, "RUNS_PER_GPU", 4)
    assert gpus_of(run, 4) == gpus
    assert gpus_of(run, 0) == 0
    monkeypatch.setattr(jobs_module, "RUNS_PER_GPU", 1)
    assert gpus_of(run, 4) == (1 if gpus == 0.25 else gpus)
    assert isinstance(gpus_of(run, 4), int)


def test_the_default_is_what_was_measured_on_a_gpu() -> None:
    path = RESULTS / "processes.json"
    kept = json.loads(path.read_text()) if path.exists() else {"machine": {"gpu": None}}
    assert (1 if kept["machine"]["gpu"] is None else kept["recommended"]) == RUNS_PER_GPU
