"""`nas-lightning predict`: classes and probabilities of images, or of a split of the data, as CSV."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas_lightning.cli.argument_parser import (
    ArgumentParser,
    add_checkpoint_argument,
    checkpoint_first,
    integer,
    named_path,
)
from nas_lightning.files import atomic_write

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from nas_lightning.datamodules import ImageDataModule

IMAGE_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
"""Files that are images, in a folder."""


def main(arguments: Sequence[str]) -> None:
    """Run ``nas-lightning predict``; a leading ``predict`` is skipped."""
    options = argument_parser().parse(checkpoint_first(arguments))
    if bool(options.images) == (options.split is not None):
        raise ValueError("`images` or `--split`: give image files and folders, or a split of the data")
    files = image_files(options.images)

    import torch

    from nas_lightning.cli.trained import load_trained, trained_data

    module, settings = load_trained(options)
    data = trained_data(settings, options.root)
    if data is None:
        raise ValueError(f"{settings.path} does not say how its images were normalised")
    count = module.network.num_classes
    names = class_names(data, count)
    if options.split is None:
        rows = [[str(file).encode(errors="backslashreplace").decode()] for file in files]
        head, batches = ["file"], _from_files(files, data)
    else:
        data.prepare_data()
        data.setup()
        if options.split not in data.split_sizes:
            raise ValueError(f"`--split` (={options.split}): {data.name} was trained without such a split")
        images, targets = data.split_arrays(options.split)
        head = ["index", "target"]
        rows = [[str(index), str(int(target))] for index, target in enumerate(targets)]
        batches = iter(images)
    predicted: list[Tensor] = []
    with torch.no_grad():
        while some := list(islice(batches, options.batch_size)):
            predicted.append(module.network(data.normalise(torch.stack(some))).softmax(dim=1))
    probabilities = torch.cat(predicted)
    with atomic_write(options.output) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([*head, "class", "name", *(f"probability_{name}" for name in names)])
        for row, values in zip(rows, probabilities, strict=True):
            best = int(values.argmax())
            writer.writerow([*row, best, names[best], *(f"{float(value):.6g}" for value in values)])
    print(f"{options.output}: {len(rows)} images")


def argument_parser() -> ArgumentParser:
    """The options of ``nas-lightning predict``."""
    parser = ArgumentParser(
        prog="nas-lightning predict",
        description="Predict the classes of images, or of a split of the data, with a trained network.",
        allow_abbrev=False,
    )
    add_checkpoint_argument(parser)
    parser.add_argument("images", nargs="*", type=named_path, help="image files, and folders of them")
    parser.add_argument("--split", choices=("train", "val", "test"), help="a split of the training's data")
    parser.add_argument("--root", help="folder of the data set (that of the training)")
    parser.add_argument("-o", "--output", type=named_path, required=True, help="the CSV file")
    parser.add_argument("--batch_size", type=integer(1), default=250, help="images at once (250)")
    return parser


def image_files(paths: Sequence[Path]) -> list[Path]:
    """The image files among files and folders, those of a folder sorted by name, without hidden ones.

    Raises:
        FileNotFoundError: If there is no such file or folder.
        ValueError: If a folder holds no image.
    """
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            found = sorted(
                file
                for file in path.rglob("*")
                if file.suffix.lower() in IMAGE_SUFFIXES and not file.name.startswith(".") and file.is_file()
            )
            if not found:
                raise ValueError(f"`images` (={path}) holds no image ({', '.join(IMAGE_SUFFIXES)})")
            files += found
        elif path.is_file():
            files.append(path)
        else:
            raise FileNotFoundError(f"`images` (={path}) is neither a file nor a folder")
    return files


def class_names(data: ImageDataModule, count: int) -> list[str]:
    """Names of the classes; their numbers where the data set has no names."""
    names: Any = getattr(data, "class_names", None)
    return list(names) if names and len(names) == count else [str(number) for number in range(count)]


def read_image(path: Path, size: int) -> torch.Tensor:
    """An image file as uint8 ``[3, size, size]``: in colour, its middle square, resized if need be.

    Grey values of 16 bits keep their upper 8, as Pillow does with colours; of an animation the first image
    counts. Transparency is dropped, as in the training's images.

    Raises:
        ValueError: If it is no image, or has values whose range its file does not tell.
    """
    import numpy as np
    import torch
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(path) as opened:
            is_deep = opened.mode.startswith("I;16") or (opened.mode, opened.format) == ("I", "PNG")
            upright = ImageOps.exif_transpose(opened)
            if upright.mode in ("I", "F") and not is_deep:
                raise ValueError("its values have 32 bits, and no range: save it with 8 or 16 bits")
            if is_deep:
                upright = Image.fromarray((np.asarray(upright).astype(np.uint32) >> 8).astype(np.uint8))
            image = upright.convert("RGB")
    except UnidentifiedImageError as error:
        raise ValueError(f"`images` (={path}) is no image that can be read") from error
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"`images` (={path}) is no image that can be read: {error}") from error
    if image.size != (size, size):
        image = ImageOps.fit(image, (size, size), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()


def _from_files(files: Sequence[Path], data: ImageDataModule) -> Iterator[Tensor]:
    return (read_image(file, data.image_size) for file in files)
