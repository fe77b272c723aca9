"""Where in a network its gradient variance is made: shares of every node of every cell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from nas_lightning.figures.facts import file_facts, shared_note
from nas_lightning.figures.picture import (
    TICK_POINTS,
    add_legend,
    grid_of,
    label_axes,
    new_figure,
    open_axes,
    settle,
)
from nas_lightning.figures.scale import power_of_ten

if TYPE_CHECKING:
    import xarray as xr

# Okabe and Ito's palette.
NODE_COLOURS = ("#999999", "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")
"""Colours of the nodes, the preprocessing first."""
PART_COLOUR = "#4D4D4D"
"""Colour of stem and classifier."""
_OF_THE_PLANE = ("grid", "extent", "pairs", "normalization")
"""Facts of the plane around the weights, which this figure does not show."""


@dataclass(frozen=True, eq=False)
class VarianceSplit:
    """The gradient variance of one network, split by where its parameters are.

    Attributes:
        variance: Share of every node of every cell; NaN where a cell has no such node.
        nodes: Name of every node: "preprocess", "2", "3", ...
        parts: Shares outside the cells: "stem" and "classifier".
        title: Title of the panel.
        facts: As for :class:`~nas_lightning.figures.surface.SurfacePanel`.
    """

    variance: Float[np.ndarray, "cell node"]
    nodes: Sequence[str]
    parts: Mapping[str, float] = field(default_factory=dict)
    title: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)


def read_variance_split(dataset: xr.Dataset, title: str = "") -> VarianceSplit:
    """Read the gradient variance at the trained weights, by cell and node.

    Args:
        dataset: A gradient-variance surface with ``variance_by_node`` and ``variance_by_part``.
        title: Title of the panel.

    Raises:
        ValueError: If the surface lacks them.
    """
    if "variance_by_node" not in dataset:
        raise ValueError("the surface has no variance by node: it was not measured, or not on a cell network")
    by_node = dataset["variance_by_node"].transpose("cell", "node")
    parts = {}
    if "variance_by_part" in dataset:
        by_part = dataset["variance_by_part"]
        parts = dict(
            zip(texts(by_part["part"].values), by_part.values.astype(np.float64).tolist(), strict=True)
        )
        parts.pop("cells", None)
    facts = {name: fact for name, fact in file_facts(dataset).items() if name not in _OF_THE_PLANE}
    nodes = texts(by_node["node"].values)
    return VarianceSplit(by_node.values.astype(np.float64), nodes, parts, title, facts)


def texts(values: np.ndarray) -> list[str]:
    """Strings, which netCDF-3 may return as bytes."""
    return [value.decode() if isinstance(value, bytes) else str(value) for value in values.tolist()]


def draw_variance_by_node(
    splits: Sequence[VarianceSplit], *, columns: int | None = None, title: str = ""
) -> Figure:
    """Draw the share of every node in the gradient variance: one bar per cell, one colour per node.

    The variance is the trace of the gradient's covariance, so the shares of disjoint sets of parameters add
    up: all bars together are the whole variance, which stands below each panel's title. All panels have one
    scale. A bar with a share that is not finite says so instead of showing the rest.

    Args:
        splits: The networks, from left to right and from top to bottom.
        columns: Panels side by side; two by default.
        title: Title of the whole figure.

    Raises:
        ValueError: If there is nothing to draw, or ``columns`` is not positive.
    """
    across, down = grid_of(len(splits), columns, default=2)
    width = 6.4 if across == 1 else 4.6
    figure = new_figure(across * width, down * 3.0 + 0.4, title)
    names = list(dict.fromkeys(node for split in splits for node in split.nodes))
    colours = {name: NODE_COLOURS[index % len(NODE_COLOURS)] for index, name in enumerate(names)}
    tops = [top for split in splits for top in _bar_tops(split) if np.isfinite(top)]
    highest = max(tops, default=0.0)
    exponent, power = power_of_ten(highest)
    for index, split in enumerate(splits):
        axes = figure.add_subplot(down, across, index + 1)
        _draw_split(axes, split, colours, 10.0**exponent)
        title = "\n".join([split.title, f"in all {sum(_bar_tops(split)):.4g}"])
        label_axes(axes, title, "cell", "" if index % across else f"gradient variance{power}")
        axes.set_ylim(0, 1.08 * highest / 10.0**exponent if highest > 0 else 1)
    entries = {
        f"node {name}" if name.isdigit() else name: Patch(facecolor=colour)
        for name, colour in colours.items()
    }
    add_legend(figure, entries, ncols=min(len(names), 8))
    return settle(figure, note=shared_note([split.facts for split in splits]))


def _bar_tops(split: VarianceSplit) -> list[float]:
    return [*(float(np.nansum(row)) for row in split.variance), *map(float, split.parts.values())]


def _draw_split(axes: Axes, split: VarianceSplit, colours: Mapping[str, str], unit: float) -> None:
    """Draw the bars of one network in the order of the forward pass: stem, cells, classifier."""
    cells = [str(cell) for cell in range(len(split.variance))]
    before = [part for part in split.parts if part == "stem"]
    after = [part for part in split.parts if part != "stem"]
    positions = {name: place for place, name in enumerate([*before, *cells, *after])}
    bottoms = np.zeros(len(cells))
    places = np.array([positions[cell] for cell in cells])
    finite = np.isfinite(_bar_tops(split)[: len(cells)])
    for node, shares in zip(split.nodes, split.variance.T, strict=True):
        heights = np.where(finite & np.isfinite(shares), shares, 0.0) / unit
        axes.bar(places, heights, bottom=bottoms, color=colours[node], width=0.8)
        bottoms += heights
    for part, share in split.parts.items():
        if np.isfinite(share):
            axes.bar(positions[part], share / unit, color=PART_COLOUR, width=0.8)
    # A dead cell has no live parameters and so no share, which differs from a share of 0.
    none = {cell: np.isnan(row).all() for cell, row in zip(cells, split.variance, strict=True)}
    for name, top in zip([*cells, *split.parts], _bar_tops(split), strict=True):
        if none.get(name) or not np.isfinite(top):
            mark = "none" if none.get(name) else "∞" if np.isinf(top) else "NaN"
            above: dict[str, Any] = {"textcoords": "offset points", "ha": "center"}
            axes.annotate(mark, (positions[name], 0), (0, 2), fontsize=TICK_POINTS, **above)
    step = -(-len(cells) // 20)
    shown = [name for name in positions if not name.isdigit() or int(name) % step == 0]
    axes.set_xticks([positions[name] for name in shown], shown)
    for text in axes.get_xticklabels():
        if not text.get_text().isdigit():
            text.set_rotation(90)
    axes.tick_params(axis="x", length=0)
    # Between the upright names of the parts, not below them.
    axes.xaxis.set_label_coords(0.5, -0.12)
    axes.set_xlim(-0.7, len(positions) - 0.3)
    open_axes(axes)
