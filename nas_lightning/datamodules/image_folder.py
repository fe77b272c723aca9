"""ImageFolder: any folder of image files with a folder for each class."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from functools import cached_property
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_info

from nas_lightning.datamodules.decoded_images import DecodedImages, Listing, some_names
from nas_lightning.datamodules.decoding import ListedImage, Part, Source
from nas_lightning.datamodules.image_files import IMAGE_SUFFIXES, files_below
from nas_lightning.files import shown

_PARTS: dict[str, Part] = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("test", "testing"), "test"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
}
"""Names of the folders of splits, in small letters."""

_RUNS = ("tb_logs", "lightning_logs")
"""Folders of runs: they lie beside the classes where these lie in the working folder."""


class ImageFolder(DecodedImages):
    """A folder of image files in torchvision's layout: ``ROOT/train/CLASS/...`` and ``ROOT/test/CLASS/...``.

    The folders may be called ``training``, ``testing``, ``valid`` or ``validation`` too, in small letters or
    capitals. Without ``test`` the folder ``val`` is the test split; beside it, ``val`` is evaluated every
    epoch. With neither, or with class folders straight in ``ROOT``, a test split is drawn: stratified by
    class, decided by ``test_seed``, and listed in the cache's ``images.csv``. Classes are the folders in
    ascending order of their names; straight in ``ROOT``, a folder without images, ``tb_logs`` or
    ``lightning_logs`` is none. Images are the files in a class's folder, and in those below it, of the
    suffixes that :data:`~nas_lightning.datamodules.image_files.IMAGE_SUFFIXES` lists; hidden files and
    folders are left out. Arguments as in DecodedImages.
    """

    def list_classes(self) -> tuple[str, ...]:
        """Names of the folders of the training split."""
        return tuple(shown(folder.name) for folder in self._class_folders["train"])

    def list_images(self) -> Listing:
        """List the files of all splits, by class and then by path.

        Raises:
            ValueError: If a split has a class that the training split lacks, or a class has no image.
        """
        digest = hashlib.sha256()
        number = {name: target for target, name in enumerate(self.class_names or ())}
        parts: dict[Part, list[ListedImage]] = {}
        others: Counter[str] = Counter()
        for part, folders in self._class_folders.items():
            parts[part] = []
            for of_class in folders:
                if shown(of_class.name) not in number:
                    train = self._folders["train"]
                    raise ValueError(f"`data.root` (={self.root}): {train} lacks the class of {of_class}")
                before = len(parts[part])
                for entry in files_below(of_class, ("",)):
                    if not entry.name.lower().endswith(IMAGE_SUFFIXES):
                        others[Path(entry.name).suffix] += 1
                        continue
                    name = os.path.relpath(entry.path, self.root)
                    parts[part].append(ListedImage(name, number[shown(of_class.name)]))
                    digest.update(os.fsencode(f"{part}\0{name}\0{_size_and_time(entry)}\0"))
                if part == "train" and len(parts[part]) == before:
                    raise ValueError(
                        f"`data.root` (={self.root}): {of_class} holds no image ({', '.join(IMAGE_SUFFIXES)})"
                    )
        if others:
            suffixes = some_names(
                [f"{count:,} {suffix or 'without'}" for suffix, count in others.most_common()]
            )
            rank_zero_info(f"{self.name}: left out: files of other suffixes: {suffixes}")
        return Listing(parts, digest.hexdigest())

    def sources(self, names: Sequence[str]) -> Iterator[Source]:
        """The files of the names."""
        return (Path(self.root, name) for name in names)

    @cached_property
    def _class_folders(self) -> dict[Part, list[Path]]:
        """The folders of the classes of each split."""
        found = {part: _folders_in(folder) for part, folder in self._folders.items()}
        if self._folders["train"] == Path(self.root):
            inside = found["train"]
            found["train"] = [folder for folder in inside if folder.name not in _RUNS and _has_image(folder)]
            self._leave_out(set(inside) - set(found["train"]), "without images, or a folder of runs")
        if not found["train"]:
            raise FileNotFoundError(f"`data.root` (={self.root}) holds no folder of images")
        return found

    def _leave_out(self, folders: Collection[Path], why: str) -> None:
        if folders:
            names = some_names(sorted(folder.name for folder in folders))
            rank_zero_info(f"{self.name}: left out: {names}; {why}")

    @cached_property
    def _folders(self) -> dict[Part, Path]:
        """The folder of each split that has one."""
        inside = _folders_in(Path(self.root))
        if not inside:
            raise FileNotFoundError(
                f"`data.root` (={self.root}) holds neither a folder `train` nor a folder for each class"
            )
        named = {folder: part for folder in inside if (part := _PARTS.get(folder.name.lower()))}
        found: dict[Part, Path] = {}
        for folder, part in named.items():
            if not _folders_in(folder):
                continue  # of images: it may be a class
            if part in found:
                raise ValueError(
                    f"`data.root` (={self.root}): {found[part].name} and {folder.name} are both the {part}"
                    " split; remove one"
                )
            found[part] = folder
        others = [folder for folder in inside if folder not in found.values()]
        if "train" in found:
            self._leave_out(others, "no split, or it holds no folder for a class")
            return {part: found[part] for part in ("train", "test", "val") if part in found}
        if len(named) == len(inside):
            names = some_names([folder.name for folder in inside])
            raise FileNotFoundError(
                f"`data.root` (={self.root}) holds {names}, but `train` is missing or holds no folder for a"
                " class"
            )
        classes = {folder.name for folder in others}
        for folder in found.values():
            if classes & {of_class.name for of_class in _folders_in(folder)}:
                raise ValueError(
                    f"`data.root` (={self.root}): {folder} holds classes that lie beside it; move these into"
                    " a folder `train`"
                )
        return {"train": Path(self.root)}


def _folders_in(folder: Path) -> list[Path]:
    """The folders in a folder by name, hidden ones left out."""
    with os.scandir(folder) as found:
        names = sorted(entry.name for entry in found if not entry.name.startswith(".") and entry.is_dir())
    return [folder / name for name in names]


def _has_image(folder: Path) -> bool:
    return next(files_below(folder), None) is not None


def _size_and_time(entry: os.DirEntry[str]) -> str:
    """Size and time of a file; of a broken link nothing, which is reported when it is read."""
    try:
        status = entry.stat()
    except OSError:
        return ""
    return f"{status.st_size} {status.st_mtime_ns}"
