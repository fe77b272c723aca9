"""What checkpoints have in common that share a line, a curve or a plane: one architecture, one data set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SIZES = ("num_classes", "init_channels", "num_cells", "stem_stride", "stem")
"""Settings of the network in which they agree."""
_NOT_IMAGES = frozenset(
    {"batch_size", "cutout", "seed", "root", "cache_folder", "evaluation_batch_size", "resident"}
)
"""Settings of the data in which they may differ: these leave the splits as they are."""


def common_facts(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """What a checkpoint says of its architecture and its data, by the name that messages give it.

    Seeds, batch sizes, epochs, optimisers and augmentation are not among it.
    """
    model = checkpoint.get("hyper_parameters") or {}
    data = checkpoint.get("datamodule_hyper_parameters") or {}
    images = checkpoint.get("images") or {}
    said = {"the genotype": checkpoint.get("genotype"), "the data": data.get("_class_path")}
    said |= {"the images": images.get("name"), "images of size": images.get("image_size")}
    facts = {name: value for name, value in said.items() if value is not None}
    facts |= {f"`model.{name}`": model[name] for name in SIZES if name in model}
    names = sorted(name for name in data if name not in _NOT_IMAGES and not name.startswith("_"))
    return facts | {f"`data.{name}`": data[name] for name in names}  # None is a value: all images


def check_alike(
    first: Mapping[str, Any], other: Mapping[str, Any], said: tuple[object, object], reason: str
) -> None:
    """Refuse a checkpoint that is not of the architecture and the data of a first one.

    Args:
        first: What the first says of itself, see :func:`common_facts`.
        other: The same of the other. Only what both say is compared.
        said: What messages call the two.
        reason: Why they must be alike.

    Raises:
        ValueError: Naming the first difference.
    """
    for name, value in first.items():
        if name in other and other[name] != value:
            raise ValueError(
                f"{said[0]} was trained with {name} {value}, {said[1]} with {other[name]}: {reason} of one"
                " architecture and one data set"
            )
