from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas_lightning.figures.curves import architecture_colours
from nas_lightning.figures.width_depth import fan_out
from nas_lightning.report.interactive import DIGITS, json_for_html, live_data
from tests.report.hand_made import DEPTHS, NAMES, WIDTHS, accuracy, curves, plane, surfaces


def test_curves_share_a_legend_with_the_colours_of_the_still_picture() -> None:
    live = live_data(curves(NAMES))
    assert [entry["name"] for entry in live["legend"]] == list(NAMES)
    assert [entry["original"] for entry in live["legend"]] == [True, False, False, False]
    assert [(entry["width"], entry["depth"]) for entry in live["legend"]] == list(
        zip(WIDTHS, DEPTHS, strict=True)
    )
    colours = architecture_colours(NAMES, WIDTHS)
    assert [entry["colour"] for entry in live["legend"]] == [colours[name] for name in NAMES]
    for panel in live["panels"]:
        assert [series["entry"] for series in panel["series"]] == [0, 1, 2, 3]


def test_an_architecture_that_one_panel_lacks_keeps_its_entry() -> None:
    form = curves(NAMES)
    del form["panels"][0]["series"][1]
    live = live_data(form)
    order = [entry["name"] for entry in live["legend"]]
    for given_panel, panel in zip(form["panels"], live["panels"], strict=True):
        assert [order[series["entry"]] for series in panel["series"]] == [
            series["name"] for series in given_panel["series"]
        ]


def test_numbers_are_the_given_ones_to_five_digits_and_gaps_are_null() -> None:
    form = curves(NAMES)
    series = form["panels"][0]["series"][0]
    series["mean"][3], series["high"][4] = float("nan"), float("inf")
    live = live_data(form)["panels"][0]["series"][0]
    assert live["mean"][3] is None
    assert live["high"][4] is None
    for key in ("x", "mean", "low", "high"):
        kept = [index for index, value in enumerate(series[key]) if math.isfinite(value)]
        given_values, values = ([numbers[index] for index in kept] for numbers in (series[key], live[key]))
        np.testing.assert_allclose(values, given_values, rtol=0.5 * 10 ** (1 - DIGITS))


def test_one_seed_has_no_range() -> None:
    form = curves(NAMES)
    for series in form["panels"][0]["series"]:
        series["low"] = series["high"] = series["mean"]
    first, second = live_data(form)["panels"]
    assert all("low" not in series for series in first["series"])
    assert all("low" in series for series in second["series"])


def test_surfaces_share_one_scale() -> None:
    form = surfaces(NAMES)
    finite = [value for one in form["surfaces"] for row in one["z"] for value in row if value is not None]
    live = live_data(form)
    assert (live["low"], live["high"]) == pytest.approx((min(finite), max(finite)), rel=1e-4)
    assert live["log"] is False
    assert live["view"] == "surface"
    assert live_data({**form, "view": "map"})["view"] == "map"
    assert live["surfaces"][1]["z"][0][0] is None
    # One value a hundred times all others: as in the still picture, the scale is logarithmic.
    form["surfaces"][0]["z"][3][4] = 100 * max(finite)
    assert live_data(form)["log"] is True


def test_measures_of_a_plane_have_the_range_of_their_finite_values() -> None:
    form = plane(NAMES)
    live = live_data(form)
    area, radius = live["measures"]
    assert (area["label"], area["low"], area["high"]) == ("area under the loss", 0.2, 0.4)
    assert (radius["low"], radius["high"]) == (0.3, 3.5)
    assert live["spaces"][0]["marks"][1]["values"]["area"] is None
    for mark in form["spaces"][0]["marks"]:
        mark["values"]["area"] = float("nan")
    assert [measure["key"] for measure in live_data(form)["measures"]] == ["radius"]


def test_accuracies_stay_as_they_are() -> None:
    form = accuracy(NAMES)
    assert live_data(form) == form


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match=r"`kind` \(='pie'\).*curves, surfaces, plane or accuracy"):
        live_data({"kind": "pie"})


def test_marks_stand_where_the_still_picture_has_them() -> None:
    form = plane(NAMES)
    marks = live_data(form)["spaces"][0]["marks"]
    places, _ = fan_out([mark["width"] for mark in marks], [mark["depth"] for mark in marks])
    assert [(mark["x"], mark["y"]) for mark in marks] == [pytest.approx(tuple(place)) for place in places]


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.text() | st.integers() | st.floats(allow_nan=False, allow_infinity=False),
    lambda parts: st.lists(parts) | st.dictionaries(st.text(), parts),
    max_leaves=10,
)


@given(json_values)
def test_json_survives_html_and_cannot_end_its_script(value: Any) -> None:
    text = json_for_html(value)
    assert json.loads(text) == value
    assert text.isascii()
    assert not set(text) & set("<>&")


def test_json_of_a_number_that_is_not_finite_is_refused() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        json_for_html({"loss": float("nan")})
