"""``stages.c`` as a library: compiled by the system's C compiler, once for a machine, and loaded."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
import warnings
from contextlib import suppress
from functools import cache
from pathlib import Path

import torch

from nas_lightning.files import atomic_write

_SOURCE = Path(__file__).with_name("stages.c")
_FLAGS = ("-O3", "-march=native", "-fopenmp", "-fPIC", "-shared", "-Wno-psabi")
_TYPES = {torch.float32: "float", torch.float64: "double"}


def stage_library(dtype: torch.dtype) -> ctypes.CDLL | None:
    """``stages.c`` for a type of numbers; None where there is none, or no compiler for it."""
    return _library(_TYPES[dtype]) if dtype in _TYPES else None


@cache
def _library(number: str) -> ctypes.CDLL | None:
    complaint = ""
    for compiler in filter(shutil.which, dict.fromkeys((os.environ.get("CC", ""), "gcc", "cc", "clang"))):
        command = [compiler, *_FLAGS, f"-DREAL={number}", str(_SOURCE), "-lm"]
        sources = (source.read_text() for source in sorted(_SOURCE.parent.glob("stage*.[ch]")))
        identity = "\n".join((*command, _processor(), *sources))
        name = f"stages-{number}-{hashlib.sha256(identity.encode()).hexdigest()[:16]}.so"
        kept = _cache_folder()
        if kept is not None:
            with suppress(OSError):
                return _with_types(ctypes.CDLL(str(kept / name)))
        with tempfile.TemporaryDirectory() as folder:
            made = Path(folder) / name
            try:
                subprocess.run(
                    [*command, "-o", str(made)], check=True, capture_output=True, text=True, timeout=120
                )
                if kept is not None:  # for the next process, where there is room
                    with suppress(OSError), atomic_write(kept / name, "wb") as file:
                        file.write(made.read_bytes())
                    with suppress(OSError):
                        return _with_types(ctypes.CDLL(str(kept / name)))
                return _with_types(ctypes.CDLL(str(made)))
            except (OSError, AttributeError, subprocess.SubprocessError) as error:
                said = getattr(error, "stderr", None) or str(error)
                complaint = f"{compiler}: {' '.join(str(said).split())[:200]}"
    if complaint:
        warnings.warn(f"convolutions are computed layer by layer, which is slower: {complaint}", stacklevel=2)
    return None


def _cache_folder() -> Path | None:
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute() / "nas_lightning"
    except RuntimeError:  # a user without a home
        return None


def _with_types(library: ctypes.CDLL) -> ctypes.CDLL:
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    library.stages_forward.argtypes = (pointer, number, pointer, pointer)
    library.stages_evaluate.argtypes = (pointer, number, pointer, pointer)
    library.stages_backward.argtypes = (pointer, number, pointer, pointer, number, pointer)
    return library


def _processor() -> str:
    """What ``-march=native`` depends on: machines that share a home directory may differ."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return "\n".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}))
