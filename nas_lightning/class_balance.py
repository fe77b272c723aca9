"""How evenly the images of a data set are spread over its classes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int64

UNEVEN = 1.5
"""Ratio of the largest to the smallest class above which classes count as uneven. Of even data sets, MNIST's
is 1.24; of a split that is stratified it is nearer to 1."""
_NAMED = 5
_WORDS = {"train": "training", "val": "validation"}


@dataclass(frozen=True, eq=False)
class ClassBalance:
    r"""Number of images of each class in each split.

    Classes are uneven if in a split the largest has more than :data:`UNEVEN` times the images of the
    smallest, and at least two more: numbers that differ by one are as even as a division can be.

    Attributes:
        counts: Images of each class, by split.
        names: Names of the classes in the order of their numbers; None where they have none.

    Examples:
        >>> pets = ClassBalance({"train": np.array([40, 400, 0])}, ("cat", "dog", "newt"))
        >>> print(*pets.lines("Pets"), sep="\n")
        Pets: uneven classes: 400 training images of dog, 40 of cat (10.0 to 1)
        Pets: no training image of newt
    """

    counts: Mapping[str, Int64[np.ndarray, " classes"]]
    names: tuple[str, ...] | None = None

    @property
    def is_uneven(self) -> bool:
        """Whether the classes of a split are uneven."""
        return any(_is_uneven(int(counts.max()), int(counts.min())) for counts in self.counts.values())

    def lines(self, data: str) -> list[str]:
        """What is worth saying of the data set of this name, in at most two lines; none of even classes."""
        uneven, missing = [], []
        for split, counts in self.counts.items():
            (most, largest), (least, smallest) = _ends(counts)
            of_split = _WORDS.get(split, split)
            if _is_uneven(largest, smallest):
                uneven.append(
                    f"{largest:,} {of_split} images of {self._name(most)}, {smallest:,} of"
                    f" {self._name(least)} ({largest / smallest:.1f} to 1)"
                )
            empty = [self._name(number) for number in np.flatnonzero(counts == 0).tolist()]
            missing += [f"no {of_split} image of {_some(empty)}"] if empty else []
        lines = [f"{data}: uneven classes: {'; '.join(uneven)}"] if uneven else []
        return lines + ([f"{data}: {'; '.join(missing)}"] if missing else [])

    def record(self) -> dict[str, Any]:
        """For each split the largest and the smallest class with their images, and the classes without."""
        record = {}
        for split, counts in self.counts.items():
            ends = zip(("largest", "smallest"), _ends(counts), strict=True)
            record[split] = {
                **{end: {"class": self._name(number), "images": images} for end, (number, images) in ends},
                "empty": [self._name(number) for number in np.flatnonzero(counts == 0).tolist()],
            }
        return record

    def _name(self, number: int) -> str:
        return f"class {number}" if self.names is None else self.names[number]


def _is_uneven(largest: int, smallest: int) -> bool:
    return largest > UNEVEN * smallest and largest - smallest > 1


def _ends(counts: Int64[np.ndarray, " classes"]) -> tuple[tuple[int, int], tuple[int, int]]:
    """Number and images of the largest class, and of the smallest that has any."""
    most, least = int(counts.argmax()), int(np.where(counts > 0, counts, counts.max() + 1).argmin())
    return (most, int(counts[most])), (least, int(counts[least]))


def _some(names: Iterable[str]) -> str:
    """The first names, and how many more there are."""
    listed = list(names)
    more = len(listed) - _NAMED
    # Where one is left, its name is as short as the number.
    return ", ".join(listed if more <= 1 else [*listed[:_NAMED], f"{more} more"])
