"""The classes of any images by a trained network: files, folders, Pillow's images and tensors."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from nas_lightning.datamodules import ImageDataModule
from nas_lightning.datamodules.augmentation import normalise
from nas_lightning.datamodules.image_files import (
    IMAGE_SUFFIXES,
    UnreadableImage,
    files_below,
    read_image,
    square_image,
    unreadable_error,
)
from nas_lightning.datamodules.threads import on_all_cores
from nas_lightning.files import shown
from nas_lightning.image_record import ImageRecord, class_labels, read_image_record
from nas_lightning.networks import CellNetwork

Source: TypeAlias = Path | Image.Image | Tensor
"""An image file, an image of Pillow, or uint8 values [3, height, width]."""
Normalise: TypeAlias = Callable[[Tensor, torch.dtype], Tensor]


class Predictions(NamedTuple):
    """What a network makes of images.

    Attributes:
        names: The most probable class of each image: its name, or its number where classes have no names.
        probabilities: Probabilities of all classes, in the order of their numbers.
    """

    names: list[str]
    probabilities: Float[Tensor, "images classes"]


def record_of(data: object) -> ImageRecord | None:
    """What a checkpoint keeps of its data; None if no ImageDataModule, or one that normalises otherwise."""
    if not isinstance(data, ImageDataModule) or type(data).normalise is not ImageDataModule.normalise:
        return None
    try:
        names = data.class_names
        has_names = names is not None and len(names) == data.num_classes
        content = {
            "name": data.name,
            "image_size": int(data.image_size),
            "mean": list(map(float, data.mean)),
            "std": list(map(float, data.std)),
            "class_names": list(map(str, names)) if names is not None and has_names else None,
        }
    except (AttributeError, TypeError, ValueError):  # a class of the user's own may have anything there
        return None
    try:
        return read_image_record(content)
    except ValueError:
        return None


def record_of_settings(settings: Mapping[str, Any]) -> ImageRecord | None:
    """The record that a checkpoint of an earlier version lacks, by its data set where that is imported."""
    module, _, name = str(settings.get("_class_path")).rpartition(".")
    found = vars(sys.modules[module]).get(name) if module in sys.modules else None
    if not isinstance(found, type) or not issubclass(found, ImageDataModule):
        return None
    try:
        return record_of(found(**{key: value for key, value in settings.items() if not key.startswith("_")}))
    except (OSError, TypeError, ValueError):
        return None


def classify(network: CellNetwork, record: ImageRecord | None, images: Any, batch_size: int) -> Predictions:
    """See :meth:`nas_lightning.classifier.CellClassifier.classify`."""
    if record is None:
        raise ValueError(
            "the network does not know how its images were normalised: set `images` of the classifier to a"
            " nas_lightning.image_record.ImageRecord"
        )
    if batch_size < 1:
        raise ValueError(f"`batch_size` (={batch_size}) must be at least 1")
    unreadable: dict[int, str] = {}
    sources = list(image_sources(images))
    read = squares(sources, record.image_size, unreadable)
    probabilities = class_probabilities(network, read, normaliser(record), batch_size)
    if unreadable:
        raise unreadable_error(how_many_unreadable(unreadable, len(sources)), unreadable.values())
    labels = class_labels(record.class_names, network.num_classes)
    return Predictions([labels[best] for best in probabilities.argmax(dim=1)], probabilities)


def normaliser(record: ImageRecord) -> Normalise:
    """Makes the network's inputs from uint8 images: (x / 255 - mean) / std for each channel."""
    return lambda images, dtype: normalise(images, record.mean, record.std, dtype)


