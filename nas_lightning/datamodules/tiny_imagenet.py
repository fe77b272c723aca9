"""Tiny-ImageNet-200 from its official archive or folder, decoded once."""

from __future__ import annotations

import io
import os
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from jaxtyping import Int64, UInt8
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from tqdm import tqdm

from nas_lightning.datamodules.base import ImageDataModule
from nas_lightning.datamodules.disk import locked
from nas_lightning.datamodules.download import fetch
from nas_lightning.datamodules.image_cache import (
    DecodedSplit,
    image_cache_is_whole,
    read_image_cache,
    write_image_cache,
)

BLOCK = 1024


class TinyImageNet(ImageDataModule):
    """100,000 training and 10,000 test images of 200 classes, 64x64, in colour.

    The official archive holds labels for its training and validation images only, so its validation images
    are the test split, as in the paper. Read from the folder ``ROOT/tiny-imagenet-200``, or straight from
    ``ROOT/tiny-imagenet-200.zip``, which is downloaded where neither is there and checked against its MD5.
    Classes are the lines of ``wnids.txt`` in ascending order; grey images are repeated in three channels. All
    images are decoded once into ``ROOT/tiny-imagenet-200-decoded``, 1.4 GB, which later starts map into
    memory; folder and archive may go then. Arguments as in ImageDataModule.

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
        """The unpacked archive, where there is one."""
        return Path(self.root) / "tiny-imagenet-200"

    @property
    def archive(self) -> Path:
        """Where the official archive belongs."""
        return Path(self.root) / "tiny-imagenet-200.zip"

    @property
    def cache(self) -> Path:
        """The folder with the decoded images."""
        return Path(self.root) / "tiny-imagenet-200-decoded"

    def prepare_data(self) -> None:
        """Decode the images, unless a whole cache is there; download the archive where nothing is there.

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
            with self._open_files() as files:
                listings = list_official_images(files)
                for split, listing in listings.items():
                    self._check_size(files, split, len(listing))
                write_image_cache(
                    self.cache,
                    {split: self._decode(files, split, listing) for split, listing in listings.items()},
                )

    def load_split(
        self, split: Literal["train", "test"]
    ) -> tuple[UInt8[Tensor, "count 3 size size"], Int64[Tensor, " count"]]:
        """Map the decoded images of one split into memory.

        Raises:
            FileNotFoundError: If ``prepare_data`` has not made the cache.
        """
        try:
            return read_image_cache(self.cache, split)
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{error.filename}: missing; `prepare_data` makes it") from error

    @contextmanager
    def _open_files(self) -> Iterator[OfficialFiles]:
        if self.folder.is_dir():
            yield _folder_files(self.folder)
            return
        try:
            with zipfile.ZipFile(self.archive) as archive:
                yield _zip_files(archive, self.archive, self.folder.name)
        except zipfile.BadZipFile as error:
            raise ValueError(f"{self.archive}: the archive is damaged ({error})") from error

    def _check_size(self, files: OfficialFiles, split: str, found: int) -> None:
        expected = self.official_sizes[split]
        if found != expected:
            raise ValueError(
                f"{files.origin}: {found} images in the {split} split, {expected} expected: unpack the "
                "official archive again"
            )

    def _decode(self, files: OfficialFiles, split: str, listing: Sequence[LabelledImage]) -> DecodedSplit:
        def blocks() -> Iterator[NDArray[np.uint8]]:
            with (
                ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool,
                tqdm(total=len(listing), unit="image", desc=f"decoding {self.name}, {split}") as progress,
            ):
                for start in range(0, len(listing), BLOCK):
                    names = [image.name for image in listing[start : start + BLOCK]]
                    yield np.stack(
                        list(pool.map(lambda name: decode_image(files, name, self.image_size), names))
                    )
                    progress.update(len(names))

        shape = (len(listing), 3, self.image_size, self.image_size)
        return DecodedSplit(shape, blocks(), np.array([image.target for image in listing], dtype=np.int64))


@dataclass(frozen=True)
class OfficialFiles:
    """The official files by their path inside the folder ``tiny-imagenet-200``, unpacked or in the archive.

    Attributes:
        origin: The folder or the archive, for messages.
        list_folder: Names of the files in a folder, in ascending order.
        read: Content of a file.
    """

    origin: Path
    list_folder: Callable[[str], list[str]]
    read: Callable[[str], bytes]


