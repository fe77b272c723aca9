"""A command starts without what it does not need: fresh processes say which modules they have imported."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

CONFIGS = Path(__file__).parents[2] / "configs"
TORCH = {"torch", "torchvision", "torchmetrics", "lightning", "pytorch_lightning"}
NUMBERS = {"numpy", "scipy", "sklearn", "pandas", "pyarrow", "xarray"}
PICTURES = {"matplotlib", "plotly", "jinja2", "PIL"}

MODULES = "import sys; print(*sys.modules, sep='\\n')"


def imported(code: str) -> set[str]:
    """The modules of a fresh process after some code, which prints nothing to standard error."""
    process = subprocess.run(
        [sys.executable, "-c", f"{code}\n{MODULES}"],
        capture_output=True,
        text=True,
        timeout=200,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert process.returncode == 0, process.stderr
    return set(process.stdout.splitlines())


def after_commands(*commands: str) -> set[str]:
    return imported(
        f"""
from nas_lightning.cli.main import main
for command in {commands!r}:
    try:
        main(command.split())
    except SystemExit as end:
        assert not end.code
"""
    )


def test_lists_and_helps_need_no_library_of_numbers() -> None:
    """One process runs them all and must not import any."""
    modules = after_commands(
        *("--help", "--version", "cells list", "cells --help", "study --help", "study run --help"),
        *("plot --help", "theory --help", "fit --help", "landscape -h", "completion --help"),
        *("predict --help", "export --help"),
    )
    assert {f"nas_lightning.cli.{name}" for name in ("cells", "study", "plot", "theory")} <= modules
    assert not modules & (TORCH | NUMBERS | PICTURES)


@pytest.mark.parametrize(
    "arguments", [("cells", "list"), ("study", "--help"), ("fit", "--help")], ids=" ".join
)
def test_lists_and_helps_come_at_once(arguments: tuple[str, ...]) -> None:
    """A third of a second on an idle machine; a library of numbers alone would take more than the rest."""
    seconds = []
    for _ in range(3):
        started = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "nas_lightning", *arguments], check=True, capture_output=True, timeout=60
        )
        seconds.append(time.perf_counter() - started)
    assert min(seconds) < 2


@pytest.mark.slow
def test_help_of_a_training_needs_nothing_of_its_data_and_its_end() -> None:
    modules = after_commands("landscape --help_all")
    assert {"nas_lightning.cli.training", "nas_lightning.cli.landscape"} <= modules
    assert not modules & {"sklearn", "tensorboard", "plotly", "jinja2", "ray", "pytorch_lightning"}


@pytest.mark.slow
def test_a_first_step_needs_no_library_of_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    sizes = "--model.init_channels=2 --model.num_cells=2 --data.batch_size=8 --model.speed=reference"
    config = f"--config {CONFIGS / 'quickstart.yaml'} --trainer.callbacks=[] --trainer.fast_dev_run=1"
    modules = after_commands(f"fit {config} {sizes}")
    assert not modules & {"sklearn", "pandas", "pyarrow", "xarray"}
