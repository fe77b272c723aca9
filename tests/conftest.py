"""What every test starts from, in whatever order and process it runs."""

from __future__ import annotations

import gc
import sys
from collections import Counter
from collections.abc import Generator, Iterator

import jaxtyping
import pytest
import torch

from nas_lightning.cells import own_modules


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Look for no garbage among what is imported: not while tests are collected, and not while they run."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with the most slow tests come first: at the end, a long one would leave the other cores idle."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])


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
