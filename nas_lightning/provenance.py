"""Provenance of a number: seed, versions, weights, machine."""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor


def run_seed() -> int | None:
    """The seed of Lightning's ``seed_everything``, or None without one."""
    seed = os.environ.get("PL_GLOBAL_SEED")
    return None if seed is None else int(seed)


def software_versions() -> dict[str, str]:
    """Versions of Python and of the packages on which a run's numbers depend."""
    packages = ("nas-lightning", "torch", "torchvision", "lightning", "torchmetrics", "numpy")
    return {"python": platform.python_version()} | {package: version(package) for package in packages}


def weights_hash(state_dict: Mapping[str, Tensor]) -> str:
    """SHA-256 of a state dict's names, types, shapes and values, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(state_dict):
        tensor = state_dict[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def processor() -> str:
    """Name and flags of the CPU: machines that share a home directory may differ."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return "\n".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))}))


def processor_name() -> str:
    """Name of the CPU, such as ``"AMD EPYC"``."""
    names = [line for line in processor().splitlines() if line.startswith("model name")]
    return names[0].partition(":")[2].strip() if names else platform.processor() or platform.machine()
