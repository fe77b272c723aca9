"""Stratified division of a data set in two."""

from __future__ import annotations

import torch
from jaxtyping import Int64
from torch import Tensor


def stratified_split(
    targets: Int64[Tensor, " count"], held_out: int, seed: int
) -> tuple[Int64[Tensor, " kept"], Int64[Tensor, " held_out"]]:
    """Divide a data set in two so that the classes have the same shares in both parts.

    Args:
        targets: Class of each image.
        held_out: Size of the second part.
        seed: Seed of scikit-learn's ``train_test_split``.

    Returns:
        Positions of the first and of the second part, each in ascending order.

    Raises:
        ValueError: If a part is smaller than one image per class, or a class has a single image.
    """
    from sklearn.model_selection import train_test_split  # takes a second to import

    counts = torch.bincount(targets)
    classes = int((counts > 0).sum())
    kept = len(targets) - held_out
    if min(held_out, kept) < classes:
        raise ValueError(
            f"{kept} images are kept and {held_out} held out of {len(targets)}, and each part needs at "
            f"least one for each of the {classes} classes"
        )
    if int(counts[counts > 0].min()) < 2:
        single = int(counts.eq(1).nonzero()[0])
        raise ValueError(f"class {single} has a single image, and each part needs one")
    first, second = train_test_split(
        torch.arange(len(targets)).numpy(), test_size=held_out, stratify=targets.numpy(), random_state=seed
    )
    return torch.from_numpy(first).sort().values, torch.from_numpy(second).sort().values
