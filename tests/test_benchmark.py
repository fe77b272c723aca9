"""The benchmarks compare contestants that compute the same, and the plain pipeline is fairly run."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from benchmarks import landscape, processes, record
from benchmarks.training import PlainImages
from nas_lightning.datamodules import Synthetic
from nas_lightning.study.throughput import Throughput

TINY = [
    f"--{name}={value}"
    for name, value in {
        "channels": 4,
        "cells": 3,
        "batch": 8,
        "images": 20,
        "image_size": 16,
        "rounds": 2,
    }.items()
]


def plain_batches(images: PlainImages) -> list[Tensor]:
    return [inputs for inputs, _ in DataLoader(images, batch_size=4, num_workers=2)]


def test_workers_augment_differently_and_repeatably() -> None:
    data = Synthetic(train_size=8, test_size=1, image_size=8, batch_size=4, cutout=4)
    data.setup()
    images = PlainImages(data)
    images.images[:] = images.images[0]  # what differs now is the augmentation
    first, second = plain_batches(images)  # one batch of each worker
    assert not torch.equal(first, second)
    assert not torch.equal(first[0], first[1])
    for batch, again in zip((first, second), plain_batches(images), strict=True):
        assert torch.equal(batch, again)


@pytest.mark.slow
def test_landscape_keeps_what_it_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    landscape.main(TINY)
    (path,) = tmp_path.iterdir()
    kept = json.loads(path.read_text())
    assert path.name == "landscape.json"
    assert kept["settings"]["images"] == 20
    differences = kept["relative_differences"]
    assert {
        "loss, evaluation pass",
        "variance, backward per instance",
        "variance, vmap",
    } <= differences.keys()
    assert all(0 <= difference <= 1e-5 for difference in differences.values())
    limits = {name: ratio["at_most"] for name, ratio in kept["ratios"].items() if ratio["at_most"]}
    assert limits == {
        "contour point / evaluation pass": 1.05,
        "statistics / ordinary backward": 1.8,
        "statistics / backward per instance": 0.45,
    }
    for ratio in kept["ratios"].values():
        assert 0 < ratio["lower_quartile"] <= ratio["median"] <= ratio["upper_quartile"]
        assert ratio["calls"] == 2
    memory = kept["memory_mib"]
    assert memory["ordinary"] > 0
    assert memory["exact / ordinary"] == memory["exact"] / memory["ordinary"]


@pytest.mark.parametrize("contestant", ["evaluation_pass", "backward_per_instance"])
def test_contestants_that_disagree_are_not_timed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, contestant: str
) -> None:
    right: Callable[..., float | tuple[Tensor, list[Tensor]]] = getattr(landscape, contestant)

    def wrong(*arguments: object) -> float | tuple[Tensor, list[Tensor]]:
        value = right(*arguments)
        return value * 1.0001 if isinstance(value, float) else (value[0] * 1.0001, value[1])

    def timed(*_: object) -> None:
        pytest.fail("timed all the same")

    monkeypatch.setattr(record, "RESULTS", tmp_path)
    monkeypatch.setattr(landscape, contestant, wrong)
    monkeypatch.setattr(landscape, "alternate", timed)
    with pytest.raises(AssertionError, match="not close"):
        landscape.main(TINY)
    assert not list(tmp_path.iterdir())


def test_memory_is_what_a_call_holds_the_second_time() -> None:
    code = """
import torch
from benchmarks import record
record.DEVICE = torch.device("cpu")
kept = []
def call():
    if not kept:
        kept.append(bytearray(b"1") * (200 * 2**20))  # stays, so it is not counted
    block = bytearray(b"1") * (64 * 2**20)
    del block
    return bytearray(b"1") * (16 * 2**20)
