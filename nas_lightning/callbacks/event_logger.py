"""TensorBoard's event file of a run: written at once, and whole up to its end when the disk is full.

TensorBoard's own writer is a thread: its errors come later, from elsewhere, as tracebacks without the file.
"""

from __future__ import annotations

import itertools
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.core.saving import save_hparams_to_yaml
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard.writer import FileWriter, SummaryWriter

from nas_lightning.files import naming

_numbers = itertools.count()


class EventFile:
    """An event file; an event is in it whole or not at all.

    Args:
        folder: Its folder, which is made if it is missing.

    Raises:
        OSError: If it cannot be written, with its name; from every method.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        name = f"{int(time.time()):010d}.{socket.gethostname()}.{os.getpid()}.{next(_numbers)}"
        self.path = Path(folder, f"events.out.tfevents.{name}")
        with naming(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.path.open("wb", buffering=0)
        self._records = RecordWriter(self)
        try:
            self.add_event(Event(wall_time=time.time(), file_version="brain.Event:2"))
        except OSError:
            self._file.close()
            self.path.unlink(missing_ok=True)
            raise

    def get_logdir(self) -> str:
        """Its folder."""
        return str(self.path.parent)

    def add_event(self, event: Event) -> None:
        """Append an event."""
        self._records.write(event.SerializeToString())

    def write(self, record: bytes) -> None:
        """Append the bytes of an event, or nothing."""
        end = self._file.tell()
        left = memoryview(record)
        with naming(self.path):
            try:
                while left:
                    left = left[self._file.write(left) :]
            except OSError:
                self._file.seek(end)
                self._file.truncate()
                raise

    def flush(self) -> None:
        """Everything is written already."""

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def reopen(self) -> None:
        """Go on after :meth:`close`."""
        with naming(self.path):
            self._file = self.path.open("ab", buffering=0)


class _FileWriter(FileWriter):
    def __init__(self, folder: str) -> None:  # not the parent's, which starts a thread
        self.event_writer = EventFile(folder)


class _Writer(SummaryWriter):
    """torch's writer of summaries, over :class:`EventFile`."""

    file_writer: Any
    all_writers: Any

    def _get_file_writer(self) -> FileWriter:
        if self.file_writer is None:
            self.file_writer = _FileWriter(self.log_dir)
            self.all_writers = {self.log_dir: self.file_writer}
        writer: FileWriter = self.file_writer
        return writer


class EventLogger(TensorBoardLogger):
    """TensorBoard's logger of a run, whose errors name the file that cannot be written."""

    @property
    @rank_zero_experiment
    def experiment(self) -> SummaryWriter:
        """The writer of summaries."""
        if self._experiment is None:
            self._experiment = _Writer(self.log_dir)
        return self._experiment

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Write metrics; Lightning calls a full disk a number that it does not support."""
        try:
            super().log_metrics(metrics, step)
        except ValueError as error:
            if isinstance(error.__cause__, OSError):
                raise error.__cause__ from None
            raise

    @rank_zero_only
    def save(self) -> None:
        """Write ``hparams.yaml`` too, atomically, if it is not there."""
        self.experiment.flush()
        path = Path(self.log_dir, self.NAME_HPARAMS_FILE)
        if not path.parent.is_dir() or path.is_file():
            return
        temporary = path.with_name(f".{path.name}.tmp")
        with naming(path):
            try:
                save_hparams_to_yaml(temporary, self.hparams)
                temporary.replace(path)
            finally:
                temporary.unlink(missing_ok=True)
