from __future__ import annotations

from itertools import chain

import numpy as np
import pytest
from matplotlib.axes import Axes

from nas_lightning.figures.effects import Effect, EffectPanel, draw_forest
from tests.figures.surfaces import inside

EFFECTS = [
    Effect("convergence, by width", 0.6, 0.3, 0.8, "supported"),
    Effect("gradient variance, by depth", -0.4, -1.5, -0.1, "contradicted"),
    Effect(
        "a measure with a name that is too long for one line of the plot, by shallowness",
        0.1,
        -0.2,
        0.4,
        "undecided",
    ),
    Effect("curvature", np.nan, np.nan, np.nan, "no data"),
]


def drawn(axes: Axes, effect: Effect) -> tuple[list[float], list[float]]:
    """Ends of the interval, and the mark, of an effect."""
    found = [line for line in axes.lines if line.get_label() == effect.name]
    intervals = [np.asarray(line.get_xdata()).tolist() for line in found if line.get_marker() == "None"]
    points = [np.asarray(line.get_xdata()).tolist() for line in found if line.get_marker() != "None"]
    return list(chain(*intervals)), list(chain(*points))


def test_marks_and_intervals_are_the_numbers_from_top_to_bottom() -> None:
    (axes,) = draw_forest([EffectPanel(EFFECTS, "tau", limits=(-1.0, 1.0))]).axes
    assert drawn(axes, EFFECTS[0]) == ([0.3, 0.8], [0.6])
    assert drawn(axes, EFFECTS[1]) == ([-1.0, -0.1], [-0.4])  # cut off at the scale,
    assert [line.get_marker() for line in axes.lines].count("<") == 1  # with an arrow head
    assert drawn(axes, EFFECTS[3]) == ([], [])
    rows = [text.get_text().replace("\n", " ") for text in axes.get_yticklabels()]
    assert rows == [effect.name for effect in EFFECTS]
    assert (np.diff(axes.get_yticks()) > 0).all()
    assert axes.yaxis_inverted()
    said = [text.get_text() for text in axes.texts]
    assert said == [
        "0.60 (0.30 to 0.80), supported",
        "\N{MINUS SIGN}0.40 (\N{MINUS SIGN}1.50 to \N{MINUS SIGN}0.10), contradicted",
        "0.10 (\N{MINUS SIGN}0.20 to 0.40), undecided",
        "no data",
    ]


def test_verdicts_differ_in_marker_as_in_colour() -> None:
    figure = draw_forest([EffectPanel(EFFECTS, "tau")])
    (legend,) = figure.legends
    handles = {
        text.get_text(): line for text, line in zip(legend.get_texts(), legend.get_lines(), strict=True)
    }
    assert list(handles) == ["supported", "contradicted", "undecided"]
    assert len({line.get_marker() for line in handles.values()}) == 3
    assert len({line.get_color() for line in handles.values()}) == 3


def test_every_scale_has_its_panel_and_holds_its_intervals_and_no_effect() -> None:
    ratio = [Effect("spread", 2.0, 1.5, 2.5, "supported")]
    figure = draw_forest(
        [EffectPanel(EFFECTS[:1], "tau"), EffectPanel([], "none"), EffectPanel(ratio, "log ratio")]
    )
    tau, log_ratio = figure.axes
    assert (tau.get_xlabel(), log_ratio.get_xlabel()) == ("tau", "log ratio")
    low, high = log_ratio.get_xlim()
    assert low < 0 < 2.5 < high
    assert inside(figure)


def test_nothing_is_cut_off_and_no_effects_are_refused() -> None:
    assert inside(draw_forest([EffectPanel(EFFECTS * 5, "tau", limits=(-1, 1))]))
    with pytest.raises(ValueError, match="at least one effect"):
        draw_forest([EffectPanel([], "tau")])
