"""Costs are those that one counts by hand."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from nas_lightning.study.cost import DATA_SIZES, RunCost, run_cost
from nas_lightning.study.study import AnalysisFile
from tests.study.shipped import run_of, shipped


def test_a_training_counted_by_hand() -> None:
    cost = run_cost(run_of("figure3", "darts_v2"))
    assert cost.training_images == 600 * 50_000
    assert cost.work is not None
    assert cost.work == pytest.approx(600 * 50_000 + 600 * 10_000 / 3)
    assert cost.multiply_adds == 528_359_040
    assert cost.total_multiply_adds == pytest.approx(3 * 528_359_040 * cost.work)
    assert cost.unknown is None


def test_analyses_counted_by_hand() -> None:
    plain = run_cost(run_of("figure3", "darts_v2")).work
    contour = run_cost(run_of("figure6", "darts_v2")).work
    variance = run_cost(run_of("figures7-8", "darts_v2")).work
    assert plain is not None
    assert contour is not None
    assert variance is not None
    assert contour - plain == pytest.approx(5 * (51**2 + 11) * 10_000 / 3 + 10 * 10_000 * 2.2)
    assert variance - plain == pytest.approx(5 * 21**2 * 10_000 * 1.5)


@pytest.mark.parametrize(
    ("class_name", "settings", "work"),
    [
        ("LossContour", {"resolution": 3, "max_samples": 60}, 9 * 60 / 3),
        ("LossContour", {"resolution": 3, "max_samples": 60, "direction_seeds": [0, 1]}, 2 * 9 * 60 / 3),
        ("LossProfile", {"resolution": 4, "max_samples": 60, "direction_seeds": [0, 1]}, 8 * 60 / 3),
        ("Trajectory", {"resolution": 3, "max_samples": 60}, 9 * 60 / 3),
        ("Trajectory", {"resolution": 3, "max_samples": 60, "batch_norm": "reestimated"}, 2 * 9 * 60 / 3),
        ("CurvatureMap", {"resolution": 3, "max_samples": 60}, 9 * 25 * 60 * 2.2),
        ("BlockCurvature", {"max_samples": 60}, (2 + 20 * 3) * 25 * 60 * 2.2),
        ("LossProfile", {"resolution": 3, "max_samples": 60, "curvature_samples": 10}, 60 + 10 * 60 * 2.2),
        ("LossLine", {"resolution": 4, "splits": ["train", "test"], "max_samples": 60}, 4 * 120 / 3),
        (
            "LossLine",
            {"resolution": 2, "splits": ["test"], "batch_norm": "reestimated", "direction_seeds": [0, 1]},
            2 * 2 * 60_000 / 3,
        ),
        ("Interpolation", {"resolution": 4, "splits": ["test"], "max_samples": 60}, 4 * 60 / 3),
        ("LossContour", {"resolution": 3, "split": "train", "every_n_epochs": 200}, 3 * 9 * 50_000 / 3),
        ("GradientVariance", {"resolution": 3, "max_samples": 10**9}, 9 * 10_000 * 1.5),
        (
            "SpectralDensity",
            {
                **{"max_samples": 60, "steps": 5, "start_vectors": 3},
                **{"matrices": ["hessian", "gauss_newton"], "normalized": True},
            },
            4 * 15 * 60 * 2.2,
        ),
        ("HessianSpectrum", {"max_samples": 60, "trace_samples": 0}, 100 * 60 * 2.2),
    ],
)
def test_an_analysis_s_settings_count(class_name: str, settings: dict[str, Any], work: float) -> None:
    run = run_of("figure3", "darts_v2")
    arguments = {"split": "test", "every_n_epochs": None, "direction_seeds": [0], "max_samples": None}
    arguments |= {"batch_norm": "frozen"}
    callback = {"class_path": f"nas_lightning.callbacks.{class_name}", "init_args": arguments | settings}
    analysing = dataclasses.replace(run, analyses=(AnalysisFile("a", callback),))
    with_it, without = run_cost(analysing).work, run_cost(run).work
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
    sizes = {"train_size": 512, "test_size": 128, "image_size": 32, "num_classes": 10}
    run = run_of("figure3", "darts_v2", settings={f"data.init_args.{key}": v for key, v in sizes.items()})
    run = dataclasses.replace(run, data="Synthetic", epochs=2)
    assert run_cost(run).training_images == 2 * (512 // 80) * 80
    sizes = {"train_size": 160, "test_size": 30, "image_size": 16, "num_classes": 3}
    small = {**run.settings, **{f"data.init_args.{key}": value for key, value in sizes.items()}}
    cost = run_cost(dataclasses.replace(run, settings=small))
    assert (cost.training_images, cost.work) == (320, 320 + 2 * 30 / 3)
    whole = run_cost(run).multiply_adds
    assert cost.multiply_adds is not None
    assert whole is not None
    assert cost.multiply_adds == pytest.approx(whole / 4, rel=1e-3)  # a quarter of the pixels


def test_a_folder_of_images_is_counted_where_it_is(tmp_path: Path) -> None:
    root = tmp_path / "pets"
    run = run_of(
        "figure3", "darts_v2", settings={"data.init_args.root": str(root), "data.init_args.batch_size": 4}
    )
    run = dataclasses.replace(run, data="ImageFolder", epochs=2)
    assert run_cost(run) == RunCost(None, None, None, None, unknown=f"`data.root` (={root}): no such folder")
    for split, count in (("train", 10), ("test", 6)):
        for number in range(count):
            file = root / split / ("cat", "dog")[number % 2] / f"{number}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
    cost = run_cost(run)
    assert (cost.training_images, cost.work) == (2 * 8, 2 * 8 + 2 * 6 / 3)
    assert cost.parameters is not None


def test_unknown_data_have_no_cost() -> None:
    cost = run_cost(dataclasses.replace(shipped("figure3").runs[0], data="Mine"))
    assert cost == RunCost(None, None, None, None, unknown="the size of the data set Mine is not known")


def test_the_table_of_data_sets_is_that_of_the_data_modules() -> None:
    from nas_lightning import datamodules

    for name, size in DATA_SIZES.items():
        data = getattr(datamodules, name)
        assert (data.image_size, data.num_classes) == (size.image_size, size.num_classes)
    assert datamodules.TinyImageNet.official_sizes == {"train": 100_000, "test": 10_000}
    digits = datamodules.Digits()
    digits.setup()
    assert digits.split_sizes == {"train": DATA_SIZES["Digits"].train, "test": DATA_SIZES["Digits"].test}
