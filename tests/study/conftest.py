"""Resolved settings are kept in a folder of the session, not in the user's."""

from __future__ import annotations

import pytest

from nas_lightning.study import resolve


@pytest.fixture(autouse=True)
def kept_settings(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same folder for all tests, which have many settings in common."""
    folder = tmp_path_factory.getbasetemp() / "settings"
    monkeypatch.setattr(resolve, "_cache_folder", lambda: folder)
