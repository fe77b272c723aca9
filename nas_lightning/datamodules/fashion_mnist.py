"""FashionMNIST from its four official files."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from nas_lightning.datamodules.base import ImageDataModule
from nas_lightning.datamodules.download import fetch, verify_md5

ORIGINAL_SIZE = 28
# Over the 28x28 training images, as published with many reference implementations.
ORIGINAL_MEAN, ORIGINAL_STD = 0.2860, 0.3530


def padded_statistics(mean: float, std: float, size: int, padded_size: int) -> tuple[float, float]:
    """Mean and standard deviation of square images after zeros are padded around them.

    With s the share of pixels that are not padding, the mean becomes s * mean and the mean square s * (std^2
    + mean^2).

    Args:
        mean: Mean over the images.
        std: Standard deviation over the images.
        size: Their height and width.
        padded_size: Height and width with the padding.

    Returns:
        Mean and standard deviation over the padded images.
    """
    share = (size / padded_size) ** 2
    return share * mean, math.sqrt(share * (std**2 + mean**2) - (share * mean) ** 2)


_MEAN, _STD = padded_statistics(ORIGINAL_MEAN, ORIGINAL_STD, ORIGINAL_SIZE, 32)


class FashionMNIST(ImageDataModule):
    """60,000 training and 10,000 test images of 10 kinds of clothing: 28x28 grey, padded to 32x32 in colour.

    Read from ``ROOT/FashionMNIST/raw``, torchvision's folder: the official ``.gz`` files, which are checked
    against their published MD5 and downloaded where they are missing, or unpacked files, of which header and
    length are checked. Normalised with the statistics of the padded images (mean 0.2190, standard deviation
    0.3318), which follow from the usual figures of the 28x28 images (0.2860 and 0.3530). Arguments as in
    ImageDataModule.

    Source: H. Xiao, K. Rasul, R. Vollgraf, "Fashion-MNIST" (2017); checksums as in torchvision.
    """

    name = "FashionMNIST"
    num_classes = 10
    image_size = 32
    mean = (_MEAN, _MEAN, _MEAN)
    std = (_STD, _STD, _STD)

    url: ClassVar[str] = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
    file_md5s: ClassVar[dict[str, str]] = {
        "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
        "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
        "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
    }

    @property
    def folder(self) -> Path:
        """The folder with the four files."""
        return Path(self.root) / "FashionMNIST" / "raw"

    def prepare_data(self) -> None:
        """Download the files that are missing.

        Raises:
            FileNotFoundError: If a file is missing and there is no network.
            ValueError: If a file is not the official one.
            OSError: If a file cannot be written.
        """
        for file_name, md5 in self.file_md5s.items():
            path = self.folder / file_name
            if not path.exists() and not path.with_suffix("").exists():
                fetch(self.url + file_name, path, md5)

    def load_split(
        self, split: Literal["train", "test"]
    ) -> tuple[UInt8[Tensor, "count 3 size size"], Int64[Tensor, " count"]]:
        """Read one split and pad its images.

        Raises:
            FileNotFoundError: If a file is missing.
            ValueError: If a file is not the official one.
        """
        prefix = "train" if split == "train" else "t10k"
        grey = torch.from_numpy(self._read(f"{prefix}-images-idx3-ubyte.gz", dimensions=3))
        labels = torch.from_numpy(self._read(f"{prefix}-labels-idx1-ubyte.gz", dimensions=1))
        if grey.shape != (len(labels), ORIGINAL_SIZE, ORIGINAL_SIZE):
            raise ValueError(
                f"{self.folder / prefix}-images-idx3-ubyte: images of shape {tuple(grey.shape)} do not go "
                f"with {len(labels)} labels of 28x28 images"
            )
        border = (self.image_size - ORIGINAL_SIZE) // 2
        padded = functional.pad(grey, (border,) * 4)
        return padded[:, None].expand(-1, 3, -1, -1).contiguous(), labels.to(torch.int64)

    def _read(self, file_name: str, dimensions: int) -> NDArray[np.uint8]:
        compressed = self.folder / file_name
        path = compressed if compressed.is_file() else compressed.with_suffix("")
        if not path.is_file():
            raise FileNotFoundError(f"{compressed}: missing; put the file from {self.url}{file_name} there")
        if path == compressed:
            verify_md5(
                path, self.file_md5s[file_name], f"delete it, or put {self.url}{file_name} in its place"
            )
            try:
                data = gzip.decompress(path.read_bytes())
            except (EOFError, OSError, zlib.error) as error:
                raise ValueError(f"{path}: the file is damaged ({error})") from error
        else:
            data = path.read_bytes()
        return parse_idx(data, dimensions, path)


def parse_idx(data: bytes, dimensions: int, path: Path) -> NDArray[np.uint8]:
    """Parse an IDX file of bytes: two zeros, type 8, number of dimensions, big-endian sizes, values.

    Args:
        data: Content of the file.
        dimensions: Number of dimensions it must have.
        path: Its name, for messages.

    Returns:
        The array.

    Raises:
        ValueError: If header or length are wrong.
    """
    header = 4 + 4 * dimensions
    if len(data) < header or data[:4] != bytes((0, 0, 8, dimensions)):
        raise ValueError(f"{path}: not an IDX file of bytes with {dimensions} dimensions")
    shape = struct.unpack(f">{dimensions}I", data[4:header])
    if len(data) != header + math.prod(shape):
        raise ValueError(
            f"{path}: {len(data)} bytes, but its header announces {header + math.prod(shape)}: "
            "the file is damaged"
        )
    return np.frombuffer(data, dtype=np.uint8, offset=header).reshape(shape).copy()
