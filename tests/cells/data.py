"""Figures that tests compare with: the paper's, and counts made by the original code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml


def _read(name: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((Path(__file__).parent / name).read_text())
    return content


PAPER = _read("paper.yaml")
COUNTED = _read("counted.yaml")
