"""The figure of trainings' paths."""

from __future__ import annotations

from pathlib import Path

from nas_lightning.netcdf import write_dataset
from nas_lightning.report.figures import FIGURES
from nas_lightning.report.paths import training_paths
from nas_lightning.report.selection import Selection
from nas_lightning.study.results import Results
from tests.figures.surfaces import inside
from tests.figures.test_trajectory import dataset
from tests.report.made_up import made_up_results


def test_each_architecture_has_its_plane(tmp_path: Path) -> None:
    found = made_up_results(tmp_path, variants=("original", "C12", "C1"), surfaces=False)
    runs = found.runs.copy()
    assert training_paths(Selection(found), ("darts_v2",), "CIFAR10") is None
    write_dataset(tmp_path / "trajectory.nc", dataset())
    (tmp_path / "damaged.nc").write_bytes(b"half a file")
    runs["trajectory_file"] = str(tmp_path / "trajectory.nc")
    runs.loc[runs["architecture"] == "darts_v2:C1", "trajectory_file"] = str(tmp_path / "damaged.nc")
    results = Results(found.study, runs, found.curves, found.problems)
    picture = training_paths(Selection(results), ("darts_v2",), "CIFAR10")
    assert picture is not None
    planes = [axes for axes in picture.still.axes if axes.get_label() != "<colorbar>"]
    assert len(planes) == 2
    assert planes[0].get_xlabel() == "first component (80 %)"
    assert "Missing: C1 (stand-in) (file missing or damaged)." in picture.caption
    assert "neither is a finding" in picture.caption
    assert inside(picture.still)
    assert "training-paths" in {kind.name for kind in FIGURES}
