"""Datasets on disk: netCDF-3 files, written atomically with a checksum, validated on reading.

netCDF-3 through SciPy needs no HDF5 library and takes no locks, which clusters' network disks often lack.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nas_lightning.files import atomic_write

if TYPE_CHECKING:
    import xarray as xr

Attributes = Mapping[str, str | int | float]

NOT_DECIDING = frozenset({"device", "labels", "run_names", "title", "training_seed", "versions"})
"""Attributes in which a file may differ from the run that continues it."""

CHECKSUM = "sha256"
"""Attribute with the SHA-256 of the file's bytes, in which it is itself written as zeros."""
_EMPTY = b"0" * 64
# Its value in a file follows the length of its name, the name, padded to words of four bytes, its type
# (characters) and its length. The length tells it from longer names that end with it.
_STORED = re.compile(
    re.escape(b"\0\0\0\x06" + CHECKSUM.encode().ljust(8, b"\0") + b"\0\0\0\x02" + b"\0\0\0\x40")
    + rb"(.{64})",
    re.DOTALL,
)

# SciPy raises these on bytes that are no netCDF file, or only a part of one.
_UNREADABLE = (
    *(ArithmeticError, AssertionError, AttributeError, EOFError, LookupError, MemoryError),
    *(OSError, RuntimeError, TypeError, ValueError),
)


def read_dataset(path: str | os.PathLike[str]) -> xr.Dataset:
    """Read a file that :func:`write_dataset` wrote into memory, and close it.

    Raises:
        FileNotFoundError: If there is no such file.
        OSError: If it cannot be read.
        ValueError: If it is damaged, or has no attribute ``kind``. A file without a checksum, as older
            versions wrote them, is read as it is.
    """
    path = Path(path)
    if path.exists() and not path.is_file():
        raise ValueError(f"{path} is not a file")
    content = path.read_bytes()
    if (stored := _STORED.search(content)) is not None and stored.group(1) != _checksum(content, stored):
        raise ValueError(f"{path} is not an analysis file, or it is damaged: its checksum differs")
    try:
        import xarray as xr  # takes a third of a second, which not every start needs

        with xr.open_dataset(
            io.BytesIO(content), engine="scipy", mask_and_scale=False, decode_times=False
        ) as opened:
            dataset = opened.load()
    except _UNREADABLE as error:
        raise ValueError(f"{path} is not an analysis file, or it is damaged") from error
    if "kind" not in dataset.attrs:
        raise ValueError(f"{path} is not an analysis file: it has no attribute `kind`")
    dataset.attrs = {name: _plain(value) for name, value in dataset.attrs.items() if name != CHECKSUM}
    return dataset


def write_dataset(path: str | os.PathLike[str], dataset: xr.Dataset) -> None:
    """Write a dataset as netCDF-3, atomically; an OSError names the file."""
    import xarray as xr

    # In the order of the names: a resumed surface has the bytes of an unbroken one.
    ordered = xr.Dataset(
        {name: dataset[name].variable for name in sorted(map(str, dataset.data_vars))},
        coords={name: dataset[name].variable for name in sorted(map(str, dataset.coords))},
        attrs=dict(sorted({**dataset.attrs, CHECKSUM: _EMPTY.decode()}.items())),
    )
    # Without this, xarray declares that NaN means a missing value.
    encoding = {
        name: {"_FillValue": None}
        for name, variable in ordered.variables.items()
        if variable.dtype.kind == "f"
    }
    content = bytes(ordered.to_netcdf(engine="scipy", format="NETCDF3_64BIT", encoding=encoding))
    stored = _STORED.search(content)
    assert stored is not None
    with atomic_write(path, "wb") as file:
        file.write(content[: stored.start(1)] + _checksum(content, stored) + content[stored.end(1) :])


def _checksum(content: bytes, stored: re.Match[bytes]) -> bytes:
    """SHA-256 of a file, as hexadecimal digits, with zeros where it is stored."""
    whole = hashlib.sha256(content[: stored.start(1)])
    whole.update(_EMPTY)
    whole.update(content[stored.end(1) :])
    return whole.hexdigest().encode()


def matching_dataset(path: str | os.PathLike[str], attributes: Attributes) -> xr.Dataset | None:
    """Read a file, if there is one, and check that it holds the analysis with the wanted attributes."""
    if not Path(path).exists():
        return None
    dataset = read_dataset(path)
    check_attributes(path, dataset.attrs, attributes)
    return dataset


def check_attributes(
    path: str | os.PathLike[str], found: Mapping[Any, Any], wanted: Mapping[Any, Any]
) -> None:
    """Refuse a file with other attributes than the wanted analysis, except those of :data:`NOT_DECIDING`."""
    for name in dict.fromkeys((*wanted, *found)):
        ours, theirs = wanted.get(name, "missing"), found.get(name, "missing")
        both_nan = ours != ours and theirs != theirs
        if name not in NOT_DECIDING and ours != theirs and not both_nan:
            refuse(path, name, *_where_different(ours, theirs))


def refuse(path: str | os.PathLike[str], name: str, ours: object, theirs: object) -> None:
    """Refuse a file that belongs to another analysis, by what differs: our value and the file's."""
    raise ValueError(
        f"{path}: `{name}` is {ours}, the file has {theirs}: it belongs to another analysis; remove it, or"
        " set `name` or `folder` of the callback"
    )


def _plain(value: Any) -> Any:
    """NumPy's scalars as Python's."""
    return value.item() if isinstance(value, np.generic | np.ndarray) and value.size == 1 else value


def _where_different(ours: Any, theirs: Any) -> tuple[str, str]:
    """Two values as text; long texts are cut to the surroundings of the first difference."""
    if isinstance(ours, str) and isinstance(theirs, str):
        pairs = enumerate(zip(ours, theirs, strict=False))
        same = next((index for index, (one, other) in pairs if one != other), min(len(ours), len(theirs)))
        start = max(same - 10, 0)
        if start:
            ours, theirs = f"...{ours[start:]}", f"...{theirs[start:]}"
    return _short(ours), _short(theirs)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