@dataclass(frozen=True)
class LabelledImage:
    """Path of an image inside the official folder, and its class."""

    name: str
    target: int


def list_official_images(files: OfficialFiles) -> dict[str, list[LabelledImage]]:
    """List the images of both splits with their classes.

    Args:
        files: The official files.

    Returns:
        Training images class by class, and test images (the official validation images) in the order of
        ``val/val_annotations.txt``.

    Raises:
        FileNotFoundError: If a list is missing.
        ValueError: If a list is not as it should be.
    """
    wnids = sorted(files.read("wnids.txt").decode().split())
    if len(wnids) != TinyImageNet.num_classes or len(set(wnids)) != len(wnids):
        raise ValueError(
            f"{files.origin}/wnids.txt: {len(set(wnids))} different classes in {len(wnids)} lines, "
            f"{TinyImageNet.num_classes} expected"
        )
    classes = {wnid: target for target, wnid in enumerate(wnids)}
    train = [
        LabelledImage(name, target)
        for wnid, target in classes.items()
        for name in files.list_folder(f"train/{wnid}/images")
        if name.endswith(".JPEG")
    ]
    test = []
    lines = files.read("val/val_annotations.txt").decode().splitlines()
    for number, line in enumerate(lines, start=1):
        name, _, rest = line.partition("\t")
        wnid = rest.partition("\t")[0]
        if wnid not in classes or Path(name).name != name:
            raise ValueError(
                f"{files.origin}/val/val_annotations.txt, line {number}: {line!r} does not name an image "
                "and one of the classes of wnids.txt"
            )
        test.append(LabelledImage(f"val/images/{name}", classes[wnid]))
    return {"train": train, "test": test}


def decode_image(files: OfficialFiles, name: str, size: int) -> NDArray[np.uint8]:
    """Decode one image to RGB.

    Args:
        files: The official files.
        name: Path of the image among them.
        size: Height and width it must have.

    Returns:
        Array of shape [3, size, size].

    Raises:
        FileNotFoundError: If it is missing.
        ValueError: If it cannot be decoded or has another size.
    """
    data = files.read(name)
    try:
        with Image.open(io.BytesIO(data)) as image:
            pixels = np.asarray(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        reason = "no image format" if isinstance(error, UnidentifiedImageError) else error
        raise ValueError(f"{files.origin}/{name}: unreadable image ({reason})") from error
    if pixels.shape != (size, size, 3):
        height, width, _ = pixels.shape
        raise ValueError(
            f"{files.origin}/{name}: an image of {height}x{width} pixels, {size}x{size} expected"
        )
    return pixels.transpose(2, 0, 1)


def _folder_files(folder: Path) -> OfficialFiles:
    def read(name: str) -> bytes:
        try:
            return (folder / name).read_bytes()
        except FileNotFoundError:
            raise FileNotFoundError(f"{folder / name}: missing; unpack the official archive again") from None

    def list_folder(name: str) -> list[str]:
        try:
            return sorted(f"{name}/{path.name}" for path in (folder / name).iterdir())
        except FileNotFoundError:
            raise FileNotFoundError(f"{folder / name}: missing; unpack the official archive again") from None

    return OfficialFiles(folder, list_folder, read)


def _zip_files(archive: zipfile.ZipFile, path: Path, top: str) -> OfficialFiles:
    """The members are read where they are: nothing is unpacked, so nothing can land outside a folder."""
    folders: dict[str, list[str]] = {}
    for member in archive.namelist():
        folder, _, _ = member.rpartition("/")
        folders.setdefault(folder, []).append(member.removeprefix(f"{top}/"))

    def read(name: str) -> bytes:
        try:
            return archive.read(f"{top}/{name}")
        except KeyError:
            raise FileNotFoundError(f"{path}: has no member {top}/{name}") from None
        except (zlib.error, EOFError) as error:
            raise ValueError(f"{path}: the member {top}/{name} is damaged ({error})") from error

    def list_folder(name: str) -> list[str]:
        return sorted(file for file in folders.get(f"{top}/{name}", []) if not file.endswith("/"))

    return OfficialFiles(path, list_folder, read)
