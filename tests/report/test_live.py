from __future__ import annotations

import base64
import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas_lightning.figures.curves import Curve, CurvePanel, looks_of
from nas_lightning.figures.landscape import LOSS_LEVELS, LOSS_NORM
from nas_lightning.figures.scale import colour_scale
from nas_lightning.figures.surface import SurfacePanel
from nas_lightning.figures.width_depth import fan_out
from nas_lightning.report.live import INK, Live
from nas_lightning.report.live_charts import live_curves
from nas_lightning.report.live_forest import live_forest
from nas_lightning.report.live_surfaces import live_surfaces
from tests.report.hand_made import (
    DEPTHS,
    NAMES,
    WIDTHS,
    accuracy,
    curve_panels,
    effect_panels,
    planes,
    surface_panels,
)


def content(live: Live) -> Any:
    """What the page reads, with the arrays that plotly packs unpacked."""

    def unpack(value: Any) -> Any:
        if isinstance(value, dict) and "bdata" in value:
            array = np.frombuffer(base64.b64decode(value["bdata"]), value["dtype"])
            shape = [int(size) for size in str(value.get("shape", array.size)).split(",")]
            return array.reshape(shape)
        return value

    return json.loads(live.to_json(), object_hook=unpack)


def test_curves_share_a_legend_with_the_colours_of_the_still_figure() -> None:
    live = content(live_curves(curve_panels(NAMES)))
    assert [entry["group"] for entry in live["legend"]] == list(NAMES)
    looks = looks_of(curve_panels(NAMES))
    assert [entry["colour"] for entry in live["legend"]] == [INK, *(looks[name].colour for name in NAMES[1:])]
    for line, entry in zip(live["figures"][0]["data"][1::2], live["legend"], strict=True):
        assert (line["line"]["color"], line["line"]["dash"]) == (entry["colour"], entry["dash"])
        assert line["mode"] == ("lines+markers" if entry["symbol"] else "lines")
        assert line["marker"]["symbol"] == (entry["symbol"] or "circle")
    for figure in live["figures"]:
        assert [trace["legendgroup"] for trace in figure["data"]] == [
            name for name in NAMES for _ in range(2)
        ]
    assert [figure["layout"]["yaxis"]["type"] for figure in live["figures"]] == ["log", "linear"]
    assert [figure["layout"]["meta"]["title"] for figure in live["figures"]] == ["test loss", "accuracy"]


def test_an_architecture_that_one_panel_lacks_keeps_its_entry() -> None:
    first, second = curve_panels(NAMES)
    live = content(live_curves([CurvePanel([first.curves[0], *first.curves[2:]], y_label="loss"), second]))
    assert sorted(entry["group"] for entry in live["legend"]) == sorted(NAMES)
    assert NAMES[1] not in {trace["legendgroup"] for trace in live["figures"][0]["data"]}


def test_numbers_are_the_given_ones_to_three_digits_and_gaps_stay() -> None:
    panels = curve_panels(NAMES)
    curve = panels[0].curves[0]
    curve.mean[3], curve.high[4] = math.nan, math.inf
    band, line = content(live_curves(panels))["figures"][0]["data"][:2]
    np.testing.assert_allclose(line["x"], curve.x, rtol=3e-4)
    np.testing.assert_allclose(line["y"], curve.mean, rtol=3e-4)
    np.testing.assert_allclose(line["customdata"], np.stack([curve.low, curve.high], axis=1), rtol=3e-4)
    # There and back around each of the two stretches without a gap, and between them nothing.
    lengths = [np.sum(~np.isnan(part)) for part in np.split(band["y"], np.flatnonzero(np.isnan(band["y"])))]
    assert lengths == [2 * 4, 2 * 25]
    assert band["y"][0] == pytest.approx(curve.low[0], rel=3e-4)
    assert band["y"][7] == pytest.approx(curve.high[0], rel=3e-4)


def test_one_seed_has_no_band() -> None:
    first, second = curve_panels(NAMES)
    for curve in first.curves:
        curve.low[:] = curve.high[:] = curve.mean
    one, two = content(live_curves([first, second]))["figures"]
    assert len(one["data"]) == 4
    assert len(two["data"]) == 8


def drawn(panels: list[SurfacePanel], flat: bool = False) -> Any:
    norm = colour_scale([panel.finite for panel in panels])
    return content(live_surfaces(panels, "variance", norm, flat=flat))


