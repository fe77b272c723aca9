from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import threading
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from tqdm import tqdm

from nas_lightning.datamodules import TinyImageNet, tiny_imagenet
from tests.datamodules.limited import with_file_size_limit
from tests.datamodules.official_layouts import Form, Written, md5, visible, write_tiny_imagenet
from tests.datamodules.recording import Recorder, make_trainer

CACHE = "tiny-imagenet-200-decoded"


def ready(root: Path, batch_size: int = 50) -> TinyImageNet:
    data = TinyImageNet(root=str(root), batch_size=batch_size)
    data.prepare_data()
    data.setup()
    return data


def check(data: TinyImageNet, written: Written) -> None:
    for split in ("train", "test"):
        images, targets = data.split_arrays(split)
        np.testing.assert_array_equal(images.numpy(), getattr(written, split)[0])
        np.testing.assert_array_equal(targets.numpy(), getattr(written, split)[1])


@pytest.mark.parametrize("form", ["archive", "folder"])
def test_images_and_classes_are_those_of_the_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: Form
) -> None:
    monkeypatch.setattr(tiny_imagenet, "BLOCK", 64)
    written = write_tiny_imagenet(tmp_path, monkeypatch, form)
    check(ready(tmp_path), written)
    images = written.train[0]
    assert np.ptp(images[7], axis=0).max() == 0  # the grey one
    assert visible(tmp_path) == sorted(
        [CACHE, "tiny-imagenet-200.zip" if form == "archive" else "tiny-imagenet-200"]
    )


def test_a_second_start_uses_the_cache_alone_and_takes_no_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = write_tiny_imagenet(tmp_path, monkeypatch)
    ready(tmp_path)
    (tmp_path / "tiny-imagenet-200.zip").unlink()
    start = time.perf_counter()
    data = ready(tmp_path)
    assert time.perf_counter() - start < 2
    check(data, written)
    assert data.split_arrays("train")[0].numpy().flags.owndata is False


@pytest.mark.parametrize("damage", ["byte", "truncated", "missing", "no checksums"])
def test_a_damaged_cache_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str) -> None:
    written = write_tiny_imagenet(tmp_path, monkeypatch)
    ready(tmp_path)
    path = tmp_path / CACHE / "train_images.npy"
    if damage == "byte":
        content = bytearray(path.read_bytes())
        content[100_000] ^= 1
        path.write_bytes(content)
    elif damage == "truncated":
        path.write_bytes(path.read_bytes()[:-1])
    elif damage == "missing":
        path.unlink()
    else:
        (tmp_path / CACHE / "checksums.json").write_text("[1]")
    check(ready(tmp_path), written)


def test_the_cache_does_not_change_with_what_is_done_to_the_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = write_tiny_imagenet(tmp_path, monkeypatch)
    ready(tmp_path).split_arrays("train")[0].zero_()
    check(ready(tmp_path), written)


def _spoil(path: Path, content: bytes | None) -> None:
    path.unlink() if content is None else path.write_bytes(content)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"no JPEG at all", "unreadable image"),
        (b"", "unreadable image"),
        ("truncated", "unreadable image"),
        ("small", "an image of 8x8 pixels, 64x64 expected"),
        (None, "missing"),
    ],
)
def test_an_unreadable_image_is_named_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | str | None, reason: str
) -> None:
    write_tiny_imagenet(tmp_path, monkeypatch, "folder")
    path = tmp_path / "tiny-imagenet-200" / "val" / "images" / "val_150.JPEG"
    if content == "truncated":
        content = path.read_bytes()[:-300]
    elif content == "small":
        from PIL import Image

        Image.new("RGB", (8, 8)).save(path)
        content = path.read_bytes()
    assert not isinstance(content, str)
    _spoil(path, content)
    with pytest.raises((ValueError, FileNotFoundError), match=rf"val_150\.JPEG: {reason}") as error:
        ready(tmp_path)
    assert "\n" not in str(error.value)
    assert visible(tmp_path) == ["tiny-imagenet-200"]


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("wnids.txt", lambda text: text[:-20], "wnids.txt: 19. different classes"),
        ("val/val_annotations.txt", lambda text: "x\n" + text, "val_annotations.txt, line 1: 'x'"),
        (
            "val/val_annotations.txt",
            lambda text: text.replace("\tn", "\tq", 1),
            "line 1: .* classes of wnids.txt",
        ),
        ("val/val_annotations.txt", lambda text: "../" + text, "line 1: "),
        (
            "val/val_annotations.txt",
            lambda text: text[: text.rindex("val_200")],
            "200 images in the test split, 201",
        ),
    ],
)
def test_lists_that_are_wrong_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, change: object, message: str
) -> None:
    write_tiny_imagenet(tmp_path, monkeypatch, "folder")
    path = tmp_path / "tiny-imagenet-200" / name
    assert callable(change)
    path.write_text(change(path.read_text()))
    with pytest.raises(ValueError, match=message):
        ready(tmp_path)


def test_a_folder_with_images_missing_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tiny_imagenet(tmp_path, monkeypatch, "folder")
    next((tmp_path / "tiny-imagenet-200" / "train").rglob("*.JPEG")).unlink()
    with pytest.raises(ValueError, match="tiny-imagenet-200: 399 images in the train split, 400 expected"):
        ready(tmp_path)


