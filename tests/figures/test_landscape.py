from __future__ import annotations

import warnings

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.contour import QuadContourSet
from matplotlib.figure import Figure

from nas_lightning.figures.landscape import LOSS_COLOURS, LOSS_LEVELS, LOSS_NORM, draw_loss_contours
from nas_lightning.figures.picture import figure_to_array, figure_to_bytes
from nas_lightning.figures.surface import SurfacePanel
from tests.figures.surfaces import bowl, contours, inside, marks, pixels_around, planes, vertices, with_values

WHITE = 255


def bars(figure: Figure) -> list[Axes]:
    return [axes for axes in figure.axes if axes.get_label() == "<colorbar>"]


def test_levels_go_from_a_tenth_to_ten_by_a_half() -> None:
    np.testing.assert_allclose(LOSS_LEVELS, np.arange(0.1, 10, 0.5), rtol=0, atol=1e-12)


def test_lines_lie_where_the_loss_has_their_level() -> None:
    figure = draw_loss_contours([bowl(51)])
    lines = contours(figure.axes[0])
    assert tuple(lines.levels) == LOSS_LEVELS
    for level, path in zip(lines.levels, lines.get_paths(), strict=True):
        distances = np.hypot(*vertices(path).T)
        # Between two points of the grid the loss is taken as linear.
        np.testing.assert_allclose(distances, np.sqrt(level / 6), atol=0.012)
    assert {text.get_text() for text in figure.axes[0].texts} <= {"0.1", "2.1", "4.1", "6.1", "8.1"}
    assert len(figure.axes[0].texts) >= 4


def test_no_value_of_a_line_is_cut_or_covered() -> None:
    figure = draw_loss_contours([bowl(21, curvature) for curvature in np.linspace(0.5, 30, 8)], columns=2)
    figure_to_array(figure, 100.0)
    texts = [(axes.bbox, text) for axes in planes(figure) for text in axes.texts]
    assert len(texts) > 8
    boxes = [(frame, text.get_window_extent(), text) for frame, text in texts]
    for _, box, text in boxes:
        assert not any(box.overlaps(other) for _, other, _ in boxes if other is not box), text
    for frame, box, text in boxes:
        assert frame.x0 - 1 <= box.x0 < box.x1 <= frame.x1 + 1, text
        assert frame.y0 - 1 <= box.y0 < box.y1 <= frame.y1 + 1, text


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([2.3, 2.3], "loss 2.3:\nno line"),
        ([2.2, 2.55], "loss 2.2 to 2.55:\nno line"),
        ([2.2, np.nan], "loss 2.2:\nno line"),
        ([11.0, 12.0], None),
        ([np.inf, np.inf], None),
        ([np.nan, np.nan], None),
        ([2.2, 2.7], None),
    ],
)
def test_a_plane_without_lines_says_what_its_losses_are(values: list[float], text: str | None) -> None:
    losses = np.resize(np.array(values), (5, 5))
    figure = draw_loss_contours([SurfacePanel(np.linspace(-1, 1, 5), np.linspace(-1, 1, 5), losses)])
    said = [one.get_text() for one in figure.axes[0].texts if one.get_text().startswith("loss")]
    assert said == ([] if text is None else [text])


def test_alpha_runs_along_x() -> None:
    steps, others = np.linspace(-1, 1, 21), np.linspace(-0.5, 1, 11)
    loss = np.broadcast_to((3 * steps**2)[:, None], (21, 11)).copy()
    axes = draw_loss_contours([SurfacePanel(steps, others, loss)]).axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == (
        "\N{GREEK SMALL LETTER ALPHA}",
        "\N{GREEK SMALL LETTER BETA}",
    )
    assert axes.get_xlim() == (-1, 1)
    assert axes.get_ylim() == (-0.5, 1)
    assert axes.get_aspect() == 1
    # Lines of a loss that depends on alpha alone are upright.
    line = vertices(contours(axes).get_paths()[2])
    np.testing.assert_allclose(np.abs(line[:, 0]), np.sqrt(1.1 / 3), atol=0.01)


def test_all_panels_and_all_figures_have_the_same_colours_and_one_bar() -> None:
    first = draw_loss_contours([bowl(21), bowl(9, 1.0), bowl(5, 30.0)])
    second = draw_loss_contours([bowl(11, 0.3)])
    for figure in (first, second):
        assert len(bars(figure)) == 1
        assert bars(figure)[0].get_ylim() == (0.1, 10.0)
        for axes in planes(figure):
            lines = contours(axes)
            assert (lines.norm.vmin, lines.norm.vmax) == (0.1, 10.0)
            for level, colour in zip(lines.levels, lines.get_edgecolor(), strict=True):
                assert colour == pytest.approx(LOSS_COLOURS(LOSS_NORM(level)))
    lightness = [np.dot(LOSS_COLOURS(LOSS_NORM(level))[:3], (0.3, 0.59, 0.11)) for level in LOSS_LEVELS]
    assert (np.diff(lightness) > 0).all()  # lighter is larger