def test_surfaces_share_one_scale_and_stand_as_plotly_counts() -> None:
    panels = surface_panels(NAMES)
    live = drawn(panels)
    finite = np.concatenate([panel.values[np.isfinite(panel.values)] for panel in panels])
    (figure,) = live["figures"]
    scale = figure["layout"]["coloraxis"]
    assert (scale["cmin"], scale["cmax"]) == pytest.approx((finite.min(), finite.max()))
    assert live["choices"] == list(NAMES)
    assert live["each"] is True
    assert live["pair"] == [0, len(NAMES) - 1]
    for panel, trace in zip(panels, figure["data"][::2], strict=True):
        assert (trace["type"], trace["meta"]) == ("surface", panel.title)
        np.testing.assert_allclose(trace["z"].T, panel.values, rtol=3e-4)
    for panel, cross in zip(panels, figure["data"][1::2], strict=True):
        assert (cross["type"], cross["meta"], cross["x"], cross["y"]) == ("scatter3d", panel.title, [0], [0])
        # A little above the surface, which would hide it.
        assert 0 < cross["z"][0] - panel.values[7, 7] < 0.03 * np.ptp(finite)


def test_from_above_values_are_interpolated_linearly_between_the_papers_levels() -> None:
    panels = surface_panels(NAMES)
    live = content(live_surfaces(panels, "loss", LOSS_NORM, flat=True, levels=LOSS_LEVELS, pair=(2, 1)))
    assert live["flat"] is True
    assert live["pair"] == [2, 1]
    (button,) = live["figures"][0]["layout"]["updatemenus"][0]["buttons"]
    surface, above = button["args"][0], button["args2"][0]
    assert surface["type"] == ["surface", "scatter3d"] * len(NAMES)
    assert above["type"] == ["contour", "scatter"] * len(NAMES)
    assert above["line.smoothing"] == 0
    start, size, end = (above[f"contours.{name}"] for name in ("start", "size", "end"))
    np.testing.assert_allclose(start + size * np.arange(20), LOSS_LEVELS)
    assert end == LOSS_LEVELS[-1]


def test_weights_outside_the_plane_have_no_cross() -> None:
    steps = np.linspace(0.5, 1.0, 5)
    live = drawn([SurfacePanel(steps, steps, np.ones((5, 5)) + steps, "far")])
    assert [trace["type"] for trace in live["figures"][0]["data"]] == ["surface"]


@pytest.mark.parametrize(("low", "high"), [(0.2, 0.9), (0.2, 5.0), (1e-3, 30.0), (1e-9, 1e12), (1.0, 1.0)])
def test_marks_of_a_logarithmic_axis_are_few_and_say_their_values(low: float, high: float) -> None:
    epochs = np.arange(1.0, 6.0)
    mean = np.geomspace(low, high, 5)
    panel = CurvePanel([Curve("a", epochs, mean, mean, mean)], scale="log")
    axis = content(live_curves([panel]))["figures"][0]["layout"]["yaxis"]
    assert (axis["type"], axis["tickmode"]) == ("log", "array")
    assert [float(text) for text in axis["ticktext"]] == pytest.approx(list(axis["tickvals"]))
    within = [value for value in axis["tickvals"] if low <= value <= high]
    assert 1 <= len(within) <= 8
    # On 200 pixels, marks are a line of text apart.
    span = np.log10(high / low) or 1.0
    assert min(np.diff(np.log10(within)), default=1.0) * 200 / span > 14


def test_surfaces_of_a_wide_range_are_logarithmic_as_the_still_ones() -> None:
    panels = surface_panels(NAMES)
    # One value a hundred times all others.
    panels[0].values[3, 4] = 100 * np.nanmax(panels[0].values)
    (figure,) = drawn(panels)["figures"]
    trace = figure["data"][0]
    np.testing.assert_allclose(trace["z"].T, np.log10(panels[0].values), rtol=1e-3)
    np.testing.assert_allclose(trace["customdata"].T, panels[0].values, rtol=3e-4)
    bar = figure["layout"]["coloraxis"]["colorbar"]
    assert [float(text) for text in bar["ticktext"]] == pytest.approx(
        [10.0**value for value in bar["tickvals"]], rel=0.05
    )
    assert not any("e+02" in text for text in bar["ticktext"])


