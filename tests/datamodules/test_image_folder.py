"""Any folder of images: layouts, splits, the cache, unreadable files; against plain loops over the files."""

from __future__ import annotations

import csv
import multiprocessing
import os
import pickle
import re
import shutil
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torchvision.datasets import ImageFolder as TorchvisionFolder
from torchvision.transforms.v2 import PILToTensor

from nas_lightning.datamodules import ImageFolder

SIZE = 8
CLASSES = ("ant", "bee", "cat")


def picture(seed: int, size: int = SIZE) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)


def fill(folder: Path, classes: Sequence[str] = CLASSES, count: int = 10, seed: int = 0) -> None:
    for number, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for index in range(count):
            Image.fromarray(picture(1000 * seed + 100 * number + index)).save(folder / name / f"{index}.png")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    fill(tmp_path / "insects" / "train")
    fill(tmp_path / "insects" / "test", count=4, seed=1)
    return tmp_path / "insects"


def loaded(root: Path, **arguments: Any) -> ImageFolder:
    data = ImageFolder(str(root), **{"image_size": SIZE, "batch_size": 4, **arguments})
    data.prepare_data()
    data.setup()
    return data


def table(data: ImageFolder) -> list[dict[str, str]]:
    with (data.cache / "images.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_images_and_classes_are_those_of_torchvision(root: Path) -> None:
    data = loaded(root)
    assert data.name == "insects"
    assert data.class_names == CLASSES
    assert data.num_classes == 3
    for split in ("train", "test"):
        reference = TorchvisionFolder(root / split, PILToTensor())
        images, targets = data.split_arrays(split)
        assert reference.classes == list(CLASSES)
        assert torch.equal(images, torch.stack([image for image, _ in reference]))
        assert targets.tolist() == reference.targets


def test_mean_and_deviation_are_those_of_the_training_pixels(root: Path) -> None:
    data = loaded(root)
    images = data.split_arrays("train")[0].double() / 255
    assert data.mean == pytest.approx(images.mean(dim=(0, 2, 3)).tolist(), abs=1e-12)
    assert data.std == pytest.approx(images.std(dim=(0, 2, 3), correction=0).tolist(), abs=1e-12)


def test_a_channel_of_one_value_can_be_normalised(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / "set" / name).mkdir(parents=True)
        for index in range(5):
            Image.new("RGB", (8, 8), (7, 0, 255)).save(tmp_path / "set" / name / f"{index}.png")
    data = loaded(tmp_path / "set")
    assert data.std == (1, 1, 1)
    assert data.normalise(data.split_arrays("train")[0]).abs().max() < 1e-6


def test_without_a_test_split_one_is_drawn_by_its_seed_and_recorded(tmp_path: Path) -> None:
    fill(tmp_path / "set")
    draws = [loaded(tmp_path / "set", test_fraction=0.3, test_seed=seed) for seed in (0, 0, 1)]
    names = [{row["file"] for row in table(data) if row["split"] == "test"} for data in draws]
    assert names[0] == names[1] != names[2]
    for data, drawn in zip(draws, names, strict=True):
        images, targets = data.split_arrays("test")
        assert torch.bincount(targets).tolist() == [3, 3, 3]
        assert len(drawn) == 9
        rows = [row for row in table(data) if row["split"] == "test"]
        for position, row in enumerate(rows):
            pixels = np.asarray(Image.open(tmp_path / "set" / row["file"]))
            assert int(row["position"]) == position
            assert CLASSES[targets[position]] == row["class"]
            np.testing.assert_array_equal(images[position].permute(1, 2, 0), pixels)


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_a_validation_folder_stands_in_for_the_test_split(root: Path, name: str, caplog: Any) -> None:
    (root / "test").rename(root / name)
    with caplog.at_level("INFO"):
        data = loaded(root)
    assert f"{root.name} has no test split: its validation split is the test split" in caplog.text
    assert data.split_sizes == {"train": 30, "test": 12}
    assert data.evaluation_split == "test"


def test_beside_a_test_split_it_is_evaluated_every_epoch(root: Path, caplog: Any) -> None:
    fill(root / "val", count=2, seed=2)
    with caplog.at_level("INFO"):
        data = loaded(root)
    assert "measured on the test split" not in caplog.text
    assert data.split_sizes == {"train": 30, "test": 12, "val": 6}
    assert data.evaluation_split == "val"
    images, targets = data.split_arrays("val")
    reference = TorchvisionFolder(root / "val", PILToTensor())
    assert torch.equal(images, torch.stack([image for image, _ in reference]))
    assert targets.tolist() == reference.targets
    train = data.split_arrays("train")[0].double() / 255
    assert data.mean == pytest.approx(train.mean(dim=(0, 2, 3)).tolist(), abs=1e-12)
    batch = next(iter(data.val_dataloader()))
    inputs, shown = data.on_after_batch_transfer(data.transfer_batch_to_device(batch, torch.device("cpu")))
    assert torch.equal(inputs, data.normalise(images))
    assert torch.equal(shown, targets)
    with pytest.raises(ValueError, match=r"`validation_fraction` \(=0.2\) must be 0"):
        loaded(root, validation_fraction=0.2)


def test_a_part_of_the_training_images_may_be_held_out(root: Path) -> None:
    data = loaded(root, validation_fraction=0.2)
    assert data.split_sizes == {"train": 24, "val": 6, "test": 12}


def test_hidden_and_other_files_are_left_out_and_deeper_folders_read(root: Path, caplog: Any) -> None:
    ant = root / "train" / "ant"
    (ant / ".DS_Store").write_bytes(b"x")
    (ant / "._0.png").write_bytes(b"x")
    (ant / "notes.txt").write_text("x")
    (ant / "deeper").mkdir()
    Image.fromarray(picture(5)).save(ant / "deeper" / "LAST.JPEG")
    (ant / "loop").symlink_to(ant)
    (root / "train" / ".hidden").mkdir()
    Image.fromarray(picture(6)).save(ant / "other.jfif", "jpeg")
    with caplog.at_level("INFO"):
        data = loaded(root)
    assert data.class_names == CLASSES
    assert data.split_sizes["train"] == 32
    assert f"{root.name}: left out: files of other suffixes: 1 .txt" in caplog.text


def test_a_cache_among_the_images_is_refused(root: Path) -> None:
    for folder in (root, root / "train", root / "train" / "ant" / "new"):
        with pytest.raises(ValueError, match=r"`data.cache_folder` .* must not lie among the images"):
            loaded(root, cache_folder=str(folder))
    assert loaded(root, cache_folder=str(root / ".cache")).cache.parent == root / ".cache"


def test_a_second_start_decodes_nothing_and_a_changed_file_all(root: Path) -> None:
    first = loaded(root)
    written = (first.cache / "images.json").stat().st_mtime_ns
    assert (loaded(root).cache / "images.json").stat().st_mtime_ns == written
    Image.fromarray(picture(99)).save(root / "train" / "bee" / "0.png")
    changed = loaded(root)
    assert (changed.cache / "images.json").stat().st_mtime_ns != written
    assert torch.equal(changed.split_arrays("train")[0][10], torch.from_numpy(picture(99)).permute(2, 0, 1))
    (root / "test" / "cat" / "3.png").unlink()
    assert loaded(root).split_sizes["test"] == 11


@pytest.mark.parametrize("name", ["images.json", "checksums.json", "train_images.npy", "test_targets.npy"])
@pytest.mark.parametrize("how", ["missing", "cut"])
def test_a_damaged_cache_is_made_anew(root: Path, name: str, how: str) -> None:
    before = loaded(root)
    images = before.split_arrays("train")[0].clone()
    path = before.cache / name
    if how == "missing":
        path.unlink()
    else:
        os.truncate(path, 20)
    assert torch.equal(loaded(root).split_arrays("train")[0], images)


def test_each_size_has_its_own_cache(root: Path) -> None:
    small, large = loaded(root), loaded(root, image_size=16)
    assert small.cache != large.cache
    assert large.split_arrays("train")[0].shape == (30, 3, 16, 16)
    assert small.split_arrays("train")[0].shape == (30, 3, SIZE, SIZE)


def test_where_the_folder_cannot_be_written_the_users_cache_is_used(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    (root / ".decoded").write_text("in the way")
    data = loaded(root)
    assert data.cache.is_relative_to(tmp_path / "home")
    assert data.split_sizes["train"] == 30
    given = loaded(root, cache_folder=str(tmp_path / "given"))
    assert given.cache.is_relative_to(tmp_path / "given")
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="cannot write the cache of decoded images"):
        loaded(root, cache_folder=str(tmp_path / "file" / "below"))


def spoil(root: Path) -> list[str]:
    """Spoil four files; what a report says of each."""
    bee = root / "train" / "bee"
    (bee / "1.png").write_bytes(b"")
    (bee / "2.png").write_bytes(b"no image at all")
    whole = (bee / "3.png").read_bytes()
    (bee / "3.png").write_bytes(whole[: len(whole) // 2])
    (root / "test" / "cat" / "0.png").unlink()
    (root / "test" / "cat" / "0.png").symlink_to("nowhere")
    return [
        "train/bee/1.png: empty",
        "train/bee/2.png: no image",
        "train/bee/3.png: ",
        "test/cat/0.png: No such file",
    ]


def test_all_unreadable_files_are_named_in_one_report(root: Path) -> None:
    lines = spoil(root)
    for _ in range(2):  # the second time from the cache
        with pytest.raises(
            ValueError, match=r"4 of 42 images cannot be read; .* `data.skip_unreadable`"
        ) as error:
            loaded(root)
        notes = error.value.__notes__
        assert all(note.startswith(f"  {line}") for note, line in zip(notes, lines, strict=True))


def test_the_training_goes_on_without_them_where_it_is_told_to(root: Path) -> None:
    spoil(root)
    data = loaded(root, skip_unreadable=True)
    assert data.split_sizes == {"train": 27, "test": 11}
    images, targets = data.split_arrays("train")
    assert torch.bincount(targets).tolist() == [10, 7, 10]
    kept = [row for row in table(data) if row["split"] == "train" and row["position"]]
    assert [int(row["position"]) for row in kept] == list(range(27))
    for image, row in zip(images, kept, strict=True):
        np.testing.assert_array_equal(image.permute(1, 2, 0), np.asarray(Image.open(root / row["file"])))
    remarks = [row["remark"] for row in table(data) if not row["position"]]
    assert len(remarks) == 4
    assert all(remark.startswith("unreadable: ") for remark in remarks)


def test_of_many_unreadable_files_the_table_has_all(root: Path) -> None:
    for path in root.glob("train/*/*.png"):
        path.write_bytes(b"")
    with pytest.raises(ValueError, match="30 of 42 images") as error:
        loaded(root)
    assert len(error.value.__notes__) == 21
    assert (
        error.value.__notes__[-1] == f"  and 10 more, all in {root / '.decoded' / f'{SIZE}px' / 'images.csv'}"
    )
    with pytest.raises(ValueError, match="no image of the train split can be read"):
        loaded(root, skip_unreadable=True)


def test_animated_files_are_named_and_give_their_first_frame(root: Path, caplog: Any) -> None:
    frames = [Image.new("RGB", (SIZE, SIZE), colour) for colour in ("red", "blue")]
    frames[0].save(root / "train" / "ant" / "0.gif", save_all=True, append_images=frames[1:])
    with caplog.at_level("INFO"):
        data = loaded(root)
    assert "of 1 animated files the first frame counts: train/ant/0.gif" in caplog.text
    red = data.split_arrays("train")[0][0]
    assert red.flatten(1).tolist() == [[255] * SIZE**2, [0] * SIZE**2, [0] * SIZE**2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image_size": 0}, "`image_size` (=0)"),
        ({"test_fraction": 1.0}, "`test_fraction` (=1.0)"),
        ({"test_seed": -1}, "`test_seed` (=-1)"),
        ({"padding": -1}, "`padding` (=-1)"),
        ({"cutout": 9}, "`cutout` (=9)"),
    ],
)
def test_arguments_out_of_range_are_refused(root: Path, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        ImageFolder(str(root), **{"image_size": SIZE, **arguments})


def test_folders_that_are_no_data_set_are_refused_in_one_line(root: Path, tmp_path: Path) -> None:
    def refused(folder: Path, message: str) -> None:
        with pytest.raises((ValueError, FileNotFoundError), match=message) as error:
            loaded(folder)
        assert "\n" not in str(error.value)

    refused(tmp_path / "missing", "no such folder")
    (tmp_path / "archive.zip").write_bytes(b"")
    refused(tmp_path / "archive.zip", "is no folder: unpack it")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "neither a folder `train` nor a folder for each class")
    (tmp_path / "bare" / "train").mkdir(parents=True)
    refused(tmp_path / "bare", "holds no folder for a class")
    (tmp_path / "single" / "train" / "cat").mkdir(parents=True)
    refused(tmp_path / "single", "holds a single class, cat; a classifier needs two")
    for name in ("cat", "dog"):
        (tmp_path / "no_image" / name).mkdir(parents=True)
    refused(tmp_path / "no_image", "holds no folder of images")
    fill(root / "test" / "extra", classes=["wasp"], count=1)
    (root / "test" / "extra").rename(root / "test" / "wasp")
    refused(root, "lacks the class of .*wasp")
    shutil.rmtree(root / "test" / "wasp")
    (root / "train" / "dog").mkdir()
    refused(root, "dog holds no image")
    shutil.rmtree(root / "train" / "dog")
    shutil.rmtree(root / "test")
    for path in (root / "train" / "ant").iterdir():
        if path.name != "0.png":
            path.unlink()
    refused(root, "`test_fraction` .* does not suit insects, .*: class ant has a single image")


def test_names_of_splits_may_be_longer_and_in_capitals(tmp_path: Path, caplog: Any) -> None:
    for split, count in (("Training", 3), ("TEST", 2), ("valid", 1)):
        fill(tmp_path / "set" / split, count=count)
    (tmp_path / "set" / "tb_logs").mkdir()
    with caplog.at_level("INFO"):
        assert loaded(tmp_path / "set").split_sizes == {"train": 9, "test": 6, "val": 3}
    assert "set: left out: tb_logs; no split" in caplog.text


@pytest.mark.parametrize("classes", [("bus", "car", "train"), ("invalid", "valid"), ("a", "test")])
def test_classes_may_have_the_names_of_splits(classes: tuple[str, ...], tmp_path: Path) -> None:
    fill(tmp_path / "set", classes, count=5)
    data = loaded(tmp_path / "set")
    assert data.class_names == classes
    assert data.split_sizes == {"train": 4 * len(classes), "test": len(classes)}


def test_folders_of_splits_are_never_taken_for_classes(tmp_path: Path) -> None:
    def refused(name: str, message: str) -> None:
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            loaded(tmp_path / name)

    fill(tmp_path / "no_train" / "test")
    fill(tmp_path / "no_train" / "val")
    refused("no_train", "holds test, val, but `train` is missing")
    fill(tmp_path / "kaggle", classes=("test", "train"))
    refused("kaggle", "`train` is missing or holds no folder for a class")
    fill(tmp_path / "mixed")
    fill(tmp_path / "mixed" / "test")
    refused("mixed", "test holds classes that lie beside it; move these into a folder `train`")
    for split in ("train", "val", "valid"):
        fill(tmp_path / "both" / split)
    refused("both", "val and valid are both the val split; remove one")


def test_classes_may_lie_in_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    fill(tmp_path)
    fill(tmp_path / "tb_logs" / "imagefolder" / "first", classes=["landscape"], count=1)
    (tmp_path / "notes" / "deeper").mkdir(parents=True)
    (tmp_path / "notes" / "list.txt").write_text("")
    fill(tmp_path / ".git", count=1)
    monkeypatch.chdir(tmp_path)
    with caplog.at_level("INFO"):
        assert loaded(Path()).class_names == CLASSES
    assert f"{tmp_path.name}: left out: notes, tb_logs; without images, or a folder of runs" in caplog.text


def test_a_split_without_images_is_left_out(root: Path, caplog: Any) -> None:
    fill(root / "val", count=2)
    for path in root.glob("test/*/*.png"):
        path.unlink()
    with caplog.at_level("INFO"):
        assert loaded(root).split_sizes == {"train": 30, "test": 6}
    assert "the test split is left out: it holds no image" in caplog.text


def test_any_name_of_a_class_is_recorded(tmp_path: Path) -> None:
    names = sorted(
        ["with space", "a,b", "line\nbreak", "😀", "-dash", "x" * 250, "Cat", "cat", os.fsdecode(b"\xff")]
    )
    fill(tmp_path / "set" / "train", names, count=2)
    (tmp_path / "set" / "train" / os.fsdecode(b"\xff") / "0.png").write_bytes(b"")
    data = loaded(tmp_path / "set", test_fraction=0.5, skip_unreadable=True)
    assert data.class_names == tuple(
        {"\udcff": "\\udcff", "line\nbreak": "line\\nbreak"}.get(name, name) for name in names
    )
    assert {row["class"] for row in table(data)} == set(data.class_names)


def test_a_data_set_is_named_by_its_folder(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root.parent / "link").symlink_to(root)
    monkeypatch.chdir(root / "train")
    names = {path: ImageFolder(path, image_size=SIZE).name for path in ("..", f"{root}/", "../../link")}
    assert list(names.values()) == ["insects", "insects", "link"]
    monkeypatch.setenv("XDG_CACHE_HOME", str(root.parent / "home"))
    long = root.rename(root.parent / ("x" * 250))
    (long / ".decoded").write_text("in the way")
    assert loaded(long).cache.is_relative_to(root.parent / "home")


def test_a_copy_never_takes_the_cache_of_other_files(root: Path) -> None:
    data = loaded(root)
    copied = pickle.loads(pickle.dumps(data))
    (root / "train" / "ant" / "0.png").unlink()
    loaded(root)
    assert len(data.split_arrays("train")[1]) == 30  # still mapped
    with pytest.raises(FileNotFoundError, match="is missing, or of other files"):
        copied.split_arrays("train")


def test_a_test_folder_without_classes_is_left_out(root: Path, caplog: Any) -> None:
    shutil.rmtree(root / "test")
    (root / "test").mkdir()
    Image.fromarray(picture(0)).save(root / "test" / "1.png")
    with caplog.at_level("INFO"):
        assert loaded(root).split_sizes == {"train": 24, "test": 6}
    assert "it holds no folder for a class" in caplog.text


def test_a_checkpoint_of_other_classes_is_refused(root: Path, caplog: Any) -> None:
    state = loaded(root).state_dict()
    with caplog.at_level("INFO"):
        loaded(root).load_state_dict(state)
    assert "changed" not in caplog.text
    (root / "test" / "bee" / "0.png").unlink()
    with caplog.at_level("INFO"):
        loaded(root).load_state_dict(state)
    assert "files have changed" in caplog.text
    Image.new("RGB", (SIZE, SIZE), "white").save(root / "train" / "ant" / "0.png")
    changed = loaded(root)
    assert list(changed.mean) != state["mean"]
    changed.load_state_dict(state)
    assert (list(changed.mean), list(changed.std)) == (state["mean"], state["std"])
    for split in ("train", "test"):
        (root / split / "bee").rename(root / split / "wasp")
    with pytest.raises(ValueError, match=r"holds the classes ant, cat, wasp; .* trained on ant, bee, cat"):
        loaded(root).load_state_dict(state)


def test_ctrl_c_ends_the_decoding_at_once_and_leaves_nothing(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(300):
        os.link(root / "train" / "ant" / "0.png", root / "train" / "ant" / f"more-{number}.png")
    calls: list[Path] = []

    def interrupted(source: Path, size: int) -> Any:
        calls.append(source)
        if len(calls) == 1:
            raise KeyboardInterrupt
        time.sleep(0.01)
        return np.zeros((3, size, size), np.uint8), False

    monkeypatch.setattr("nas_lightning.datamodules.decoding.read_frame", interrupted)
    with pytest.raises(KeyboardInterrupt):
        loaded(root)
    assert len(calls) < 50
    assert [path.name for path in (root / ".decoded").iterdir()] in ([], [f".{SIZE}px.lock"])


def _prepare(root: str) -> None:
    data = ImageFolder(root, image_size=SIZE, batch_size=4)
    data.prepare_data()
    data.setup()
    assert data.split_sizes == {"train": 30, "test": 12}


def _prepare_slowly(root: str) -> None:
    from nas_lightning.datamodules import decoding

    def slow(*arguments: Any) -> Any:
        time.sleep(30)

    setattr(decoding, "read_frame", slow)  # noqa: B010
    _prepare(root)


@pytest.mark.slow
def test_processes_share_one_cache_and_a_killed_one_leaves_none(root: Path) -> None:
    context = multiprocessing.get_context("fork")
    slow = context.Process(target=_prepare_slowly, args=(str(root),))
    slow.start()
    partial = root / ".decoded" / f".{SIZE}px.partial"
    while not (partial / "train_images.npy").exists():
        time.sleep(0.02)
    assert slow.pid is not None
    os.kill(slow.pid, signal.SIGKILL)
    slow.join()
    assert not (root / ".decoded" / f"{SIZE}px").exists()
    processes = [context.Process(target=_prepare, args=(str(root),)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert not partial.exists()
