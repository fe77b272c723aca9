"""Weights of checkpoints, read span by span, so that many large ones are never in memory together."""

from __future__ import annotations

import hashlib
import os
import struct
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from nas_lightning.torch_files import read_torch_file

StateDict: TypeAlias = Mapping[str, Tensor]


class Span(NamedTuple):
    """Entries of a parameter, as if it were flat: from `first` up to `last`, which is left out."""

    name: str
    first: int
    last: int


class StoredWeights:
    """Some parameters of a state dict in memory, in float64 and span by span.

    Args:
        state: The state dict.
        names: Its entries that count, in their order.
        label: What messages call the weights.

    Attributes:
        state: The state dict; of a checkpoint on disk nothing of it.
        shapes: Shape of every parameter that counts.
        label: What messages call the weights.

    Raises:
        ValueError: If an entry is missing.

    Example:
        >>> weights = StoredWeights({"weight": torch.arange(6.0).reshape(2, 3)}, ["weight"])
        >>> weights.read([Span("weight", 2, 5)])
        array([2., 3., 4.])
    """

    def __init__(self, state: StateDict, names: Sequence[str], label: str = "the weights") -> None:
        self.label = label
        self.shapes = _shapes(state, names, label)
        self.state: StateDict = state

    def read(self, spans: Sequence[Span]) -> Float64[np.ndarray, " entries"]:
        """The entries of some spans, one after the other."""
        return _entries(self.state, spans)

    def sha256(self) -> str:
        """Hash of names, shapes and float64 values."""
        digest = hashlib.sha256(repr(self.shapes).encode())
        for spans in blocks_of(self.shapes, 2**17):
            digest.update(self.read(spans).data)
        return digest.hexdigest()


class CheckpointWeights(StoredWeights):
    """Some parameters of a checkpoint's state dict, read from its file.

    Between two reads the file is closed and nothing of it is in memory. A file of ``torch.save`` is a zip
    archive without compression, so that spans are read where they lie. What lies elsewhere than expected,
    or in a file of an old version of torch, is read by loading the file each time.

    Args:
        path: The file; a checkpoint of Lightning, or a state dict.
        names: Entries of its state dict, without the `prefix`.
        prefix: What the names begin with in the file.
        label: What messages call it; the path by default.

    Raises:
        FileNotFoundError: If there is no such file.
        OSError: If it cannot be read.
        ValueError: If it is damaged, or an entry is missing.
    """

    def __init__(
        self, path: str | os.PathLike[str], names: Sequence[str], prefix: str = "", label: str = ""
    ) -> None:
        self.path, self._prefix = Path(path), prefix
        content = read_torch_file(self.path, mmap=True)
        state = self._own(content)
        super().__init__(state, names, label or str(path))
        self.state = {}
        self._places = _places(self.path, content, {name: state[name] for name in names})

    def read(self, spans: Sequence[Span]) -> Float64[np.ndarray, " entries"]:
        """The entries of some spans, one after the other."""
        if not self._places:
            return _entries(self.state_dict(), spans)
        with self.path.open("rb") as file:
            return np.concatenate([self._places[span.name].read(file.fileno(), span) for span in spans])

    def state_dict(self) -> StateDict:
        """The whole state dict, without the prefix; its tensors stay on disk until they are used."""
        return self._own(
            torch.load(self.path, weights_only=True, map_location="cpu", mmap=bool(self._places))
        )

    def _own(self, content: Any) -> StateDict:
        state = content.get("state_dict", content) if isinstance(content, Mapping) else {}
        cut = len(self._prefix)
        return {name[cut:]: value for name, value in state.items() if name.startswith(self._prefix)}


def blocks_of(shapes: Mapping[str, Sequence[int]], size: int) -> Iterator[list[Span]]:
    """Cut all parameters into blocks of at most `size` entries.

    Example:
        >>> for block in blocks_of({"a": (2, 2), "b": (3,)}, 5):
        ...     print([tuple(span) for span in block])
        [('a', 0, 4), ('b', 0, 1)]
        [('b', 1, 3)]
    """
    block: list[Span] = []
    room = size
    for name, shape in shapes.items():
        first, count = 0, int(np.prod(shape, dtype=np.int64))
        while first < count:
            last = min(count, first + room)
            block.append(Span(name, first, last))
            room -= last - first
            first = last
            if not room:
                yield block
                block, room = [], size
    if block:
        yield block


class _Place(NamedTuple):
    """Where a tensor lies in a file."""

    offset: int
    dtype: torch.dtype

    def read(self, file: int, span: Span) -> Float64[np.ndarray, " entries"]:
        width = self.dtype.itemsize
        content = os.pread(file, (span.last - span.first) * width, self.offset + span.first * width)
        values: np.ndarray = torch.frombuffer(bytearray(content), dtype=self.dtype).double().numpy()
        return values


def _places(path: Path, content: Any, tensors: StateDict) -> dict[str, _Place]:
    """Where tensors of a mapped file lie in it; nothing if one of them is not found there.

    The file is mapped as a whole: the first of its tensors lies at the place of the archive's first one.
    """
    start = _first_record(path)
    if start is None or not all(tensor.is_contiguous() for tensor in tensors.values()):
        return {}
    first = min(_addresses(content), default=0)
    places = {
        name: _Place(tensor.data_ptr() - first + start, tensor.dtype) for name, tensor in tensors.items()
    }
    with path.open("rb") as file:
        for name, place in places.items():
            bytes_here = tensors[name].flatten().view(torch.uint8).numpy()
            if os.pread(file.fileno(), bytes_here.size, place.offset) != bytes_here.tobytes():
                return {}
    return places


def _first_record(path: Path) -> int | None:
    """Place of the first tensor's bytes in an archive; None if the file is none."""
    if not zipfile.is_zipfile(path):
        return None
    with zipfile.ZipFile(path) as archive, path.open("rb") as file:
        places = [record.header_offset for record in archive.infolist() if "/data/" in record.filename]
        if not places:
            return None
        header = os.pread(file.fileno(), 30, min(places))
    lengths: tuple[int, int] = struct.unpack("<HH", header[26:30])  # of the name and of the extra field
    return min(places) + 30 + sum(lengths)


def _addresses(content: Any) -> Iterator[int]:
    """Addresses of all tensors' storages in nested content."""
    if isinstance(content, Tensor):
        if content.untyped_storage().nbytes():
            yield content.untyped_storage().data_ptr()
    elif isinstance(content, Mapping):
        for value in content.values():
            yield from _addresses(value)
    elif isinstance(content, list | tuple):
        for value in content:
            yield from _addresses(value)


def _entries(state: StateDict, spans: Sequence[Span]) -> Float64[np.ndarray, " entries"]:
    parts = [state[span.name].detach().flatten()[span.first : span.last].cpu().double() for span in spans]
    values: np.ndarray = torch.cat(parts).numpy()
    return values


def _shapes(state: StateDict, names: Sequence[str], label: str) -> dict[str, tuple[int, ...]]:
    for name in names:
        if name not in state:
            raise ValueError(f"{label} has no weights {name!r}: it is of another network")
    return {name: tuple(state[name].shape) for name in names}
