"""Flipped bits in surfaces are noticed."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from nas_lightning.netcdf import CHECKSUM, read_dataset, write_dataset


def dataset() -> xr.Dataset:
    generator = np.random.default_rng(0)
    values = {"loss": (("alpha", "beta"), generator.random((5, 5))), "done": ("alpha", np.ones(5, np.int8))}
    attributes = {"kind": "loss_contour", "title": "Zelle \u03b1", "seed": 3, "extent": 1.5}
    return xr.Dataset(values, coords={"alpha": np.linspace(-1, 1, 5)}, attrs=attributes)


def test_what_is_written_is_read_without_the_checksum(tmp_path: Path) -> None:
    write_dataset(tmp_path / "a.nc", dataset())
    read = read_dataset(tmp_path / "a.nc")
    assert read.identical(dataset())
    write_dataset(tmp_path / "b.nc", read)
    assert (tmp_path / "a.nc").read_bytes() == (tmp_path / "b.nc").read_bytes()


def test_every_flipped_bit_and_zeroed_block_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.nc"
    write_dataset(path, dataset())
    whole = path.read_bytes()
    generator = random.Random(0)
    positions = generator.sample(range(len(whole)), 400)
    name = whole.index(CHECKSUM.encode())
    for position in positions:
        damaged = bytearray(whole)
        damaged[position] ^= 1 << generator.randrange(8)
        path.write_bytes(damaged)
        if name - 4 <= position < name + 16:  # the checksum's own name: what it protects is whole
            continue
        with pytest.raises(ValueError, match=r"a\.nc is not an analysis file"):
            read_dataset(path)
    values = whole.index(dataset()["loss"].values.astype(">f8").tobytes())
    path.write_bytes(whole[:values] + bytes(16) + whole[values + 16 :])
    with pytest.raises(ValueError, match="its checksum differs"):
        read_dataset(path)


def test_files_of_older_versions_have_no_checksum(tmp_path: Path) -> None:
    old = dataset().assign_attrs(data_sha256="0" * 64, weights_sha256="1" * 64)  # of other things
    old.to_netcdf(tmp_path / "old.nc", engine="scipy", format="NETCDF3_64BIT")
    read = read_dataset(tmp_path / "old.nc")
    assert read.equals(old)
    assert read.attrs == old.attrs
