"""A run as a process: its command, its environment, its GPUs, and how many of them share a machine."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nas_lightning.study.attempts import LOG
from nas_lightning.study.executors import Job
from nas_lightning.study.study import Run

# One, until a record of `benchmarks.processes` from a GPU says otherwise: a share is right for one size of
# network on one kind of GPU, and runs that do not fit into its memory together all fail.
RUNS_PER_GPU = 1
"""Runs that share a GPU where the user says nothing."""


@dataclass(frozen=True)
class Sharing:
    """How the runs of a study share this machine.

    The cores are divided by ``jobs``, the most runs at a time. ``at_a_time`` is how many go as far as GPUs
    and runs suffice, 0 if one needs more GPUs than there are. ``gpus`` is for one run, a share if below 1,
    and where runs differ the smallest.
    """

    jobs: int = 1
    at_a_time: int = 1
    devices: tuple[str, ...] = ()
    gpus: float | int = 0


def local_sharing(
    runs: Sequence[Run],
    devices: Sequence[str],
    cores: int,
    jobs: int | None = None,
    gpus_per_run: float | int | None = None,
) -> Sharing:
    """How ``nas-lightning study run`` shares this machine among runs.

    Without ``jobs``, as many runs at a time as the GPUs take, without GPUs one a core.
    """
    gpus = min((gpus_of(run, len(devices), gpus_per_run) for run in runs), default=0)
    if not gpus:
        most = cores if jobs is None else jobs
    elif gpus < 1:
        most = len(devices) * int(1 / gpus + 1e-9)
    else:
        most = len(devices) // int(gpus)
    at_a_time = min(most, len(runs))
    if jobs is None:
        return Sharing(max(1, at_a_time), at_a_time, tuple(devices), gpus)
    return Sharing(jobs, min(jobs, at_a_time), tuple(devices), gpus)


def gpus_of(run: Run, available: int, gpus_per_run: float | int | None = None) -> float | int:
    """Number of GPUs that a run's process gets: a whole number, or a share below 1.

    Where the user does not say, 0 for a run on the CPU or without GPUs, ``trainer.devices`` where that is a
    number above 1, else 1 / :data:`RUNS_PER_GPU`.
    """
    if gpus_per_run is not None:
        if gpus_per_run < 0 or (gpus_per_run > 1 and gpus_per_run != int(gpus_per_run)):
            raise ValueError(
                f"`gpus_per_run` (={gpus_per_run:g}) must be a whole number, or a share from 0 to 1"
            )
        return int(gpus_per_run) if gpus_per_run == int(gpus_per_run) else gpus_per_run
    if not available or run.settings.get("trainer.accelerator") == "cpu":
        return 0
    devices: Any = run.settings.get("trainer.devices")
    try:
        whole = len(devices) if isinstance(devices, list | tuple) else int(devices)
    except (TypeError, ValueError):  # "auto": what it is given
        whole = 1
    return whole if whole > 1 else 1 if RUNS_PER_GPU == 1 else 1 / RUNS_PER_GPU


def run_command(run: Run) -> tuple[str, ...]:
    """Program and arguments of a run's process; it resumes the run if there is a checkpoint."""
    program = (sys.executable, "-m", "nas_lightning")
    return (*program, *run.arguments, "--ckpt_path", "last", "--trainer.enable_progress_bar", "false")


def run_job(run: Run, gpus: float | int, threads: int) -> Job:
    """A run's process, in the current folder, with its output in the run's folder."""
    return Job(
        name=run.name,
        command=run_command(run),
        folder=Path.cwd(),
        log=(run.folder / LOG).absolute(),
        gpus=gpus,
        environment=job_environment(threads),
    )


def job_environment(threads: int) -> dict[str, str]:
    """Environment variables of a training's process beside those of the process that starts it.

    The user's own ``OMP_NUM_THREADS`` takes precedence over ``threads``.
    """
    return {
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS") or str(threads),
        "PYTHONUNBUFFERED": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
