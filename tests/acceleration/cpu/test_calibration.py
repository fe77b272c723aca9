"""Kernels against layers on this machine: what wins is chosen, and kept."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from nas_lightning.acceleration.cpu import build, calibration
from nas_lightning.acceleration.cpu.calibration import KINDS, Choice, choose_kernels
from nas_lightning.provenance import processor_name
from tests.acceleration.cpu.cases import needs_compiler

pytestmark = needs_compiler


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """Nothing is measured yet; the library is the usual one."""
    build.kernel_library(torch.float32)
    monkeypatch.setattr(calibration, "cache_folder", lambda: tmp_path / "cache")
    calibration._choice.cache_clear()
    yield tmp_path / "cache"
    calibration._choice.cache_clear()


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(calibration, "_log", lines.append)
    return lines


def ask(**options: Any) -> Choice:
    return choose_kernels(torch.float32, **{"training": True, "channels": 4, "image_size": 16} | options)


def times(function: Callable[..., Any], count: int) -> Callable[..., Any]:
    def called(*arguments: Any, **options: Any) -> Any:
        for _ in range(count):
            result = function(*arguments, **options)
        return result

    return called


@pytest.mark.parametrize("training", [True, False])
def test_slow_kernels_lose_and_fast_ones_win(
    training: bool, logged: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with monkeypatch.context() as patch:
            for name in ("fused_blocks", "fused_projections", "max_pool"):
                patch.setattr(calibration, name, times(getattr(calibration, name), 50))
            slow = ask(training=training)
        with monkeypatch.context() as patch:
            patch.setattr(torch.nn.Sequential, "forward", times(torch.nn.Sequential.forward, 50))
            max_pool2d = torch.nn.functional.max_pool2d
            patch.setattr(torch.nn.functional, "max_pool2d", times(max_pool2d, 50))
            fast = ask(training=training, channels=5)
    finally:
        torch.set_num_threads(threads)
    assert slow.kinds == frozenset()
    assert fast.kinds == KINDS
    assert all(fast.ratios[kind] > 1 > slow.ratios[kind] for kind in fast.kinds)
    assert logged == [slow.reason, fast.reason]
    mode = "training" if training else "evaluation"
    for choice, word in ((slow, "layers"), (fast, "fused")):
        ratio = f"{choice.ratios['projections']:.2f}"
        assert choice.reason.startswith(f"CPU {mode} in float32")
        assert f"projections {ratio} ({word})" in choice.reason
    assert processor_name() in fast.reason
    assert f"{build.instruction_set()}, 1 thread" in fast.reason


def test_a_choice_is_logged_once_and_kept_for_the_next_process(
    folder: Path, logged: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    choice = ask()
    assert ask() == choice
    assert logged == [choice.reason]
    assert len(list(folder.glob("timings-*.json"))) == 1
    monkeypatch.setattr(calibration, "_measure", None)  # not called again
    calibration._choice.cache_clear()
    assert ask() == choice


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"seconds of layers, of kernels": {}}'])
def test_a_damaged_file_is_made_anew(content: str, folder: Path, logged: list[str]) -> None:
    ask()
    (kept,) = folder.glob("timings-*.json")
    kept.write_text(content)
    calibration._choice.cache_clear()
    ask()
    seconds = json.loads(kept.read_text())["seconds of layers, of kernels"]
    assert seconds.keys() == KINDS
    kept.write_text(json.dumps({"seconds of layers, of kernels": {**seconds, "projections": [0.0, "nan"]}}))
    calibration._choice.cache_clear()
    assert ask().ratios


def test_timings_are_kept_by_what_they_depend_on(
    folder: Path, logged: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = {"projections": (2.0, 1.0)}
    monkeypatch.setattr(calibration, "_measure", lambda *arguments: seconds)

    def files(change: Callable[[pytest.MonkeyPatch], object]) -> int:
        calibration._choice.cache_clear()
        with monkeypatch.context() as patch:
            change(patch)
            assert ask().ratios == {"projections": 2.0}
        return len(list(folder.glob("timings-*.json")))

    threads = torch.get_num_threads()
    try:
        assert files(lambda patch: None) == 1
        assert files(lambda patch: patch.setattr(calibration, "processor", lambda: "another")) == 2
        assert files(lambda patch: patch.setattr(torch, "__version__", "another")) == 3
        another = SimpleNamespace(_name="/cache/kernels-of-another-compiler.so")
        assert files(lambda patch: patch.setattr(calibration, "kernel_library", lambda dtype: another)) == 4
        assert files(lambda patch: torch.set_num_threads(threads + 1)) == 5
    finally:
        torch.set_num_threads(threads)
    asked: list[dict[str, Any]] = [{"training": False}, {"channels": 7}, {"image_size": 64}]
    for count, options in enumerate(asked, start=6):
        ask(**options)
        assert len(list(folder.glob("timings-*.json"))) == count


def test_the_caller_s_state_stays(logged: list[str]) -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        ask()
        assert torch.is_inference_mode_enabled()
        assert torch.is_autocast_enabled("cpu")
    assert torch.equal(torch.rand(3), expected)


def test_a_folder_that_cannot_be_written_costs_only_the_next_measurement(
    logged: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in (Path("/dev/full/cache"), None):
        monkeypatch.setattr(calibration, "cache_folder", lambda folder=folder: folder)
        calibration._choice.cache_clear()
        assert ask().ratios


def test_without_a_library_layers_win(logged: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    choice = choose_kernels(torch.bfloat16, training=True, channels=4)
    assert (choice.kinds, choice.ratios) == (frozenset(), {})


def test_several_processes_measure_once(tmp_path: Path) -> None:
    code = (
        "import torch; from nas_lightning.acceleration.cpu import calibration as c;"
        " measure = c._measure; c._measure = lambda *a: (print('measured', flush=True), measure(*a))[1];"
        " print(c.choose_kernels(torch.float32, training=True, channels=4).reason)"
    )
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen([sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    outputs = [process.communicate(timeout=120)[0].splitlines() for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert sum(lines.count("measured") for lines in outputs) == 1
    assert outputs[0][-1] == outputs[1][-1]
