from __future__ import annotations

import warnings

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import LogNorm

from nas_lightning.figures.picture import figure_to_bytes
from nas_lightning.figures.scale import Scale, beyond, colour_scale, power_of_ten
from nas_lightning.figures.surface import SurfacePanel
from nas_lightning.figures.variance import HEAT_COLOURS, VarianceSplit, draw_heat_maps, draw_variance_by_node
from tests.figures.surfaces import bowl, inside, pixels_around, planes, with_values

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


def test_the_scale_is_the_data_s_or_the_given_one() -> None:
    values = [bowl(5, 1.0).values, np.array([np.nan, np.inf, 4.0])]
    assert (colour_scale(values).vmin, colour_scale(values).vmax) == (0, 4)
    given = colour_scale(values, vmin=1, vmax=3)
    assert (given.vmin, given.vmax) == (1, 3)
    assert beyond(given, values) == "both"
    assert [
        beyond(colour_scale(values, vmin=low, vmax=high), values) for low, high in ((0, 3), (1, 5), (0, 5))
    ] == [
        "max",
        "min",
        "neither",
    ]
    # One value does not stretch the scale of all: from 30 medians on it is logarithmic.
    wide = [np.array([0.0, 1.0, 1.0, 2.0, 29.0])], [np.array([0.0, 1.0, 1.0, 2.0, 2000.0])]
    assert [isinstance(colour_scale(data), LogNorm) for data in wide] == [False, True]
    assert (colour_scale(wide[1]).vmin, colour_scale(wide[1]).vmax) == (1, 2000)
    assert not isinstance(colour_scale(wide[1], "linear"), LogNorm)
    assert not isinstance(colour_scale(wide[1], vmax=20), LogNorm)


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


def test_large_numbers_are_divided_by_a_power_of_ten_that_is_named() -> None:
    assert power_of_ten(234567.0) == (5, " / 10⁵")
    assert power_of_ten(9999.0) == (0, "")
    assert power_of_ten(0.005) == (-3, " / 10⁻³")
    assert power_of_ten(0.0) == (0, "")


NODES = ["preprocess", "2", "3"]


def bar_heights(axes: Axes) -> dict[float, list[tuple[float, float]]]:
    """Bottom and height of the bars that stand at each place."""
    bars: dict[float, list[tuple[float, float]]] = {}
    for patch in axes.patches:
        if patch.get_height() > 0:  # type: ignore[attr-defined]
            place = round(patch.get_x() + patch.get_width() / 2, 6)  # type: ignore[attr-defined]
            bars.setdefault(place, []).append((patch.get_y(), patch.get_height()))  # type: ignore[attr-defined]
    return bars


def test_bars_add_up_to_the_variance_of_each_cell() -> None:
    shares = np.array([[1.0, 2.0, 3.0], [0.5, np.nan, 0.25]])
    split = VarianceSplit(shares, NODES, {"stem": 4.0, "classifier": 8.0}, "darts_v2")
    figure = draw_variance_by_node([split])
    axes = figure.axes[0]
    assert bar_heights(axes) == {
        0: [(0, 4)],
        1: [(0, 1), (1, 2), (3, 3)],
        2: [(0, 0.5), (0.5, 0.25)],
        3: [(0, 8)],
    }
    assert [text.get_text() for text in axes.get_xticklabels()] == ["stem", "0", "1", "classifier"]
    assert axes.get_title() == "darts_v2\nin all 18.75"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["preprocess", "node 2", "node 3"]
    assert inside(figure)


def test_networks_side_by_side_share_scale_colours_and_unit() -> None:
    first = VarianceSplit(np.full((8, 3), 1e5), NODES, {}, "a")
    second = VarianceSplit(np.full((20, 4), 2e5), [*NODES, "4"], {"classifier": 1.0}, "b")
    figure = draw_variance_by_node([first, second], title="Both")
    left, right = figure.axes
    assert left.get_ylim() == right.get_ylim() == pytest.approx((0, 8.64))
    assert left.get_ylabel() == "gradient variance / 10⁵"
    assert left.patches[0].get_facecolor() == right.patches[0].get_facecolor()
    assert len({patch.get_facecolor() for patch in right.patches}) == 5
    assert inside(figure)


def test_shares_that_are_none_or_not_finite_are_named() -> None:
    shares = np.array([[1.0, 2.0, 3.0], [np.nan, np.nan, np.nan], [1.0, np.inf, 2.0]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = draw_variance_by_node([VarianceSplit(shares, NODES, {"stem": np.nan}, "x")])
    axes = figure.axes[0]
    assert [(text.get_text(), text.xy[0]) for text in axes.texts] == [  # type: ignore[attr-defined]
        ("none", 2),
        ("∞", 3),
        ("NaN", 0),
    ]
    assert list(bar_heights(axes)) == [1]


def test_nothing_to_draw_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one panel"):
        draw_heat_maps([])
    with pytest.raises(ValueError, match="at least one panel"):
        draw_variance_by_node([])
    with pytest.raises(ValueError, match=r"`columns` \(=0\)"):
        draw_variance_by_node([VarianceSplit(np.ones((1, 3)), NODES)], columns=0)
