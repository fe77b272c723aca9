"""A run as a process: its command, its environment, its GPUs."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from nas_lightning.study.attempts import LOG
from nas_lightning.study.executors import Job
from nas_lightning.study.study import Run


def gpus_of(run: Run, available: int, gpus_per_run: float | int | None = None) -> float | int:
    """Number of GPUs that a run's process gets.

    Args:
        run: The run.
        available: Number of GPUs there are.
        gpus_per_run: What the user says; None says nothing.

    Returns:
        A whole number, or a share below 1.

    Raises:
        ValueError: If ``gpus_per_run`` is negative or neither whole nor below 1.
    """
    if gpus_per_run is not None:
        if gpus_per_run < 0 or (gpus_per_run > 1 and gpus_per_run != int(gpus_per_run)):
            raise ValueError(
                f"`gpus_per_run` (={gpus_per_run:g}) must be a whole number, or a share from 0 to 1"
            )
        return int(gpus_per_run) if gpus_per_run == int(gpus_per_run) else gpus_per_run
    if run.settings.get("trainer.accelerator") == "cpu" or not available:
        return 0
    devices: Any = run.settings.get("trainer.devices")
    if isinstance(devices, list | tuple):
        return max(1, len(devices))
    try:
        return max(1, int(devices))
    except (TypeError, ValueError):  # "auto": what it is given
        return 1


def run_command(run: Run) -> tuple[str, ...]:
    """The command of a run's process; it continues the run if there is a checkpoint.

    Args:
        run: The run.

    Returns:
        Program and arguments.
    """
    program = (sys.executable, "-m", "nas_lightning")
    return (*program, *run.arguments, "--ckpt_path", "last", "--trainer.enable_progress_bar", "false")


def run_job(run: Run, gpus: float | int, threads: int) -> Job:
    """A run's process, in the current folder, with its output in the run's folder.

    Args:
        run: The run.
        gpus: Number of GPUs, or a share of one.
        threads: Number of CPU threads, unless the user's ``OMP_NUM_THREADS`` says another.

    Returns:
        The job.
    """
    return Job(
        name=run.name,
        command=run_command(run),
        folder=Path.cwd(),
        log=(run.folder / LOG).absolute(),
        gpus=gpus,
        environment={
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS") or str(threads),
            "PYTHONUNBUFFERED": "1",
            "RAY_USAGE_STATS_ENABLED": "0",
        },
    )
