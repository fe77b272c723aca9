"""Timing on a shared machine: contestants alternate, medians and ratios decide, JSON keeps it all."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from nas_lightning.files import atomic_write
from nas_lightning.provenance import software_versions

RESULTS = Path(__file__).parent / "results"


def alternate(contestants: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Time each contestant once a round, in turn, after a round of warming up.

    Args:
        contestants: What to call, by name.
        rounds: Number of timed rounds.

    Returns:
        Seconds of every call, by name.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for index in range(rounds + 1):
        for name, call in contestants.items():
            start = time.perf_counter()
            call()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if index > 0:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def summary(seconds: Mapping[str, list[float]]) -> dict[str, dict[str, float]]:
    """Median and quartiles of each contestant, in seconds."""
    result = {}
    for name, values in seconds.items():
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        result[name] = {"median": median, "lower_quartile": low, "upper_quartile": high, "calls": len(values)}
    return result


def machine() -> dict[str, Any]:
    """What the numbers were measured on."""
    processor = platform.processor() or platform.machine()
    information = Path("/proc/cpuinfo")
    if information.exists():
        models = [line for line in information.read_text().splitlines() if line.startswith("model name")]
        processor = models[0].partition(":")[2].strip() if models else processor
    return {
        "processor": processor,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "versions": software_versions(),
    }


def write(name: str, record: Mapping[str, Any]) -> Path:
    """Keep a record, with the machine's description, as ``results/NAME.json``."""
    path = RESULTS / f"{name}.json"
    with atomic_write(path) as file:
        json.dump({"machine": machine(), **record}, file, indent=2)
        file.write("\n")
    return path
