"""Writing to a disk that may be full or shared: locks, folders to build in, errors that name the file."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from lightning.pytorch.utilities import rank_zero_info


class DiskError(OSError):
    """A file cannot be written; the message names it and says why."""


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn the system's errors in the block into a DiskError that names ``path``; our own errors pass."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        raise DiskError(f"{path}: cannot be written ({reason(error)})") from error


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of ``path``, the file ``.NAME.lock`` beside it, which one process has at a time.

    Raises:
        DiskError: If the folder of ``path`` cannot be made or written.
    """
    lock = FileLock(path.parent / f".{path.name}.lock")
    with disk_errors(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=1)
        except Timeout:
            rank_zero_info(f"{path}: waiting for another process that prepares it")
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextmanager
def partial_folder(path: Path) -> Iterator[Path]:
    """An empty folder beside ``path`` in which to build it, removed at the end.

    The block moves the finished file or folder to ``path``, so that no half of it ever has that name. What a
    killed process has left in the folder is removed first. The caller holds the lock of ``path``.

    Raises:
        DiskError: If the folder cannot be made.
    """
    partial = path.with_name(f".{path.name}.partial")
    with disk_errors(partial):
        if partial.exists():
            shutil.rmtree(partial)
        partial.mkdir(parents=True)
    try:
        yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def reason(error: Exception) -> str:
    """The cause of an error in a few words, on one line."""
    nested = getattr(error, "reason", None)
    if isinstance(nested, Exception):  # as urllib wraps it
        return reason(nested)
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split()) or type(error).__name__
