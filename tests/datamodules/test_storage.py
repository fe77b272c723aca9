from __future__ import annotations

import errno
import multiprocessing
import time
from pathlib import Path

import pytest

from nas_lightning.datamodules.storage import DiskError, disk_errors, locked, partial_folder


def _add_slowly(counter: Path) -> None:
    for _ in range(20):
        with locked(counter):
            count = int(counter.read_text())
            time.sleep(0.001)
            counter.write_text(str(count + 1))


def test_one_process_at_a_time_holds_the_lock(tmp_path: Path) -> None:
    counter = tmp_path / "counter"
    counter.write_text("0")
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_add_slowly, args=(counter,)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert counter.read_text() == "60"


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(DiskError, match=r"file: cannot be written \(File exists\)"),
        locked(tmp_path / "file" / "x"),
    ):
        pass
    with (
        pytest.raises(DiskError, match=r"\.x\.partial: cannot be written \(Not a directory\)"),
        partial_folder(tmp_path / "file" / "x"),
    ):
        pass


def _fail_halfway(folder: Path) -> None:
    with partial_folder(folder) as partial:
        assert list(partial.iterdir()) == []
        (partial / "file").write_text("half")
        raise KeyError


def test_a_partial_folder_starts_empty_and_goes(tmp_path: Path) -> None:
    left_by_a_killed_process = tmp_path / ".data.partial" / "half"
    left_by_a_killed_process.mkdir(parents=True)
    with pytest.raises(KeyError):
        _fail_halfway(tmp_path / "data")
    assert list(tmp_path.iterdir()) == []


def test_errors_of_the_disk_name_the_file_and_others_pass(tmp_path: Path) -> None:
    with (
        pytest.raises(DiskError, match=r"^/data/x: cannot be written \(No space left on device\)$"),
        disk_errors(Path("/data/x")),
    ):
        raise OSError(errno.ENOSPC, "No space left on device", "/elsewhere")
    with pytest.raises(FileNotFoundError, match=r"^y: missing$"), disk_errors(Path("/data/x")):
        raise FileNotFoundError("y: missing")
