"""Common to all pictures: sizes of text, panels in a grid, legends and colour bars, files and pixels."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from jaxtyping import Float, UInt8
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colorbar import Colorbar
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont
from matplotlib.ft2font import FT2Font, LoadFlags
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from nas_lightning.files import atomic_write

FORMATS = ("png", "svg", "pdf")
"""File formats of pictures, each the file's suffix."""
TITLE_POINTS = 9.0
LABEL_POINTS = 8.5
TICK_POINTS = 7.5
NOTE_POINTS = 7.0
RIGHT: Mapping[str, Any] = {"location": "right", "pad": 0.02}
"""Place of a colour bar."""
QUIET_COLOUR = "#595959"
"""Colour of notes."""
ON_COLOUR = "on a colour"
"""Identifier of a text on a coloured area: its colour suits that of the area, on every page."""
_SIZE = 100.0
_EDGE = 0.08
"""Inches between a text and the edge of its picture: widths of letters are whole dots, at each resolution."""


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


def label_axes(axes: Axes, title: str = "", x: str = "", y: str = "") -> None:
    """Write a panel's title and the names of its axes; :func:`settle` wraps them."""
    axes.set_title(title, fontsize=TITLE_POINTS, parse_math=False)
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
    figure = parent.get_figure(root=True)
    assert figure is not None
    length = max(1.0, float(figure.get_figwidth()) - 0.8)
    names = ["\n".join(wrap(name, length, TICK_POINTS)) for name in entries]
    legend = parent.legend(
        list(entries.values()), names, fontsize=TICK_POINTS, frameon=False, **(place | settings)
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


def wrap(text: str, width: float, points: float = TITLE_POINTS) -> list[str]:
    """Lines, at least one, of a text that fit a width in inches; its own line breaks stay.

    Lines end at spaces, and inside words that are too long at the signs of paths and specs, or anywhere.
    """
    return [part for line in text.splitlines() for part in _wrap_line(line, width, points)] or [""]


def _wrap_line(line: str, width: float, points: float) -> list[str]:
    lines = [""]
    for word in re.findall(r"\s*\S+", line):
        if text_width(lines[-1] + word, points) <= width:
            lines[-1] += word
            continue
        word = word.lstrip()
        if lines[-1]:
            lines.append("")
        for piece in re.findall(r"[^/_:=,;()-]*[/_:=,;()-]+|[^/_:=,;()-]+", word):
            if text_width(lines[-1] + piece, points) <= width:
                lines[-1] += piece
                continue
            if lines[-1]:
                lines.append("")
            for sign in piece:
                if lines[-1] and text_width(lines[-1] + sign, points) > width:
                    lines.append("")
                lines[-1] += sign
    return [part for part in lines if part]


def text_width(text: str, points: float) -> float:
    """Width of a text in inches, without kerning."""
    return sum(map(_advance, text)) * points / 72


@cache
def _advance(sign: str) -> float:
    """Width of a sign in the font of pictures, in units of the font's size."""
    font, code = _font(), ord(sign)
    # A sign that the font does not have is drawn as a box, about as wide as an M.
    known = code if font.get_char_index(code) else ord("M")
    glyph = font.load_char(known, flags=LoadFlags.NO_HINTING)
    return float(glyph.linearHoriAdvance) / 65536 / _SIZE


@cache
def _font() -> FT2Font:
    font = FT2Font(findfont("DejaVu Sans"))
    font.set_size(_SIZE, 72)
    return font


def settle(figure: Figure, *, planes: Sequence[Axes] = (), note: str = "") -> Figure:
    """Lay a finished figure out, freeze the layout, and make the canvas so large that no text is cut.

    Titles and names of axes that are longer than their axes are wrapped. The figure's height shrinks to fit
    ``planes``, axes of fixed aspect. The note stands below everything, in small grey letters.
    """
    layout = figure.get_layout_engine()
    if layout is not None:
        layout.execute(figure)
        texts: dict[Text, str] = {}
        sizes = _sizes(figure)
        for _ in range(3):  # what becomes higher makes other things narrower
            if not _wrap_names(figure, texts):
                break
            layout.execute(figure)
            # The panels keep their sizes.
            lost = np.maximum(sizes - _sizes(figure), 0.0) / figure.dpi
            if lost.max() > _EDGE:
                across, down = _panels(figure)
                figure.set_size_inches(figure.get_size_inches() + lost * [across, down])
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
    _fit_texts(figure)
    if note:
        lines = wrap(note, figure.get_figwidth() - 0.3, NOTE_POINTS)
        _extend(figure, bottom=0.05 + 0.14 * len(lines))
        x, y = 0.12 / figure.get_figwidth(), 0.06 / figure.get_figheight()
        style: dict[str, Any] = {"fontsize": NOTE_POINTS, "color": QUIET_COLOUR, "va": "bottom"}
        figure.text(x, y, "\n".join(lines), parse_math=False, **style)
    return figure


def _panels(figure: Figure) -> tuple[int, int]:
    """How many panels stand side by side and below one another."""
    places = [axes.get_subplotspec() for axes in figure.axes if axes.get_label() != "<colorbar>"]
    grids = [place.get_gridspec() for place in places if place is not None]
    return max((grid.ncols for grid in grids), default=1), max((grid.nrows for grid in grids), default=1)


def _sizes(figure: Figure) -> Float[np.ndarray, "2"]:
    """Width and height of the smallest panel in pixels."""
    boxes = [axes.get_window_extent() for axes in figure.axes if axes.get_label() != "<colorbar>"]
    return np.array([min(box.width for box in boxes), min(box.height for box in boxes)])


def _wrap_names(figure: Figure, originals: dict[Text, str]) -> bool:
    """Wrap titles and names of axes, as they were at first, to their axes' lengths; whether one changed."""
    wrapped = False
    title = figure._suptitle  # type: ignore[attr-defined]
    names = [] if title is None else [(title, figure.get_figwidth() - 0.2)]
    for axes in figure.axes:
        box = axes.get_window_extent()
        names.append((axes.title, box.width / figure.dpi))
        if axes.name != "3d":
            names.append((axes.xaxis.label, box.width / figure.dpi))
            names.append((axes.yaxis.label, box.height / figure.dpi))
    for text, length in names:
        points = float(text.get_fontsize())
        original = originals.setdefault(text, text.get_text())
        lines = "\n".join(wrap(original, max(length, 0.5), points))
        if lines != text.get_text() and not text.get_parse_math():
            text.set_text(lines)
            wrapped = True
    return wrapped


def _fit_texts(figure: Figure) -> None:
    """Make room at the sides where a text reaches beyond the canvas."""
    figure.draw_without_rendering()
    boxes = list(_text_boxes(figure))
    if not boxes:
        return
    box = Bbox.union(boxes)
    inches = np.array([-box.x0, -box.y0, box.x1 - figure.bbox.width, box.y1 - figure.bbox.height])
    left, bottom, right, top = (max(0.0, side / figure.dpi + _EDGE) for side in inches.tolist())
    if max(left, bottom, right, top) > 0:
        _extend(figure, left=left, bottom=bottom, right=right, top=top)


def _text_boxes(figure: Figure) -> Iterator[Bbox]:
    """Boxes of everything that is written: names, ticks, titles, notes, legends."""
    texts: list[Artist] = [*figure.texts, *figure.legends]
    for axes in figure.axes:
        texts += [axes.title, *axes.texts]
        legend = axes.get_legend()
        texts += [] if legend is None else [legend]
        if axes.axison:
            texts += axes._axis_map.values()
    for artist in texts:
        empty = isinstance(artist, Text) and not artist.get_text()
        box = None if empty or not artist.get_visible() else artist.get_tightbbox()
        if box is not None and np.isfinite(box.extents).all() and (box.width or box.height):
            yield box


def _extend(
    figure: Figure, *, left: float = 0.0, bottom: float = 0.0, right: float = 0.0, top: float = 0.0
) -> None:
    """Enlarge the canvas by inches at its sides; everything keeps its size and its place."""
    width, height = figure.get_size_inches().tolist()
    new_width, new_height = width + left + right, height + bottom + top

    def moved(x: float, y: float) -> tuple[float, float]:
        return (x * width + left) / new_width, (y * height + bottom) / new_height

    places = [axes.get_position(original=True) for axes in figure.axes]
    figure.set_size_inches(new_width, new_height)
    for axes, place in zip(figure.axes, places, strict=True):
        axes.set_position(
            Bbox([moved(float(place.x0), float(place.y0)), moved(float(place.x1), float(place.y1))])
        )
    for text in figure.texts:
        x, y = text.get_position()
        text.set_position(moved(float(x), float(y)))
    inside = Bbox([moved(0.0, 0.0), moved(1.0, 1.0)])
    for legend in figure.legends:
        legend.set_bbox_to_anchor(inside, transform=figure.transFigure)


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
