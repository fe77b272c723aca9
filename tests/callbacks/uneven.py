"""Uneven: four classes, most images in the first, and no test image of the last."""

from typing import ClassVar

import torch

from nas_lightning.datamodules import ImageDataModule
from nas_lightning.datamodules.base import LabelledImages, OfficialSplit


class Uneven(ImageDataModule):
    """Noise around a grey of each class."""

    name = "Uneven"
    num_classes = 4
    image_size = 16
    mean = (0.5, 0.5, 0.5)
    std = (0.25, 0.25, 0.25)
    class_names = ("cat", "dog", "newt", "yak")
    counts: ClassVar = {"train": (24, 12, 6, 6), "test": (11, 5, 3, 0)}

    def load_split(self, split: OfficialSplit) -> LabelledImages:
        """Make the images of one split."""
        targets = torch.arange(4).repeat_interleave(torch.tensor(self.counts[split]))
        generator = torch.Generator().manual_seed(len(split))
        noise = torch.randint(0, 160, (len(targets), 3, 16, 16), generator=generator)
        return (noise + 20 * targets[:, None, None, None]).to(torch.uint8), targets
