"""The studies of `configs/studies`, each read once."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from nas_lightning.study.read import read_study
from nas_lightning.study.study import Run, Study

CONFIGS = Path(__file__).parents[2] / "configs"
read = cache(read_study)


def shipped(name: str) -> Study:
    return read(CONFIGS / "studies" / f"{name}.yaml")


def run_of(
    name: str, label: str, data: str = "CIFAR10", settings: Mapping[str, Any] = MappingProxyType({})
) -> Run:
    run = next(r for r in shipped(name).runs if (r.architecture.label, r.data) == (label, data))
    return dataclasses.replace(run, settings={**run.settings, **settings})
