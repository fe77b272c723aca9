from __future__ import annotations

import numpy as np
import pytest
from matplotlib.collections import LineCollection

from nas_lightning.figures.picture import figure_to_array
from nas_lightning.figures.sampled import FEWEST, SampledPanel, draw_sampled
from tests.figures.surfaces import inside


def panel(widths: list[float], epochs: int = 20, title: str = "space") -> SampledPanel:
    time = np.arange(1.0, epochs + 1)
    errors = np.array([60 / (1 + width * time) + index for index, width in enumerate(widths)])
    return SampledPanel(time, errors, np.array(widths), title)


def test_every_cell_is_a_line_and_a_dot_and_frequent_widths_have_means() -> None:
    many, few = [2.0] * FEWEST, [3.0] * (FEWEST - 1)
    data = panel([*many, *few])
    figure = draw_sampled([data])
    curves, ends = figure.axes[:2]
    (lines,) = (one for one in curves.collections if isinstance(one, LineCollection))
    assert [np.asarray(segment)[:, 1].tolist() for segment in lines.get_segments()] == data.errors.tolist()
    (mean,) = curves.lines
    np.testing.assert_allclose(np.asarray(mean.get_ydata()), data.errors[: len(many)].mean(axis=0))
    dots = np.concatenate([np.asarray(line.get_xydata()) for line in ends.lines if line.get_marker() == "o"])
    assert sorted(dots[:, 1]) == pytest.approx(sorted(data.errors[:, -1]))
    # Each dot stands beside its own width.
    assert np.abs(dots[:, 0] - np.where(dots[:, 0] < 2.5, 2.0, 3.0)).max() <= 0.15
    bars = [np.asarray(line.get_ydata()) for line in ends.lines if line.get_marker() != "o"]
    assert np.ravel(bars) == pytest.approx([data.errors[: len(many), -1].mean()] * 2)


def test_colours_tell_widths_apart() -> None:
    figure = draw_sampled([panel([1.5, 2.0, 2.5, 4.0])])
    (lines,) = (one for one in figure.axes[0].collections if isinstance(one, LineCollection))
    brightness = np.asarray(lines.get_colors())[:, :3] @ np.array([0.299, 0.587, 0.114])
    assert np.all(np.diff(brightness) > 0.02)


@pytest.mark.parametrize("widths", [[2.0], [2.0, 2.0, 2.0], [1.5, 2.0, 4.0] * 3])
def test_nothing_is_cut_off_with_one_width_one_epoch_or_a_gap(widths: list[float]) -> None:
    gap = panel(widths)
    gap.errors[0, 3] = np.nan
    for panels in ([panel(widths, epochs=1)], [gap, panel(widths, title="a second space")]):
        figure = draw_sampled(panels, title="title")
        assert figure_to_array(figure).std() > 0
        inside(figure)


def test_there_must_be_a_space() -> None:
    with pytest.raises(ValueError, match="at least one space"):
        draw_sampled([])
