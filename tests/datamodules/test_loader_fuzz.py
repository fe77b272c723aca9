"""Every loader with damaged files: it reads what it should, or refuses it in one line."""

from __future__ import annotations

import io
import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from datetime import datetime
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from pyarrow import parquet

from nas_lightning.cli.messages import is_user_error, one_line
from nas_lightning.datamodules import (
    CIFAR10,
    CIFAR100,
    FashionMNIST,
    HuggingFace,
    ImageDataModule,
    ImageFolder,
    TinyImageNet,
)
from tests.datamodules.official_layouts import (
    write_cifar10,
    write_cifar100,
    write_fashion_mnist,
    write_tiny_imagenet,
)

SIZE = 8
KINDS = ("png", "jpg", "gif", "webp", "bmp", "tiff", "ppm")


@pytest.fixture(autouse=True)
def _without_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)


def started(data: ImageDataModule) -> ImageDataModule | str:
    """The data module after ``prepare_data`` and ``setup``, or the line in which the command refuses it."""
    try:
        data.prepare_data()
        data.setup("fit")
    except Exception as error:
        if not is_user_error(error):
            raise
        line = one_line(error)
        assert 10 < len(line) < 500, line
        assert str(data.root) in line, line
        return line
    for split in ("train", "test"):
        images, targets = data.split_arrays(split)
        assert len(images) == len(targets) > 0
    return data


def damaged(content: bytes, chance: random.Random, reach: int | None = None) -> bytes:
    """A file that is cut, has other bytes (in its first ``reach``), is longer, empty or all zeros."""
    how = chance.choice(("cut", "cut", "changed", "changed", "changed", "longer", "empty", "zeros"))
    if how == "cut":
        return content[: chance.randrange(len(content))]
    if how == "changed":
        changed = bytearray(content)
        for _ in range(chance.randint(1, 8)):
            changed[chance.randrange(min(len(changed), reach or len(changed)))] = chance.randrange(256)
        return bytes(changed)
    return {"longer": content + content[:40], "empty": b"", "zeros": bytes(len(content))}[how]


def encoded(seed: int, kind: str = "png") -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, {"jpg": "jpeg"}.get(kind, kind))
    return file.getvalue()


def folder_of_images(root: Path) -> Path:
    """Two classes of seven training and two test images, of every kind."""
    for split, kinds in (("train", KINDS), ("test", KINDS[:2])):
        for number, name in enumerate(("ant", "bee")):
            folder = root / split / name
            folder.mkdir(parents=True)
            for kind in kinds:
                (folder / f"a.{kind}").write_bytes(encoded(number, kind))
    return root


def folder(root: Path, **arguments: Any) -> ImageFolder:
    return ImageFolder(str(root), **{"image_size": SIZE, "batch_size": 2, **arguments})


def test_image_folder_with_broken_images(tmp_path: Path) -> None:
    """40 folders, each with a damaged file of every kind: all of them are in one report, or read."""
    chance, refused = random.Random(1), 0
    root = folder_of_images(tmp_path / "set")
    whole = {path: path.read_bytes() for path in root.glob("train/ant/*")}
    for number in range(40):
        for path, content in whole.items():
            path.write_bytes(damaged(content, chance, 60))
            os.utime(path, (number, number))
        skip = number % 2 == 0
        data = started(folder(root, skip_unreadable=skip))
        refused += isinstance(data, str)
        if isinstance(data, str):
            assert "of 18 images cannot be read" in data
            assert not skip
        else:
            images, targets = data.split_arrays("train")
            assert torch.equal(images[targets == 1][0], torch.from_numpy(pixels_of(encoded(1, "bmp"))))
            assert (targets == 1).sum() == 7
    assert 10 < refused <= 20


def pixels_of(content: bytes) -> Any:
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).transpose(2, 0, 1)


def test_image_folder_with_a_broken_cache(tmp_path: Path) -> None:
    """42 caches with a damaged file, some with the time that it had: none gives other images."""
    chance = random.Random(2)
    root = folder_of_images(tmp_path / "set")
    first = started(folder(root))
    assert isinstance(first, ImageFolder)
    splits: tuple[Literal["train", "test"], ...] = ("train", "test")
    cache, before = first.cache, {split: first.split_arrays(split) for split in splits}
    shutil.copytree(cache, tmp_path / "whole")
    names = sorted(path.name for path in cache.iterdir())
    assert len(names) == 7
    for number in range(42):
        shutil.rmtree(cache)
        shutil.copytree(tmp_path / "whole", cache)
        path = cache / names[number % len(names)]
        content, time = path.read_bytes(), path.stat().st_mtime_ns
        path.write_bytes(damaged(content, chance))
        if number % 2 and len(content) != path.stat().st_size:
            os.utime(path, ns=(time, time))
        data = started(folder(root))
        assert isinstance(data, ImageFolder), (path.name, data)
        assert (data.mean, data.std) == (first.mean, first.std)
        for split, (images, targets) in before.items():
            found = data.split_arrays(split)
            assert torch.equal(found[0], images)
            assert torch.equal(found[1], targets)


