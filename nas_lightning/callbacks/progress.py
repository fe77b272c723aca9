"""Progress of a training and of a surface, with the time left."""

from __future__ import annotations

import logging
import shutil
import sys
import time
from contextlib import AbstractContextManager
from typing import Any, cast

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar
from tqdm import tqdm


def in_terminal() -> bool:
    """Whether a bar can be drawn: on a terminal that has columns, which some containers' have not."""
    return sys.stdout.isatty() and shutil.get_terminal_size((0, 0)).columns > 0


def beside_bars(file: Any) -> AbstractContextManager[None]:
    """What is written to a file meanwhile stands above the bars, which are drawn anew below it."""
    return cast("AbstractContextManager[None]", tqdm.external_write_mode(file=file))


class LogBesideBars(logging.StreamHandler[Any]):
    """Writes a log's lines above the bars, never into them."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record's line."""
        with beside_bars(self.stream):
            super().emit(record)


def keep_log_beside_bars() -> None:
    """Let Lightning's log, which has the lines of this program too, write beside bars."""
    for name in ("lightning", "lightning.fabric", "lightning.pytorch"):
        logger = logging.getLogger(name)
        for handler in [each for each in logger.handlers if type(each) is logging.StreamHandler]:
            beside = LogBesideBars(handler.stream)
            beside.setLevel(handler.level)
            beside.setFormatter(handler.formatter)
            logger.removeHandler(handler)
            logger.addHandler(beside)


class TrainingProgress(TQDMProgressBar):
    """Lightning's progress bar with the time left of the whole training.

    In a log file, one line an epoch replaces the bar.
    """

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Draw bars in a terminal only."""
        super().setup(trainer, pl_module, stage)
        if not in_terminal():
            self.disable()

    def enable(self) -> None:
        """Draw bars again, after a search for a learning rate or batch size; in a terminal only."""
        if in_terminal():
            super().enable()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Start the clock."""
        super().on_train_start(trainer, pl_module)
        self._started = time.monotonic()
        self._first_epoch = trainer.current_epoch

    def on_train_epoch_start(self, trainer: Trainer, *_: Any) -> None:
        """Count epochs from 1, of how many."""
        super().on_train_epoch_start(trainer)
        self.train_progress_bar.set_description(f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the epoch's line where there is no bar."""
        super().on_train_epoch_end(trainer, pl_module)
        if self.is_disabled and trainer.is_global_zero and not in_terminal():
            metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
            items = {**metrics, **self.get_metrics(trainer, pl_module)}
            values = ", ".join(
                f"{name} {value:.4f}" if isinstance(value, float) else f"{name} {value}"
                for name, value in items.items()
            )
            print(f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}: {values}", flush=True)

    def get_metrics(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        """The metrics shown beside the bar, and the time left."""
        items = super().get_metrics(trainer, pl_module)
        items.pop("v_num", None)
        left = self._time_left(trainer)
        return items if left is None else {"left": tqdm.format_interval(left), **items}

    def _time_left(self, trainer: Trainer) -> float | None:
        epochs, batches = trainer.max_epochs, trainer.num_training_batches
        if not trainer.training or epochs is None or epochs < 1 or not hasattr(self, "_started"):
            return None
        progress = trainer.fit_loop.epoch_loop.batch_progress.current.ready / batches
        done = trainer.current_epoch + min(1.0, progress) - self._first_epoch
        if done <= 0:
            return None
        return (time.monotonic() - self._started) * (epochs - self._first_epoch - done) / done


class PointProgress:
    """How many of `total` points of a surface are done, and the time left, on the rank where it is visible.

    In a terminal it is a bar; in a log file, a line after every tenth of the points.
    """

    def __init__(self, name: str, finished: int, total: int, *, visible: bool) -> None:
        self._name, self._total, self._visible = name, total, visible
        self._first = self._said = finished
        self._started = time.monotonic()
        self._bar = tqdm(
            total=total,
            initial=finished,
            desc=name,
            unit="point",
            disable=not (visible and in_terminal()),
            file=sys.stdout,
            dynamic_ncols=True,
        )

    def update(self, finished: int) -> None:
        """Show how many points are done."""
        self._bar.update(finished - self._bar.n if not self._bar.disable else 0)
        if self._bar.disable and self._visible and finished - self._said >= self._total / 10:
            self._said = finished
            seconds = (time.monotonic() - self._started) / (finished - self._first) * (self._total - finished)
            left = tqdm.format_interval(seconds)
            with beside_bars(sys.stdout):
                print(f"{self._name}: {finished} of {self._total} points, {left} left", flush=True)

    def close(self) -> None:
        """Leave the bar as it is."""
        self._bar.close()
