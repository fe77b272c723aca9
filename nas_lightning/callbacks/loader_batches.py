"""The samples that an analysis reads from a trainer's own loaders."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.trainer.states import RunningStage
from lightning.pytorch.utilities import CombinedLoader, rank_zero_info
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
)

from nas_lightning.callbacks.protocols import ImageData
from nas_lightning.callbacks.split_batches import SplitBatches, check_split, draw_rows, split_batches

FALLBACK = {"test": ("test", "val", "train"), "val": ("val",), "train": ("train",)}
"""Splits that are measured in place of one that a trainer does not have."""
_SAID: WeakKeyDictionary[Trainer, set[str]] = WeakKeyDictionary()
"""Lines that an analysis of a trainer has said, so that the others do not repeat them."""


def read_batches(
    trainer: Trainer,
    split: str,
    *,
    max_samples: int | None,
    sample_seed: int,
    batch_size: int,
    shuffled: bool,
    device: torch.device,
    dtype: torch.dtype,
    few: int | None = None,
) -> SplitBatches:
    """The samples of a split of the trainer's data, or `max_samples` of them drawn by `sample_seed`.

    With `few`, at most that number of them, for a trial; `max_samples` is checked all the same.

    Images of an :class:`~nas_lightning.callbacks.protocols.ImageData` come without augmentation. Any other
    loader of (inputs, targets) is read once, in the order of its data set and through the hooks that
    move a batch to the device, with random numbers from `sample_seed`; of a loader without such an order the
    first `max_samples` are taken.

    Raises:
        ValueError: If the split is not there or too small, or its batches are no pairs of tensors.
    """
    data: object = trainer.datamodule  # type: ignore[attr-defined]
    settings: dict[str, Any] = {"sample_seed": sample_seed, "batch_size": batch_size, "dtype": dtype}
    if isinstance(data, ImageData):
        most = min((count for count in (max_samples, few) if count is not None), default=None)
        settings |= {"max_samples": most, "shuffled": shuffled, "device": device}
        return split_batches(data, split, **settings)
    found, loader = find_loader(trainer, split)
    with _seeded(sample_seed), _evaluating(trainer):
        inputs, targets = _read(trainer, loader, max_samples, few, sample_seed, shuffled)
    return SplitBatches(inputs.to(device), targets.to(device), found, normalise=as_type, **settings)


def check_data(trainer: Trainer, split: str, max_samples: int | None) -> int | None:
    """Refuse a split that the trainer's data do not have or that is too small; its size, if it is known."""
    data: object = trainer.datamodule  # type: ignore[attr-defined]
    if isinstance(data, ImageData):
        check_split(data, split, max_samples)
        return data.split_sizes[split]
    found, loader = find_loader(trainer, split)
    if found != split:
        text = f"the trainer has no {split} loader: analyses of `split` {split!r} measure {found!r}"
        said = _SAID.setdefault(trainer, set())
        if text not in said:  # by another analysis
            said.add(text)
            rank_zero_info(text)
    rows = loader_rows(loader)
    if rows is not None and max_samples is not None and max_samples > len(rows):
        raise ValueError(
            f"`max_samples` (={max_samples}) is more than the {len(rows)} samples of the {found} loader"
        )
    return None if rows is None else len(rows)


def data_name(trainer: Trainer, split: str) -> str:
    """Name of the trainer's data: that of its images, or the class of its data module or data set."""
    data: object = trainer.datamodule  # type: ignore[attr-defined]
    if isinstance(data, ImageData):
        return data.name
    loader = find_loader(trainer, split)[1]
    named = data if data is not None else getattr(loader, "dataset", loader)
    return type(named).__name__


def find_loader(trainer: Trainer, split: str) -> tuple[str, Any]:
    """The name of the split that is read (see :data:`FALLBACK`), and the trainer's loader of it.

    A ValueError if the trainer has neither the split nor one in its place.
    """
    is_validating = trainer.state.fn == "validate"
    loops: dict[str, Any] = {
        "train": trainer.fit_loop,
        "val": trainer.validate_loop if is_validating else trainer.fit_loop.epoch_loop.val_loop,
        "test": trainer.test_loop,
    }
    has = {name: source for name, loop in loops.items() if (source := loop._data_source).is_defined()}
    found = next((name for name in FALLBACK[split] if name in has), None)
    if found is None:
        raise ValueError(
            f"`split` (={split!r}) must be one that the trainer has a loader for:"
            f" {', '.join(map(repr, has)) or 'none'}"
        )
    return found, _first(has[found].dataloader(), found)


def as_type(values: Tensor, dtype: torch.dtype) -> Tensor:
    """Floating-point values in a type; integers as they are."""
    return values.to(dtype) if values.is_floating_point() else values


def _first(loaders: Any, split: str) -> Any:
    """The first of several loaders."""
    while isinstance(loaders, CombinedLoader | Mapping | list | tuple):
        inside = loaders.iterables if isinstance(loaders, CombinedLoader) else loaders
        several = list(inside.values()) if isinstance(inside, Mapping) else inside
        if not isinstance(several, list | tuple):
            return several
        if not several or isinstance(several[0], Tensor) or _is_pair(several[0]):
            return loaders
        if len(several) > 1:
            rank_zero_info(f"analyses measure the first of {len(several)} {split} loaders")
        loaders = several[0]
    return loaders