def image_column(count: int = 4) -> list[Any]:
    return [{"bytes": encoded(number), "path": None} for number in range(count)]


def described(table: pa.Table, features: Any) -> pa.Table:
    return table.replace_schema_metadata({"huggingface": features})


def classes(names: Any, column: str = "label") -> str:
    features = {column: {"_type": "ClassLabel", "names": names}}
    return json.dumps({"info": {"features": features}})


def tables() -> Iterator[tuple[str, pa.Table | list[pa.Table], tuple[str, ...] | None]]:
    """Odd tables, and the classes that are to be found; None where the data set is to be refused."""
    labels: list[tuple[str, Any, tuple[str, ...] | None]] = [
        ("whole", pa.array([0, 1, 0, 1]), ("0", "1")),
        ("unsigned", pa.array([0, 1, 0, 1], pa.uint64()), ("0", "1")),
        ("texts", pa.array(["b", "a", "b", "a"]), ("a", "b")),
        ("large texts", pa.array(["b", "a", "b", "a"], pa.large_string()), ("a", "b")),
        ("text views", pa.array(["b", "a", "b", "a"], pa.string_view()).cast(pa.string()), ("a", "b")),
        ("dictionary", pa.array(["b", "a", "b", "a"]).dictionary_encode(), ("a", "b")),
        ("bools", pa.array([True, False, True, False]), ("False", "True")),
        ("floats", pa.array([0.0, 1.0, 0.0, 1.0]), None),
        ("not numbers", pa.array([float("nan"), 1.0, 0.0, 1.0]), None),
        ("decimals", pa.array([Decimal("0.5"), Decimal("1.5")] * 2), None),
        ("times", pa.array([datetime(2026, 1, 1), datetime(2026, 1, 2)] * 2), None),
        ("nanoseconds", pa.array([1, 2, 3, 4], pa.timestamp("ns")), None),
        ("lists", pa.array([[0], [1], [0], [1]]), None),
        ("fixed lists", pa.array([[0], [1], [0], [1]], pa.list_(pa.int64(), 1)), None),
        ("structs", pa.array([{"a": 0}, {"a": 1}] * 2), None),
        ("maps", pa.array([[("a", 0)], [("a", 1)]] * 2, pa.map_(pa.string(), pa.int64())), None),
        ("binary", pa.array([b"a", b"b"] * 2), None),
        ("nulls", pa.nulls(4), None),
        ("a null", pa.array([0, None, 1, 0]), None),
        ("all -1", pa.array([-1] * 4), None),
        ("one", pa.array([5] * 4), None),
        ("empty texts", pa.array(["", "a", "", "a"]), ("", "a")),
        ("not UTF-8", pa.array([b"\xff", b"a"] * 2).view(pa.string()), None),
    ]
    for name, column, found in labels:
        yield f"label {name}", pa.table({"image": image_column(), "label": column}), found
    good = pa.table({"image": image_column(), "label": [0, 1, 0, 1]})
    images: list[tuple[str, Any]] = [
        ("numbers", pa.array([1, 2, 3, 4])),
        ("texts", pa.array(["a"] * 4)),
        ("lists", pa.array([[encoded(0)]] * 4)),
        ("nulls", pa.nulls(4)),
        ("no bytes", pa.array([{"bytes": None, "path": None}] * 4, good.schema.field("image").type)),
        ("numbers in a struct", pa.array([{"bytes": 5, "path": None}] * 4)),
        ("a path that is a number", pa.array([{"bytes": None, "path": 5}] * 4)),
        ("a path with a null", pa.array([{"bytes": None, "path": "a\0b"}] * 4)),
        ("a long path", pa.array([{"bytes": None, "path": "a" * 5000}] * 4)),
        ("a path that is a folder", pa.array([{"bytes": None, "path": "."}] * 4)),
        ("a device", pa.array([{"bytes": None, "path": "/dev/zero"}] * 4)),
        ("not UTF-8", pa.array([{"bytes": b"", "path": b"\xff"}] * 4)),
    ]
    for name, column in images:
        yield f"image {name}", pa.table({"image": column, "label": [0, 1, 0, 1]}), None
    struct = pa.array([{"bytes": encoded(0), "path": None}, None] * 2)
    yield "image missing", pa.table({"image": struct, "label": [0, 1, 0, 1]}), None
    large = pa.array([encoded(number) for number in range(4)], pa.large_binary())
    yield "image large", pa.table({"image": large, "label": [0, 1, 0, 1]}), ("0", "1")
    deep = b"[" * 100_000
    metadata: list[tuple[str, Any, tuple[str, ...] | None]] = [
        ("names", classes(["x", "y"]), ("x", "y")),
        ("more names", classes(["x", "y", "z"]), ("x", "y", "z")),
        ("too few names", classes(["x"]), None),
        ("the same name twice", classes(["x", "x"]), ("x", "x")),
        ("a number for names", classes(5), ("0", "1")),
        ("a text for names", classes("xy"), ("0", "1")),
        ("numbers as names", classes([5, 6]), ("5", "6")),
        ("another column", classes(["x", "y"], "missing"), ("0", "1")),
        ("no JSON", b"{", ("0", "1")),
        ("no UTF-8", b"\xff\xfe", ("0", "1")),
        ("a list", b"[]", ("0", "1")),
        ("a number", b"5", ("0", "1")),
        ("null", b"null", ("0", "1")),
        ("deep", deep, ("0", "1")),
        ("huge", json.dumps({"info": {"description": "x" * 1_000_000}}), ("0", "1")),
        ("no info", json.dumps({"info": None}), ("0", "1")),
        ("features as a list", json.dumps({"info": {"features": [1]}}), ("0", "1")),
        ("features as a text", json.dumps({"info": {"features": "x"}}), ("0", "1")),
        ("features without type", json.dumps({"info": {"features": {"label": {}}}}), ("0", "1")),
        ("a feature of null", json.dumps({"info": {"features": {"label": None}}}), ("0", "1")),
    ]
    for name, text, found in metadata:
        yield f"metadata {name}", described(good, text), found
    image, label = good.column("image"), good.column("label")
    yield "no columns", pa.table({}), None
    yield "no rows", good.slice(0, 0), None
    yield "no rows but names", described(good.slice(0, 0), classes(["x", "y"])), None
    yield "one row", good.slice(0, 1), None
    yield "a label twice", pa.Table.from_arrays([image, label, label], ["image", "label", "label"]), None
    yield "an image twice", pa.Table.from_arrays([image, image, label], ["image", "image", "label"]), None
    yield "columns without names", pa.Table.from_arrays([image, label], ["", ""]), None
    yield "only an image", good.select(["image"]), None
    yield "only a label", good.select(["label"]), None
    yield "columns with points", good.rename_columns(["a.image", "a.label"]), None
    yield "a part beside", pa.table({"image": image, "image.bytes": label, "label": label}), ("0", "1")
    text = pa.table({"image": image_column(), "label": ["0", "1", "0", "1"]})
    yield "texts in the second", [good, text], None
    yield "other texts in the second", [described(good, classes(["x", "y"])), text], None
    yield "no image in the second", [good, good.select(["label"])], None
    yield "no label in the second", [good, good.select(["image"])], None
    yield "an empty second", [good, good.slice(0, 0)], ("0", "1")
    yield "no columns in the second", [good, pa.table({})], None
    yield "numbers as images in the second", [good, pa.table({"image": label, "label": label})], None
    lists = pa.table({"image": image, "label": [[0], [1], [0], [1]]})
    yield "lists in the second", [good, lists], None
    named = described(good, classes(["x", "y"]))
    yield "other names in the second", [named, described(good, classes(["y", "x"]))], None
    yield "no names in the second", [named, good], ("x", "y")
    yield (
        "small numbers in the second",
        [good, good.set_column(1, "label", label.cast(pa.int8()))],
        ("0", "1"),
    )
    bare = good.set_column(0, "image", pa.array([encoded(number) for number in range(4)]))
    yield "bare bytes in the second", [good, bare], ("0", "1")


