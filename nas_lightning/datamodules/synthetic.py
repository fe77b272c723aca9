"""Synthetic: seeded images of any size and number, for tests and benchmarks."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

from nas_lightning.datamodules.base import ImageDataModule, LabelledImages, OfficialSplit
from nas_lightning.datamodules.checks import check_integer
from nas_lightning.datamodules.sampling import derive_seed


class Synthetic(ImageDataModule):
    """Each class has a smooth random pattern; an image is its class's pattern with noise on every pixel.

    Classes take turns, so the splits are balanced. The images depend on the four sizes only, not on ``seed``,
    which orders and augments them.

    Args:
        num_classes: Number of classes.
        image_size: Height and width in pixels.
        train_size: Images in the training split.
        test_size: Images in the test split.
        **kwargs: As in ImageDataModule; ``root`` is not used.

    Raises:
        ValueError: If a size is not positive.
    """

    name = "Synthetic"
    mean = (0.5, 0.5, 0.5)
    std = (0.25, 0.25, 0.25)

    def __init__(
        self,
        num_classes: int = 10,
        image_size: int = 32,
        train_size: int = 512,
        test_size: int = 128,
        **kwargs: Any,
    ) -> None:
        sizes = {
            "num_classes": num_classes,
            "image_size": image_size,
            "train_size": train_size,
            "test_size": test_size,
        }
        for key, value in sizes.items():
            check_integer(key, value, minimum=1)
        self.num_classes = num_classes
        self.image_size = image_size
        self.train_size = train_size
        self.test_size = test_size
        super().__init__(**kwargs)
        self.save_hyperparameters(*sizes, logger=False)

    def load_split(self, split: OfficialSplit) -> LabelledImages:
        """Make the images of one split."""
        patterns = _generator("patterns", self.num_classes, self.image_size)
        coarse = torch.rand(self.num_classes, 3, 4, 4, generator=patterns) * 191 + 32
        smooth = functional.interpolate(coarse, size=self.image_size, mode="bilinear", align_corners=False)

        count = self.train_size if split == "train" else self.test_size
        targets = torch.arange(count) % self.num_classes
        noise = _generator(f"{split} noise", self.num_classes, self.image_size)
        shape = (count, 3, self.image_size, self.image_size)
        offsets = torch.randint(-32, 33, shape, generator=noise, dtype=torch.int16)
        images = smooth.round().to(torch.int16)[targets].add_(offsets)
        return images.clamp_(0, 255).to(torch.uint8), targets


def _generator(purpose: str, *numbers: int) -> torch.Generator:
    return torch.Generator().manual_seed(derive_seed(purpose, *numbers))
