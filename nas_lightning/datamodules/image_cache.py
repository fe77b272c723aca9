"""Decoded images as memory-mapped NumPy files that appear whole and are checked before use.

Reading more than a gigabyte at every start would take a cold disk many seconds. The cache therefore records
size, modification time and CRC-32 of every file, and only a file whose time differs is read again.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import mmap
import os
import shutil
import sys
import zlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from numpy.typing import NDArray
from torch import Tensor

from nas_lightning.datamodules.storage import disk_errors, partial_folder
from nas_lightning.files import atomic_write

CHECKSUMS = "checksums.json"
_NO_RESERVE: int = getattr(mmap, "MAP_NORESERVE", 0x4000 if sys.platform == "linux" else 0)
"""Python has the name since 3.13."""


class DecodedSplit(NamedTuple):
    """One split on its way into the cache.

    Attributes:
        shape: Number of images at most, channels, height, width.
        blocks: The images in order, as uint8 arrays of any number of images each.
        targets: Returns the class of each image, int64, once the blocks are written.
    """

    shape: tuple[int, int, int, int]
    blocks: Iterable[NDArray[np.uint8]]
    targets: Callable[[], NDArray[np.int64]]


def write_image_cache(
    folder: Path, splits: Mapping[str, DecodedSplit], describe: Callable[[Path], None] | None = None
) -> None:
    """Write the splits to a new folder, which gets its name once it is complete.

    The caller holds the lock of the folder. ``describe`` writes further files beside the splits, once these
    are written; those named ``*.json`` are checked as the splits are.

    Raises:
        DiskError: If the disk is full or cannot be written. Nothing is left behind.
    """
    with partial_folder(folder) as partial:
        records = {}
        for split, (shape, blocks, read_targets) in splits.items():
            name = f"{split}_images.npy"
            records[name] = write_npy(partial / name, shape, "|u1", blocks)
            name, targets = f"{split}_targets.npy", read_targets()
            records[name] = write_npy(partial / name, targets.shape, "<i8", [targets.astype("<i8")])
        with disk_errors(folder):
            if describe is not None:
                describe(partial)
            for path in partial.glob("*.json"):
                records[path.name] = {**_stamp(path), "crc32": _crc32(path)}
            with atomic_write(partial / CHECKSUMS) as file:
                json.dump(records, file, indent=1)
            if folder.exists():
                shutil.rmtree(folder)
            partial.replace(folder)


def image_cache_is_whole(folder: Path) -> bool:
    """Whether every file of a cache is there as it was written.

    A file with the recorded size and modification time counts as unchanged. A file with another time, as in a
    copy of the cache, is read. If its CRC-32 is right, its new time is recorded (if the folder can be
    written), so that it is read only once.
    """
    try:
        records = json.loads((folder / CHECKSUMS).read_text())
        stamps = {name: _stamp(folder / name) for name in records}
        whole = bool(records) and all(stamps[name]["size"] == records[name]["size"] for name in records)
        dated = [name for name in records if stamps[name]["mtime_ns"] != records[name]["mtime_ns"]]
        whole = whole and all(_crc32(folder / name) == records[name]["crc32"] for name in dated)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return False
    if whole and dated:
        with contextlib.suppress(OSError), atomic_write(folder / CHECKSUMS) as file:
            json.dump({name: records[name] | stamps[name] for name in records}, file, indent=1)
    return whole


def read_image_cache(
    folder: Path, split: str
) -> tuple[UInt8[Tensor, "count channels height width"], Int64[Tensor, " count"]]:
    """Map the images of a split into memory; the processes of one machine share them.

    Raises:
        OSError: If the files are not there.
    """
    images = map_npy(folder / f"{split}_images.npy")
    targets = np.load(folder / f"{split}_targets.npy").astype(np.int64)
    return torch.from_numpy(images), torch.from_numpy(targets)


def map_npy(path: Path) -> NDArray[Any]:
    """Map an NPY file into memory, of whatever size; what is changed there does not reach the file.

    Raises:
        OSError: If the file is not there.
        ValueError: If it is no NPY file.
    """
    with path.open("rb") as file:
        np.lib.format.read_magic(file)
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        # Copy on write: torch takes no read-only array. NumPy's own map of this kind needs as much free
        # memory as the file is large, in case that all of it is changed.
        flags = mmap.MAP_PRIVATE | _NO_RESERVE
        mapped = mmap.mmap(file.fileno(), 0, flags=flags, prot=mmap.PROT_READ | mmap.PROT_WRITE)
        return np.frombuffer(mapped, dtype, math.prod(shape), file.tell()).reshape(shape)


def write_npy(
    path: Path, shape: tuple[int, ...], dtype: str, blocks: Iterable[NDArray[Any]]
) -> dict[str, int]:
    """Write blocks as one NPY file, wait until the disk has them, and return its size, time and CRC-32.

    The blocks may hold fewer rows than ``shape`` says; the file says how many there are. Not through a memory
    map: on a full disk, that kills the process instead of raising an error.

    Raises:
        DiskError: If the disk is full or cannot be written.
    """
    header, checksum, rows = _npy_header(dtype, shape), 0, 0
    with disk_errors(path), path.open("wb") as file:
        file.write(header)
        checksum = zlib.crc32(header)
        for block in blocks:
            rows += len(block)
            data = np.ascontiguousarray(block).data
            file.write(data)
            checksum = zlib.crc32(data, checksum)
        if rows != shape[0]:
            # As long as the first one: the number has fewer digits, and spaces fill the line.
            file.seek(0)
            file.write(_npy_header(dtype, (rows, *shape[1:])))
        file.flush()
        os.fsync(file.fileno())  # later starts trust size and time, so the content must be on the disk
    return {**_stamp(path), "crc32": checksum if rows == shape[0] else _crc32(path)}


def _npy_header(dtype: str, shape: tuple[int, ...]) -> bytes:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": dtype, "fortran_order": False, "shape": shape})
    return header.getvalue()


def _stamp(path: Path) -> dict[str, int]:
    status = path.stat()
    return {"size": status.st_size, "mtime_ns": status.st_mtime_ns}


def _crc32(path: Path) -> int:
    checksum = 0
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(1 << 20):
            checksum = zlib.crc32(chunk, checksum)
    return checksum
