"""The report shows what was measured between seeds, and says the barriers."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from nas_lightning.netcdf import write_dataset
from nas_lightning.report.between import paths_between_seeds
from nas_lightning.report.selection import Selection
from nas_lightning.study.between import between_seeds
from nas_lightning.study.results import Results
from nas_lightning.study.study import Study
from tests.report.made_up import made_up_results
from tests.study.run_files import planned_run

POSITIONS = np.linspace(0, 1, 5)
HUMP = 4 * POSITIONS * (1 - POSITIONS)


def line(barriers: list[float]) -> xr.Dataset:
    """Lines of some pairs with humps of these heights on a loss of 0.5."""
    loss = 0.5 + np.outer(barriers, HUMP)
    variables = {
        **{f"{split}_loss": (("pair", "position"), loss) for split in ("train", "test")},
        "test_barrier": ("pair", np.array(barriers)),
        "done": (("pair", "position"), np.ones(loss.shape, np.int8)),
    }
    return xr.Dataset(variables, {"position": POSITIONS}, {"kind": "interpolation"})


def curve(barrier: float) -> xr.Dataset:
    loss = 0.5 + np.outer([barrier, 9.0], HUMP)
    variables = {
        "test_loss": (("path", "position"), loss),
        "curve_test_barrier": ((), barrier),
        "done": (("path", "position"), np.ones(loss.shape, np.int8)),
    }
    return xr.Dataset(variables, {"position": POSITIONS}, {"kind": "mode_connectivity"})


def results_with_seeds(folder: Path) -> Results:
    """Made-up results whose study measures between the seeds of the DARTS cell and of C1."""
    results = made_up_results(folder, surfaces=False)
    rows = results.runs[results.runs["architecture"].isin(["darts_v2", "darts_v2:C1"])]
    rows = rows[rows["data"] == "CIFAR10"]
    runs = []
    for row in rows.to_dict("records"):
        run = planned_run(folder, str(row["run"]), spec=str(row["architecture"]), seed=int(row["seed"]))
        decides = {"seed_everything": run.seed, "model.genotype": row["architecture"]}
        runs.append(dataclasses.replace(run, deciding=decides))
    files = {"interpolation": (), "connectivity": ()}
    study: Study = dataclasses.replace(results.study, runs=tuple(runs), between_seeds=files)
    return Results(study, results.runs, results.curves, results.problems)


def test_lines_and_curves_are_drawn_and_their_barriers_said(tmp_path: Path) -> None:
    results = results_with_seeds(tmp_path)
    assert paths_between_seeds(Selection(results), ["darts_v2"], "CIFAR10") is None
    measured = between_seeds(results.study)
    assert [one.measure for one in measured] == ["interpolation"] * 2 + ["connectivity"] * 2
    base, _, curved, _ = measured
    write_dataset(base.folder / "landscape" / "interpolation-a.nc", line([1.0, 3.0]))
    write_dataset(curved.folder / "landscape" / "mode_connectivity-epoch0009.nc", curve(0.25))
    drawing = paths_between_seeds(Selection(results), ["darts_v2"], "CIFAR10")
    assert drawing is not None
    assert "line 2 ± 1.4 nat (2 pairs), curve 0.25 nat" in drawing.caption
    assert "Not measured: C1" in drawing.caption
    labels = [axes.get_ylabel() for axes in drawing.still.axes]
    assert labels == [
        "training loss (nat), straight line",
        "test loss (nat), straight line",
        "test loss (nat), Bézier curve",
    ]
    middles = [np.asarray(axes.get_lines()[0].get_ydata())[2] for axes in drawing.still.axes]
    assert middles == pytest.approx([2.5, 2.5, 0.75])


def test_an_unfinished_or_damaged_file_is_not_drawn(tmp_path: Path) -> None:
    results = results_with_seeds(tmp_path)
    base = between_seeds(results.study)[0]
    path = base.folder / "landscape" / "interpolation-a.nc"
    part = line([1.0])
    part["done"][0, 2] = 0
    write_dataset(path, part)
    assert paths_between_seeds(Selection(results), ["darts_v2"], "CIFAR10") is None
    path.write_bytes(b"CDF")
    assert paths_between_seeds(Selection(results), ["darts_v2"], "CIFAR10") is None
