"""What a study measures between the seeds of an architecture, once their trainings are finished.

Runs that differ in ``seed_everything`` alone end in different minima of one loss. Between all pairs of them
``nas-lightning landscape --between`` measures the straight line; between the first two ``nas-lightning fit``
trains a curve of low loss (``configs/connectivity.yaml``). Each is a process of its own that goes on where
it was, as the runs are.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nas_lightning.identity import identity_hash
from nas_lightning.netcdf import read_dataset
from nas_lightning.study.attempts import LOG, log_end
from nas_lightning.study.executors import Executor, ExecutorGoneError, Job, JobEnd
from nas_lightning.study.jobs import gpus_of, job_environment
from nas_lightning.study.progress import StudyProgress
from nas_lightning.study.state import FIT_LOCK, Status, lock_is_held, run_state
from nas_lightning.study.study import BETWEEN_SEEDS, Run, Study

POLL_SECONDS = 0.2
_SEED = "seed_everything"
_HASH_DIGITS = 8


@dataclass(frozen=True)
class Between:
    """A measurement between runs that differ in their seed alone.

    Attributes:
        measure: What is measured.
        runs: The runs, by seed; two for a curve.
        folder: Where it writes.
        configs: Its configurations.
    """

    measure: str
    runs: tuple[Run, ...]
    folder: Path
    configs: tuple[Path, ...] = field(hash=False)

    @property
    def name(self) -> str:
        """Name of its folder."""
        return self.folder.name

    @property
    def file(self) -> Path | None:
        """Its complete file, None where there is none, or where a run has been trained since."""
        trained = max((_time(run.folder / "checkpoints" / "last.ckpt") for run in self.runs), default=0.0)
        for path in sorted((self.folder / "landscape").glob(f"{BETWEEN_SEEDS[self.measure]}-*.nc")):
            try:
                dataset = read_dataset(path)
            except (OSError, ValueError):
                continue
            if _time(path) < trained:
                continue
            if bool((dataset["done"] == 1).all()):
                return path
        return None

    @property
    def command(self) -> tuple[str, ...]:
        """Program and arguments of its process."""
        program = (sys.executable, "-m", "nas_lightning")
        ends = [str((run.folder / "checkpoints" / "last.ckpt").absolute()) for run in self.runs]
        configs = [argument for path in self.configs for argument in ("--config", str(path))]
        quiet = ("--trainer.enable_progress_bar", "false")
        if self.measure == "interpolation":
            place = str((self.folder / "landscape").absolute())
            callback = ("--trainer.callbacks.Interpolation.folder", place)
            return (*program, "landscape", *configs, "--between", *ends, *callback, *quiet)
        root, experiment = self.folder.parent.parent.absolute(), self.folder.parent.name
        return (
            *(*program, "fit", *configs, "--model.ends", json.dumps(ends)),
            *("--trainer.default_root_dir", str(root), "--experiment", experiment, "--run", self.name),
            *("--ckpt_path", "last", *quiet),
        )


def _time(path: Path) -> float:
    """When a file was written; 0 where there is none."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def between_seeds(study: Study) -> tuple[Between, ...]:
    """What a study measures between its seeds; nothing where an architecture has a single seed."""
    groups: dict[str, list[Run]] = {}
    for run in study.runs:
        rest = {key: value for key, value in run.deciding.items() if key != _SEED}
        groups.setdefault(identity_hash(rest), []).append(run)
    found = []
    for measure, configs in study.between_seeds.items():
        for key, members in groups.items():
            runs = sorted(members, key=lambda run: run.seed)
            if len(runs) > 1:
                begin = runs[0].name.rpartition("-seed")[0] or runs[0].architecture.label
                folder = study.folder / f"{begin}-{measure}-{key[:_HASH_DIGITS]}"
                few = runs if measure == "interpolation" else runs[:2]
                found.append(Between(measure, tuple(few), folder, configs))
    return tuple(found)


def run_between(
    study: Study,
    executor: Executor,
    progress: StudyProgress,
    signals: Sequence[int],
    gpus_per_run: float | int | None = None,
) -> list[str]:
    """Measure between the seeds of a study what is not measured yet.

    A measurement waits for no run: where one of its runs is not finished it is named as missing. One whose
    process fails is named with the end of its log, and stops no other; one that is killed is started once
    more. Where nothing can be started any more, all that is left is named.

    Returns:
        Names of what is missing, each with the reason.
    """
    missing: list[str] = []
    waiting: list[Between] = []
    for one in between_seeds(study):
        unfinished = [run.name for run in one.runs if run_state(run).status is not Status.FINISHED]
        if unfinished:
            missing.append(f"{one.name}: {unfinished[0]} is not finished")
        elif one.file is None:
            waiting.append(one)
    running: dict[str, Between] = {}
    lost: set[str] = set()
    while (waiting or running) and not signals:
        try:
            while waiting and executor.has_room(_gpus(waiting[0], executor, gpus_per_run)):
                one = waiting.pop(0)
                if lock_is_held(one.folder / FIT_LOCK):
                    missing.append(f"{one.name}: another process works on it")
                    continue
                if (failure := _start(one, executor, gpus_per_run)) is not None:
                    missing.append(f"{one.name}: {failure}")
                    continue
                running[one.name] = one
                progress.say(f"{one.name}: started")
        except ExecutorGoneError as error:
            return missing + [f"{one.name}: {error}" for one in (*running.values(), *waiting)]
        for end in executor.ended():
            one = running.pop(end.name)
            if one.file is not None:
                progress.say(f"{one.name}: finished")
            elif end.lost and one.name not in lost:
                lost.add(one.name)
                waiting.append(one)
                progress.say(f"{one.name}: lost ({end.reason}); it will go on")
            else:
                missing.append(_failure(one, end, progress))
        time.sleep(POLL_SECONDS)
    return missing


def _gpus(one: Between, executor: Executor, gpus_per_run: float | int | None) -> float | int:
    return gpus_of(one.runs[0], executor.gpus, gpus_per_run)


def _start(one: Between, executor: Executor, gpus_per_run: float | int | None) -> str | None:
    """Start the process; why it could not be started, None if it was."""
    try:
        one.folder.mkdir(parents=True, exist_ok=True)
        executor.start(_job(one, executor, gpus_per_run))
    except OSError as error:
        return f"could not be started: {error}"
    return None


def _job(one: Between, executor: Executor, gpus_per_run: float | int | None) -> Job:
    return Job(
        name=one.name,
        command=one.command,
        folder=Path.cwd(),
        log=(one.folder / LOG).absolute(),
        gpus=_gpus(one, executor, gpus_per_run),
        environment=job_environment(executor.threads),
    )


def _failure(one: Between, end: JobEnd, progress: StudyProgress) -> str:
    """Tell how a process failed, with the end of its log; the line for the summary."""
    reason = end.reason or "ended without its file"
    progress.say(f"{one.name}: failed, {reason}; the end of {one.folder / LOG}:")
    for line in log_end(one.folder):
        progress.say(f"  | {line}")
    return f"{one.name}: {reason} ({one.folder / LOG})"
