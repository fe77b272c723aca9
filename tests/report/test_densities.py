"""The figure of spectral densities."""

from __future__ import annotations

from pathlib import Path

from nas_lightning.netcdf import write_dataset
from nas_lightning.report.densities import spectral_densities
from nas_lightning.report.figures import FIGURES
from nas_lightning.report.selection import Selection
from nas_lightning.study.results import Results
from tests.figures.surfaces import inside
from tests.figures.test_spectral_density import dataset
from tests.report.made_up import made_up_results


def test_each_architecture_has_its_panel_of_normalised_matrices(tmp_path: Path) -> None:
    found = made_up_results(tmp_path, variants=("original", "C12", "C1"), surfaces=False)
    runs = found.runs.copy()
    assert spectral_densities(Selection(found), ("darts_v2",), "CIFAR10") is None
    write_dataset(tmp_path / "density.nc", dataset())
    (tmp_path / "damaged.nc").write_bytes(b"half a file")
    runs["spectral_density_file"] = str(tmp_path / "density.nc")
    runs.loc[runs["architecture"] == "darts_v2:C1", "spectral_density_file"] = str(tmp_path / "damaged.nc")
    results = Results(found.study, runs, found.curves, found.problems)
    picture = spectral_densities(Selection(results), ("darts_v2",), "CIFAR10")
    assert picture is not None
    first, second = picture.still.axes
    assert "filter-normalised" in first.get_title()
    assert first.get_xlim() == second.get_xlim()
    assert "Missing: C1 (stand-in) (file missing or damaged)." in picture.caption
    assert "not normalised" not in picture.caption
    assert inside(picture.still)
    assert "spectral-densities" in {kind.name for kind in FIGURES}
