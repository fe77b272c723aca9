from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import pytest
import xarray as xr
from matplotlib.axes import Axes

from nas_lightning.figures.variance_by_node import VarianceSplit, draw_variance_by_node, read_variance_split
from tests.figures.surfaces import inside

NODES = ["preprocess", "2", "3"]


def bar_heights(axes: Axes) -> dict[float, list[tuple[float, float]]]:
    """Bottom and height of the bars that stand at each place."""
    bars: dict[float, list[tuple[float, float]]] = {}
    for patch in axes.patches:
        if patch.get_height() > 0:  # type: ignore[attr-defined]
            place = round(patch.get_x() + patch.get_width() / 2, 6)  # type: ignore[attr-defined]
            bars.setdefault(place, []).append((patch.get_y(), patch.get_height()))  # type: ignore[attr-defined]
    return bars


def test_bars_add_up_to_the_variance_of_each_cell() -> None:
    shares = np.array([[1.0, 2.0, 3.0], [0.5, np.nan, 0.25]])
    split = VarianceSplit(shares, NODES, {"stem": 4.0, "classifier": 8.0}, "darts_v2")
    figure = draw_variance_by_node([split])
    axes = figure.axes[0]
    assert bar_heights(axes) == {
        0: [(0, 4)],
        1: [(0, 1), (1, 2), (3, 3)],
        2: [(0, 0.5), (0.5, 0.25)],
        3: [(0, 8)],
    }
    assert [text.get_text() for text in axes.get_xticklabels()] == ["stem", "0", "1", "classifier"]
    assert axes.get_title() == "darts_v2\nin all 18.75"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["preprocess", "node 2", "node 3"]
    assert inside(figure)


def test_networks_side_by_side_share_scale_colours_and_unit() -> None:
    first = VarianceSplit(np.full((8, 3), 1e5), NODES, {}, "a")
    second = VarianceSplit(np.full((20, 4), 2e5), [*NODES, "4"], {"classifier": 1.0}, "b")
    figure = draw_variance_by_node([first, second], title="Both")
    left, right = figure.axes
    assert left.get_ylim() == right.get_ylim() == pytest.approx((0, 8.64))
    assert left.get_ylabel() == "gradient variance / 10⁵"
    assert left.patches[0].get_facecolor() == right.patches[0].get_facecolor()
    assert len({patch.get_facecolor() for patch in right.patches}) == 5
    assert inside(figure)


def test_shares_that_are_none_or_not_finite_are_named() -> None:
    shares = np.array([[1.0, 2.0, 3.0], [np.nan, np.nan, np.nan], [1.0, np.inf, 2.0]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = draw_variance_by_node([VarianceSplit(shares, NODES, {"stem": np.nan}, "x")])
    axes = figure.axes[0]
    assert [(text.get_text(), text.xy[0]) for text in axes.texts] == [  # type: ignore[attr-defined]
        ("none", 2),
        ("∞", 3),
        ("NaN", 0),
    ]
    assert list(bar_heights(axes)) == [1]


@pytest.mark.parametrize("text", [str, str.encode], ids=["str", "bytes"])
def test_the_shares_of_a_file_are_read(text: Callable[[str], object]) -> None:
    shares = np.array([[1.0, 2.0, 3.0], [4.0, np.nan, 5.0]])
    names = [text(name) for name in NODES]
    parts = [text(name) for name in ("stem", "cells", "classifier")]
    dataset = xr.Dataset(
        {
            "variance_by_node": xr.DataArray(shares.T, dims=("node", "cell"), coords={"node": names}),
            "variance_by_part": xr.DataArray(np.array([0.5, 15.0, 0.25]), coords={"part": parts}),
        }
    )
    split = read_variance_split(dataset, "enas")
    np.testing.assert_array_equal(split.variance, shares)
    assert split.nodes == NODES
    assert split.parts == {"stem": 0.5, "classifier": 0.25}
    assert split.title == "enas"
    assert read_variance_split(dataset.drop_vars("variance_by_part")).parts == {}
    with pytest.raises(ValueError, match="no variance by node"):
        read_variance_split(dataset.drop_vars("variance_by_node"))


def test_nothing_to_draw_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one panel"):
        draw_variance_by_node([])
    with pytest.raises(ValueError, match=r"`columns` \(=0\)"):
        draw_variance_by_node([VarianceSplit(np.ones((1, 3)), NODES)], columns=0)