def image_sources(images: Any) -> Iterator[Source]:
    """The single images of files, folders, images of Pillow, uint8 tensors, and lists of these.

    Raises:
        FileNotFoundError: If there is no such file or folder.
        ValueError: If a folder holds no image, or something is none of these.
    """
    if isinstance(images, str | os.PathLike):
        yield from image_files([Path(images)])
    elif isinstance(images, Image.Image):
        yield images
    elif isinstance(images, Tensor):
        if images.dtype != torch.uint8 or images.ndim not in (3, 4) or images.shape[-3] != 3:
            raise ValueError(
                f"`images` of {images.dtype} and shape {list(images.shape)}: tensors must be uint8"
                " [batch, 3, height, width], values 0 to 255"
            )
        yield from images.unsqueeze(0) if images.ndim == 3 else images
    elif isinstance(images, Sequence | Iterator) and not isinstance(images, bytes | bytearray):
        for image in images:
            yield from image_sources(image)
    else:
        raise ValueError(
            f"`images` has a {type(images).__name__}: it takes paths, images of Pillow, uint8 tensors, and"
            " lists of these"
        )


def image_files(paths: str | Path | Iterable[str | Path]) -> list[Path]:
    """The image files among files and folders, those of a folder sorted by name, without hidden ones.

    Args:
        paths: A file, a folder, or several of them.

    Raises:
        FileNotFoundError: If there is no such file or folder.
        ValueError: If a folder holds no image.
    """
    files: list[Path] = []
    for path in map(Path, [paths] if isinstance(paths, str | Path) else paths):
        if path.is_dir():
            found = [Path(entry.path) for entry in files_below(path)]
            if not found:
                raise ValueError(f"`images` (={path}) holds no image ({', '.join(IMAGE_SUFFIXES)})")
            files += found
        elif path.is_file():
            files.append(path)
        else:
            raise FileNotFoundError(f"`images` (={path}) is neither a file nor a folder")
    return files


def squares(
    sources: Iterable[Source], size: int, unreadable: dict[int, str], *, skip: bool = False
) -> Iterator[UInt8[Tensor, "3 size size"]]:
    """The images, read, resized and cropped as those of a folder in training.

    Args:
        sources: The images.
        size: Height and width of the result.
        unreadable: Gets the position of every image that cannot be read, and what to say of it.
        skip: Whether images still come after one that cannot be read; else the others are only tried.
    """
    read = on_all_cores(sources, lambda source: (source, _square(source, size)))
    for place, (source, image) in enumerate(read):
        if isinstance(image, UnreadableImage):
            named = shown(source) if isinstance(source, Path) else f"image {place}"
            unreadable[place] = f"{named}: {image}"
        elif skip or not unreadable:
            yield image


def how_many_unreadable(unreadable: Sized, count: int) -> str:
    """How many of ``count`` images cannot be read, in words."""
    return f"{len(unreadable):,} of {count:,} images cannot be read"


@torch.no_grad()
def class_probabilities(
    network: CellNetwork,
    images: Iterable[UInt8[Tensor, "3 size size"]],
    normalise: Normalise,
    batch_size: int,
) -> Float[Tensor, "images classes"]:
    """Softmax of the network's logits, in evaluation mode, on its device; the result is on the CPU.

    Raises:
        ValueError: If logits are not finite.
    """
    parameter = next(network.parameters())
    modes = [(module, module.training) for module in network.modules()]
    remaining, found = iter(images), [torch.empty(0, network.num_classes)]
    network.eval()
    try:
        while some := list(islice(remaining, batch_size)):
            inputs = normalise(torch.stack(some).to(parameter.device), parameter.dtype)
            found.append(network(inputs).softmax(dim=1).cpu())
    finally:
        for module, is_training in modes:
            module.training = is_training
    probabilities = torch.cat(found[1:] or found)
    if not bool(probabilities.isfinite().all()):
        raise ValueError("the network's outputs are not finite: its training diverged")
    return probabilities


def _square(source: Source, size: int) -> Tensor | UnreadableImage:
    """An image [3, size, size], or why it cannot be read."""
    try:
        if isinstance(source, Path):
            return torch.from_numpy(np.array(read_image(source, size)))
        if isinstance(source, Tensor):
            if source.shape[1:] == (size, size):
                return source
            source = Image.fromarray(source.permute(1, 2, 0).cpu().numpy())
        return torch.from_numpy(np.array(square_image(source, size)))
    except UnreadableImage as error:
        return error
