"""Folders of Parquet files, as the Hugging Face hub hands data sets on."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from pyarrow import parquet

from nas_lightning.datamodules import HuggingFace

SIZE = 8


def encoded(seed: int) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def pixels(seed: int) -> torch.Tensor:
    image = np.asarray(Image.open(io.BytesIO(encoded(seed))))
    return torch.from_numpy(image.copy()).permute(2, 0, 1)


def write(
    path: Path,
    labels: Sequence[Any],
    *,
    first: int = 0,
    names: Sequence[str] = (),
    label: str = "label",
    image: str = "image",
    bare: bool = False,
    more: Mapping[str, Sequence[Any]] = {},
) -> None:
    """A Parquet file of the images ``first``, ``first + 1``, ... with their labels."""
    data = [encoded(first + index) for index in range(len(labels))]
    images: list[Any] = list(data) if bare else [{"bytes": one, "path": None} for one in data]
    table = pa.table({image: images, label: list(labels), **more})
    if names:
        features = {image: {"_type": "Image"}, label: {"_type": "ClassLabel", "names": list(names)}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(table, path, row_group_size=3)


def loaded(root: Path, **arguments: Any) -> HuggingFace:
    data = HuggingFace(str(root), **{"image_size": SIZE, "batch_size": 2, **arguments})
    data.prepare_data()
    data.setup()
    return data


def test_files_of_the_hub_are_read_in_their_order(tmp_path: Path) -> None:
    names = ("cat", "ant", "bee")
    write(tmp_path / "data" / "train-00000-of-00002.parquet", [2, 0, 1, 1, 0], names=names)
    write(tmp_path / "data" / "train-00001-of-00002.parquet", [0, 2], first=5, names=names)
    write(tmp_path / "data" / "test-00000-of-00001.parquet", [1, 0], first=10, names=names)
    data = loaded(tmp_path)
    assert data.class_names == names
    assert data.split_sizes == {"train": 7, "test": 2}
    for split, numbers, labels in (("train", range(7), [2, 0, 1, 1, 0, 0, 2]), ("test", (10, 11), [1, 0])):
        images, targets = data.split_arrays(split)  # type: ignore[arg-type]
        assert torch.equal(images, torch.stack([pixels(number) for number in numbers]))
        assert targets.tolist() == labels
    assert "data/train-00001-of-00002.parquet:1," in (data.cache / "images.csv").read_text()


def test_any_name_of_a_class_is_recorded(tmp_path: Path) -> None:
    write(tmp_path / "train.parquet", [0, 1, 0, 1], names=["two\nlines", "\udcff"])
    data = loaded(tmp_path, test_fraction=0.5)
    assert data.class_names == ("two\\nlines", "\\udcff")
    assert data.split_arrays("test")[1].tolist() == [0, 1]


def test_without_a_test_split_one_is_drawn(tmp_path: Path) -> None:
    write(tmp_path / "images.parquet", ["b", "a"] * 10, bare=True, label="class", image="picture")
    data = loaded(tmp_path, test_fraction=0.3)
    assert data.class_names == ("a", "b")
    assert torch.bincount(data.split_arrays("test")[1]).tolist() == [3, 3]
    rows = [line.split(",") for line in (data.cache / "images.csv").read_text().splitlines()[1:]]
    arrays = {split: data.split_arrays(split) for split in ("train", "test")}
    for split, position, name, file, _ in rows:
        number = int(file.rpartition(":")[2])
        assert torch.equal(arrays[split][0][int(position)], pixels(number))
        assert name == ["b", "a"][number % 2]


def test_a_validation_split_stands_in_for_one_without_labels(tmp_path: Path, caplog: Any) -> None:
    write(tmp_path / "train" / "0000.parquet", [3, 1, 3, 1])
    write(tmp_path / "validation" / "0000.parquet", [1, 3, 3], first=10)
    write(tmp_path / "test" / "0000.parquet", [-1, -1], first=20)
    with caplog.at_level("INFO"):
        data = loaded(tmp_path)
    assert data.class_names == ("1", "3")
    assert data.split_sizes == {"train": 4, "test": 3}
    assert data.split_arrays("test")[1].tolist() == [0, 1, 1]
    assert "the test split is left out: it has no labels" in caplog.text


def test_a_split_of_other_labels_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "train" / "0000.parquet", [3, 1, 3, 1])
    write(tmp_path / "test" / "0000.parquet", [7, 8], first=20)
    with pytest.raises(ValueError, match=r"2 of 2 rows of the test split .* one that is no class"):
        loaded(tmp_path)


def test_columns_may_be_named(tmp_path: Path) -> None:
    both: dict[str, Sequence[Any]] = {"fine_label": [0, 1, 2, 0], "coarse_label": ["x", "y", "x", "y"]}
    write(tmp_path / "train.parquet", [0, 0, 0, 0], label="number", more=both)
    with pytest.raises(
        ValueError, match=r"`data.label_column` must name a column .* number, fine_label, coarse"
    ):
        loaded(tmp_path)
    arguments = {"label_column": "coarse_label", "test_fraction": 0.5}
    assert loaded(tmp_path, **arguments).class_names == ("x", "y")
    with pytest.raises(ValueError, match=r"`data.label_column` \(=corse\).*number, fine_label, coarse_label"):
        loaded(tmp_path, label_column="corse")
    with pytest.raises(ValueError, match=r"`data.image_column` \(=number\).* suit are image$"):
        loaded(tmp_path, image_column="number", **arguments)


def test_images_may_be_files_beside_the_table(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for number in range(4):
        (tmp_path / "data" / f"{number}.png").write_bytes(encoded(number))
    images = [{"bytes": None, "path": f"{number}.png"} for number in range(4)]
    table = pa.table({"image": images, "label": [0, 1, 0, 1]})
    parquet.write_table(table, tmp_path / "data" / "train.parquet")
    data = loaded(tmp_path, test_fraction=0.5)
    assert data.split_sizes == {"train": 2, "test": 2}


def test_rows_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    images = [encoded(0), b"", b"x", None, encoded(4), encoded(5)]
    table = pa.table({"image": images, "label": [0, 1, 0, 1, 0, 1]})
    parquet.write_table(table, tmp_path / "train.parquet")
    write(tmp_path / "test.parquet", [0, 1])
    with pytest.raises(ValueError, match="3 of 8 images cannot be read") as error:
        loaded(tmp_path)
    lines = ["  train.parquet:1: empty", "  train.parquet:2: no image", "  train.parquet:3: empty"]
    assert error.value.__notes__ == lines
    assert loaded(tmp_path, skip_unreadable=True).split_arrays("train")[1].tolist() == [0, 0, 1]


def test_folders_may_be_links_and_have_the_suffix(tmp_path: Path) -> None:
    write(tmp_path / "blobs" / "part-0.parquet", [0, 1])
    write(tmp_path / "set" / "train.parquet" / "part-0.parquet", [0, 1])
    (tmp_path / "set" / "test").symlink_to(tmp_path / "blobs")
    assert loaded(tmp_path / "set").split_sizes == {"train": 2, "test": 2}
    (tmp_path / "set" / "test").unlink()
    (tmp_path / "set" / "test.parquet").symlink_to("nowhere")
    with pytest.raises(FileNotFoundError, match=r"test\.parquet: missing, or no file"):
        loaded(tmp_path / "set")
    (tmp_path / "set" / "test.parquet").unlink()
    os.mkfifo(tmp_path / "set" / "test.parquet")
    with pytest.raises(FileNotFoundError, match=r"test\.parquet: missing, or no file"):
        loaded(tmp_path / "set")


def test_a_file_that_changes_while_it_is_read_is_named(tmp_path: Path) -> None:
    write(tmp_path / "train.parquet", [0, 1, 0])
    write(tmp_path / "test.parquet", [0, 1])
    data = HuggingFace(str(tmp_path), image_size=SIZE)
    assert data.listed_counts() == {"train": 3, "test": 2}
    write(tmp_path / "train.parquet", [0, 1])
    with pytest.raises(ValueError, match=r"train\.parquet: changed while it was read"):
        data.prepare_data()


def test_a_changed_file_is_decoded_anew(tmp_path: Path) -> None:
    write(tmp_path / "train.parquet", [0, 1])
    write(tmp_path / "test.parquet", [0, 1])
    first = loaded(tmp_path)
    written = (first.cache / "images.json").stat().st_mtime_ns
    assert (loaded(tmp_path).cache / "images.json").stat().st_mtime_ns == written
    write(tmp_path / "test.parquet", [0, 1, 1], first=30)
    assert torch.equal(loaded(tmp_path).split_arrays("test")[0][2], pixels(32))


def test_what_is_no_data_set_is_refused_in_one_line(tmp_path: Path) -> None:
    def refused(name: str, message: str) -> None:
        with pytest.raises((ValueError, FileNotFoundError), match=message) as error:
            loaded(tmp_path / name)
        assert "\n" not in str(error.value)

    (tmp_path / "empty").mkdir()
    refused("empty", "holds no Parquet file")
    write(tmp_path / "tested" / "test.parquet", [0, 1])
    refused("tested", "no file of a training split")
    write(tmp_path / "both" / "train" / "test.parquet", [0, 1])
    refused("both", "names train and test")
    (tmp_path / "pointer").mkdir()
    (tmp_path / "pointer" / "train.parquet").write_text("version https://git-lfs.github.com/spec/v1\n")
    refused("pointer", "`git lfs pull` fetches the file")
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "train.parquet").write_text("x" * 100)
    refused("text", "damaged, or no Parquet file")
    write(tmp_path / "missing" / "train.parquet", [0, None, 1, 0])
    refused("missing", "1 of 4 rows of the train split have no label in 'label'.* train.parquet:1$")
    write(tmp_path / "beyond" / "train.parquet", [0, 1], names=["a", "b"])
    write(tmp_path / "beyond" / "test.parquet", [0, 7], names=["a", "b"])
    refused("beyond", "1 of 2 rows of the test split")
    write(tmp_path / "float" / "train.parquet", [0.5, 1.5])
    refused("float", "neither whole numbers nor texts")
    write(tmp_path / "single" / "train.parquet", [1, 1])
    refused("single", "a classifier needs two")
    write(tmp_path / "lacks" / "train.parquet", [0, 1])
    write(tmp_path / "lacks" / "test.parquet", [0, 1], label="other")
    refused("lacks", "no column 'label'")


def test_damaged_files_are_refused_in_a_line_or_read(tmp_path: Path) -> None:
    """60 files with bytes cut off or changed."""
    write(tmp_path / "whole.parquet", [0, 1] * 4)
    whole = (tmp_path / "whole.parquet").read_bytes()
    chance = np.random.default_rng(0)
    refused = 0
    for number in range(60):
        data = bytearray(whole)
        if number % 3 == 0:
            data = data[: chance.integers(len(data))]
        else:
            for place in chance.integers(len(data) if number % 3 == 1 else 400, size=6):
                data[-place] = chance.integers(256)
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "train.parquet").write_bytes(bytes(data))
        try:
            loaded(folder, skip_unreadable=True)
        except (ValueError, FileNotFoundError) as error:
            refused += 1
            message = str(error)
        else:
            message = "read"
        assert "\n" not in message
    assert 20 < refused < 60
