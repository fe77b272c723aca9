"""Reads the 214 random DARTS cells of Yang, Esperança and Carlucci (ICLR 2020), in their own two files.

The files lie in ``Plots/data/modified_search_space`` of https://github.com/antoyang/NAS-Benchmark. The pickle
holds a list of pairs: a genotype as text, and the best test accuracy in percent. Row i of the array [cells,
epochs] is the test accuracy of pair i after every epoch, in percent. A pair whose accuracy is not the largest
of its row shows that the two files do not belong together.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nas_lightning.cells import parse_genotype
from nas_lightning.study.imported import Batch, ImportedRun, stated_settings
from nas_lightning.study.study import Architecture

SPACE = "DARTS space"
_MOST_PICKLED = 16 * 2**20
# Accuracies have two digits after the point.
_ROUNDING = 0.006


def read_random_darts(files: Sequence[Path]) -> Batch:
    """The runs of the two files, a ``.pkl`` and a ``.npy``, in either order."""
    by_suffix = {file.suffix: file for file in files}
    if len(files) != 2 or set(by_suffix) != {".pkl", ".npy"}:
        shown = ", ".join(file.name for file in files)
        raise ValueError(
            f"random-darts takes two files, a .pkl of genotypes and a .npy of curves, not {shown}"
        )
    cells, curves = _read_pairs(by_suffix[".pkl"]), _read_curves(by_suffix[".npy"])
    names = by_suffix[".pkl"].name, by_suffix[".npy"].name
    settings = stated_settings("random-darts")
    data = settings.pop("data")
    batch = Batch()
    strangers: list[str] = []
    for number in range(1, max(len(cells), len(curves)) + 1):
        if number > min(len(cells), len(curves)):
            held, lacking = names if len(cells) > len(curves) else reversed(names)
            batch.leave_out(f"{held}, row {number}", f"{lacking} has no such row")
            continue
        where = f"{names[0]}, row {number}"
        try:
            text, best = _pair(cells[number - 1])
            genotype = parse_genotype(text)
            accuracy = _accuracy(curves[number - 1], names[1])
            largest = 100 * max(accuracy[~np.isnan(accuracy)], default=best / 100)
            if abs(largest - best) > _ROUNDING:
                reason = f"its accuracy {best:g} is not the best {largest:g} of its row in {names[1]}"
                strangers.append(f"{where}: {reason}")
                raise ValueError(reason)
        except ValueError as error:
            batch.leave_out(where, error)
            continue
        architecture = Architecture(str(genotype), genotype, SPACE, f"cell {number}", "sampled")
        name = f"cell-{number:03d}"
        batch.add(where, ImportedRun(name, architecture, data, None, settings, {"accuracy": accuracy}))
    if len(strangers) > len(batch.runs):
        raise ValueError(
            f"{names[0]} and {names[1]} do not belong together: {len(strangers)} rows of {len(cells)} "
            f"disagree; {strangers[0]}"
        )
    return batch


def _pair(value: object) -> tuple[str, float]:
    match value:
        case (str(text), float() | int() as accuracy) if math.isfinite(accuracy):
            return text, float(accuracy)
    raise ValueError("it is no pair of a genotype and an accuracy")


def _accuracy(curve: np.ndarray, name: str) -> np.ndarray:
    """A row of percents as fractions."""
    known = curve[~np.isnan(curve)]
    if known.size and not (known.min() >= 0 and known.max() <= 100):
        raise ValueError(f"the row of {name} holds {known.min():g} to {known.max():g}, not percents")
    return curve / 100


def _read_curves(path: Path) -> np.ndarray:
    """The array of curves; nothing in the file is executed."""
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"{path} is no array of numbers: {' '.join(str(error).split())}") from None
    is_table = isinstance(array, np.ndarray) and array.ndim == 2 and array.dtype.kind in "fiu"
    if not is_table or not array.size:
        raise ValueError(f"{path} must hold numbers of two dimensions, cells and epochs")
    return np.asarray(array, dtype=np.float64)


# The pickle. Only what the file needs is understood: lists, tuples, texts, numbers, and NumPy scalars, for
# which stand-ins of this module take the place of NumPy's own functions.


class _ScalarType:
    """Stands in for ``numpy.dtype``: the type of a real number."""

    def __init__(self, code: str = "", *_: object) -> None:
        if code not in ("f8", "f4"):
            raise pickle.UnpicklingError(f"numbers of the type {code!r}")
        self.format = {"f8": "d", "f4": "f"}[code]
        self.order = "<"

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple) or len(state) < 2 or state[1] not in ("<", ">", "="):
            raise pickle.UnpicklingError("a damaged number")
        self.order = state[1]


def _scalar(dtype: object, content: object) -> float:
    """Stands in for NumPy's function that makes a scalar of bytes."""
    if not isinstance(dtype, _ScalarType) or not isinstance(content, bytes):
        raise pickle.UnpicklingError("a damaged number")
    (value,) = struct.unpack(dtype.order + dtype.format, content)
    return float(value)


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """Of all names in the file, those of NumPy's scalars; any other is refused."""
        if (module, name) == ("numpy", "dtype"):
            return _ScalarType
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "scalar":
            return _scalar
        raise pickle.UnpicklingError(f"it names {module}.{name}, and pickles can execute what they name")


def _read_pairs(path: Path) -> list[Any]:
    """The list in a pickle; a ValueError of one line for anything else."""
    size = path.stat().st_size
    if size > _MOST_PICKLED:
        raise ValueError(f"{path} has {size} bytes; a list of genotypes has at most {_MOST_PICKLED}")
    try:
        pickled = path.read_bytes()
        for opcode, argument, _ in pickletools.genops(pickled):
            # The unpickler makes room for all places up to the one that is named.
            if opcode.name.endswith("PUT") and int(argument or 0) > len(pickled):
                raise pickle.UnpicklingError(f"it counts {argument} objects in {len(pickled)} bytes")
        content = _Unpickler(io.BytesIO(pickled)).load()
    except Exception as error:  # a damaged pickle can raise anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{path} is refused: {reason}") from None
    if not isinstance(content, list) or not content:
        raise ValueError(f"{path} must hold a list of pairs of a genotype and an accuracy")
    return content