@pytest.mark.parametrize("extreme", [np.inf, 1e30, 50.0])
def test_an_extreme_corner_is_blank_and_nan_is_hatched(extreme: float) -> None:
    surface = bowl(21, 2.0)
    corner = {(i, j): extreme for i in range(16, 21) for j in range(16, 21)}
    nan = {(i, j): np.nan for i in range(3) for j in range(3)}
    figure = draw_loss_contours([with_values(surface, corner | nan)])
    axes = figure.axes[0]
    assert (pixels_around(figure, axes, 0.8, 0.8, 0.15) == WHITE).all()
    hatched = pixels_around(figure, axes, -0.9, -0.9, 0.08)
    assert (hatched < 220).all()  # grey throughout,
    assert len(np.unique(hatched, axis=0)) > 3  # with lines across it
    assert marks(axes) == {"NaN": 9}
    assert axes.patches[0].get_hatch()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["NaN"]
    # The lines end around the corner, within one step of the grid.
    last = vertices(contours(axes).get_paths()[-1])
    near = np.maximum(0.6 - last[:, 0], 0) + np.maximum(0.6 - last[:, 1], 0)
    assert len(last)
    assert near.max() <= 0.2 + 1e-9
    assert last.min() >= 0.5 - 1e-9


def test_points_not_measured_look_unlike_nan() -> None:
    surface = bowl(9)
    measured = np.ones((9, 9), dtype=bool)
    measured[6:] = False
    values = surface.values.copy()
    values[~measured] = np.nan
    values[0, 0] = np.nan
    figure = draw_loss_contours([SurfacePanel(surface.alphas, surface.betas, values, "", measured)])
    axes = figure.axes[0]
    assert marks(axes) == {"not measured": 27, "NaN": 1}
    hatches = {patch.get_label(): patch.get_hatch() for patch in axes.patches}
    assert hatches["not measured"] is None
    assert hatches["NaN"] == "//////"
    grey = pixels_around(figure, axes, 0.8, 0.0, 0.1)
    assert (grey == 0xED).all()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["NaN", "not measured"]


def test_the_center_is_marked_where_it_is_in_sight() -> None:
    surface = bowl()
    aside = SurfacePanel(surface.alphas + 3, surface.betas, surface.values)
    figure = draw_loss_contours([surface, aside])
    crosses = [[np.asarray(line.get_xydata()).tolist() for line in axes.lines] for axes in planes(figure)]
    assert crosses == [[[[0.0, 0.0]]], []]


@pytest.mark.parametrize(
    ("value", "resolution"), [(0.0, 2), (3.0, 5), (1e30, 2), (-1.0, 5), (np.nan, 2), (np.nan, 5), (np.inf, 2)]
)
def test_flat_and_empty_surfaces_make_a_figure_without_lines_or_warnings(
    value: float, resolution: int
) -> None:
    steps = np.linspace(-1, 1, resolution)
    flat = SurfacePanel(steps, steps, np.full((resolution, resolution), value))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = draw_loss_contours([flat])
        assert figure_to_bytes(figure, "png", 50.0)
    assert not [artist for artist in figure.axes[0].get_children() if isinstance(artist, QuadContourSet)]
    assert bool(figure.axes[0].patches) == np.isnan(value)


def test_nothing_is_cut_off_and_titles_are_plain_text() -> None:
    title = "genotype-with_a_$long{ name that goes on and on, beyond the width of its panel; epoch 599"
    surfaces = [bowl(9, 6.0, title), bowl(5, 6.0, "short"), bowl(5), bowl(3), bowl(3)]
    for figure in (
        draw_loss_contours(surfaces[:2], title="Test split"),
        draw_loss_contours(surfaces[:1], columns=1),
    ):
        assert inside(figure)
        shown = planes(figure)[0].get_title()
        assert shown.replace("\n", " ") == title
        assert shown.count("\n") >= 1
    many = draw_loss_contours(surfaces)
    assert len(planes(many)) == 5
    lefts = {round(axes.get_position().x0, 2) for axes in planes(many)}
    assert len(lefts) == 4  # four columns, then the next row


def test_the_same_figure_has_the_same_bytes_every_time() -> None:
    surfaces = [bowl(9, 6.0, "a"), with_values(bowl(5), {(0, 0): np.nan})]
    figure = draw_loss_contours(surfaces)
    for picture in ("png", "svg"):
        written = figure_to_bytes(figure, picture, 60.0)
        assert written == figure_to_bytes(figure, picture, 60.0)
        assert written == figure_to_bytes(draw_loss_contours(surfaces), picture, 60.0)


def test_bad_input_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one panel"):
        draw_loss_contours([])
    with pytest.raises(ValueError, match=r"`columns` \(=0\)"):
        draw_loss_contours([bowl()], columns=0)
