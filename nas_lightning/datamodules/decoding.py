"""Image files of a data set on their way into its cache, and the record of what was found."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Int64, UInt8
from numpy.typing import NDArray
from tqdm import tqdm

from nas_lightning.datamodules.image_files import UnreadableImage, read_frame
from nas_lightning.datamodules.threads import on_all_cores
from nas_lightning.files import atomic_write, shown

RECORD = "images.json"
TABLE = "images.csv"

_BLOCK_BYTES = 1 << 26

Source = Path | bytes
"""An image file, or what it holds."""
Part = Literal["train", "val", "test"]


class ListedImage(NamedTuple):
    """An image that is to be decoded: its name inside the data set, and its class."""

    name: str
    target: int


@dataclass
class DecodedPart:
    """The images of one part while they are decoded, and what is found out about them.

    Attributes:
        images: The images as they are listed.
        sources: Returns their files, or what these hold, in the order of the names that it is given.
        size: Height and width to which they are brought.
        is_measured: Whether their values are counted, for mean and standard deviation.
        unreadable: Why an image cannot be read, by name.
        animated: Names of those that are the first frame of an animation.
        histogram: Number of pixels of each channel (row) that have each value (column).
    """

    images: Sequence[ListedImage]
    sources: Callable[[Sequence[str]], Iterator[Source]]
    size: int
    is_measured: bool
    unreadable: dict[str, str] = field(default_factory=dict)
    animated: list[str] = field(default_factory=list)
    histogram: NDArray[np.int64] = field(default_factory=lambda: np.zeros((3, 256), np.int64))

    @property
    def targets(self) -> Int64[NDArray[np.int64], " count"]:
        """Classes of the images that were read."""
        return np.array(
            [image.target for image in self.images if image.name not in self.unreadable], np.int64
        )

    def blocks(self, progress: tqdm[Any]) -> Iterator[UInt8[NDArray[np.uint8], "some 3 size size"]]:
        """The images that can be read, in order, some at a time."""
        most = max(1, min(1024, _BLOCK_BYTES // (3 * self.size**2)))
        names = [image.name for image in self.images]
        sources = zip(names, self.sources(names), strict=True)
        with closing(on_all_cores(sources, self._read, at_once=max(1, min(64, most // 4)))) as frames:
            while some := list(islice(frames, most)):
                progress.update(len(some))
                found = [frame for frame in some if frame is not None]
                none = np.zeros((3, self.size, self.size), np.uint8)
                block = np.stack([*found, none])[:-1]  # none may be found
                if self.is_measured:
                    for channel in range(3):
                        counted = np.bincount(block[:, channel].ravel(), minlength=256)
                        self.histogram[channel] += counted
                yield block

    def mean_and_std(self) -> tuple[list[float], list[float]]:
        """Of each channel over all pixels, in [0, 1]; a channel of one value has the deviation 1."""
        values, total = np.arange(256) / 255, max(int(self.histogram[0].sum()), 1)
        mean = self.histogram @ values / total
        variance = np.maximum(self.histogram @ values**2 / total - mean**2, 0)
        std = np.sqrt(np.where(variance > 1e-12, variance, 1))
        return mean.tolist(), std.tolist()

    def rows(self, part: Part, classes: Sequence[str]) -> Iterator[tuple[str, int | str, str, str, str]]:
        """Lines of the table: split, position, class, file, remark."""
        position, animated = 0, set(self.animated)
        for name, target in self.images:
            if name in self.unreadable:
                yield part, "", classes[target], shown(name), f"unreadable: {self.unreadable[name]}"
                continue
            remark = "animated: first frame" if name in animated else ""
            yield part, position, classes[target], shown(name), remark
            position += 1

    def _read(self, named: tuple[str, Source]) -> NDArray[np.uint8] | None:
        """The image of a file; None, and a note of the cause, if it cannot be read."""
        name, source = named
        try:
            frame, animated = read_frame(source, self.size)
        except UnreadableImage as error:
            self.unreadable[name] = shown(str(error))
            return None
        if animated:
            self.animated.append(name)
        return frame


def write_record(folder: Path, key: str, classes: Sequence[str], parts: Mapping[Part, DecodedPart]) -> None:
    """Write what was found to :data:`RECORD`, and a line for each image to :data:`TABLE`.

    Args:
        folder: Where to.
        key: Changes when a file does, see :class:`~nas_lightning.datamodules.decoded_images.Listing`.
        classes: Names of the classes in the order of their numbers.
        parts: The parts, decoded; mean and standard deviation are those of ``"train"``.
    """
    mean, std = parts["train"].mean_and_std()
    record = {
        "key": key,
        "mean": mean,
        "std": std,
        "counts": {part: len(one.targets) for part, one in parts.items()},
        "unreadable": [
            (shown(image.name), one.unreadable[image.name])
            for one in parts.values()
            for image in one.images
            if image.name in one.unreadable
        ],
        "animated": [shown(name) for one in parts.values() for name in sorted(one.animated)],
    }
    with atomic_write(folder / RECORD) as file:
        json.dump(record, file, indent=1)
    with atomic_write(folder / TABLE) as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["split", "position", "class", "file", "remark"])
        for part, one in parts.items():
            table.writerows(one.rows(part, classes))
