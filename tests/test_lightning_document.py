"""Every Python block of docs/lightning.md runs, one after the other as a reader would run them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

TEXT = (Path(__file__).parents[1] / "docs" / "lightning.md").read_text()


@pytest.mark.slow
def test_every_block_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "lightning_document"}
    blocks = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    for block in blocks:
        exec(compile(block, "docs/lightning.md", "exec"), names)
    logs = tmp_path / "lightning_logs"
    assert {"metrics.csv", "result.json", "landscape"} <= {
        path.name for path in (logs / "version_0").iterdir()
    }
    files = {path.name.partition("-")[0] for path in logs.rglob("*.nc")}
    assert files == {"loss_contour", "loss_profile", "gradient_variance", "hessian_spectrum", "errors"}
