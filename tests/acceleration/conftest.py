"""What tests of acceleration start from."""

from __future__ import annotations

import pytest

from nas_lightning.acceleration.cpu.calibration import KINDS, Choice


@pytest.fixture(autouse=True)
def every_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels are used wherever they can be, whatever is faster on this machine at a test's sizes."""
    choice = Choice(KINDS, {}, "a test")
    monkeypatch.setattr("nas_lightning.acceleration.accelerated.choose_kernels", lambda *_, **__: choice)
