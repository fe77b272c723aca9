"""Where in a network its curvature is: the ends of the spectrum of every cell's and node's own block."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
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
from nas_lightning.figures.variance_by_node import NODE_COLOURS, PART_COLOUR, texts

if TYPE_CHECKING:
    import xarray as xr

_CELL_COLOUR = "#D9D9D9"
_MARKERS = "DosX^vP*"
_WHOLE = "network"


@dataclass(frozen=True, eq=False)
class BlockCurvatures:
    """Largest and smallest eigenvalue of the blocks of one network.

    Attributes:
        names: Name of every block, in the order of the network; ``"network"`` is the whole.
        cells: Number of the block's cell; -1 outside the cells.
        nodes: Node of the cell: ``"preprocess"``, ``"2"``, ...; empty for a whole cell or part.
        largest: Largest eigenvalues; NaN where there is none, or none yet.
        smallest: Smallest eigenvalues.
        converged: Whether each is final.
        unit: Unit of the eigenvalues.
        title: Title of the panel.
        facts: As for :class:`~nas_lightning.figures.surface.SurfacePanel`.
        done: Blocks that are measured.
    """

    names: Sequence[str]
    cells: Sequence[int]
    nodes: Sequence[str]
    largest: Float[np.ndarray, " block"]
    smallest: Float[np.ndarray, " block"]
    converged: Sequence[bool]
    done: Sequence[bool]
    unit: str = "nat"
    title: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)


def read_block_curvature(table: xr.Dataset, title: str = "") -> BlockCurvatures:
    """Read the eigenvalues of every block from a file's dataset, finished or not."""
    values = {
        name: table[name].values.astype(np.float64) for name in ("largest_eigenvalue", "smallest_eigenvalue")
    }
    return BlockCurvatures(
        texts(table["name"].values),
        table["cell"].values.tolist(),
        texts(table["node"].values),
        values["largest_eigenvalue"],
        values["smallest_eigenvalue"],
        (table["converged"].values == 1).tolist(),
        (table["done"].values == 1).tolist(),
        str(table["largest_eigenvalue"].attrs.get("units", "nat")),
        title,
        file_facts(table),
    )


def draw_block_curvature(
    networks: Sequence[BlockCurvatures], *, columns: int | None = None, title: str = ""
) -> Figure:
    """Draw the largest eigenvalue of every block upwards and the smallest downwards.

    A wide bar is a cell, or a part outside the cells; a pair of markers in it one of its nodes. Nodes lie
    within their cell's bar, and bars within the dashed lines of the whole network, by Cauchy's interlacing
    theorem; they do not add up. All panels have one scale. Hollow markers and hatched bars did not converge.

    Args:
        networks: From left to right and from top to bottom.
        columns: Panels side by side; two by default.
        title: Title of the whole figure.

    Raises:
        ValueError: If there is nothing to draw, or ``columns`` is not positive.
    """
    across, down = grid_of(len(networks), columns, default=2)
    figure = new_figure(across * (6.4 if across == 1 else 4.6), down * 3.0 + 0.4, title)
    nodes = list(dict.fromkeys(node for network in networks for node in network.nodes if node))
    looks = {
        name: (NODE_COLOURS[index % len(NODE_COLOURS)], _MARKERS[index % len(_MARKERS)])
        for index, name in enumerate(nodes)
    }
    values = np.concatenate([np.concatenate([one.largest, one.smallest]) for one in networks])
    finite = values[np.isfinite(values)]
    low, high = min(finite.min(initial=0.0), 0.0), max(finite.max(initial=0.0), 0.0)
    exponent, power = power_of_ten(max(high, -low))
    unit = 10.0**exponent
    room = 0.08 * (high - low) or 1.0
    for index, network in enumerate(networks):
        axes = figure.add_subplot(down, across, index + 1)
        _draw_network(axes, network, looks, unit)
        lines = [network.title] + ([] if all(network.done) else ["(unfinished)"])
        name = f"eigenvalue of the block ({network.unit}){power}"
        label_axes(axes, "\n".join(filter(None, lines)), "cell", "" if index % across else name)
        axes.set_ylim((low - room * (low < 0)) / unit, (high + room) / unit)
    entries: dict[str, Artist] = {
        "whole network": Line2D([], [], color="black", linestyle="--", linewidth=1.0)
    }
    if any(cell >= 0 for network in networks for cell in network.cells):
        entries["cell"] = Patch(facecolor=_CELL_COLOUR)
    for name, (colour, marker) in looks.items():
        label = f"node {name}" if name.isdigit() else name
        entries[label] = Line2D([], [], color=colour, marker=marker, linestyle="", markersize=5)
    add_legend(figure, entries, ncols=min(len(entries), 8))
    return settle(figure, note=shared_note([network.facts for network in networks]))


def _draw_network(
    axes: Axes, network: BlockCurvatures, looks: Mapping[str, tuple[str, str]], unit: float
) -> None:
    """Draw one network in the order of the forward pass: stem, cells, classifier."""
    bars = [index for index, name in enumerate(network.names) if not network.nodes[index] and name != _WHOLE]
    label_of = {i: str(network.cells[i]) if network.cells[i] >= 0 else network.names[i] for i in bars}
    places = {label_of[index]: place for place, index in enumerate(bars)}
    offsets = np.linspace(-0.28, 0.28, len(looks)) if len(looks) > 1 else np.zeros(len(looks))
    shift = dict(zip(looks, offsets.tolist(), strict=True))
    for index, name in enumerate(network.names):
        if not network.done[index]:
            continue
        ends = [end / unit for end in (network.largest[index], network.smallest[index])]
        node, cell = network.nodes[index], network.cells[index]
        if name == _WHOLE:
            for end in ends:
                if np.isfinite(end):
                    axes.axhline(end, color="black", linestyle="--", linewidth=1.0, zorder=1)
            continue
        place = places[label_of[index]] if not node else places[str(cell)] + shift[node]
        if not np.isfinite(ends).all():
            if not node:
                above: dict[str, Any] = {"textcoords": "offset points", "ha": "center"}
                axes.annotate("NaN", (place, 0), (0, 2), fontsize=TICK_POINTS, **above)
            continue
        if node:
            colour, marker = looks[node]
            style: dict[str, Any] = {"color": colour, "marker": marker, "linestyle": "", "markersize": 4}
            style["markerfacecolor"] = colour if network.converged[index] else "none"
            axes.plot([place, place], ends, zorder=3, **style)
        else:
            colour = _CELL_COLOUR if cell >= 0 else PART_COLOUR
            hatch = None if network.converged[index] else "////"
            axes.bar(place, ends[0] - ends[1], bottom=ends[1], width=0.8, color=colour, hatch=hatch, zorder=2)
    axes.axhline(0, color="#7F7F7F", linewidth=0.8, zorder=2.5)
    _name_bars(axes, places)


def _name_bars(axes: Axes, places: Mapping[str, int]) -> None:
    """Write the numbers of the cells and, upright, the names of the other parts."""
    cells = [name for name in places if name.isdigit()]
    step = -(-len(cells) // 20) or 1
    shown = [name for name in places if not name.isdigit() or int(name) % step == 0]
    axes.set_xticks([places[name] for name in shown], shown)
    for text in axes.get_xticklabels():
        if not text.get_text().isdigit():
            text.set_rotation(90)
    axes.tick_params(axis="x", length=0)
    # Between the upright names of the parts, not below them.
    axes.xaxis.set_label_coords(0.5, -0.12)
    axes.set_xlim(-0.7, len(places) - 0.3)
    open_axes(axes)
