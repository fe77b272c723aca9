from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision import datasets

from nas_lightning.datamodules import FashionMNIST
from tests.datamodules.http_server import Behaviour, serve
from tests.datamodules.limited import with_file_size_limit
from tests.datamodules.official_layouts import Form, visible, write_fashion_mnist
from tests.datamodules.recording import Recorder, make_trainer


def ready(root: Path) -> FashionMNIST:
    data = FashionMNIST(root=str(root), batch_size=20)
    data.prepare_data()
    data.setup()
    return data


@pytest.mark.parametrize("form", ["archive", "folder"])
def test_images_are_padded_to_32_in_three_channels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: Form
) -> None:
    written = write_fashion_mnist(tmp_path, monkeypatch, form)
    before = visible(tmp_path / "FashionMNIST" / "raw")
    data = ready(tmp_path)
    for split in ("train", "test"):
        images, targets = data.split_arrays(split)
        np.testing.assert_array_equal(images.numpy(), getattr(written, split)[0])
        np.testing.assert_array_equal(targets.numpy(), getattr(written, split)[1])
        border = torch.ones(32, 32, dtype=torch.bool)
        border[2:-2, 2:-2] = False
        assert not images[:, :, border].any()
    assert visible(data.folder) == before


def test_torchvision_reads_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_fashion_mnist(tmp_path, monkeypatch, "folder")
    theirs = datasets.FashionMNIST(tmp_path, train=True)
    images, targets = ready(tmp_path).split_arrays("train")
    assert torch.equal(images[:, 1, 2:-2, 2:-2], theirs.data)
    assert torch.equal(targets, theirs.targets)


def test_statistics_are_those_of_the_padded_images() -> None:
    images = np.random.default_rng(0).random((40, 28, 28)) ** 3
    images = (images - images.mean()) / images.std() * 0.3530 + 0.2860  # the published ones of 28x28 images
    padded = np.pad(images, ((0, 0), (2, 2), (2, 2)))
    assert (*FashionMNIST.mean, *FashionMNIST.std) == pytest.approx(
        (padded.mean(),) * 3 + (padded.std(),) * 3
    )


def test_missing_files_are_downloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    written = write_fashion_mnist(tmp_path / "server", monkeypatch)
    files = {f"/{path.name}": path.read_bytes() for path in (tmp_path / "server").rglob("*.gz")}
    behaviour = Behaviour(files)
    with serve(behaviour) as address:
        monkeypatch.setattr(datasets.FashionMNIST, "mirrors", [f"{address}/"])
        data = ready(tmp_path / "data")
        assert set(behaviour.requests) == set(files)
        behaviour.requests.clear()
        (data.folder / "t10k-labels-idx1-ubyte.gz").unlink()
        data = ready(tmp_path / "data")
    assert set(behaviour.requests) == {"/t10k-labels-idx1-ubyte.gz"}
    np.testing.assert_array_equal(data.split_arrays("test")[1].numpy(), written.test[1])
    assert "%|" not in capfd.readouterr().err


def test_without_network_the_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.FashionMNIST, "mirrors", ["http://127.0.0.1:9/"])
    data = FashionMNIST(root=str(tmp_path))
    missing = r"FashionMNIST/raw/train-images-idx3-ubyte\.gz: missing"
    with pytest.raises(FileNotFoundError, match=missing):
        data.prepare_data()
    with pytest.raises(FileNotFoundError, match=rf"{missing}; put http.*ubyte\.gz there"):
        data.setup()
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"file/FashionMNIST/raw: cannot be written \(Not a directory\)"):
        FashionMNIST(root=str(tmp_path / "file")).prepare_data()


def test_an_altered_packed_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_fashion_mnist(tmp_path, monkeypatch)
    path = tmp_path / "FashionMNIST" / "raw" / "train-labels-idx1-ubyte.gz"
    content = bytearray(path.read_bytes())
    content[-9] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"train-labels-idx1-ubyte\.gz: damaged, or not the official file"):
        ready(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0\0\x08",
        b"\0\0\x0d\x03" + (4).to_bytes(4) * 3 + bytes(256),  # floats
        b"\0\0\x08\x01" + (4).to_bytes(4) + bytes(4),  # one dimension
        b"\0\0\x0a\x03" + bytes(20),  # no such type
        b"\0\0\x08\x03" + (100).to_bytes(4) + (28).to_bytes(4) * 2 + bytes(78399),  # a byte less
        b"\0\0\x08\x03" + (100).to_bytes(4) + (28).to_bytes(4) * 2 + bytes(78401),  # a byte more
    ],
)
def test_a_damaged_unpacked_file_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    write_fashion_mnist(tmp_path, monkeypatch, "folder")
    (tmp_path / "FashionMNIST" / "raw" / "train-images-idx3-ubyte").write_bytes(content)
    with pytest.raises(ValueError, match=r"train-images-idx3-ubyte: damaged, .*; delete it") as error:
        ready(tmp_path)
    assert "\n" not in str(error.value)


def test_images_and_labels_must_match(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_fashion_mnist(tmp_path, monkeypatch, "folder")
    raw = tmp_path / "FashionMNIST" / "raw"
    (raw / "train-labels-idx1-ubyte").write_bytes((raw / "t10k-labels-idx1-ubyte").read_bytes())
    with pytest.raises(ValueError, match="do not match 21 labels"):
        ready(tmp_path)


def test_a_full_temporary_folder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_fashion_mnist(tmp_path, monkeypatch)
    message = with_file_size_limit(lambda: FashionMNIST(root=str(tmp_path)).setup(), 20_000)
    assert message.startswith("DiskError: /")
    assert message.endswith(": cannot be written (File too large)")


def test_a_training_step_from_the_official_layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = write_fashion_mnist(tmp_path, monkeypatch)
    recorder = Recorder()
    make_trainer(tmp_path, 1).fit(recorder, datamodule=FashionMNIST(root=str(tmp_path), batch_size=20))
    assert len(recorder.training_batches) == 5
    evaluated = torch.cat([targets for _, _, targets in recorder.evaluation_batches])
    assert evaluated.tolist() == written.test[1].tolist()
