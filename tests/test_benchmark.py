"""The benchmarks compare contestants that compute the same, and the plain pipeline is fairly run."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from benchmarks import landscape, record
from benchmarks.training import PlainImages
from nas_lightning.datamodules import Synthetic

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


def test_high_water_mark_is_the_process_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(landscape, "DEVICE", torch.device("cpu"))
    ballast = bytearray(b"1") * (512 * 2**20)  # more than the child will hold
    assert landscape.high_water_mark() > 512
    code = """
import torch
from benchmarks import landscape
landscape.DEVICE = torch.device("cpu")
before = landscape.high_water_mark()
block = bytearray(b"1") * (64 * 2**20)
print(landscape.high_water_mark() - before)
"""
    root = Path(landscape.__file__).parents[1]
    child = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, check=True)
    del ballast
    assert 48 < float(child.stdout) < 80


def test_one_round_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        landscape.main(["--rounds", "1"])
    assert "--rounds (=1) must be at least 2" in capsys.readouterr().err
