from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from nas_lightning.netcdf import read_dataset, write_dataset
from nas_lightning.study.measurements import surface_scalars
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
