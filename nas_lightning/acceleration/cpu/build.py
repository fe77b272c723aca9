"""The library of ``fused_blocks.c``: compiled once on a machine by its C compiler, and loaded."""

from __future__ import annotations

import ctypes
import hashlib
import os
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
from nas_lightning.private_files import cache_folder, cache_problem, is_private
from nas_lightning.provenance import processor

_SOURCE = Path(__file__).with_name("fused_blocks.c")
_TYPES = {torch.float32: "float", torch.float64: "double"}

MARCH = "NAS_LIGHTNING_MARCH"
"""Environment variable: the architecture that kernels are compiled for, as of ``-march``; ``native`` unless
set. Tests and benchmarks measure several instruction sets on one machine by it."""


def kernel_library(dtype: torch.dtype) -> ctypes.CDLL | None:
    """The library for float32 or float64; None for other types and where no compiler succeeds."""
    return _library(_TYPES[dtype], compiler_flags()) if dtype in _TYPES else None


def compiler_flags() -> tuple[str, ...]:
    """What the compiler is called with."""
    march = os.environ.get(MARCH) or "native"
    return ("-O3", f"-march={march}", "-fopenmp", "-fPIC", "-shared", "-Wno-psabi")


def instruction_set(dtype: torch.dtype = torch.float32) -> str:
    """Vector instructions that the kernels use, such as ``"AVX-512"``; ``"none"`` without a library."""
    library = kernel_library(dtype)
    return "none" if library is None else library.instruction_set().decode()


@cache
def _library(type_name: str, flags: tuple[str, ...]) -> ctypes.CDLL | None:
    folder = cache_folder()
    if folder is None:
        warnings.warn(f"kernels are compiled for this process alone: {cache_problem()}", stacklevel=2)
    complaint = "no C compiler is found"
    for compiler in (os.environ.get("CC", ""), "gcc", "cc", "clang"):
        if not _exists(compiler):
            continue
        command = [*shlex.split(compiler), *flags, f"-DREAL={type_name}", str(_SOURCE), "-lm"]
        program = Path(shutil.which(command[0]) or command[0]).resolve()  # often ends with its version
        sources = (source.read_text() for source in sorted(_SOURCE.parent.glob("*.[ch]")))
        identity = "\n".join((*command, str(program), processor(), *sources))
        name = f"kernels-{type_name}-{hashlib.sha256(identity.encode()).hexdigest()[:16]}.so"
        if folder is not None and is_private(folder / name) and _is_complete(folder / name):
            with suppress(OSError, AttributeError):
                return _with_types(ctypes.CDLL(str(folder / name)))
        try:
            return _compile(command, name, folder)
        except (OSError, AttributeError, subprocess.SubprocessError) as error:
            output = getattr(error, "stderr", None) or str(error)
            complaint = f"{compiler}: {' '.join(str(output).split())[:200]}"
    warnings.warn(f"convolutions are computed layer by layer, which is slower: {complaint}", stacklevel=2)
    return None


def _exists(compiler: str) -> bool:
    with suppress(ValueError):  # an unclosed quotation
        words = shlex.split(compiler)
        return bool(words) and shutil.which(words[0]) is not None
    return False


def _compile(command: list[str], name: str, folder: Path | None) -> ctypes.CDLL:
    """Compile and load the library; keep it for the next process where only this user may write."""
    with _build_folder(folder) as build:
        path = Path(build) / name
        subprocess.run(
            [*command, "-o", str(path)],
            check=True,
            capture_output=True,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
            timeout=120,
        )
        library = _with_types(ctypes.CDLL(str(path)))
        if folder is not None:
            with suppress(OSError):
                with atomic_write(folder / name, "wb") as file:
                    code = path.read_bytes()
                    file.write(code + hashlib.sha256(code).digest())
                (folder / name).chmod(0o600)  # whatever the umask is
        return library


def _is_complete(path: Path) -> bool:
    """Whether a kept library ends with its own digest: loading a damaged one would kill the process."""
    try:
        content = path.read_bytes()
    except OSError:
        return False
    return len(content) > 32 and hashlib.sha256(content[:-32]).digest() == content[-32:]


def _build_folder(folder: Path | None) -> tempfile.TemporaryDirectory[str]:
    """A temporary folder inside the cache, from where code may be run, or the system's."""
    if folder is not None:
        with suppress(OSError):
            return tempfile.TemporaryDirectory(dir=folder)
    return tempfile.TemporaryDirectory()


def _with_types(library: ctypes.CDLL) -> ctypes.CDLL:
    packed, pointer, number = ctypes.c_char_p, ctypes.c_void_p, ctypes.c_int64
    library.blocks_forward.argtypes = (packed, number, packed, packed)
    library.blocks_evaluate.argtypes = (packed, number, packed, packed)
    library.blocks_backward.argtypes = (packed, number, packed, packed, packed)
    library.max_pool.argtypes = (packed, pointer, pointer, pointer)
    library.max_pool_backward.argtypes = (packed, pointer, pointer, pointer)
    library.instruction_set.restype = ctypes.c_char_p
    return library
