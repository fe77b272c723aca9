"""Tiny-ImageNet-200 from its official archive or folder, decoded once."""

from __future__ import annotations

import io
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from tqdm import tqdm

from nas_lightning.datamodules.base import ImageDataModule, LabelledImages, OfficialSplit
from nas_lightning.datamodules.download import fetch
from nas_lightning.datamodules.image_cache import (
    DecodedSplit,
    image_cache_is_whole,
    read_image_cache,
    write_image_cache,
)
from nas_lightning.datamodules.storage import locked, reason
from nas_lightning.datamodules.threads import on_all_cores

BLOCK = 1024
"""Images decoded at a time."""


class TinyImageNet(ImageDataModule):
    """100,000 training and 10,000 test images of 200 classes, 64x64, in colour.

    The official archive holds labels of its training and validation images only, so its validation images
    are the test split, as in the paper. Read from the folder ``ROOT/tiny-imagenet-200``, or straight from
    ``ROOT/tiny-imagenet-200.zip``, which is checked against its MD5, and downloaded if neither is there.
    Classes are the lines of ``wnids.txt`` in ascending order; grey images are repeated in three channels. All
    images are decoded once into ``ROOT/tiny-imagenet-200-decoded``, 1.4 GB, which later starts map into
    memory; folder and archive may then be deleted. Arguments as in ImageDataModule.

    Source: Stanford course CS231n, "Tiny ImageNet visual recognition challenge" (2015).
    """

    name = "Tiny-ImageNet"
    num_classes = 200
    image_size = 64
    mean = (0.4802, 0.4481, 0.3975)
    std = (0.2302, 0.2265, 0.2262)

    url: ClassVar[str] = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
    archive_md5: ClassVar[str] = "90528d7ca1a48142e341f4ef8d21d0de"
    official_sizes: ClassVar[dict[str, int]] = {"train": 100_000, "test": 10_000}

    @property
    def folder(self) -> Path:
        """The unpacked archive, if there is one."""
        return Path(self.root) / "tiny-imagenet-200"

    @property
    def archive(self) -> Path:
        """Where the official archive belongs."""
        return Path(self.root) / "tiny-imagenet-200.zip"

    @property
    def cache(self) -> Path:
        """The folder of the decoded images."""
        return Path(self.root) / "tiny-imagenet-200-decoded"

    def prepare_data(self) -> None:
        """Decode the images, unless the cache is complete; download the archive if it is needed.

        Raises:
            FileNotFoundError: If there is neither cache nor folder nor archive nor network.
            ValueError: If the archive is not the official one, files are missing or an image is unreadable.
            OSError: If the cache cannot be written.
        """
        if image_cache_is_whole(self.cache):
            return
        with locked(self.cache):
            if image_cache_is_whole(self.cache):
                return
            if not self.folder.is_dir():
                fetch(self.url, self.archive, self.archive_md5)
            with open_official_files(self.folder, self.archive) as files:
                listings = list_official_images(files)
                for split, listing in listings.items():
                    if len(listing) != self.official_sizes[split]:
                        raise ValueError(
                            f"{files.origin}: {len(listing)} images in the {split} split, "
                            f"{self.official_sizes[split]} expected; unpack the official archive again"
                        )
                splits = {split: self._decode(files, split, listing) for split, listing in listings.items()}
                write_image_cache(self.cache, splits)

    def load_split(self, split: OfficialSplit) -> LabelledImages:
        """Map the decoded images of one split into memory.

        Raises:
            FileNotFoundError: If ``prepare_data`` has not made the cache.
        """
        try:
            return read_image_cache(self.cache, split)
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{error.filename}: missing; `prepare_data` makes it") from error

    def _decode(self, files: OfficialFiles, split: str, listing: Sequence[tuple[str, int]]) -> DecodedSplit:
        def blocks() -> Iterator[NDArray[np.uint8]]:
            names = (name for name, _ in listing)
            images = on_all_cores(names, lambda name: decode_image(files, name, self.image_size))
            with tqdm(total=len(listing), unit="image", desc=f"decoding {self.name}, {split}") as progress:
                while some := list(islice(images, BLOCK)):
                    yield np.stack(some)
                    progress.update(len(some))

        shape = (len(listing), 3, self.image_size, self.image_size)
        targets = np.array([target for _, target in listing], dtype=np.int64)
        return DecodedSplit(shape, blocks(), lambda: targets)


