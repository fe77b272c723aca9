"""Runs a study: finished runs are left alone, all others are started or continued, one process each."""

from __future__ import annotations

import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from filelock import FileLock, Timeout

from nas_lightning.study.attempts import LOG, Attempt, begin_log, log_end, write_attempts
from nas_lightning.study.between import run_between
from nas_lightning.study.estimate import run_weights
from nas_lightning.study.executors import Executor, ExecutorGoneError, JobEnd
from nas_lightning.study.jobs import gpus_of, run_job
from nas_lightning.study.progress import Output, StudyProgress
from nas_lightning.study.results import collect_results, write_results
from nas_lightning.study.state import FIT_LOCK, RUN_LOCK, Status, lock_is_held, run_progress, run_state
from nas_lightning.study.study import Run, Study

LOST_AT_MOST = 5
"""How often a run whose process is killed or whose machine fails is started again."""
POLL_SECONDS = 0.2
ELSEWHERE_SECONDS = 2.0
"""Time between two looks at a run that another process works on."""


@dataclass
class _Task:
    """A run that is not finished, and what this command did for it."""

    run: Run
    attempts: list[Attempt]
    epoch: int
    lock: FileLock | None = None
    failures: int = 0
    losses: int = 0
    not_before: float = 0.0
    reason: str = ""
    started: float = 0.0
    started_after: int = 0


def run_study(
    study: Study,
    executor: Executor,
    *,
    retries: int = 1,
    gpus_per_run: float | int | None = None,
    output: Output | None = None,
) -> int:
    """Bring all runs of a study to their end.

    Finished runs are not started again. A run that another process works on is left to it, and taken over if
    that ends without having finished it. A run whose process fails is started again ``retries`` times, one
    whose process is killed or whose machine fails :data:`LOST_AT_MOST` times at most; each resumes from its
    last checkpoint. A run that fails for good is reported with the end of its log and stops no other run. A
    run that cannot be resumed, since an analysis has other settings than the plan's, is reported and not
    started. The result tables are written whenever runs have finished; the finished runs that they refuse are
    reported at the end.

    Ctrl-C and SIGTERM end it: the processes get SIGTERM, and SIGKILL if they do not end.

    Args:
        study: The study.
        executor: Where the processes run; it is closed at the end.
        retries: How often a failing run is started again.
        gpus_per_run: Number of GPUs for each run, a share below 1 or a whole number; None takes
            ``trainer.devices`` where that is a number above 1, else 1 if the executor has GPUs.
        output: Where progress is told (default: standard output).

    Returns:
        Exit code: 0 if all runs are finished and in the tables, 1 if not, 130 after Ctrl-C, 143 after
            SIGTERM.

    Raises:
        ValueError: If a number is not valid, or a run needs more GPUs than there are.
        OSError: If the folder of the runs cannot be written.
    """
    try:
        if retries < 0:
            raise ValueError(f"`retries` (={retries}) must not be negative")
        for run in study.runs:
            needed = gpus_of(run, executor.gpus, gpus_per_run)
            if needed > executor.gpus:
                raise ValueError(f"a run takes {needed} GPUs, and there are {executor.gpus}: {run.name}")
        study.folder.mkdir(parents=True, exist_ok=True)
        with _noting_signals() as signals:
            progress = StudyProgress(output or sys.stdout)
            return _Runner(study, executor, retries, gpus_per_run, progress, signals).run()
    finally:
        executor.close()


