"""SIGTERM on several ranks: noted where it arrives, answered between two batches or points."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from lightning.pytorch import Trainer


def answer_between_batches(trainer: Trainer) -> None:
    """Let a trainer only note SIGTERM, and tell the processes that it started.

    Lightning's own handler communicates with the other ranks at whatever line the signal arrives. There they
    are in another collective, and all wait for ever. Its loops ask rank 0 before every batch anyway.
    """
    trainer._signal_connector._sigterm_notifier_fn = partial(_note, trainer)  # type: ignore[method-assign]


@contextmanager
def sigterm_noted(trainer: Trainer) -> Iterator[None]:
    """Only note SIGTERM, for :meth:`AnalysisContext.stop_if_asked`."""

    def note(*_: object) -> None:
        trainer._signal_connector.received_sigterm = True

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, note)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _note(trainer: Trainer, number: int, frame: Any) -> None:
    connector, launcher = trainer._signal_connector, trainer.strategy.launcher
    if not connector.received_sigterm and launcher is not None:
        launcher.kill(number)
    connector.received_sigterm = True
