from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torchvision import datasets

from nas_lightning.datamodules import CIFAR10, CIFAR100
from tests.datamodules.http_server import Behaviour, serve
from tests.datamodules.limited import with_file_size_limit
from tests.datamodules.official_layouts import Form, md5, visible, write_cifar10, write_cifar100
from tests.datamodules.recording import Recorder, make_trainer

WRITERS = {CIFAR10: write_cifar10, CIFAR100: write_cifar100}
ARCHIVE, FOLDER = "cifar-10-python.tar.gz", "cifar-10-batches-py"


@pytest.mark.parametrize("form", ["archive", "folder"])
@pytest.mark.parametrize("module", [CIFAR10, CIFAR100])
def test_images_and_classes_are_those_of_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: type[CIFAR10], form: Form
) -> None:
    written = WRITERS[module](tmp_path, monkeypatch, form)
    data = module(root=str(tmp_path), batch_size=10)
    data.prepare_data()
    data.setup()
    for split in ("train", "test"):
        images, targets = data.split_arrays(split)
        assert images.is_contiguous()
        np.testing.assert_array_equal(images.numpy(), getattr(written, split)[0])
        np.testing.assert_array_equal(targets.numpy(), getattr(written, split)[1])
    assert visible(tmp_path) == sorted(
        {data.folder.name} | ({data.archive.name} if form == "archive" else set())
    )


def test_it_is_downloaded_if_it_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = write_cifar10(tmp_path / "server", monkeypatch)
    behaviour = Behaviour({f"/{ARCHIVE}": (tmp_path / "server" / ARCHIVE).read_bytes()})
    with serve(behaviour) as address:
        monkeypatch.setattr(datasets.CIFAR10, "url", f"{address}/{ARCHIVE}")
        data = CIFAR10(root=str(tmp_path / "data"))
        data.prepare_data()
        asked = len(behaviour.requests)
        data.prepare_data()
    data.setup()
    assert len(behaviour.requests) == asked
    np.testing.assert_array_equal(data.split_arrays("test")[0].numpy(), written.test[0])


def test_without_network_the_official_file_and_its_place_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets.CIFAR10, "url", f"http://127.0.0.1:9/{ARCHIVE}")
    with pytest.raises(FileNotFoundError, match=rf"{ARCHIVE}: missing, .* there by hand") as error:
        CIFAR10(root=str(tmp_path)).prepare_data()
    assert str(tmp_path / ARCHIVE) in str(error.value)
    assert "\n" not in str(error.value)
    assert visible(tmp_path) == []
    with pytest.raises(FileNotFoundError, match="data_batch_1: missing"):
        CIFAR10(root=str(tmp_path)).setup()


def test_a_root_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=rf"^{tmp_path}/file/data: cannot be written \(Not a directory\)$"):
        CIFAR10(root=str(tmp_path / "file" / "data")).prepare_data()


@pytest.mark.parametrize("keep", [0, 100, -1])
def test_a_truncated_archive_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep: int) -> None:
    write_cifar10(tmp_path, monkeypatch)
    archive = tmp_path / ARCHIVE
    archive.write_bytes(archive.read_bytes()[:keep])
    with pytest.raises(ValueError, match=rf"{ARCHIVE}: damaged, .*; delete it"):
        CIFAR10(root=str(tmp_path)).prepare_data()
    assert visible(tmp_path) == [ARCHIVE]


@pytest.mark.parametrize("position", [10, 5000, -10])
@pytest.mark.parametrize("name", ["data_batch_3", "batches.meta"])
def test_one_altered_byte_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, position: int
) -> None:
    write_cifar10(tmp_path, monkeypatch, "folder")
    path = tmp_path / FOLDER / name
    content = bytearray(path.read_bytes())
    content[min(position, len(content) - 1)] ^= 1
    path.write_bytes(content)
    data = CIFAR10(root=str(tmp_path))
    data.prepare_data()
    with pytest.raises(ValueError, match=rf"{name}: damaged, .*; delete .*{FOLDER}, and .* {ARCHIVE}"):
        data.setup()


