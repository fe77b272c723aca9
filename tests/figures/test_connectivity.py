"""Pictures of a curve between two networks."""

from __future__ import annotations

import math

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from nas_lightning.analysis import PathSurface, connectivity_scalars, new_paths
from nas_lightning.figures import draw_connectivity
from tests.figures.surfaces import inside

KNOWN = {"title": "darts_v2", "data": "Digits", "splits": "train, test", "split": "train"}


def measured(points: int, *, nan_at: int | None = None) -> PathSurface:
    """Both paths with some of their 2 x 5 points; the losses of the line are twice those of the curve."""
    attributes: dict[str, str | int | float] = {**KNOWN, "samples": 40, "test_samples": 30}
    paths = new_paths(np.linspace(0, 1, 5), ["train", "test"], attributes)
    for number, point in enumerate(paths.pending()[:points]):
        loss = (1 + point.direction_seed) * (1 + point.alpha * (1 - point.alpha))
        loss = math.nan if number == nan_at else loss
        values = {"train_loss": loss, "train_accuracy": 0.5, "test_loss": loss + 1, "test_accuracy": 0.4}
        paths.record(point, values)
    return paths


def line(axes: Axes, label: str) -> Line2D:
    [found] = [line for line in axes.lines if line.get_label() == label]
    return found


def test_both_paths_have_both_splits_and_their_barriers() -> None:
    paths = measured(10)
    scalars = connectivity_scalars(paths.curves)
    paths.attach({str(name): scalars[name] for name in scalars.data_vars})
    figure = draw_connectivity(paths.curves)
    loss, accuracy = figure.axes
    assert loss.get_title() == "training barrier: curve 0.25 nat, line 0.5 nat"
    assert accuracy.get_title() == "training barrier: curve 0, line 0"
    t = np.linspace(0, 1, 5)
    assert np.asarray(line(loss, "straight line, train").get_ydata()) == pytest.approx(2 + 2 * t * (1 - t))
    assert np.asarray(line(loss, "Bézier curve, test").get_ydata()) == pytest.approx(2 + t * (1 - t))
    [legend] = figure.legends
    assert len(legend.get_texts()) == 4
    note = "Digits, 40 train and 30 test images, 5 positions, 0 to 1"
    assert note in {text.get_text() for text in figure.texts}
    assert inside(figure)


def test_what_is_not_measured_yet_is_left_out_and_nan_is_a_gap() -> None:
    loss = draw_connectivity(measured(7, nan_at=1).curves).axes[0]
    assert loss.get_title() == ""
    assert np.isnan(np.asarray(line(loss, "Bézier curve, train").get_ydata(), dtype=float)).sum() == 1
    assert len(np.asarray(line(loss, "straight line, train").get_xdata())) == 2
    with pytest.raises(ValueError, match="there must be at least one curve to draw"):
        draw_connectivity(measured(0).curves)
