"""Reads files of weights that other programs wrote, without running anything of them.

``torch.load`` stays at ``weights_only``. What a file names beside tensors and plain values (settings,
genotypes, whole modules) is neither imported nor called: empty objects stand in its place.
"""

from __future__ import annotations

import pickle
import pickletools
import re
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy._core import multiarray
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from nas_lightning.torch_files import foreign_kind

_NUMPY: list[Any] = [
    np.dtype,
    np.ndarray,
    *(kind for kind in vars(np.dtypes).values() if isinstance(kind, type)),
]
for _function in (multiarray.scalar, multiarray._reconstruct):  # NumPy 1 had them in another module
    _NUMPY += [(_function, f"numpy.{core}.multiarray.{_function.__name__}") for core in ("_core", "core")]

_LIBRARIES = sys.stdlib_module_names | {"torch", "numpy", "lightning", "pytorch_lightning"}


class Unread:
    """Stands for an object of a class that is not imported; holds nothing."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Unread:
        """Take any arguments."""
        return object.__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


class UnreadMapping:
    """Stands for a class of mappings that is not imported; makes plain ones."""

    def __new__(cls, *args: Any, **kwargs: Any) -> OrderedDict[Any, Any]:  # type: ignore[misc]
        """Take any arguments."""
        return OrderedDict()


@dataclass(frozen=True)
class WeightFile:
    """What a file holds.

    Attributes:
        content: Tensors and plain values, nested as in the file; :class:`Unread` for everything else.
        classes: Import paths of what is not read.
        ordered: Whether tensors are in the order of the layers; a safetensors file sorts them by name.
    """

    content: Any
    classes: tuple[str, ...] = ()
    ordered: bool = True

    @property
    def module_class(self) -> str | None:
        """Class of a whole pickled module, if the file holds one."""
        modules = [name for name in self.classes if name.startswith("torch.nn.modules.")]
        foreign = {name for name in self.classes if name.partition(".")[0] not in _LIBRARIES}
        return min(foreign, default=modules[0]) if modules else None


def read_weight_file(path: Path) -> WeightFile:
    """Read a file of ``torch.save``, of any age, or a safetensors file.

    Args:
        path: The file.

    Returns:
        What it holds, on the CPU.

    Raises:
        FileNotFoundError: If it is not a file.
        ValueError: If it is damaged or of another kind; the message does not name the file.
    """
    if not path.is_file():
        raise FileNotFoundError("it is not a file")
    with path.open("rb") as file:
        start = file.read(9)
    if path.suffix == ".safetensors" or (len(start) == 9 and start[5:] == b"\0\0\0{"):
        return WeightFile(_safetensors(path), ordered=False)
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if any("/code/" in name for name in archive.namelist()):
                raise ValueError(
                    "it is a TorchScript archive, not a state dict:"
                    f" {resave_advice(path, load='torch.jit.load(FILE)')}"
                )
    classes: tuple[str, ...] = ()
    try:
        classes = _unknown_classes(path)
        try:
            return WeightFile(_loaded(path, classes, Unread), classes)
        except pickle.UnpicklingError:
            return WeightFile(_loaded(path, classes, UnreadMapping), classes)
    except Exception as error:  # whatever reading a foreign file raises
        raise ValueError(_reason(path, classes, str(error))) from error


def _loaded(path: Path, classes: Sequence[str], stand_in: type) -> Any:
    stand_ins: list[Any] = [(type(stand_in.__name__, (stand_in,), {}), name) for name in classes]
    with safe_globals([*_NUMPY, *stand_ins]):
        return torch.load(path, weights_only=True, map_location="cpu")


def _reason(path: Path, classes: Sequence[str], error: str) -> str:
    """Why a file cannot be read, and what helps."""
    blocked = re.search(r"GLOBAL (\S+) whose module \S+ is blocked", error)
    if blocked:
        return f"it names {blocked[1]}, code that would run when it is opened: do not open it in another way"
    if classes or "Unsupported operand" in error:
        what = f"an object of {classes[0]}" if classes else "a pickle protocol"
        return f"it holds {what} that cannot be read safely: {resave_advice(path)}"
    kind = foreign_kind(path)
    return f"it is {kind or 'damaged, or no file of torch.save or safetensors'}"


def resave_advice(path: Path, load: str | None = None) -> str:
    """What to do with a pickled model: a command to be run where its classes are."""
    return f"save its weights anew in the repository that it comes from: {_resave_command(path, load)}"


def _resave_command(path: Path, load: str | None) -> str:
    load = load or "torch.load(FILE, map_location='cpu', weights_only=False)"
    load = load.replace("FILE", repr(path.name))
    find = "next((v for v in [x, *getattr(x, 'values', list)()] if hasattr(v, 'state_dict')), None)"
    return (
        f'`python -c "import torch; x = {load}; m = {find}; '
        f'torch.save(m.state_dict() if m else x, {path.stem + "-state.pt"!r})"`'
    )


def _safetensors(path: Path) -> Mapping[str, torch.Tensor]:
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError:
        raise ValueError(
            "reading it needs the package safetensors: pip install 'nas-lightning[export]'"
        ) from None
    try:
        return load_file(path)
    except (SafetensorError, ValueError, RuntimeError) as error:
        raise ValueError("it is a damaged safetensors file") from error


def _unknown_classes(path: Path) -> tuple[str, ...]:
    """Import paths of what the file names and ``torch.load`` does not read by itself."""
    if zipfile.is_zipfile(path):
        names = get_unsafe_globals_in_checkpoint(path)
    else:  # PyTorch before 1.6: a magic number, a version, the system, the object, then the tensors' bytes
        names = []
        with path.open("rb") as file:
            for _ in range(4):
                for opcode, argument, _ in pickletools.genops(file):
                    if opcode.name == "GLOBAL":
                        names.append(re.sub("^__builtin__", "builtins", str(argument).replace(" ", ".")))
        inside_torch = ("torch.nn.modules.", "torch.optim.")
        names = [name for name in names if name.startswith(inside_torch) or not name.startswith("torch.")]
        names = [name for name in names if name not in ("collections.OrderedDict", "collections.Counter")]
    known = {name for _, name in (entry for entry in _NUMPY if isinstance(entry, tuple))}
    known |= {f"{kind.__module__}.{kind.__name__}" for kind in _NUMPY if isinstance(kind, type)}
    return tuple(sorted({name for name in names if name not in known | {"_codecs.encode"}}))
