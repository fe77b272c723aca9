from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from nas_lightning.files import atomic_write
from tests.datamodules.limited import with_file_size_limit


def test_a_file_is_replaced_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "file.txt"
    with atomic_write(path) as file:
        file.write("Köln 1")
        file.flush()
        assert not path.exists()
    assert path.read_bytes() == "Köln 1".encode()
    with atomic_write(path, "wb") as file:
        file.write(b"\xff2")
        file.flush()
        assert path.read_bytes() == "Köln 1".encode()
    assert path.read_bytes() == b"\xff2"
    assert [entry.name for entry in path.parent.iterdir()] == ["file.txt"]


def _fail_halfway(path: Path, error: BaseException) -> None:
    with atomic_write(path) as file:
        file.write("half")
        raise error


@pytest.mark.parametrize("error", [KeyError("own"), KeyboardInterrupt()])
def test_after_an_exception_the_old_file_is_there_alone(tmp_path: Path, error: BaseException) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")
    with pytest.raises(type(error)) as caught:
        _fail_halfway(path, error)
    assert caught.value is error
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file.txt"]


def _write(path: Path) -> None:
    with atomic_write(path, "wb") as file:
        file.write(b"x" * 100_000)


def test_a_full_disk_leaves_the_old_file_and_names_it(tmp_path: Path) -> None:
    path = tmp_path / "file.bin"
    path.write_bytes(b"old")
    message = with_file_size_limit(lambda: _write(path), 50_000)
    assert message.startswith("OSError: ")
    assert message.endswith(f"cannot write {path}: File too large")
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file.bin"]
    _write(path)
    assert path.stat().st_size == 100_000


def test_a_path_beneath_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("kept")
    for path in (tmp_path / "file" / "below", tmp_path / "file" / "folder" / "below"):
        with pytest.raises(OSError, match=rf"cannot write {path}: (File exists|Not a directory)\Z"):
            _write(path)
    assert (tmp_path / "file").read_text() == "kept"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_a_pipe_or_device_is_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match=r"cannot write .*pipe: it is no file but a device, a pipe or a socket"):
        _write(tmp_path / "pipe")
    assert (tmp_path / "pipe").is_fifo()
    assert [entry.name for entry in tmp_path.iterdir()] == ["pipe"]


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_permissions_follow_the_umask(tmp_path: Path, mask: int, mode: int) -> None:
    before = os.umask(mask)
    try:
        _write(tmp_path / "file")
        (tmp_path / "plain").write_text("")
        assert os.umask(mask) == mask
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == mode
    assert stat.S_IMODE((tmp_path / "plain").stat().st_mode) == mode
