"""ImageFolder: any folder of image files with a folder for each class."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_info

from nas_lightning.datamodules.decoded_images import DecodedImages, ListedImage, Listing, Part, Source
from nas_lightning.datamodules.image_files import IMAGE_SUFFIXES, files_below

VALIDATION_NAMES = ("val", "valid", "validation")
"""Names of the folder of a validation split."""


class ImageFolder(DecodedImages):
    """A folder of image files in torchvision's layout: ``ROOT/train/CLASS/...`` and ``ROOT/test/CLASS/...``.

    Without ``test`` the folder ``val`` is the test split; beside it, ``val`` is evaluated every epoch. With
    neither, or with class folders straight in ``ROOT``, a test split is drawn: stratified by class, decided
    by ``test_seed``, and listed in the cache's ``images.csv``. Classes are the folders in ascending order of
    their names. Images are the files in a class's folder, and in those below it, of the suffixes that
    :data:`~nas_lightning.datamodules.image_files.IMAGE_SUFFIXES` lists; hidden files and folders are left
    out. Arguments as in DecodedImages.
    """

    def list_classes(self) -> tuple[str, ...]:
        """Names of the folders of the training split."""
        return tuple(folder.name for folder in self._class_folders(self._folders["train"]))

    def list_images(self) -> Listing:
        """List the files of all splits, by class and then by path.

        Raises:
            ValueError: If a split has a class that the training split lacks, or a class has no image.
        """
        digest = hashlib.sha256()
        number = {name: target for target, name in enumerate(self.class_names or ())}
        parts: dict[Part, list[ListedImage]] = {}
        root = Path(self.root)
        for part, folder in self._folders.items():
            parts[part] = []
            for of_class in self._class_folders(folder):
                if of_class.name not in number:
                    train = self._folders["train"]
                    raise ValueError(f"`data.root` (={self.root}): {train} lacks the class of {of_class}")
                before = len(parts[part])
                for entry in files_below(of_class):
                    name = os.path.relpath(entry.path, root)
                    parts[part].append(ListedImage(name, number[of_class.name]))
                    digest.update(os.fsencode(f"{part}\0{name}\0{_size_and_time(entry)}\0"))
                if part == "train" and len(parts[part]) == before:
                    raise ValueError(
                        f"`data.root` (={self.root}): {of_class} holds no image ({', '.join(IMAGE_SUFFIXES)})"
                    )
        return Listing(parts, digest.hexdigest())

    def sources(self, names: Sequence[str]) -> Iterator[Source]:
        """The files of the names."""
        return (Path(self.root, name) for name in names)

    @cached_property
    def _folders(self) -> dict[Part, Path]:
        """The folder of each split that has one."""
        root = Path(self.root)
        train = root / "train"
        if not train.is_dir():
            if not self._class_folders(root):
                raise FileNotFoundError(
                    f"`data.root` (={self.root}) holds neither a folder `train` nor a folder for each class"
                )
            return {"train": root}
        if not self._class_folders(train):
            raise FileNotFoundError(f"`data.root` (={self.root}): {train} holds no folder for a class")
        found = {"train": train}
        names = {"test": ("test",), "val": VALIDATION_NAMES}
        for part, some in names.items():
            for folder in (root / name for name in some):
                if folder.is_dir() and part not in found:
                    if self._class_folders(folder):
                        found[part] = folder
                    else:
                        rank_zero_info(f"{folder} is left out: it holds no folder for a class")
        if "test" not in found and "val" in found:
            found["test"] = found.pop("val")
        return found  # type: ignore[return-value]

    @staticmethod
    def _class_folders(folder: Path) -> list[Path]:
        return sorted(
            (path for path in folder.iterdir() if not path.name.startswith(".") and path.is_dir()),
            key=lambda path: path.name,
        )


def _size_and_time(entry: os.DirEntry[str]) -> str:
    """Size and time of a file; of a broken link nothing, which is reported when it is read."""
    try:
        status = entry.stat()
    except OSError:
        return ""
    return f"{status.st_size} {status.st_mtime_ns}"
