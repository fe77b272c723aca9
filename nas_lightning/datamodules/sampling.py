"""Which images make up which split and batch: a stratified division, samplers, a loader of indices.

Both samplers are torch's DistributedSampler, in a single process too. Lightning keeps such a sampler and
tells it the epoch before it is iterated, also after a resume, so the order depends on the seed and the epoch
only.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Int64
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.distributed import DistributedSampler

from nas_lightning.datamodules.threads import prepared_ahead


class IndexBatch(NamedTuple):
    """What a loader yields: positions in a split. The images stay where they are.

    Attributes:
        split: ``"train"``, ``"val"`` or ``"test"``.
        epoch: Epoch whose augmentation the batch gets; None for evaluation, without augmentation.
        indices: Positions in the split; -1 is padding.
    """

    split: str
    epoch: int | None
    indices: Int64[Tensor, " batch"]


class ImageBatch(NamedTuple):
    """An IndexBatch with its images, on the device or on their way to it.

    Attributes:
        source: The batch of indices.
        images: Pixel values of shape [batch, channels, height, width], uint8.
        targets: Class of each image, int64; -1 for padding.
    """

    source: IndexBatch
    images: Tensor
    targets: Tensor

    def each(self, change: Callable[[Tensor], Tensor]) -> ImageBatch:
        """The batch with each of its tensors changed."""
        source = self.source._replace(indices=change(self.source.indices))
        return ImageBatch(source, change(self.images), change(self.targets))


class Positions(Dataset[int]):
    """The numbers 0 .. count - 1, fetched a batch at a time."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> int:
        return index

    def __getitems__(self, indices: list[int]) -> list[int]:
        return indices


class TrainingSampler(DistributedSampler[int]):
    """A permutation of the split that depends on (seed, epoch); rank r of N takes every N-th position from r.

    The batches of one step of all ranks together are the batch that one process would take: with a global
    batch of B, the union over the ranks of step k is positions k * B .. (k + 1) * B - 1 of the permutation.
    """

    def __init__(self, count: int, *, num_replicas: int, rank: int, seed: int) -> None:
        # Torch adds the epoch to its seed, so neighbouring seeds would share their orders one epoch apart.
        spread = derive_seed("order", seed) % 2**62
        super().__init__(
            Positions(count), num_replicas=num_replicas, rank=rank, shuffle=True, seed=spread, drop_last=True
        )

    def __iter__(self) -> Iterator[int]:
        """Torch's order, without its list of Python integers, which for millions takes hundreds of MB."""
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        order = torch.randperm(len(self.dataset), generator=generator)  # type: ignore[arg-type]
        for some in torch.split(order[self.rank : self.total_size : self.num_replicas], 1024):
            yield from some.tolist()


class EvaluationSampler(DistributedSampler[int]):
    """The positions in order, divided over the ranks, padded with -1 instead of with duplicates.

    Every rank gets the same number of entries, as collective operations need, and no image is counted twice.
    The positions are 0 .. count - 1, or those that are given.
    """

    def __init__(
        self, count: int, *, num_replicas: int, rank: int, positions: Int64[Tensor, " count"] | None = None
    ) -> None:
        super().__init__(Positions(count), num_replicas=num_replicas, rank=rank, shuffle=False)
        self.count = count
        self.positions = range(count) if positions is None else positions.tolist()

    def __iter__(self) -> Iterator[int]:
        """Positions number rank, rank + N, ... and -1 past the end of the split."""
        for number in range(self.rank, self.total_size, self.num_replicas):
            yield self.positions[number] if number < self.count else -1


