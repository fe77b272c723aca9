"""The benchmarks compare contestants that compute the same, and the plain pipeline is fairly run."""

from __future__ import annotations

import itertools
import json
import os
import platform
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.text import Text
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader

from benchmarks import (
    accuracy,
    instruction_sets,
    landscape,
    performance_figures,
    processes,
    record,
    residence,
    rewrites,
    scaling,
    table,
)
from benchmarks.throughput import Throughput
from benchmarks.training import PlainImages, make_networks
from nas_lightning.datamodules import Synthetic
from nas_lightning.networks.size import measure_size

TINY = [
    f"--{name}={value}"
    for name, value in {
        "channels": 4,
        "cells": 3,
        "batch": 8,
        "images": 20,
        "image_size": 16,
        "rounds": 2,
        "path": 4,
        "path_channels": 4,
        "path_cells": 3,
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


def do_not_compile(module: nn.Module, **_: object) -> None:
    """Compiling takes a minute, and the tests of acceleration do it."""


def compile_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("accelerated", "per_sample"):
        monkeypatch.setattr(f"nas_lightning.acceleration.{module}.compile_module", do_not_compile)


@pytest.mark.slow
def test_landscape_keeps_what_it_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compile_nothing(monkeypatch)
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    in_child = landscape.memory_in_child

    def in_child_unless_compiled(settings: Namespace, contestant: str) -> float:
        measure = (
            landscape.measure_memory if "contour" in contestant or contestant == "compiled" else in_child
        )
        return measure(settings, contestant)

    monkeypatch.setattr(landscape, "memory_in_child", in_child_unless_compiled)
    landscape.main(TINY)
    (path,) = tmp_path.iterdir()
    kept = json.loads(path.read_text())
    assert path.name == "landscape.json"
    assert kept["settings"]["images"] == 20
    assert 0 <= kept["memory_mib"]["the same, after the imports"] < 100
    differences = kept["relative_differences"]
    assert {
        "loss, fast",
        "loss, compiled evaluation pass",
        "variance, backward per instance",
        "variance, compiled",
        "variance, vmap",
        "Hessian product",
        "Gauss-Newton product",
    } <= differences.keys()
    assert all(0 <= difference <= 1e-5 for difference in differences.values())
    asked = {
        name: (ratio.get("at_least"), ratio.get("at_most"))
        for name, ratio in kept["ratios"].items()
        if ratio.keys() & {"at_least", "at_most"}
    }
    assert asked == {
        "plain contour point / contour point, compiled": (4.5, None),
        "contour point, compiled / compiled evaluation pass": (None, 1.05),
        "line point, compiled / contour point, compiled": (None, 1.05),
        "interpolation point, compiled / contour point, compiled": (None, 1.05),
        "backward per instance / statistics, compiled": (5.0, None),
        "statistics, compiled / plain ordinary backward": (None, 1.0),
        "Hessian product / plain ordinary backward": (None, 2.6),
        "Hessian product / ordinary backward": (None, 2.6),
        "4 Hessian products in lockstep / Hessian product": (None, 4.0),
        "Lanczos of a density without its products / Hessian product": (None, 25.6),
    }
    for ratio in kept["ratios"].values():
        assert 0 < ratio["lower_quartile"] <= ratio["median"] <= ratio["upper_quartile"]
        assert ratio["calls"] == 2
    memory = kept["memory_mib"]
    assert memory["plain"] > 0
    assert memory["fast / plain"] == memory["fast"] / memory["plain"]
    points = memory["compiled contour point"], memory["plain contour point"]
    assert memory["compiled contour point / plain contour point"] == points[0] / points[1] > 0


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

    compile_nothing(monkeypatch)
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


def counted(call: Callable[[], object]) -> tuple[int, int, int]:
    with scaling.Counter() as counter:
        call()
    return counter.multiply_adds, counter.bytes, counter.bytes_of_products


@pytest.mark.parametrize("groups", [1, 6])
def test_a_convolution_is_counted_as_by_hand(groups: int) -> None:
    x = torch.randn(2, 6, 8, 8, requires_grad=True)
    weight = torch.randn(12, 6 // groups, 3, 3, requires_grad=True)
    out = functional.conv2d(x, weight, padding=1, groups=groups)
    products = 2 * 12 * 8 * 8 * (6 // groups) * 3 * 3
    elements = 2 * 6 * 64 + 12 * (6 // groups) * 9, 2 * 12 * 64  # of input and weights, and of the output
    moved = 4 * sum(elements)
    assert counted(lambda: functional.conv2d(x, weight, padding=1, groups=groups)) == (products, moved, moved)
    moved = 4 * (2 * elements[0] + elements[1])  # both are read, and their gradients written
    upstream = torch.randn_like(out)
    backward = counted(lambda: torch.autograd.grad(out, [x, weight], upstream, retain_graph=True))
    assert backward == (2 * products, moved, moved)
    assert counted(lambda: torch.autograd.grad(out, [weight], upstream))[0] == products


def test_other_operations_are_counted_as_by_hand() -> None:
    a, b = torch.randn(2, 5, 7)
    linear = nn.Linear(7, 3)
    with torch.no_grad():
        assert counted(lambda: a + b) == (0, 3 * 35 * 4, 0)
        assert counted(lambda: a + a) == (0, 2 * 35 * 4, 0)  # one tensor, read once
        assert counted(lambda: a.relu_()) == (0, 2 * 35 * 4, 0)
        assert counted(lambda: a.copy_(b)) == (0, 2 * 35 * 4, 0)
        assert counted(lambda: a.zero_()) == (0, 35 * 4, 0)
        assert counted(lambda: torch.add(a, b, out=torch.empty(5, 7))) == (0, 3 * 35 * 4, 0)
        assert counted(lambda: torch._foreach_add_([a, b], 1.0)) == (0, 4 * 35 * 4, 0)
        assert counted(lambda: (a.t(), a.view(35), torch.empty(9))) == (0, 0, 0)
        assert counted(lambda: a.bfloat16()) == (0, 35 * (4 + 2), 0)
        assert counted(lambda: linear(a))[:2] == (5 * 7 * 3, 4 * (35 + 21 + 3 + 15))


def test_one_quantity_changes_at_a_time() -> None:
    settings = scaling.parse(["--factors=0.5,1,2", "--channels=8", "--cells=1", "--batch=4"])
    sizes = [
        (size["varied"], *(size[name] for name in scaling.QUANTITIES)) for size in scaling.sizes_of(settings)
    ]
    assert sizes == [
        (None, 8, 1, 4, 32),
        ("channels", 4, 1, 4, 32),
        ("channels", 16, 1, 4, 32),
        ("cells", 8, 2, 4, 32),
        ("batch", 8, 1, 2, 32),
        ("batch", 8, 1, 8, 32),
        ("image_size", 8, 1, 4, 16),
        ("image_size", 8, 1, 4, 64),
    ]


@pytest.mark.parametrize("argument", ["--levels=fast,slow", "--factors=0,1", "--points=-1", "--rounds=1"])
def test_scaling_refuses_what_it_cannot_measure(argument: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        scaling.main([argument])
    assert "must be" in capsys.readouterr().err


def test_shares_are_of_the_nearer_limit() -> None:
    limits = {
        "multiply_adds_per_second": {"float32": 100.0, "bfloat16": 400.0},
        "bytes_per_second": {"memory": 10.0},
    }
    counts = {"multiply_adds": 200, "bytes": 80, "bytes_of_products": 10, "seconds": {"median": 16.0}}
    assert scaling.shares({"level": "fast", **counts}, limits) == {
        "multiply_adds_per_second": 12.5,
        "share_of_matrix_rate": 0.125,
        "bytes_per_second": 5.0,
        "share_of_bandwidth": 0.5,
        "share_of_roof": 0.5,  # 8 s of memory, 2 s of arithmetic
        "share_of_fused_roof": 0.125,
    }
    assert scaling.shares({"level": "max", **counts}, limits)["share_of_matrix_rate"] == 200 / 16 / 400


@pytest.mark.parametrize(
    ("names", "kind"),
    [
        (["aten::empty", "aten::mkldnn_convolution", "aten::conv2d"], "convolution forward"),
        (["aten::sum", "aten::convolution_backward"], "convolution backward"),
        (["aten::mkldnn_convolution", "Torch-Compiled Region: 0/0"], "convolution forward"),
        (["aten::mul", "Optimizer.step#SGD.step"], "optimiser"),
        (["aten::native_batch_norm"], "batch norm"),
        (["aten::max_pool2d_with_indices_backward"], "pooling"),
        (["aten::threshold_backward"], "addition, ReLU, concatenation"),
        (["aten::log_softmax"], "other operations"),
    ],
)
def test_kinds_of_events(names: list[str], kind: str) -> None:
    event = None
    for name in reversed(names):
        event = SimpleNamespace(name=name, cpu_parent=event)
    assert scaling.kind_of(event) == kind


def test_seconds_by_kind_are_those_of_the_call() -> None:
    x, convolution = torch.randn(8, 8, 32, 32), nn.Conv2d(8, 8, 3)

    def call() -> None:
        time.sleep(0.05)
        convolution(x).relu()

    seconds = scaling.profile_kinds(call)
    assert 0.05 <= seconds["between operations"] < 0.5
    assert seconds["convolution forward"] > 0
    assert seconds["addition, ReLU, concatenation"] > 0
    assert seconds["batch norm"] == seconds["optimiser"] == 0


@pytest.mark.slow
def test_scaling_keeps_what_it_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    sizes = {"channels": 4, "cells": 3, "batch": 4, "image_size": 16, "rounds": 2, "factors": 2}
    tiny = {
        **sizes,
        "levels": "reference,fast",
        "points": "1,3",
        "processes": 2,
        "matrix": 64,
        "memory_mib": 1,
    }
    scaling.main([f"--{name}={value}" for name, value in tiny.items()])
    kept = json.loads((tmp_path / "scaling.json").read_text())
    found = {(one["varied"], one["pass"], one["level"]): one for one in kept["measurements"]}
    assert found.keys() == {
        (varied, kind, level)
        for varied in (None, *scaling.QUANTITIES)
        for kind in scaling.PASSES
        for level in ("reference", "fast")
    }
    for one in found.values():
        assert 0 < one["seconds"]["lower_quartile"] <= one["seconds"]["median"]
        assert 0 < one["bytes_of_products"] < one["bytes"]
        assert one.items() >= scaling.shares(one, kept["limits"]).items()
    base, doubled = found[None, "training", "fast"], found["batch", "training", "fast"]
    assert doubled["multiply_adds"] == 2 * base["multiply_adds"]
    assert base["bytes"] < doubled["bytes"] < 2 * base["bytes"]  # the weights' do not grow
    # Counted by another way, and without the gradient of the images, which the stem need not give.
    names = SimpleNamespace(genotype="darts_v2", init_channels=4, num_cells=3)
    (network,) = make_networks(names, ["fast"])[1].values()  # type: ignore[arg-type]
    forward = 4 * measure_size(network, 16).multiply_adds
    assert found[None, "evaluation", "fast"]["multiply_adds"] == forward
    assert base["multiply_adds"] == 3 * forward - 4 * 12 * 16 * 16 * (3 * 3 * 3)
    points = [(one["level"], one["points"]) for one in kept["grid_points"]]
    assert points == [("reference", 1), ("reference", 3), ("fast", 1), ("fast", 3)]
    assert set(kept["ranks"]["processes"]) | set(kept["ranks"]["failed"]) == {"2"}
    for ranks, one in kept["ranks"]["processes"].items():
        assert one["images_per_second"] == int(ranks) * 4 / one["seconds"]["median"]
    for kinds in kept["seconds_by_kind"].values():
        assert all(kinds[kind] > 0 for kind in ("convolution backward", "batch norm", "optimiser"))
        assert kinds["fused by the compiler"] == 0
    assert "4     3     8     16 training   fast" in capsys.readouterr().out


def made_up_scaling() -> dict[str, Any]:
    """A machine of 100 GMAC/s and 20 GB/s, on which each size takes in proportion to its multiply-adds."""
    sizes = [(None, 8), ("channels", 4), ("channels", 16), ("cells", 6), ("batch", 16), ("image_size", 64)]
    measurements: list[dict[str, Any]] = []
    for (varied, value), level, kind in itertools.product(sizes, ("reference", "compiled"), scaling.PASSES):
        size = {"channels": 8, "cells": 3, "batch": 8, "image_size": 32} | ({varied: value} if varied else {})
        multiply_adds = 10**6 * size["channels"] ** 2 * size["cells"]
        seconds = multiply_adds / (2e9 if level == "reference" else 5e9)
        measurements.append(
            {
                **{"varied": varied, "level": level, "pass": kind, **size},
                "seconds": {
                    "median": seconds,
                    "lower_quartile": 0.9 * seconds,
                    "upper_quartile": 1.2 * seconds,
                },
                **{"multiply_adds": multiply_adds, "bytes": 4 * multiply_adds},
                **{
                    "bytes_of_products": multiply_adds / 2,
                    "multiply_adds_per_second": multiply_adds / seconds,
                },
            }
        )
    kinds = dict.fromkeys((*scaling.KINDS, scaling.OTHER, scaling.BETWEEN), 0.001)
    base = measurements[0]["seconds"]
    return {
        "machine": {"processor": "abacus", "threads": 2, "gpu": None},
        "limits": {
            "multiply_adds_per_second": {"float32": 100e9, "bfloat16": 400e9},
            "bytes_per_second": {"memory": 20e9, "caches": 80e9},
        },
        "measurements": measurements,
        "grid_points": [{"level": "reference", "points": number, "seconds": base} for number in (1, 9)],
        "ranks": {
            "level": "reference",
            "backend": "gloo",
            "processes": {"1": {"images_per_second": 50.0}, "2": {"images_per_second": 80.0}},
            "failed": {},
        },
        "seconds_by_kind": {
            "reference": {**kinds, "fused by the compiler": 0.0},
            "compiled": {**kinds, "batch norm": 0.0},
        },
    }


def lines_of(axes: Axes) -> list[list[tuple[float, float]]]:
    return [[(float(x), float(y)) for x, y in line.get_xydata()] for line in axes.lines]  # type: ignore


def test_the_roof_is_drawn_from_the_limits() -> None:
    figure = performance_figures.draw_roofline(made_up_scaling())
    roof, bars = figure.axes
    lines = lines_of(roof)
    assert lines[0][1:] == [(5.0, 100.0), (pytest.approx(15.0), 100.0)]  # the ridge: 100 GMAC/s of 20 GB/s
    assert lines[1][1] == (1.25, 100.0)  # and of the caches' 80 GB/s
    assert "bfloat16" not in "".join(text.get_text() for text in roof.texts)  # no level has mixed precision
    points = {line[0] for line in lines if len(line) == 1}
    assert points == {(0.25, 2.0), (2.0, 5.0)}  # one by one, and convolutions alone
    names = [text.get_text() for text in roof.texts[1:]]
    assert sorted(names) == sorted(
        ["base size", "4 channels", "16 channels", "6 cells", "16 images", "64 pixels"]
    )
    boxes = [Text.get_window_extent(text) for text in roof.texts[1:]]  # without the lines to the points
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
    tops = [
        max(bar.get_y() + bar.get_height() for bar in stack) for stack in zip(*bars.containers, strict=True)
    ]
    drawn = len(scaling.KINDS) + 1  # milliseconds: with the two other kinds, one of them absent
    assert tops == [pytest.approx(drawn), pytest.approx(drawn)]


def test_sizes_are_drawn_beside_what_the_multiply_adds_would_cost() -> None:
    figure = performance_figures.draw_scaling(made_up_scaling())
    assert [axes.get_xlabel().split()[0] for axes in figure.axes] == [
        *("channels", "cells", "images", "side", "points", "processes")
    ]
    lines = lines_of(figure.axes[0])
    expected = [(4, 0.024), (8, 0.096), (16, 0.384)]  # of the reference, and of its guide: 3e6 c^2 / 2e9
    assert sum([pytest.approx(point) for point in expected] == line for line in lines) == 3
    assert len({axes.get_ylim() for axes in figure.axes[:4]}) == 1
    ranks = lines_of(figure.axes[5])
    assert ranks == [[(1.0, 50.0), (2.0, 100.0)], [(1.0, 50.0), (2.0, 80.0)]]


def test_both_pictures_are_written_and_nothing_is_cut(tmp_path: Path) -> None:
    made_up = made_up_scaling()
    (tmp_path / "record.json").write_text(json.dumps(made_up))
    files = [tmp_path / "scaling.svg", tmp_path / "roofline.png"]
    options = [f"--record={tmp_path}/record.json", f"--scaling={files[0]}", f"--roofline={files[1]}"]
    performance_figures.main(options)
    first = [file.read_bytes() for file in files]
    performance_figures.main(options)
    assert [file.read_bytes() for file in files] == first
    assert first[0].startswith(b"<?xml")
    assert first[1].startswith(b"\x89PNG")
    for draw in (performance_figures.draw_scaling, performance_figures.draw_roofline):
        figure = draw(made_up)
        width, height = figure.get_size_inches()
        box = figure.get_tightbbox()
        assert box.x0 >= -0.01
        assert box.y0 >= -0.01
        assert box.x1 <= width + 0.01
        assert box.y1 <= height + 0.01


def test_both_places_of_the_images_are_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    monkeypatch.setattr(residence, "NETWORKS", ((4, 3),))
    residence.main(["--images=64", "--batch_size=4", "--steps=1", "--rounds=2"])
    kept = json.loads((tmp_path / "residence.json").read_text())
    ratio = kept["ratios"]["4 channels, 3 cells, images a second, host / device"]
    assert (ratio["at_least"], ratio["calls"]) == (0.95, 2)
    assert 0 < ratio["lower_quartile"] <= ratio["median"] <= ratio["upper_quartile"]
    assert kept["seconds"].keys() == {f"4 channels, 3 cells, {place}" for place in ("device", "host")}
    assert kept["settings"]["images"] == 64


def test_the_page_shows_what_the_records_hold() -> None:
    page = table.PAGE.read_text(encoding="utf-8")
    assert table.with_table(page, table.measured_table()) == page
    assert table.with_table(page, table.instruction_table(), *table.SETS) == page
    record_of_training = json.loads((record.RESULTS / "training.json").read_text())
    median = record_of_training["ratios"]["step, plain / compiled"]["median"]
    assert f"| training step, plain / float32 | at least 3.5 | {median:.3g} (" in page


def test_differences_within_seeds_are_compared_exactly() -> None:
    found = accuracy.compare([0.9, 0.8, 0.7], [0.89, 0.79, 0.69])
    assert found["mean_difference"] == pytest.approx(0.01)
    assert found["p"] == 2 / 8  # all three of one sign
    even = accuracy.compare([0.9, 0.8], [0.8, 0.9])
    assert even["p"] == 1.0
    assert even["mean_difference"] == pytest.approx(0.0)
    assert even["lower"] < 0 < even["upper"]


def test_rewritten_mathematics_is_what_is_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    rewrites.main(["--batch", "2", "--channels", "4", "--image_size", "8", "--rounds", "2"])
    kept = json.loads((tmp_path / "rewrites.json").read_text())
    assert len(kept["ratios"]) == 7
    assert all(ratio["median"] > 0 for ratio in kept["ratios"].values())


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() != "x86_64", reason="levels of x86-64")
def test_instruction_sets_are_measured_each_in_its_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    sizes = ["--batch=4", "--channels=4", "--cells=2", "--rounds=2", "--levels=reference,fast"]
    instruction_sets.main(["--sets=SSE", *sizes])
    kept = json.loads((tmp_path / "instruction_sets.json").read_text())
    cores = os.cpu_count()
    runs = [(run["instruction_set"], run["threads"], run["busy"]) for run in kept["runs"]]
    assert runs == [("SSE", 1, False), ("SSE", cores, False), ("SSE", cores, True)]
    for run in kept["runs"]:
        assert "-march=x86-64-v2" in run["compiler_flags"]
        assert all(
            run[clock][level]["median"] > 0 for clock in ("cpu", "wall") for level in ("reference", "fast")
        )
    first = kept["runs"][0]["cpu"]
    ratio = first["reference"]["median"] / first["fast"]["median"]
    shown = table.instruction_table(tmp_path)
    assert f"| {first['reference']['median']:.3f} CPU s | {ratio:.2f} |  |" in shown
    assert "SSE (`-O3 -march=x86-64-v2`)" in shown
