from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from nas_lightning.figures.curves import (
    LINE_STYLES,
    MARKERS,
    ORIGINAL_COLOUR,
    SOLID,
    Curve,
    CurvePanel,
    architecture_looks,
    base_of,
    draw_curves,
    is_logarithmic,
    looks_of,
)
from nas_lightning.figures.picture import figure_to_array
from tests.figures.surfaces import heights, inside

EPOCHS = np.arange(1.0, 6.0)


def curve(name: str, *values: float, spread: float = 0.0, width: float = 2.0, label: str = "") -> Curve:
    mean = np.array(values, dtype=np.float64)
    return Curve(name, EPOCHS[: len(mean)], mean, mean - spread, mean + spread, width, label)


def lines(axes: Axes) -> dict[str, Line2D]:
    return {str(line.get_label()): line for line in axes.lines if not str(line.get_label()).startswith("_")}


def look(line: Line2D) -> str:
    """Dashes in units of the line's width, and the marker."""
    _, dashes = line._unscaled_dash_pattern  # type: ignore[attr-defined]
    return f"{dashes} {line.get_marker()}"


def architecture_colours(names: list[str], widths: list[float]) -> dict[str, str]:
    return {name: its.colour for name, its in architecture_looks(names, widths).items()}


def band(axes: Axes, index: int = 0) -> Any:
    return axes.collections[index].get_paths()[0].vertices


def legend_texts(figure: Figure) -> list[str]:
    return [text.get_text() for legend in figure.legends for text in legend.get_texts()]


def luminance(colour: str) -> float:
    return float(np.dot(to_rgb(colour), (0.299, 0.587, 0.114)))


def test_variants_grow_lighter_with_falling_width_and_originals_are_black() -> None:
    names = ["darts_v2", "darts_v2:C1", "darts_v2:C9", "darts_v2:C4", "enas", "enas:C1"]
    colours = architecture_colours(names, [3.5, 2.0, 3.0, 2.5, 5.0, 1.5])
    assert colours["darts_v2"] == colours["enas"] == ORIGINAL_COLOUR
    by_width = [luminance(colours[f"darts_v2:{name}"]) for name in ("C9", "C4", "C1")]
    assert by_width == sorted(by_width)
    # Apart in grey print: from each other, from black and from white.
    assert np.diff([0.0, *by_width, 1.0]).min() > 0.08


def test_a_base_cells_colours_do_not_depend_on_other_base_cells() -> None:
    ours = ["enas", "enas:C1", "enas:C2"]
    alone = architecture_colours(ours, [5, 1.5, 2])
    together = architecture_colours(["darts_v2:C1", *ours, "darts_v2:C2"], [2, 5, 1.5, 2, 2])
    assert {name: together[name] for name in ours} == alone
    assert alone["enas:C1"] != alone["enas:C2"]


def test_a_published_variant_is_drawn_as_one_of_its_base_cell() -> None:
    colours = architecture_colours(["darts_v2", "darts_conn1", "darts_v2:C9"], [3.5, 2.5, 3])
    named = architecture_colours(["darts_v2", "darts_v2:C6", "darts_v2:C9"], [3.5, 2.5, 3])
    assert list(colours.values()) == list(named.values())
    assert len(set(colours.values())) == 3
    assert [base_of(name) for name in ("darts_conn1", "enas:C4", "enas")] == ["darts_v2", "enas", "enas"]


def test_neighbouring_colours_have_different_dashes_and_markers() -> None:
    names = ["a", *(f"a:C{index}" for index in range(6))]
    looks = architecture_looks(names, [4, *np.linspace(3, 1, 6).tolist()])
    assert (looks["a"].dash, looks["a"].marker) == (SOLID, "")
    assert [looks[name].dash for name in names[1:]] == [*LINE_STYLES, *LINE_STYLES[:2]]
    assert [looks[name].marker for name in names[1:]] == [*MARKERS, MARKERS[0]]


