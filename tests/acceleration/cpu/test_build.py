"""The library of kernels: compilers, the cache folder, damaged files."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from nas_lightning.acceleration.cpu import build as module
from nas_lightning.acceleration.cpu.build import MARCH, instruction_set, kernel_library
from tests.acceleration.cpu.cases import needs_compiler


@pytest.fixture(autouse=True)
def fresh_library() -> Iterator[None]:
    """The library is looked for anew, and again afterwards."""
    module._library.cache_clear()
    yield
    module._library.cache_clear()


def broken_compiler(folder: Path) -> str:
    path = folder / "broken"
    path.write_text("#!/bin/sh\necho this is no compiler >&2\nexit 1\n")
    path.chmod(0o755)
    return str(path)


def test_without_a_compiler_there_is_no_library_and_a_warning(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    with pytest.warns(UserWarning, match="layer by layer.*no C compiler"):
        assert kernel_library(torch.float32) is None
    assert instruction_set() == "none"


def test_other_types_have_no_library() -> None:
    assert kernel_library(torch.bfloat16) is None


def test_compilers_that_fail_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CC", broken_compiler(tmp_path))
    monkeypatch.setenv("PATH", "/no-such-folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.warns(UserWarning, match="layer by layer.*this is no compiler"):
        assert kernel_library(torch.float32) is None
    assert not list((tmp_path / "cache").rglob("*.so"))


@needs_compiler
def test_an_architecture_that_the_compiler_does_not_know_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MARCH, "abacus")
    with pytest.warns(UserWarning, match="abacus"):
        assert kernel_library(torch.float32) is None


@needs_compiler
def test_after_a_compiler_that_fails_the_next_is_tried(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for compiler in (broken_compiler(tmp_path), "'gcc", " "):
        module._library.cache_clear()
        monkeypatch.setenv("CC", compiler)
        assert kernel_library(torch.float32) is not None


@needs_compiler
def test_a_user_without_a_home_compiles_for_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    with pytest.warns(UserWarning, match="this process alone: there is no home"):
        assert kernel_library(torch.float32) is not None


@needs_compiler
def test_a_compiled_library_is_used_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert kernel_library(torch.float32) is not None
    (library,) = (tmp_path / "nas_lightning").iterdir()
    written = library.stat().st_mtime_ns
    module._library.cache_clear()
    assert kernel_library(torch.float32) is not None
    assert library.stat().st_mtime_ns == written
    content = library.read_bytes()
    code = "import torch; from nas_lightning.acceleration.cpu.build import kernel_library"
    for damaged in (b"no library", content[:20_000]):
        library.unlink()  # the loaded one stays as it is
        library.write_bytes(damaged)
        subprocess.run([sys.executable, "-c", f"{code}; assert kernel_library(torch.float32)"], check=True)
        assert library.stat().st_size == len(content)


@needs_compiler
@pytest.mark.parametrize("place", ["/dev/full/cache", "file/cache"])
def test_a_folder_that_cannot_be_written_costs_only_the_next_compilation(
    place: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", os.fspath(tmp_path / place))
    with pytest.warns(UserWarning, match="this process alone: .*/cache/nas_lightning: Not a directory"):
        assert kernel_library(torch.float32) is not None


PLANTED = """
#include <stdio.h>
__attribute__((constructor)) static void planted(void) { fclose(fopen("%s", "w")); }
"""


@needs_compiler
@pytest.mark.parametrize("place", ["cache", "cache/nas_lightning", "file", "file of another", "another"])
def test_a_library_that_others_may_have_put_there_is_not_loaded(
    place: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    flags = [flag for flag in module.compiler_flags() if flag != "-O3"]
    monkeypatch.setattr(module, "compiler_flags", lambda: tuple(flags))  # compiles in no time
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert kernel_library(torch.float32) is not None
    (library,) = (tmp_path / "cache" / "nas_lightning").iterdir()
    mark, planted = tmp_path / "mark", tmp_path / "planted.so"
    subprocess.run(
        ["gcc", "-shared", "-fPIC", "-x", "c", "-", "-o", str(planted)],
        input=(PLANTED % mark).encode(),
        check=True,
    )
    code = planted.read_bytes()
    library.unlink()
    library.write_bytes(code + hashlib.sha256(code).digest())
    if place == "file":
        library.chmod(0o666)
    elif not place.endswith("another"):
        (tmp_path / place).chmod(0o777)
    elif os.geteuid() == 0:
        os.chown(library if place.startswith("file") else library.parent, 12345, 12345)
    else:
        pytest.skip("only root gives files to others")
    module._library.cache_clear()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert kernel_library(torch.float32) is not None
    assert not mark.exists()
    told = any("kernels are compiled for this process alone: " in str(warning.message) for warning in caught)
    assert told is not place.startswith("file")
