"""Figures of lines: along random directions, and from the initial to the trained weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nas_lightning.analysis import new_interpolation, new_line
from nas_lightning.report.figures import FIGURES
from nas_lightning.report.lines import interpolations, loss_lines
from nas_lightning.report.selection import Selection
from nas_lightning.study.results import Results
from tests.figures.surfaces import inside
from tests.report.made_up import made_up_results

STEPS = [-1.0, 0.0, 0.5, 1.0]


def line_file(path: Path, width: float, seed: int, *, between: bool) -> str:
    """A file of a line of an architecture's run, with two directions."""
    rows = [0] if between else [0, 4]
    make = new_interpolation if between else new_line
    surface = make(STEPS, rows, ["train", "test"], {"title": "invented", "num_classes": 10})
    for point in surface.pending():
        loss = (1 + 0.1 * seed + 0.2 * point.direction_seed) * point.alpha**2 * 8 / width
        values = {"train_loss": loss, "test_loss": loss + 0.1, "train_accuracy": 0.9, "test_accuracy": 0.8}
        surface.record(point, values)
    surface.save(path)
    return str(path)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    folder = tmp_path_factory.mktemp("lines")
    found = made_up_results(folder, variants=("original", "C12", "C1"), surfaces=False)
    runs = found.runs.copy()
    for stem in ("loss_line", "interpolation"):
        files = [
            line_file(folder / f"{stem}{place}.nc", width, seed, between=stem == "interpolation")
            for place, (width, seed) in enumerate(zip(runs["width"], runs["seed"], strict=True))
        ]
        runs[f"{stem}_file"] = files
    lost = runs["architecture"] == "darts_v2:C1"
    runs.loc[lost, "interpolation_file"] = None
    return Results(found.study, runs, found.curves, found.problems)


def test_a_line_is_the_mean_over_directions_and_seeds(results: Results) -> None:
    picture = loss_lines(Selection(results), ("darts_v2",), "CIFAR10")
    assert picture is not None
    names = [axes.get_ylabel() for axes in picture.still.axes]
    assert names == ["training loss (nat)", "test loss (nat)", "training accuracy", "test accuracy"]
    [line] = [line for line in picture.still.axes[1].lines if str(line.get_label()).startswith("C12")]
    width = results.runs.loc[results.runs["architecture"] == "darts_v2:C12", "width"].iloc[0]
    expected = (1 + 0.05 + 0.4) * np.square(STEPS) * 8 / width + 0.1
    assert np.asarray(line.get_ydata()) == pytest.approx(expected)
    assert "along 2 random directions" in picture.caption
    assert picture.live is not None
    assert inside(picture.still)


def test_an_interpolation_names_what_is_missing(results: Results) -> None:
    picture = interpolations(Selection(results), ("darts_v2",), "CIFAR10")
    assert picture is not None
    assert "Without a curve: C1 (stand-in)." in picture.caption
    assert "says little of the path" in picture.caption
    assert picture.still.axes[2].get_xlabel().startswith("position t")


def test_the_report_has_them_where_a_study_measured_them(tmp_path: Path) -> None:
    assert {"loss-lines", "interpolations"} <= {kind.name for kind in FIGURES}
    without = Selection(made_up_results(tmp_path, variants=("original",), surfaces=False))
    for draw in (loss_lines, interpolations):
        assert draw(without, ("darts_v2",), "CIFAR10") is None
