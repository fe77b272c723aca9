"""Tiny data sets in the official layouts, as archives or as unpacked folders.

Each ``write_*`` function writes seeded images under a root folder and returns images and targets by split.
Published checksums and sizes are class attributes of torchvision's data sets and of our own Tiny-ImageNet.
The functions replace them, through pytest's ``monkeypatch``, by those of the tiny files.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import pickle
import shutil
import struct
import tarfile
import zipfile
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from torchvision import datasets

from nas_lightning.datamodules import TinyImageNet

Form = Literal["archive", "folder"]


class Written(NamedTuple):
    """What a tiny data set holds: images [count, 3, size, size] and targets by split."""

    train: tuple[NDArray[np.uint8], NDArray[np.int64]]
    test: tuple[NDArray[np.uint8], NDArray[np.int64]]


def write_cifar10(root: Path, monkeypatch: pytest.MonkeyPatch, form: Form = "archive") -> Written:
    """CIFAR-10 with 100 training and 21 test images."""
    return _write_cifar(root, monkeypatch, datasets.CIFAR10, "labels", form, (20, 21))


def write_cifar100(root: Path, monkeypatch: pytest.MonkeyPatch, form: Form = "archive") -> Written:
    """CIFAR-100 with 200 training and 101 test images."""
    return _write_cifar(root, monkeypatch, datasets.CIFAR100, "fine_labels", form, (200, 101))


def write_fashion_mnist(root: Path, monkeypatch: pytest.MonkeyPatch, form: Form = "archive") -> Written:
    """FashionMNIST with 100 training and 21 test images.

    As an archive: the four compressed files.
    """
    folder = root / "FashionMNIST" / "raw"
    folder.mkdir(parents=True)
    resources = []
    written = {}
    for split, prefix, count in (("train", "train", 100), ("test", "t10k", 21)):
        images, targets = random_images(count, 28, 10, seed=count)
        grey = images[:, 0]
        contents = {
            f"{prefix}-images-idx3-ubyte": struct.pack(">IIII", 0x803, count, 28, 28) + grey.tobytes(),
            f"{prefix}-labels-idx1-ubyte": struct.pack(">II", 0x801, count)
            + targets.astype(np.uint8).tobytes(),
        }
        for name, content in contents.items():
            compressed = gzip.compress(content, mtime=0)
            resources.append((f"{name}.gz", md5(compressed)))
            if form == "archive":
                (folder / f"{name}.gz").write_bytes(compressed)
            else:
                (folder / name).write_bytes(content)
        padded = np.pad(grey, ((0, 0), (2, 2), (2, 2)))
        written[split] = (np.repeat(padded[:, None], 3, axis=1), targets)
    monkeypatch.setattr(datasets.FashionMNIST, "resources", resources)
    return Written(**written)


def write_tiny_imagenet(root: Path, monkeypatch: pytest.MonkeyPatch, form: Form = "archive") -> Written:
    """Tiny-ImageNet with 400 training and 201 test images of 200 classes; training image 7 is grey."""
    content, written = _tiny_imagenet()
    root.mkdir(parents=True, exist_ok=True)
    if form == "archive":
        (root / "tiny-imagenet-200.zip").write_bytes(content)
        monkeypatch.setattr(TinyImageNet, "archive_md5", md5(content))
    else:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            archive.extractall(root)
    monkeypatch.setattr(TinyImageNet, "official_sizes", {"train": 400, "test": 201})
    return written


@lru_cache
def _tiny_imagenet() -> tuple[bytes, Written]:
    """The archive and what it holds."""
    wnids = [f"n{10_000_000 + 7 * (index * 37 % 200)}" for index in range(200)]  # not in ascending order
    files = {
        "wnids.txt": "\n".join(wnids).encode() + b"\n",
        "words.txt": "".join(f"{wnid}\tthing {wnid}\n" for wnid in wnids).encode(),
    }
    colours = np.random.default_rng(0)
    train, train_targets, test, test_targets = [], [], [], []
    for target, wnid in enumerate(sorted(wnids)):
        files[f"train/{wnid}/{wnid}_boxes.txt"] = f"{wnid}_0.JPEG\t0\t0\t62\t62\n".encode()
        for number in range(2):
            content, image = random_jpeg(colours, grey=(target, number) == (3, 1))
            files[f"train/{wnid}/images/{wnid}_{number}.JPEG"] = content
            train.append(image)
            train_targets.append(target)
    lines = []
    for number in range(201):
        target = number * 13 % 200
        content, image = random_jpeg(colours)
        files[f"val/images/val_{number}.JPEG"] = content
        test.append(image)
        test_targets.append(target)
        lines.append(f"val_{number}.JPEG\t{sorted(wnids)[target]}\t0\t32\t44\t62\n")
    files["val/val_annotations.txt"] = "".join(lines).encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(f"tiny-imagenet-200/{name}", content)
    written = Written((np.stack(train), np.array(train_targets)), (np.stack(test), np.array(test_targets)))
    return buffer.getvalue(), written


def random_images(
    count: int, size: int, num_classes: int, seed: int
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Random images and targets in which the classes take turns."""
    images = np.random.default_rng(seed).integers(0, 256, (count, 3, size, size), dtype=np.uint8)
    return images, np.arange(count) % num_classes


