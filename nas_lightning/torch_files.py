"""Files of ``torch.save``: written atomically, checked on reading.

Such a file is a zip archive that keeps a CRC-32 of every tensor's bytes and of the pickled settings.
``torch.load`` looks at none of them, so that a flipped bit becomes another number; this module compares all.
"""

from __future__ import annotations

import os
import pickle
import zipfile
from pathlib import Path
from typing import IO, Any

import torch

from nas_lightning.files import atomic_write

_CHUNK_BYTES = 2**20


def write_torch_file(path: str | os.PathLike[str], content: Any) -> None:
    """Write with ``torch.save``, atomically and with checksums; an OSError names the file."""
    with_checksums = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(True)
    try:
        with atomic_write(path, "wb") as file:
            noting = _NotingErrors(file)
            try:
                torch.save(content, noting)  # type: ignore[arg-type]
            except Exception as error:
                # torch ends its archive even then, and complains about that instead.
                raise noting.error or error from None
    finally:
        torch.serialization.set_crc32_options(with_checksums)


def read_torch_file(path: str | os.PathLike[str], key: str | None = None, *, mmap: bool = False) -> Any:
    """Read tensors and plain values that ``torch.save`` wrote; nothing else is unpickled.

    Args:
        path: The file.
        key: The setting that names it, for messages.
        mmap: Whether tensors stay on disk until they are used, for files that nobody writes to meanwhile.

    Returns:
        What the file holds, on the CPU.

    Raises:
        FileNotFoundError: If there is no such file.
        OSError: If it cannot be read.
        ValueError: If it is damaged, no file of ``torch.save``, or holds other objects.
    """
    path = Path(path)
    said = str(path) if key is None else f"`{key}` (={path})"
    if not path.is_file():
        raise FileNotFoundError(f"{said} is not a file")
    is_archive = False
    try:
        is_archive = _check_archive(path, said)
        return torch.load(path, weights_only=True, map_location="cpu", mmap=mmap and is_archive)
    except OSError as error:
        raise OSError(error.errno, f"cannot read {said}: {error.strerror or error}") from error
    except _Damaged as error:
        if (kind := foreign_kind(path)) is None:
            raise
        raise ValueError(f"{said} is {kind}") from error
    except Exception as error:  # whatever torch raises of a foreign file
        if is_archive and isinstance(error, pickle.UnpicklingError):
            raise ValueError(f"{said} holds objects beside tensors and plain values") from error
        if (kind := foreign_kind(path)) is not None:
            raise ValueError(f"{said} is {kind}") from error
        raise ValueError(f"{said} is damaged, or not a checkpoint") from error


def on_this_machine(storage: torch.UntypedStorage, location: str) -> torch.UntypedStorage:
    """A ``map_location``: the kind of device that a tensor was on, or the CPU where there is none of it."""
    kind = location.partition(":")[0]
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if accelerator is None or accelerator.type != kind:
        return storage
    moved: torch.UntypedStorage = torch.serialization.default_restore_location(storage, kind)  # type: ignore[no-untyped-call]
    return moved


def foreign_kind(path: Path) -> str | None:
    """What a file is that ``torch.load`` cannot read, and what to do, after "it is"; None: unknown."""
    with path.open("rb") as file:
        start = file.read(512)
    if not start:
        return "damaged: it is empty"
    if start.startswith(b"version https://git-lfs"):
        return "a pointer of Git LFS, not the file itself: `git lfs pull` in its repository fetches it"
    if start.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        return "a web page, not the file: download the file that the page links to"
    packed = next((kind for magic, kind in _PACKED.items() if start.startswith(magic)), None)
    if packed is None and start[257:262] == b"ustar":
        packed = "a tar archive"
    if packed is None:
        packed = _foreign_zip(path)
    if packed is not None:
        return f"{packed}: unpack it, and name a file of weights inside"
    other = next((kind for magic, kind in _OTHER.items() if start.startswith(magic)), None)
    return None if other is None else f"{other}, not a file of torch.save"


def _foreign_zip(path: Path) -> str | None:
    """A zip archive that ``torch.save`` did not write, with the names of its first files."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if not name.endswith("/")]
    except (OSError, ValueError, zipfile.BadZipFile, NotImplementedError):
        return None
    if not names or {Path(name).name for name in names} & {"data.pkl", "version", "byteorder"}:
        return None
    said = [shown if len(shown := ascii(name)[1:-1]) < 60 else f"{shown[:60]}..." for name in names[:3]]
    return f"a zip archive of {', '.join(said)}" + ", ..." * (len(names) > 3)


_PACKED = {
    b"\x1f\x8b": "a gzip archive",
    b"BZh": "a bzip2 archive",
    b"\xfd7zXZ\0": "an xz archive",
    b"7z\xbc\xaf": "a 7z archive",
    b"Rar!": "a rar archive",
    b"\x28\xb5\x2f\xfd": "a zstd archive",
}
_OTHER = {
    b"\x89HDF\r\n": "an HDF5 file",
    b"\x89PNG": "an image",
    b"\xff\xd8\xff": "an image",
    b"%PDF-": "a PDF",
}
"""Beginnings of files."""


class _Damaged(ValueError):
    """An archive whose bytes are not those that were written."""


def _check_archive(path: Path, said: str) -> bool:
    """Compare all checksums of an archive; False if it is none, as before torch 1.6."""
    with path.open("rb") as file:
        start = file.read(4)
        if start != b"PK\x03\x04":
            return False
        try:
            with zipfile.ZipFile(file) as archive:
                records = archive.infolist()
                if not any(record.CRC for record in records):
                    return True  # written without checksums, by choice
                for record in records:
                    if record.compress_type != zipfile.ZIP_STORED:
                        raise zipfile.BadZipFile(f"{record.filename} is compressed")
                    with archive.open(record) as content:
                        while content.read(_CHUNK_BYTES):  # compares the checksum at the end
                            pass
        except Exception as error:  # whatever zipfile raises of damaged archives
            raise _Damaged(f"{said} is damaged or incomplete: {' '.join(str(error).split())}") from error
    return True


class _NotingErrors:
    """A file that keeps the error of a failed write."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            return self.file.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self.file.flush()