def test_a_missing_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cifar10(tmp_path, monkeypatch, "folder")
    (tmp_path / FOLDER / "test_batch").unlink()
    with pytest.raises(FileNotFoundError, match=rf"test_batch: missing; delete .*{FOLDER}"):
        CIFAR10(root=str(tmp_path)).setup()


class _Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("name", ["data_batch_1", "test_batch", "batches.meta"])
def test_a_file_that_would_run_code_is_never_unpickled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    write_cifar10(tmp_path, monkeypatch, "folder")
    content = pickle.dumps({"data": _Evil(tmp_path / "evil"), "labels": []}, protocol=2)
    (tmp_path / FOLDER / name).write_bytes(content)
    with pytest.raises(ValueError, match=rf"{name}: damaged, or not the official file \(MD5 {md5(content)}"):
        CIFAR10(root=str(tmp_path)).setup()
    assert not (tmp_path / "evil").exists()
    pickle.loads(content)
    assert (tmp_path / "evil").exists()


def _prepare(root: Path) -> None:
    CIFAR10(root=str(root)).prepare_data()


def test_several_processes_may_prepare_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cifar10(tmp_path, monkeypatch)
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_prepare, args=(tmp_path,)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 4
    CIFAR10(root=str(tmp_path)).setup()
    assert visible(tmp_path) == [FOLDER, ARCHIVE]


def test_after_a_kill_while_unpacking_the_next_start_is_clean(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_cifar10(tmp_path, monkeypatch)
    partial = tmp_path / f".{FOLDER}.partial" / FOLDER

    def stop(self: Path, target: Path) -> Path:
        time.sleep(60)  # everything is unpacked, and nothing has its name
        return target

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", stop)
        process = multiprocessing.get_context("fork").Process(target=_prepare, args=(tmp_path,))
        process.start()
    while not (partial / "batches.meta").exists():
        assert process.is_alive()
        time.sleep(0.005)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert visible(tmp_path) == [f".{FOLDER}.partial", ARCHIVE]
    (partial / "data_batch_1").write_bytes(b"half")
    data = CIFAR10(root=str(tmp_path))
    data.prepare_data()
    data.setup()
    assert visible(tmp_path) == [FOLDER, ARCHIVE]


def test_a_full_disk_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cifar10(tmp_path, monkeypatch)
    message = with_file_size_limit(lambda: _prepare(tmp_path), 20_000)
    assert message == f"DiskError: {tmp_path / FOLDER}: cannot be written (File too large)"
    assert visible(tmp_path) == [ARCHIVE]


def test_an_unpacked_folder_is_used_without_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cifar10(tmp_path, monkeypatch, "folder")
    before = [(path, path.stat().st_mtime_ns) for path in sorted((tmp_path, *tmp_path.rglob("*")))]
    _prepare(tmp_path)
    CIFAR10(root=str(tmp_path)).setup()
    assert [(path, path.stat().st_mtime_ns) for path in sorted((tmp_path, *tmp_path.rglob("*")))] == before


@pytest.mark.parametrize("module", [CIFAR10, CIFAR100])
def test_a_training_step_from_the_official_layout(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: type[CIFAR10]
) -> None:
    written = WRITERS[module](tmp_path / "data", monkeypatch)
    data = module(root=str(tmp_path / "data"), batch_size=20, cutout=16, evaluation_batch_size=7)
    recorder = Recorder(num_classes=module.num_classes)
    make_trainer(tmp_path, 1).fit(recorder, datamodule=data)
    assert len(recorder.training_batches) == len(written.train[1]) // 20
    shown = torch.cat([targets for _, _, targets in recorder.training_batches])
    assert sorted(shown.tolist()) == sorted(written.train[1].tolist())
    evaluated = torch.cat([targets for _, _, targets in recorder.evaluation_batches])
    assert evaluated.tolist() == written.test[1].tolist()
    assert all(torch.isfinite(inputs).all() for _, inputs, _ in recorder.training_batches)
