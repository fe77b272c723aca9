from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor

from nas_lightning.datamodules import CIFAR10, TinyImageNet, augmentation
from nas_lightning.datamodules.augmentation import (
    AugmentationDraws,
    augment,
    crop_and_flip,
    cutout,
    draw_augmentation,
    normalise,
)
from tests.oracles.per_image_pipeline import augment_image, cutout_mask


def random_images(count: int, size: int) -> Tensor:
    return torch.randint(0, 256, (count, 3, size, size), generator=torch.Generator().manual_seed(0)).to(
        torch.uint8
    )


@pytest.mark.parametrize(("size", "length"), [(32, 0), (32, 16), (64, 16), (8, 5), (32, 1)])
def test_batch_equals_the_per_image_pipeline_bit_for_bit(size: int, length: int) -> None:
    images = random_images(97, size)
    draws = draw_augmentation(97, size, torch.Generator().manual_seed(1))
    statistics = TinyImageNet if size == 64 else CIFAR10
    inputs = augment(images, draws, statistics.mean, statistics.std, cutout_length=length)
    for index in range(97):
        expected = augment_image(
            images[index].numpy(),
            top=int(draws.top[index]),
            left=int(draws.left[index]),
            flip=bool(draws.flip[index]),
            centre=(int(draws.centre_row[index]), int(draws.centre_column[index])),
            padding=4,
            length=length,
            mean=statistics.mean,
            std=statistics.std,
        )
        np.testing.assert_array_equal(inputs[index].numpy(), expected)


def test_every_offset_and_flip_is_the_right_window() -> None:
    offsets = list(product(range(9), range(9), (False, True)))
    image = random_images(1, 32)
    top, left, flip = (torch.tensor(column) for column in zip(*offsets, strict=True))
    windows = crop_and_flip(image.expand(len(offsets), -1, -1, -1), top, left, flip)
    padded = np.pad(image[0].numpy(), ((0, 0), (4, 4), (4, 4)))
    for window, (row, column, mirrored) in zip(windows.numpy(), offsets, strict=True):
        expected = padded[:, row : row + 32, column : column + 32]
        np.testing.assert_array_equal(window, expected[:, :, ::-1] if mirrored else expected)


@pytest.mark.parametrize("length", [2, 5, 16])
def test_every_cutout_square_is_clipped_at_the_border(length: int) -> None:
    centres = list(product(range(12), range(12)))
    rows, columns = (torch.tensor(column) for column in zip(*centres, strict=True))
    masked = cutout(torch.ones(len(centres), 3, 12, 12), rows, columns, length)
    for image, centre in zip(masked.numpy(), centres, strict=True):
        for channel in image:
            np.testing.assert_array_equal(channel, cutout_mask(12, centre, length))


def assert_uniform(counts: Tensor) -> None:
    """Pearson's chi-square lies within four standard deviations of its mean, k - 1."""
    expected = counts.sum() / len(counts)
    freedom = len(counts) - 1
    statistic = float(((counts - expected) ** 2 / expected).sum())
    assert abs(statistic - freedom) < 4 * (2 * freedom) ** 0.5


def test_draws_are_uniform_and_independent() -> None:
    count = 60_000
    draws = draw_augmentation(count, 32, torch.Generator().manual_seed(3)).select(torch.arange(count))
    columns = {
        "top": (draws.top, 9),
        "left": (draws.left, 9),
        "flip": (draws.flip.long(), 2),
        "centre_row": (draws.centre_row, 32),
        "centre_column": (draws.centre_column, 32),
    }
    for values, bound in columns.values():
        observed = torch.bincount(values, minlength=bound)
        assert len(observed) == bound
        assert_uniform(observed)
    for (name, (first, bound)), (other, (second, other_bound)) in product(columns.items(), columns.items()):
        if name < other:
            table = torch.bincount(first * other_bound + second, minlength=bound * other_bound)
            assert_uniform(table)


def test_draws_are_kept_small_and_do_not_depend_on_how_many_are_drawn_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    generator = torch.Generator().manual_seed(3)
    expected = [torch.randint(bound, (1000,), generator=generator) for bound in (9, 9, 2, 300, 300)]
    monkeypatch.setattr(augmentation, "BLOCK", 7)
    draws = draw_augmentation(1000, 300, torch.Generator().manual_seed(3))
    assert [draw.dtype.itemsize for draw in draws] == [1, 1, 1, 4, 4]
    for found, numbers in zip(draws.select(torch.arange(1000)), expected, strict=True):
        assert torch.equal(found.long(), numbers)


def test_draws_do_not_change_with_what_is_switched_on() -> None:
    flipped = draw_augmentation(50, 32, torch.Generator().manual_seed(5))
    unflipped = draw_augmentation(50, 32, torch.Generator().manual_seed(5), flip=False)
    assert flipped.flip.any()
    assert not unflipped.flip.any()
    assert torch.equal(flipped.top, unflipped.top)
    assert torch.equal(flipped.centre_column, unflipped.centre_column)


def test_no_offset_no_flip_no_cutout_is_plain_normalisation() -> None:
    images = random_images(5, 32)
    middle, none = torch.full((5,), 4), torch.zeros(5, dtype=torch.bool)
    draws = AugmentationDraws(middle, middle, none, middle, middle)
    inputs = augment(images, draws, CIFAR10.mean, CIFAR10.std)
    assert torch.equal(inputs, normalise(images, CIFAR10.mean, CIFAR10.std))


def test_normalise_keeps_the_batch_and_gives_the_type_asked_for() -> None:
    images = random_images(4, 32)
    before = images.clone()
    inputs = normalise(images, CIFAR10.mean, CIFAR10.std, torch.float64)
    assert inputs.dtype == torch.float64
    assert torch.equal(images, before)
    mean, std = torch.tensor(CIFAR10.mean).view(3, 1, 1), torch.tensor(CIFAR10.std).view(3, 1, 1)
    torch.testing.assert_close(inputs, ((images.double() / 255 - mean) / std), rtol=0, atol=1e-6)


def test_cutout_leaves_its_input_alone() -> None:
    inputs = torch.ones(2, 3, 8, 8)
    centre = torch.tensor([4, 4])
    assert cutout(inputs, centre, centre, 4).sum() == 2 * 3 * (64 - 16)
    assert inputs.sum() == 2 * 3 * 64
