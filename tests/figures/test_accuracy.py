from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from matplotlib.axes import Axes

from nas_lightning.figures.accuracy import AccuracyPanel, draw_accuracy, mean_and_deviation
from tests.figures.surfaces import inside


def panel(*values: list[float], title: str = "") -> AccuracyPanel:
    indices = list(range(len(values)))
    return AccuracyPanel(
        indices, list(map(str, indices)), [np.array(seeds, dtype=np.float64) for seeds in values], title
    )


def means(axes: Axes) -> list[list[float]]:
    drawn = [container.lines[0] for container in axes.containers]  # type: ignore[attr-defined]
    return [np.asarray(line.get_xydata())[0].tolist() for line in drawn]


def bars(axes: Axes) -> list[list[float]]:
    """Ends of the bars, of the marks that have one."""
    found = [container.lines[2] for container in axes.containers if container.has_yerr]  # type: ignore[attr-defined]
    return [line.get_segments()[0][:, 1].tolist() for (line,) in found]


def test_marks_are_means_and_bars_one_standard_deviation() -> None:
    (axes,) = draw_accuracy([panel([90, 92], [95, 96, 97], [80])]).axes
    assert means(axes) == [[0, 91], [1, 96], [2, 80]]
    np.testing.assert_allclose(bars(axes), [[91 - np.sqrt(2), 91 + np.sqrt(2)], [95, 97]])
    seeds = [line for line in axes.lines if line.get_markersize() == 2.5]
    assert [np.asarray(line.get_ydata()).tolist() for line in seeds] == [[90, 92], [95, 96, 97]]


def test_the_dashed_line_is_the_original_cells_mean() -> None:
    (axes,) = draw_accuracy([panel([90, 92], [95])]).axes
    dashed = [line for line in axes.lines if line.get_linestyle() == "--"]
    assert [set(np.asarray(line.get_ydata()).tolist()) for line in dashed] == [{91.0}]


def test_all_panels_have_one_scale_that_holds_every_bar() -> None:
    figure = draw_accuracy([panel([90, 91], [95]), panel([60, 70], [88]), panel([99])])
    limits = {axes.get_ylim() for axes in figure.axes}
    assert len(limits) == 1
    ((low, high),) = limits
    assert low < 65 - np.sqrt(50)
    assert high > 99


def test_a_value_that_is_none_has_no_mark_and_does_not_count() -> None:
    assert mean_and_deviation(np.array([1.0, np.nan, 3.0])) == pytest.approx((2.0, np.sqrt(2)))
    assert np.isnan(mean_and_deviation(np.array([np.nan]))).all()
    (axes,) = draw_accuracy([panel([90], [np.nan, np.nan], [np.inf])]).axes
    assert means(axes)[0] == [0, 90]
    assert np.isnan([y for _, y in means(axes)[1:]]).all()
    assert [text.get_text() for text in axes.get_xticklabels()] == ["0", "1", "2"]
    assert axes.get_ylim() == (89.5, 90.5)


def test_long_names_stand_upright_within_the_figure() -> None:
    names = ["0", *(f"connections={seed}" for seed in range(1, 14))]
    values = [np.array([90.0 + place, 91.0]) for place in range(14)]
    panels = [AccuracyPanel(list(range(14)), names, values, f"cell {place}_$") for place in range(4)]
    figure = draw_accuracy(panels, y_label="test accuracy (%)")
    assert inside(figure)
    for axes in figure.axes:
        labels = axes.get_xticklabels()
        boxes = [text.get_window_extent() for text in labels]
        assert not any(one.overlaps(other) for one, other in pairwise(boxes))
    with pytest.raises(ValueError, match="at least one"):
        draw_accuracy([])
