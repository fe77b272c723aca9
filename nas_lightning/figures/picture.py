"""Common to all pictures: sizes of text, panels in a grid, legends and colour bars, files and pixels."""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from jaxtyping import UInt8
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colorbar import Colorbar
from matplotlib.figure import Figure

from nas_lightning.files import atomic_write

FORMATS = ("png", "svg", "pdf")
"""File formats of pictures, each the file's suffix."""
TITLE_POINTS = 9.0
LABEL_POINTS = 8.5
TICK_POINTS = 7.5
NOTE_POINTS = 7.0
RIGHT: Mapping[str, Any] = {"location": "right", "pad": 0.02}
"""Place of a colour bar."""
_CHARACTERS_PER_INCH = 12.5


def grid_of(count: int, columns: int | None, default: int = 4) -> tuple[int, int]:
    """Number of columns and rows of panels: up to ``default`` side by side where ``columns`` is None.

    Raises:
        ValueError: If there are no panels, or ``columns`` is not positive.
    """
    if count == 0:
        raise ValueError("there must be at least one panel to draw")
    if columns is not None and columns < 1:
        raise ValueError(f"`columns` (={columns}) must be at least 1")
    across = min(count, columns or default)
    return across, -(-count // across)


def new_figure(
    width: float, height: float, title: str = "", layout: Literal["constrained", "compressed"] = "constrained"
) -> Figure:
    """An empty figure of a width and a height (without the title) in inches.

    The layout ``"compressed"`` closes gaps between axes of fixed aspect.
    """
    figure = Figure(figsize=(width, height + 0.3 * bool(title)), layout=layout, facecolor="white")
    if title:
        figure.suptitle(title, fontsize=TITLE_POINTS + 1, parse_math=False)
    return figure


def label_axes(axes: Axes, title: str = "", x: str = "", y: str = "", width: float = math.inf) -> None:
    """Write a panel's title, wrapped to a width in inches, and the names of its axes."""
    axes.set_title("\n".join(wrap(title, width)), fontsize=TITLE_POINTS, parse_math=False)
    axes.set_xlabel(x, fontsize=LABEL_POINTS, parse_math=False)
    axes.set_ylabel(y, fontsize=LABEL_POINTS, parse_math=False)
    axes.tick_params(labelsize=TICK_POINTS)


def open_axes(axes: Axes, grid: Literal["", "x", "y", "both"] = "", hidden: str = "top right") -> None:
    """Hide sides of a panel's frame and draw the grid lines of an axis below its data."""
    if grid:
        axes.grid(axis=grid, color="#E6E6E6", linewidth=0.6)
        axes.set_axisbelow(True)
    axes.spines[hidden.split()].set_visible(False)


def add_legend(parent: Figure | Axes, entries: Mapping[str, Artist], **settings: Any) -> None:
    """Add a legend, below all panels unless the settings of matplotlib's legend say otherwise."""
    place: dict[str, Any] = {"loc": "outside lower center", "ncols": len(entries)}
    legend = parent.legend(
        list(entries.values()), list(entries), fontsize=TICK_POINTS, frameon=False, **(place | settings)
    )
    for text in legend.get_texts():
        text.set_parse_math(False)


def add_colour_bar(
    figure: Figure, colours: ScalarMappable, panels: Sequence[Axes], label: str, **settings: Any
) -> Colorbar:
    """Add the colour bar of some panels, with settings of matplotlib's colour bar."""
    bar = figure.colorbar(colours, ax=list(panels), **settings)
    bar.set_label(label, fontsize=LABEL_POINTS, parse_math=False)
    bar.ax.tick_params(labelsize=TICK_POINTS)
    return bar


def wrap(title: str, width: float) -> list[str]:
    """Lines, at least one, of a title that fits a width in inches; its own line breaks stay."""
    characters = int(min(width, 1000.0) * _CHARACTERS_PER_INCH)
    return [part for line in title.splitlines() for part in textwrap.wrap(line, characters)] or [""]


def settle(figure: Figure, *, planes: Sequence[Axes] = ()) -> Figure:
    """Lay a finished figure out and freeze the layout, which would move a little with every drawing.

    The figure's height shrinks to fit ``planes``, axes of fixed aspect.
    """
    layout = figure.get_layout_engine()
    if layout is None:
        return figure
    layout.execute(figure)
    if planes:
        boxes = [axes.get_tightbbox() for axes in planes]
        used = max(box.y1 for box in boxes if box) - min(box.y0 for box in boxes if box)
        around = [*figure.legends, *figure.texts]
        used += sum(artist.get_window_extent().height for artist in around)
        height = used / figure.dpi + 0.12 * (1 + len(around))
        if height < figure.get_figheight():
            figure.set_figheight(height)
            layout.execute(figure)
    figure.set_layout_engine("none")
    return figure


def picture_format(path: str | Path) -> str:
    """The format that a file's suffix names: ``"png"``, ``"svg"`` or ``"pdf"``.

    Raises:
        ValueError: If the suffix is another one.
    """
    suffix = Path(path).suffix.lower().removeprefix(".")
    if suffix not in FORMATS:
        raise ValueError(f"picture file {str(path)!r} must end in .png, .svg or .pdf")
    return suffix


def figure_to_bytes(figure: Figure, picture: str, dpi: float = 200) -> bytes:
    """Content of a picture file; the same figure gives the same bytes.

    Args:
        figure: The figure.
        picture: ``"png"``, ``"svg"`` or ``"pdf"``.
        dpi: Dots per inch of a PNG.
    """
    # Otherwise two files of one figure would differ in their dates and in the names inside them.
    undated = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(picture)
    content = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": "nas_lightning"}):
        figure.savefig(content, format=picture, dpi=dpi, metadata=undated)
    return content.getvalue()


def write_figure(figure: Figure, path: str | Path) -> None:
    """Write a picture file atomically, in the format that its suffix names.

    Raises:
        ValueError: If the suffix is not that of a picture.
        OSError: If the file cannot be written.
    """
    content = figure_to_bytes(figure, picture_format(path))
    with atomic_write(path, "wb") as file:
        file.write(content)


def figure_to_array(figure: Figure, dots_per_inch: float = 150) -> UInt8[np.ndarray, "height width 3"]:
    """Render a figure: red, green and blue from 0 to 255."""
    figure.set_dpi(dots_per_inch)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    pixels = np.asarray(canvas.buffer_rgba())  # type: ignore[no-untyped-call]
    return pixels[..., :3].copy()