def hugging_face(root: Path, **arguments: Any) -> HuggingFace:
    return HuggingFace(str(root), **{"image_size": SIZE, "batch_size": 1, "test_fraction": 0.5, **arguments})


def constructed(build: Callable[[], ImageDataModule]) -> ImageDataModule | str:
    """As :func:`started`, of a data module that may refuse its files at once."""
    try:
        data = build()
    except Exception as error:
        if not is_user_error(error):
            raise
        return one_line(error)
    return started(data)


def test_hugging_face_with_odd_tables(tmp_path: Path) -> None:
    wrong = []
    for number, (name, content, expected) in enumerate(tables()):
        root = tmp_path / str(number)
        root.mkdir()
        for part, table in enumerate(content if isinstance(content, list) else [content]):
            parquet.write_table(table, root / f"train-{part}.parquet")
        try:
            data = constructed(partial(hugging_face, root))
        except Exception as error:
            wrong.append(f"{name}: {type(error).__name__} {error}")
            continue
        if isinstance(data, str):
            if expected is not None or "\n" in data or not ("data." in data or str(root) in data):
                wrong.append(f"{name}: refused: {data}")
        elif data.class_names != expected:
            wrong.append(f"{name}: read as {data.class_names}")
    assert not wrong, "\n".join(wrong)


