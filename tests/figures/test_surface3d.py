from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

from nas_lightning.figures.picture import figure_to_bytes
from nas_lightning.figures.scale import Scale
from nas_lightning.figures.surface import SurfacePanel
from nas_lightning.figures.surface3d import draw_surfaces
from nas_lightning.figures.variance import HEAT_COLOURS
from tests.figures.surfaces import bowl, inside, planes, with_values

SCALES: tuple[Scale, ...] = ("auto", "log")


def faces(axes: Any) -> np.ndarray:
    """Corners of all faces, [corner, 3]; none where nothing is drawn."""
    return np.concatenate([np.zeros((0, 3)), *(mesh._faces.reshape(-1, 3) for mesh in axes.collections)])


def face_count(axes: Any) -> int:
    return sum(len(mesh._faces) for mesh in axes.collections)


def test_every_square_is_drawn_at_its_height() -> None:
    surface = bowl(5, 10.0)
    axes = planes(draw_surfaces([surface]))[0]
    assert face_count(axes) == 16
    corners = {tuple(np.round(corner, 9)) for corner in faces(axes)}
    assert corners == {
        (alpha, beta, round(10 * (alpha**2 + beta**2), 9))
        for alpha in surface.alphas
        for beta in surface.betas
    }


def test_heights_and_colours_are_the_same_in_all_panels() -> None:
    figure = draw_surfaces([bowl(5, 10.0, "a"), bowl(7, 40.0, "b")], label="deviation")
    first, second = planes(figure)
    assert first.get_zlim() == second.get_zlim() == (0, 80)
    for axes in (first, second):
        (mesh,) = axes.collections
        means = mesh._faces[:, :, 2].mean(axis=1)
        np.testing.assert_allclose(mesh._facecolor3d, HEAT_COLOURS(means / 80), atol=0.01)
    (bar,) = [axes for axes in figure.axes if axes not in (first, second)]
    assert bar.get_ylabel() == "deviation"
    assert [text.get_text() for text in bar.get_yticklabels()] == [
        text.get_text() for text in first.get_zticklabels()
    ]
    assert inside(figure)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30])
def test_a_point_without_a_usable_value_leaves_a_hole_and_no_spike(value: float) -> None:
    surface = with_values(bowl(5, 1.0), {(2, 1): value})
    axes = planes(draw_surfaces([surface], vmin=0, vmax=2))[0]
    assert face_count(axes) == 12  # four squares meet at a point
    assert faces(axes)[:, 2].max() == pytest.approx(2)
    reason = {"nan": "NaN", "inf": "infinite"}.get(str(value), "off the scale")
    assert axes.get_title() == f"(left out: 1 {reason})"


def test_a_surface_is_cut_off_at_the_limit_along_its_level_line() -> None:
    surface = bowl(41, 1.0)
    axes = planes(draw_surfaces([surface], vmax=0.5))[0]
    corners = faces(axes)
    assert corners[:, 2].max() == pytest.approx(0.5)
    rim = corners[np.isclose(corners[:, 2], 0.5)]
    assert len(rim) > 100
    np.testing.assert_allclose(np.hypot(rim[:, 0], rim[:, 1]), np.sqrt(0.5), atol=0.002)
    outside = int((surface.values > 0.5 + 1e-9).sum())
    assert axes.get_title() == f"(left out: {outside} off the scale)"


def test_large_values_are_divided_by_the_power_that_the_label_names() -> None:
    figure = draw_surfaces([bowl(5, 3e5)], label="variance")
    assert planes(figure)[0].get_zlim() == (0, pytest.approx(6))
    assert figure.axes[-1].get_ylabel() == "variance / 10⁵"


def test_heights_are_logarithms_on_a_logarithmic_scale() -> None:
    steps = np.linspace(-1, 1, 5)
    surface = SurfacePanel(steps, steps, np.broadcast_to(10.0 ** np.arange(5.0), (5, 5)).copy())
    axes = planes(draw_surfaces([with_values(surface, {(0, 0): 0.0})], scale="log"))[0]
    assert sorted(set(np.round(faces(axes)[:, 2], 9))) == [0, 1, 2, 3, 4]
    assert face_count(axes) == 15
    assert axes.get_title() == "(left out: 1 off the scale)"
    assert [text.get_text() for text in axes.get_zticklabels()] == [f"$10^{{{power}}}$" for power in range(5)]


@pytest.mark.parametrize("value", [0.0, 1e30, np.nan, np.inf])
def test_flat_and_empty_surfaces_make_a_figure_without_warnings(value: float) -> None:
    flat = with_values(bowl(2), {(i, j): value for i in range(2) for j in range(2)})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for scale in SCALES:
            figure = draw_surfaces([flat], scale=scale)
            assert figure_to_bytes(figure, "png", 40.0)
            shown = np.isfinite(value) and (value > 0 or scale == "auto")
            assert face_count(planes(figure)[0]) == int(shown)


def test_points_not_measured_are_counted_apart_and_bytes_repeat() -> None:
    surface = bowl(5)
    measured = np.ones((5, 5), dtype=bool)
    measured[0] = False
    values = np.where(measured, surface.values, np.nan)
    panel = SurfacePanel(surface.alphas, surface.betas, values, "enas", measured)
    figure = draw_surfaces([panel], vmax=5.0)
    above = int((values[1:] > 5).sum())
    assert planes(figure)[0].get_title() == f"enas\n(left out: {above} off the scale, 5 not measured)"
    written = figure_to_bytes(figure, "png", 60.0)
    assert written == figure_to_bytes(figure, "png", 60.0)
    assert written == figure_to_bytes(draw_surfaces([panel], vmax=5.0), "png", 60.0)
