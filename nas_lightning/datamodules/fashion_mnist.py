"""FashionMNIST through torchvision."""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import Any

from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor
from torch.nn import functional

from nas_lightning.datamodules.base import ImageDataModule, LabelledImages, OfficialSplit
from nas_lightning.datamodules.download import check_md5, fetch
from nas_lightning.datamodules.storage import disk_errors

ORIGINAL_SIZE = 28
# Mean and standard deviation of the 28x28 training images, as published with many reference implementations.
ORIGINAL_MEAN, ORIGINAL_STD = 0.2860, 0.3530
# Of the padded images: with s the share of pixels that are not padding, the mean becomes s * mean and the
# mean square s * (std^2 + mean^2).
_SHARE = (ORIGINAL_SIZE / 32) ** 2
_MEAN = _SHARE * ORIGINAL_MEAN
_STD = math.sqrt(_SHARE * (ORIGINAL_STD**2 + ORIGINAL_MEAN**2) - _MEAN**2)


class FashionMNIST(ImageDataModule):
    """60,000 training and 10,000 test images of 10 kinds of clothing: 28x28 grey, padded to 32x32 in colour.

    Read from ``ROOT/FashionMNIST/raw``, torchvision's folder: the official ``.gz`` files, which are checked
    against their published MD5 and downloaded if they are missing, or unpacked files, whose header and length
    are checked. Normalised with the statistics of the padded images (mean 0.2190, standard deviation 0.3318),
    which follow from the usual figures of the 28x28 images (0.2860 and 0.3530). Arguments as in
    ImageDataModule.

    Source: H. Xiao, K. Rasul, R. Vollgraf, "Fashion-MNIST" (2017).
    """

    name = "FashionMNIST"
    num_classes = 10
    class_names = (
        *("T-shirt/top", "trouser", "pullover", "dress", "coat"),
        *("sandal", "shirt", "sneaker", "bag", "ankle boot"),
    )
    image_size = 32
    mean = (_MEAN, _MEAN, _MEAN)
    std = (_STD, _STD, _STD)

    @property
    def official(self) -> Any:
        """The class of torchvision, which knows address, files and MD5 of the data set."""
        from torchvision import datasets  # takes a second to import

        return datasets.FashionMNIST

    @property
    def folder(self) -> Path:
        """The folder of the four files."""
        return Path(self.root) / "FashionMNIST" / "raw"

    def prepare_data(self) -> None:
        """Download the files that are missing.

        Raises:
            FileNotFoundError: If a file is missing and there is no network.
            ValueError: If a file is not the official one.
            OSError: If a file cannot be written.
        """
        mirror = self.official.mirrors[0]
        wanted = [(self.folder / name, md5) for name, md5 in self.official.resources]
        missing = [file for file in wanted if not file[0].exists() and not file[0].with_suffix("").exists()]
        if missing:
            rank_zero_info(f"{self.name}: downloading {len(missing)} files from {mirror}")
        for path, md5 in missing:
            with contextlib.redirect_stderr(io.StringIO()):  # no progress bars for small files
                fetch(mirror + path.name, path, md5)

    def load_split(self, split: OfficialSplit) -> LabelledImages:
        """Read one split and pad its images.

        Raises:
            FileNotFoundError: If a file is missing.
            ValueError: If a file is damaged or not the official one.
        """
        from torchvision.datasets import mnist

        prefix = "train" if split == "train" else "t10k"
        grey = self._read(f"{prefix}-images-idx3-ubyte", mnist.read_image_file)
        labels = self._read(f"{prefix}-labels-idx1-ubyte", mnist.read_label_file)
        if grey.shape != (len(labels), ORIGINAL_SIZE, ORIGINAL_SIZE):
            raise ValueError(
                f"{self.folder / prefix}-images-idx3-ubyte: its images of shape {tuple(grey.shape)} do not "
                f"match {len(labels)} labels of 28x28 images"
            )
        border = (self.image_size - ORIGINAL_SIZE) // 2
        padded = functional.pad(grey, (border,) * 4)
        return padded[:, None].expand(-1, 3, -1, -1).contiguous(), labels

    def _read(self, file_name: str, read: Callable[[str], Tensor]) -> Tensor:
        """Read the official ``.gz`` file, unpacked in a temporary folder, or the unpacked file."""
        from torchvision.datasets.utils import extract_archive

        path = self.folder / file_name
        packed = self.folder / f"{file_name}.gz"
        source = self.official.mirrors[0] + packed.name
        if packed.is_file():
            md5 = dict(self.official.resources)[packed.name]
            check_md5(packed, md5, f"delete it, or replace it by {source}")
            with disk_errors(Path(gettempdir())), TemporaryDirectory() as temporary:
                return read(extract_archive(str(packed), temporary))
        if not path.is_file():
            raise FileNotFoundError(f"{packed}: missing; put {source} there")
        try:
            return read(str(path))
        except (AssertionError, LookupError, RuntimeError, TypeError, ValueError) as error:
            raise ValueError(
                f"{path}: damaged, or no IDX file; delete it, or replace it by {source}"
            ) from error
