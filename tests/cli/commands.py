"""Running the command line as a user does, and reading what a run leaves behind."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from nas_lightning.cli.main import main

TINY = (
    "--model.init_channels=4",
    "--model.num_cells=3",
    "--data=Synthetic",
    "--data.image_size=16",
    "--data.train_size=48",
    "--data.test_size=37",
    "--data.num_classes=10",
    "--data.batch_size=16",
    "--trainer.accelerator=cpu",
)
"""A training that takes a second: 3 batches an epoch, and a test split that nothing divides."""


def command(arguments: Sequence[str]) -> list[str]:
    return [sys.executable, "-m", "nas_lightning", *arguments]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}


def run_process(
    arguments: Sequence[str], folder: Path, *, prefix: Sequence[str] = (), timeout: float = 240
) -> subprocess.CompletedProcess[str]:
    """Run `python -m nas_lightning ARGUMENTS` in a folder and wait for it."""
    return subprocess.run(
        [*prefix, *command(arguments)],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def refusal(arguments: Sequence[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Run a command that must be refused, and return its line."""
    with pytest.raises(SystemExit) as exit_information:
        main(arguments)
    assert exit_information.value.code == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if "nas-lightning: error: " in line]
    assert len(lines) == 1
    return lines[0].removeprefix("nas-lightning: error: ")


def read_metrics(run: Path) -> list[dict[str, float]]:
    with (run / "metrics.csv").open() as file:
        return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]


def read_result(run: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((run / "result.json").read_text())
    return result


def read_checkpoint(path: Path) -> dict[str, Any]:
    checkpoint: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
    return checkpoint


def read_events(run: Path) -> EventAccumulator:
    events = EventAccumulator(str(run), size_guidance={"scalars": 0, "images": 0})
    events.Reload()
    return events
