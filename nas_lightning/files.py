"""Files are written atomically, and looked for under any text."""

from __future__ import annotations

import errno
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

FULL_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""Errors of the system that say that there is no room for a file."""


def is_file(path: str | os.PathLike[str]) -> bool:
    """Whether there is such a file; False as well for a text that cannot be a path, such as one too long."""
    try:
        return Path(path).is_file()
    except (OSError, ValueError):
        return False


def in_utf8(name: str) -> str:
    """A name for programs to read: exact, but for bytes that are no UTF-8, which are escaped."""
    return name.encode(errors="backslashreplace").decode()


def shown(name: str | os.PathLike[str]) -> str:
    """A name for people to read, on one line: as :func:`in_utf8`, and control characters are escaped."""
    return re.sub(
        "[\x00-\x1f\x7f-\x9f\ud800-\udfff]",
        lambda found: found.group().encode("unicode_escape").decode(),
        os.fspath(name),
    )


def check_writable(folder: Path, name: str = "") -> None:
    """Refuse a folder that can be neither made nor written to; the ValueError calls it ``name``."""
    existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise ValueError(f"cannot write {name}{folder}: {existing} is not a writable folder")


@contextmanager
def naming(path: str | os.PathLike[str]) -> Iterator[None]:
    """An OSError inside says which file cannot be written, and why."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, f"cannot write {path}: {error.strerror or error}") from error


@contextmanager
def atomic_write(path: str | os.PathLike[str], mode: str = "w") -> Iterator[IO[Any]]:
    """Open a temporary sibling of ``path`` that takes its place when the block ends without an error.

    A reader sees the old file or the new one, never a part of it. A killed or failed writer leaves the old
    file unchanged. Missing parent folders are created; text is UTF-8; an OSError names ``path``.
    """
    path = Path(path)
    temporary: Path | None = None
    try:
        with naming(path):
            if path.exists() and not path.is_file() and not path.is_dir():  # /dev/null must stay what it is
                raise OSError(errno.EINVAL, "it is no file but a device, a pipe or a socket")
            path.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
            temporary = Path(name)
            with os.fdopen(handle, mode, encoding=None if "b" in mode else "utf-8") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.chmod(0o666 & ~_umask())
            temporary.replace(path)
            temporary = None
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
