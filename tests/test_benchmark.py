"""The plain contestant of the benchmark is the paper's pipeline, fairly run."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from benchmarks.training import PlainImages
from nas_lightning.datamodules import Synthetic


def plain_batches(images: PlainImages) -> list[Tensor]:
    return [inputs for inputs, _ in DataLoader(images, batch_size=4, num_workers=2)]


def test_workers_augment_differently_and_repeatably() -> None:
    data = Synthetic(train_size=8, test_size=1, image_size=8, batch_size=4, cutout=4)
    data.setup()
    images = PlainImages(data)
    images.images[:] = images.images[0]  # what differs now is the augmentation
    first, second = plain_batches(images)  # one batch of each worker
    assert not torch.equal(first, second)
    assert not torch.equal(first[0], first[1])
    for batch, again in zip((first, second), plain_batches(images), strict=True):
        assert torch.equal(batch, again)
