"""The metrics that callbacks and schedules may follow, checked before the training."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator

from lightning.pytorch import Callback
from lightning.pytorch.callbacks import LearningRateMonitor
from lightning.pytorch.utilities import rank_zero_info

from nas_lightning.callbacks.checkpoints import RunCheckpoint

_OWN_PACKAGES = ("nas_lightning.", "lightning.", "pytorch_lightning.")
_SYNONYMS = {"acc": "accuracy", "top1": "accuracy", "error": "loss", "top5": "accuracy_top5"}


def check_monitors(
    callbacks: Collection[Callback],
    metrics: Collection[str],
    schedule: str | None = None,
    perhaps: Collection[str] = (),
) -> list[str]:
    """Refuse callbacks that wait for a metric which this training does not have.

    Where a callback of the user's own may log further metrics, nothing is refused.

    Args:
        callbacks: The callbacks of the trainer.
        metrics: The metrics of the training, by tag.
        schedule: The metric that the schedule of the learning rate follows; None if it follows none.
        perhaps: Further metrics that it may have, which its data decide.

    Returns:
        Those of ``perhaps`` that are waited for.

    Raises:
        ValueError: If a ``monitor`` is none of them; the message suggests the one that is meant.
    """
    if any(not type(callback).__module__.startswith(_OWN_PACKAGES) for callback in callbacks):
        return []
    known = {*metrics, *perhaps}
    watches_rates = any(isinstance(callback, LearningRateMonitor) for callback in callbacks)
    for name, monitor, mode in _monitors(callbacks, schedule):
        if monitor not in known and not (watches_rates and monitor.startswith("lr-")):
            meant = _meant(monitor, metrics)
            raise ValueError(
                f"`monitor` (={monitor}) of {name} is no metric of this training: did you mean `{meant}`?"
                f" There are {', '.join(metrics)}"
            )
        if mode == "min" and "accuracy" in monitor:
            rank_zero_info(f"{name} follows {monitor} with `mode` min: a smaller value counts as better")
    return [monitor for _, monitor, _ in _monitors(callbacks, schedule) if monitor in perhaps]


def _monitors(callbacks: Collection[Callback], schedule: str | None) -> Iterator[tuple[str, str, str]]:
    """Class, metric and mode of all that follow a metric."""
    if schedule is not None:
        yield "model.lr_scheduler", schedule, ""
    for callback in callbacks:
        monitor = getattr(callback, "monitor", None)
        if isinstance(monitor, str) and not isinstance(callback, RunCheckpoint):
            yield type(callback).__name__, monitor, str(getattr(callback, "mode", ""))


def _meant(monitor: str, metrics: Collection[str]) -> str:
    """The metric that a name like ``val_acc`` or ``test/loss`` means."""
    words = monitor.lower().replace("/", "_").replace("-", "_").split("_")
    quantity = next((_SYNONYMS.get(word, word) for word in words if word in _SYNONYMS or word == "loss"), "")
    quantity = quantity or next((word for word in words if word == "accuracy"), "")
    of_quantity = [tag for tag in metrics if tag.partition("/")[0] == quantity]
    likely = [tag for tag in of_quantity if tag.endswith("/train") == ("train" in words)] or of_quantity
    close = difflib.get_close_matches(monitor, list(metrics), n=1, cutoff=0.0)
    return next(iter([*likely, *close]))
