"""The samples that an analysis reads: a split or a seeded part of it, on the device or from the host."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from jaxtyping import Int64, Shaped, UInt8
from torch import Tensor

from nas_lightning.callbacks.protocols import ImageData

Normalise = Callable[[Tensor, torch.dtype], Tensor]
_AT_ONCE = 1024
"""Samples that are hashed at once."""


@dataclass(frozen=True)
class HostImages:
    """Images that stay where they are, such as in a file that is mapped into memory.

    They are the `rows` of a `source`, all of it with None. A slice is copied to the device.
    """

    source: UInt8[Tensor, "images channels height width"]
    rows: Int64[Tensor, " count"] | None
    device: torch.device

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of images, channels, height and width."""
        return (len(self.source if self.rows is None else self.rows), *self.source.shape[1:])

    def __getitem__(self, span: slice) -> UInt8[Tensor, "part channels height width"]:
        """Some images, on the device."""
        return self.source[span if self.rows is None else self.rows[span]].to(self.device)


@dataclass(frozen=True)
class SplitBatches:
    """Batches of (inputs, targets) without augmentation, iterated as often as needed.

    Images are uint8, a quarter of the memory of float32, and are normalised to `dtype` batch by batch. They
    are on the device where they fit. `first` and `step` choose the batches of one rank.
    """

    inputs: UInt8[Tensor, "count channels height width"] | Shaped[Tensor, "count *_"] | HostImages
    targets: Int64[Tensor, " count"] | Shaped[Tensor, "count *_"]
    split: str
    sample_seed: int
    batch_size: int
    normalise: Normalise
    dtype: torch.dtype
    first: int = 0
    step: int = 1

    def __iter__(self) -> Iterator[tuple[Shaped[Tensor, "batch *_"], Shaped[Tensor, "batch *_"]]]:
        """The batches, in order."""
        stride = self.batch_size * self.step
        for start in range(self.batch_size * self.first, len(self.targets), stride):
            rows = slice(start, start + self.batch_size)
            targets = self.targets[rows]
            targets = targets.to(self.dtype) if targets.is_floating_point() else targets
            yield self.normalise(self.inputs[rows], self.dtype), targets

    def share(self, rank: int, world_size: int) -> SplitBatches:
        """The batches of one rank: every ``world_size``-th from number ``rank``."""
        return replace(self, first=rank, step=world_size)

    def sha256(self) -> str:
        """Hash of the inputs and targets, in their order."""
        digest = hashlib.sha256(repr(tuple(self.inputs.shape)).encode())
        for values in (self.inputs, self.targets):
            for start in range(0, len(self.targets), _AT_ONCE):
                digest.update(values[start : start + _AT_ONCE].cpu().contiguous().numpy().data)
        return digest.hexdigest()


def split_batches(
    data: ImageData,
    split: str,
    *,
    max_samples: int | None,
    sample_seed: int,
    batch_size: int,
    shuffled: bool,
    device: torch.device,
    dtype: torch.dtype,
) -> SplitBatches:
    """Load a split, or part of it, onto a device; where it does not fit, its batches are, one by one.

    `max_samples` images are drawn without replacement by `sample_seed`, all with None. They stay in the
    split's own order unless they are `shuffled`, as estimates from mini-batches need.
    """
    check_split(data, split, max_samples)
    source, targets, rows = data.split_source(split)
    if max_samples is not None or shuffled:
        drawn = draw_rows(data.split_sizes[split], max_samples, sample_seed, shuffled=shuffled)
        rows = drawn if rows is None else rows[drawn]
    images = HostImages(source, rows, device)
    from_host = device.type == "cpu" or data.stays_on_host(math.prod(images.shape), device)
    return SplitBatches(
        images if from_host else images[:],
        (targets if rows is None else targets[rows]).to(device),
        *(split, sample_seed, batch_size, data.normalise, dtype),
    )


def draw_rows(count: int, most: int | None, seed: int, *, shuffled: bool) -> Int64[Tensor, " rows"]:
    """At most ``most`` of ``count`` rows, drawn without replacement; in their own order unless shuffled."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))[:most]
    return order if shuffled else order.sort().values


def check_split(data: ImageData, split: str, max_samples: int | None) -> None:
    """Refuse a split that the data does not have or that is too small."""
    sizes = data.split_sizes
    if split not in sizes:
        raise ValueError(
            f"`split` (={split!r}) must be one of {data.name}'s splits {', '.join(map(repr, sizes))}"
        )
    if max_samples is not None and max_samples > sizes[split]:
        raise ValueError(
            f"`max_samples` (={max_samples}) is more than the {sizes[split]} images of the {split} split of"
            f" {data.name}"
        )
