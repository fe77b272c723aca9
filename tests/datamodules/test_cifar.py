from __future__ import annotations

import multiprocessing
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nas_lightning.datamodules import CIFAR10, CIFAR100
from tests.datamodules.http_server import Behaviour, serve
from tests.datamodules.limited import with_file_size_limit
from tests.datamodules.official_layouts import Form, md5, write_cifar10, write_cifar100, write_tar
from tests.datamodules.recording import Recorder, make_trainer

WRITERS = {CIFAR10: write_cifar10, CIFAR100: write_cifar100}


def visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


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
        np.testing.assert_array_equal(images.numpy(), getattr(written, split)[0])
        np.testing.assert_array_equal(targets.numpy(), getattr(written, split)[1])
    left = visible(tmp_path)
    assert left == sorted({data.folder_name} | ({data.archive.name} if form == "archive" else set()))


@pytest.mark.parametrize("module", [CIFAR10, CIFAR100])
def test_torchvision_reads_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: type[CIFAR10]
) -> None:
    from torchvision import datasets

    WRITERS[module](tmp_path, monkeypatch)
    data = module(root=str(tmp_path), batch_size=10)
    data.prepare_data()
    data.setup()
    reference = getattr(datasets, module.__name__)
    for split, listing in (("train", "train_list"), ("test", "test_list")):
        monkeypatch.setattr(reference, listing, list(module.file_md5s[split].items()))
    monkeypatch.setattr(reference, "_load_meta", lambda self: None)
    theirs = reference(tmp_path, train=False)
    images, targets = data.split_arrays("test")
    np.testing.assert_array_equal(images.permute(0, 2, 3, 1).numpy(), theirs.data)
    assert targets.tolist() == theirs.targets


def test_checksums_are_those_that_torchvision_publishes() -> None:
    from torchvision import datasets

    for module, reference in ((CIFAR10, datasets.CIFAR10), (CIFAR100, datasets.CIFAR100)):
        assert (module.url, module.archive_md5) == (reference.url, reference.tgz_md5)
        assert module.folder_name == reference.base_folder
        assert list(module.file_md5s["train"].items()) == [tuple(pair) for pair in reference.train_list]
        assert list(module.file_md5s["test"].items()) == [tuple(pair) for pair in reference.test_list]


def test_it_is_downloaded_where_it_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = write_cifar10(tmp_path / "server", monkeypatch)
    content = (tmp_path / "server" / "cifar-10-python.tar.gz").read_bytes()
    behaviour = Behaviour({"/cifar-10-python.tar.gz": content})
    with serve(behaviour) as address:
        monkeypatch.setattr(CIFAR10, "url", f"{address}/cifar-10-python.tar.gz")
        data = CIFAR10(root=str(tmp_path / "data"))
        for _ in range(2):
            data.prepare_data()
    data.setup()
    assert len(behaviour.requests) == 1
    np.testing.assert_array_equal(data.split_arrays("test")[0].numpy(), written.test[0])


def test_without_network_the_official_file_and_its_place_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CIFAR10, "url", "http://127.0.0.1:9/cifar-10-python.tar.gz")
    with pytest.raises(
        FileNotFoundError, match=r"cifar-10-python\.tar\.gz: missing, .* there by hand"
    ) as error:
        CIFAR10(root=str(tmp_path)).prepare_data()
    assert str(tmp_path / "cifar-10-python.tar.gz") in str(error.value)
    assert "\n" not in str(error.value)
    assert visible(tmp_path) == []
    with pytest.raises(FileNotFoundError, match="data_batch_1: missing"):
        CIFAR10(root=str(tmp_path)).setup()


@pytest.mark.parametrize("keep", [0, 100, -1])
def test_a_truncated_archive_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep: int) -> None:
    write_cifar10(tmp_path, monkeypatch)
    archive = tmp_path / "cifar-10-python.tar.gz"
    archive.write_bytes(archive.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"cifar-10-python\.tar\.gz: not the official file"):
        CIFAR10(root=str(tmp_path)).prepare_data()
    assert visible(tmp_path) == ["cifar-10-python.tar.gz"]


@pytest.mark.parametrize("position", [10, 5000, -10])
def test_one_altered_byte_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, position: int) -> None:
    write_cifar10(tmp_path, monkeypatch, "folder")
    path = tmp_path / "cifar-10-batches-py" / "data_batch_3"
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)
    data = CIFAR10(root=str(tmp_path))
    data.prepare_data()
    with pytest.raises(
        ValueError, match=r"data_batch_3: not the official file.*delete .*cifar-10-batches-py"
    ):
        data.setup()


def test_an_archive_that_writes_outside_its_folder_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = tmp_path / "data" / "cifar-10-python.tar.gz"
    archive.parent.mkdir()
    write_tar(archive, {"cifar-10-batches-py/test_batch": b"", "../evil": b"evil"})
    monkeypatch.setattr(CIFAR10, "archive_md5", md5(archive.read_bytes()))
    with pytest.raises(ValueError, match=r"member '\.\./evil' lies outside"):
        CIFAR10(root=str(archive.parent)).prepare_data()
    assert visible(tmp_path) == ["data"]
    assert visible(archive.parent) == ["cifar-10-python.tar.gz"]


class _Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_a_file_that_would_run_code_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cifar10(tmp_path, monkeypatch, "folder")
    content = pickle.dumps({"data": _Evil(tmp_path / "evil"), "labels": []}, protocol=2)
    (tmp_path / "cifar-10-batches-py" / "test_batch").write_bytes(content)
    monkeypatch.setitem(CIFAR10.file_md5s, "test", {"test_batch": md5(content)})
    with pytest.raises(ValueError, match=r"test_batch: .*posix\.mkdir"):
        CIFAR10(root=str(tmp_path)).setup()
    assert not (tmp_path / "evil").exists()


def _prepare(root: Path) -> None:
    CIFAR10(root=str(root)).prepare_data()


def test_two_processes_may_prepare_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cifar10(tmp_path, monkeypatch)
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_prepare, args=(tmp_path,)) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 4
    CIFAR10(root=str(tmp_path)).setup()
    assert visible(tmp_path) == ["cifar-10-batches-py", "cifar-10-python.tar.gz"]


def test_what_a_killed_extraction_left_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cifar10(tmp_path, monkeypatch)
    left = tmp_path / ".cifar-10-batches-py.partial" / "cifar-10-batches-py"
    left.mkdir(parents=True)
    (left / "data_batch_1").write_bytes(b"half")
    data = CIFAR10(root=str(tmp_path))
    data.prepare_data()
    data.setup()
    assert visible(tmp_path) == ["cifar-10-batches-py", "cifar-10-python.tar.gz"]


def test_a_full_disk_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cifar10(tmp_path, monkeypatch)
    message = with_file_size_limit(lambda: _prepare(tmp_path), 20_000)
    assert message == f"DiskError: {tmp_path / 'cifar-10-batches-py'}: cannot be written (File too large)"
    assert visible(tmp_path) == ["cifar-10-python.tar.gz"]


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
    assert (
        torch.cat([targets for _, _, targets in recorder.evaluation_batches]).tolist()
        == written.test[1].tolist()
    )
    assert all(torch.isfinite(inputs).all() for _, inputs, _ in recorder.training_batches)
    shutil.rmtree(tmp_path / "data")
