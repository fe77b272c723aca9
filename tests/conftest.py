"""What every test starts from, in whatever order and process it runs."""

from __future__ import annotations

from collections.abc import Iterator

import jaxtyping
import pytest
import torch

from nas_lightning.acceleration.cpu.calibration import KINDS, Choice


@pytest.fixture(autouse=True)
def no_seed_of_another_test(monkeypatch: pytest.MonkeyPatch) -> None:
    """A training in this process leaves its seed in the environment, where data modules look for one."""
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)


@pytest.fixture(autouse=True)
def every_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels are used wherever they can be, whatever is faster on this machine at a test's sizes."""
    choice = Choice(KINDS, {}, "a test")
    monkeypatch.setattr("nas_lightning.acceleration.accelerated.choose_kernels", lambda *_, **__: choice)


@pytest.fixture
def fresh_compiler(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing is compiled yet, and no checks of types are to be compiled: they take longer than networks."""
    torch.compiler.reset()
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    yield
    torch.compiler.reset()
