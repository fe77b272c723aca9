"""Official files, downloaded by torchvision and known by their published MD5."""

from __future__ import annotations

import contextlib
import errno
import http.client
import io
import socket
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path

from lightning.pytorch import LightningDataModule

from nas_lightning.datamodules.storage import DiskError, locked, partial_folder, reason

TIMEOUT = 60.0
"""Seconds without a byte after which a connection counts as broken."""

_downloads = ContextVar("_downloads", default=True)
_DISK_FAULTS = {errno.EDQUOT, errno.EFBIG, errno.EIO, errno.ENOSPC}


def check_md5(path: Path, expected: str, remedy: str, *, shown: Path | None = None) -> None:
    """Refuse a file that is not the official one.

    Raises:
        ValueError: If the file has another MD5.
    """
    from torchvision.datasets.utils import calculate_md5  # torchvision takes a second to import

    found = calculate_md5(path)
    if found != expected:
        raise ValueError(
            f"{shown or path}: damaged, or not the official file (MD5 {found}, expected {expected}); {remedy}"
        )


def fetch(url: str, path: Path, md5: str) -> None:
    """Make sure that ``path`` is the official file; download it if it is missing.

    One process downloads while the others wait. The file gets its name once its MD5 is right, so a killed
    download leaves nothing that counts as the file.

    Raises:
        FileNotFoundError: If the file is missing and cannot be downloaded.
        ValueError: If the file, found or downloaded, has another MD5.
        DiskError: If it cannot be written.
    """
    from torchvision.datasets.utils import download_url

    with locked(path):
        if path.exists():
            check_md5(path, md5, f"delete it, or replace it by the file from {url}")
            return
        if not _downloads.get():
            raise FileNotFoundError(
                f"{path}: missing where the checkpoint was trained; say where the data are with `--data.root`"
            )
        with partial_folder(path) as partial:
            arrived = partial / path.name
            try:
                with _socket_timeout(TIMEOUT), contextlib.redirect_stdout(io.StringIO()):
                    download_url(url, str(partial.absolute()), path.name)
            except (OSError, http.client.HTTPException, RecursionError) as error:
                if isinstance(error, OSError) and error.errno in _DISK_FAULTS:
                    raise DiskError(f"{path}: cannot be written ({reason(error)})") from error
                raise FileNotFoundError(
                    f"{path}: missing, and the download from {url} failed ({reason(error)}); "
                    f"connect to the network, or put the official file {path.name} there by hand"
                ) from error
            remedy = (
                f"{url} broke off or sent another file: try again, or put the official file there by hand"
            )
            check_md5(arrived, md5, remedy, shown=path)
            arrived.replace(path)


@contextlib.contextmanager
def files_at_hand(data: LightningDataModule) -> Iterator[None]:
    """Download nothing in this context: the files of a data module are there, or an error names the missing.

    Raises:
        FileNotFoundError: If the data module fetches or converts files and its folder does not exist.
    """
    root = getattr(data, "root", None)
    needs_files = type(data).prepare_data is not LightningDataModule.prepare_data
    if needs_files and isinstance(root, str) and not Path(root).is_dir():
        raise FileNotFoundError(
            f"`data.root` (={root}), where the checkpoint was trained, is not there; say where the data are"
            " with `--data.root`"
        )
    token = _downloads.set(False)
    try:
        yield
    finally:
        _downloads.reset(token)


@contextlib.contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    """Give new connections a time limit: torchvision sets none, so a silent server would block for ever."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
