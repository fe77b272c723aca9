"""Predictions are the network's, of images given in any way; what it needs for them is in its checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from nas_lightning.classifier import CellClassifier
from nas_lightning.datamodules import Synthetic
from nas_lightning.image_record import ImageRecord, class_labels, read_image_record
from nas_lightning.prediction import image_files, record_of
from tests.acceleration.cases import SIZES, SMALL

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
NAMES = ("ape", "bee", "cat", "dog")
RECORD = ImageRecord("Zoo", 16, MEAN, STD, NAMES)


def classifier(record: ImageRecord | None = RECORD) -> CellClassifier:
    torch.manual_seed(0)
    model = CellClassifier(str(SMALL), num_classes=4, **SIZES)
    torch.nn.init.normal_(model.network.classifier.weight)
    model.images = record
    return model


def pictures(count: int, height: int = 16, width: int = 16) -> Tensor:
    generator = torch.Generator().manual_seed(count)
    colours = torch.randint(192, (count, 3, 1, 1), generator=generator)
    noise = torch.randint(64, (count, 3, height, width), generator=generator)
    return (colours + noise).to(torch.uint8)


def opened(image: Tensor) -> Image.Image:
    return Image.fromarray(image.permute(1, 2, 0).numpy())


def by_hand(model: CellClassifier, images: Tensor) -> np.ndarray[Any, Any]:
    inputs = (images.numpy() / 255 - np.reshape(MEAN, (3, 1, 1))) / np.reshape(STD, (3, 1, 1))
    with torch.no_grad():
        logits = model.double().network.eval()(torch.from_numpy(inputs)).numpy()
    shares: np.ndarray[Any, Any] = np.exp(logits - logits.max(1, keepdims=True))
    shares /= shares.sum(1, keepdims=True)
    return shares


def test_probabilities_are_those_of_normalised_images() -> None:
    images = pictures(7)
    names, probabilities = classifier().classify(images, batch_size=3)
    expected = by_hand(classifier(), images)
    np.testing.assert_allclose(probabilities.numpy(), expected, rtol=1e-5, atol=1e-7)
    assert names == [NAMES[best] for best in expected.argmax(1)]
    assert len(set(names)) > 1


def test_every_way_to_give_images_gives_the_same(tmp_path: Path) -> None:
    images = pictures(4)
    for number, image in enumerate(images):
        opened(image).save(tmp_path / f"{number}.png")
    model = classifier()
    expected = model.classify(images)
    for given in (
        tmp_path,
        str(tmp_path),
        sorted(tmp_path.iterdir()),
        [opened(image) for image in images],
        list(images),
        (opened(image) for image in images),
        [images[:2], tmp_path / "2.png", opened(images[3])],
    ):
        found = model.classify(given, batch_size=3)
        assert found.names == expected.names
        torch.testing.assert_close(found.probabilities, expected.probabilities)
    assert model.classify(images[2]).names == model.classify(tmp_path / "2.png").names == expected.names[2:3]
    assert model.classify([]).probabilities.shape == (0, 4)


def test_images_of_another_size_are_resized_and_cropped(tmp_path: Path) -> None:
    images = pictures(3, 40, 24)
    opened(images[1]).save(tmp_path / "1.png")
    squares = torch.stack(
        [
            torch.from_numpy(np.array(opened(image).crop((0, 8, 24, 32)).resize((16, 16), 3)))
            for image in images
        ]
    ).permute(0, 3, 1, 2)
    model = classifier()
    expected = model.classify(squares).probabilities
    found = model.classify(images).probabilities
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-3)  # pixel values are rounded twice here
    torch.testing.assert_close(model.classify(tmp_path).probabilities, found[1:2])


def test_training_goes_on_as_before() -> None:
    model = classifier().train()
    frozen = next(module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    probabilities = model.classify(pictures(2)).probabilities
    assert not probabilities.requires_grad
    assert [module for module in model.modules() if not module.training] == [frozen]
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


def test_what_cannot_be_classified(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("text")
    (tmp_path / "empty.png").touch()
    opened(pictures(1)[0]).save(tmp_path / "good.png")
    diverged = classifier()
    torch.nn.init.constant_(diverged.network.classifier.bias, float("nan"))
    deep = Image.new("F", (16, 16))
    for model, given, message in (
        (
            classifier(),
            tmp_path,
            r"2 of 3 images cannot be read\n  .*empty\.png: empty\n  .*text\.png: no image",
        ),
        (classifier(), [deep], r"1 of 1 images cannot be read\n  image 0: values of 32 bits"),
        (classifier(), tmp_path / "none.png", "neither a file nor a folder"),
        (classifier(), torch.zeros(1, 3, 16, 16), r"must be uint8 \[batch, 3, height, width\]"),
        (classifier(), torch.zeros(1, 1, 16, 16, dtype=torch.uint8), r"and shape \[1, 1, 16, 16\]"),
        (classifier(), [3], "has a int: it takes paths"),
        (classifier(), b"bytes", "has a bytes"),
        (classifier(None), tmp_path, "does not know how its images were normalised: set `images`"),
        (diverged, pictures(1), "not finite"),
    ):
        with pytest.raises((ValueError, FileNotFoundError), match=message):
            model.classify(given)
    with pytest.raises(ValueError, match=r"`batch_size` \(=0\)"):
        classifier().classify(pictures(1), batch_size=0)


class Named(Synthetic):
    class_names: tuple[str, ...] | None = NAMES


class Odd(Synthetic):
    """Normalises in its own way."""

    def normalise(self, images: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        return images.to(dtype)


DATA = {"train_size": 12, "test_size": 4, "image_size": 16, "num_classes": 4, "batch_size": 8, "seed": 0}


def trainer(folder: Path, **settings: Any) -> Trainer:
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    return Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        enable_model_summary=False,
        limit_val_batches=0,
        **{"max_epochs": 1, **quiet, **settings},
    )


def loader() -> DataLoader[Any]:
    return DataLoader(TensorDataset(torch.randn(4, 3, 16, 16), torch.arange(4)), batch_size=4)


def test_a_checkpoint_keeps_the_record_of_its_training(tmp_path: Path) -> None:
    first, path = trainer(tmp_path), tmp_path / "first.ckpt"
    model = classifier(None)
    first.fit(model, datamodule=Named(**DATA))
    first.save_checkpoint(path)
    kept = torch.load(path, weights_only=True)["images"]
    assert kept == {
        **{"name": "Synthetic", "image_size": 16, "class_names": list(NAMES)},
        **{"mean": [0.5] * 3, "std": [0.25] * 3},
    }
    read = CellClassifier.load_from_checkpoint(path)
    assert read.images == model.images == ImageRecord("Synthetic", 16, (0.5,) * 3, (0.25,) * 3, NAMES)
    assert read.classify(pictures(3)).names == model.classify(pictures(3)).names

    again = tmp_path / "again.ckpt"
    resumed, other = classifier(None), trainer(tmp_path, max_epochs=2)
    other.fit(resumed, loader(), ckpt_path=path, weights_only=False)  # the same training goes on
    other.save_checkpoint(again)
    assert CellClassifier.load_from_checkpoint(again).images == read.images

    other = trainer(tmp_path)
    other.fit(read, loader())  # another training, of whatever these are
    other.save_checkpoint(again)
    assert read.images is None
    assert "images" not in torch.load(again, weights_only=True)


def test_other_numbers_of_classes_are_named_by_what_was_trained() -> None:
    checkpoint = {"state_dict": classifier().state_dict(), "images": RECORD.plain()}
    other = CellClassifier(str(SMALL), num_classes=5, **SIZES)
    with pytest.raises(ValueError, match=r"trained on 4 classes \(ape, bee, cat, dog\), but there are 5$"):
        other.on_load_checkpoint(checkpoint)


def test_a_record_that_is_set_is_kept(tmp_path: Path) -> None:
    model, one = classifier(), trainer(tmp_path)
    one.fit(model, loader())
    one.save_checkpoint(tmp_path / "a.ckpt")
    assert CellClassifier.load_from_checkpoint(tmp_path / "a.ckpt").images == RECORD
    wrong = classifier(ImageRecord("Zoo", 16, MEAN, (0.0, 1.0, 1.0)))
    with pytest.raises(ValueError, match=r"^`images`: `std` \(=\[0\.0, 1\.0, 1\.0\]\) must be three finite"):
        trainer(tmp_path).fit(wrong, loader())


def test_a_checkpoint_of_an_earlier_version_asks_its_data(tmp_path: Path) -> None:
    one, path = trainer(tmp_path), tmp_path / "old.ckpt"
    one.fit(classifier(None), datamodule=Named(**DATA))
    one.save_checkpoint(path)
    checkpoint = torch.load(path, weights_only=True)
    del checkpoint["images"]
    for name, found in (
        ("nas_lightning.datamodules.synthetic.Synthetic", record_of(Synthetic(**DATA))),
        (f"{__name__}.Named", record_of(Named(**DATA))),
        (f"{__name__}.Odd", None),
        (f"{__name__}.gone", None),
        ("gone.Data", None),
        (3, None),
    ):
        checkpoint["datamodule_hyper_parameters"] = {**DATA, "_class_path": name}
        torch.save(checkpoint, path)
        assert CellClassifier.load_from_checkpoint(path).images == found
    assert record_of(Named(**DATA)) != record_of(Synthetic(**DATA)) is not None


def test_own_data_may_have_anything_for_a_record() -> None:
    data = Named(**DATA)
    data.mean, data.std = torch.full((3,), 0.5), np.full(3, 0.25, np.float32)  # type: ignore[assignment]
    assert record_of(data) == record_of(Named(**DATA))
    data.class_names = ("a", "b")
    assert record_of(data) == record_of(Synthetic(**DATA))
    del data.mean  # known after setup
    Named.mean, kept = None, Named.__dict__.get("mean")  # type: ignore[assignment]
    try:
        assert record_of(data) is None
    finally:
        del Named.mean
    assert kept is None
    assert record_of(Odd(**DATA)) is None
    assert record_of("data") is None


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("name", 3, "`name` (=3) must be text"),
        ("image_size", 10**30, "must be from 1 to"),
        ("image_size", True, "`image_size` (=True) must be"),
        ("image_size", "32", "`image_size` (='32') must be"),
        ("mean", [0.5, 0.5], "`mean` (=[0.5, 0.5]) must be three finite numbers"),
        ("mean", [0.5, 0.5, float("nan")], "must be three finite numbers"),
        ("mean", {"a": 1}, "must be three finite numbers"),
        ("std", [0.5, 0.5, 0], "must be three finite numbers above 0"),
        ("std", [0.5, 0.5, 10**400], "must be three finite numbers above 0"),
        ("class_names", "abcd", "`class_names` (='abcd') must be a list of names, or None"),
        ("class_names", ["a", 1, "c", "d"], "must be a list of names"),
        ("class_names", ["a", "b"], "`class_names` has 2 names, but there are 4 classes"),
    ],
)
def test_a_damaged_record_is_refused_by_what_is_odd(key: str, value: object, said: str) -> None:
    assert read_image_record(RECORD.plain(), 4) == RECORD
    with pytest.raises(ValueError, match=r"^the checkpoint's `images`: ") as caught:
        read_image_record({**RECORD.plain(), key: value}, 4)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_record_that_is_none_or_lacks_something_is_refused() -> None:
    assert read_image_record({**RECORD.plain(), "later": 3}) == RECORD
    with pytest.raises(ValueError, match="must be a mapping, not of type list"):
        read_image_record([1])
    for key in RECORD.plain():
        with pytest.raises(ValueError, match=f"`{key}` is missing"):
            read_image_record({name: value for name, value in RECORD.plain().items() if name != key})


def test_a_damaged_record_is_refused_with_its_file(tmp_path: Path) -> None:
    one, path = trainer(tmp_path), tmp_path / "odd.ckpt"
    one.fit(classifier(), loader())
    one.save_checkpoint(path)
    checkpoint = torch.load(path, weights_only=True)
    for key, value in (("std", [0, 0, 0]), ("class_names", ["a"])):
        torch.save({**checkpoint, "images": {**checkpoint["images"], key: value}}, path)
        with pytest.raises(ValueError, match=f"the checkpoint's `images`: `{key}`"):
            CellClassifier.load_from_checkpoint(path)


def test_a_checkpoint_of_a_gpu_loads_where_there_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, path = trainer(tmp_path), tmp_path / "gpu.ckpt"
    one.fit(classifier(), loader())
    with monkeypatch.context() as patch:
        patch.setattr(torch.serialization, "location_tag", lambda storage: "cuda:3")
        one.save_checkpoint(path)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available: None)
    model = CellClassifier.load_from_checkpoint(path)
    assert model.device.type == "cpu"
    assert len(model.classify(pictures(3)).names) == 3
    if not torch.cuda.is_available():
        with pytest.raises(RuntimeError, match="CUDA"):
            torch.load(path, weights_only=True)  # the file is as that of a GPU


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_predictions_on_a_gpu_are_those_of_the_cpu() -> None:
    images, model = pictures(7), classifier()
    expected = model.classify(images)
    found = model.cuda().classify(images, batch_size=3)
    assert found.probabilities.device.type == "cpu"
    torch.testing.assert_close(found.probabilities, expected.probabilities, rtol=1e-2, atol=1e-3)


def test_classes_without_names_of_their_own_have_numbers() -> None:
    assert class_labels(NAMES, 4) == list(NAMES)
    assert class_labels(NAMES, 3) == class_labels(None, 3) == ["0", "1", "2"]
    assert class_labels(["crane", "ape", "crane"], 3) == ["crane (0)", "ape", "crane (2)"]


def test_the_files_of_a_folder_are_listed_however_it_is_named(tmp_path: Path) -> None:
    for name in ("b.png", "a.png", "notes.txt"):
        opened(pictures(1)[0]).save(tmp_path / name, "png")
    files = [tmp_path / "a.png", tmp_path / "b.png"]
    for folder in (tmp_path, str(tmp_path), [str(tmp_path)]):
        assert image_files(folder) == files
    with pytest.raises(FileNotFoundError, match="neither a file nor a folder"):
        image_files("nowhere.png")
