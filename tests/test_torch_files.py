"""Damaged files of tensors are noticed, whichever byte it is."""

from __future__ import annotations

import gzip
import random
import re
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch

from nas_lightning.networks.weight_files import read_weight_file
from nas_lightning.torch_files import read_torch_file, write_torch_file
from tests.datamodules.limited import with_file_size_limit

CONTENT = {
    "state_dict": {f"layer{index}.weight": torch.randn(20, 10) for index in range(8)},
    "hyper_parameters": {"genotype": "darts_v2", "drop_path": 0.3},
    "epoch": 3,
}


def equal(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and torch.equal(one, other)
    if isinstance(one, dict):
        same_names = isinstance(other, dict) and one.keys() == other.keys()
        return same_names and all(equal(one[name], other[name]) for name in one)
    return bool(one == other)


def refusal(path: Path) -> str:
    """The message that a file is refused with, empty if it is read and holds what was written."""
    try:
        assert equal(read_torch_file(path), CONTENT)
    except ValueError as error:
        refused = error
    else:
        return ""
    assert refused.__cause__ is not refused  # who follows the causes would never end
    return str(refused)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "last.ckpt"
    write_torch_file(path, CONTENT)
    return path


def test_what_is_written_is_read_and_torch_reads_it_too(path: Path) -> None:
    assert equal(read_torch_file(path), CONTENT)
    assert equal(torch.load(path), CONTENT)


def test_every_flipped_bit_is_refused_or_changes_nothing(path: Path) -> None:
    whole = path.read_bytes()
    generator = random.Random(0)
    refused = 0
    for _ in range(400):
        damaged = bytearray(whole)
        damaged[generator.randrange(len(whole))] ^= 1 << generator.randrange(8)
        path.write_bytes(damaged)
        if message := refusal(path):
            assert message.startswith(f"{path} is damaged")
            assert "\n" not in message
            refused += 1
    assert refused > 300


def test_a_flipped_bit_of_a_tensor_which_torch_reads_is_refused(path: Path) -> None:
    content = bytearray(path.read_bytes())
    weights = CONTENT["state_dict"]["layer3.weight"].numpy().tobytes()  # type: ignore[index]
    content[content.index(weights) + 100] ^= 4
    path.write_bytes(content)
    assert not equal(torch.load(path), CONTENT)
    with pytest.raises(ValueError, match=r"last.ckpt is damaged.*data/3"):
        read_torch_file(path)


@pytest.mark.parametrize("length", [64, 512, 4096])
def test_zeroed_blocks_and_truncations_are_refused(path: Path, length: int) -> None:
    whole = path.read_bytes()
    for start in range(0, len(whole), length):
        for damaged in (whole[:start], whole[:start] + bytes(length) + whole[start + length :]):
            path.write_bytes(damaged)
            if message := refusal(path):
                assert message.startswith(f"{path} is damaged")
            else:
                assert len(damaged) >= len(whole)


@pytest.mark.parametrize("content", [b"\x00" * 500, b"not a checkpoint", b"PK\x03\x04", b"\x80\x02"])
def test_what_is_no_such_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(
        ValueError, match=r"`ckpt_path` \(=.*file\) is damaged, or not|is damaged or incomplete"
    ):
        read_torch_file(tmp_path / "file", "ckpt_path")


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 13\n"


def packed(write: Callable[[Path], None]) -> bytes:
    """The bytes of an archive that a function writes to a path."""
    with TemporaryDirectory() as folder:
        write(Path(folder) / "archive")
        return (Path(folder) / "archive").read_bytes()


def write_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("weights/model.pt", b"x")
        archive.writestr("README.md", b"x")


def write_tar(path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        archive.addfile(tarfile.TarInfo("model.pt"))


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"", "damaged: it is empty"),
        (POINTER, "a pointer of Git LFS, not the file itself: `git lfs pull`"),
        (b"\n<!DOCTYPE html>\n<html>", "a web page, not the file: download"),
        (b"<html><body>Quota exceeded", "a web page"),
        (packed(write_zip), "a zip archive of weights/model.pt, README.md: unpack it"),
        (packed(write_tar), "a tar archive: unpack it"),
        (gzip.compress(b"x"), "a gzip archive: unpack it"),
        (b"\x89HDF\r\n\x1a\n" + bytes(99), "an HDF5 file, not a file of torch.save"),
    ],
    ids=["empty", "lfs", "page", "answer", "zip", "tar", "gzip", "hdf5"],
)
def test_files_of_other_kinds_are_called_what_they_are(tmp_path: Path, content: bytes, kind: str) -> None:
    path = tmp_path / "a.pt"
    path.write_bytes(content)
    assert refusal(path).startswith(f"{path} is {kind}")
    with pytest.raises(ValueError, match=re.escape(f"it is {kind}")):
        read_weight_file(path)


class Unknown:
    """A class that is not to be unpickled."""


def test_objects_are_not_unpickled(tmp_path: Path) -> None:
    torch.save({"network": Unknown()}, tmp_path / "file")
    with pytest.raises(ValueError, match="file holds objects beside tensors and plain values"):
        read_torch_file(tmp_path / "file")


def test_old_formats_and_files_without_checksums_are_read(tmp_path: Path) -> None:
    torch.save(CONTENT, tmp_path / "old", _use_new_zipfile_serialization=False)
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(CONTENT, tmp_path / "without")
        write_torch_file(tmp_path / "with", CONTENT)
        assert not torch.serialization.get_crc32_options()
    finally:
        torch.serialization.set_crc32_options(True)
    for name in ("old", "without"):
        assert equal(read_torch_file(tmp_path / name, mmap=True), CONTENT)
    content = bytearray((tmp_path / "with").read_bytes())
    content[content.index(b"darts_v2")] ^= 1
    (tmp_path / "with").write_bytes(content)
    with pytest.raises(ValueError, match="damaged"):
        read_torch_file(tmp_path / "with")


@pytest.mark.parametrize("limit", [0, 64, 1000, 5000])
def test_a_full_disk_is_named_wherever_it_fills_up(path: Path, limit: int) -> None:
    before = path.read_bytes()
    message = with_file_size_limit(lambda: write_torch_file(path, CONTENT), limit)
    assert message.endswith(f"cannot write {path}: File too large")
    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == ["last.ckpt"]
