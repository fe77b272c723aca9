"""Drawings of cells, as figures 1 and 2 of the paper: inputs left, nodes by depth, output right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.path import Path
from matplotlib.textpath import TextPath

from nas_lightning.cells.genotype import Edge
from nas_lightning.cells.topology import cell_depth, cell_width, dead_nodes, format_width, live_nodes
from nas_lightning.figures.cell_layout import GAP, Box, CellLayout, Line, lay_out

# Okabe and Ito's palette, which colour-blind readers can tell apart; one colour per family of operations.
_FAMILY_COLOURS = {
    "sep_conv": "#0072B2",
    "dil_conv": "#E69F00",
    "max_pool": "#009E73",
    "avg_pool": "#009E73",
    "skip_connect": "#000000",
    "conv": "#CC79A7",
    "inv_res": "#56B4E9",
}
_OTHER_COLOUR = "#D55E00"
_DEAD_COLOUR = "#BDBDBD"
_LINE_COLOUR = "#7F7F7F"
_INPUT_FILL = "#F2F2F2"
_NODE_FILL = "#FFFFFF"

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
        edges: Two edges per intermediate node.
        concat: Nodes that the output concatenates.
        title: What stands above width and depth in the caption.
    """

    edges: Sequence[Edge]
    concat: Sequence[int]
    title: str


def draw_cell(edges: Sequence[Edge], concat: Sequence[int], title: str) -> Figure:
    """Draw one cell.

    Inputs stand left, intermediate nodes in the column of their depth, the output right; the operation
    stands on its edge, coloured by family; width and depth stand in the caption. Grey and dashed is what
    does not reach the output.

    Args:
        edges: Two edges per intermediate node.
        concat: Nodes that the output concatenates.
        title: What stands above width and depth in the caption.

    Returns:
        The figure.
    """
    return draw_cells([CellDrawing(edges, concat, title)])


def draw_cells(drawings: Sequence[CellDrawing], columns: int | None = None) -> Figure:
    """Draw several cells side by side, all at one scale.

    Args:
        drawings: The cells, from left to right and from top to bottom.
        columns: How many stand side by side; all of them up to four by default.

    Returns:
        The figure.

    Raises:
        ValueError: If there is nothing to draw, or ``columns`` is not positive.
    """
    if not drawings:
        raise ValueError("there must be at least one cell to draw")
    if columns is not None and columns < 1:
        raise ValueError(f"`columns` (={columns}) must be at least 1")
    across = min(len(drawings), columns or 4)
    label_width = max(_text_width(edge.op) for drawing in drawings for edge in drawing.edges) + 0.14
    layouts = [lay_out(drawing.edges, drawing.concat, label_width) for drawing in drawings]
    rows = [layouts[start : start + across] for start in range(0, len(layouts), across)]
    # A panel is as wide as its cell or its caption, whichever is wider.
    needed = [
        max(layout.width, _caption_width(drawing)) for layout, drawing in zip(layouts, drawings, strict=True)
    ]
    widths = [max(needed[column::across]) for column in range(across)]
    heights = [max(layout.height for layout in row) + _CAPTION_HEIGHT for row in rows]
    total_width = sum(widths) + _PANEL_SPACE * (across - 1) + 2 * _MARGIN
    total_height = sum(heights) + _PANEL_SPACE * (len(rows) - 1) + 2 * _MARGIN

    figure = Figure(figsize=(total_width, total_height), facecolor="white")
    for index, (drawing, layout) in enumerate(zip(drawings, layouts, strict=True)):
        row, column = divmod(index, across)
        left = _MARGIN + sum(widths[:column]) + _PANEL_SPACE * column
        bottom = total_height - _MARGIN - sum(heights[: row + 1]) - _PANEL_SPACE * row
        axes = figure.add_axes(
            (
                left / total_width,
                bottom / total_height,
                widths[column] / total_width,
                heights[row] / total_height,
            )
        )
        # One data unit is one inch in every panel; a narrow or low cell stands in the middle of its panel.
        side = (widths[column] - layout.width) / 2
        middle = (heights[row] - _CAPTION_HEIGHT) / 2
        axes.set_xlim(-side, widths[column] - side)
        axes.set_ylim(-middle - _CAPTION_HEIGHT, middle)
        axes.set_axis_off()
        _draw(axes, drawing, layout)
    return figure


