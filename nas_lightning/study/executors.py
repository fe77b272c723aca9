"""Where the processes of a study run: the interface, and this machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

from nas_lightning.study import bound_process

GRACE_SECONDS = 15.0
"""How long a process may take to end after SIGTERM."""

# With these, a training would take itself for a rank of another one.
LAUNCHER_PREFIXES = ("SLURM_", "TORCHELASTIC_", "PMI_", "PMIX_", "OMPI_")
LAUNCHER_VARIABLES = frozenset(
    {"RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "ROLE_RANK", "ROLE_NAME"}
    | {"WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE", "ROLE_WORLD_SIZE"}
    | {"MASTER_ADDR", "MASTER_PORT", "PL_GLOBAL_SEED"}
)


@dataclass(frozen=True)
class Job:
    """A process to start; its output is appended to ``log``, and ``gpus`` below 1 is the share of one."""

    name: str
    command: tuple[str, ...]
    folder: Path
    log: Path
    gpus: float | int = 0
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class JobEnd:
    """How a process ended.

    A negative exit code is the signal that ended it. A process is lost if it was killed, or its worker or
    machine failed.
    """

    name: str
    exit_code: int | None
    lost: bool = False
    reason: str | None = None


class ExecutorGoneError(ConnectionError):
    """Nothing can be started any more."""


@runtime_checkable
class Executor(Protocol):
    """Starts processes and notices their ends.

    Attributes:
        name: Its name on the command line.
        gpus: Most GPUs of a process: those of the machine, or of the machine with the most.
        threads: Number of CPU threads for each process.
    """

    name: str
    gpus: int
    threads: int

    def has_room(self, gpus: float | int) -> bool:
        """Whether a process with this many GPUs would start at once; ExecutorGoneError if none ever will."""

    def start(self, job: Job) -> None:
        """Start a process; OSError if it cannot be."""

    def ended(self) -> list[JobEnd]:
        """The processes that ended since the last call."""

    def stop(self) -> list[JobEnd]:
        """End all processes: SIGTERM, and after :data:`GRACE_SECONDS` SIGKILL."""

    def close(self) -> None:
        """Release all resources."""


class LocalExecutor:
    """Processes on this machine, ``jobs`` at a time.

    Every process has its own GPUs, or its share of one, through ``CUDA_VISIBLE_DEVICES``; ``devices`` are
    their names. Shares are dealt to the GPU with the most left. Where the machine has GPUs, a process that
    needs none sees none. By default a process has cores / ``jobs`` threads.
    """

    name = "local"

    def __init__(self, jobs: int, devices: Iterable[str] = (), threads: int | None = None) -> None:
        if jobs < 1:
            raise ValueError(f"`jobs` (={jobs}) must be at least 1")
        self.jobs = jobs
        self.threads = max(1, cpu_count() // jobs) if threads is None else threads
        self._free = dict.fromkeys(devices, 1.0)
        self.gpus = len(self._free)
        self._running: dict[str, tuple[subprocess.Popen[bytes], dict[str, float]]] = {}

    def has_room(self, gpus: float | int) -> bool:
        """Whether fewer than ``jobs`` processes run and the GPUs are free."""
        return len(self._running) < self.jobs and self._deal(gpus) is not None

    def start(self, job: Job) -> None:
        """Start a process; RuntimeError if there is no room."""
        taken = self._deal(job.gpus)
        if taken is None or len(self._running) >= self.jobs:
            raise RuntimeError(f"no room for {job.name}")
        devices = {"CUDA_VISIBLE_DEVICES": ",".join(taken)} if self._free else {}
        process = start_process(job, devices)
        for device, share in taken.items():
            self._free[device] -= share
        self._running[job.name] = process, taken

    def ended(self) -> list[JobEnd]:
        """The processes that ended since the last call."""
        ends = []
        for name, (process, taken) in list(self._running.items()):
            if process.poll() is not None:
                end_group(process)
                for device, share in taken.items():
                    self._free[device] += share
                del self._running[name]
                ends.append(job_end(name, process.returncode))
        return ends

    def stop(self) -> list[JobEnd]:
        """End all processes."""
        terminate([process for process, _ in self._running.values()], GRACE_SECONDS)
        return self.ended()

    def close(self) -> None:
        """End all processes that still run."""
        self.stop()

    def _deal(self, gpus: float | int) -> dict[str, float] | None:
        """Which GPUs a process would have, and how much of each; None if they are not free."""
        if gpus == 0:
            return {}
        if gpus < 1:
            device = max(self._free, key=self._free.__getitem__, default=None)
            return None if device is None or self._free[device] < gpus - 1e-9 else {device: float(gpus)}
        free = [device for device, left in self._free.items() if left > 1 - 1e-9]
        return dict.fromkeys(free[: int(gpus)], 1.0) if len(free) >= gpus else None


def start_process(job: Job, environment: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
    """Start a job's process, bound to this one: it ends when this one does, however that happens.

    It is the leader of a process group of its own, so that a terminal's Ctrl-C does not reach it.
    """
    job.log.parent.mkdir(parents=True, exist_ok=True)
    script = [sys.executable, "-I", "-S", bound_process.__file__, str(os.getpid())]
    with job.log.open("ab") as log:
        return subprocess.Popen(
            [*script, *job.command],
            cwd=job.folder,
            env={**without_launcher(os.environ), **job.environment, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def terminate(processes: Iterable[subprocess.Popen[bytes]], seconds: float | int) -> None:
    """End processes: SIGTERM first, then, after ``seconds``, SIGKILL for those that still run."""
    waiting = list(processes)
    for process in waiting:
        process.terminate()
    deadline = time.monotonic() + seconds
    while waiting and time.monotonic() < deadline:
        time.sleep(0.05)
        waiting = [process for process in waiting if process.poll() is None]
    for process in waiting:
        process.kill()
        process.wait()


def end_group(process: subprocess.Popen[bytes]) -> None:
    """End the processes that an ended process left behind, such as ranks of a training on several GPUs."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return