class IndexLoader(DataLoader[Any]):
    """A loader that goes on where a checkpoint within an epoch was written.

    Its state is the number of batches that it gave in the epoch, whatever is prepared ahead. Lightning makes
    the iterator before the sampler knows the epoch, so the order is drawn when the first batch is asked for.

    Args:
        *args: As of a DataLoader.
        prepare: Makes what the loader gives of an IndexBatch, ahead and in a thread; None gives the
            IndexBatch.
        **kwargs: As of a DataLoader.
    """

    _given = 0
    _skipped = 0

    def __init__(
        self, *args: Any, prepare: Callable[[IndexBatch], ImageBatch] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.prepare = prepare

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        """The batches, without those that were given before the checkpoint."""
        skipped, self._skipped = self._skipped, 0
        return self._batches(skipped)

    def _batches(self, skipped: int) -> Iterator[Any]:
        self._given = skipped
        batches = islice(super().__iter__(), skipped, None)
        for batch in batches if self.prepare is None else prepared_ahead(batches, self.prepare):
            self._given += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Number of batches given in this epoch; 0 at its end."""
        return {"batches": self._given % max(len(self), 1)}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Skip the batches that were given before the checkpoint, once."""
        self._skipped = int(state["batches"])


def index_loader(
    split: str,
    sampler: TrainingSampler | EvaluationSampler,
    batch_size: int,
    prepare: Callable[[IndexBatch], ImageBatch] | None = None,
) -> IndexLoader:
    """A loader of IndexBatches, or of what ``prepare`` makes of them.

    It drops an incomplete batch in training and keeps it in evaluation.
    """
    warnings.filterwarnings("ignore", ".*does not have many workers which may be a bottleneck.*")
    training = isinstance(sampler, TrainingSampler)

    def collate(positions: list[int]) -> IndexBatch:
        epoch = int(sampler.epoch) if training else None
        return IndexBatch(split, epoch, torch.tensor(positions, dtype=torch.int64))

    return IndexLoader(
        sampler.dataset,
        batch_size=batch_size,
        sampler=sampler,
        drop_last=training,
        collate_fn=collate,
        num_workers=0,  # indices give workers nothing to do
        prepare=prepare,
    )


def derive_seed(purpose: str, *numbers: int) -> int:
    """A 64-bit seed for one purpose, independent of the seeds of other purposes and numbers."""
    entropy = (*purpose.encode(), *numbers)
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64).view(np.int64)[0])


def stratified_subset(targets: Int64[Tensor, " count"], size: int, seed: int) -> Int64[Tensor, " size"]:
    """Positions, rising, of a random subset in which the classes have the shares that they have in all.

    A class of n among N images gets size * n / N of them, rounded down; the largest remainders get the rest,
    equal ones in random order.
    """
    random = np.random.default_rng(np.random.SeedSequence((*b"subset", seed)))
    labels = targets.numpy()
    classes, counts = np.unique(labels, return_counts=True)
    exact = size * counts / len(labels)
    quotas = np.floor(exact).astype(int)
    order = np.lexsort((random.permutation(len(classes)), -(exact - quotas)))
    quotas[order[: size - quotas.sum()]] += 1
    chosen = [
        random.permutation(np.flatnonzero(labels == label))[:quota]
        for label, quota in zip(classes, quotas, strict=True)
    ]
    return torch.from_numpy(np.sort(np.concatenate(chosen)))


def stratified_split(
    targets: Int64[Tensor, " count"], held_out: int, seed: int, names: Sequence[str] | None = None
) -> tuple[Int64[Tensor, " kept"], Int64[Tensor, " held_out"]]:
    """Divide a data set in two so that the classes have the same shares in both parts.

    The parts are those of scikit-learn's ``train_test_split``, which takes some 50 bytes more for each image.
    Messages call the classes by ``names``, or by their numbers.

    Raises:
        ValueError: If a part is smaller than one image per class, or a class has a single image.
    """
    labels = targets.numpy()
    classes, counts = np.unique(labels, return_counts=True)
    kept = len(labels) - held_out
    if counts.min() < 2:
        single = int(classes[counts.argmin()])
        raise ValueError(f"class {single if names is None else names[single]} has a single image")
    for part, size in (("held-out", held_out), ("remaining", kept)):
        if size < len(classes):
            raise ValueError(f"the {part} part has {size} images, fewer than the {len(classes)} classes")
    random = np.random.RandomState(seed)
    in_kept = _shares(counts, kept, random)
    in_held_out = _shares(counts - in_kept, held_out, random)
    parts: tuple[list[Any], list[Any]] = ([], [])
    members = np.split(np.argsort(labels, kind="stable"), np.cumsum(counts)[:-1])
    for positions, first, second in zip(members, in_kept, in_held_out, strict=True):
        shuffled = positions[random.permutation(len(positions))]
        parts[0].append(shuffled[:first])
        parts[1].append(shuffled[first : first + second])
    first, second = (torch.from_numpy(np.sort(np.concatenate(part))) for part in parts)
    return first, second


def _shares(counts: NDArray[np.int64], size: int, random: np.random.RandomState) -> NDArray[np.int64]:
    """How many of ``size`` images each class gets: its share rounded down, and one more by the remainder.

    The largest remainders come first; among equal ones, those that do not all fit are drawn.
    """
    exact = counts / counts.sum() * size
    shares: NDArray[np.float64] = np.floor(exact)
    remainders = exact - shares
    missing = int(size - shares.sum())
    for remainder in np.unique(remainders)[::-1]:
        if missing == 0:
            break
        equal = np.flatnonzero(remainders == remainder)
        chosen = random.choice(equal, size=min(len(equal), missing), replace=False)
        shares[chosen] += 1
        missing -= len(chosen)
    return shares.astype(np.int64)