def random_jpeg(generator: np.random.Generator, grey: bool = False) -> tuple[bytes, NDArray[np.uint8]]:
    """A 64x64 JPEG of four random colours, and what PIL decodes it to, [3, 64, 64]."""
    tiles = generator.integers(0, 256, (2, 2, 3), dtype=np.uint8)
    picture = Image.fromarray(np.kron(tiles, np.ones((32, 32, 1), np.uint8)))
    buffer = io.BytesIO()
    (picture.convert("L") if grey else picture).save(buffer, format="JPEG")
    with Image.open(buffer) as image:
        return buffer.getvalue(), np.asarray(image.convert("RGB")).transpose(2, 0, 1)


def write_tar(path: Path, members: dict[str, bytes]) -> None:
    """Write a compressed tar archive with the given members."""
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))


def visible(folder: Path) -> list[str]:
    """Names of what lies in a folder, lock files apart."""
    return sorted(path.name for path in folder.iterdir() if not path.name.endswith(".lock"))


def md5(content: bytes) -> str:
    """MD5 as hexadecimal digits."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def _write_cifar(
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    reference: Any,
    labels_key: str,
    form: Form,
    images_per_file: tuple[int, int],
) -> Written:
    """Write the files that torchvision's class ``reference`` lists; sizes of a training and a test file."""
    num_classes = 100 if "fine" in labels_key else 10
    contents, written = {}, {}
    listings = {"train": "train_list", "test": "test_list"}
    for (split, listing), per_file in zip(listings.items(), images_per_file, strict=True):
        names = [name for name, _ in getattr(reference, listing)]
        images, targets = random_images(per_file * len(names), 32, num_classes, seed=per_file)
        written[split] = (images, targets)
        for index, name in enumerate(names):
            rows = slice(index * per_file, (index + 1) * per_file)
            entry = {
                "batch_label": name,
                labels_key: targets[rows].tolist(),
                "data": images[rows].reshape(per_file, -1),
                "filenames": [f"image_{row}.png" for row in range(per_file)],
            }
            contents[name] = pickle.dumps(entry, protocol=2)
        monkeypatch.setattr(reference, listing, [[name, md5(contents[name])] for name in names])
    meta = reference.meta["filename"]
    contents[meta] = pickle.dumps({reference.meta["key"]: [f"class {index}" for index in range(num_classes)]})
    monkeypatch.setattr(reference, "meta", {**reference.meta, "md5": md5(contents[meta])})
    folder = root / reference.base_folder
    folder.mkdir(parents=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    if form == "archive":
        archive = root / reference.filename
        write_tar(archive, {f"{folder.name}/{name}": content for name, content in contents.items()})
        monkeypatch.setattr(reference, "tgz_md5", md5(archive.read_bytes()))
        shutil.rmtree(folder)
    return Written(**written)
