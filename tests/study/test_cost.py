"""Costs are those that one counts by hand, and the plan adds them up."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from nas_lightning.acceleration.level import LONG_PASSES, LONG_WORK
from nas_lightning.study import speed as speed_module
from nas_lightning.study.configuration import flatten
from nas_lightning.study.cost import DATA_SIZES, DataSize, RunCost, Speed, run_cost, run_costs
from nas_lightning.study.executors import LocalExecutor
from nas_lightning.study.jobs import Sharing
from nas_lightning.study.plan import read_study
from nas_lightning.study.plan_text import format_plan, in_words
from nas_lightning.study.speed import measure_speed
from nas_lightning.study.study import AnalysisFile, Run, Study
from nas_lightning.study.throughput import EPOCHS, Throughput, measured_settings
from tests.cli.parsing import ParsedOnly

STUDIES = Path(__file__).parents[2] / "configs" / "studies"
read = cache(read_study)


def shipped(name: str) -> Study:
    return read(STUDIES / f"{name}.yaml")


def run_of(
    name: str, label: str, data: str = "CIFAR10", settings: Mapping[str, Any] = MappingProxyType({})
) -> Run:
    run = next(r for r in shipped(name).runs if (r.architecture.label, r.data) == (label, data))
    return dataclasses.replace(run, settings={**run.settings, **settings})


def test_a_training_counted_by_hand() -> None:
    cost = run_cost(run_of("figure3", "darts_v2"))
    assert cost.training_images == 600 * 50_000
    assert cost.work is not None
    assert cost.work == pytest.approx(600 * 50_000 + 600 * 10_000 / 3)
    assert cost.multiply_adds == 528_359_040
    assert cost.total_multiply_adds == pytest.approx(3 * 528_359_040 * cost.work)
    assert (cost.seconds, cost.unknown) == (None, None)


def test_measurements_counted_by_hand() -> None:
    plain = run_cost(run_of("figure3", "darts_v2")).work
    contour = run_cost(run_of("figure6", "darts_v2")).work
    variance = run_cost(run_of("figures7-8", "darts_v2")).work
    assert plain is not None
    assert contour is not None
    assert variance is not None
    assert contour - plain == pytest.approx(51**2 * 10_000 / 3)
    assert variance - plain == pytest.approx(21**2 * 10_000 * 1.5)


@pytest.mark.parametrize(
    ("class_name", "settings", "work"),
    [
        ("LossContour", {"resolution": 3, "max_samples": 60}, 9 * 60 / 3),
        ("LossContour", {"resolution": 3, "max_samples": 60, "direction_seeds": [0, 1]}, 2 * 9 * 60 / 3),
        ("LossContour", {"resolution": 3, "split": "train", "every_n_epochs": 200}, 3 * 9 * 50_000 / 3),
        ("GradientVariance", {"resolution": 3, "max_samples": 10**9}, 9 * 10_000 * 1.5),
        ("HessianSpectrum", {"max_samples": 60, "trace_samples": 0}, 100 * 60 * 3.5),
    ],
)
def test_a_measurement_s_settings_count(class_name: str, settings: dict[str, Any], work: float) -> None:
    run = run_of("figure3", "darts_v2")
    callback = {"class_path": f"nas_lightning.callbacks.{class_name}", "init_args": settings}
    measuring = dataclasses.replace(run, analyses=(AnalysisFile("a", callback),))
    with_it, without = run_cost(measuring).work, run_cost(run).work
    assert with_it is not None
    assert without is not None
    assert with_it - without == pytest.approx(work)


def test_table_1_has_the_paper_s_parameters() -> None:
    figures = {
        ("nasnet", "CIFAR10"): 4.29,
        ("nasnet:adapted", "CIFAR100"): 4.45,
        ("darts_v2", "CIFAR10"): 3.83,
        ("darts_v2:adapted", "TinyImageNet"): 4.16,
        ("snas_mild", "CIFAR100"): 3.26,
    }
    for (label, data), millions in figures.items():
        parameters = run_cost(run_of("table1", label, data)).parameters
        assert parameters is not None
        assert f"{parameters / 1e6:.2f}" == f"{millions:.2f}"


def test_what_is_held_out_dropped_or_limited_is_not_trained_on() -> None:
    held_out = run_cost(run_of("figure3", "darts_v2", settings={"data.init_args.validation_fraction": 0.1}))
    assert held_out.training_images == 600 * (45_000 // 80) * 80
    assert held_out.work == pytest.approx(600 * (45_000 // 80) * 80 + 600 * 5_000 / 3)
    for limit, batches in ((7, 7), (7.0, 7), (0.5, 312), (1.0, 625), (10_000, 625)):
        limited = run_cost(run_of("figure3", "darts_v2", settings={"trainer.limit_train_batches": limit}))
        assert limited.training_images == 600 * batches * 80
    assert run_cost(shipped("quickstart").runs[0]).training_images == 6 * (1437 // 64) * 64


def test_synthetic_images_have_the_size_of_their_settings() -> None:
    run = dataclasses.replace(run_of("figure3", "darts_v2"), data="Synthetic", epochs=2)
    assert run_cost(run).training_images == 2 * (512 // 80) * 80
    sizes = {"train_size": 160, "test_size": 30, "image_size": 16, "num_classes": 3}
    small = {**run.settings, **{f"data.init_args.{key}": value for key, value in sizes.items()}}
    cost = run_cost(dataclasses.replace(run, settings=small))
    assert (cost.training_images, cost.work) == (320, 320 + 2 * 30 / 3)
    whole = run_cost(run).multiply_adds
    assert cost.multiply_adds is not None
    assert whole is not None
    assert cost.multiply_adds == pytest.approx(whole / 4, rel=1e-3)  # a quarter of the pixels


def test_unknown_data_are_said_and_not_counted() -> None:
    study = shipped("figure3")
    own = dataclasses.replace(study.runs[0], data="Mine")
    cost = run_cost(own)
    assert cost == RunCost(None, None, None, None, unknown="the size of the data set Mine is not known")
    assert cost.timed(Speed(1, 1, "cpu")) == cost
    mixed = dataclasses.replace(study, runs=(own, *study.runs[1:]))
    text = format_plan(mixed, run_costs(mixed))
    assert "1 runs are not counted: the size of the data set Mine is not known" in text
    assert "870 M training images" in text


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("data.init_args.batch_size", 0, r"run darts_v2-\S+: `data.batch_size` \(=0\) must be at least 1"),
        ("model.init_channels", 0, r"run darts_v2-\S+: .*init_channels"),
    ],
)
def test_a_size_out_of_range_is_named(key: str, value: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run_cost(run_of("figure3", "darts_v2", settings={key: value}))


def test_the_table_of_data_sets_is_that_of_the_data_modules() -> None:
    from nas_lightning import datamodules

    for name, size in DATA_SIZES.items():
        data = getattr(datamodules, name)
        assert (data.image_size, data.num_classes) == (size.image_size, size.num_classes)
    assert datamodules.TinyImageNet.official_sizes == {"train": 100_000, "test": 10_000}
    digits = datamodules.Digits()
    digits.setup()
    assert digits.split_sizes == {"train": DATA_SIZES["Digits"].train, "test": DATA_SIZES["Digits"].test}


# Speed.


def measured(monkeypatch: pytest.MonkeyPatch, seconds: dict[int, float]) -> list[int]:
    """Pretend that networks of so many multiply-adds take so long; says which were trained."""
    trained: list[int] = []

    def train(run: Run, data: DataSize, forward: int, sharing: Sharing, timeout: float) -> tuple[float, str]:
        trained.append(forward)
        return seconds[forward], "cpu"

    monkeypatch.setattr(speed_module, "_train", train)
    return trained


def two_networks() -> tuple[Study, int, int]:
    study = shipped("figure5")
    forwards = sorted({cost.multiply_adds or 0 for cost in run_costs(study)})
    return study, forwards[0], forwards[-1]


def test_speed_is_the_line_through_the_cheapest_and_the_dearest(monkeypatch: pytest.MonkeyPatch) -> None:
    study, low, high = two_networks()
    trained = measured(monkeypatch, {low: 0.5 + 2e-9 * low, high: 0.5 + 2e-9 * high})
    speed = measure_speed(study)
    assert sorted(trained) == [low, high]
    assert (speed.constant, speed.per_multiply_add) == pytest.approx((0.5, 2e-9))
    costs = run_costs(study, speed)
    by_hand = costs[0].work * (0.5 + 2e-9 * costs[0].multiply_adds)  # type: ignore[operator]
    assert costs[0].seconds == pytest.approx(by_hand)


@pytest.mark.parametrize(("cheap", "dear"), [(1.0, 0.9), (0.1, 1.0)])
def test_a_line_without_sense_gives_way_to_proportion(
    monkeypatch: pytest.MonkeyPatch, cheap: float, dear: float
) -> None:
    study, low, high = two_networks()
    measured(monkeypatch, {low: cheap, high: dear})
    speed = measure_speed(study)
    assert speed.constant == 0
    assert speed.per_multiply_add == pytest.approx(dear / high)


def test_networks_of_one_size_are_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    study = shipped("figure3")
    dearest = max(cost.multiply_adds or 0 for cost in run_costs(study))
    trained = measured(monkeypatch, {dearest: 1.0})
    assert measure_speed(study).per_multiply_add == pytest.approx(1 / dearest)
    assert trained == [dearest]


def test_what_is_measured_is_a_command_on_images_of_the_same_shape(tmp_path: Path) -> None:
    run = run_of("table1", "snas_mild:adapted", "TinyImageNet", settings={"trainer.devices": 8})
    settings = speed_module._settings(run, DATA_SIZES["TinyImageNet"], 2)
    content = measured_settings(settings, tmp_path, "0")
    (tmp_path / "config.yaml").write_text(json.dumps(content))
    parsed = flatten(ParsedOnly(["fit", "--config", str(tmp_path / "config.yaml")]).settings.as_dict())
    expected = {
        "data.class_path": "nas_lightning.datamodules.Synthetic",
        "data.init_args.image_size": 64,
        "data.init_args.num_classes": 200,
        "data.init_args.batch_size": 80,
        "data.init_args.cutout": 16,
        "model.genotype": "snas_mild:adapted",
        "model.stem_stride": 2,
        "model.auxiliary_weight": 0.4,
        "trainer.max_epochs": EPOCHS,
        "trainer.limit_train_batches": 2,
        "trainer.devices": 1,
        "trainer.callbacks": None,
    }
    assert {key: parsed[key] for key in expected} == expected
    assert speed_module._settings(run, DATA_SIZES["TinyImageNet"], 2, gpus=2)["trainer"]["devices"] == 2


def test_the_level_is_that_of_the_whole_run() -> None:
    def level(epochs: int, gpus: float | int = 0, speed: str = "auto") -> object:
        run = run_of("figure3", "darts_v2", settings={"trainer.max_epochs": epochs, "model.speed": speed})
        run = dataclasses.replace(run, epochs=epochs)
        return speed_module._settings(run, DATA_SIZES["CIFAR10"], 2, gpus)["model"]["speed"]

    # 50,000 images of 3 x 528,359,040 multiply-adds are 7.9e13; of 625 batches, 20,000 passes are 32 epochs.
    assert LONG_WORK <= 50_000 * 3 * 528_359_040
    assert level(1) == "compiled"
    assert LONG_PASSES == 32 * 625
    assert [level(epochs, gpus=0.5) for epochs in (31, 32)] == ["fast", "compiled"]
    assert level(600, speed="reference") == "reference"


def test_runs_beside_each_other_are_as_slow_as_measured_together(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, float | int, int]] = []

    def together(
        settings: Mapping[str, Any], executor: LocalExecutor, processes: int, *, gpus: float, timeout: float
    ) -> Throughput:
        asked.append((processes, gpus, executor.gpus))
        return Throughput((100.0, 60.0, 40.0, 40.0), "cuda")

    monkeypatch.setattr(speed_module, "measure_throughput", together)
    study = shipped("figure3")
    dearest = max(cost.multiply_adds or 0 for cost in run_costs(study))
    sharing = Sharing(jobs=4, at_a_time=4, devices=("0",), gpus=0.25)
    speed = measure_speed(study, sharing)
    assert asked == [(4, 0.25, 1)]
    # Together 240 images a second: an image of one among four takes 4 / 240 s.
    assert (speed.constant, speed.device) == (0.0, "cuda")
    assert speed.per_multiply_add == pytest.approx(4 / 240 / dearest)
    costs = run_costs(study, speed)
    images = sum((cost.work or 0) * (cost.multiply_adds or 0) / dearest for cost in costs)
    text = format_plan(study, costs, 4, 0.25)
    line = f"4 at a time with 0.25 of a GPU each: about {in_words(images / 240)} (an estimate)"
    assert line in text


def test_more_gpus_than_there_are_cannot_be_measured() -> None:
    with pytest.raises(ValueError, match=r"^a run takes 2 GPUs, and there are 1$"):
        measure_speed(shipped("quickstart"), Sharing(1, 0, ("0",), 2))


def test_a_measurement_that_takes_too_long_is_given_up() -> None:
    with pytest.raises(OSError, match=r"^darts_v2:C\d+: a training took more than 0 s$"):
        measure_speed(shipped("quickstart"), timeout=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("at_a_time", [1, 2])
def test_a_real_measurement(tmp_path: Path, at_a_time: int) -> None:
    (tmp_path / "base.yaml").write_text(
        "model: {init_channels: 2, num_cells: 3}\n"
        "data: {class_path: Synthetic, init_args: {batch_size: 8, train_size: 64}}\n"
        "trainer: {max_epochs: 5, accelerator: cpu}\n"
    )
    (tmp_path / "study.yaml").write_text("name: tiny\nconfigs: [base.yaml]\n")
    study = read_study(tmp_path / "study.yaml", tmp_path / "logs")
    speed = measure_speed(study, Sharing(jobs=at_a_time, at_a_time=at_a_time), timeout=120)
    assert speed.device == "cpu"
    (cost,) = run_costs(study, speed)
    assert cost.seconds is not None
    assert 1 < 320 / cost.seconds < 50_000  # images per second
    assert not (tmp_path / "logs").exists()


# The text.


def test_a_small_plan_has_a_line_for_each_run_and_both_numberings() -> None:
    study = shipped("figure3")
    text = format_plan(study, run_costs(study, Speed(0, 1e-9, "cpu")), jobs=2)
    lines = text.splitlines()
    assert lines[0].startswith("figure3: Figure 3")
    assert sum(line.startswith("darts_v2") for line in lines) == 30
    assert sum("darts_v2:C6 (C1 of figure 2)" in line for line in lines) == 6
    assert "30 runs of 5 architectures, 3.35 to 3.48 M parameters, 900 M training images" in text
    assert "C1 = darts_v2:C6, C2 = darts_v2:C7, C3 = darts_v2:C1, C4 = darts_v2:C2" in text
    assert "multiply-adds (M)  time" in lines[2]
    whole = sum(cost.seconds or 0 for cost in run_costs(study, Speed(0, 1e-9, "cpu")))
    assert f"2 at a time: about {in_words(whole / 2)}" in text


def test_a_large_plan_has_a_line_for_each_group() -> None:
    study = shipped("figure9")
    text = format_plan(study, run_costs(study))
    rows = [line.split() for line in text.splitlines() if line.startswith(("darts_v2 ", "enas "))]
    assert [row[:7] for row in rows] == [
        ["darts_v2", "CIFAR10", "0.025", "original", "1", "3", "3"],
        ["darts_v2", "CIFAR10", "0.025", "connections", "13", "3", "39"],
        ["enas", "CIFAR10", "0.025", "original", "1", "3", "3"],
        ["enas", "CIFAR10", "0.025", "connections", "13", "3", "39"],
    ]
    assert "168 runs of 56 architectures" in text
    assert "time" not in text  # nothing was measured


def test_the_total_is_the_sum_over_the_runs() -> None:
    study = shipped("figure5")
    costs = run_costs(study)
    total = sum(cost.total_multiply_adds or 0 for cost in costs)
    assert f"{total / 1e15:,.0f} P multiply-adds" in format_plan(study, costs)
    with pytest.raises(ValueError, match="`jobs`"):
        format_plan(study, costs, jobs=0)


def test_the_longest_run_bounds_the_time() -> None:
    study = shipped("figure3")
    study = dataclasses.replace(study, runs=study.runs[:2])
    costs = (RunCost(1, 1, 1, 1.0, seconds=10.0), RunCost(1, 1, 1, 1.0, seconds=70.0))
    assert "2 at a time: about 70 s" in format_plan(study, costs, jobs=2)
    assert "100 at a time: about 70 s" in format_plan(study, costs, jobs=100)
    assert "one at a time: about 80 s" in format_plan(study, costs)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.4, "0.4 s"),
        (7, "7.0 s"),
        (99, "99 s"),
        (600, "10 min"),
        (3 * 3600, "3.0 h"),
        (47 * 3600, "47 h"),
        (10 * 86400, "10 days"),
        (4 * 365.25 * 86400, "4.0 years"),
    ],
)
def test_times_in_words(seconds: float | int, words: str) -> None:
    assert in_words(seconds) == words