def job_end(name: str, exit_code: int) -> JobEnd:
    """How a process ended, from its exit code.

    A process that was killed (SIGKILL, as by a system without memory left; SIGTERM, as by a scheduler that
    takes a machine back) is lost, not failed; ``nas-lightning fit`` answers SIGTERM with exit code 143.
    """
    number = -exit_code if exit_code < 0 else exit_code - 128
    if number in (signal.SIGKILL, signal.SIGTERM):
        return JobEnd(name, exit_code, lost=True, reason=f"killed by {signal.Signals(number).name}")
    if exit_code < 0:
        return JobEnd(name, exit_code, reason=f"ended by signal {number} ({signal.strsignal(number)})")
    return JobEnd(name, exit_code, reason=f"ended with exit code {exit_code}" if exit_code else None)


def without_launcher(environment: Mapping[str, str]) -> dict[str, str]:
    """A copy without the variables that a launcher (SLURM, torchrun, MPI) gave to this process."""
    return {
        name: value
        for name, value in environment.items()
        if name not in LAUNCHER_VARIABLES and not name.startswith(LAUNCHER_PREFIXES)
    }


def cpu_count() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def visible_gpus(environment: Mapping[str, str] | None = None) -> tuple[str, ...]:
    """The GPUs of this machine as ``CUDA_VISIBLE_DEVICES`` takes them, found without CUDA.

    Where that variable is set it says which there are; else ``nvidia-smi -L`` does.
    """
    environment = os.environ if environment is None else environment
    if "CUDA_VISIBLE_DEVICES" in environment:
        names = [name.strip() for name in environment["CUDA_VISIBLE_DEVICES"].split(",")]
        # CUDA takes them up to the first that is none.
        invalid = next((i for i, name in enumerate(names) if name in ("", "-1", "NoDevFiles")), len(names))
        return tuple(dict.fromkeys(names[:invalid]))
    try:
        completed = subprocess.run(
            ["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60, check=True, env=environment
        )
    except (OSError, subprocess.SubprocessError):
        return ()
    lines = [line for line in completed.stdout.splitlines() if line.startswith("GPU ")]
    return tuple(str(index) for index in range(len(lines)))
