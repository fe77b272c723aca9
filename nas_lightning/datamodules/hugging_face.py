"""HuggingFace: a folder of Parquet files with images and labels, the format of the Hugging Face hub."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from lightning.pytorch.utilities import rank_zero_info
from numpy.typing import NDArray

from nas_lightning.datamodules.decoded_images import DecodedImages, Listing
from nas_lightning.datamodules.decoding import ListedImage, Part, Source
from nas_lightning.datamodules.image_files import files_below
from nas_lightning.datamodules.storage import reason
from nas_lightning.files import shown

if TYPE_CHECKING:
    import pyarrow as pa
    from pyarrow import parquet

_SPLIT_NAMES: dict[Part, str] = {
    "train": "train|training",
    "val": "val|valid|validation|dev",
    "test": "test|testing|eval|evaluation",
}
_IMAGE_NAMES = ("image", "img")
_LABEL_NAMES = ("label", "labels", "target", "class")


class HuggingFace(DecodedImages):
    """A folder of Parquet files, with a column of encoded images and one of labels.

    The format of data sets on the Hugging Face hub: a column of images holds the bytes of image files,
    alone or in a struct beside their path. The split of a file is a word of its path, as in
    ``data/train-00000-of-00004.parquet`` or ``validation/0000.parquet``; without such a word it belongs to
    the training split. Class names are those that the files' metadata give; otherwise the distinct labels in
    ascending order. A split whose labels are all missing (-1 or null) is left out. Test and validation splits
    as in :class:`~nas_lightning.datamodules.image_folder.ImageFolder`.

    Args:
        root: Folder of the files.
        image_column: Name of the column of images; None: the only one that holds bytes, or ``image``.
        label_column: Name of the column of labels; None: the only one of class labels, or ``label``.
        **kwargs: As in DecodedImages.
    """

    def __init__(
        self, root: str, image_column: str | None = None, label_column: str | None = None, **kwargs: Any
    ) -> None:
        self.image_column = image_column
        self.label_column = label_column
        super().__init__(root, **kwargs)
        self.save_hyperparameters("image_column", "label_column", logger=False)

    def list_classes(self) -> tuple[str, ...]:
        """Names of the classes, from the metadata or from the training labels."""
        self._files  # noqa: B018  (says what is wrong with them)
        return tuple(shown(str(name)) for name in self._named_classes or self._distinct_labels)

    def list_images(self) -> Listing:
        """List the rows of all files, by split, file and row.

        Raises:
            ValueError: If labels are missing or not among the classes.
        """
        root = Path(self.root)
        digest = hashlib.sha256(f"{self._columns}".encode())
        parts: dict[Part, list[ListedImage]] = {}
        for part, files in self._files.items():
            listed: list[ListedImage] = []
            for file in files:
                if not file.is_file():
                    raise FileNotFoundError(f"{file}: missing, or no file")
                status = file.stat()
                name = os.path.relpath(file, root)
                digest.update(os.fsencode(f"{part}\0{name}\0{status.st_size} {status.st_mtime_ns}\0"))
                targets = self._targets(file)
                listed += [
                    ListedImage(f"{name}:{row}", target) for row, target in enumerate(targets.tolist())
                ]
            unlabelled = sum(image.target < 0 for image in listed)
            if (
                part != "train"
                and listed
                and all(label in (None, -1) for file in files for label in self._labels(file))
            ):
                rank_zero_info(f"{self.name}: the {part} split is left out: it has no labels")
            elif unlabelled:
                first = next(image.name for image in listed if image.target < 0)
                raise ValueError(
                    f"`data.root` (={self.root}): {unlabelled:,} of {len(listed):,} rows of the {part} split"
                    f" have no label in {self._columns[1]!r} or one that is no class, first {first}"
                )
            else:
                parts[part] = listed
        return Listing(parts, digest.hexdigest())

    def sources(self, names: Sequence[str]) -> Iterator[Source]:
        """The bytes of the images, read a few rows at a time."""
        for file, rows in groupby((name.rpartition(":") for name in names), key=lambda parted: parted[0]):
            yield from self._images(Path(self.root, file), {int(row) for *_, row in rows})

    def _images(self, path: Path, rows: set[int]) -> Iterator[Source]:
        first, column = 0, self._columns[0]
        with _opened(path) as file:
            for batch in file.iter_batches(batch_size=64, columns=[column]):
                values = batch.column(batch.schema.names.index(column))
                for row, value in enumerate(values, start=first):
                    if row in rows:
                        yield _source(value.as_py(), path.parent)
                first += len(batch)
        if first <= max(rows):
            raise ValueError(f"{path}: changed while it was read")

    @cached_property
    def _files(self) -> dict[Part, list[Path]]:
        """The files of each split, by path."""
        root = Path(self.root)
        found: dict[Part, list[Path]] = {}
        for entry in files_below(root, (".parquet",)):
            path = Path(entry.path)
            inside = path.relative_to(root)
            words = re.split(r"[^a-z0-9]+", inside.with_suffix("").as_posix().lower())
            parts = [part for part, names in _SPLIT_NAMES.items() if set(words) & set(names.split("|"))]
            if len(parts) > 1:
                raise ValueError(f"`data.root` (={self.root}): {inside} names {' and '.join(parts)}")
            found.setdefault(parts[0] if parts else "train", []).append(path)
        if not found:
            raise FileNotFoundError(f"`data.root` (={self.root}) holds no Parquet file")
        if "train" not in found:
            raise FileNotFoundError(f"`data.root` (={self.root}) holds no file of a training split")
        return found

    @cached_property
    def _columns(self) -> tuple[str, str]:
        """Names of the columns of images and labels."""
        fields = list(self._schema)
        images = [field.name for field in fields if _holds_bytes(field.type)]
        others = [field.name for field in fields if field.name not in images]
        classes = [name for name in others if self._features.get(name, {}).get("_type") == "ClassLabel"]
        labels = classes or [name for name in _LABEL_NAMES if name in others]
        return (
            self._column("image_column", self.image_column, images, _IMAGE_NAMES),
            self._column("label_column", self.label_column, labels, _LABEL_NAMES, others),
        )

    def _column(
        self,
        setting: str,
        given: str | None,
        found: Sequence[str],
        preferred: Sequence[str],
        allowed: Sequence[str] | None = None,
    ) -> str:
        columns = found if allowed is None else allowed
        suitable = f"the columns that suit are {', '.join(columns)}" if columns else "no column suits"
        if given is not None:
            if given not in columns:
                problem = "is of another kind" if given in self._schema.names else "is not there"
                raise ValueError(f"`data.{setting}` (={given}): the column {problem}; {suitable}")
            return given
        chosen = found if len(found) == 1 else [name for name in preferred if name in found][:1]
        if not chosen:
            raise ValueError(f"`data.{setting}` must name a column of {self.root}; {suitable}")
        return chosen[0]

    @cached_property
    def _schema(self) -> pa.Schema:
        with _opened(self._files["train"][0]) as file:
            return file.schema_arrow

    @cached_property
    def _features(self) -> dict[str, dict[str, Any]]:
        return _features(self._schema)

    @cached_property
    def _named_classes(self) -> tuple[str, ...]:
        return _class_names(self._features, self._columns[1])

    @cached_property
    def _distinct_labels(self) -> list[Any]:
        found: set[Any] = set()
        for path in self._files["train"]:
            found |= set(self._labels(path))
        found -= {None, -1}
        if any(not isinstance(label, str | int) for label in found) or len({type(one) for one in found}) > 1:
            raise ValueError(
                f"`data.label_column`: {self._columns[1]!r} of {self.root} holds neither whole numbers nor"
                " texts"
            )
        return sorted(found)

    def _targets(self, path: Path) -> NDArray[np.int64]:
        """Class of every row; -1 for a label that is missing or no class."""
        names = self._named_classes
        labels = self._distinct_labels if not names else list(range(len(names)))
        numbers = {label: target for target, label in enumerate(labels)}
        numbers |= {name: target for target, name in enumerate(names)}
        return np.array([numbers.get(label, -1) for label in self._labels(path)], np.int64)

    def _labels(self, path: Path) -> list[Any]:
        """The label of every row; the file must have both columns, and no other classes than the first."""
        image, label = self._columns
        with _opened(path) as file:
            schema = file.schema_arrow
            problem = _column_problem(schema, image, label)
            named = _class_names(_features(schema), label)
            if named and self._named_classes and named != self._named_classes:
                problem = f"its classes are others than those of {self._files['train'][0]}"
            if problem is None:
                table = file.read(columns=[label])
                labels: list[Any] = table.column(table.schema.names.index(label)).to_pylist()
                return labels
        raise ValueError(f"{path}: {problem}")


@contextmanager
def _opened(path: Path) -> Iterator[parquet.ParquetFile]:
    """A Parquet file; errors of Arrow in the block name it."""
    import pyarrow as pa  # takes a quarter of a second to import
    from pyarrow import parquet

    if not path.is_file():
        raise FileNotFoundError(f"{path}: missing, or no file")
    try:
        with parquet.ParquetFile(path) as file:
            yield file
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        with path.open("rb") as opened:
            if opened.read(16) == b"version https://":
                raise ValueError(f"{path}: a pointer of Git LFS; `git lfs pull` fetches the file") from None
        raise ValueError(f"{path}: damaged, or no Parquet file ({reason(error)})") from error


def _features(schema: pa.Schema) -> dict[str, dict[str, Any]]:
    """What the metadata say of the columns."""
    try:
        said = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {name: value for name, value in said.items() if isinstance(value, dict)}
    except (KeyError, ValueError, TypeError, AttributeError, RecursionError):
        return {}


def _class_names(features: Mapping[str, Mapping[str, Any]], column: str) -> tuple[str, ...]:
    names = features.get(column, {}).get("names")
    return tuple(map(str, names)) if isinstance(names, list) else ()


def _column_problem(schema: pa.Schema, image: str, label: str) -> str | None:
    """What is wrong with the columns of images and labels of a file, in a few words."""
    import pyarrow as pa

    for name in (image, label):
        if (count := schema.names.count(name)) != 1:
            return f"{count or 'no'} column{'s' if count else ''} {name!r}"
    if not _holds_bytes(schema.field(image).type):
        return f"column {image!r} holds no images but {schema.field(image).type}"
    kind = schema.field(label).type
    of_labels = kind.value_type if pa.types.is_dictionary(kind) else kind
    if pa.types.is_nested(of_labels) or pa.types.is_temporal(of_labels):
        return f"column {label!r} holds neither whole numbers nor texts but {kind}"
    return None


def _holds_bytes(kind: pa.DataType) -> bool:
    import pyarrow as pa

    if pa.types.is_struct(kind):
        return any(kind.field(index).name == "bytes" for index in range(kind.num_fields))
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _source(value: Any, folder: Path) -> Source:
    """The bytes of an image, or the file that a struct without bytes names."""
    if isinstance(value, dict):
        path = value.get("path")
        value = value.get("bytes") or (folder / path if isinstance(path, str) and path else None)
    return value if isinstance(value, bytes | Path) else b""
