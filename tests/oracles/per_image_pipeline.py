"""The paper's pipeline for one image at a time, with PIL and NumPy: slow and obvious."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps


def augment_image(
    image: NDArray[np.uint8],
    *,
    top: int,
    left: int,
    flip: bool,
    centre: tuple[int, int],
    padding: int,
    length: int,
    mean: Sequence[float],
    std: Sequence[float],
) -> NDArray[np.float32]:
    """Pad, crop, flip, to [0, 1], normalise, cutout; image and result of shape [3, size, size]."""
    size = image.shape[1]
    picture = Image.fromarray(image.transpose(1, 2, 0))
    picture = ImageOps.expand(picture, border=padding, fill=(0, 0, 0))
    picture = picture.crop((left, top, left + size, top + size))
    if flip:
        picture = ImageOps.mirror(picture)
    values = np.asarray(picture, dtype=np.float32).transpose(2, 0, 1) / np.float32(255)
    values = (values - np.array(mean, np.float32)[:, None, None]) / np.array(std, np.float32)[:, None, None]
    return values * cutout_mask(size, centre, length)


def cutout_mask(size: int, centre: tuple[int, int], length: int) -> NDArray[np.float32]:
    """Ones with a square of zeros around the centre, clipped at the border."""
    row, column = centre
    mask = np.ones((size, size), np.float32)
    top, bottom = (int(np.clip(row + step, 0, size)) for step in (-(length // 2), length // 2))
    left, right = (int(np.clip(column + step, 0, size)) for step in (-(length // 2), length // 2))
    mask[top:bottom, left:right] = 0
    return mask
