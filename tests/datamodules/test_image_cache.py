from __future__ import annotations

import json
import os
import shutil
import zlib
from pathlib import Path

import numpy as np
import pytest

from nas_lightning.datamodules.image_cache import (
    CHECKSUMS,
    DecodedSplit,
    image_cache_is_whole,
    map_npy,
    read_image_cache,
    write_image_cache,
    write_npy,
)
from nas_lightning.datamodules.storage import DiskError
from tests.datamodules.limited import with_file_size_limit
from tests.datamodules.sparse import write_sparse

IMAGES = np.random.default_rng(0).integers(0, 256, (40, 3, 8, 8), dtype=np.uint8)
TARGETS = np.arange(40, dtype=np.int64) % 7
FILES = ("test_images.npy", "test_targets.npy", "train_images.npy", "train_targets.npy")


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    blocks = {"train": [IMAGES[:30], IMAGES[30:]], "test": [IMAGES[::-1]]}
    splits = {name: DecodedSplit(IMAGES.shape, images, lambda: TARGETS) for name, images in blocks.items()}
    write_image_cache(tmp_path / "cache", splits)
    return tmp_path / "cache"


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Lengths of all data that went through CRC-32 since the test began."""
    lengths: list[int] = []
    crc32 = zlib.crc32

    def counted(data: bytes, value: int = 0) -> int:
        lengths.append(len(data))
        return crc32(data, value)

    monkeypatch.setattr(zlib, "crc32", counted)
    return lengths


def later(path: Path, seconds: int = 60) -> None:
    """Give a file another modification time, as copying it does."""
    changed = path.stat().st_mtime_ns + seconds * 10**9
    os.utime(path, ns=(changed, changed))


def test_a_file_larger_than_the_memory_is_mapped(tmp_path: Path) -> None:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    images = 2 * memory // (3 * 32 * 32)
    path = tmp_path / "images.npy"
    write_sparse(path, (images, 3, 32, 32))
    mapped = map_npy(path)
    assert mapped.shape == (images, 3, 32, 32)
    assert mapped.dtype == np.uint8
    assert not mapped[-1].any()
    mapped[-1] = 7
    assert mapped[-1].all()
    assert not map_npy(path)[-1].any()  # what is changed does not reach the file


def test_what_was_written_is_read(cache: Path) -> None:
    assert sorted(path.name for path in cache.iterdir()) == sorted([CHECKSUMS, *FILES])
    for split, expected in (("train", IMAGES), ("test", IMAGES[::-1])):
        images, targets = read_image_cache(cache, split)
        np.testing.assert_array_equal(images.numpy(), expected)
        np.testing.assert_array_equal(targets.numpy(), TARGETS)
    for name, record in json.loads((cache / CHECKSUMS).read_text()).items():
        assert record["crc32"] == zlib.crc32((cache / name).read_bytes())
        assert record["size"] == (cache / name).stat().st_size


def test_an_unchanged_cache_is_not_read(cache: Path, checked: list[int]) -> None:
    assert image_cache_is_whole(cache)
    assert checked == []


def test_a_copy_is_read_once(cache: Path, checked: list[int], tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(cache, copy, copy_function=shutil.copyfile)
    for name in FILES:
        later(copy / name)
    sizes = sum((copy / name).stat().st_size for name in FILES)
    assert image_cache_is_whole(copy)
    assert sum(checked) == sizes
    assert image_cache_is_whole(copy)
    assert sum(checked) == sizes
    assert sorted(path.name for path in copy.iterdir()) == sorted([CHECKSUMS, *FILES])


def test_only_the_file_of_another_time_is_read(cache: Path, checked: list[int]) -> None:
    later(cache / "test_images.npy", -60)
    assert image_cache_is_whole(cache)
    assert sum(checked) == (cache / "test_images.npy").stat().st_size


@pytest.mark.parametrize("name", FILES)
def test_an_altered_file_of_equal_size_is_found(cache: Path, name: str) -> None:
    content = bytearray((cache / name).read_bytes())
    content[-1] ^= 1
    (cache / name).write_bytes(content)
    later(cache / name)
    before = (cache / CHECKSUMS).read_bytes()
    for _ in range(2):
        assert not image_cache_is_whole(cache)
    assert (cache / CHECKSUMS).read_bytes() == before


def test_a_file_of_another_size_is_not_read(cache: Path, checked: list[int]) -> None:
    path = cache / "train_images.npy"
    path.write_bytes(path.read_bytes()[:-1])
    assert not image_cache_is_whole(cache)
    assert checked == []


@pytest.mark.parametrize("records", ["", "[1]", "{}", "3", '{"train_images.npy": 7}', '{"absent.npy": {}}'])
def test_unreadable_records_make_no_cache(cache: Path, records: str) -> None:
    (cache / CHECKSUMS).write_text(records)
    assert not image_cache_is_whole(cache)


def _check(cache: Path) -> None:
    if not image_cache_is_whole(cache):
        raise ValueError("altered")


def test_a_cache_that_cannot_be_written_is_whole_all_the_same(cache: Path) -> None:
    later(cache / "train_images.npy")
    before = (cache / CHECKSUMS).read_bytes()
    assert with_file_size_limit(lambda: _check(cache), 10) == "no error"
    assert (cache / CHECKSUMS).read_bytes() == before
    assert sorted(path.name for path in cache.iterdir()) == sorted([CHECKSUMS, *FILES])


def test_a_full_disk_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "file.npy"
    message = with_file_size_limit(lambda: _write(path), 1_000)
    assert message == f"DiskError: {path}: cannot be written (File too large)"
    assert path.stat().st_size == 1_000
    _write(path)
    np.testing.assert_array_equal(np.load(path), IMAGES)
    with pytest.raises(DiskError, match=r"file.npy/below: cannot be written \(Not a directory\)"):
        _write(path / "below")


def _write(path: Path) -> None:
    write_npy(path, IMAGES.shape, "|u1", [IMAGES[:7], IMAGES[7:]])


def test_a_file_of_fewer_rows_than_declared_says_how_many_it_has(tmp_path: Path) -> None:
    blocks = [np.arange(6, dtype=np.uint8).reshape(2, 3)]
    for most in (2, 3, 123_456):
        stamp = write_npy(tmp_path / "a.npy", (most, 3), "|u1", blocks)
        np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), blocks[0])
        assert stamp["size"] == (tmp_path / "a.npy").stat().st_size
