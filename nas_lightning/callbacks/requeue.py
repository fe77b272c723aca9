"""SLURM's signal before the time limit: a checkpoint at once, the job queued again, the training ended."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any

from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.utilities.exceptions import SIGTERMException

from nas_lightning.files import atomic_write

EXIT_CODE = 128 + signal.SIGUSR1
"""Exit code of a training that was stopped to be queued again."""


def requeue_checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of requeued jobs in a run's folder of checkpoints, the newest first."""
    found = [path for path in folder.glob("hpc_ckpt_*.ckpt") if path.is_file()]
    return sorted(found, key=lambda path: path.stat().st_mtime_ns, reverse=True)


def requeue_requested(trainer: Trainer) -> bool:
    """Whether SLURM has asked the process to make room, and the answer is still to come."""
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    return any(callback.requested for callback in callbacks if isinstance(callback, Requeue))


class Requeue(Checkpoint):
    """Answers the signal that SLURM sends before it ends a job (``sbatch --signal=SIGUSR1@90``).

    Lightning's own answer writes a checkpoint for all runs into one folder, at whatever line of code the
    signal arrives. This one waits for the end of the optimiser's step, of a batch of the validation or of a
    point of an analysis. It writes ``hpc_ckpt_JOB.ckpt`` into the run's own folder, runs ``scontrol
    requeue`` and ends the process. The same command then goes on from there, and the end of the epoch
    removes the file. If the job cannot be queued again, the training continues to its time limit.

    It listens only in a job of SLURM whose processes srun started.

    Args:
        folder: The folder of the run's checkpoints.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self.requested = False
        """Whether the signal has arrived and was not answered yet."""
        self.requeued = False
        """Whether the job is queued again."""
        self._listening_for: signal.Signals | None = None
        self._before: Any = None

    def listen(self, trainer: Trainer) -> None:
        """Listen for the signal from now on; Lightning then leaves it alone."""
        environment = trainer._accelerator_connector.cluster_environment
        in_main_thread = threading.current_thread() is threading.main_thread()
        if self._listening_for is not None or not in_main_thread:
            return
        if isinstance(environment, SLURMEnvironment) and environment.auto_requeue:
            self._listening_for = environment.requeue_signal or signal.SIGUSR1
            self._before = signal.signal(self._listening_for, self._note)

    def stop_listening(self) -> None:
        """Give the signal back."""
        if self._listening_for is not None:
            signal.signal(self._listening_for, self._before)
            self._listening_for = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Listen before Lightning does."""
        self.listen(trainer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Answer between two steps of the optimiser, unless the training is over anyway."""
        stops = trainer.should_stop and trainer.fit_loop._can_stop_early
        is_over = stops or 0 <= trainer.max_steps <= trainer.global_step
        if self._is_asked(trainer) and not is_over and not trainer.fit_loop._should_accumulate():
            self._save_and_stop(trainer)

    def on_validation_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Answer in the middle of a validation, which is then repeated; the weights stay as they are."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking and self._is_asked(trainer):
            self._save_and_stop(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remove the checkpoint that the job went on from: ``last.ckpt`` is further."""
        self._remove(trainer)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remove the checkpoint of a training that only lacked its analyses."""
        self._remove(trainer)

    def _remove(self, trainer: Trainer) -> None:
        if trainer.is_global_zero:
            for path in requeue_checkpoints(self.folder):
                path.unlink(missing_ok=True)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Answer where an analysis stopped: the last epoch's checkpoint is the one to go on from."""
        last = self.folder / "last.ckpt"
        if self.requested and isinstance(exception, SIGTERMException) and trainer.is_global_zero:
            if last.is_file():
                with last.open("rb") as source, atomic_write(self._path, "wb") as copy:
                    shutil.copyfileobj(source, copy)
            self.requeued = _requeue_job(self._path if last.is_file() else None)

    @property
    def _path(self) -> Path:
        return self.folder / f"hpc_ckpt_{os.environ.get('SLURM_JOB_ID') or 1}.ckpt"

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.requested = True

    def _is_asked(self, trainer: Trainer) -> bool:
        """Whether any rank has received the signal; every rank takes part."""
        if self._listening_for is None or trainer.world_size == 1:
            return self.requested
        return bool(trainer.strategy.reduce_boolean_decision(self.requested, all=False))

    def _save_and_stop(self, trainer: Trainer) -> None:
        for logger in trainer.loggers:
            logger.save()
        trainer.save_checkpoint(self._path)
        requeued = _requeue_job(self._path) if trainer.is_global_zero else False
        self.requested = False
        self.requeued = bool(trainer.strategy.broadcast(requeued))
        if self.requeued:
            raise SIGTERMException


def _requeue_job(checkpoint: Path | None) -> bool:
    """Queue this job again; where that fails, one line says so."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    job = f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID")
    if job is None:
        reason = "SLURM_JOB_ID is not set"
    else:
        try:
            completed = subprocess.run(
                ["scontrol", "requeue", job], capture_output=True, text=True, timeout=60, check=False
            )
            reason = " ".join(completed.stderr.split()) or f"exit code {completed.returncode}"
            if completed.returncode == 0:
                return True
        except (OSError, subprocess.TimeoutExpired) as error:
            reason = f"scontrol cannot be run: {error}"
    kept = "" if checkpoint is None else f"; {checkpoint} is kept"
    print(f"nas-lightning: the job could not be requeued ({reason}){kept}", file=sys.stderr, flush=True)
    return False