def test_hugging_face_with_broken_files(tmp_path: Path) -> None:
    """40 damaged files of the test split beside a whole training split."""
    chance, refused = random.Random(3), 0
    table = described(pa.table({"image": image_column(), "label": [0, 1, 0, 1]}), classes(["x", "y"]))
    root = tmp_path / "set"
    root.mkdir()
    parquet.write_table(table, root / "train.parquet")
    content = (root / "train.parquet").read_bytes()
    for number in range(40):
        (root / "test.parquet").write_bytes(damaged(content, chance))
        os.utime(root / "test.parquet", (number, number))
        data = constructed(partial(hugging_face, root, skip_unreadable=number % 2 == 0))
        refused += isinstance(data, str)
        if isinstance(data, HuggingFace):
            assert data.class_names == ("x", "y")
            images, targets = data.split_arrays("train")
            assert torch.equal(images[1], torch.from_numpy(pixels_of(encoded(1))))
            assert targets.tolist() == [0, 1, 0, 1]
    assert 20 < refused < 40


@pytest.mark.parametrize("kind", [CIFAR10, CIFAR100])
@pytest.mark.parametrize("form", ["archive", "folder"])
def test_cifar_with_broken_files(
    kind: type[CIFAR10], form: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """10 damaged files: each is refused by its checksum, and no other file is written."""
    write = write_cifar100 if kind is CIFAR100 else write_cifar10
    write(tmp_path, monkeypatch, form)
    chance = random.Random(4)
    whole = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for _ in range(10):
        path, content = chance.choice(sorted(whole.items()))
        path.write_bytes(damaged(content, chance))
        if path.read_bytes() != content:
            line = constructed(lambda: kind(str(tmp_path)))
            assert isinstance(line, str)
            assert str(path) in line
        path.write_bytes(content)
    assert isinstance(constructed(lambda: kind(str(tmp_path))), kind)


@pytest.mark.parametrize("form", ["archive", "folder"])
def test_fashion_mnist_with_broken_files(form: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """20 damaged files: packed ones are refused by their checksum; of others the pixels may change."""
    write_fashion_mnist(tmp_path, monkeypatch, form)
    chance = random.Random(5)
    whole = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    refused = 0
    for _ in range(20):
        path, content = chance.choice(sorted(whole.items()))
        path.write_bytes(damaged(content, chance, 30))
        data = constructed(lambda: FashionMNIST(str(tmp_path)))
        assert isinstance(data, str) or form == "folder"
        assert not isinstance(data, str) or str(path) in data
        refused += isinstance(data, str)
        path.write_bytes(content)
    assert refused > 10
    assert isinstance(constructed(lambda: FashionMNIST(str(tmp_path))), FashionMNIST)


@pytest.mark.parametrize("form", ["archive", "folder"])
def test_tiny_imagenet_with_broken_files(form: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """15 damaged files: lists, images, the archive."""
    write_tiny_imagenet(tmp_path, monkeypatch, form)
    chance = random.Random(6)
    archive = tmp_path / "tiny-imagenet-200.zip"
    official = tmp_path / "tiny-imagenet-200"
    lists = [official / "wnids.txt", official / "val" / "val_annotations.txt"]
    paths = [archive] if form == "archive" else [*lists * 3, *sorted(official.rglob("*.JPEG"))[:6]]
    for path in chance.choices(paths, k=15):
        content = path.read_bytes()
        path.write_bytes(damaged(content, chance, 200))
        data = constructed(lambda: TinyImageNet(str(tmp_path)))
        assert not isinstance(data, str) or "tiny-imagenet" in data
        assert isinstance(data, str) or form == "folder"
        path.write_bytes(content)
        shutil.rmtree(tmp_path / "tiny-imagenet-200-decoded", ignore_errors=True)
