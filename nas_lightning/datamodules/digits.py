"""Digits: handwritten digits, the embedded data set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional

from nas_lightning.datamodules.base import ImageDataModule, LabelledImages, OfficialSplit

FILE = Path(__file__).with_name("digits.npz")
"""Levels ``[1797, 8, 8]``, classes, and the positions of the 360 test images."""


class Digits(ImageDataModule):
    """1,797 real handwritten digits, 1,437 for training and 360 for testing; needs no network.

    The 8x8 grey images (levels 0 .. 16) are scaled to 32x32 bilinearly and repeated in three channels. The
    split is fixed and stratified by class. Digits are cropped but not mirrored: a mirrored digit is another
    sign. Arguments as in ImageDataModule; ``root`` is not used. The images are scikit-learn's
    ``load_digits``, in a file of our own: importing it would delay a run by a second.

    Source: E. Alpaydin and C. Kaynak, "Optical recognition of handwritten digits", UCI repository (1998), its
    test part.
    """

    name = "Digits"
    num_classes = 10
    image_size = 32
    # Of the scaled training images.
    mean = (0.3054, 0.3054, 0.3054)
    std = (0.3237, 0.3237, 0.3237)
    horizontal_flip = False

    def load_split(self, split: OfficialSplit) -> LabelledImages:
        """Read the digits of one split from the package's own file."""
        with np.load(FILE) as digits:
            rows = np.isin(np.arange(len(digits["targets"])), digits["test"], invert=split == "train")
            levels = torch.from_numpy(digits["levels"][rows]).to(torch.float32)
            targets = torch.from_numpy(digits["targets"][rows]).to(torch.int64)
        return scale_digits(levels, self.image_size), targets


def scale_digits(levels: Float[Tensor, "count 8 8"], size: int = 32) -> UInt8[Tensor, "count 3 size size"]:
    """Scale 8x8 images of levels 0 .. 16 to pixel values 0 .. 255 of the given size, in three channels.

    At size 32 the bilinear weights are multiples of 1/64, so the float32 arithmetic is exact and the result
    the same on every machine.
    """
    scaled = functional.interpolate(levels[:, None], size=size, mode="bilinear", align_corners=False)
    grey = (scaled * 255 / 16).round().to(torch.uint8)
    return grey.expand(-1, 3, -1, -1).contiguous()
