"""A data set of 20 GiB of black images, in files that take no place; run as a module it trains on it."""

from __future__ import annotations

import io
import math
import re
import sys
from pathlib import Path

import numpy as np
import torch

from nas_lightning.cli.main import main
from nas_lightning.datamodules import ImageDataModule
from nas_lightning.datamodules.base import LabelledImages, OfficialSplit
from nas_lightning.datamodules.image_cache import map_npy

BYTES = 20 * 2**30


def write_sparse(path: Path, shape: tuple[int, ...]) -> None:
    """An NPY file of zeros that is a hole."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
    with path.open("wb") as file:
        file.write(header.getvalue())
        file.truncate(len(header.getvalue()) + math.prod(shape))


class Sparse(ImageDataModule):
    """Ten classes that nobody can tell apart, 1.7 million images of 64x64 pixels."""

    name = "Sparse"
    num_classes = 10
    image_size = 64
    mean = (0.5, 0.5, 0.5)
    std = (0.5, 0.5, 0.5)

    def prepare_data(self) -> None:
        """Write the files."""
        pixels = 3 * self.image_size**2
        for split, size in (("train", BYTES - BYTES // 10), ("test", BYTES // 10)):
            write_sparse(
                Path(self.root) / f"{split}.npy", (size // pixels, 3, self.image_size, self.image_size)
            )

    def load_split(self, split: OfficialSplit) -> LabelledImages:
        """Map a file into memory."""
        images = torch.from_numpy(map_npy(Path(self.root) / f"{split}.npy"))
        return images, torch.arange(len(images)) % self.num_classes


if __name__ == "__main__":
    for resident in ("auto", "host"):
        main([*sys.argv[1:], f"--data.resident={resident}", f"--run={resident}"])
    # Not `ru_maxrss`: a child starts with that of the process that started it.
    [peak] = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    print(f"{int(peak) / 2**20:.3f} GiB")