print(record.memory_of(call))
"""
    root = Path(landscape.__file__).parents[1]
    child = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, check=True)
    assert 60 < float(child.stdout) < 76


def test_one_round_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        landscape.main(["--rounds", "1"])
    assert "--rounds (=1) must be at least 2" in capsys.readouterr().err


@pytest.mark.slow
def test_processes_keep_what_they_reached_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    tiny = {"processes": "2", "init_channels": 2, "batch_size": 8, "batches": 4, "seconds": 0.5, "rounds": 1}
    processes.main([f"--{name}={value}" for name, value in tiny.items()])
    (path,) = tmp_path.iterdir()
    kept = json.loads(path.read_text())
    assert (path.name, kept["device"], kept["settings"]["num_cells"]) == ("processes.json", "cpu", 3)
    assert (kept["recommended"], kept["gpus_per_run"], kept["failed"]) == (2, None, {})
    (rates,) = kept["processes"]["2"]["images_per_second"]
    assert len(rates) == 2
    assert all(1 < rate < 100_000 for rate in rates)
    assert kept["processes"]["2"]["total"] == sum(rates)
    assert f"{sum(rates):.1f}" in capsys.readouterr().out


def made_up_processes(monkeypatch: pytest.MonkeyPatch, totals: dict[int, list[float]]) -> list[int]:
    """Pretend that so many processes on a GPU reach such totals, in turn; without one, they fail."""
    asked: list[int] = []

    def measure(
        settings: object, number: int, device: str | None, *limits: float
    ) -> tuple[Throughput, int | None]:
        asked.append(number)
        if not totals[number]:
            raise OSError("CUDA out of memory")
        return Throughput((totals[number].pop(0) / number,) * number, "cuda"), 1000 * number

    monkeypatch.setattr(processes, "measure", measure)
    monkeypatch.setattr(processes, "visible_gpus", lambda: ("0",))
    return asked


def test_the_fewest_processes_that_reach_nearly_the_best_are_recommended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    totals = {1: [90.0, 100.0, 990.0], 2: [180.0] * 3, 4: [240.0] * 3, 8: [250.0] * 3, 16: []}
    asked = made_up_processes(monkeypatch, totals)
    processes.main([])
    assert asked == [1, 2, 4, 8, 16, 1, 2, 4, 8, 1, 2, 4, 8]  # in turn; what failed is not tried again
    kept = json.loads((tmp_path / "processes.json").read_text())
    assert {number: one["total"] for number, one in kept["processes"].items()} == {
        "1": 100.0,
        "2": 180.0,
        "4": 240.0,
        "8": 250.0,
    }
    assert kept["processes"]["4"]["relative"] == 2.4
    assert kept["processes"]["4"]["peak_memory_mib"] == 4000
    assert kept["failed"] == {"16": "CUDA out of memory"}
    assert (kept["recommended"], kept["gpus_per_run"]) == (4, 0.25)  # 240 is 96 % of 250
    captured = capsys.readouterr()
    assert "--gpus_per_run 0.25" in captured.out
    assert "16 processes: CUDA out of memory" in captured.err


def test_without_any_measurement_nothing_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    made_up_processes(monkeypatch, {1: [], 2: []})
    with pytest.raises(SystemExit, match="nothing could be measured: CUDA out of memory"):
        processes.main(["--processes=2,1"])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("arguments", [["--processes=1,x"], ["--processes=0,1"], ["--rounds=0"]])
def test_numbers_of_processes_are_checked(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        processes.main(arguments)
    assert "must be" in capsys.readouterr().err


def test_the_peak_of_a_gpu_s_memory_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text(
        f'#!/bin/sh\necho "$*" >> {tmp_path}/asked\n'
        f"count=$(wc -l < {tmp_path}/asked)\n"
        "case $count in 2) echo 700 ;; *) echo 300 ;; esac\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(processes, "MEMORY_SECONDS", 0.01)
    with processes.MemoryWatch("GPU-7") as memory:
        deadline = time.monotonic() + 20
        while not (tmp_path / "asked").exists() or len((tmp_path / "asked").read_text().splitlines()) < 4:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert memory.peak_mib == 700
    assert "-i GPU-7" in (tmp_path / "asked").read_text()
    with processes.MemoryWatch(None) as nothing:
        pass
    assert nothing.peak_mib is None
