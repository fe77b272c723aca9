"""DecodedImages: a data set of any image files, decoded once into a memory-mapped cache."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from tqdm import tqdm

from nas_lightning.datamodules.base import ImageDataModule, LabelledImages, OfficialSplit
from nas_lightning.datamodules.checks import check_integer
from nas_lightning.datamodules.decoding import (
    RECORD,
    TABLE,
    DecodedPart,
    ListedImage,
    Part,
    Source,
    write_record,
)
from nas_lightning.datamodules.image_cache import (
    DecodedSplit,
    image_cache_is_whole,
    read_image_cache,
    write_image_cache,
)
from nas_lightning.datamodules.image_files import unreadable_error
from nas_lightning.datamodules.sampling import stratified_split
from nas_lightning.datamodules.storage import DiskError, locked
from nas_lightning.files import check_writable, shown
from nas_lightning.image_record import class_labels
from nas_lightning.private_files import cache_folder as private_cache_folder

_FORMAT = 1
_NAMED = 20
"""Most unreadable files that a message names."""


@dataclass(frozen=True)
class Listing:
    """What a data set holds, before anything is decoded.

    Attributes:
        parts: The images of each part: ``"train"``, and those of ``"test"`` and ``"val"`` that there are.
        key: What changes when a file does: a digest of names, sizes and times.
        drawn: Whether the test split was drawn from the training images.
        val_is_test: Whether the validation images are the test split, which the data set lacks.
    """

    parts: Mapping[Part, Sequence[ListedImage]]
    key: str
    drawn: bool = False
    val_is_test: bool = False


class DecodedImages(ImageDataModule):
    """A data set of image files, all decoded once to one size.

    Pixel values lie in a cache, which later starts map into memory; a change of names, sizes or times of the
    files makes it anew. Mean and standard deviation are measured over the training images while they are
    decoded. The cache has a table, ``images.csv``, with split, position, class and file of every image. A
    subclass lists the images and hands out what their files hold.

    Args:
        root: Folder of the data set.
        image_size: Height and width to which images are brought: resized and cropped to their middle.
        test_fraction: Share of the training images that becomes the test split, stratified by class, where
            the data set has none.
        test_seed: Seed that decides which.
        skip_unreadable: Go on without files that cannot be read, instead of refusing the data set.
        cache_folder: Folder for the cache; None: ``.decoded`` in ``root``, or the user's cache folder where
            that cannot be written.
        horizontal_flip: Whether training images are mirrored with probability one half.
        padding: Zeros on each side before the random crop of training images, in pixels.
        **kwargs: As in ImageDataModule.

    Raises:
        FileNotFoundError: If the folder or the images in it are missing.
        ValueError: If an argument is out of range.
    """

    def __init__(
        self,
        root: str,
        image_size: int = 32,
        test_fraction: float = 0.2,
        test_seed: int = 0,
        skip_unreadable: bool = False,
        cache_folder: str | None = None,
        horizontal_flip: bool = True,
        padding: int = 4,
        **kwargs: Any,
    ) -> None:
        check_integer("image_size", image_size, minimum=4)
        check_integer("test_seed", test_seed, minimum=0)
        check_integer("padding", padding, minimum=0)
        if isinstance(test_fraction, bool) or not 0 < test_fraction < 1:
            raise ValueError(f"`test_fraction` (={test_fraction}) must be above 0 and below 1")
        if not Path(root).is_dir():
            problem = "is no folder: unpack it, or give the folder that it lies in"
            problem = problem if Path(root).exists() else "no such folder"
            raise FileNotFoundError(f"`data.root` (={root}): {problem}")
        if cache_folder is not None:
            _check_apart(Path(cache_folder), Path(root))
        self.name = folder_name(root)
        self.image_size = image_size
        self.horizontal_flip = horizontal_flip
        self.padding = padding
        self.root = root
        self.class_names = self.list_classes()
        if len(self.class_names) < 2:
            found = f"a single class, {self.class_names[0]}" if self.class_names else "no class"
            raise ValueError(f"`data.root` (={root}) holds {found}; a classifier needs two")
        self.num_classes = len(self.class_names)
        self.test_fraction = test_fraction
        self.test_seed = test_seed
        self.skip_unreadable = skip_unreadable
        self.cache_folder = cache_folder
        super().__init__(root=root, **kwargs)
        self.save_hyperparameters(
            *("image_size", "test_fraction", "test_seed", "skip_unreadable", "cache_folder"),
            *("horizontal_flip", "padding"),
            logger=False,
        )
        self._listing: Listing | None = None
        self._record: dict[str, Any] | None = None

    @abstractmethod
    def list_classes(self) -> tuple[str, ...]:
        """Names of the classes in the order of their numbers; no image is read for them."""

    @abstractmethod
    def list_images(self) -> Listing:
        """List all images, in an order that is the same on every machine."""

    @abstractmethod
    def sources(self, names: Sequence[str]) -> Iterator[Source]:
        """Paths of some of the listed images, or what their files hold, in the order of the names."""

    @property
    def evaluation_split(self) -> Literal["val", "test"]:
        """The split evaluated after every epoch: ``"val"`` where there is one of its own or held out."""
        return "val" if "val" in self._listed().parts else super().evaluation_split

    @property
    def cache(self) -> Path:
        """Folder of the cache: the one that suits the files, or where it would be made."""
        return self._found_cache() or self._places()[0]

    def prepare_data(self) -> None:
        """Decode the images, unless there is a cache of the same files.

        Raises:
            FileNotFoundError: If the folder or the images in it are missing.
            ValueError: If the images cannot be divided.
            OSError: If the cache cannot be written.
        """
        if self._found_cache() is not None:
            return
        place = _writable(self._places())
        with locked(place):
            if not self._is_fresh(place):
                self._decode(place)

    def setup(self, stage: str | None = None) -> None:
        """Map the images into memory, and take mean and standard deviation from the cache.

        Raises:
            FileNotFoundError: If ``prepare_data`` has not made the cache, or files have changed since.
            ValueError: If files cannot be read, whose names are its notes, or as in ImageDataModule.
        """
        if self._record is None:
            cache = self._fresh_cache()
            record = json.loads((cache / RECORD).read_text())
            self._report(record, cache / TABLE)
            self.mean, self.std = tuple(record["mean"]), tuple(record["std"])
            self._record = record
        super().setup(stage)

    def load_split(self, split: OfficialSplit) -> LabelledImages:
        """Map the images of one split into memory; ``"train"`` ends with those of ``"val"``."""
        return read_image_cache(self._fresh_cache(), split)

    def listed_counts(self) -> dict[Part, int]:
        """Number of images of each part, before any is decoded."""
        return {part: len(images) for part, images in self._listed().parts.items()}

    def state_dict(self) -> dict[str, Any]:
        """What a training depends on that no argument says: classes, a digest of the files, normalisation."""
        state = {"class_names": list(self.class_names or ()), "key": self._listed().key}
        return state if self._record is None else {**state, "mean": list(self.mean), "std": list(self.std)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Refuse to go on with other classes; say so if files have changed, and normalise as before.

        Raises:
            ValueError: If the classes or their order are others.
        """
        before = state_dict.get("class_names")
        if before is not None and list(before) != list(self.class_names or ()):
            raise ValueError(
                f"`data.root` (={self.root}) holds the classes {some_names(self.class_names or ())}; the"
                f" checkpoint was trained on {some_names(before)}"
            )
        if state_dict.get("key") not in (None, self._listed().key):
            rank_zero_info(
                f"{self.name}: files have changed since the checkpoint was written, so that a split may hold"
                " images it was trained on; its mean and standard deviation are used"
            )
        if "mean" in state_dict:
            self.mean, self.std = tuple(state_dict["mean"]), tuple(state_dict["std"])

    def _listed(self) -> Listing:
        """The listing with a test split: its own, else that of validation, else drawn."""
        if self._listing is None:
            listing = self.list_images()
            if not listing.parts["train"]:
                raise ValueError(f"`data.root` (={self.root}): the train split holds no image")
            parts = {part: images for part, images in listing.parts.items() if images}
            for part in listing.parts.keys() - parts:
                rank_zero_info(f"{self.name}: the {part} split is left out: it holds no image")
            val_is_test = "test" not in parts and "val" in parts
            if val_is_test:
                parts["test"] = parts.pop("val")
            drawn = "test" not in parts
            if drawn:
                parts["train"], parts["test"] = self._draw_test_split(parts["train"])
            if "val" in parts and self.validation_fraction:
                raise ValueError(
                    f"`validation_fraction` (={self.validation_fraction}) must be 0: {self.name} has a"
                    " validation split of its own"
                )
            settings = (_FORMAT, self.image_size, listing.key, drawn and (self.test_fraction, self.test_seed))
            key = hashlib.sha256(repr(settings).encode()).hexdigest()
            self._listing = Listing(parts, key, drawn, val_is_test)
        return self._listing

    def _draw_test_split(self, images: Sequence[ListedImage]) -> tuple[list[ListedImage], list[ListedImage]]:
        targets = torch.tensor([image.target for image in images])
        size = round(self.test_fraction * len(images))
        names = class_labels(self.class_names, self.num_classes)
        try:
            kept, drawn = stratified_split(targets, size, self.test_seed, names)
        except ValueError as error:
            raise ValueError(
                f"`test_fraction` (={self.test_fraction}) does not suit {self.name}, which has no test split"
                f" of its own: {error}"
            ) from error
        return [images[row] for row in kept.tolist()], [images[row] for row in drawn.tolist()]

    def _divide(self, targets: Tensor, test_size: int) -> dict[str, Tensor]:
        rows = super()._divide(targets, test_size)
        assert self._record is not None
        if "val" in self._record["counts"]:
            rows["train"], rows["val"] = rows["train"].tensor_split([self._record["counts"]["train"]])
        return rows

    def _places(self) -> list[Path]:
        """Where the cache may lie, the preferred place first."""
        kind = f"{self.image_size}px"
        if self._listed().drawn:
            kind += f"-test{self.test_fraction:g}-seed{self.test_seed}"
        root = Path(self.root).resolve()
        elsewhere = f"{self.name[:40]}-{hashlib.sha256(os.fsencode(root)).hexdigest()[:8]}-{kind}"
        if self.cache_folder is not None:
            return [Path(self.cache_folder) / elsewhere]
        private = private_cache_folder()
        return [root / ".decoded" / kind, *([] if private is None else [private / "images" / elsewhere])]

    def _found_cache(self) -> Path | None:
        return next((place for place in self._places() if self._is_fresh(place)), None)

    def _fresh_cache(self) -> Path:
        cache = self._found_cache()
        if cache is None:
            raise FileNotFoundError(
                f"`data.root` (={self.root}): {self._places()[0]} is missing, or of other files;"
                " `prepare_data` makes it"
            )
        return cache

    def _is_fresh(self, place: Path) -> bool:
        """Whether a cache is whole and of the files as they are."""
        try:
            key = json.loads((place / RECORD).read_text())["key"]
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            return False
        return bool(key == self._listed().key) and image_cache_is_whole(place)

    def _decode(self, place: Path) -> None:
        """Make the cache in ``place``; the caller holds its lock."""
        parts = self._listed().parts
        total = sum(self.listed_counts().values())
        shape = (3, self.image_size, self.image_size)
        needed = total * int(np.prod(shape))
        free = shutil.disk_usage(next(folder for folder in place.parents if folder.exists())).free
        if free < needed:
            raise DiskError(
                f"{place}: the decoded images need {needed / 1e9:.1f} GB, and the disk has"
                f" {free / 1e9:.1f} GB left; `data.cache_folder` may name another"
            )
        decoded = {
            part: DecodedPart(images, self.sources, self.image_size, is_measured=part == "train")
            for part, images in parts.items()
        }
        with tqdm(total=total, unit="image", desc=f"decoding {self.name}") as progress:

            def split(*names: Part) -> DecodedSplit:
                some = [decoded[name] for name in names if name in decoded]
                most = sum(len(part.images) for part in some)
                blocks = (block for part in some for block in part.blocks(progress))
                return DecodedSplit((most, *shape), blocks, lambda: np.concatenate([p.targets for p in some]))

            splits = {"train": split("train", "val"), "test": split("test")}
            key, classes = self._listed().key, self.class_names or ()
            write_image_cache(place, splits, lambda folder: write_record(folder, key, classes, decoded))

    def _report(self, record: Mapping[str, Any], table: Path) -> None:
        """Say what was found: the splits, files that cannot be read, animations, where a split is drawn."""
        total = sum(self.listed_counts().values())
        unreadable = [f"{name}: {cause}" for name, cause in record["unreadable"]]
        if unreadable:
            lines = unreadable[:_NAMED]
            if len(unreadable) > _NAMED:
                lines.append(f"and {len(unreadable) - _NAMED:,} more, all in {table}")
            found = f"{len(unreadable):,} of {total:,} images cannot be read"
            if not self.skip_unreadable:
                remedy = "mend or remove them, or set `data.skip_unreadable` to go on without them"
                raise unreadable_error(f"`data.root` (={self.root}): {found}; {remedy}", lines)
            rank_zero_info("\n  ".join([f"{self.name}: {found}; the training goes on without them", *lines]))
        for part, count in record["counts"].items():
            if count == 0:
                raise ValueError(f"`data.root` (={self.root}): no image of the {part} split can be read")
        counts = ", ".join(f"{count:,} {part}" for part, count in record["counts"].items())
        rank_zero_info(
            f"{self.name}: {self.num_classes} classes ({some_names(self.class_names or ())}); {counts} images"
        )
        if record["animated"]:
            rank_zero_info(
                f"{self.name}: of {len(record['animated']):,} animated files the first frame counts:"
                f" {some_names(record['animated'])}"
            )
        if self._listed().val_is_test:
            rank_zero_info(f"{self.name} has no test split: its validation split is the test split")
        if self._listed().drawn:
            rank_zero_info(
                f"{self.name} has no test split: {record['counts']['test']:,} of"
                f" {record['counts']['test'] + record['counts']['train']:,} images were drawn, stratified by"
                f" class, by `test_seed` = {self.test_seed}; {table} lists them"
            )


def _check_apart(cache_folder: Path, root: Path) -> None:
    """Refuse a cache where the next start would look for images."""
    if cache_folder.resolve().is_relative_to(root.resolve()):
        inside = cache_folder.resolve().relative_to(root.resolve())
        if not any(part.startswith(".") for part in inside.parts):
            raise ValueError(
                f"`data.cache_folder` (={cache_folder}) must not lie among the images of `data.root`"
            )


def _writable(places: Sequence[Path]) -> Path:
    """The first place that can be written; the ValueError is that of the first if there is none."""
    problem: ValueError | None = None
    for place in places:
        try:
            check_writable(place.parent, "the cache of decoded images, ")
            return place
        except ValueError as error:
            problem = problem or error
    assert problem is not None
    raise problem


def some_names(names: Sequence[str], most: int = 8) -> str:
    """The first names, as they are shown, and how many more there are."""
    first = ", ".join(map(shown, names[:most]))
    return first if len(names) <= most else f"{first} and {len(names) - most:,} more"


def folder_name(root: str) -> str:
    """The name of a data set in a folder: the folder's own; a link keeps its name."""
    return shown(Path(os.path.abspath(root)).name) or "images"  # noqa: PTH100
