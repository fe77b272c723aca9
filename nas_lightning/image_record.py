"""What the images of a trained network are like, and what its classes are called: kept in checkpoints."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, cast

_LARGEST_SIZE = 2**14
_LARGEST_NUMBER = 1e30


@dataclass(frozen=True)
class ImageRecord:
    """Size, normalisation and classes of the images that a network was trained on.

    Attributes:
        name: Name of the data set.
        image_size: Height and width in pixels.
        mean: Mean of each channel, in [0, 1], which is subtracted.
        std: Standard deviation of each channel, in [0, 1], which divides.
        class_names: Names of the classes in the order of their numbers; None where they have none.
    """

    name: str
    image_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    class_names: tuple[str, ...] | None = None

    def plain(self) -> dict[str, Any]:
        """The record as a checkpoint keeps it."""
        return {
            key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()
        }


def read_image_record(
    content: object, num_classes: int | None = None, said: str = "the checkpoint's `images`"
) -> ImageRecord:
    """Make a record of plain values; what a later version may add to it is left unread.

    Args:
        content: The values, as :meth:`ImageRecord.plain` gives them.
        num_classes: Number of classes of the network, where that is known.
        said: Where they stand, for messages.

    Raises:
        ValueError: If something is missing or has another form; the message names it.
    """
    if not isinstance(content, Mapping):
        raise ValueError(f"{said} must be a mapping, not of type {type(content).__name__}")
    keys = ("name", "image_size", "mean", "std", "class_names")
    for key in keys:
        if key not in content:
            raise ValueError(f"{said}: `{key}` is missing")
    name, size, mean, std, names = (content[key] for key in keys)
    for key, is_right, what in (
        ("name", isinstance(name, str), "text"),
        ("image_size", type(size) is int and 0 < size <= _LARGEST_SIZE, f"from 1 to {_LARGEST_SIZE}"),
        ("mean", _are_three(mean, -_LARGEST_NUMBER), "three finite numbers"),
        ("std", _are_three(std, 0.0), "three finite numbers above 0"),
        ("class_names", names is None or _are_names(names), "a list of names, or None"),
    ):
        if not is_right:
            raise ValueError(f"{said}: `{key}` (={content[key]!r:.80}) must be {what}")
    if names is not None and num_classes is not None and len(names) != num_classes:
        raise ValueError(f"{said}: `class_names` has {len(names)} names, but there are {num_classes} classes")
    middle, spread = (cast("tuple[float, float, float]", tuple(map(float, values))) for values in (mean, std))
    return ImageRecord(name, size, middle, spread, None if names is None else tuple(names))


def class_labels(names: Iterable[str] | None, count: int) -> list[str]:
    """What ``count`` classes are called: by name, or by number where there are not as many names.

    Two classes of one name get their numbers behind it.
    """
    found = list(names or ())
    if len(found) != count:
        return [str(number) for number in range(count)]
    return [name if found.count(name) == 1 else f"{name} ({number})" for number, name in enumerate(found)]


def _are_three(values: Any, lowest: float) -> bool:
    is_list = isinstance(values, list | tuple) and len(values) == 3
    return is_list and all(type(v) in (int, float) and lowest < v < _LARGEST_NUMBER for v in values)


def _are_names(values: Any) -> bool:
    return isinstance(values, list | tuple) and all(isinstance(value, str) for value in values)
