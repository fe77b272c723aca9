"""Timing on a shared machine: contestants alternate, medians and ratios decide, JSON keeps it all."""

from __future__ import annotations

import ctypes
import gc
import json
import math
import os
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from nas_lightning.acceleration.cpu.build import compiler_flags, instruction_set
from nas_lightning.files import atomic_write
from nas_lightning.provenance import processor_name, software_versions

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
TOLERANCE = 1e-4 if DEVICE.type == "cuda" else 1e-5
"""Largest relative difference of float32 results that are the same: kernels of a GPU add in any order."""
RESULTS = Path(os.environ.get("BENCHMARK_RESULTS") or Path(__file__).parent / "results")


def alternate(
    contestants: Mapping[str, Callable[[], object]],
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Time each contestant once a round, in turn, after a round of warming up.

    Args:
        contestants: What to call, by name.
        rounds: Number of timed rounds.
        clock: What counts the seconds.

    Returns:
        Seconds of every call, by name.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for index in range(rounds + 1):
        for name, call in contestants.items():
            start = clock()
            call()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if index > 0:
                seconds[name].append(clock() - start)
    return seconds


def summary(seconds: Mapping[str, list[float]]) -> dict[str, dict[str, float]]:
    """Median and quartiles of each contestant, in seconds."""
    result = {}
    for name, values in seconds.items():
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        result[name] = {"median": median, "lower_quartile": low, "upper_quartile": high, "calls": len(values)}
    return result


def ratio_of(
    seconds: Mapping[str, list[float]], over: str, under: str, limit: float | None = None
) -> dict[str, float | None]:
    """Ratio of two contestants' times, round by round: what slows the machine for a while slows both.

    Args:
        seconds: Seconds of every call, by name.
        over: The numerator.
        under: The denominator.
        limit: What the ratio should be at most or, if negative, at least.
    """
    divided = [a / b for a, b in zip(seconds[over], seconds[under], strict=True)]
    asked = {} if limit is None else {"at_most": limit} if limit > 0 else {"at_least": -limit}
    return {**summary({"": divided})[""], **asked}


def print_times(times: Mapping[str, Any], ratios: Mapping[str, Any]) -> None:
    """A line for each contestant and each ratio: median and quartiles."""
    for name, values in {**times, **ratios}.items():
        low, median, high = (values[key] for key in ("lower_quartile", "median", "upper_quartile"))
        asked = [f"{key.replace('_', ' ')} {values[key]}" for key in ("at_most", "at_least") if key in values]
        remark = "s" if name in times else "".join(asked)
        print(f"{name:<52} {median:9.4f}  ({low:.4f} to {high:.4f})  {remark}".rstrip())


def memory_of(call: Callable[[], object]) -> float:
    """Most memory that a call holds beyond what is held before it, in MiB, on its second time.

    Allocated on a GPU; resident without one, where Linux can be asked, otherwise not a number.
    """
    call()  # compiles, and makes what stays
    gc.collect()
    if DEVICE.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    if not Path("/proc/self/clear_refs").exists():
        return math.nan
    ctypes.CDLL(None).malloc_trim(0)  # free memory counts as resident until it is given back
    Path("/proc/self/clear_refs").write_text("5")  # the mark is where the process is now
    before = _status("VmRSS")
    call()
    return (_status("VmHWM") - before) / 2**10


def _status(name: str) -> int:
    return int(Path("/proc/self/status").read_text().partition(f"{name}:")[2].split()[0])


def machine() -> dict[str, Any]:
    """What the numbers were measured on."""
    return {
        "processor": processor_name(),
        "instruction_set": instruction_set(),
        "compiler_flags": " ".join(compiler_flags()),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "driver": driver_version() if torch.cuda.is_available() else None,
        "cuda": torch.version.cuda,
        "versions": software_versions(),
    }


def driver_version() -> str | None:
    """Version of NVIDIA's driver; None where ``nvidia-smi`` does not tell it."""
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    return next(iter(answer.split()), None)


def write(name: str, record: Mapping[str, Any]) -> Path:
    """Keep a record, with the machine's description, as ``results/NAME.json``, or ``NAME-gpu.json``."""
    path = RESULTS / f"{name}{'-gpu' if DEVICE.type == 'cuda' else ''}.json"
    with atomic_write(path) as file:
        json.dump({"machine": machine(), **record}, file, indent=2)
        file.write("\n")
    return path


if __name__ == "__main__":
    print(json.dumps(machine()))