def loader_rows(loader: Any) -> list[int] | None:
    """Rows of the data set that a loader reads, in the data set's order; None where it has no such order."""
    if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset):
        return None
    if type(loader.batch_sampler) is not BatchSampler:
        return None
    if isinstance(loader.sampler, SubsetRandomSampler):
        return sorted(loader.sampler.indices)
    if isinstance(loader.sampler, SequentialSampler | RandomSampler | DistributedSampler):
        return list(range(len(loader.dataset)))  # type: ignore[arg-type]
    return None


def _read(
    trainer: Trainer,
    loader: Any,
    max_samples: int | None,
    few: int | None,
    sample_seed: int,
    shuffled: bool,
) -> tuple[Tensor, Tensor]:
    """Inputs and targets of a loader, on the CPU."""
    rows = loader_rows(loader)
    most = min((count for count in (max_samples, few) if count is not None), default=None)
    if rows is not None and (most is not None or shuffled):
        rows = [rows[i] for i in draw_rows(len(rows), most, sample_seed, shuffled=shuffled).tolist()]
    elif rows is None and trainer.world_size > 1:
        raise ValueError(
            f"analyses on {trainer.world_size} processes need a DataLoader over a data set with an order:"
            f" every rank reads all of it, and a {type(loader).__name__} of this kind cannot be divided"
        )
    source: Iterable[Any] = loader
    if rows is not None:
        source = DataLoader(
            Subset(loader.dataset, rows), batch_size=loader.batch_size, collate_fn=loader.collate_fn
        )
    # How many samples a loader without an order holds is known only after reading them.
    wanted = most if rows is not None or max_samples is None else max_samples
    pairs, count = [], 0
    for batch in source:
        inputs, targets = labelled_pair(trainer.strategy.batch_to_device(batch, dataloader_idx=0))
        if most is None or count < most:
            pairs.append((inputs.detach().cpu(), targets.detach().cpu()))
        count += len(targets)
        if wanted is not None and count >= wanted:
            break
    if not count:
        raise ValueError("the loader holds no sample")
    if rows is None and max_samples is not None and count < max_samples:
        raise ValueError(f"`max_samples` (={max_samples}) is more than the {count} samples of the loader")
    try:
        inputs, targets = (torch.cat(parts)[:most] for parts in zip(*pairs, strict=True))
    except RuntimeError as error:
        shapes = sorted({str(list(inputs.shape[1:])) for inputs, _ in pairs})
        raise ValueError(f"the samples of the loader differ in shape, {', '.join(shapes)}") from error
    if rows is None and shuffled:
        order = draw_rows(len(targets), None, sample_seed, shuffled=True)
        inputs, targets = inputs[order], targets[order]
    return inputs, targets


def _is_pair(batch: object) -> bool:
    is_pair = isinstance(batch, tuple | list) and len(batch) == 2
    return is_pair and all(isinstance(part, Tensor) and part.ndim > 0 for part in batch)  # type: ignore[attr-defined]


def _kind(batch: object) -> str:
    """Type of a batch, and of its first parts."""
    parts = [type(part).__name__ for part in batch[:4]] if isinstance(batch, tuple | list) else []
    return f"{type(batch).__name__} of {', '.join(parts)}" if parts else type(batch).__name__


def labelled_pair(batch: Any) -> tuple[Tensor, Tensor]:
    """The inputs and targets of a batch; a ValueError if it is no pair of tensors of one length."""
    if not _is_pair(batch) or len(batch[0]) != len(batch[1]):
        raise ValueError(
            f"the loader gives a {_kind(batch)}: analyses need pairs (inputs, targets) of tensors, as many"
            " targets as inputs"
        )
    inputs, targets = batch
    return inputs, targets


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Random numbers from a seed; afterwards those of before go on."""
    with isolate_rng():
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002 - what data sets of others draw from
        random.seed(seed)
        yield


@contextmanager
def _evaluating(trainer: Trainer) -> Iterator[None]:
    """Hooks that move batches see a trainer that validates, so that they do not augment."""
    stage = trainer.state.stage
    try:
        trainer.state.stage = RunningStage.VALIDATING
        yield
    finally:
        trainer.state.stage = stage


def labelled_images(batch: Any, num_classes: int) -> tuple[Tensor, Tensor]:
    """The images and the classes of a batch of any loader; refuses another one in a line."""
    if not _is_pair(batch):
        raise ValueError(
            f"the loader gives a {_kind(batch)}: CellClassifier takes pairs (images, classes) of tensors"
        )
    images, classes = batch
    if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
        raise ValueError(
            f"the loader gives images of {images.dtype} and shape {list(images.shape)}: CellClassifier takes "
            "floating-point images [batch, 3, height, width]"
        )
    if classes.ndim == 1 and classes.is_floating_point():
        raise ValueError(f"the loader gives classes of {classes.dtype}: CellClassifier takes integers")
    # Reading a value from another device would wait for it.
    if (
        classes.ndim == 1
        and classes.device.type == "cpu"
        and len(classes)
        and int(classes.max()) >= num_classes
    ):
        raise ValueError(
            f"the loader gives class {int(classes.max())}; `num_classes` (={num_classes}) must be above it"
        )
    return images, classes
