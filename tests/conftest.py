"""What every test starts from, in whatever order and process it runs."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def no_seed_of_another_test(monkeypatch: pytest.MonkeyPatch) -> None:
    """A training in this process leaves its seed in the environment, where data modules look for one."""
    monkeypatch.delenv("PL_GLOBAL_SEED", raising=False)
