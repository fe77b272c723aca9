"""Every text of every figure lies inside the picture, however long the names are."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from matplotlib.axis import Tick
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from nas_lightning.cells import get_genotype
from nas_lightning.figures.accuracy import AccuracyPanel, draw_accuracy
from nas_lightning.figures.block_curvature import BlockCurvatures, draw_block_curvature
from nas_lightning.figures.budget import BudgetLine, BudgetPanel, draw_budget
from nas_lightning.figures.cell import CellDrawing, draw_cells
from nas_lightning.figures.confusion import draw_confusion_matrix
from nas_lightning.figures.curves import Curve, CurvePanel, draw_curves
from nas_lightning.figures.dark import dark_copy
from nas_lightning.figures.effects import Effect, EffectPanel, draw_forest
from nas_lightning.figures.landscape import draw_loss_contours
from nas_lightning.figures.percentiles import PercentilePanel, draw_percentiles
from nas_lightning.figures.picture import ON_COLOUR, figure_to_array, text_width, wrap
from nas_lightning.figures.profile import draw_profiles
from nas_lightning.figures.sampled import SampledPanel, draw_sampled
from nas_lightning.figures.spectrum import draw_spectrum
from nas_lightning.figures.spread import SurfaceSpread, draw_spread
from nas_lightning.figures.surface import ALPHA, BETA, SurfacePanel
from nas_lightning.figures.surface3d import draw_surfaces
from nas_lightning.figures.variance import draw_heat_maps
from nas_lightning.figures.variance_by_node import VarianceSplit, draw_variance_by_node
from nas_lightning.figures.width_depth import WidthDepthPlane, draw_width_depth

FACTS = {
    "data": "TinyImageNet200WithAVeryLongNameOfItsOwn",
    "split": "test split",
    "images": "10000 images",
    "epoch": "after 600 epochs",
    "seed": "seed 123456789",
    "grid": "51 x 51 points",
    "normalization": "directions normalised by layer, orthogonal",
}
LONG = (
    "DARTS_with_a_name:connections=123456789, auxiliary tower and drop path of 0.2, after 600 epochs, seed 17"
)
PATH = "/home/somebody/logs/experiment/WWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWWW/loss.nc"
LABEL = "standard deviation of the gradient of the loss over all images of the test split, times 1e-5"
STEPS = np.linspace(-0.5, 0.5, 9)


def surface(name: str, scale: float = 1.0) -> SurfacePanel:
    values = scale * (1 + np.add.outer(STEPS**2, 2 * STEPS**2))
    values[0, 0], values[8, 8] = np.nan, np.inf
    return SurfacePanel(STEPS, STEPS, values, name, facts=FACTS)


def curves(name: str, count: int = 3) -> list[Curve]:
    x = np.arange(1.0, 20.0)
    every = [2.0 * np.exp(-x / (3 + index)) for index in range(count)]
    return [
        Curve(f"{name}:{index}", x, y, 0.9 * y, 1.1 * y, index, label=f"{name} {index}")
        for index, y in enumerate(every)
    ]


def of_surfaces(draw: Callable[..., Figure], **settings: Any) -> Callable[[str, int], Figure]:
    return lambda name, count: draw([surface(name)] * count, title=name, **settings)


def spread(name: str, count: int, *, loss: bool) -> Figure:
    values = np.stack([surface("").values, surface("").values + 1])
    panels = [SurfaceSpread(STEPS, STEPS, values, f"{name}\nmean of 2 pairs of directions", FACTS)] * count
    return draw_spread(panels, loss=loss, label="loss (nat)" if loss else LABEL, title=name)


def by_node(name: str, count: int) -> Figure:
    split = VarianceSplit(np.ones((8, 5)), ["preprocess", "2", "3", "4", "5"], {"stem": 1.0}, name, FACTS)
    return draw_variance_by_node([split] * count, title=name)


def width_depth(name: str, count: int) -> Figure:
    plane = WidthDepthPlane(["", name[:40]], [3.5, 2.0], [3, 4], np.array([1.0, 2.0]), {(2.0, 4): 1}, name)
    return draw_width_depth([plane] * count, label=LABEL, title=name)


def accuracy(name: str, count: int) -> Figure:
    panel = AccuracyPanel([0, 1], ["0", name[:40]], [np.array([90.0, 91.0]), np.array([92.0])], name)
    return draw_accuracy([panel] * count, title=name)


def forest(name: str, count: int) -> Figure:
    effects = [
        Effect(name, 0.5, 0.1, 0.9, "supported"),
        Effect(name, math.nan, math.nan, math.nan, "no data"),
    ]
    return draw_forest([EffectPanel(effects, "Kendall's tau-b", limits=(-1, 1))] * count, title=name)


def budget(name: str, count: int) -> Figure:
    epochs = np.arange(1.0, 61.0)
    return draw_budget([BudgetPanel(LABEL, [BudgetLine(name, 0, epochs, epochs)], 3.0)] * count)


def percentiles(name: str, count: int) -> Figure:
    panel = PercentilePanel(LABEL, name, np.array([2018.0, 2020.0]), np.array([0.1, 0.9]), {2018: 0.1})
    return draw_percentiles([panel] * count)


def sampled(name: str, count: int) -> Figure:
    panel = SampledPanel(np.arange(1.0, 9.0), np.ones((2, 8)) + 1, np.array([2.0, 3.0]), name)
    return draw_sampled([panel] * count, label=LABEL, title=name)


def cells(name: str, count: int) -> Figure:
    genotype = get_genotype("darts_v2")
    return draw_cells([CellDrawing(genotype.normal, genotype.normal_concat, name)] * count)


def spectrum(name: str, count: int) -> Figure:
    values = np.arange(10.0 * count, 0, -10)
    return draw_spectrum(
        values, values / 10, smallest=-values, trace=1.0, title=name, note=", ".join(FACTS.values())
    )


def by_block(name: str, count: int) -> Figure:
    nodes = ["", "preprocess", "2", "3"]
    cells = [-1, *np.repeat(np.arange(20), 4).tolist(), -1]
    names = ["stem", *(f"cell {cell} {node}" for cell in range(20) for node in nodes), "classifier"]
    heights = np.linspace(1e5, 2e5, len(cells))
    network = BlockCurvatures(
        *(names, cells, ["", *nodes * 20, ""], heights, -heights / 3),
        *([True] * len(cells), [True] * len(cells)),
        title=name,
        facts=FACTS,
    )
    return draw_block_curvature([network] * count, title=name)


def confusion(name: str, count: int) -> Figure:
    counts = np.diag(np.arange(8 * count) + 900) + 1
    names = [f"{number} {name}" for number in range(8 * count)]
    return draw_confusion_matrix(counts, names, title=name, note=", ".join(FACTS.values()))


DRAWINGS: dict[str, Callable[[str, int], Figure]] = {
    "contours": of_surfaces(draw_loss_contours),
    "heat maps": of_surfaces(draw_heat_maps, label=LABEL),
    "surfaces": of_surfaces(draw_surfaces, label=LABEL),
    "loss spread": lambda name, count: spread(name, count, loss=True),
    "spread": lambda name, count: spread(name, count, loss=False),
    "nodes": by_node,
    "blocks": by_block,
    "width and depth": width_depth,
    "curves": lambda name, count: draw_curves([CurvePanel(curves(name), name, LABEL)] * count, title=name),
    "different curves": lambda name, count: draw_curves(
        [CurvePanel(curves(f"{index}{name}"[:60], 2 + index), name, LABEL) for index in range(count)]
    ),
    "profiles": lambda name, count: draw_profiles(
        curves(name, count), title=name, note=", ".join(FACTS.values())
    ),
    "accuracy": accuracy,
    "forest": forest,
    "budget": budget,
    "percentiles": percentiles,
    "sampled": sampled,
    "cells": cells,
    "spectrum": spectrum,
    "confusion": confusion,
}


def written(figure: Figure) -> list[tuple[Text, Bbox]]:
    """Every text that is to be seen, with its box in pixels."""
    figure_to_array(figure, 100.0)
    unseen: set[Text] = set()
    for axes in figure.axes:
        for axis in axes._axis_map.values():
            low, high = sorted(axis.get_view_interval())
            room = 1e-6 * (high - low)
            seen = [tick for tick in axis.get_major_ticks() if low - room <= tick.get_loc() <= high + room]
            for tick in [*axis.majorTicks, *axis.minorTicks]:
                if tick not in seen or not axes.axison:
                    unseen |= {tick.label1, tick.label2}
            if not axes.axison:
                unseen |= {axis.label, axis.offsetText}
    texts = [text for text in figure.findobj(Text) if text not in unseen and text.get_visible()]
    boxes = [(text, text.get_window_extent()) for text in dict.fromkeys(texts) if text.get_text().strip()]
    return [(text, box) for text, box in boxes if np.isfinite(box.extents).all()]


@pytest.mark.parametrize(("name", "count"), [("", 1), (LONG, 3), (PATH, 2)], ids=["none", "long", "path"])
@pytest.mark.parametrize("kind", DRAWINGS)
def test_no_text_is_cut_and_titles_do_not_run_into_one_another(kind: str, name: str, count: int) -> None:
    figure = DRAWINGS[kind](name, count)
    width, height = figure.bbox.width * 100 / figure.dpi, figure.bbox.height * 100 / figure.dpi
    texts = written(figure)
    assert len(texts) > 3
    for text, box in texts:
        assert box.x0 >= 0, (text, box)
        assert box.y0 >= 0, (text, box)
        assert box.x1 <= width, (text, box, width)
        assert box.y1 <= height, (text, box, height)
    large = dict(texts)
    names = [text for axes in figure.axes for text in (axes.title, axes.xaxis.label, axes.yaxis.label)]
    shown = [(text.get_text(), large[text].padded(-1.5)) for text in [*names, *figure.texts] if text in large]
    for (one, box), (other, other_box) in combinations(shown, 2):
        assert not box.overlaps(other_box), (one, other)


@pytest.mark.parametrize("dots", [100.0, 150.0, 200.0])
@pytest.mark.parametrize("kind", ["contours", "heat maps", "confusion"])
def test_no_text_touches_the_edge_of_the_picture(kind: str, dots: float) -> None:
    pixels = figure_to_array(DRAWINGS[kind]("darts_v2", 1), dots)
    rim = round(dots / 50)
    for side in (pixels[:, :rim], pixels[:, -rim:], pixels[:rim], pixels[-rim:]):
        assert (side == 255).all()


@pytest.mark.parametrize("kind", ["contours", "heat maps", "surfaces", "loss spread", "nodes"])
def test_the_note_says_the_facts_of_all_panels(kind: str) -> None:
    texts = " ".join(text.get_text() for text in DRAWINGS[kind]("darts_v2", 2).texts).split()
    said = "".join(texts)
    facts = [fact for name, fact in FACTS.items() if kind != "nodes" or name != "grid"]
    assert all(fact.replace(" ", "") in said for fact in facts)


@pytest.mark.parametrize("name", ["darts_v2", LONG, PATH])
@pytest.mark.parametrize("width", [0.6, 1.5, 4.0])
def test_wrapped_lines_fit_and_lose_no_sign(name: str, width: float) -> None:
    lines = wrap(name, width)
    assert all(text_width(line, 9.0) <= width for line in lines)
    assert "".join(lines).replace(" ", "") == name.replace(" ", "")


@pytest.mark.parametrize("kind", DRAWINGS)
def test_a_dark_copy_has_light_texts_on_dark_paper_and_the_same_places(kind: str) -> None:
    figure = DRAWINGS[kind]("darts_v2", 1)
    before = figure_to_array(figure, 60.0)
    dark = figure_to_array(dark_copy(figure), 60.0)
    assert before.shape == dark.shape
    assert np.array_equal(figure_to_array(figure, 60.0), before)  # the figure itself stays
    paper = dark.reshape(-1, 3).astype(int)
    assert dark[0, 0].tolist() == [0x18, 0x1D, 0x24]
    # White is left nowhere but as ink.
    assert np.mean(paper.min(axis=1) > 200) < 0.08
    for text, _ in written(dark_copy(figure)):
        assert light(text.get_color()) > 0.35 or text.get_gid() == ON_COLOUR, text
    for text, _ in written(figure):
        assert light(text.get_color()) < 0.85 or text.get_gid() == ON_COLOUR, text


def light(colour: Any) -> float:
    from matplotlib.colors import to_rgb

    return float(np.dot(to_rgb(colour), (0.299, 0.587, 0.114)))


def test_ticks_are_looked_at() -> None:
    figure = draw_heat_maps([surface("a")])
    ticks = {text.get_text() for text, _ in written(figure)}
    assert {ALPHA, BETA, "a"} < ticks
    assert any(isinstance(tick, Tick) for tick in figure.findobj(Tick))
    # A name beyond the edge is found.
    figure.axes[0].yaxis.set_label_coords(-0.4, 0.5)
    assert min(box.x0 for _, box in written(figure)) < 0