def test_marks_of_a_plane_stand_where_the_still_figure_has_them() -> None:
    live = content(planes(NAMES))
    assert live["choices"] == ["area under the loss", "radius"]
    census, *marks = live["figures"][0]["data"]
    assert census["text"][1] == "width 2.5c, depth 4<br>17 of 82 wirings (21 %)"
    places, _ = fan_out(WIDTHS, DEPTHS)
    hollow, coloured = (trace for trace in marks if trace["meta"] == "area under the loss")
    assert (hollow["x"].tolist(), hollow["marker"]["symbol"]) == ([places[1][0]], ["circle-open"])
    np.testing.assert_allclose(np.stack([coloured["x"], coloured["y"]], axis=1), places[[0, 2, 3]])
    np.testing.assert_allclose(coloured["marker"]["color"], [0.2, 0.4, 0.2])
    assert (coloured["marker"]["cmin"], coloured["marker"]["cmax"]) == pytest.approx((0.2, 0.4))
    assert list(coloured["marker"]["symbol"]) == ["diamond", "circle", "circle"]


def test_accuracies_are_mean_and_deviation_beside_the_original() -> None:
    (figure,) = content(accuracy(NAMES))["figures"]
    (trace,) = figure["data"]
    assert trace["x"] == [0, 1, 2, 3]
    np.testing.assert_allclose(trace["y"], [97 - index / 4 for index in range(4)])
    np.testing.assert_allclose(trace["error_y"]["array"], [np.std([96.7, 97.3], ddof=1)] * 4)
    assert figure["layout"]["shapes"][0]["y0"] == pytest.approx(97)


def test_a_forest_has_a_row_for_every_effect_and_the_band_of_its_bound() -> None:
    (figure,) = content(live_forest(effect_panels(NAMES)))["figures"]
    layout = figure["layout"]
    names = [note for note in layout["annotations"] if note["yref"] == "y" and note["text"] != "no data"]
    assert [note["text"] for note in names][1:3] == ["darts_v2:C1, width", "darts_v2:C4, small depth"]
    # A name stands above its mark, inside its row.
    assert [note["y"] for note in names] == pytest.approx([row - 0.48 for row in range(4)])
    rows = {
        round(row - 0.28): (x, x - less, x + more)
        for trace in figure["data"]
        if "xaxis" not in trace or trace["xaxis"] == "x"
        for row, x, less, more in zip(
            trace["y"], trace["x"], trace["error_x"]["arrayminus"], trace["error_x"]["array"], strict=True
        )
    }
    for row, effect in enumerate(effect_panels(NAMES)[0].effects[:3]):
        assert rows[row] == pytest.approx((effect.effect, effect.low, effect.high))
    assert 3 not in rows
    assert [note["text"] for note in layout["annotations"]].count("no data") == 1
    (band,) = [shape for shape in layout["shapes"] if shape["type"] == "rect"]
    assert (band["x1"], band["y0"], band["y1"]) == (0.2, 1.5, 2.5)
    # Panels do not overlap.
    assert layout["yaxis2"]["domain"][1] < layout["yaxis"]["domain"][0]


@pytest.mark.parametrize("count", [1, 25])
def test_rows_of_a_forest_are_as_high_however_many_there_are(count: int) -> None:
    panel = effect_panels(NAMES)[0]
    panels = [type(panel)([panel.effects[0]] * count, panel.label, limits=panel.limits)]
    layout = content(live_forest(panels))["figures"][0]["layout"]
    low, high = layout["yaxis"]["domain"]
    inside = layout["height"] - layout["margin"]["t"] - layout["margin"]["b"]
    assert inside * (high - low) / count == pytest.approx(58)


def test_every_colour_has_another_one_in_the_dark_and_a_scale_stays() -> None:
    for live in (live_curves(curve_panels(NAMES)), live_forest(effect_panels(NAMES)), planes(NAMES)):
        read = content(live)
        assert read["dark"][INK] != INK
        assert not set(read["dark"]) & {"#440154", "#fde725"}
        for entry in read["legend"]:
            assert entry["colour"] in read["dark"]


@given(st.lists(st.text(max_size=8), min_size=4, max_size=4, unique=True))
def test_json_survives_html_and_cannot_end_its_script(names: list[str]) -> None:
    live = live_curves(curve_panels(names))
    text = live.to_json()
    assert [entry["group"] for entry in json.loads(text)["legend"]] == names
    assert not set(text) & set("<>")
