from __future__ import annotations

import inspect
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from nas_lightning import callbacks
from nas_lightning.netcdf import read_dataset, write_dataset
from nas_lightning.study.measurements import DEFAULTS, measured_otherwise, surface_scalars
from nas_lightning.study.study import AnalysisFile
from tests.study.run_files import STEMS, collect, only_row, planned_run, write_run, write_surface


def test_scalars_of_surfaces_are_means_and_deviations_over_direction_seeds(tmp_path: Path) -> None:
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
    scalars = surface_scalars(read_dataset(tmp_path / "one.nc"))
    assert scalars["near_convex_share"] == 4
    assert math.isnan(float(scalars["near_convex_share.sd"]))
    dataset = read_dataset(tmp_path / "one.nc")
    dataset["curvature_max"] = ("direction_seed", [math.inf])
    dataset["curvature_mean"] = ("direction_seed", [math.nan])
    write_dataset(tmp_path / "odd.nc", dataset)
    scalars = surface_scalars(read_dataset(tmp_path / "odd.nc"))
    assert scalars["curvature_max"] == math.inf
    assert math.isnan(float(scalars["curvature_mean"]))


def test_a_spectrum_without_smallest_eigenvalues_has_nan(tmp_path: Path) -> None:
    write_surface(tmp_path / "h.nc", "hessian_spectrum")
    dataset = read_dataset(tmp_path / "h.nc").isel(smallest_rank=slice(0, 0))
    scalars = surface_scalars(dataset)
    assert math.isnan(float(scalars["smallest_eigenvalue"]))
    assert scalars["largest_eigenvalue"] == 30


def test_a_measurement_that_cannot_be_used_is_named_and_the_run_stays(tmp_path: Path) -> None:
    run = planned_run(tmp_path, "r", stems=("loss_contour", "gradient_variance"))
    write_run(run.folder)
    contour, variance, hessian = (run.folder / "landscape" / f"{stem}-epoch0003.nc" for stem in STEMS)
    contour.write_bytes(contour.read_bytes()[:200])
    variance.unlink()
    write_surface(hessian, "hessian_spectrum", weights="cd" * 32)
    results = collect(tmp_path, run)
    assert results.problems == (
        f"r: {contour} is not a file of a measurement, or it is damaged",
        f"r: there is no {variance}",
        f"r: {hessian}: measured with other weights than those that the run ended with",
    )
    row = results.runs.iloc[0]
    assert row["final_loss"] == 0.625
    assert all(pd.isna(row[f"{stem}_file"]) for stem in STEMS)
    assert pd.isna(row["loss_contour.near_convex_share"])
    write_surface(contour, "loss_contour", done=4)
    assert f"r: {contour}: unfinished, 8 of 18 points are measured" in collect(tmp_path, run).problems


def test_a_measurement_of_another_study_is_used_and_its_lack_no_problem(tmp_path: Path) -> None:
    run = planned_run(tmp_path, "r", stems=())
    write_run(run.folder, stems=("loss_contour",))
    row = only_row(collect(tmp_path, run))
    assert row["loss_contour.curvature_center"] == 20.5
    assert pd.isna(row["gradient_variance_file"])


@pytest.mark.parametrize(
    ("given", "difference"),
    [
        ({"split": "test", "max_samples": 256, "resolution": 3, "direction_seeds": [0, 1]}, None),
        ({"extent": 1.0, "normalization": "layer", "batch_size": 7, "every_n_epochs": 2}, None),
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
def test_a_measurement_with_other_settings_than_planned_is_named(
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
        return measured_otherwise(run, AnalysisFile("hessian_spectrum", settings), dataset)

    assert difference(max_samples=256) is None
    assert difference(max_samples=256, tolerance="1e-3", k=5) is None  # YAML's 1e-3 is a text
    for given, said in (
        ({"max_samples": 256, "k": 7}, "k 5, the plan says 7"),
        ({"max_samples": 256, "tolerance": "1e-4"}, "tolerance 0.001, the plan says 0.0001"),
        ({}, "samples 256, the plan says 360"),  # the callback's own: the whole split
    ):
        assert (difference(**given) or "").startswith(f"{path} was measured with {said};")


@pytest.mark.parametrize("name", DEFAULTS)
def test_defaults_are_those_of_the_callbacks(name: str) -> None:
    parameters: dict[str, Any] = {}
    for part in reversed(getattr(callbacks, name).__mro__):
        if "__init__" in vars(part):
            parameters |= inspect.signature(part.__init__).parameters
    found = {key: parameters[key].default for key in DEFAULTS[name]}
    assert {key: list(value) if isinstance(value, tuple) else value for key, value in found.items()} == (
        DEFAULTS[name]
    )
