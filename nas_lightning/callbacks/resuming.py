"""Resuming exactly: where in a training a checkpoint was written, and how to go on from there.

Lightning saves checkpoints at the end of an epoch and, for a ModelCheckpoint with ``every_n_train_steps`` or
SLURM's signal, within one. Resumed within an epoch, it starts the order of the images anew, skips what the
beginning of the epoch sets up, and forgets the metrics of the epoch so far.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from lightning.pytorch.utilities import rank_zero_info
from torchmetrics import Metric

from nas_lightning.callbacks.checkpoints import RunCheckpoint
from nas_lightning.callbacks.ending import is_within_epoch

METRICS = "training_metrics"
"""Key of a checkpoint: the states of the metrics of an epoch so far, summed over the ranks."""


@runtime_checkable
class CountsTraining(Protocol):
    """A module whose metrics of an epoch can be carried over, such as the CellClassifier."""

    training_metrics: Mapping[str, Metric]

    def log_training_metrics(self) -> None:
        """Make the metrics known to the trainer."""


@dataclass(frozen=True)
class Place:
    """Where in a training a checkpoint was written: after `epochs` epochs and `batches` batches of the next.

    ``evaluated`` says whether an evaluation due after the last of these batches is done. ``is_last`` is true
    of the last batch of the epoch.
    """

    epochs: int
    batches: int = 0
    evaluated: bool = False
    is_last: bool = False


def place_of(checkpoint: Mapping[str, Any]) -> Place:
    """Where in a training a checkpoint was written; a ValueError if that was not between two steps."""
    try:
        loops = checkpoint["loops"]["fit_loop"]
        epoch = loops["epoch_progress"]["current"]
        progress = loops["epoch_loop.batch_progress"]
        batch, is_last = progress["current"], bool(progress["is_last_batch"])
        evaluation = loops["epoch_loop.val_loop.batch_progress"]["current"]
        if epoch["processed"] == epoch["started"]:
            return Place(int(epoch["processed"]))
        ready, completed = int(batch["ready"]), int(batch["completed"])
        if not batch["started"] == batch["processed"] == ready:
            raise ValueError("it was written in the middle of a step")
        # Lightning counts a batch as completed after the callbacks' `on_train_batch_end`.
        evaluated = completed == ready and evaluation["completed"] == evaluation["ready"] > 0
        return Place(int(epoch["processed"]), ready, evaluated, is_last)
    except (KeyError, TypeError):
        raise ValueError("it does not say how far the training was") from None


def loops_at(loops: Mapping[str, Any], place: Place) -> dict[str, Any]:
    """The state of Lightning's loops from which it goes on at a place exactly.

    All counters of the steps before are complete. An evaluation that is still due looks as if it was broken
    off, so that Lightning repeats it; one that is done looks so.
    """
    state = copy.deepcopy(dict(loops))
    total = state["epoch_loop.batch_progress"]["total"]["processed"]
    within = place.batches > 0
    counts = ("ready", "started", "processed", "completed")
    epoch = dict.fromkeys(counts, place.epochs)
    if within:
        epoch["ready"] = epoch["started"] = place.epochs + 1
    pending = {"ready": 1, "started": 1, "processed": 0, "completed": 0}
    none = dict.fromkeys(counts, 0)
    state["epoch_progress"] = {"total": dict(epoch), "current": dict(epoch)}
    state["epoch_loop.batch_progress"] = {
        "total": dict.fromkeys(counts, total),
        "current": dict.fromkeys(counts, place.batches),
        "is_last_batch": place.is_last and within,
    }
    state["epoch_loop.val_loop.batch_progress"] = {
        "total": dict(pending) if within and not place.evaluated else dict(none),
        "current": dict(none),
        "is_last_batch": False,
    }
    # The state of the training's loader, see `datamodules.sampling.IndexLoader`.
    state["state_dict"] = dict(state.get("state_dict") or {}) | {
        "combined_loader": [{"batches": place.batches}]
    }
    return state


class ExactResume(Callback):
    """Resumes a training where its checkpoint was written, to the same numbers as without a break.

    On the CPU, weights, optimiser and metrics are those of an unbroken run bit for bit. The paths of
    checkpoints follow the run's folder if it was moved. Gives checkpoints the metrics of the epoch so far;
    :class:`nas_lightning.callbacks.RunRecord` gives them the rest of it.
    """

    def __init__(self) -> None:
        self._place: Place | None = None

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the metrics of the epoch so far, on every rank: they are summed over the ranks."""
        if is_within_epoch(trainer) and isinstance(pl_module, CountsTraining):
            checkpoint[METRICS] = {
                name: _summed_state(metric) for name, metric in pl_module.training_metrics.items()
            }

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Put the loops, the metrics and the paths of checkpoints into order before they are restored."""
        self._place = place_of(checkpoint)
        fit_loop = checkpoint["loops"]["fit_loop"]
        checkpoint["loops"]["fit_loop"] = loops_at(fit_loop, self._place)
        states = checkpoint.get(METRICS) or {}
        if self._place.batches and trainer.is_global_zero and isinstance(pl_module, CountsTraining):
            for name, metric in pl_module.training_metrics.items():
                if name in states:
                    _restore(metric, states[name])
        _move_paths(trainer, checkpoint.get("callbacks") or {})

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Do what Lightning leaves out where a training goes on."""
        if self._place is None:
            return
        # It would leave out a schedule that follows a metric, which this class has restored.
        trainer.fit_loop._restarting = False
        loop = trainer.fit_loop.epoch_loop
        if not self._place.batches:
            loop.restarting = False
            return
        fetcher = trainer.fit_loop._data_fetcher
        if fetcher is not None and not loop._should_check_val_fx(fetcher):
            loop._batches_that_stepped += 1  # where an evaluation is due, the loop does it
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, GradientAccumulationScheduler):
                callback.on_train_epoch_start(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tell the trainer the metrics of an epoch of which no batch was left."""
        resumed, self._place = self._place, None
        if resumed is not None and resumed.is_last and isinstance(pl_module, CountsTraining):
            pl_module.log_training_metrics()


def _summed_state(metric: Metric) -> dict[str, Any]:
    """State of a metric, summed over the ranks."""
    with metric.sync_context():
        return {name: copy.deepcopy(value) for name, value in metric.metric_state.items()}


def _restore(metric: Metric, state: Mapping[str, Any]) -> None:
    for name, value in state.items():
        setattr(metric, name, value.to(metric.device))
    metric._update_count = 1  # else it warns that nothing was counted


def _move_paths(trainer: Trainer, states: dict[str, Any]) -> None:
    """Give the states of checkpoint callbacks the folder in which the run is now.

    Lightning stores absolute paths, and forgets the best checkpoint if the folder is another one.
    """
    callbacks = [c for c in trainer.callbacks if isinstance(c, RunCheckpoint)]  # type: ignore[attr-defined]
    before = next((s.get("dirpath") for key, s in states.items() if key.startswith("RunCheckpoint")), None)
    if not callbacks or before is None:
        return
    now = str(callbacks[0].dirpath)

    def moved(path: Any) -> Any:
        is_inside = isinstance(path, str) and Path(path).is_relative_to(before)
        return str(Path(now, Path(path).relative_to(before))) if is_inside else path

    for state in states.values():
        if not isinstance(state, dict) or moved(state.get("dirpath")) == state.get("dirpath") != now:
            continue
        for name in ("dirpath", "best_model_path", "kth_best_model_path", "last_model_path"):
            if state.get(name):
                state[name] = moved(state[name])
        best = {moved(path): score for path, score in (state.get("best_k_models") or {}).items()}
        gone = [path for path in best if not Path(path).is_file()]
        state["best_k_models"] = {path: score for path, score in best.items() if path not in gone}
        if gone:
            rank_zero_info(f"missing: {', '.join(gone)}; the best of the coming epochs takes its place")
            if state.get("kth_best_model_path") in gone:
                state["kth_best_model_path"] = next(iter(state["best_k_models"]), "")
