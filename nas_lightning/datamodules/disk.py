"""Writing to a disk that may be full or shared: locks, folders to build in, errors that name the file."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from lightning.pytorch.utilities import rank_zero_info

CHUNK_BYTES = 1 << 20


class DiskError(OSError):
    """A file could not be written: the message names it and says why."""


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock that belongs to ``path``: one process of the machine (or of the shared disk) at a time.

    Args:
        path: The file or folder to be made; the lock is the hidden file ``.NAME.lock`` beside it.

    Raises:
        DiskError: If the folder of ``path`` cannot be made or written.
    """
    lock = FileLock(path.parent / f".{path.name}.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=1)
        except Timeout:
            rank_zero_info(f"{path}: another process prepares it, waiting")
            lock.acquire()
    except OSError as error:
        raise DiskError(f"{path.parent}: cannot be written ({reason(error)})") from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def partial_folder(folder: Path) -> Iterator[Path]:
    """An empty folder beside ``folder`` to build it in, gone afterwards.

    What a killed process left there is removed first. Its name is always the same, so the caller must hold
    the lock of ``folder``.

    Args:
        folder: What is being built.

    Raises:
        DiskError: If the folder cannot be made.
    """
    partial = folder.parent / f".{folder.name}.partial"
    try:
        if partial.exists():
            shutil.rmtree(partial)
        partial.mkdir(parents=True)
    except OSError as error:
        raise DiskError(f"{partial}: cannot be made ({reason(error)})") from error
    try:
        yield partial
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def open_unbuffered(path: Path, mode: str) -> io.FileIO:
    """Open a file for ``write_all``.

    Args:
        path: The file.
        mode: ``"w"`` to make it anew, ``"a"`` to append.

    Raises:
        DiskError: If it cannot be opened.
    """
    try:
        return io.FileIO(os.fspath(path), mode)
    except OSError as error:
        raise DiskError(f"{path}: cannot be written ({reason(error)})") from error


def write_all(file: io.FileIO, data: bytes | memoryview) -> None:
    """Write every byte to an unbuffered file.

    Args:
        file: The file.
        data: What to write.

    Raises:
        DiskError: If the disk is full or the file cannot be written.
    """
    rest = memoryview(data).cast("B")
    try:
        while rest:
            rest = rest[file.write(rest) :]
    except OSError as error:
        raise DiskError(f"{file.name!s}: cannot be written ({reason(error)})") from error


def flush_to_disk(file: io.FileIO) -> None:
    """Wait until what was written is on the disk, so that it outlives a power cut.

    Args:
        file: The file.

    Raises:
        DiskError: If the disk fails.
    """
    try:
        os.fsync(file.fileno())
    except OSError as error:
        raise DiskError(f"{file.name!s}: cannot be written ({reason(error)})") from error


def reason(error: Exception) -> str:
    """The cause of an error in a few words, on one line."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split()) or type(error).__name__
