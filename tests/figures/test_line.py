"""Pictures of lines and curves through weight space."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from nas_lightning.figures.line import LineCurve, LinePanel, draw_lines
from tests.figures.surfaces import inside

T = np.linspace(0, 1, 5)
LOSS = np.array([[0.5, 1.0, 2.0, 1.0, 0.5]])


def line(axes: Axes, label: str) -> Line2D:
    [found] = [line for line in axes.lines if line.get_label() == label]
    return found


def points(drawn: Line2D) -> np.ndarray:
    """Positions and values of a drawn line."""
    return np.asarray(drawn.get_xydata())


def test_a_path_has_its_splits_its_chord_and_its_barrier() -> None:
    curves = [LineCurve("line", "train", T, LOSS / 2), LineCurve("line", "test", T, LOSS + T)]
    gains = [LineCurve("line", "test", T, 1 - LOSS / 3)]
    panels = [LinePanel(curves, "loss (nat)", "barrier 1.5"), LinePanel(gains, "accuracy", is_gain=True)]
    figure = draw_lines(panels, x_label="t", marks={0.0: "A", 1.0: "B"}, chords=True, note="Digits")
    loss, accuracy = figure.axes
    assert (loss.get_ylabel(), accuracy.get_ylabel()) == ("loss (nat)", "accuracy")
    assert loss.get_title() == "barrier 1.5"
    assert line(loss, "line, test").get_linestyle() == "-"
    assert line(loss, "line, train").get_linestyle() == "--"
    assert points(line(loss, "line, test"))[:, 1] == pytest.approx(LOSS[0] + T)
    gaps = [points(gap).tolist() for gap in loss.lines if gap.get_label() == "_gap"]
    assert gaps == [[[0.5, 0.25], [0.5, 1.0]], [[0.5, 1.0], [0.5, 2.5]]]
    [fall] = [points(gap)[:, 1] for gap in accuracy.lines if gap.get_label() == "_gap"]
    assert fall == pytest.approx([1 - 0.5 / 3, 1 - 2 / 3])
    assert {text.get_text() for text in loss.texts} == {"A", "B"}
    [legend] = figure.legends
    names = [text.get_text() for text in legend.get_texts()]
    assert names == ["train split", "test split", "straight between the ends"]
    assert inside(figure)


def test_paths_differ_in_colour_and_rows_are_a_band_or_thin_lines() -> None:
    rows = np.concatenate([LOSS, 3 * LOSS])
    curves = [LineCurve("straight", "test", T, rows), LineCurve("Bézier", "test", T, LOSS)]
    band = draw_lines([LinePanel(curves, "loss")], x_label="t").axes[0]
    straight, bezier = line(band, "straight, test"), line(band, "Bézier, test")
    assert straight.get_color() != bezier.get_color()
    assert points(straight)[:, 1] == pytest.approx(2 * LOSS[0])
    assert len(band.collections) == 1  # one row has no band
    each = draw_lines([LinePanel(curves, "loss")], x_label="t", each_row=True).axes[0]
    thin = [points(row)[:, 1] for row in each.lines if row.get_label() == "_row"]
    assert np.array_equal(thin, rows)
    assert not each.collections
    assert each.get_ylim()[1] > 6


def test_values_that_are_not_finite_break_the_line() -> None:
    rows = np.array([[0.5, np.inf, 2.0, np.nan, 0.5]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = draw_lines(
            [LinePanel([LineCurve("line", "test", T, rows)], "loss")], x_label="t", chords=True
        )
        assert inside(figure)
    axes = figure.axes[0]
    assert points(line(axes, "_end"))[:, 0].tolist() == [0.0, 0.5, 1.0]
    assert "not finite" in [text.get_text() for text in figure.legends[0].get_texts()]
    with pytest.raises(ValueError, match="at least one curve"):
        draw_lines([LinePanel([], "loss")], x_label="t")
