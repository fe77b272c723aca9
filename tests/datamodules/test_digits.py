from __future__ import annotations

import hashlib
from typing import Literal

import pytest
import torch
from sklearn.datasets import load_digits

from nas_lightning.datamodules import Digits, Synthetic
from nas_lightning.datamodules.digits import scale_digits
from nas_lightning.datamodules.sampling import stratified_split

SIZES: dict[Literal["train", "test"], int] = {"train": 1437, "test": 360}


@pytest.fixture(scope="module")
def digits() -> Digits:
    data = Digits()
    data.prepare_data()
    data.setup()
    return data


def test_sizes_classes_and_shares(digits: Digits) -> None:
    assert digits.split_sizes == {"train": 1437, "test": 360}
    for split, size in SIZES.items():
        images, targets = digits.split_arrays(split)
        assert images.shape == (size, 3, 32, 32)
        assert (images.dtype, targets.dtype) == (torch.uint8, torch.int64)
        whole = torch.bincount(torch.from_numpy(load_digits().target))
        assert (torch.bincount(targets) - whole * size / 1797).abs().max() <= 1


def test_images_are_scikit_learn_s_split_by_class(digits: Digits) -> None:
    whole = load_digits()
    parts = stratified_split(torch.from_numpy(whole.target), SIZES["test"], seed=0)
    for split, rows in zip(SIZES, parts, strict=True):
        images, targets = digits.split_arrays(split)
        assert torch.equal(images, scale_digits(torch.from_numpy(whole.images[rows]).float()))
        assert torch.equal(targets, torch.from_numpy(whole.target[rows]))


def test_split_is_fixed_whatever_the_seed(digits: Digits) -> None:
    other = Digits(seed=9, validation_seed=9)
    other.setup()
    assert torch.equal(other.split_arrays("test")[0], digits.split_arrays("test")[0])
    images, targets = digits.split_arrays("test")
    content = images.numpy().tobytes() + targets.numpy().tobytes()
    # Of the split as first published: another one would make results incomparable.
    assert hashlib.sha256(content).hexdigest()[:16] == "655feefe016a860f"


def test_constants_are_the_statistics_of_the_training_split(digits: Digits) -> None:
    values = digits.split_arrays("train")[0].double() / 255
    assert values.mean((0, 2, 3)).tolist() == pytest.approx(digits.mean, abs=5e-5)
    assert values.std((0, 2, 3), correction=0).tolist() == pytest.approx(digits.std, abs=5e-5)


def test_scaling_keeps_grey_levels_and_their_mean() -> None:
    levels = torch.arange(17, dtype=torch.float32)[:, None, None].expand(-1, 8, 8)
    scaled = scale_digits(levels)
    assert scaled[:, 0, 0, 0].tolist() == [round(level * 255 / 16) for level in range(17)]
    digits = torch.from_numpy(load_digits().images).float()
    scaled = scale_digits(digits)
    assert torch.equal(scaled[:, 0], scaled[:, 2])
    # Bilinear scaling by 4: away from the border every level spreads 16 pixels of its own weight.
    inner = digits.clone()
    inner[:, [0, -1]] = 0
    inner[:, :, [0, -1]] = 0
    means = scale_digits(inner)[:, 0].float().mean((1, 2))
    torch.testing.assert_close(means, inner.mean((1, 2)) * 255 / 16, rtol=0, atol=0.1)


def test_digits_are_cropped_but_not_mirrored(digits: Digits) -> None:
    sampler_epoch = digits.train_dataloader()
    batch = next(iter(sampler_epoch))
    images = digits.transfer_batch_to_device(batch, torch.device("cpu"), 0).images
    inputs, _ = digits.on_after_batch_transfer(
        digits.transfer_batch_to_device(batch, torch.device("cpu"), 0), 0
    )
    padded = torch.nn.functional.pad(images, (4,) * 4)
    for image, result in zip(padded, inputs, strict=True):
        windows = image.unfold(1, 32, 1).unfold(2, 32, 1).permute(1, 2, 0, 3, 4).flatten(0, 1)
        assert (digits.normalise(windows) == result).flatten(1).all(1).any()


def test_synthetic_is_balanced_seeded_and_learnable() -> None:
    data, again = Synthetic(train_size=200, seed=1, batch_size=8), Synthetic(train_size=200, batch_size=8)
    data.setup()
    again.setup()
    images, targets = data.split_arrays("train")
    assert torch.equal(images, again.split_arrays("train")[0])
    assert torch.bincount(targets).tolist() == [20] * 10
    test_images, test_targets = data.split_arrays("test")
    centres = torch.stack([images[targets == c].float().mean(0) for c in range(10)]).flatten(1)
    nearest = torch.cdist(test_images.float().flatten(1), centres).argmin(1)
    assert torch.equal(nearest, test_targets)


@pytest.mark.parametrize("key", ["num_classes", "image_size", "train_size", "test_size"])
def test_synthetic_refuses_sizes_under_one(key: str) -> None:
    with pytest.raises(ValueError, match=rf"`{key}` \(=0\) must be an integer of at least 1"):
        Synthetic(**{key: 0})
