from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
import torch

from nas_lightning.datamodules import FashionMNIST
from nas_lightning.datamodules.fashion_mnist import padded_statistics, parse_idx
from tests.datamodules.http_server import Behaviour, serve
from tests.datamodules.official_layouts import Form, md5, write_fashion_mnist
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
    data = ready(tmp_path)
    for split in ("train", "test"):
        images, targets = data.split_arrays(split)
        np.testing.assert_array_equal(images.numpy(), getattr(written, split)[0])
        np.testing.assert_array_equal(targets.numpy(), getattr(written, split)[1])
    assert (
        images[:, :, :2].sum() + images[:, :, -2:].sum() + images[..., :2].sum() + images[..., -2:].sum() == 0
    )


def test_torchvision_reads_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision import datasets

    write_fashion_mnist(tmp_path, monkeypatch, "folder")
    theirs = datasets.FashionMNIST(tmp_path, train=True)
    images, targets = ready(tmp_path).split_arrays("train")
    assert torch.equal(images[:, 1, 2:-2, 2:-2], theirs.data)
    assert torch.equal(targets, theirs.targets)


def test_checksums_are_those_that_torchvision_publishes() -> None:
    from torchvision import datasets

    assert list(FashionMNIST.file_md5s.items()) == datasets.FashionMNIST.resources
    assert [FashionMNIST.url] == datasets.FashionMNIST.mirrors


def test_statistics_are_those_of_the_padded_images() -> None:
    images = np.random.default_rng(0).random((40, 28, 28)) ** 3
    padded = np.pad(images, ((0, 0), (2, 2), (2, 2)))
    assert padded_statistics(images.mean(), images.std(), 28, 32) == pytest.approx(
        (padded.mean(), padded.std())
    )
    assert (*FashionMNIST.mean, *FashionMNIST.std) == pytest.approx((0.2190,) * 3 + (0.3318,) * 3, abs=5e-5)


def test_missing_files_are_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = write_fashion_mnist(tmp_path / "server", monkeypatch)
    files = {f"/{path.name}": path.read_bytes() for path in (tmp_path / "server").rglob("*.gz")}
    behaviour = Behaviour(files)
    with serve(behaviour) as address:
        monkeypatch.setattr(FashionMNIST, "url", f"{address}/")
        data = ready(tmp_path / "data")
        (data.folder / "t10k-labels-idx1-ubyte.gz").unlink()
        data = ready(tmp_path / "data")
    assert len(behaviour.requests) == 5
    np.testing.assert_array_equal(data.split_arrays("test")[1].numpy(), written.test[1])


def test_without_network_the_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FashionMNIST, "url", "http://127.0.0.1:9/")
    with pytest.raises(FileNotFoundError, match=r"FashionMNIST/raw/train-images-idx3-ubyte\.gz: missing"):
        FashionMNIST(root=str(tmp_path)).prepare_data()


def test_an_altered_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_fashion_mnist(tmp_path, monkeypatch)
    path = tmp_path / "FashionMNIST" / "raw" / "train-labels-idx1-ubyte.gz"
    content = bytearray(path.read_bytes())
    content[-9] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"train-labels-idx1-ubyte\.gz: not the official file"):
        ready(tmp_path)


def test_a_truncated_file_is_refused_even_with_its_own_checksum(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_fashion_mnist(tmp_path, monkeypatch)
    path = tmp_path / "FashionMNIST" / "raw" / "train-images-idx3-ubyte.gz"
    for content in (path.read_bytes()[:-100], gzip.compress(gzip.decompress(path.read_bytes())[:-1])):
        path.write_bytes(content)
        monkeypatch.setitem(FashionMNIST.file_md5s, path.name, md5(content))
        with pytest.raises(ValueError, match=r"train-images-idx3-ubyte\.gz: .*damaged"):
            ready(tmp_path)
        path.write_bytes(
            gzip.compress(bytes((0, 0, 8, 3)) + (100).to_bytes(4) + (28).to_bytes(4) * 2 + bytes(78400))
        )


def test_images_and_labels_must_go_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_fashion_mnist(tmp_path, monkeypatch, "folder")
    raw = tmp_path / "FashionMNIST" / "raw"
    (raw / "train-labels-idx1-ubyte").write_bytes((raw / "t10k-labels-idx1-ubyte").read_bytes())
    with pytest.raises(ValueError, match="do not go with 21 labels"):
        ready(tmp_path)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0\0\x08",
        b"\0\0\x0d\x01" + (4).to_bytes(4) + bytes(4),
        b"\0\0\x08\x03" + (4).to_bytes(4) + bytes(4),
    ],
)
def test_other_headers_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="x: not an IDX file of bytes with 1 dimensions"):
        parse_idx(data, 1, Path("x"))


def test_a_training_step_from_the_official_layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written = write_fashion_mnist(tmp_path, monkeypatch)
    recorder = Recorder()
    make_trainer(tmp_path, 1).fit(recorder, datamodule=FashionMNIST(root=str(tmp_path), batch_size=20))
    assert len(recorder.training_batches) == 5
    assert (
        torch.cat([targets for _, _, targets in recorder.evaluation_batches]).tolist()
        == written.test[1].tolist()
    )
