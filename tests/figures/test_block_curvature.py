from __future__ import annotations

import warnings

import numpy as np
import pytest
from matplotlib.patches import Rectangle

from nas_lightning.analysis.block_curvature import Block
from nas_lightning.analysis.block_surface import BlockSurface, block_variables
from nas_lightning.figures.block_curvature import BlockCurvatures, draw_block_curvature, read_block_curvature
from tests.figures.surfaces import inside

BLOCKS = [
    Block("network", ("a", "b", "c")),
    Block("stem", ("a",)),
    Block("cell 0", ("b", "c"), 0),
    Block("cell 0 preprocess", ("b",), 0, "preprocess"),
    Block("cell 0 node 2", ("c",), 0, "2"),
]


def curvatures(title: str = "darts_v2", scale: float = 1.0, done: int = 5) -> BlockCurvatures:
    surface = BlockSurface.of(BLOCKS, [3, 1, 2, 1, 1], block_variables(True), {"samples": 7})
    ends = [(10.0, -4.0), (3.0, 0.0), (8.0, -2.0), (6.0, -1.0), (5.0, -2.0)]
    for point in surface.pending():
        if (place := point.index[1]) >= done:
            continue
        largest, smallest = ends[place]
        values = {"largest_eigenvalue": largest * scale, "smallest_eigenvalue": smallest * scale}
        surface.record(point, {**values, "residual": 0.0, "converged": 1.0, "products": 20.0})
    return read_block_curvature(surface.table, title)


def test_bars_are_cells_and_parts_markers_nodes_and_lines_the_network() -> None:
    figure = draw_block_curvature([curvatures()])
    axes = figure.axes[0]
    bars = {
        round(patch.get_x() + patch.get_width() / 2, 6): (patch.get_y(), patch.get_height())
        for patch in axes.patches
        if isinstance(patch, Rectangle)
    }
    assert bars == {0: (0, 3), 1: (-2, 10)}
    lines = [np.asarray(line.get_ydata()).tolist() for line in axes.lines]
    assert [10, 10] in lines
    assert [-4, -4] in lines
    assert [6, -1] in lines
    assert [5, -2] in lines
    assert [text.get_text() for text in axes.get_xticklabels()] == ["stem", "0"]
    assert axes.get_title() == "darts_v2"
    assert axes.get_ylabel() == "eigenvalue of the block (nat)"
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["whole network", "cell", "preprocess", "node 2"]
    assert "7 images" in {text.get_text() for text in figure.texts}
    assert inside(figure)


def test_networks_side_by_side_share_scale_and_unit() -> None:
    figure = draw_block_curvature([curvatures("a", 1e5), curvatures("b", 2e5)], title="Both")
    left, right = figure.axes
    assert left.get_ylim() == right.get_ylim()
    assert left.get_ylabel() == "eigenvalue of the block (nat) / 10⁶"
    assert inside(figure)


def test_unfinished_files_and_values_that_are_not_finite_are_drawn_and_named() -> None:
    broken = curvatures()
    broken.largest[1] = broken.largest[4] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = draw_block_curvature([curvatures(done=3), broken, curvatures(done=0)])
    unfinished, named, nothing = figure.axes
    assert unfinished.get_title() == "darts_v2\n(unfinished)"
    assert len(unfinished.patches) == 2
    assert [text.get_text() for text in named.texts] == ["NaN"]
    assert not nothing.patches
    assert inside(figure)
    with pytest.raises(ValueError, match="at least one panel"):
        draw_block_curvature([])
