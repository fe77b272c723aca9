"""CIFAR-10 and CIFAR-100 from their official Python archives."""

from __future__ import annotations

import hashlib
import importlib
import io
import pickle
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from nas_lightning.datamodules.base import ImageDataModule
from nas_lightning.datamodules.disk import locked
from nas_lightning.datamodules.download import extract_tar, fetch, verify_md5


class CIFAR10(ImageDataModule):
    """50,000 training and 10,000 test images of 10 classes, 32x32, in colour.

    Read from ``ROOT/cifar-10-batches-py``, the folder that the official archive holds and torchvision leaves.
    Where it is missing it is unpacked from ``ROOT/cifar-10-python.tar.gz``, which is downloaded where it is
    missing too. Every file is checked against its published MD5 before it is read. Arguments as in
    ImageDataModule.

    Source: A. Krizhevsky, "Learning multiple layers of features from tiny images" (2009); checksums as in
    torchvision; mean and standard deviation as in the DARTS family of code.
    """

    name = "CIFAR-10"
    num_classes = 10
    image_size = 32
    mean = (0.49139968, 0.48215827, 0.44653124)
    std = (0.24703233, 0.24348505, 0.26158768)

    url: ClassVar[str] = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
    archive_md5: ClassVar[str] = "c58f30108f718f92721af3b95e74349a"
    folder_name: ClassVar[str] = "cifar-10-batches-py"
    labels_key: ClassVar[str] = "labels"
    file_md5s: ClassVar[dict[str, dict[str, str]]] = {
        "train": {
            "data_batch_1": "c99cafc152244af753f735de768cd75f",
            "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
            "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
            "data_batch_4": "634d18415352ddfa80567beed471001a",
            "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
        },
        "test": {"test_batch": "40351d587109b95175f43aff81a1287e"},
    }

    @property
    def folder(self) -> Path:
        """The folder with the unpacked files."""
        return Path(self.root) / self.folder_name

    @property
    def archive(self) -> Path:
        """Where the official archive belongs."""
        return Path(self.root) / Path(self.url).name

    def prepare_data(self) -> None:
        """Unpack the archive, downloading it first where it is missing.

        Raises:
            FileNotFoundError: If there is neither folder nor archive nor network.
            ValueError: If the archive is not the official one.
            OSError: If the files cannot be written.
        """
        if self.folder.is_dir():
            return
        with locked(self.folder):
            if not self.folder.is_dir():
                fetch(self.url, self.archive, self.archive_md5)
                extract_tar(self.archive, self.folder)

    def load_split(
        self, split: Literal["train", "test"]
    ) -> tuple[UInt8[Tensor, "count 3 size size"], Int64[Tensor, " count"]]:
        """Read and verify the files of one split.

        Raises:
            FileNotFoundError: If one is missing.
            ValueError: If one is not the official file.
        """
        images, labels = [], []
        for file_name, md5 in self.file_md5s[split].items():
            entry = self._read(self.folder / file_name, md5)
            images.append(np.asarray(entry["data"], dtype=np.uint8).reshape(-1, 3, 32, 32))
            labels.extend(entry[self.labels_key])
        return torch.from_numpy(np.concatenate(images)), torch.tensor(labels, dtype=torch.int64)

    def _read(self, path: Path, md5: str) -> dict[str, Any]:
        remedy = f"delete {self.folder}, it is then unpacked again from {self.archive.name}"
        if not path.is_file():
            raise FileNotFoundError(f"{path}: missing; {remedy}")
        data = path.read_bytes()
        verify_md5(path, md5, remedy, hashlib.md5(data, usedforsecurity=False).hexdigest())
        try:
            entry = _ArrayUnpickler(io.BytesIO(data), encoding="latin1").load()
        except (pickle.UnpicklingError, EOFError) as error:
            raise ValueError(f"{path}: refused, {error}") from error
        if not isinstance(entry, dict) or not {"data", self.labels_key} <= entry.keys():
            raise ValueError(f"{path}: holds no {self.name} batch (keys `data` and `{self.labels_key}`)")
        return entry


class CIFAR100(CIFAR10):
    """50,000 training and 10,000 test images of 100 (fine) classes, 32x32, in colour.

    Read from ``ROOT/cifar-100-python``, or from ``ROOT/cifar-100-python.tar.gz``; otherwise as CIFAR10.
    """

    name = "CIFAR-100"
    num_classes = 100
    mean = (0.50707516, 0.48654887, 0.44091784)
    std = (0.26733429, 0.25643846, 0.27615047)

    url = "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz"
    archive_md5 = "eb9058c3a382ffc7106e4002c42a8d85"
    folder_name = "cifar-100-python"
    labels_key = "fine_labels"
    file_md5s: ClassVar[dict[str, dict[str, str]]] = {
        "train": {"train": "16019d7e3df5f24257cddd939b257f8d"},
        "test": {"test": "f0ef6b0ae62326f3e7ffdfab6717acfc"},
    }


class _ArrayUnpickler(pickle.Unpickler):
    """Unpickles NumPy arrays and plain containers, and nothing that could run code."""

    def find_class(self, module: str, name: str) -> Any:
        if name == "_reconstruct" and module in ("numpy.core.multiarray", "numpy._core.multiarray"):
            return importlib.import_module("numpy._core.multiarray")._reconstruct
        if module == "numpy" and name in ("ndarray", "dtype"):
            return getattr(np, name)
        if (module, name) == ("_codecs", "encode"):
            return _encode
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no {CIFAR10.name} file does")


def _encode(text: str, encoding: str) -> bytes:
    """What Python 3 writes for bytes in protocol 2."""
    return text.encode(encoding)
