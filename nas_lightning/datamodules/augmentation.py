"""The paper's augmentation on whole batches: zero-pad, random crop, flip, normalise, cutout.

The per-image pipeline of Shu et al. (ICLR 2020, appendix A.3) and of Liu et al. (ICLR 2019) is, in this
order: pad with zeros, crop at a random offset, flip, scale to [0, 1], normalise, cutout. The functions here
do the same to a batch on its device, without a loop over images. The random numbers are drawn once an epoch,
on the CPU, for every image of the split, and applied later. What happens to an image therefore depends on the
seed, the epoch and the image only, not on the device, the number of ranks or the order of the batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64, Integer, UInt8
from torch import Tensor
from torch.nn import functional

BLOCK = 2**20
"""Images whose random numbers are drawn at once."""


class AugmentationDraws(NamedTuple):
    """The random numbers of an augmentation, one entry per image.

    Those of a whole split are kept in the smallest types that hold them: some 5 bytes an image.

    Attributes:
        top: Row offset of the crop in the padded image, in 0 .. 2 * padding.
        left: Column offset of the crop in the padded image, in 0 .. 2 * padding.
        flip: Whether the cropped image is mirrored left to right.
        centre_row: Row of the centre of the cutout square, in 0 .. size - 1.
        centre_column: Column of the centre of the cutout square, in 0 .. size - 1.
    """

    top: Integer[Tensor, " batch"]
    left: Integer[Tensor, " batch"]
    flip: Bool[Tensor, " batch"]
    centre_row: Integer[Tensor, " batch"]
    centre_column: Integer[Tensor, " batch"]

    def select(self, indices: Int64[Tensor, " selected"]) -> AugmentationDraws:
        """Draws of the images at ``indices``, the numbers in int64."""
        chosen = (draw[indices] for draw in self)
        return AugmentationDraws(*(draw if draw.dtype == torch.bool else draw.long() for draw in chosen))

    def to(self, device: torch.device) -> AugmentationDraws:
        """The same draws on ``device``."""
        return AugmentationDraws(*(draw.to(device) for draw in self))


def draw_augmentation(
    count: int, image_size: int, generator: torch.Generator, *, padding: int = 4, flip: bool = True
) -> AugmentationDraws:
    """Draw independent uniform offsets, flips and cutout centres.

    The same numbers are drawn whatever is switched on, so that switching the flip or cutout on leaves the
    crops as they were. The generator is one of the CPU.
    """

    def uniform(bound: int) -> Tensor:
        drawn = torch.empty(count, dtype=torch.uint8 if bound <= 256 else torch.int32)
        for some in torch.split(drawn, BLOCK):
            some.copy_(torch.randint(bound, some.shape, generator=generator))
        return drawn

    top, left, coin = uniform(2 * padding + 1), uniform(2 * padding + 1), uniform(2)
    mirrored = coin.bool() if flip else torch.zeros_like(coin, dtype=torch.bool)
    return AugmentationDraws(top, left, mirrored, uniform(image_size), uniform(image_size))


def crop_and_flip(
    images: UInt8[Tensor, "batch channels size size"],
    top: Integer[Tensor, " batch"],
    left: Integer[Tensor, " batch"],
    flip: Bool[Tensor, " batch"],
    padding: int = 4,
) -> UInt8[Tensor, "batch channels size size"]:
    """Pad every image with zeros, cut its own window out of it, then mirror it where asked.

    Pixel (i, j) of the result is pixel (top + i, left + j) of the padded image, and (top + i, left + size - 1
    - j) where the image is flipped: one gather does both.

    Args:
        images: The batch.
        top: Row offset of each window.
        left: Column offset of each window.
        flip: Whether each window is mirrored left to right.
        padding: Zeros on each side.
    """
    batch, channels, size, _ = images.shape
    padded = functional.pad(images, (padding,) * 4)
    width = size + 2 * padding
    steps = torch.arange(size, device=images.device)
    rows = top[:, None] + steps
    columns = left[:, None] + torch.where(flip[:, None], size - 1 - steps, steps)
    pixels = (rows[:, :, None] * width + columns[:, None, :]).view(batch, 1, size * size)
    flat = padded.view(batch, channels, width * width)
    return flat.gather(2, pixels.expand(batch, channels, -1)).view(batch, channels, size, size)


def normalise(
    images: UInt8[Tensor, "batch channels height width"],
    mean: Sequence[float],
    std: Sequence[float],
    dtype: torch.dtype = torch.float32,
) -> Float[Tensor, "batch channels height width"]:
    """Scale to [0, 1] and normalise each channel: (x / 255 - mean) / std.

    Computed in float32 in the order of torchvision's ``ToTensor`` and ``Normalize``, so that the numbers are
    theirs bit for bit, and converted to ``dtype`` at the end.

    Args:
        images: Pixel values 0 .. 255.
        mean: Mean of each channel over the training split, in [0, 1].
        std: Standard deviation of each channel, in the same unit.
        dtype: Type of the result.
    """
    inputs = images.to(torch.float32).div_(255)
    inputs.sub_(inputs.new_tensor(mean).view(-1, 1, 1)).div_(inputs.new_tensor(std).view(-1, 1, 1))
    return inputs.to(dtype)


def cutout(
    inputs: Float[Tensor, "batch channels height width"],
    centre_row: Integer[Tensor, " batch"],
    centre_column: Integer[Tensor, " batch"],
    length: int,
) -> Float[Tensor, "batch channels height width"]:
    """Set one square of each image to zero, which is the channel mean of normalised inputs.

    The square covers rows centre_row - length // 2 .. centre_row + length // 2 - 1, and columns likewise,
    clipped at the border: its centre, not the square, is uniform over the image. An odd length therefore acts
    as length - 1. Source: DeVries and Taylor, "Improved regularization of convolutional neural networks with
    cutout" (2017), as in their code.

    Args:
        inputs: Normalised images.
        centre_row: Row of the centre of each square.
        centre_column: Column of the centre of each square.
        length: Side of the square in pixels.
    """
    half = length // 2

    def inside(size: int, centre: Tensor) -> Tensor:
        offsets = torch.arange(size, device=inputs.device) - centre[:, None]
        return (offsets >= -half) & (offsets < half)

    rows, columns = inside(inputs.shape[2], centre_row), inside(inputs.shape[3], centre_column)
    return inputs.masked_fill((rows[:, :, None] & columns[:, None, :])[:, None], 0)


def augment(
    images: UInt8[Tensor, "batch channels size size"],
    draws: AugmentationDraws,
    mean: Sequence[float],
    std: Sequence[float],
    *,
    padding: int = 4,
    cutout_length: int = 0,
    dtype: torch.dtype = torch.float32,
) -> Float[Tensor, "batch channels size size"]:
    """The whole pipeline: zero-pad, crop, flip, normalise, cutout."""
    cropped = crop_and_flip(images, draws.top, draws.left, draws.flip, padding)
    inputs = normalise(cropped, mean, std, dtype)
    return cutout(inputs, draws.centre_row, draws.centre_column, cutout_length) if cutout_length else inputs
