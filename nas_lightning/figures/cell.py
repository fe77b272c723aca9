"""Drawings of cells, as figures 1 and 2 of the paper: inputs left, nodes by depth, output right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.path import Path
from matplotlib.textpath import TextPath

from nas_lightning.cells.genotype import Edge, edge_nodes
from nas_lightning.cells.operations import carries
from nas_lightning.cells.paths import cell_path
from nas_lightning.cells.topology import (
    cell_depth,
    cell_width,
    dead_nodes,
    format_width,
    live_nodes,
    reads_inputs,
)
from nas_lightning.figures.cell_layout import GAP, Box, CellLayout, lay_out
from nas_lightning.figures.picture import grid_of, settle

# Okabe and Ito's palette, which colour-blind readers can tell apart; one colour per family of operations.
_FAMILY_COLOURS = {
    "sep_conv": "#0072B2",
    "dil_conv": "#E69F00",
    "max_pool": "#009E73",
    "avg_pool": "#009E73",
    "skip_connect": "#000000",
    "conv": "#CC79A7",
    "nor_conv": "#CC79A7",
    "inv_res": "#56B4E9",
}
_OTHER_COLOUR = "#D55E00"
_LINE_COLOUR = "#7F7F7F"
_DEAD_COLOUR = "#BDBDBD"
_DEAD_TEXT = "#8C8C8C"
_INPUT_FILL = "#F2F2F2"
_DASHES = (0, (3, 2))
_ROUNDING = 0.06

_LABEL_POINTS = 7.5
_NODE_POINTS = 8.5
_TITLE_POINTS = 10.0
_CAPTION_POINTS = 9.0
_MARGIN = 0.18
_CAPTION_HEIGHT = 0.55
_PANEL_SPACE = 0.35


class CellDrawing(NamedTuple):
    """One cell to draw.

    Attributes:
        edges: Edges of the cell.
        concat: Nodes that the output concatenates.
        title: Title of the caption, above width and depth.
    """

    edges: Sequence[Edge]
    concat: Sequence[int]
    title: str

    @property
    def caption(self) -> str:
        """Width, depth and mean path, an input that is not read, and the meaning of grey where it occurs."""
        cell = (self.edges, self.concat)
        caption = f"width {format_width(cell_width(*cell))}, depth {cell_depth(*cell)}"
        caption += f", path {cell_path(*cell):.3g}"
        unread = [f"input {source}" for source, read in enumerate(reads_inputs(*cell)) if not read]
        if unread:
            caption += f", {unread[0]} unread"
        if dead_nodes(*cell) or not all(carries(edge.op) for edge in self.edges):
            caption += " (grey: does not reach the output)"
        return caption

    @property
    def caption_width(self) -> float:
        """Width of title and caption in inches."""
        title = _text_width(self.title, _TITLE_POINTS, "bold") if self.title else 0.0
        return max(title, _text_width(self.caption, _CAPTION_POINTS))


def draw_cell(edges: Sequence[Edge], concat: Sequence[int], title: str) -> Figure:
    """Draw one cell, as `draw_cells` does."""
    return draw_cells([CellDrawing(edges, concat, title)])


def draw_cells(drawings: Sequence[CellDrawing], columns: int | None = None) -> Figure:
    """Draw cells side by side, all at one scale.

    Inputs stand left, intermediate nodes in the column of their depth, the output right. The operation stands
    on its edge, coloured by family; width and depth stand in the caption. Edges and nodes that do not reach
    the output are grey and dashed.

    Args:
        drawings: The cells, from left to right and from top to bottom.
        columns: Cells side by side; up to four by default.

    Raises:
        ValueError: If there is nothing to draw, or ``columns`` is not positive.
    """
    across, _ = grid_of(len(drawings), columns)
    label_width = max(_text_width(edge.op) for drawing in drawings for edge in drawing.edges) + 0.14
    layouts = [lay_out(drawing.edges, drawing.concat, label_width) for drawing in drawings]
    rows = [layouts[start : start + across] for start in range(0, len(layouts), across)]
    # A panel is as wide as its cell or its caption, whichever is wider.
    needed = [max(layout.width, d.caption_width) for layout, d in zip(layouts, drawings, strict=True)]
    widths = [max(needed[column::across]) for column in range(across)]
    heights = [max(layout.height for layout in row) + _CAPTION_HEIGHT for row in rows]
    total_width = sum(widths) + _PANEL_SPACE * (across - 1) + 2 * _MARGIN
    total_height = sum(heights) + _PANEL_SPACE * (len(rows) - 1) + 2 * _MARGIN

    figure = Figure(figsize=(total_width, total_height), facecolor="white")
    for index, (drawing, layout) in enumerate(zip(drawings, layouts, strict=True)):
        row, column = divmod(index, across)
        width, height = widths[column], heights[row]
        left = _MARGIN + sum(widths[:column]) + _PANEL_SPACE * column
        bottom = total_height - _MARGIN - sum(heights[: row + 1]) - _PANEL_SPACE * row
        place = (left / total_width, bottom / total_height, width / total_width, height / total_height)
        axes = figure.add_axes(place)
        # One data unit is one inch in every panel; a narrow or low cell stands in the middle of its panel.
        side, middle = (width - layout.width) / 2, (height - _CAPTION_HEIGHT) / 2
        axes.set_xlim(-side, width - side)
        axes.set_ylim(-middle - _CAPTION_HEIGHT, middle)
        axes.set_axis_off()
        _draw(axes, drawing, layout)
    return settle(figure)


def _draw(axes: Axes, drawing: CellDrawing, layout: CellLayout) -> None:
    live = live_nodes(drawing.edges, drawing.concat)
    nodes = edge_nodes(drawing.edges)
    for edge, node, line, label in zip(drawing.edges, nodes, layout.edges, layout.labels, strict=True):
        is_live = carries(edge.op) and node in live
        colours = (colour for family, colour in _FAMILY_COLOURS.items() if edge.op.startswith(family))
        colour = next(colours, _OTHER_COLOUR) if is_live else _DEAD_COLOUR
        bend = line.bend[0] - GAP
        points = [line.start, (bend, line.start[1]), *_turn(bend, line.start[1], *line.bend), line.end]
        _draw_line(axes, points, colour, dashed=not is_live)
        text_colour = "black" if is_live else _DEAD_TEXT
        _draw_box(axes, label, edge.op, colour, "white", text_colour, _LABEL_POINTS, tint=is_live)
    for line in layout.concat:
        # Along the row first, then into the output.
        _draw_line(axes, [line.start, line.bend, *_turn(*line.bend, *line.end)], _LINE_COLOUR, dashed=False)
    for node, box in enumerate(layout.nodes):
        if node < 2:
            _draw_box(axes, box, f"input {node}", _LINE_COLOUR, _INPUT_FILL)
        elif node in live:
            _draw_box(axes, box, str(node), "black", "white")
        else:
            _draw_box(axes, box, str(node), _DEAD_COLOUR, "white", _DEAD_TEXT, dashed=True)
    _draw_box(axes, layout.output, "output", _LINE_COLOUR, _INPUT_FILL)

    top = -layout.height / 2 - 0.1
    caption: dict[str, Any] = {"ha": "center", "va": "top"}
    axes.text(layout.width / 2, top, drawing.title, fontsize=_TITLE_POINTS, fontweight="bold", **caption)
    axes.text(layout.width / 2, top - 0.2, drawing.caption, fontsize=_CAPTION_POINTS, **caption)


def _turn(x: float, y: float, to_x: float, to_y: float) -> list[tuple[float, float]]:
    """The S-shaped curve from one point to another: two controls and the end."""
    middle = (x + to_x) / 2
    return [(middle, y), (middle, to_y), (to_x, to_y)]


def _draw_line(axes: Axes, points: list[tuple[float, float]], colour: str, *, dashed: bool) -> None:
    """Draw an arrow along two points, the three of a turn and, where there is one, the end."""
    codes = [Path.MOVETO, Path.LINETO, *[Path.CURVE4] * 3, *[Path.LINETO] * (len(points) - 5)]
    style: dict[str, Any] = {"linestyle": _DASHES, "zorder": 0.5} if dashed else {"zorder": 1}
    style |= {"arrowstyle": "-|>", "mutation_scale": 8, "shrinkA": 0, "shrinkB": 0, "clip_on": False}
    axes.add_patch(FancyArrowPatch(path=Path(points, codes), linewidth=1.2, color=colour, **style))


def _draw_box(
    axes: Axes,
    box: Box,
    text: str,
    colour: str,
    fill: str,
    text_colour: str = "black",
    points: float = _NODE_POINTS,
    *,
    tint: bool = False,
    dashed: bool = False,
) -> None:
    corner = (box.left + _ROUNDING, box.y - box.height / 2 + _ROUNDING)
    size = (box.width - 2 * _ROUNDING, box.height - 2 * _ROUNDING)
    style: dict[str, Any] = {
        "boxstyle": f"round,pad={_ROUNDING}",
        "edgecolor": colour,
        "linewidth": 1.0,
        "linestyle": _DASHES if dashed else "solid",
        "clip_on": False,
        "zorder": 2,
    }
    for face in [fill, (colour, 0.18)] if tint else [fill]:
        axes.add_patch(FancyBboxPatch(corner, *size, facecolor=face, **style))
    place: dict[str, Any] = {"ha": "center", "va": "center_baseline", "zorder": 3}
    axes.text(box.x, box.y, text, fontsize=points, color=text_colour, **place)


def _text_width(text: str, points: float = _LABEL_POINTS, weight: str = "normal") -> float:
    """Width of a text in inches."""
    extents = TextPath((0, 0), text, size=points, prop=FontProperties(weight=weight)).get_extents()
    return float(extents.width) / 72
