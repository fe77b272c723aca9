"""Seconds to decode a folder of JPEG files, to start again from the cache, and to read the files plainly.

As many files as CIFAR-10 has, of its size; or a folder that is given, which is copied. The plain way is
torchvision's ImageFolder with a resize, a crop and one thread, as many repositories read their images at
every start; it is timed on part of the files.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from torchvision.datasets import ImageFolder as TorchvisionFolder
from torchvision.transforms.v2 import CenterCrop, Compose, PILToTensor, Resize

from benchmarks.record import write
from nas_lightning.datamodules import ImageFolder

ASKED_DECODING = 60.0
ASKED_START = 2.0
"""Seconds for 60,000 files of 32 x 32 pixels on two cores."""


def make_files(root: Path, count: int, size: int) -> None:
    """Write smooth coloured images with noise, a sixth of them as a test split, in ten classes."""
    random = np.random.default_rng(0)
    for number in range(count):
        folder = root / ("test" if number % 6 == 0 else "train") / f"class{number % 10}"
        folder.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(random.integers(0, 256, (4, 4, 3), dtype=np.uint8))
        pixels = np.asarray(coarse.resize((size, size), Image.Resampling.BICUBIC))
        noisy = pixels.astype(np.int16) + random.integers(-12, 13, pixels.shape)
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(folder / f"{number}.jpg", quality=95)


def seconds(call: Callable[[], object]) -> dict[str, float]:
    """Wall and CPU seconds of a call."""
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    return {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}


def start(root: Path, size: int) -> ImageFolder:
    """The data module, ready to train."""
    data = ImageFolder(str(root), image_size=size)
    data.prepare_data()
    data.setup()
    return data


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the seconds and write them to ``results/decoding.json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="a folder of images (made-up ones)")
    parser.add_argument("--images", type=int, default=60_000, help="made-up images (60000)")
    parser.add_argument("--size", type=int, default=32, help="height and width in pixels (32)")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary) / "images"
        if options.folder is None:
            make_files(root, options.images, options.size)
        else:
            shutil.copytree(options.folder, root, ignore=shutil.ignore_patterns(".*"))
        decoding = seconds(lambda: start(root, options.size))
        again = seconds(lambda: start(root, options.size))
        count = sum(start(root, options.size).split_sizes.values())
        square = Compose([Resize(options.size), CenterCrop(options.size), PILToTensor()])
        files = TorchvisionFolder(root / "test", square)
        plain = seconds(lambda: [files[index] for index in range(len(files))])
    plain = {clock: value * count / len(files) for clock, value in plain.items()}
    times = {"decoding": decoding, "second start": again, "torchvision, every start": plain}
    for name, values in times.items():
        print(f"{name:<28} {values['wall']:8.2f} s  {values['cpu']:8.2f} CPU s  of {count:,} images")
    asked = {"decoding": ASKED_DECODING, "second start": ASKED_START}
    write("decoding", {"images": count, "size": options.size, "seconds": times, "at_most": asked})


if __name__ == "__main__":
    main()
