from __future__ import annotations

import warnings

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh

from nas_lightning.figures.picture import figure_to_bytes
from nas_lightning.figures.scale import Scale, colour_scale
from nas_lightning.figures.surface import SurfacePanel
from nas_lightning.figures.variance import HEAT_COLOURS, draw_heat_maps
from tests.figures.surfaces import bowl, pixels_around, planes, with_values

SCALES: tuple[Scale, ...] = ("auto", "log")


def mesh(axes: Axes) -> QuadMesh:
    (found,) = [artist for artist in axes.collections if isinstance(artist, QuadMesh)]
    return found


def test_a_cell_has_the_colour_of_its_value_on_the_scale_of_all_panels() -> None:
    surfaces = [bowl(5, 10.0), bowl(9, 30.0)]
    figure = draw_heat_maps(surfaces, label="deviation")
    for axes, surface in zip(planes(figure), surfaces, strict=True):
        assert (mesh(axes).norm.vmin, mesh(axes).norm.vmax) == (0, 60)
        for i, j in ((0, 0), (1, 3), (4, 2)):
            wanted = 255 * np.array(HEAT_COLOURS(surface.values[i, j] / 60)[:3])
            shown = pixels_around(figure, axes, surface.alphas[i], surface.betas[j], 0.05)
            # The cross on the trained weights stands elsewhere.
            np.testing.assert_allclose(shown, np.broadcast_to(wanted, shown.shape), atol=1.5)
    (bar,) = [axes for axes in figure.axes if axes not in planes(figure)]
    assert bar.get_ylabel() == "deviation"
    assert bar.get_ylim() == (0, 60)


@pytest.mark.parametrize(
    ("scale", "vmin", "vmax", "message"),
    [
        ("linear", 2, 1, r"`vmin` \(=2\) must be below `vmax` \(=1\)"),
        ("linear", 1, 1, r"`vmin` \(=1\) must be below"),
        ("linear", np.nan, None, r"`vmin` \(=nan\) must be finite"),
        ("linear", None, np.inf, r"`vmax` \(=inf\) must be finite"),
        ("log", 0, None, r"`vmin` \(=0\) must be above 0 on a logarithmic scale"),
    ],
)
def test_wrong_limits_are_refused(scale: Scale, vmin: float | None, vmax: float | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        draw_heat_maps([bowl(5)], scale=scale, vmin=vmin, vmax=vmax)


def test_nan_infinity_and_unmeasured_points_look_different() -> None:
    surface = with_values(bowl(5), {(0, 0): np.nan, (4, 4): np.inf, (4, 0): 3.0})
    measured = np.ones((5, 5), dtype=bool)
    measured[0, 4] = False
    figure = draw_heat_maps([SurfacePanel(surface.alphas, surface.betas, surface.values, "", measured)])
    axes = figure.axes[0]
    assert {patch.get_label(): patch.get_hatch() for patch in axes.patches} == {
        "not measured": None,
        "NaN": "//////",
        "infinite": "xxxxxx",
    }
    nan, infinite, unmeasured, finite = (
        pixels_around(figure, axes, alpha, beta, 0.15) for alpha, beta in ((-1, -1), (1, 1), (-1, 1), (1, -1))
    )
    assert len(np.unique(nan, axis=0)) > 3
    assert nan.max() < 220
    assert infinite.max() == 255
    assert infinite.min() < 100
    assert (unmeasured == 0xED).all()
    assert len(np.unique(finite, axis=0)) == 1
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["NaN", "infinite", "not measured"]


@pytest.mark.parametrize("value", [0.0, 2.5, 1e300, np.nan, np.inf])
def test_flat_and_empty_surfaces_make_a_figure_without_warnings(value: float) -> None:
    flat = with_values(bowl(2), {(i, j): value for i in range(2) for j in range(2)})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for scale in SCALES:
            figure = draw_heat_maps([flat], scale=scale)
            assert figure_to_bytes(figure, "png", 40.0)
            norm = colour_scale([flat.values], scale)
            assert np.diff(norm.inverse(np.array([0.0, 1.0]))) > 0
            if np.isfinite(value) and scale == "auto":
                assert norm(np.array([value])) == pytest.approx(0.5)


def test_zero_on_a_logarithmic_scale_has_the_lowest_colour() -> None:
    surface = with_values(bowl(5), {(0, 0): 0.0, (0, 1): 1e-3, (4, 4): 1e6})
    figure = draw_heat_maps([surface], scale="log")
    shown = pixels_around(figure, figure.axes[0], -1.0, -1.0, 0.1)
    assert (shown == np.round(255 * np.array(HEAT_COLOURS(0.0)[:3])).astype(int)).all()


def test_nothing_to_draw_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one panel"):
        draw_heat_maps([])
