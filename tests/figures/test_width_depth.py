from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from nas_lightning.cells.census import take_census
from nas_lightning.figures.picture import figure_to_array
from nas_lightning.figures.width_depth import MEASURE_COLOURS, WidthDepthPlane, draw_width_depth, fan_out
from tests.figures.surfaces import inside, planes


def plane(count: int = 3, width: float = 3.0, depth: int = 3, title: str = "") -> WidthDepthPlane:
    names = ["", *(f"C{index}" for index in range(1, count))]
    values = np.linspace(1.0, 2.0, count)
    return WidthDepthPlane(names, [width] * count, [depth] * count, values, take_census(4).counts, title)


def marks(axes: Axes) -> dict[str, Line2D]:
    return {str(line.get_label()): line for line in axes.lines}


def place(line: Line2D) -> tuple[float, float]:
    ((x, y),) = np.asarray(line.get_xydata()).tolist()
    return x, y


@pytest.mark.parametrize("count", [1, 2, 3, 4, 6, 7, 20, 56])
def test_marks_at_one_place_are_all_seen_within_their_square(count: int) -> None:
    figure = draw_width_depth([plane(count)], label="loss")
    axes = planes(figure)[0]
    assert len(axes.lines) == count
    for x, y in map(place, axes.lines):
        assert 2.75 <= x <= 3.25
        assert 2.5 <= y <= 3.5
    figure_to_array(figure, 100.0)
    for index, one in enumerate(axes.lines):
        for other in axes.lines[:index]:
            a, b = (axes.transData.transform(place(line)) for line in (one, other))
            radius = max(one.get_markersize(), other.get_markersize()) / 2 * 100 / 72
            assert np.hypot(*(a - b)) > 1.2 * radius  # less than half of either is covered


def test_the_fan_keeps_marks_that_stand_alone() -> None:
    places, crowds = fan_out([2.0, 3.5, 3.5, 3.0], [4, 3, 3, 3])
    assert crowds == [1, 2, 2, 1]
    assert places[0].tolist() == [2.0, 4.0]
    assert places[3].tolist() == [3.0, 3.0]
    assert places[1:3].mean(axis=0).tolist() == [3.5, 3.0]


@given(st.lists(st.tuples(st.sampled_from([1.5, 2.0, 2.5]), st.sampled_from([2, 3, 4])), max_size=40))
def test_the_fan_has_a_place_within_its_square_for_every_mark(given_places: list[tuple[float, int]]) -> None:
    places, _ = fan_out([width for width, _ in given_places], [depth for _, depth in given_places])
    assert len({(round(x, 6), round(y, 6)) for x, y in places.tolist()}) == len(given_places)
    for (x, y), (width, depth) in zip(places, given_places, strict=True):
        assert abs(x - width) < 0.25
        assert abs(y - depth) < 0.5


def test_only_crowded_squares_have_no_names() -> None:
    crowded, sparse = plane(7), plane(2, 2.0, 4)
    both = WidthDepthPlane(
        [*crowded.names, *(f"s{name}" for name in sparse.names)],
        [*crowded.widths, *sparse.widths],
        [*crowded.depths, *sparse.depths],
        np.ones(9),
        crowded.counts,
    )
    axes = draw_width_depth([both], label="loss").axes[0]
    named = {text.get_text() for text in axes.texts if not text.get_text().endswith("%")}
    assert named == {"s", "sC1"}
    sizes = {line.get_label(): line.get_markersize() for line in axes.lines}
    assert sizes["C1"] < sizes["sC1"] == 8


def test_colours_are_the_values_on_one_scale() -> None:
    first, second = plane(3), plane(2)
    second.values[:] = [1.5, 3.0]
    figure = draw_width_depth([first, second], label="mean test loss (nat)")
    above, below, bar = figure.axes
    assert bar.get_ylim() == (1.0, 3.0)
    assert bar.get_ylabel() == "mean test loss (nat)"
    for axes, values in ((above, first.values), (below, second.values)):
        for line, value in zip(axes.lines, values, strict=True):
            assert line.get_markerfacecolor() == pytest.approx(MEASURE_COLOURS((value - 1) / 2))
    assert marks(above)["original"].get_marker() == "D"
    assert marks(above)["C1"].get_marker() == "o"


def test_squares_are_the_census_with_its_shares() -> None:
    figure = draw_width_depth([plane()], label="loss")
    axes = figure.axes[0]
    squares = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    centres = {(square.get_x() + 0.25, int(square.get_y() + 0.5)) for square in squares}
    counts = take_census(4).counts
    assert centres == set(counts)
    shares = [text.get_text() for text in axes.texts if text.get_text().endswith("%")]
    assert len(shares) == len(counts)
    known = [float(share.rstrip("%")) for share in shares if "<" not in share]
    assert sum(known) == pytest.approx(100, abs=2)
    greys = {(s.get_x() + 0.25, int(s.get_y() + 0.5)): to_rgb(s.get_facecolor())[0] for s in squares}
    ordered = sorted(counts, key=lambda pair: counts[pair])
    assert all(greys[a] >= greys[b] - 1e-9 for a, b in pairwise(ordered))


def test_an_architecture_without_a_value_is_hollow_and_explained() -> None:
    missing = plane(2)
    missing.values[1] = np.nan
    figure = draw_width_depth([missing], label="loss")
    assert marks(figure.axes[0])["C1"].get_markerfacecolor() == "none"
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["original cell", "variant", "without a value", "share of all wirings"]
    empty = WidthDepthPlane(["C1"], [2.0], [9], np.array([np.nan]), {})
    nothing = draw_width_depth([empty], label="loss")
    assert len(nothing.axes) == 1  # no colour bar without a colour
    assert [t.get_text() for t in nothing.legends[0].get_texts()] == ["variant", "without a value"]
    with pytest.raises(ValueError, match="at least one"):
        draw_width_depth([], label="loss")


def test_panels_have_the_same_axes_and_nothing_is_cut_or_covered() -> None:
    five = WidthDepthPlane(
        ["", "C1"], [5.0, 1.5], [2, 6], np.array([1.0, 2.0]), take_census(5).counts, "five"
    )
    label = "mean test loss over the training (cut at chance level), in nat, with a longer name than most"
    figure = draw_width_depth([plane(6, title="four"), five], label=label)
    above, below, _ = figure.axes
    assert above.get_xlim() == below.get_xlim() == (0.75, 5.25)
    assert above.get_ylim() == below.get_ylim() == (1.5, 6.5)
    assert inside(figure)
    names = [text for text in above.texts if text.get_text().startswith("C")]
    extents = [text.get_window_extent() for text in names]
    assert len(extents) == 5
    assert not any(one.overlaps(other) for i, one in enumerate(extents) for other in extents[:i])