def _draw(axes: Axes, drawing: CellDrawing, layout: CellLayout) -> None:
    edges, concat = drawing.edges, drawing.concat
    live = live_nodes(edges, concat)
    for index, (edge, line, label) in enumerate(zip(edges, layout.edges, layout.labels, strict=True)):
        is_live = edge.op != "none" and index // 2 + 2 in live
        colour = _colour(edge.op) if is_live else _DEAD_COLOUR
        _draw_line(axes, line, colour, dashed=not is_live)
        text_colour = "black" if is_live else "#8C8C8C"
        _draw_box(axes, label, edge.op, colour, "white", _LABEL_POINTS, text_colour, tint=is_live)
    for line in layout.concat:
        _draw_line(axes, line, _LINE_COLOUR, dashed=False, to_output=True)
    for node, box in enumerate(layout.nodes):
        if node < 2:
            _draw_box(axes, box, f"input {node}", _LINE_COLOUR, _INPUT_FILL, _NODE_POINTS, "black")
        elif node in live:
            _draw_box(axes, box, str(node), "black", _NODE_FILL, _NODE_POINTS, "black")
        else:
            _draw_box(axes, box, str(node), _DEAD_COLOUR, _NODE_FILL, _NODE_POINTS, "#8C8C8C", dashed=True)
    _draw_box(axes, layout.output, "output", _LINE_COLOUR, _INPUT_FILL, _NODE_POINTS, "black")

    caption_top = -layout.height / 2 - 0.1
    axes.text(
        layout.width / 2,
        caption_top,
        drawing.title,
        ha="center",
        va="top",
        fontsize=_TITLE_POINTS,
        fontweight="bold",
    )
    axes.text(
        layout.width / 2,
        caption_top - 0.2,
        _caption(drawing),
        ha="center",
        va="top",
        fontsize=_CAPTION_POINTS,
    )


def _caption(drawing: CellDrawing) -> str:
    edges, concat = drawing.edges, drawing.concat
    caption = f"width {format_width(cell_width(edges, concat))}, depth {cell_depth(edges, concat)}"
    if dead_nodes(edges, concat) or any(edge.op == "none" for edge in edges):
        caption += " (grey: does not reach the output)"
    return caption


def _caption_width(drawing: CellDrawing) -> float:
    """Width of title and caption in inches."""
    title = _text_width(drawing.title, _TITLE_POINTS, "bold") if drawing.title else 0.0
    return max(title, _text_width(_caption(drawing), _CAPTION_POINTS))


def _draw_line(axes: Axes, line: Line, colour: str, *, dashed: bool, to_output: bool = False) -> None:
    if to_output:
        # Along the row first, then into the output.
        start, turn, end = line.start, line.bend, line.end
        middle = (turn[0] + end[0]) / 2
        points = [start, turn, (middle, turn[1]), (middle, end[1]), end]
        codes = [Path.MOVETO, Path.LINETO, Path.CURVE4, Path.CURVE4, Path.CURVE4]
    else:
        start, bend, end = line.start, line.bend, line.end
        middle = bend[0] - GAP / 2
        points = [start, (bend[0] - GAP, start[1]), (middle, start[1]), (middle, bend[1]), bend, end]
        codes = [Path.MOVETO, Path.LINETO, Path.CURVE4, Path.CURVE4, Path.CURVE4, Path.LINETO]
    axes.add_patch(
        FancyArrowPatch(
            path=Path(points, codes),
            arrowstyle="-|>",
            mutation_scale=8,
            linewidth=1.2,
            color=colour,
            linestyle=(0, (3, 2)) if dashed else "solid",
            shrinkA=0,
            shrinkB=0,
            clip_on=False,
            zorder=0.5 if dashed else 1,
        )
    )


def _draw_box(
    axes: Axes,
    box: Box,
    text: str,
    colour: str,
    fill: str,
    points: float,
    text_colour: str,
    *,
    tint: bool = False,
    dashed: bool = False,
) -> None:
    rounding = 0.06
    for face in [fill, (colour, 0.18)] if tint else [fill]:
        axes.add_patch(
            FancyBboxPatch(
                (box.left + rounding, box.y - box.height / 2 + rounding),
                box.width - 2 * rounding,
                box.height - 2 * rounding,
                boxstyle=f"round,pad={rounding}",
                facecolor=face,
                edgecolor=colour,
                linewidth=1.0,
                linestyle=(0, (3, 2)) if dashed else "solid",
                clip_on=False,
                zorder=2,
            )
        )
    axes.text(
        box.x, box.y, text, ha="center", va="center_baseline", fontsize=points, color=text_colour, zorder=3
    )


def _colour(op: str) -> str:
    return next(
        (colour for family, colour in _FAMILY_COLOURS.items() if op.startswith(family)), _OTHER_COLOUR
    )


def _text_width(text: str, points: float = _LABEL_POINTS, weight: str = "normal") -> float:
    """Width of a text in inches."""
    extents = TextPath((0, 0), text, size=points, prop=FontProperties(weight=weight)).get_extents()
    return float(extents.width) / 72
