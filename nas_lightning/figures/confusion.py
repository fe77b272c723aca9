"""Which classes a network takes for which others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int64
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize, PowerNorm
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from nas_lightning.figures.picture import (
    ON_COLOUR,
    TICK_POINTS,
    TITLE_POINTS,
    add_colour_bar,
    label_axes,
    new_figure,
    settle,
    text_width,
    wrap,
)
from nas_lightning.figures.variance import HEAT_COLOURS

MOST_NAMED = 50
"""Classes up to which each row and column has its name."""
_MOST_WRITTEN = 20
_NAME_WIDTH = 1.6
_TICKS = (0.0, 0.01, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0)
_NO_SAMPLES = "#D0D0D0"


def draw_confusion_matrix(
    counts: Int64[np.ndarray, "classes predicted"],
    names: Sequence[str] | None = None,
    *,
    title: str = "",
    note: str = "",
) -> Figure:
    """Draw a confusion matrix: each row is a true class, its colours the shares of the predicted ones.

    The colours follow the square root of the share, so that rare confusions show. Rows of classes without
    samples are grey. Up to 20 classes have their counts written, up to 11 the shares as well. More than
    ``MOST_NAMED`` classes go without names, from the one with most samples to the one with fewest.

    Args:
        counts: Samples of each true class (row) by predicted class (column).
        names: Names of the classes; their numbers by default.
        title: Title of the picture.
        note: Stands below the picture in small letters.

    Raises:
        ValueError: If there are no classes, or not as many names.
    """
    classes = len(counts)
    if not classes:
        raise ValueError("`counts` holds no class")
    if names is not None and len(names) != classes:
        raise ValueError(f"`names` (={names}) must be one for each of the {classes} classes")
    side = max(min(1.8 / min(classes, 2), 5.0 / classes), 0.13 if classes <= MOST_NAMED else 5.2 / classes)
    length = classes * side
    if classes > MOST_NAMED:
        order = np.argsort(-counts.sum(axis=1), kind="stable")
        counts = counts[np.ix_(order, order)]
    samples = counts.sum(axis=1)
    shares = np.where(samples[:, None] > 0, counts / np.maximum(samples, 1)[:, None], np.nan)

    figure = new_figure(length + 0.75, length)
    figure.set_layout_engine(None)
    width = figure.get_figwidth()
    axes = figure.add_axes((0, 0, length / width, 1), facecolor=_NO_SAMPLES)
    norm = PowerNorm(0.5, 0.0, 1.0)
    borders = np.arange(classes + 1) - 0.5
    axes.pcolormesh(borders, borders, np.ma.masked_invalid(shares), cmap=HEAT_COLOURS, norm=norm)
    axes.invert_yaxis()
    if classes <= MOST_NAMED:
        named = [str(number) for number in range(classes)] if names is None else list(names)
        _name_classes(axes, named, samples, side)
        ends = ["predicted class", "true class (samples)"]
    else:
        axes.set_xticks([])
        axes.set_yticks([])
        ends = [f"{kind} class, from most to fewest samples" for kind in ("predicted", "true")]
    if classes <= _MOST_WRITTEN:
        _write_counts(axes, counts, shares, norm, side)
    label_axes(axes, "\n".join(wrap(title, max(length, 3.0), TITLE_POINTS)), *ends)
    axes.tick_params(labelsize=_points(side), length=2)
    place = (1 - 0.55 / width, 0.0, 0.12 / width, 1.0)
    bar_axes = figure.add_axes(place, label="<colorbar>")
    colours = ScalarMappable(norm, HEAT_COLOURS)
    ticks = [tick for tick in _TICKS if length > 2.5 or tick in (0.0, 0.05, 0.2, 0.6, 1.0)]
    label = "share of the true class"
    add_colour_bar(figure, colours, [axes], label, cax=bar_axes, ticks=ticks, format=PercentFormatter(1.0, 0))
    bar_axes.minorticks_off()
    return settle(figure, note=note)


def _points(side: float) -> float:
    """Size of names beside cells of a side in inches."""
    return TICK_POINTS if side >= 0.16 else 6.0


def _name_classes(axes: Axes, names: Sequence[str], samples: Int64[np.ndarray, " _"], side: float) -> None:
    """Name the rows, with their samples, and the columns, on as many lines as a cell has room for."""
    points, length = _points(side), len(names) * side
    lines = max(1, int(side / (1.25 * points / 72)))
    ends = [f" ({count:,})" for count in samples.tolist()]
    rows = [_fitted(name, _NAME_WIDTH, points, lines, end) for name, end in zip(names, ends, strict=True)]
    columns = [_fitted(name, 0.95 * side, points, 1) for name in names]
    is_upright = columns != list(names)
    if is_upright:
        columns = [_fitted(name, _NAME_WIDTH, points, lines) for name in names]
    axes.set_xticks(range(len(names)), columns, rotation=90 if is_upright else 0, parse_math=False)
    axes.set_yticks(range(len(names)), rows, parse_math=False)
    # Widths of letters depend on the resolution: what lies beyond long names has a place of its own.
    axes.yaxis.set_label_coords(-(_width(rows, points) + 0.2) / length, 0.5)
    below = _width(columns, points) if is_upright else points / 72
    axes.xaxis.set_label_coords(0.5, -(below + 0.2) / length)


def _width(names: Sequence[str], points: float) -> float:
    """Width in inches of the widest name."""
    return max(text_width(line, points) for name in names for line in name.splitlines() or [""])


def _fitted(name: str, width: float, points: float, most: int, end: str = "") -> str:
    """A name on at most so many lines of a width in inches, cut with an ellipsis; ``end`` is never cut."""
    lines = wrap(f"{name}{end}", width, points)
    if len(lines) <= most:
        return "\n".join(lines)
    lines = wrap(name, width, points)[:most]
    while lines[-1] and text_width(f"{lines[-1]}…{end}", points) > width:
        lines[-1] = lines[-1][:-1]
    lines[-1] = f"{lines[-1].rstrip()}…{end}"
    return "\n".join(lines)


def _write_counts(
    axes: Axes,
    counts: Int64[np.ndarray, "classes predicted"],
    shares: Float[np.ndarray, "classes predicted"],
    norm: Normalize,
    side: float,
) -> None:
    """Write into each cell how many samples it has, and their share where there is room; nothing for 0."""
    with_shares = side >= 0.45
    widest = text_width(max((f"{count:,}" for count in counts.flat), key=len), 1.0)
    points = min(TICK_POINTS, 0.86 * side / widest)
    if points < 4.5:
        return
    for true, predicted in np.argwhere(counts > 0).tolist():
        share = float(shares[true, predicted])
        text = f"{counts[true, predicted]:,}"
        if with_shares:
            text = f"{_percent(share)}\n{text}"
        red, green, blue, _ = HEAT_COLOURS(float(norm(share)))
        is_light = 0.299 * red + 0.587 * green + 0.114 * blue > 0.5
        axes.text(
            predicted,
            true,
            text,
            ha="center",
            va="center",
            fontsize=points,
            color="black" if is_light else "white",
            gid=ON_COLOUR,
        )


def _percent(share: float) -> str:
    """A share in percent that is 0 or 100 only where it is so exactly."""
    rounded = round(100 * share)
    return "<1%" if rounded == 0 else ">99%" if rounded == 100 and share < 1 else f"{rounded}%"