@pytest.mark.parametrize(
    "names",
    [
        [f"genotype_{index}" for index in range(12)],
        ["darts_v2", *(f"darts_v2:C{index}" for index in range(1, 13))],
        [f"darts_v2, seed {index}" for index in range(20)],
        ["darts_v2", "enas", *(f"enas:C{index}" for index in range(1, 11))],
    ],
)
def test_a_dozen_lines_of_a_panel_differ_without_their_colours_too(names: list[str]) -> None:
    figure = draw_curves([CurvePanel([curve(name, 3, 2, 1) for name in names])])
    drawn = lines(figure.axes[0])
    assert set(drawn) == set(names)
    assert len(set(map(look, drawn.values()))) == len(names)
    assert len({to_rgb(line.get_color()) for line in drawn.values()}) == len(names)
    # The legend shows what the lines are.
    (legend,) = figure.legends
    shown = {
        text.get_text(): look(line) for text, line in zip(legend.get_texts(), legend.get_lines(), strict=True)
    }
    assert shown == {name: look(line) for name, line in drawn.items()}


def test_an_original_alone_in_its_panels_is_black_and_two_of_them_are_not() -> None:
    def looks(*panels: list[str]) -> list[str]:
        found = looks_of([CurvePanel([curve(name, 3, 2, 1) for name in names]) for names in panels])
        return [name for name, its in found.items() if its.is_original]

    assert looks(["enas", "enas:C1"], ["darts_v2", "darts_v2:C1"]) == ["enas", "darts_v2"]
    assert looks(["enas", "darts_v2", "darts_v2:C1"]) == []


def test_lines_and_bands_are_the_data() -> None:
    panel = CurvePanel([curve("a", 3, 2, 1, 1, 1, spread=0.25), curve("a:C1", 4, 3, 2, 2, 1.5)], "title", "y")
    figure = draw_curves([panel])
    (axes,) = figure.axes
    drawn = lines(axes)
    assert heights(drawn["a"]).tolist() == [3, 2, 1, 1, 1]
    assert heights(drawn["a:C1"]).tolist() == [4, 3, 2, 2, 1.5]
    assert np.asarray(drawn["a"].get_xdata()).tolist() == EPOCHS.tolist()
    # Only the curve with a spread has a band, from its lowest to its highest seed.
    assert len(axes.collections) == 1
    corners = band(axes)
    assert {tuple(corner) for corner in corners} >= {(1.0, 2.75), (1.0, 3.25), (5.0, 0.75), (5.0, 1.25)}
    assert (axes.get_title(), axes.get_ylabel(), axes.get_xlabel()) == ("title", "y", "epochs")
    # The first curve is on top.
    assert drawn["a"].get_zorder() > drawn["a:C1"].get_zorder()


def test_panels_of_one_measure_share_a_scale_and_others_do_not() -> None:
    figure = draw_curves(
        [
            CurvePanel([curve("a", 100, 1, 0.5)], y_label="loss"),
            CurvePanel([curve("a", 2, 1, 0.9)], y_label="loss"),
            CurvePanel([curve("a", 10, 60, 90)], y_label="accuracy", scale="linear"),
        ]
    )
    first, second, third = figure.axes
    assert first.get_ylim() == second.get_ylim() != third.get_ylim()
    assert [axes.get_yscale() for axes in figure.axes] == ["log", "log", "linear"]
    low, high = first.get_ylim()
    assert low < 0.5 < 100 < high


@pytest.mark.parametrize(
    ("values", "logarithmic"),
    [
        ((2.0, 1.0, 0.2), False),
        ((4.0, 1.0, 0.2), True),
        ((1e6, np.nan, 1.0), True),
        ((4.0, 0.0, 0.1), False),
        ((np.nan, np.nan, np.nan), False),
    ],
)
def test_an_axis_is_logarithmic_from_a_ratio_of_twenty(values: tuple[float, ...], logarithmic: bool) -> None:
    assert is_logarithmic([curve("a", *values)]) == logarithmic


