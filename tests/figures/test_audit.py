from __future__ import annotations

import numpy as np
import pytest
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from nas_lightning.figures.audit import (
    CONTROL_COLOUR,
    OWN_COLOUR,
    PUBLISHED_COLOUR,
    AuditCurves,
    StandingRow,
    Strip,
    draw_audit_curves,
    draw_picks,
    draw_rank_by_epoch,
    draw_standings,
    draw_strips,
)
from nas_lightning.figures.picture import figure_to_array, text_width

NAMES = ("darts_v2", "$x_1$ & <b>", "中")


def points(figure: Figure, colour: str, marker: str, panel: int = 0) -> np.ndarray:
    lines = [
        line
        for line in figure.axes[panel].lines
        if line.get_color() == colour and line.get_marker() == marker
    ]
    return np.concatenate([line.get_xydata() for line in lines])


def xs(line: Line2D) -> list[float]:
    return [float(value) for value in np.asarray(line.get_xdata(), float)]


def ys(line: Line2D) -> list[float]:
    return [float(value) for value in np.asarray(line.get_ydata(), float)]


def legend_texts(figure: Figure) -> list[str]:
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def nothing_is_cut(figure: Figure) -> bool:
    """The outermost pixels are white: no text or line reaches the edge."""
    pixels = figure_to_array(figure, 60.0)
    edge = np.concatenate([pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1]])
    return bool((edge == 255).all())


@pytest.mark.filterwarnings("ignore:Glyph")
@pytest.mark.parametrize("name", NAMES)
def test_a_strip_has_a_dot_a_control_and_a_diamond_at_the_cell(name: str) -> None:
    controls = np.array([1.0, 4.0, 2.0, np.nan, 3.0])
    strip = Strip("gradient norm", controls, 2.5, np.array([2.4, 2.6]), np.array([1.5, 5.0]))
    figure = draw_strips([strip, strip], name)
    assert sorted(points(figure, CONTROL_COLOUR, "o")[:, 0]) == [1, 2, 3, 4]
    assert points(figure, OWN_COLOUR, "D")[:, 0].tolist() == [2.5]
    assert points(figure, OWN_COLOUR, "|")[:, 0].tolist() == [2.4, 2.6]
    assert sorted(points(figure, PUBLISHED_COLOUR, "^")[:, 0]) == [1.5, 5]
    assert legend_texts(figure) == ["random control", name, "each seed alone", "published cell"]
    assert "Not drawn: 2 values of controls that are not finite." in [
        text.get_text() for text in figure.texts
    ]
    assert nothing_is_cut(figure)


def test_one_seed_and_no_published_cell_have_no_row() -> None:
    figure = draw_strips([Strip("loss", np.arange(5.0), 2.0, np.array([2.0]))], "mine")
    assert legend_texts(figure) == ["random control", "mine"]
    assert not figure.texts
    lost = draw_strips([Strip("loss", np.arange(5.0), np.nan, np.array([np.nan]))], "mine")
    assert not [line for line in lost.axes[0].lines if line.get_marker() == "D"]


def test_wide_strips_are_logarithmic() -> None:
    scales = [
        draw_strips([Strip("x", np.array(values), 2.0, np.zeros(0))], "mine").axes[0].get_xscale()
        for values in ([1.0, 10.0], [1.0, 100.0], [-1.0, 100.0])
    ]
    assert scales == ["linear", "log", "linear"]


def test_standings_say_what_is_unusual() -> None:
    rows = [
        StandingRow(
            "Wiring", "width of the normal cell, a long name that takes two lines", 0.99, 0.99, 0.99, True
        ),
        StandingRow("Weights", "gradient norm", 0.4, 0.3, 0.5, False),
        StandingRow("Weights", "another", 0.6, 0.5, 0.7, None),
    ]
    figure = draw_standings(rows)
    (axes,) = figure.axes
    marks = [line for line in axes.lines if line.get_marker() in ("D", "x")]
    assert [xs(line)[0] for line in marks] == [0.99, 0.4, 0.6]
    assert [line.get_markerfacecolor() for line in marks[:2]] == [OWN_COLOUR, "white"]
    heights = [ys(line)[0] for line in marks]
    assert heights == sorted(heights)
    bars = [xs(line) for line in axes.lines if len(xs(line)) == 2 and line.get_marker() == "None"]
    assert sorted(bars) == [[0.3, 0.5], [0.5, 0.5], [0.5, 0.7]]  # that of the first row is exact: none
    assert legend_texts(figure) == ["unusual", "as expected of a random cell", "not tested"]
    assert nothing_is_cut(figure)


@pytest.mark.parametrize("seeds", [1, 3])
def test_curves_show_every_seed_and_the_mean(seeds: int) -> None:
    generator = np.random.default_rng(0)
    own, controls = generator.random((seeds, 4)), generator.random((5, 4))
    figure = draw_audit_curves(np.arange(1.0, 5), [AuditCurves("loss", own, controls)], "mine")
    lines = figure.axes[0].lines
    drawn = [ys(line) for line in lines]
    expected = [*controls, *(own if seeds > 1 else ()), own.mean(0)]
    assert len(drawn) == len(expected)
    for line, values in zip(drawn, expected, strict=True):
        np.testing.assert_allclose(line, values)
    assert legend_texts(figure) == ["random control", "mine", *(["each seed"] if seeds > 1 else [])]
    assert not figure.axes[0].findobj(LineCollection)


def test_a_diverged_curve_breaks_and_one_epoch_is_a_dot() -> None:
    own = np.array([[1.0, np.inf, 1.0]])
    figure = draw_audit_curves(np.arange(1.0, 4), [AuditCurves("loss", own, np.ones((2, 3)))], "mine")
    assert np.isnan(ys(figure.axes[0].lines[-1])[1])
    figure = draw_audit_curves(np.ones(1), [AuditCurves("loss", np.ones((1, 1)), np.ones((2, 1)))], "mine")
    assert {line.get_marker() for line in figure.axes[0].lines} == {"o"}


@pytest.mark.parametrize("epochs", [6, 600])
def test_the_best_rank_stands_at_the_top(epochs: int) -> None:
    ranks = np.linspace(20, 1, epochs).round()
    axes = draw_rank_by_epoch(ranks, 20, "mine").axes[0]
    assert ys(axes.lines[0]) == ranks.tolist()
    bottom, top = axes.get_ylim()
    assert bottom > 20 > 1 > top
    assert {1, 20} <= set(axes.get_yticks())
    assert axes.get_xscale() == ("log" if epochs > 50 else "linear")


def test_picks_of_the_cell_look_different() -> None:
    is_own = np.array([False, True, True, False])
    figure = draw_picks(np.arange(1.0, 5), np.array([2.0, 1.0, 0.5, 0.0]), is_own, "mine")
    assert points(figure, OWN_COLOUR, "D").tolist() == [[2, 1], [3, 0.5]]
    assert points(figure, CONTROL_COLOUR, "o").tolist() == [[1, 2], [4, 0]]
    assert legend_texts(figure) == ["picks a control", "picks mine"]
    alone = draw_picks(np.arange(1.0, 3), np.zeros(2), np.array([True, True]), "mine")
    assert legend_texts(alone) == ["picks mine"]


def test_nothing_to_draw_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one panel"):
        draw_strips([], "mine")
    with pytest.raises(ValueError, match="at least one property"):
        draw_standings([])
    with pytest.raises(ValueError, match="at least one panel"):
        draw_audit_curves(np.ones(1), [], "mine")


def test_a_sign_that_the_font_does_not_have_has_a_width() -> None:
    assert text_width("中", 10.0) == text_width("M", 10.0) > 0
