"""What every test starts from, in whatever order and process it runs."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import jaxtyping
import pytest
import torch

from nas_lightning.cells import own_modules


@pytest.fixture(autouse=True)
def nothing_of_another_test(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command in this process leaves its seed in the environment, and folders where modules are found."""
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for found in ("_folders", "_files"):
        monkeypatch.setattr(own_modules, found, [])


@pytest.fixture
def fresh_compiler(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing is compiled yet, and no checks of types are to be compiled: they take longer than networks."""
    torch.compiler.reset()
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    yield
    torch.compiler.reset()