def test_an_explosion_does_not_flatten_the_rest() -> None:
    figure = draw_curves([CurvePanel([curve("a", 1e30, 2, 1, 0.5, 0.4)])])
    (axes,) = figure.axes
    assert axes.get_ylim()[1] == pytest.approx(300 * 1 * 1.15)
    (note,) = axes.texts
    assert (note.get_text(), note.get_horizontalalignment()) == ("the largest value is 1e+30", "right")
    assert heights(axes.lines[0])[0] == 1e30


def test_the_note_of_an_explosion_stands_where_the_curve_is_low() -> None:
    figure = draw_curves([CurvePanel([curve("a", 0.4, 0.5, 1, 2, 1e30)])])
    (note,) = figure.axes[0].texts
    assert (note.get_text(), note.get_horizontalalignment()) == ("the largest value is 1e+30", "left")


def test_a_line_breaks_where_a_value_is_not_finite_and_says_so() -> None:
    broken = curve("a:C1", 4, 3, np.inf, 2, np.nan)
    never = curve("a:C2", np.nan, np.nan, np.nan)
    figure = draw_curves([CurvePanel([curve("a", 3, 2, 1, 1, 1), broken, never])])
    (axes,) = figure.axes
    drawn = lines(axes)
    assert np.isnan(heights(drawn["a:C1"])).tolist() == [False, False, True, False, True]
    (crosses,) = [line for line in axes.lines if line.get_label() == "_last finite"]
    assert np.asarray(crosses.get_xydata()).tolist() == [[2, 3], [4, 2]]
    # A single value between gaps is a dot: a line of one point would not show.
    (dots,) = [line for line in axes.lines if line.get_label() == "_alone"]
    assert np.asarray(dots.get_xydata()).tolist() == [[4, 2]]
    assert legend_texts(figure) == ["a", "a:C1", "a:C2: no finite value", "not finite from here on"]
    assert axes.get_ylim()[1] < 5


def test_one_legend_for_all_panels_unless_a_label_means_two_lines() -> None:
    def panel(family: str, *variants: str) -> CurvePanel:
        curves = [curve(f"{family}:{name}", 1, 2, label=name) for name in variants]
        return CurvePanel([curve(family, 3, 2, label="original"), *curves], family)

    same = draw_curves([panel("darts_v2", "o1", "o2"), panel("enas", "o1", "o2")])
    assert legend_texts(same) == ["original", "o1", "o2"]
    assert not any(axes.get_legend() for axes in same.axes)
    other = draw_curves([panel("darts_v2", "o1", "o2"), panel("enas", "o1", "o2", "o3")])
    assert not other.legends
    shown = [[text.get_text() for text in axes.get_legend().get_texts()] for axes in other.axes]  # type: ignore[union-attr]
    assert shown == [["original", "o1", "o2"], ["original", "o1", "o2", "o3"]]
    for figure in (same, other):
        assert inside(figure)


def test_fourteen_long_names_overlap_nothing_and_stay_plain_text() -> None:
    curves = [
        curve(f"a:{i}", 3, 2, 1, width=i, label=f"connections={i} $x_{{{i}}} (2.5c, 3)") for i in range(14)
    ]
    figure = draw_curves([CurvePanel(curves, "t$"), CurvePanel(curves, "u$")])
    assert inside(figure)
    figure_to_array(figure, 100.0)
    (legend,) = figure.legends
    boxes = [text.get_window_extent() for text in legend.get_texts()]
    assert len(boxes) == 14
    assert not any(one.overlaps(other) for i, one in enumerate(boxes) for other in boxes[:i])
    lowest = min(axes.get_tightbbox().y0 for axes in figure.axes)  # type: ignore[union-attr]
    assert legend.get_window_extent().y1 <= lowest + 1
    assert legend.get_texts()[0].get_text() == "connections=0 $x_{0} (2.5c, 3)"


def test_nothing_to_draw_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one curve"):
        draw_curves([])
    with pytest.raises(ValueError, match="at least one curve"):
        draw_curves([CurvePanel([])])
    with pytest.raises(ValueError, match=r"`columns` \(=0\)"):
        draw_curves([CurvePanel([curve("a", 1)])], columns=0)
