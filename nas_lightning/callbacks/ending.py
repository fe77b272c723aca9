"""How a training ended: what Lightning ends in order is finished, with a reason."""

from __future__ import annotations

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import EarlyStopping, Timer
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason


def ending(trainer: Trainer) -> str | None:
    """Why a training is over, in words; None if it is not.

    After :func:`end_as_before`, it is the reason for which the resumed training had ended.
    """
    epochs, steps = trainer.max_epochs or -1, trainer.max_steps
    if 0 < epochs <= whole_epochs(trainer):
        return f"all {epochs} epochs"
    if 0 < steps <= trainer.global_step:
        return f"max_steps: {steps} steps"
    if not trainer.should_stop or not trainer.fit_loop._can_stop_early:
        return None
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, EarlyStopping) and (reason := _early(trainer, callback)):
            return f"early stopping: {reason}"
        if isinstance(callback, Timer) and (callback.time_remaining() or 0) < 0:
            return f"max_time: {callback.time_elapsed():.0f} seconds"
    return "trainer.should_stop: a callback ended the training"


def whole_epochs(trainer: Trainer) -> int:
    """Number of epochs of which all steps and evaluations are done."""
    return int(trainer.fit_loop.epoch_progress.current.processed)  # type: ignore[attr-defined]


def is_within_epoch(trainer: Trainer) -> bool:
    """Whether an epoch has begun and is not over: some of its steps or evaluations are still to come."""
    return bool(trainer.fit_loop.epoch_progress.current.started > whole_epochs(trainer))  # type: ignore[attr-defined]


def _early(trainer: Trainer, callback: EarlyStopping) -> str | None:
    each_epoch = trainer.val_check_interval == 1.0 and trainer.check_val_every_n_epoch == 1
    times = "epoch" if each_epoch else "evaluation"
    return {
        EarlyStoppingReason.PATIENCE_EXHAUSTED: f"{callback.monitor} did not improve for"
        f" {callback.patience} {times}{'' if callback.patience == 1 else 's'}",
        EarlyStoppingReason.STOPPING_THRESHOLD: f"{callback.monitor} reached {callback.stopping_threshold}",
        EarlyStoppingReason.DIVERGENCE_THRESHOLD: f"{callback.monitor} passed"
        f" {callback.divergence_threshold}",
        EarlyStoppingReason.NON_FINITE_METRIC: f"{callback.monitor} is not finite",
    }.get(callback.stopping_reason)
