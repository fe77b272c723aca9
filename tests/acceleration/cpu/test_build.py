"""The library of kernels: compilers, the cache folder, damaged files."""

from __future__ import annotations

import os
import subprocess
import sys
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
    assert kernel_library(torch.float32) is not None