@dataclass
class _Runner:
    study: Study
    executor: Executor
    retries: int
    gpus_per_run: float | int | None
    progress: StudyProgress
    signals: list[int]
    pending: deque[_Task] = field(default_factory=deque)
    running: dict[str, _Task] = field(default_factory=dict)
    elsewhere: list[_Task] = field(default_factory=list)
    failed: list[_Task] = field(default_factory=list)
    finished: set[str] = field(default_factory=set)
    _written: int = 0
    _write_again: float = 0.0
    _problems: tuple[str, ...] = ()
    _between: list[str] = field(default_factory=list)
    _timed_seconds: float = 0.0
    _timed_weight: float = 0.0

    def run(self) -> int:
        weights = run_weights(self.study.runs)
        self._weights = {run.name: weight for run, weight in zip(self.study.runs, weights, strict=True)}
        for run in self.study.runs:
            state = run_state(run)
            if state.status is Status.FINISHED:
                self.finished.add(run.name)
            else:
                self.pending.append(_Task(run, list(state.attempts), state.epoch))
        self._say(
            f"{len(self.study.runs)} runs in {self.study.folder}, {len(self.finished)} of them finished"
        )
        try:
            try:
                self._run_all()
            except ExecutorGoneError as error:
                for task in self.pending:
                    self._give_up(task, str(error))
            if not self.signals:
                self._between = run_between(
                    self.study, self.executor, self.progress, self.signals, self.gpus_per_run
                )
            if self.signals:
                return self._stop(self.signals[-1])
            self._write_tables(at_once=True)
            return self._summary()
        finally:
            self.progress.close()

    def _run_all(self) -> None:
        """Start runs and wait for their ends until none is left, or a signal comes."""
        while not self.signals and (self.pending or self.running or self.elsewhere):
            moved = self._start_all()
            for end in self.executor.ended():
                moved = True
                self._end(self.running.pop(end.name), end)
            self._look_elsewhere()
            self._write_tables(at_once=False)
            if self.progress.due:
                self._tell()
            if not moved:
                time.sleep(POLL_SECONDS)

    def _start_all(self) -> bool:
        """Start what there is room for; in order, so that a run that needs several GPUs gets its turn."""
        moved = False
        while self.pending and not self.signals:
            gpus = gpus_of(self.pending[0].run, self.executor.gpus, self.gpus_per_run)
            if not self.executor.has_room(gpus):
                break
            self._start(self.pending.popleft(), gpus)
            moved = True
        return moved

    def _start(self, task: _Task, gpus: float | int) -> None:
        run = task.run
        try:
            if not self._take(task):
                self.elsewhere.append(task)
                return
            state = run_state(run)
            task.attempts, task.epoch = list(state.attempts), state.epoch
            if state.status is Status.FINISHED:  # by another process, meanwhile
                self._finish(task)
                return
            if state.blocking is not None:
                self._give_up(task, state.blocking)
                return
            number = len(task.attempts) + 1
            begin_log(run.folder, number, f"{_now()}, {self.executor.name}, {socket.gethostname()}")
            self.executor.start(run_job(run, gpus, self.executor.threads))
        except OSError as error:
            self._fail(task, f"could not be started: {error}")
            return
        self.running[run.name] = task
        task.started, task.started_after = time.monotonic(), task.epoch
        task.attempts.append(Attempt(_now(), self.executor.name, socket.gethostname()))
        self._record(task)
        how = f"continued after epoch {task.epoch}" if task.epoch else "started"
        self._say(f"{run.name}: {how}" + (f", attempt {number}" if number > 1 else ""))

    def _take(self, task: _Task) -> bool:
        """Make a run this command's own, unless another process works on it."""
        folder = task.run.folder
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / RUN_LOCK)
        try:
            # Who only looks whether it is held lets go at once.
            lock.acquire(timeout=0.2, poll_interval=0.02)
        except Timeout:
            return False
        task.lock = lock
        # Left behind by a command that was killed, or started by hand.
        if lock_is_held(folder / FIT_LOCK):
            self._let_go(task)
            return False
        return True

    def _end(self, task: _Task, end: JobEnd) -> None:
        state = run_state(task.run)
        task.epoch = state.epoch
        # This command holds its lock: no other state says that it is finished.
        finished = state.status is Status.FINISHED
        reason = end.reason
        if not finished and end.exit_code == 0:
            reason = f"ended without an error, but {state.problems[-1]}"
        outcome = "finished" if finished else "lost" if end.lost else "failed"
        self._record_end(task, end, outcome, reason)
        if finished:
            self._timed_seconds += time.monotonic() - task.started
            self._timed_weight += self._weight(task.run, task.started_after)
            self._finish(task)
            accuracy = "" if state.accuracy is None else f", accuracy {state.accuracy:.4f}"
            early = (
                ""
                if state.ended is None
                else f" after {state.epoch} of {task.run.epochs} epochs, {state.ended}"
            )
            self._say(f"{task.run.name}: finished{early}{accuracy}")
        elif end.lost and task.losses < LOST_AT_MOST:
            task.losses += 1
            self._let_go(task)
            self.pending.appendleft(task)
            self._say(f"{task.run.name}: lost after epoch {task.epoch} ({reason}); it will go on")
        else:
            self._fail(task, reason or "failed")

    def _fail(self, task: _Task, reason: str) -> None:
        self._let_go(task)
        task.failures += 1
        task.reason = reason
        if task.failures <= self.retries:
            self.pending.append(task)
            self._say(f"{task.run.name}: {reason}; it will be tried again")
            return
        self.failed.append(task)
        self._say(f"{task.run.name}: failed, {reason}; the end of {task.run.folder / LOG}:")
        for line in log_end(task.run.folder):
            self._say(f"  | {line}")

    def _give_up(self, task: _Task, reason: str) -> None:
        """Leave a run whose process would refuse to go on."""
        self._let_go(task)
        task.reason = reason
        self.failed.append(task)
        self._say(f"{task.run.name}: not started, {reason}")

    def _finish(self, task: _Task) -> None:
        self._let_go(task)
        self.finished.add(task.run.name)

    def _look_elsewhere(self) -> None:
        """Take back the runs that other processes no longer work on."""
        now = time.monotonic()
        for task in [task for task in self.elsewhere if task.not_before <= now]:
            task.not_before = now + ELSEWHERE_SECONDS
            folder = task.run.folder
            if not lock_is_held(folder / RUN_LOCK) and not lock_is_held(folder / FIT_LOCK):
                self.elsewhere.remove(task)
                self.pending.append(task)

    def _record_end(self, task: _Task, end: JobEnd, outcome: str, reason: str | None = None) -> None:
        attempt = task.attempts[-1]
        task.attempts[-1] = replace(
            attempt, end=_now(), exit_code=end.exit_code, outcome=outcome, reason=reason
        )
        self._record(task)

    def _record(self, task: _Task) -> None:
        try:
            write_attempts(task.run.folder, task.attempts)
        except OSError as error:
            self._say(f"{task.run.name}: {error}")

    def _let_go(self, task: _Task) -> None:
        if task.lock is not None:
            task.lock.release()
            task.lock = None

    def _write_tables(self, *, at_once: bool) -> None:
        """Write the result tables if runs have finished; it takes no more than a tenth of the time."""
        if len(self.finished) == self._written or (time.monotonic() < self._write_again and not at_once):
            return
        start = time.monotonic()
        self._written = len(self.finished)
        try:
            results = collect_results(self.study)
            # What is missing is told as such.
            names = tuple(f"{name}: " for name in self.finished)
            self._problems = tuple(line for line in results.problems if line.startswith(names))
            write_results(results)
        except (OSError, ValueError) as error:
            self._say(f"the result tables could not be written: {error}")
        end = time.monotonic()
        self._write_again = end + 9 * (end - start)

    def _tell(self) -> None:
        running = []
        for task in self.running.values():
            task.epoch, accuracy = run_progress(task.run)
            name = f"{task.run.architecture.label} seed {task.run.seed}"
            running.append((name, task.epoch, task.run.epochs, accuracy))
        for task in self.elsewhere:
            task.epoch, _ = run_progress(task.run)
        counts = len(self.finished), len(self.failed), len(self.study.runs)
        self.progress.update(*counts, running, self._seconds_left(), len(self.elsewhere))

    def _seconds_left(self) -> float | None:
        """Time for the runs to come, at the rate of those that this command finished."""
        if not self._timed_weight:
            return None
        tasks = [*self.pending, *self.running.values(), *self.elsewhere]
        left = sum(self._weight(task.run, task.epoch) for task in tasks)
        return self._timed_seconds / self._timed_weight * left / max(1, len(self.running))

    def _weight(self, run: Run, epoch: int) -> float:
        """What is left of a run after an epoch, in the unit of :func:`run_weights`."""
        return self._weights[run.name] * (1 - epoch / run.epochs)

    def _say(self, line: str) -> None:
        self.progress.say(line)

    def _stop(self, number: int) -> int:
        name = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
        self._say(f"stopping {len(self.running)} runs after {name}")
        for end in self.executor.stop():
            if (task := self.running.pop(end.name, None)) is None:  # a measurement between runs
                continue
            outcome = "finished" if run_state(task.run).status is Status.FINISHED else "stopped"
            self._record_end(task, end, outcome)
            if outcome == "finished":
                self._finish(task)
            self._let_go(task)
        self._write_tables(at_once=True)
        done = f"{len(self.finished)} of {len(self.study.runs)} runs are finished"
        self._say(f"stopped by {name}; {done}, and the same command goes on with the others")
        return 128 + number

    def _summary(self) -> int:
        self._say(f"{len(self.finished)} of {len(self.study.runs)} runs are finished")
        if self.failed:
            self._say("missing:")
        for task in self.failed:
            log = f" ({task.run.folder / LOG})" if task.failures else ""
            self._say(f"  {task.run.name}: {task.reason}{log}")
        if self._between:
            self._say("missing between seeds:")
        for line in self._between:
            self._say(f"  {line}")
        if self._problems:
            self._say("not in the result tables:")
        for problem in self._problems:
            self._say(f"  {problem}")
        return 1 if self.failed or self._problems or self._between else 0


@contextmanager
def _noting_signals() -> Iterator[list[int]]:
    """The signals that ask for the end, none of which ends this process."""
    signals: list[int] = []
    before = {
        number: signal.signal(number, lambda number, _: signals.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
