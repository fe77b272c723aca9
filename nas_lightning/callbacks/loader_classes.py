"""How evenly the classes of a trainer's data are filled, as far as that is known without reading images."""

from __future__ import annotations

from collections.abc import Mapping, Sized
from typing import Any

import numpy as np
from jaxtyping import Int64
from lightning.pytorch import Trainer
from torch import Tensor
from torch.utils.data import DataLoader, Subset, TensorDataset

from nas_lightning.callbacks.loader_batches import loader_rows
from nas_lightning.class_balance import ClassBalance
from nas_lightning.files import shown

Targets = Int64[np.ndarray, " samples"]


def class_balance(trainer: Trainer) -> ClassBalance | None:
    """The number of samples of each class in each split of a trainer's data; None where it is not known.

    Data modules of this project know it. Of loaders it is known once the trainer has them, in
    ``on_train_start`` and ``on_validation_start``, and only where their data set is a TensorDataset or has
    ``targets``, as those of torchvision have, or is a Subset of one. Names are the data set's ``classes``.
    """
    known = getattr(trainer.datamodule, "class_balance", None)  # type: ignore[attr-defined]
    if isinstance(known, ClassBalance):
        return known
    loaders = {
        "train": trainer.train_dataloader,
        "val": trainer.val_dataloaders,
        "test": trainer.test_dataloaders,
    }
    found: dict[str, Targets] = {}
    names: tuple[str, ...] = ()
    for split, given in loaders.items():
        loader = _first(given)
        if loader is None or (targets := _targets(loader.dataset)) is None:
            continue
        rows = loader_rows(loader)
        found[split] = targets if rows is None else targets[rows]
        names = names or _names(loader.dataset)
    if not found:
        return None
    classes = max(len(names), *(int(targets.max()) + 1 for targets in found.values()))
    counts = {split: np.bincount(targets, minlength=classes) for split, targets in found.items()}
    return ClassBalance(counts, names if len(names) == classes else None)


def has_uneven_classes(trainer: Trainer) -> bool:
    """Whether the classes of a trainer's data are known to be uneven."""
    balance = class_balance(trainer)
    return balance is not None and balance.is_uneven


def _first(loaders: Any) -> DataLoader[Any] | None:
    """The first of several loaders, if it is a DataLoader."""
    while isinstance(loaders, Mapping | list | tuple) and loaders:
        loaders = next(iter(loaders.values())) if isinstance(loaders, Mapping) else loaders[0]
    return loaders if isinstance(loaders, DataLoader) else None


def _targets(data: Any) -> Targets | None:
    """The classes of a data set's samples in its order; None where they are not at hand or no classes."""
    if isinstance(data, Subset):
        whole = _targets(data.dataset)
        return None if whole is None else whole[list(data.indices)]
    given = getattr(data, "targets", None)
    if isinstance(data, TensorDataset) and len(data.tensors) == 2:
        given = data.tensors[1]
    if not isinstance(given, Tensor | np.ndarray | list | tuple) or len(given) != _length(data):
        return None
    try:
        targets = given.cpu().numpy() if isinstance(given, Tensor) else np.asarray(given)
    except ValueError:  # targets of several shapes
        return None
    is_class = targets.ndim == 1 and np.issubdtype(targets.dtype, np.integer) and len(targets) > 0
    return targets.astype(np.int64) if is_class and (targets >= 0).all() else None


def _length(data: Any) -> int:
    """Number of samples; 0 of a data set that does not know it."""
    return len(data) if isinstance(data, Sized) else 0


def _names(data: Any) -> tuple[str, ...]:
    """The names of a data set's classes."""
    while isinstance(data, Subset):
        data = data.dataset
    names = getattr(data, "classes", None)
    return tuple(shown(str(name)) for name in names) if isinstance(names, list | tuple) else ()
