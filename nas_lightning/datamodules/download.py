"""Fetching and unpacking official archives: atomic, checksummed, resumable, safe with several processes."""

from __future__ import annotations

import gzip
import hashlib
import http.client
import tarfile
import time
import urllib.error
import urllib.request
import zlib
from pathlib import Path

from tqdm import tqdm

from nas_lightning.datamodules.disk import (
    CHUNK_BYTES,
    DiskError,
    locked,
    open_unbuffered,
    partial_folder,
    reason,
    write_all,
)


class _Interrupted(Exception):
    """A download stopped; ``progressed``: bytes arrived, so that a new attempt makes sense."""

    def __init__(self, reason: str, progressed: bool) -> None:
        super().__init__(reason)
        self.progressed = progressed


def md5_of(path: Path) -> str:
    """The MD5 of a file as 32 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def verify_md5(path: Path, expected: str, remedy: str, found: str | None = None) -> None:
    """Refuse a file that is not the official one.

    Args:
        path: The file.
        expected: Its MD5.
        remedy: What the user can do, for the message.
        found: MD5 of the file where it is known already.

    Raises:
        ValueError: If the MD5 is another one.
    """
    found = md5_of(path) if found is None else found
    if found != expected:
        raise ValueError(
            f"{path}: not the official file, or damaged (MD5 {found}, expected {expected}): {remedy}"
        )


def fetch(url: str, path: Path, md5: str, *, attempts: int = 3, timeout: float = 60.0) -> None:
    """Make sure that ``path`` is the official file, downloading it where it is missing.

    Bytes are gathered in ``NAME.part``, which a later call continues; the file gets its name when its
    checksum is right.

    Args:
        url: Where the file is published.
        path: Where it belongs.
        md5: Its checksum.
        attempts: How often a download that broke off is continued within this call.
        timeout: Seconds without a byte after which a connection counts as broken.

    Raises:
        FileNotFoundError: If the file is missing and cannot be downloaded.
        ValueError: If the file, there already or downloaded, has another checksum.
        DiskError: If it cannot be written.
    """
    with locked(path):
        if path.exists():
            verify_md5(path, md5, f"delete it, or put the file from {url} in its place")
            return
        part = path.with_name(path.name + ".part")
        stale = part.exists()
        _download(url, path, part, attempts, timeout)
        if stale and md5_of(part) != md5:
            # The old part may have been of another file: once more, from the start.
            part.unlink()
            _download(url, path, part, attempts, timeout)
        found = md5_of(part)
        if found != md5:
            part.unlink()
        verify_md5(
            path, md5, f"{url} sent something else; try again, or put the official file there by hand", found
        )
        part.replace(path)


def extract_tar(archive: Path, folder: Path) -> None:
    """Unpack a tar archive whose single top folder becomes ``folder``, all of it or nothing.

    Args:
        archive: The archive, compressed or not.
        folder: Where its top folder goes; must not exist, and must have that folder's name.

    Raises:
        ValueError: If the archive is damaged, has a member outside its top folder, or no such folder.
        DiskError: If the files cannot be written.
    """
    with partial_folder(folder) as partial:
        try:
            with tarfile.open(archive) as tar:
                members = tar.getmembers()
                for member in members:
                    if Path(member.name).parts[:1] != (folder.name,):
                        raise ValueError(
                            f"{archive}: member {member.name!r} lies outside the folder {folder.name}"
                        )
                tar.extractall(partial, members, filter="data")
        except tarfile.FilterError as error:
            raise ValueError(f"{archive}: refused, it would write outside its folder ({error})") from error
        except (tarfile.TarError, gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise ValueError(f"{archive}: the archive is damaged ({error})") from error
        except OSError as error:
            raise DiskError(f"{folder}: cannot be written ({reason(error)})") from error
        if not (partial / folder.name).is_dir():
            raise ValueError(f"{archive}: the archive has no folder {folder.name}")
        (partial / folder.name).replace(folder)


def _download(url: str, path: Path, part: Path, attempts: int, timeout: float) -> None:
    for attempt in range(1, attempts + 1):
        try:
            _continue_download(url, path, part, timeout)
        except _Interrupted as error:
            if error.progressed and attempt < attempts:
                time.sleep(1)
                continue
            kept = f"; {part.name} holds what arrived, a new start continues it" if part.exists() else ""
            raise FileNotFoundError(
                f"{path}: missing, and the download from {url} failed ({error}): "
                f"connect to the network, or put the official file {path.name} there by hand{kept}"
            ) from error
        except DiskError:
            part.unlink(missing_ok=True)
            raise
        else:
            return


def _continue_download(url: str, path: Path, part: Path, timeout: float) -> None:
    """Append to ``part`` until it is whole."""
    offset = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"User-Agent": "nas-lightning"})
    if offset:
        request.add_header("Range", f"bytes={offset}-")
    received = 0
    try:
        with urllib.request.urlopen(request, timeout=timeout) as response:
            if response.status != http.HTTPStatus.PARTIAL_CONTENT:
                offset = 0  # the server sends the whole file
            length = response.headers.get("Content-Length")
            total = offset + int(length) if length is not None else None
            progress = tqdm(total=total, initial=offset, unit="B", unit_scale=True, desc=path.name)
            with open_unbuffered(part, "a" if offset else "w") as file, progress:
                while chunk := response.read(CHUNK_BYTES):
                    write_all(file, chunk)
                    received += len(chunk)
                    progress.update(len(chunk))
    except DiskError:
        raise
    except urllib.error.HTTPError as error:
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            part.unlink()  # whole already or longer than the file: start again
            raise _Interrupted("the partial download does not fit the file", progressed=True) from error
        raise _Interrupted(f"HTTP {error.code} {error.reason}", progressed=False) from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _Interrupted(_reason(error), progressed=received > 0) from error
    if total is not None and offset + received < total:
        raise _Interrupted(f"broke off after {offset + received} of {total} bytes", progressed=received > 0)


def _reason(error: Exception) -> str:
    """The cause of a failed download in a few words, on one line."""
    if isinstance(error, urllib.error.URLError) and isinstance(error.reason, Exception):
        return _reason(error.reason)
    return reason(error)
