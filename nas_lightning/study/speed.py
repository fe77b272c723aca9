"""How fast this machine trains the networks of a study, by training two of them for a moment."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from nas_lightning.study.configuration import nest
from nas_lightning.study.cost import FORWARD_PASSES, DataSize, Speed, data_size, run_cost
from nas_lightning.study.executors import cpu_count, without_launcher
from nas_lightning.study.study import Run, Study

BATCH_WORK = 2.5e11
"""Multiply-adds of an epoch of the measurement, about: five seconds on a slow processor."""
BATCHES = (2, 20)
"""Fewest and most batches of such an epoch."""
APART = 1.5
"""Ratio of multiply-adds from which on a second network says more than noise."""
TIMEOUT = 150.0
"""Seconds after which a measurement is given up."""


def measure_speed(study: Study, jobs: int = 1, timeout: float | int = TIMEOUT) -> Speed:
    """Train the cheapest and the dearest network of a study for two short epochs each, on made-up images.

    The second epoch's rate counts, so that what a first epoch prepares does not. Time per image is taken as
    ``a + b * multiply_adds`` through both; ``a`` is 0 where the two are of nearly the same size (one is
    trained then), or where the line through them would give a negative ``a`` or ``b``. Nothing is written but
    in a temporary folder. Takes half a minute or so, most of it the program's start.

    Args:
        study: The study.
        jobs: Runs at a time that the machine's cores are divided by.
        timeout: Seconds that each of the two may take.

    Returns:
        The speed.

    Raises:
        ValueError: If no network's size is known.
        OSError: If a measurement fails; the message has the last line of its output.
    """
    found: dict[int, tuple[Run, DataSize]] = {}
    for run in study.runs:
        data, forward = data_size(run), run_cost(run).multiply_adds
        if data is not None and forward is not None:
            found.setdefault(forward, (run, data))
    if not found:
        raise ValueError(f"no run of {study.name} has data and operations of known size")
    low, high = min(found), max(found)
    if high < APART * low:
        low = high
    times = {forward: _train(*found[forward], forward, jobs, timeout) for forward in {low, high}}
    (fast, device), (slow, _) = times[low], times[high]
    slope = (slow - fast) / (high - low) if high > low else 0.0
    constant = fast - slope * low
    if slope <= 0 or constant < 0:
        return Speed(0.0, slow / high, device)
    return Speed(constant, slope, device)


def _train(run: Run, data: DataSize, forward: int, jobs: int, timeout: float | int) -> tuple[float, str]:
    """Seconds that an image takes in the second epoch, and the device."""
    batch_size = run.settings["data.init_args.batch_size"]
    wanted = int(BATCH_WORK / (FORWARD_PASSES * forward * batch_size))
    batches = min(max(wanted, BATCHES[0]), BATCHES[1])
    with tempfile.TemporaryDirectory(prefix="nas-lightning-") as folder:
        config = Path(folder) / "config.yaml"
        config.write_text(yaml.safe_dump(_configuration(run, data, batches, folder)))
        command = [sys.executable, "-m", "nas_lightning", "fit", "--config", str(config)]
        try:
            ended = subprocess.run(
                command,
                env=_environment(jobs),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise OSError(
                f"{run.architecture.label}: {2 * batches} batches took more than {timeout:.0f} s"
            ) from None
        if ended.returncode:
            lines = (ended.stderr or ended.stdout).strip().splitlines() or ["no message"]
            raise OSError(f"{run.architecture.label}: {lines[-1]}")
        written = Path(folder) / "speed" / "speed"
        with (written / "metrics.csv").open() as file:
            rate = float(list(csv.DictReader(file))[-1]["images_per_second"])
        return 1 / rate, json.loads((written / "result.json").read_text())["provenance"]["device"]


def _configuration(run: Run, data: DataSize, batches: int, folder: str) -> dict[str, Any]:
    """Settings of the run, but for the data, the callbacks and the length."""
    keep = {
        key: value
        for key, value in run.settings.items()
        if not key.startswith("data.") and key != "trainer.callbacks" and value is not None
    }
    batch_size = run.settings["data.init_args.batch_size"]
    settings = nest(keep)
    settings["data"] = {
        "class_path": "nas_lightning.datamodules.Synthetic",
        "init_args": {
            "num_classes": data.num_classes,
            "image_size": data.image_size,
            "train_size": batches * batch_size,
            "test_size": data.num_classes,
            "batch_size": batch_size,
            "cutout": run.settings["data.init_args.cutout"],
        },
    }
    settings["trainer"] |= {
        "max_epochs": 2,
        "limit_train_batches": batches,
        "limit_val_batches": 1,
        "enable_progress_bar": False,
        "enable_checkpointing": False,
        "logger": False,
        "default_root_dir": folder,
        "devices": 1,
        "num_nodes": 1,
        "strategy": "auto",
    }
    return settings | {"experiment": "speed", "run": "speed"}


def _environment(jobs: int) -> Mapping[str, str]:
    """The environment without what a cluster's launcher left there, with one job's share of the cores."""
    environment = without_launcher(os.environ)
    environment.setdefault("OMP_NUM_THREADS", str(max(1, cpu_count() // max(1, jobs))))
    return environment
