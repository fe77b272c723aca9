"""What a run stored is read as it was written, and refused if it is damaged or of another training."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from nas_lightning.cells import get_genotype
from nas_lightning.identity import identity_hash
from nas_lightning.netcdf import read_dataset, write_dataset
from nas_lightning.study.record import analysis_statistics, measured_otherwise
from nas_lightning.study.study import AnalysisFile, Run
from tests.study.run_files import STEMS, collect, only_row, planned_run, write_run, write_surface


@pytest.mark.parametrize(
    ("difference", "message"),
    [
        ({"seed": 5}, "seed_everything 5, planned 0"),
        ({"seed": None}, "seed_everything None, planned 0"),
        ({"data": "CIFAR10"}, "data.class_path CIFAR10, planned Digits"),
        ({"learning_rate": 0.2}, "model.optimizer.init_args.lr 0.2, planned 0.1"),
        ({"epochs": 5}, "trainer.max_epochs 5, planned 4"),
        ({"spec": "darts_v2:C4"}, "another genotype than darts_v2"),
        ({"settings": {"model.init_channels": 9}}, "model.init_channels 9, planned 8"),
        ({"settings": {"data.batch_size": 47}}, "data.init_args.batch_size 47, planned 48"),
        ({"settings": {"data.cutout": 16}}, "data.init_args.cutout 16, planned 0"),
        ({"settings": {"trainer.precision": "bf16-mixed"}}, "trainer.precision bf16-mixed, planned None"),
        (
            {"settings": {"model.optimizer": {"class_path": "torch.optim.Adam", "init_args": {"lr": 0.1}}}},
            "model.optimizer.class_path Adam, planned SGD",
        ),
        (
            {"settings": {"model.lr_scheduler": {"class_path": "ConstantLR", "init_args": {"factor": 1}}}},
            "model.lr_scheduler.class_path ConstantLR, planned none",
        ),
    ],
)
def test_a_record_without_an_identity_is_compared_by_what_it_holds(
    tmp_path: Path, difference: dict[str, Any], message: str
) -> None:
    settings = {
        "model.init_channels": 8,
        "model.genotype": "darts",
        "model.optimizer.class_path": "torch.optim.SGD",
        "model.optimizer.init_args.lr": 0.1,
        "model.optimizer.init_args.momentum": 0.9,
        "data.init_args.batch_size": 48,
        "data.init_args.evaluation_batch_size": 250,
        "data.init_args.cutout": 0,
        "data.init_args.validation_fraction": 0.0,
        "data.init_args.validation_seed": 0,
        "model.lr_scheduler": None,
        "trainer.precision": 32,
        "trainer.max_epochs": 4,
    }
    run = planned_run(tmp_path, "r", settings=settings)
    # What does not decide the training may differ.
    write_run(run.folder, settings={"data.evaluation_batch_size": 100, "data.validation_seed": 5})
    only_row(collect(tmp_path, run))
    write_run(run.folder, **difference)
    results = collect(tmp_path, run)
    result = run.folder / "result.json"
    assert results.problems == (f"r: {result} is foreign, of another training than planned: {message}",)
    assert results.runs.empty
    assert results.curves.empty


def test_a_record_is_compared_by_its_identity(tmp_path: Path) -> None:
    deciding = {"model.num_cells": 6, "model.genotype": str(get_genotype("darts_v2")), "seed_everything": 0}
    run = replace(planned_run(tmp_path, "r"), deciding=deciding)

    def problems(**recorded: object) -> tuple[str, ...]:
        write_run(run.folder, seed=9)  # what the identity decides is not looked at again
        path = run.folder / "result.json"
        settings = {**deciding, **recorded}
        content = json.loads(path.read_text()) | {
            "identity": identity_hash(settings),
            "deciding": settings,
        }
        path.write_text(json.dumps(content))
        return collect(tmp_path, run).problems

    assert problems() == ()
    start = f"r: {run.folder / 'result.json'} is foreign, of another training than planned: "
    assert problems(**{"model.num_cells": 7}) == (f"{start}model.num_cells 7, planned 6",)
    found = problems(**{"trainer.max_steps": 5, "model.genotype": "Genotype(...)"})
    assert found == (f"{start}another genotype than darts_v2; trainer.max_steps 5, planned the default",)


def test_a_genotype_in_the_settings_stays_whole(tmp_path: Path) -> None:
    run = planned_run(tmp_path, "r")
    genotype = {"normal": [["skip_connect", 0]], "normal_concat": [2]}
    write_run(run.folder, settings={"model.genotype": genotype})
    row = only_row(collect(tmp_path, run))
    assert json.loads(row["settings.model.genotype"]) == genotype
    assert row["settings.model.optimizer.class_path"] == "torch.optim.SGD"


@pytest.mark.parametrize("name", ["result.json", "metrics.csv"])
def test_truncated_and_lost_files_are_named(tmp_path: Path, name: str) -> None:
    run = planned_run(tmp_path, "r")
    write_run(run.folder)
    path = run.folder / name
    whole = path.read_bytes()
    for length in sorted({*range(0, len(whole) - 1, max(1, len(whole) // 25)), len(whole) - 2}):
        path.write_bytes(whole[:length])
        results = collect(tmp_path, run)
        assert len(results.problems) == 1, length
        assert str(path) in results.problems[0]
        assert "\n" not in results.problems[0]
        assert results.runs.empty
    path.unlink()
    assert len(collect(tmp_path, run).problems) == 1
    path.write_bytes(whole)
    only_row(collect(tmp_path, run))


@pytest.mark.parametrize(
    ("keys", "value", "message"),
    [
        (("cell", "parameters"), None, "`parameters` is None, a number was expected"),
        (("cell", "parameters"), 1.5, "`parameters` is 1.5, a whole number was expected"),
        (("settings", "data.batch_size"), True, "`data.batch_size` is True, a number was expected"),
        (("evaluation_split",), 7, "`evaluation_split` is 7, text was expected"),
        (("provenance", "weights_sha256"), [], r"`weights_sha256` is \[\], text was expected"),
        (("provenance",), 3, "is no result of a training: `provenance` is missing"),
        (("settings", "model.num_classes"), 1, r"`num_classes` \(=1\) must be at least 2"),
    ],
)
def test_a_result_of_another_form_is_named(
    tmp_path: Path, keys: tuple[str, ...], value: object, message: str
) -> None:
    run = planned_run(tmp_path, "r")
    write_run(run.folder)
    path = run.folder / "result.json"
    result = json.loads(path.read_text())
    section = result if len(keys) == 1 else result[keys[0]]
    section[keys[-1]] = value
    path.write_text(json.dumps(result))
    results = collect(tmp_path, run)
    assert len(results.problems) == 1
    with pytest.raises(ValueError, match=f"^r: .*{message}"):
        raise ValueError(results.problems[0])


def test_curves_of_another_training_than_the_result_are_refused(tmp_path: Path) -> None:
    run = planned_run(tmp_path, "r")
    write_run(run.folder)
    metrics = (run.folder / "metrics.csv").read_text()
    write_run(run.folder, loss=[2.0, 1.0, 0.8, 0.7])
    (run.folder / "metrics.csv").write_text(metrics)
    assert collect(tmp_path, run).problems == (
        f"r: {run.folder / 'metrics.csv'} ends with `loss/test` 0.625, result.json beside it with 0.7",
    )
    (run.folder / "metrics.csv").write_text("\n".join(metrics.splitlines()[:-1]))
    assert "metrics.csv has 3 epochs, result.json beside it 4" in collect(tmp_path, run).problems[0]
    (run.folder / "metrics.csv").write_text(metrics + metrics.splitlines()[1] + "\n")
    assert "its epochs are not 0, 1, 2, ..." in collect(tmp_path, run).problems[0]


@pytest.mark.parametrize(
    ("trainer", "batches", "steps"),
    [
        ({}, 29, 29),
        ({"limit_train_batches": 1.0}, 29, 29),
        ({"limit_train_batches": 0.5}, 14, 14),
        ({"limit_train_batches": 7}, 7, 7),
        ({"limit_train_batches": 7.0}, 7, 7),
        ({"limit_train_batches": 100}, 29, 29),
        ({"accumulate_grad_batches": 4}, 29, 8),
        ({"overfit_batches": 3}, 3, 3),
    ],
)
def test_steps_follow_the_trainer(tmp_path: Path, trainer: dict[str, Any], batches: int, steps: int) -> None:
    settings = {f"trainer.{key}": value for key, value in trainer.items()}
    run = planned_run(tmp_path, "r", settings=settings)
    write_run(run.folder)
    row = only_row(collect(tmp_path, run))
    assert row["steps_per_epoch"] == steps
    assert row["steps_to_accuracy_0.5"] == steps
    assert row["training_seconds"] == pytest.approx(sum(batches * 48 / (100.5 + epoch) for epoch in range(4)))


# Analyses.


def test_statistics_of_surfaces_are_means_and_deviations_over_direction_seeds(tmp_path: Path) -> None:
    run = planned_run(tmp_path, "r")
    write_run(run.folder, direction_seeds=(0, 1, 2))
    row = only_row(collect(tmp_path, run))
    deviation = np.std([0, 1, 4], ddof=1)
    assert row["loss_contour.near_convex_share"] == pytest.approx(5 / 3)
    assert row["loss_contour.curvature_center"] == pytest.approx(20 + 5 / 3)
    assert row["loss_contour.curvature_center.sd"] == pytest.approx(deviation)
    assert row["gradient_variance.standard_deviation_center.sd"] == pytest.approx(deviation)
    assert row["gradient_variance.center_noise_scale"] == 20
    assert row["hessian_spectrum.largest_eigenvalue"] == 30
    assert row["hessian_spectrum.smallest_eigenvalue"] == -2.5
    assert row["hessian_spectrum.trace"] == 55
    assert [row[f"{stem}.samples"] for stem in STEMS] == [256] * 3
    assert row["loss_contour.direction_seeds"] == 3
    assert row["loss_contour.split"] == "test"
    for stem in STEMS:
        assert row[f"{stem}_file"] == str(run.folder / "landscape" / f"{stem}-epoch0003.nc")
    assert not [name for name in row.index if "cosine" in name or "ring" in name or "by_node" in name]


def test_one_direction_seed_has_no_deviation_and_infinity_stays(tmp_path: Path) -> None:
    write_surface(tmp_path / "one.nc", "loss_contour", (2,))
    statistics = analysis_statistics(read_dataset(tmp_path / "one.nc"))
    assert statistics["near_convex_share"] == 4
    assert math.isnan(float(statistics["near_convex_share.sd"]))
    dataset = read_dataset(tmp_path / "one.nc")
    dataset["curvature_max"] = ("direction_seed", [math.inf])
    dataset["curvature_mean"] = ("direction_seed", [math.nan])
    write_dataset(tmp_path / "odd.nc", dataset)
    statistics = analysis_statistics(read_dataset(tmp_path / "odd.nc"))
    assert statistics["curvature_max"] == math.inf
    assert math.isnan(float(statistics["curvature_mean"]))


def test_a_spectrum_without_smallest_eigenvalues_has_nan(tmp_path: Path) -> None:
    write_surface(tmp_path / "h.nc", "hessian_spectrum")
    dataset = read_dataset(tmp_path / "h.nc").isel(smallest_rank=slice(0, 0))
    statistics = analysis_statistics(dataset)
    assert math.isnan(float(statistics["smallest_eigenvalue"]))
    assert statistics["largest_eigenvalue"] == 30


def test_an_analysis_that_cannot_be_used_is_named_and_the_run_stays(tmp_path: Path) -> None:
    run = planned_run(tmp_path, "r", stems=("loss_contour", "gradient_variance"))
    write_run(run.folder)
    contour, variance, hessian = (run.folder / "landscape" / f"{stem}-epoch0003.nc" for stem in STEMS)
    contour.write_bytes(contour.read_bytes()[:200])
    variance.unlink()
    write_surface(hessian, "hessian_spectrum", weights="cd" * 32)
    results = collect(tmp_path, run)
    assert results.problems == (
        f"r: {contour} is not an analysis file, or it is damaged",
        f"r: there is no {variance}",
        f"r: {hessian}: measured with other weights than those that the run ended with",
    )
    row = results.runs.iloc[0]
    assert row["final_loss"] == 0.625
    assert all(pd.isna(row[f"{stem}_file"]) for stem in STEMS)
    assert pd.isna(row["loss_contour.near_convex_share"])
    write_surface(contour, "loss_contour", done=4)
    assert f"r: {contour}: unfinished, 8 of 18 points are measured" in collect(tmp_path, run).problems


def test_an_analysis_of_another_study_is_used_and_its_lack_no_problem(tmp_path: Path) -> None:
    run = planned_run(tmp_path, "r", stems=())
    write_run(run.folder, stems=("loss_contour",))
    row = only_row(collect(tmp_path, run))
    assert row["loss_contour.curvature_center"] == 20.5
    assert pd.isna(row["gradient_variance_file"])


@pytest.mark.parametrize(
    ("given", "difference"),
    [
        ({"split": "test", "max_samples": 256, "resolution": 3, "direction_seeds": [0, 1]}, None),
        ({"extent": 1.0, "normalization": "layer", "batch_size": 7, "every_n_epochs": 4}, None),
        ({"extent": [-1, 1]}, None),
        ({"orthogonal": False}, None),
        ({"split": "train"}, "split test, the plan says train"),
        ({"max_samples": 64}, "samples 256, the plan says 64"),
        ({"max_samples": None}, "samples 256, the plan says 360"),  # all of the test split
        ({"resolution": 5}, "resolution 3, the plan says 5"),
        ({"extent": 0.5}, "extent -1, 1, the plan says -0.5, 0.5"),
        ({"direction_seeds": [0]}, "direction_seeds 0, 1, the plan says 0"),
        ({"normalization": "filter"}, "normalization layer, the plan says filter"),
        ({"orthogonal": True}, "orthogonal False, the plan says True"),
    ],
)
def test_an_analysis_with_other_settings_than_planned_is_named(
    tmp_path: Path, given: dict[str, Any], difference: str | None
) -> None:
    analysis = AnalysisFile("loss_contour", {"init_args": given})
    run = replace(planned_run(tmp_path, "r", stems=()), analyses=(analysis,))
    write_run(run.folder, stems=("loss_contour",))
    path = analysis.path(run.folder, run.epochs)
    dataset = read_dataset(path).assign_attrs(normalization="layer", orthogonal="False")
    write_dataset(path, dataset)
    results = collect(tmp_path, run)
    if difference is None:
        assert only_row(results)["loss_contour.curvature_center"] == 20.5
    else:
        problem = f"{path} was measured with {difference}; move it away to measure again"
        assert results.problems == (f"r: {problem}",)
        assert pd.isna(results.runs.iloc[0]["loss_contour_file"])


def test_a_spectrum_with_other_settings_than_planned_is_named(tmp_path: Path) -> None:
    run = planned_run(tmp_path, "r")
    write_run(run.folder)
    path = run.folder / "landscape" / "hessian_spectrum-epoch0003.nc"
    decisive = {"k": 5, "smallest": 1, "tolerance": 1e-3, "trace_samples": 10, "max_products": 300, "seed": 0}
    dataset = read_dataset(path).assign_attrs(decisive)

    def difference(**given: Any) -> str | None:
        settings = {"class_path": "nas_lightning.callbacks.HessianSpectrum", "init_args": given}
        return measured_otherwise(run, AnalysisFile("hessian_spectrum", settings), dataset, path)

    assert difference(max_samples=256) is None
    assert difference(max_samples=256, tolerance=1e-3, k=5, batch_size=3) is None
    for given, said in (
        ({"max_samples": 256, "k": 7}, "k 5, the plan says 7"),
        ({"max_samples": 256, "tolerance": 1e-4}, "tolerance 0.001, the plan says 0.0001"),
        ({"max_samples": None}, "samples 256, the plan says 360"),  # the whole split
    ):
        assert (difference(**given) or "").startswith(f"{path} was measured with {said};")


def analysis(stem: str, kind: str, **given: Any) -> AnalysisFile:
    settings = {"class_path": f"nas_lightning.callbacks.{kind}", "init_args": given}
    return AnalysisFile(stem, settings)


def write_center(run: Run, stem: str, epochs: int, **values: float) -> Path:
    """A gradient variance at w* alone, after so many epochs."""
    path = AnalysisFile(stem, {}).path(run.folder, epochs)
    write_dataset(
        path, xr.Dataset(values, attrs={"kind": "gradient_variance", "samples": 9, "split": "train"})
    )
    return path


def test_analyses_of_one_class_are_told_apart_by_their_names(tmp_path: Path) -> None:
    wanted = (
        analysis("fine", "GradientVariance", split="train"),
        analysis("gradient_variance", "GradientVariance", split="test"),
        analysis("gradient_variance_train", "GradientVariance", split="train"),
    )
    run = replace(planned_run(tmp_path, "r", stems=()), analyses=wanted)
    write_run(run.folder, stems=("gradient_variance",))
    for number, stem in enumerate(("fine", "gradient_variance_train"), start=1):
        write_center(run, stem, run.epochs, center_variance=float(number))
    row = only_row(collect(tmp_path, run))
    assert row["gradient_variance.center_variance"] == 0
    assert row["gradient_variance_train.center_variance"] == 2
    assert row["gradient_variance_train.split"] == "train"
    assert row["fine.center_variance"] == 1
    assert row["fine.split"] == "train"
    assert math.isnan(row["gradient_variance_train.center_loss"])


def test_the_start_and_the_epochs_are_read(tmp_path: Path) -> None:
    stem = "gradient_variance_train"
    wanted = analysis(stem, "GradientVariance", split="train", every_n_epochs=2, at_start=True)
    assert wanted.measured_after(5) == (0, 2, 4, 5)
    run = replace(planned_run(tmp_path, "r", epochs=5, stems=()), analyses=(wanted,))
    write_run(run.folder, epochs=5, stems=())
    for epochs, variance in ((0, 700.0), (2, 4.0), (4, 9.0), (5, 6.0)):
        write_center(run, stem, epochs, center_variance=variance, center_loss=float(5 - epochs))
    write_center(run, stem, 1, center_variance=1e9)  # of another plan
    row = only_row(collect(tmp_path, run))
    assert row[f"start.{stem}.center_variance"] == 700
    assert row[f"start.{stem}_file"] == str(run.folder / "landscape" / f"{stem}-start.nc")
    assert row[f"{stem}.center_variance"] == 6
    assert row[f"{stem}.mean_log.center_variance"] == pytest.approx(math.log(4 * 9 * 6) / 3)
    assert math.isnan(row[f"{stem}.mean_log.center_loss"])  # zero at the end
    assert row[f"{stem}.epochs_measured"] == 3

    missing = AnalysisFile(stem, {}).path(run.folder, 4)
    missing.unlink()
    results = collect(tmp_path, run)
    assert results.problems == (f"r: there is no {missing}",)
    assert results.runs.iloc[0][f"{stem}.center_variance"] == 6
    # The mean over other epochs would be another statistic.
    assert math.isnan(results.runs.iloc[0][f"{stem}.mean_log.center_variance"])
    assert pd.isna(results.runs.iloc[0][f"{stem}.epochs_measured"])


def test_an_analysis_of_the_start_alone(tmp_path: Path) -> None:
    wanted = analysis("gradient_variance", "GradientVariance", at_start=True, at_end=False)
    assert wanted.measured_after(4) == (0,)
    run = replace(planned_run(tmp_path, "r", stems=()), analyses=(wanted,))
    write_run(run.folder, stems=())
    path = AnalysisFile("gradient_variance", {}).path(run.folder, 0)
    assert collect(tmp_path, run).problems == (f"r: there is no {path}",)
    assert write_center(run, "gradient_variance", 0, center_mean_gradient_norm=350.0) == path
    row = only_row(collect(tmp_path, run))
    assert row["start.gradient_variance.center_mean_gradient_norm"] == 350
    assert pd.isna(row["gradient_variance_file"])
    assert pd.isna(row["gradient_variance.epochs_measured"])


def test_a_single_epoch_has_its_logarithm_as_mean(tmp_path: Path) -> None:
    run = planned_run(tmp_path, "r", stems=())
    write_run(run.folder, stems=())
    write_center(run, "gradient_variance", run.epochs, center_variance=math.e, center_loss=math.inf)
    row = only_row(collect(tmp_path, run))
    assert row["gradient_variance.mean_log.center_variance"] == pytest.approx(1)
    assert math.isnan(row["gradient_variance.mean_log.center_loss"])
    assert row["gradient_variance.epochs_measured"] == 1
