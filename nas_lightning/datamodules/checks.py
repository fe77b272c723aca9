"""Checks of arguments and data, with errors of one line."""

from __future__ import annotations

import torch
from torch import Tensor


def check_integer(name: str, value: object, *, minimum: int) -> None:
    """Refuse a value of the argument ``name`` that is not an integer of at least ``minimum``.

    Raises:
        ValueError: If it is something else.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
        raise ValueError(f"`{name}` (={value!r}) must be an integer of at least {minimum}")


def check_images(what: str, images: Tensor, targets: Tensor, image_size: int, num_classes: int) -> None:
    """Refuse a split that does not hold uint8 colour images of one size and their classes.

    Raises:
        ValueError: If they are something else.
    """
    expected = (len(targets), 3, image_size, image_size)
    if images.dtype != torch.uint8 or tuple(images.shape) != expected:
        raise ValueError(
            f"{what}: images of type {images.dtype} and shape {tuple(images.shape)}, "
            f"expected torch.uint8 and {expected}"
        )
    if len(targets) == 0:
        raise ValueError(f"{what}: no images")
    if int(targets.min()) < 0 or int(targets.max()) >= num_classes:
        raise ValueError(
            f"{what}: classes {int(targets.min())} .. {int(targets.max())}, expected 0 .. {num_classes - 1}"
        )