def test_a_truncated_or_altered_archive_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tiny_imagenet(tmp_path, monkeypatch)
    archive = tmp_path / "tiny-imagenet-200.zip"
    content = archive.read_bytes()
    archive.write_bytes(content[:-1000])
    with pytest.raises(ValueError, match=r"tiny-imagenet-200\.zip: damaged, or not the official file"):
        ready(tmp_path)
    monkeypatch.setattr(TinyImageNet, "archive_md5", md5(content[:-1000]))
    with pytest.raises(ValueError, match=r"tiny-imagenet-200\.zip: damaged \("):
        ready(tmp_path)
    altered = bytearray(content)
    altered[content.index(b"\xff\xd8\xff") + 300] ^= 0xFF  # inside the first image: the member's CRC is wrong
    archive.write_bytes(altered)
    monkeypatch.setattr(TinyImageNet, "archive_md5", md5(bytes(altered)))
    with pytest.raises(ValueError, match=r"tiny-imagenet-200\.zip/train/.*\.JPEG: damaged \("):
        ready(tmp_path)
    assert visible(tmp_path) == ["tiny-imagenet-200.zip"]


def test_members_with_evil_names_are_not_written_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "data"
    written = write_tiny_imagenet(root, monkeypatch)
    archive = root / "tiny-imagenet-200.zip"
    with zipfile.ZipFile(archive, "a") as file:
        file.writestr("../evil", b"evil")
        file.writestr("/tmp/nas_lightning_evil", b"evil")
    monkeypatch.setattr(TinyImageNet, "archive_md5", md5(archive.read_bytes()))
    check(ready(root), written)
    assert visible(tmp_path) == ["data"]
    assert not Path("/tmp/nas_lightning_evil").exists()


def test_without_anything_the_archive_and_its_place_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TinyImageNet, "url", "http://127.0.0.1:9/tiny-imagenet-200.zip")
    with pytest.raises(FileNotFoundError, match=r"tiny-imagenet-200\.zip: missing, .* by hand"):
        TinyImageNet(root=str(tmp_path)).prepare_data()
    with pytest.raises(FileNotFoundError, match=r"train_images\.npy: missing; `prepare_data` makes it"):
        TinyImageNet(root=str(tmp_path)).setup()


@pytest.mark.parametrize("limit", [50_000, 4_000_000, 4_915_300])
def test_a_full_disk_leaves_no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    monkeypatch.setattr(tiny_imagenet, "BLOCK", 64)
    written = write_tiny_imagenet(tmp_path, monkeypatch)
    message = with_file_size_limit(lambda: TinyImageNet(root=str(tmp_path)).prepare_data(), limit)
    assert message.startswith("DiskError: ")
    assert message.endswith("train_images.npy: cannot be written (File too large)")
    assert visible(tmp_path) == ["tiny-imagenet-200.zip"]
    check(ready(tmp_path), written)


def _prepare(root: Path) -> None:
    tqdm.set_lock(threading.RLock())  # a killed child must not take the lock that forking shares with it
    TinyImageNet(root=str(root)).prepare_data()


def test_two_processes_decode_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = write_tiny_imagenet(tmp_path, monkeypatch)
    log = tmp_path / "log"
    decode = tiny_imagenet.decode_image

    def logged(files: tiny_imagenet.OfficialFiles, name: str, size: int) -> np.ndarray:
        with log.open("a") as file:
            file.write(f"{name}\n")
        return decode(files, name, size)

    monkeypatch.setattr(tiny_imagenet, "decode_image", logged)
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_prepare, args=(tmp_path,)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0] * 3
    assert len(log.read_text().splitlines()) == 601
    log.unlink()
    check(ready(tmp_path), written)


def test_after_a_kill_the_next_start_is_clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = write_tiny_imagenet(tmp_path, monkeypatch)
    monkeypatch.setattr(tiny_imagenet, "BLOCK", 32)
    decode = tiny_imagenet.decode_image

    def slow(files: tiny_imagenet.OfficialFiles, name: str, size: int) -> np.ndarray:
        time.sleep(0.01)
        return decode(files, name, size)

    with monkeypatch.context() as patch:
        patch.setattr(tiny_imagenet, "decode_image", slow)
        process = multiprocessing.get_context("fork").Process(target=_prepare, args=(tmp_path,))
        process.start()
        half = tmp_path / f".{CACHE}.partial" / "train_images.npy"
        while not half.exists() or half.stat().st_size < 500_000:
            assert process.is_alive()
            time.sleep(0.005)
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    assert process.exitcode == -signal.SIGKILL
    assert visible(tmp_path) == [f".{CACHE}.partial", "tiny-imagenet-200.zip"]
    check(ready(tmp_path), written)
    assert visible(tmp_path) == [CACHE, "tiny-imagenet-200.zip"]


def test_a_training_step_from_the_official_layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = write_tiny_imagenet(tmp_path / "data", monkeypatch)
    data = TinyImageNet(root=str(tmp_path / "data"), batch_size=100, validation_fraction=0.5)
    recorder = Recorder(image_size=64, num_classes=200)
    make_trainer(tmp_path, 1).fit(recorder, datamodule=data)
    assert [tuple(inputs.shape) for _, inputs, _ in recorder.training_batches] == [(100, 3, 64, 64)] * 2
    held_out = torch.cat([targets for _, _, targets in recorder.evaluation_batches])
    assert held_out.tolist() == list(range(200))
    assert data.split_sizes == {"train": 200, "test": len(written.test[1]), "val": 200}
    shutil.rmtree(tmp_path / "data")
