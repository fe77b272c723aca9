"""Processes of a study on a Ray cluster: a task each, which starts the process on a worker."""

from __future__ import annotations

import logging
import math
import os
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from nas_lightning.study.executors import (
    GRACE_SECONDS,
    ExecutorGoneError,
    Job,
    JobEnd,
    end_group,
    job_end,
    start_process,
    terminate,
)

if TYPE_CHECKING:
    from ray import ObjectRef

OBJECT_STORE_BYTES = 100 * 2**20
"""Size of an embedded cluster's object store, which holds nothing but exit codes."""


RESTARTS_AT_MOST = 5
"""How often an embedded cluster is started anew."""
LOST_SECONDS = 15.0
"""How long a process may be without a machine before it is called lost."""
GONE_SECONDS = 120.0
"""How long a cluster at an address may have no machine before a study ends."""


class RayExecutor:
    """Processes on the machines of a Ray cluster.

    Every process is the child of a task that reserves its GPUs and CPU threads, all on one machine; a share
    of a GPU below 1 lets several processes have one GPU together. Ray sets ``CUDA_VISIBLE_DEVICES``. Tasks
    are not repeated by Ray: the runner does it. All machines see the working folder and the logs under the
    same path, and have the same Python environment.

    Args:
        jobs: Number of processes at a time; None: as many as the cluster has room for, one for each
            core where no GPU is asked for.
        gpus_each: From the most GPUs of a machine, the number of a process, from which its CPU threads
            follow. None: 1 if the cluster has GPUs.
        address: Address of a running cluster, such as ``"auto"`` or ``"10.0.0.1:6379"``; None starts one on
            this machine, which ends with this process.
    """

    name = "ray"

    def __init__(
        self,
        jobs: int | None = None,
        gpus_each: Callable[[int], float | int] | None = None,
        address: str | None = None,
    ) -> None:
        if jobs is not None and jobs < 1:
            raise ValueError(f"`jobs` (={jobs}) must be at least 1")
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        try:
            import ray
        except ImportError as error:
            raise ValueError("the executor `ray` needs Ray: pip install 'nas-lightning[study]'") from error
        self._ray: Any = ray
        if address is not None:
            _check_address(address)
        self._address = address
        self._connect()
        # All GPUs of a process are on one machine.
        self.gpus = max((int(node.get("GPU", 0)) for node in self._machines()), default=0)
        self._gpus_each = min(self.gpus, 1) if gpus_each is None else gpus_each(self.gpus)
        self.jobs = jobs
        self.threads = self._threads_each()
        self._running: dict[Any, str] = {}
        self._restarts = 0
        self._gone_since: float | None = None

    def has_room(self, gpus: float | int) -> bool:
        """Whether fewer than ``jobs`` processes run, and the cluster has what one more needs."""
        if self.jobs is not None and len(self._running) >= self.jobs:
            return False
        # All resources, not the free ones: Ray notices the end of a task with some delay.
        room = 0
        if not self._running and (seconds := self._seconds_without_machines()) > 0:
            self._restart(seconds)
        for machine in self._machines():
            places = int(machine.get("CPU", 0)) // self.threads
            if gpus:
                of_gpu = machine.get("GPU", 0)
                places = min(places, int(of_gpu * (1 // gpus) if gpus < 1 else of_gpu // gpus))
            room += places
        return len(self._running) < room

    def _connect(self) -> None:
        """Connect to the cluster, or start the embedded one."""
        embedded: dict[str, Any] = {"include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES}
        try:
            self._ray.init(
                address=self._address or "local",
                log_to_driver=False,
                logging_level=logging.ERROR,
                **(embedded if self._address is None else {}),
            )
        except ConnectionError as error:
            raise ConnectionError(
                f"`address` (={self._address}) is no running Ray cluster: {error}"
            ) from error

    def _seconds_without_machines(self) -> float:
        """How long all machines have been gone; 0 if there is one."""
        if self._machines():
            self._gone_since = None
            return 0.0
        now = time.monotonic()
        self._gone_since = now if self._gone_since is None else self._gone_since
        return max(now - self._gone_since, 1e-9)

    def _restart(self, seconds: float) -> None:
        """Where no machine is left, start the embedded cluster anew, or wait for a machine of another one."""
        if self._address is None:
            if self._restarts == RESTARTS_AT_MOST:
                raise ExecutorGoneError(f"the embedded Ray cluster ended {self._restarts + 1} times")
            self._restarts += 1
            try:
                self._ray.shutdown()
                self._connect()
            except Exception as error:  # whatever Ray raises
                raise ExecutorGoneError(f"Ray cannot be started again: {_first_line(error)}") from error
            self._gone_since = None
        elif seconds > GONE_SECONDS:
            raise ExecutorGoneError(f"the Ray cluster at {self._address} has no machine left")

    def start(self, job: Job) -> None:
        """Hand a process to the cluster; one that needs no GPU sees none, which Ray does not ensure."""
        if not job.gpus and self.gpus:
            job = replace(job, environment={**job.environment, "CUDA_VISIBLE_DEVICES": ""})
        task = self._ray.remote(_run_job).options(
            num_cpus=self.threads, num_gpus=job.gpus, max_retries=0, name=job.name
        )
        self._running[task.remote(job)] = job.name

    def ended(self) -> list[JobEnd]:
        """The processes that ended since the last call."""
        if not self._running:
            return []
        ready, _ = self._ray.wait(list(self._running), num_returns=len(self._running), timeout=0)
        ends = [self._end(task, self._running.pop(task)) for task in ready]
        if self._running and self._seconds_without_machines() > LOST_SECONDS:
            # Ray waits for a machine for them, even if none will come.
            reason = "its cluster has no machine left"
            ends += [JobEnd(name, None, lost=True, reason=reason) for name in self._running.values()]
            self._running.clear()
        return ends

    def stop(self) -> list[JobEnd]:
        """End all processes."""
        running = list(self._running)
        for task in running:
            self._ray.cancel(task, force=False)
        if running:
            self._ray.wait(running, num_returns=len(running), timeout=GRACE_SECONDS + 5)
        ends = self.ended()
        for task, name in self._running.items():
            self._ray.cancel(task, force=True)
            ends.append(JobEnd(name, None, lost=True, reason="its worker did not answer and was killed"))
        self._running.clear()
        return ends

    def close(self) -> None:
        """End what still runs, and an embedded cluster."""
        self.stop()
        self._ray.shutdown()

    def _end(self, task: ObjectRef[int], name: str) -> JobEnd:
        from ray.exceptions import RayError, RayTaskError, TaskCancelledError

        try:
            return job_end(name, self._ray.get(task))
        except TaskCancelledError:
            return JobEnd(name, None, lost=True, reason="cancelled")
        except RayTaskError as error:
            cause = error.cause if isinstance(error.cause, Exception) else error
            if isinstance(cause, KeyboardInterrupt):
                return JobEnd(name, None, lost=True, reason="cancelled")
            return JobEnd(name, None, reason=f"could not be started: {_first_line(cause)}")
        except RayError as error:  # the worker, its machine or its memory went
            return JobEnd(name, None, lost=True, reason=f"{type(error).__name__}: {_first_line(error)}")

    def _machines(self) -> list[Mapping[str, float]]:
        """Resources of each machine that is there."""
        return [node["Resources"] for node in self._ray.nodes() if node["Alive"]]

    def _threads_each(self) -> int:
        """The cores for each of ``jobs``, at most the smallest machine's; or those that go with its GPUs."""
        machines = self._machines()
        cores = int(sum(machine.get("CPU", 0) for machine in machines))
        if self._gpus_each:
            # Of the machine with the fewest cores for a GPU: the GPUs of no other one stay idle then.
            shares = [
                machine.get("CPU", 1) / machine["GPU"] for machine in machines if machine.get("GPU", 0) > 0
            ]
            each = math.floor(min(shares, default=1) * self._gpus_each)
            return max(1, each if self.jobs is None else min(each, cores // self.jobs))
        # A process is on one machine: for more than the smallest has, it might wait for ever.
        smallest = int(min((machine["CPU"] for machine in machines if machine.get("CPU", 0) >= 1), default=1))
        return 1 if self.jobs is None else max(1, min(cores // self.jobs, smallest))


def _run_job(job: Job) -> int:
    """Run a job's process on a worker and wait for it; a cancelled task ends it."""
    process = start_process(job)
    try:
        while process.poll() is None:
            time.sleep(0.1)
    except BaseException:  # Ray cancels a task by KeyboardInterrupt
        terminate([process], GRACE_SECONDS)
        raise
    finally:
        end_group(process)
    return process.returncode


def _check_address(address: str) -> None:
    """Refuse an address that nobody answers at, for which Ray would wait for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except OSError as error:
        raise ConnectionError(f"`address` (={address}) is no running Ray cluster: {error}") from error


def _first_line(error: BaseException) -> str:
    """The first sentence of what Ray says, which goes on with advice."""
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return line.partition(". ")[0]
