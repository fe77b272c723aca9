"""``stages.c`` as a library: compiled by the system's C compiler, once for a machine, and loaded."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shlex
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
    kept = _cache_folder()
    complaint = "no C compiler is found"
    for compiler in (os.environ.get("CC", ""), "gcc", "cc", "clang"):
        if not _is_there(compiler):
            continue
        command = [*shlex.split(compiler), *_FLAGS, f"-DREAL={number}", str(_SOURCE), "-lm"]
        sources = (source.read_text() for source in sorted(_SOURCE.parent.glob("stage*.[ch]")))
        identity = "\n".join((*command, _processor(), *sources))
        name = f"stages-{number}-{hashlib.sha256(identity.encode()).hexdigest()[:16]}.so"
        if kept is not None and _is_whole(kept / name):
            with suppress(OSError, AttributeError):
                return _with_types(ctypes.CDLL(str(kept / name)))
        try:
            return _compiled(command, name, kept)
        except (OSError, AttributeError, subprocess.SubprocessError) as error:
            said = getattr(error, "stderr", None) or str(error)
            complaint = f"{compiler}: {' '.join(str(said).split())[:200]}"
    warnings.warn(f"convolutions are computed layer by layer, which is slower: {complaint}", stacklevel=2)
    return None


def _is_there(compiler: str) -> bool:
    with suppress(ValueError):  # of a quotation that is not closed
        words = shlex.split(compiler)
        return bool(words) and shutil.which(words[0]) is not None
    return False


def _compiled(command: list[str], name: str, kept: Path | None) -> ctypes.CDLL:
    """The library, made anew and kept for the next process where there is room."""
    with _workplace(kept) as folder:
        made = Path(folder) / name
        subprocess.run(
            [*command, "-o", str(made)],
            check=True,
            capture_output=True,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
            timeout=120,
        )
        library = _with_types(ctypes.CDLL(str(made)))
        if kept is not None:
            with suppress(OSError), atomic_write(kept / name, "wb") as file:
                code = made.read_bytes()
                file.write(code + hashlib.sha256(code).digest())
        return library


def _is_whole(path: Path) -> bool:
    """Whether a kept library ends with its own digest: loading a damaged one would kill the process."""
    try:
        content = path.read_bytes()
    except OSError:
        return False
    return len(content) > 32 and hashlib.sha256(content[:-32]).digest() == content[-32:]


def _workplace(kept: Path | None) -> tempfile.TemporaryDirectory[str]:
    """A folder beside what is kept, from where code may be run, or the system's."""
    if kept is not None:
        with suppress(OSError):
            kept.mkdir(parents=True, exist_ok=True)
            return tempfile.TemporaryDirectory(dir=kept)
    return tempfile.TemporaryDirectory()


def _cache_folder() -> Path | None:
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute() / "nas_lightning"
    except RuntimeError:  # a user without a home
        return None


def _with_types(library: ctypes.CDLL) -> ctypes.CDLL:
    packed, pointer, number = ctypes.c_char_p, ctypes.c_void_p, ctypes.c_int64
    library.stages_forward.argtypes = (packed, number, packed, packed)
    library.stages_evaluate.argtypes = (packed, number, packed, packed)
    library.stages_backward.argtypes = (packed, number, packed, packed, packed)
    library.max_pool.argtypes = (packed, pointer, pointer, pointer)
    library.max_pool_backward.argtypes = (packed, pointer, pointer, pointer)
    return library


def _processor() -> str:
    """What ``-march=native`` depends on: machines that share a home directory may differ."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return "\n".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}))
