"""Decoded images as memory-mapped NumPy files: written whole or not at all, checked before they are used.

Reading a cache of more than a gigabyte to check it would take a cold disk many seconds at every start. Beside
its CRC-32, the size and modification time of every file are therefore recorded, and only a file that differs
in these is read.
"""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from numpy.typing import NDArray
from torch import Tensor

from nas_lightning.datamodules.disk import (
    CHUNK_BYTES,
    flush_to_disk,
    open_unbuffered,
    partial_folder,
    write_all,
)
from nas_lightning.files import atomic_write

CHECKSUMS = "checksums.json"


@dataclass(frozen=True)
class DecodedSplit:
    """One split on its way into the cache.

    Attributes:
        shape: Number of images, channels, height, width.
        blocks: The images in order, as uint8 arrays of any number of images each.
        targets: Class of each image, int64.
    """

    shape: tuple[int, int, int, int]
    blocks: Iterable[NDArray[np.uint8]]
    targets: NDArray[np.int64]


def write_image_cache(folder: Path, splits: Mapping[str, DecodedSplit]) -> None:
    """Write the splits to a new folder, which appears when everything is in it.

    The caller holds the folder's lock.

    Args:
        folder: The folder to make; a damaged cache of that name is replaced.
        splits: The splits by name.

    Raises:
        DiskError: If the disk is full or cannot be written. Nothing is left behind.
    """
    with partial_folder(folder) as partial:
        records = {}
        for name, split in splits.items():
            images = (np.ascontiguousarray(block) for block in split.blocks)
            records[_images(name)] = _write_npy(partial / _images(name), split.shape, "|u1", images)
            targets = [split.targets.astype("<i8")]
            records[_targets(name)] = _write_npy(
                partial / _targets(name), split.targets.shape, "<i8", targets
            )
        with open_unbuffered(partial / CHECKSUMS, "w") as file:
            write_all(file, json.dumps(records, indent=1).encode())
            flush_to_disk(file)
        if folder.exists():
            shutil.rmtree(folder)
        partial.replace(folder)


def image_cache_is_whole(folder: Path) -> bool:
    """Whether every file of a cache is there as it was written.

    A file of the recorded size and modification time is taken for unchanged. One of another time, a copy of
    the cache for example, is read: where it has the CRC-32 it was written with, its time is recorded anew (if
    the folder can be written), so that it is read only once.

    Args:
        folder: The cache.

    Returns:
        False if a file is missing or altered, or the records are missing or unreadable.
    """
    try:
        records = json.loads((folder / CHECKSUMS).read_text())
        stamps = {name: _stamp(folder / name) for name in records}
        whole = bool(records) and all(stamps[name]["size"] == records[name]["size"] for name in records)
        dated = [name for name in records if stamps[name]["mtime_ns"] != records[name]["mtime_ns"]]
        whole = whole and all(_crc32(folder / name) == records[name]["crc32"] for name in dated)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return False
    if whole and dated:
        with contextlib.suppress(OSError), atomic_write(folder / CHECKSUMS) as file:
            json.dump({name: records[name] | stamps[name] for name in records}, file, indent=1)
    return whole


def read_image_cache(
    folder: Path, split: str
) -> tuple[UInt8[Tensor, "count channels height width"], Int64[Tensor, " count"]]:
    """Map a split's images into memory; processes of one machine share them.

    Args:
        folder: The cache.
        split: Name of the split.

    Returns:
        Images, read from the disk when they are first touched, and targets.

    Raises:
        OSError: If the files are not there.
    """
    # Copy on write: torch takes no read-only array, and the file stays as it is whatever happens to the
    # tensor.
    images = np.load(folder / _images(split), mmap_mode="c")
    return torch.from_numpy(images), torch.from_numpy(np.load(folder / _targets(split)).astype(np.int64))


def _write_npy(
    path: Path, shape: tuple[int, ...], dtype: str, blocks: Iterable[NDArray[Any]]
) -> dict[str, int]:
    """Write blocks one after the other as one NPY file; what is recorded of the file.

    Not through a memory map: where the disk is full, that kills the process instead of raising an error.
    """
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": dtype, "fortran_order": False, "shape": shape})
    with open_unbuffered(path, "w") as file:
        write_all(file, header.getvalue())
        checksum = zlib.crc32(header.getvalue())
        for block in blocks:
            write_all(file, block.data)
            checksum = zlib.crc32(block.data, checksum)
        # Later starts trust size and time, so the content must reach the disk with them.
        flush_to_disk(file)
    return {**_stamp(path), "crc32": checksum}


def _stamp(path: Path) -> dict[str, int]:
    status = path.stat()
    return {"size": status.st_size, "mtime_ns": status.st_mtime_ns}


def _crc32(path: Path) -> int:
    checksum = 0
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(CHUNK_BYTES):
            checksum = zlib.crc32(chunk, checksum)
    return checksum


def _images(split: str) -> str:
    return f"{split}_images.npy"


def _targets(split: str) -> str:
    return f"{split}_targets.npy"