class OfficialFiles(NamedTuple):
    """The files of the folder ``tiny-imagenet-200``, unpacked or in the archive.

    Attributes:
        origin: The folder or the archive, for messages.
        training_images: Paths of the training images inside the official folder, in any order.
        content: Returns what the file with a path inside the official folder holds.
    """

    origin: Path
    training_images: list[str]
    content: Callable[[str], bytes]

    def read(self, name: str) -> bytes:
        """What a file holds, by its path inside the official folder.

        Raises:
            FileNotFoundError: If it is missing or cannot be read.
            ValueError: If it is damaged.
        """
        path = f"{self.origin}/{name}"
        try:
            return self.content(name)
        except (FileNotFoundError, KeyError):
            raise FileNotFoundError(f"{path}: missing; unpack or get the official archive again") from None
        except OSError as error:
            raise FileNotFoundError(f"{path}: cannot be read ({reason(error)})") from error
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise ValueError(f"{path}: damaged ({error}); get the official archive again") from error

    def read_text(self, name: str) -> str:
        """As :meth:`read`, as text; bytes that are no UTF-8 are replaced: no name in the data set has any."""
        return self.read(name).decode(errors="replace")


@contextmanager
def open_official_files(folder: Path, archive: Path) -> Iterator[OfficialFiles]:
    """Open the official files in the folder or, if there is none, in the archive without unpacking it.

    Raises:
        ValueError: If the archive is damaged.
    """
    if folder.is_dir():
        images = [path.relative_to(folder).as_posix() for path in folder.glob("train/*/images/*.JPEG")]
        yield OfficialFiles(folder, images, lambda name: (folder / name).read_bytes())
        return
    try:
        opened = zipfile.ZipFile(archive)
    except zipfile.BadZipFile as error:
        raise ValueError(f"{archive}: damaged ({error}); get the official archive again") from error
    with opened as file:
        top = f"{folder.name}/"
        images = [
            name.removeprefix(top)
            for name in file.namelist()
            if re.fullmatch(rf"{top}train/[^/]+/images/[^/]+\.JPEG", name)
        ]
        yield OfficialFiles(archive, images, lambda name: file.read(top + name))


def list_official_images(files: OfficialFiles) -> dict[str, list[tuple[str, int]]]:
    """List the images of both splits: path inside the official folder, and class.

    Raises:
        FileNotFoundError: If a list is missing.
        ValueError: If a list is not as it should be.
    """
    wnids = sorted(files.read_text("wnids.txt").split())
    if len(wnids) != TinyImageNet.num_classes or len(set(wnids)) != len(wnids):
        raise ValueError(
            f"{files.origin}/wnids.txt: {len(set(wnids))} different classes in {len(wnids)} lines, "
            f"{TinyImageNet.num_classes} expected"
        )
    classes = {wnid: target for target, wnid in enumerate(wnids)}
    owners = ((name, name.split("/")[1]) for name in sorted(files.training_images))
    train = [(name, classes[wnid]) for name, wnid in owners if wnid in classes]
    test = []
    lines = files.read_text("val/val_annotations.txt").splitlines()
    for number, line in enumerate(lines, start=1):
        name, _, rest = line.partition("\t")
        wnid = rest.partition("\t")[0]
        if wnid not in classes or Path(name).name != name:
            raise ValueError(
                f"{files.origin}/val/val_annotations.txt, line {number}: {line!r} does not name an image "
                "and one of the classes of wnids.txt"
            )
        test.append((f"val/images/{name}", classes[wnid]))
    return {"train": train, "test": test}


def decode_image(files: OfficialFiles, name: str, size: int) -> NDArray[np.uint8]:
    """Decode one image to RGB.

    Raises:
        FileNotFoundError: If it is missing.
        ValueError: If it cannot be decoded or has another size.
    """
    data = files.read(name)
    try:
        with Image.open(io.BytesIO(data)) as image:
            pixels = np.asarray(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        cause = "no image format" if isinstance(error, UnidentifiedImageError) else error
        raise ValueError(f"{files.origin}/{name}: unreadable image ({cause})") from error
    if pixels.shape != (size, size, 3):
        height, width, _ = pixels.shape
        raise ValueError(
            f"{files.origin}/{name}: an image of {height}x{width} pixels, {size}x{size} expected"
        )
    return pixels.transpose(2, 0, 1)
