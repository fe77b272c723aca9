"""Images per second of trainings that run at the same time on one machine."""

from __future__ import annotations

import csv
import math
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from nas_lightning.study.executors import Job, LocalExecutor
from nas_lightning.study.jobs import job_environment

EPOCHS = 100_000
"""Epochs that a measured training is told to make; it is ended long before."""
SECONDS = 3.0
"""How long all trainings go on beside each other, at least."""
POLL_SECONDS = 0.05


@dataclass(frozen=True)
class Throughput:
    """What trainings reached while all of them were training.

    Attributes:
        images_per_second: Training images a second, of each process.
        device: Kind of device, such as "cpu" or "cuda", as the first process told it, or "unknown".
    """

    images_per_second: tuple[float, ...]
    device: str

    @property
    def total(self) -> float:
        """Training images a second of all processes together."""
        return sum(self.images_per_second)


def measure_throughput(
    settings: Mapping[str, Any],
    executor: LocalExecutor,
    processes: int = 1,
    *,
    gpus: float | int = 0,
    seconds: float | int = SECONDS,
    timeout: float | int = 600.0,
) -> Throughput:
    """Run one training several times at once and see how fast each of them is.

    A process's rate is the harmonic mean of ``images_per_second`` over those epochs that began after every
    process had ended its first epoch and ended while every process was training: what a first epoch prepares
    does not count, and neither does a moment in which one was alone. The processes are ended then. Nothing is
    written but in a temporary folder.

    Args:
        settings: Nested settings of ``nas-lightning fit``; epochs, folders and what is written are replaced.
        executor: Starts the processes; its threads are theirs.
        processes: Number of processes.
        gpus: GPUs of each process, or a share of one.
        seconds: How long they go on beside each other at least; every one makes at least one whole epoch.
        timeout: Seconds after which the measurement is given up.

    Returns:
        The rates.

    Raises:
        ValueError: If the executor has no room for so many processes, or ``processes`` is below 1.
        OSError: If a process ends or the time is up; the message has the last error of its output.
    """
    if processes < 1:
        raise ValueError(f"`processes` (={processes}) must be at least 1")
    with tempfile.TemporaryDirectory(prefix="nas-lightning-") as name:
        folder = Path(name)
        try:
            for number in range(processes):
                if not executor.has_room(gpus):
                    raise ValueError(f"there is room for {number} of {processes} processes")
                executor.start(_job(settings, folder, str(number), executor.threads, gpus))
            return _watch(executor, folder, processes, seconds, timeout)
        finally:
            executor.stop()


def measured_settings(settings: Mapping[str, Any], folder: Path, name: str) -> dict[str, Any]:
    """Settings of a training that goes on until it is ended and keeps nothing but its curves.

    Args:
        settings: Nested settings of ``nas-lightning fit``.
        folder: Folder of all logs.
        name: Name of the run; the experiment is "throughput".

    Returns:
        New settings.
    """
    trainer = {
        **(settings.get("trainer") or {}),
        "max_epochs": EPOCHS,
        "max_steps": -1,
        "max_time": None,
        "limit_val_batches": 0,
        "enable_progress_bar": False,
        "enable_checkpointing": False,
        "logger": False,
        "default_root_dir": str(folder),
    }
    return {**settings, "trainer": trainer, "experiment": "throughput", "run": name}


def _job(settings: Mapping[str, Any], folder: Path, name: str, threads: int, gpus: float | int) -> Job:
    config = folder / f"{name}.yaml"
    config.write_text(yaml.safe_dump(measured_settings(settings, folder, name)))
    return Job(
        name=name,
        command=(sys.executable, "-m", "nas_lightning", "fit", "--config", str(config)),
        folder=Path.cwd(),
        log=folder / f"{name}.txt",
        gpus=gpus,
        environment=job_environment(threads),
    )


def _watch(
    executor: LocalExecutor, folder: Path, processes: int, seconds: float | int, timeout: float | int
) -> Throughput:
    """Wait until all have trained beside each other for long enough."""
    start = time.monotonic()
    paths = [folder / "throughput" / str(number) / "metrics.csv" for number in range(processes)]
    first: list[int] = []
    together = math.inf
    while True:
        rates = [_rates(path) for path in paths]
        # Asked after the curves were read: whoever is missing here was training until then.
        for end in executor.ended():
            raise OSError(_last_error(folder / f"{end.name}.txt") or end.reason or "ended by itself")
        now = time.monotonic()
        if not first and all(rates):
            # Beside others, the epoch that one is in began before the last had ended its first one.
            first = [len(_rates(path)) + (processes > 1) for path in paths]
            together = now
        counted = [found[begin:] for found, begin in zip(rates, first, strict=False)]
        if now - together >= seconds and all(counted):
            means = tuple(statistics.harmonic_mean(of_process) for of_process in counted)
            return Throughput(means, _device(folder / "0.txt"))
        if now - start > timeout:
            at_once = "a training" if processes == 1 else f"{processes} trainings at once"
            raise OSError(f"{at_once} took more than {timeout:.0f} s")
        time.sleep(POLL_SECONDS)


def _rates(path: Path) -> list[float]:
    """Images per second of each epoch so far."""
    try:
        with path.open() as file:
            return [float(row["images_per_second"]) for row in csv.DictReader(file)]
    except FileNotFoundError:
        return []


def _last_error(log: Path) -> str:
    """The last line that tells an error; other libraries may talk after it. Else the last line of all."""
    lines = log.read_text(errors="replace").strip().splitlines()
    errors = [line for line in lines if re.search(r"[Ee]rror: ", line)]
    return (errors or lines or [""])[-1]


def _device(log: Path) -> str:
    """Kind of device, from the line that Lightning prints at the start."""
    found = re.search(r"GPU available: \w+(?: \((\w+)\))?, used: (\w+)", log.read_text(errors="replace"))
    if found is None:
        return "unknown"
    return (found[1] or "unknown") if found[2] == "True" else "cpu"
