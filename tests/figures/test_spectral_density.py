"""Pictures of spectral densities."""

from __future__ import annotations

import math

import numpy as np
import pytest
import xarray as xr

from nas_lightning.analysis.density_file import new_densities, put_quadrature, with_densities
from nas_lightning.analysis.spectral_density import Quadrature
from nas_lightning.figures import draw_densities, figure_to_bytes, read_density_panels
from tests.figures.surfaces import inside

NAMES = ["hessian", "gauss_newton", "normalized_hessian"]


def dataset(*, done: int = 3, finite: bool = True, vectors: int = 3) -> xr.Dataset:
    """Nodes -1, 0 and 100 of some weights, in the first matrices."""
    found = new_densities(NAMES, 3, vectors, {"title": "darts_v2", "ridge": 0.1, "kind": "spectral_density"})
    for factor, name in enumerate(NAMES[:done], start=1):
        weights = np.array([[0.1, 0.88, 0.02], [0.12, 0.87, 0.01], [0.1, 0.89, 0.01]])[:vectors]
        nodes = (
            np.tile([-1.0, 0.0, 100.0], (vectors, 1)) * factor if finite else np.full((vectors, 3), np.nan)
        )
        ended = np.zeros(vectors, dtype=bool)
        put_quadrature(found, name, range(vectors), Quadrature(nodes, weights, 500, ended))
    return with_densities(found, 0.01, 0.1)


def test_a_file_is_a_row_of_plain_and_normalised_matrices() -> None:
    figure = draw_densities([read_density_panels(dataset(), "darts_v2")], note="a note")
    plain, normalised = figure.axes
    assert plain.get_title() == "darts_v2, not normalised"
    assert normalised.get_title() == "darts_v2, filter-normalised, D A D"
    assert plain.get_xscale() == "symlog"
    low, high = plain.get_xlim()
    assert low < -2
    assert high > 200
    words = [text.get_text() for text in plain.texts]
    assert words[1] == "H: trace 613 ± 170, norm 258 ± 32, dim(0.1) 6.66 ± 1.7"
    assert words[0].startswith("G: trace")
    assert len(plain.collections) == 2  # bands
    [legend] = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [
        *("Hessian H", "Gauss-Newton part G", "outermost eigenvalue", "a single eigenvalue")
    ]
    assert inside(figure)


def test_files_of_one_picture_share_their_axes_column_by_column() -> None:
    rows = [read_density_panels(dataset(), "one"), read_density_panels(dataset(done=1), "two")]
    figure = draw_densities(rows)
    assert len(figure.axes) == 3
    first, _, second = figure.axes
    assert first.get_xlim() == second.get_xlim()
    assert first.get_ylim() == second.get_ylim()
    assert inside(figure)


def test_the_single_eigenvalue_is_marked_where_its_peak_is() -> None:
    [curve] = read_density_panels(dataset(done=1))[0].curves
    assert curve.width == pytest.approx(1.01)
    assert curve.of_one == pytest.approx(math.log10(1 / (500 * 1.01 * math.sqrt(2 * math.pi))))
    assert curve.extremes == (-1.0, 100.0)


def test_nan_is_said_and_one_start_vector_has_no_band() -> None:
    figure = draw_densities([read_density_panels(dataset(finite=False))])
    assert "NaN" in {text.get_text() for text in figure.axes[0].texts}
    assert figure_to_bytes(figure, "png")
    single = draw_densities([read_density_panels(dataset(vectors=1))]).axes[0]
    assert not single.collections
    assert single.texts[1].get_text() == "H: trace 950, norm 316, dim(0.1) 9.99"


def test_nothing_to_draw_is_refused() -> None:
    with pytest.raises(ValueError, match="no start vector is measured"):
        read_density_panels(dataset(done=0))
    with pytest.raises(ValueError, match="there must be at least one density to draw"):
        draw_densities([])
