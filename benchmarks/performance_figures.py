"""Draws what ``benchmarks.scaling`` measured: cost against size, the roofline, where the time goes."""

from __future__ import annotations

import argparse
import itertools
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from benchmarks import record as records
from nas_lightning.acceleration.level import LEVELS
from nas_lightning.figures import figure_to_bytes, picture_format
from nas_lightning.figures.picture import LABEL_POINTS, NOTE_POINTS, TICK_POINTS, TITLE_POINTS, settle
from nas_lightning.files import atomic_write

DOCS = Path(__file__).parents[1] / "docs"
Record = Mapping[str, Any]

# Okabe and Ito's palette; the marker says the same where there is no colour.
LOOKS = {
    "reference": ("#000000", "o"),
    "fast": ("#0072B2", "s"),
    "compiled": ("#D55E00", "^"),
    "max": ("#009E73", "D"),
}
_KIND_COLOURS = {
    "fused separable blocks": "#332288",
    "convolution forward": "#0072B2",
    "convolution backward": "#56B4E9",
    "batch norm": "#E69F00",
    "pooling": "#009E73",
    "addition, ReLU, concatenation": "#F0E442",
    "fused by the compiler": "#D55E00",
    "optimiser": "#CC79A7",
    "other operations": "#7F7F7F",
    "between operations": "#D9D9D9",
}
_DASHES = {"training": (0.0, ()), "evaluation": (0.0, (4.0, 2.0))}
_GUIDE = "#B3B3B3"
_LIMIT = "#595959"
_QUANTITIES = {
    "channels": "channels",
    "cells": "cells",
    "batch": "images of the batch",
    "image_size": "side of the images (pixels)",
}
_UNITS = {"channels": "channels", "cells": "cells", "batch": "images", "image_size": "pixels"}


def draw_scaling(record: Record) -> Figure:
    """Draw seconds against each size that was varied, loss surfaces against points, and processes.

    A line is a level's medians, a bar its quartiles. A thin grey line is what a training step would take in
    proportion to its multiply-adds, from the base size, or a surface to its points; for processes, what they
    would reach if none waited for another.

    Args:
        record: What ``benchmarks.scaling`` keeps.

    Returns:
        The figure.
    """
    figure = Figure(figsize=(9.6, 5.9), layout="constrained", facecolor="white")
    measurements = record["measurements"]
    varied = [quantity for quantity in _QUANTITIES if any(one["varied"] == quantity for one in measurements)]
    shared: Axes | None = None
    for place, quantity in enumerate(varied):
        axes = figure.add_subplot(2, 3, place + 1, sharey=shared)
        shared = shared or axes
        _draw_sizes(axes, quantity, measurements)
        if place % 3 == 0:
            axes.set_ylabel("seconds per batch", fontsize=LABEL_POINTS)
    if record["grid_points"]:
        _draw_points(figure.add_subplot(2, 3, 5), record["grid_points"])
    if record["ranks"]["processes"]:
        _draw_ranks(figure.add_subplot(2, 3, 6), record["ranks"])
    handles = [_level_handle(level) for level in _levels(record)]
    handles += [Line2D([], [], color="black", linestyle=dashes, label=n) for n, dashes in _DASHES.items()]
    handles.append(Line2D([], [], color=_GUIDE, linewidth=1, label="in proportion to the work"))
    figure.legend(
        handles=handles,
        loc="outside lower center",
        ncols=len(handles),
        fontsize=TICK_POINTS,
        frameon=False,
    )
    figure.suptitle(_size_of(record, "Cost against size; one changes at a time from "), fontsize=TITLE_POINTS)
    return settle(figure)


def draw_roofline(record: Record) -> Figure:
    """Draw the training steps under the machine's roof, and their time by kind of operation.

    The roof is the smaller of the measured rate of matrix products and of the memory's bandwidth times the
    arithmetic intensity; the caches' bandwidth is drawn as well. Points of levels that are not compiled stand
    at the multiply-adds per byte of the operations one by one, those of compiled levels at that of the
    convolutions and matrix products alone, which is what is left to move if everything else is fused. A thin
    line joins the levels of one size; the fastest level's points are named.

    Args:
        record: What ``benchmarks.scaling`` keeps.

    Returns:
        The figure.
    """
    figure = Figure(figsize=(10.2, 5.0), layout="constrained", facecolor="white")
    left, right = figure.subplots(1, 2, width_ratios=(1.5, 1.0))
    _draw_roof(left, record)
    _draw_kinds(right, record["seconds_by_kind"])
    figure.suptitle(
        _size_of(record, "A training step under the machine's limits; base size "), fontsize=TITLE_POINTS
    )
    return settle(figure)


def _levels(record: Record) -> list[str]:
    return [name for name in LEVELS if any(one["level"] == name for one in record["measurements"])]


def _size_of(record: Record, beginning: str) -> str:
    base = next(one for one in record["measurements"] if one["varied"] is None)
    machine = record["machine"]
    where = machine["gpu"] or f"{machine['processor']}, threads: {machine['threads']}"
    size = ", ".join(f"{base[quantity]} {unit}" for quantity, unit in _UNITS.items())
    return f"{beginning}{size} ({where})"


def _level_handle(level: str) -> Line2D:
    colour, marker = LOOKS[level]
    return Line2D([], [], color=colour, marker=marker, markersize=4.5, linewidth=1.3, label=level)


def _draw_sizes(axes: Axes, quantity: str, measurements: Sequence[Record]) -> None:
    for kind, level in itertools.product(_DASHES, LOOKS):
        chosen = [one for one in measurements if (one["pass"], one["level"]) == (kind, level)]
        chosen = [one for one in chosen if one["varied"] in (None, quantity)]
        if not chosen:
            continue
        chosen.sort(key=lambda one: one[quantity])
        base = next(one for one in chosen if one["varied"] is None)
        x = [one[quantity] for one in chosen]
        each = base["seconds"]["median"] / base["multiply_adds"]
        if kind == "training":
            _draw_guide(axes, x, [each * one["multiply_adds"] for one in chosen])
        _draw_line(axes, x, [one["seconds"] for one in chosen], level, kind)
    values = sorted({one[quantity] for one in measurements if one["varied"] in (None, quantity)})
    _finish(axes, values, _QUANTITIES[quantity])


def _draw_points(axes: Axes, points: Sequence[Record]) -> None:
    for level in LOOKS:
        chosen = sorted((one for one in points if one["level"] == level), key=lambda one: int(one["points"]))
        if chosen:
            x = [one["points"] for one in chosen]
            each = chosen[0]["seconds"]["median"] / x[0]
            _draw_guide(axes, x, [each * number for number in x])
            _draw_line(axes, x, [one["seconds"] for one in chosen], level, "evaluation")
    _finish(axes, sorted({one["points"] for one in points}), "points of a loss surface, one batch each")
    axes.set_ylabel("seconds per surface", fontsize=LABEL_POINTS)


def _draw_ranks(axes: Axes, ranks: Record) -> None:
    colour, marker = LOOKS[ranks["level"]]
    rates = {int(number): one["images_per_second"] for number, one in ranks["processes"].items()}
    x, y = list(rates), list(rates.values())
    _draw_guide(axes, x, [y[0] / x[0] * number for number in x])
    axes.plot(x, y, color=colour, marker=marker, markersize=4.5, linewidth=1.3)
    _finish(axes, x, f"processes that average gradients ({ranks['backend']})")
    axes.set_yscale("linear")
    axes.set_ylim(bottom=0.0)
    axes.set_ylabel("images per second, training", fontsize=LABEL_POINTS)


def _draw_guide(axes: Axes, x: Sequence[float], y: Sequence[float]) -> None:
    axes.plot(x, y, color=_GUIDE, linewidth=1, zorder=1)


def _draw_line(axes: Axes, x: Sequence[float], seconds: Sequence[Record], level: str, kind: str) -> None:
    colour, marker = LOOKS[level]
    y = [one["median"] for one in seconds]
    below = [one["median"] - one["lower_quartile"] for one in seconds]
    above = [one["upper_quartile"] - one["median"] for one in seconds]
    look: dict[str, Any] = {"color": colour, "marker": marker, "linestyle": _DASHES[kind]}
    axes.errorbar(x, y, [below, above], markersize=4.5, linewidth=1.3, elinewidth=0.9, zorder=3, **look)


def _finish(axes: Axes, values: Sequence[int], label: str) -> None:
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(values, [str(value) for value in values])
    axes.set_xticks([], minor=True)
    axes.set_xlabel(label, fontsize=LABEL_POINTS)
    _tidy(axes)


def _tidy(axes: Axes) -> None:
    axes.tick_params(labelsize=TICK_POINTS)
    axes.grid(color="#E6E6E6", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_roof(axes: Axes, record: Record) -> None:
    steps = [one for one in record["measurements"] if one["pass"] == "training"]
    limits = record["limits"]
    rates = {name: rate / 1e9 for name, rate in limits["multiply_adds_per_second"].items()}
    dtypes = ["float32"] + ["bfloat16"] * any(LEVELS[one["level"]].mixed for one in steps)
    memory, caches = (limits["bytes_per_second"][place] / 1e9 for place in ("memory", "caches"))
    top = max(rates[dtype] for dtype in dtypes)
    places = [_place(one) for one in steps]
    low = min(x for x, _ in places) / 2.5
    high = max(*(x * 4 for x, _ in places), top / memory * 3)
    bottom = min(*(y for _, y in places), memory * low) / 2
    for dtype in dtypes:
        rate = rates[dtype]
        ridge = rate / memory
        axes.plot([low, ridge, high], [memory * low, rate, rate], color=_LIMIT, linewidth=1.6, zorder=1)
        _note(axes, f"matrix product in {dtype}: {rate:.3g} GMAC/s", (high, rate), (0, 3), ha="right")
    axes.plot([low, top / caches], [caches * low, top], color=_LIMIT, linewidth=1, linestyle=":", zorder=1)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlim(low, high)
    axes.set_ylim(bottom, top * 1.7)
    _draw_steps(axes, steps)
    axes.set_xlabel("arithmetic intensity (multiply-adds per byte)", fontsize=LABEL_POINTS)
    axes.set_ylabel("GMAC/s (1e9 multiply-adds per second)", fontsize=LABEL_POINTS)
    handles = [_level_handle(level) for level in _levels(record)]
    for level, handle in zip(_levels(record), handles, strict=True):
        handle.set(linestyle="", label=f"{level} (bytes of {_counted(level)})")
    handles.append(Line2D([], [], color=_LIMIT, linewidth=1.6, label=f"memory: {memory:.3g} GB/s"))
    handles.append(
        Line2D([], [], color=_LIMIT, linewidth=1, linestyle=":", label=f"caches: {caches:.3g} GB/s")
    )
    _add_legend(axes, handles)
    _tidy(axes)


def _draw_steps(axes: Axes, steps: Sequence[Record]) -> None:
    """A point for each step, a thin line through the levels of a size, and labels beside the points."""
    sizes: dict[str, list[Record]] = {}
    for one in steps:
        sizes.setdefault(_label(one), []).append(one)
    for chosen in sizes.values():
        axes.plot(*zip(*map(_place, chosen), strict=True), color=_GUIDE, linewidth=0.7, zorder=2)
    for one in steps:
        colour, marker = LOOKS[one["level"]]
        x, y = _place(one)
        axes.plot(
            x, y, marker, color=colour, markersize=5, markeredgecolor="white", markeredgewidth=0.4, zorder=3
        )
    # The lines lead from the fastest level's points, which are named, to the others'.
    level = [level for level in LOOKS if any(one["level"] == level for one in steps)][-1]
    _label_steps(axes, [one for one in steps if one["level"] == level])


def _label_steps(axes: Axes, steps: Sequence[Record]) -> None:
    """Names of sizes in a column at the right, as near to the height of their points as lets all be read."""
    low, high = (math.log(end) for end in axes.get_ylim())
    gap = 0.037 * (high - low)
    ordered = sorted(steps, key=lambda one: _place(one)[1])
    x = 1.6 * max(_place(one)[0] for one in ordered)
    wanted = [math.log(_place(one)[1]) for one in ordered]
    heights = list(itertools.accumulate(wanted, lambda below, height: max(height, below + gap)))
    shift = sum(a - b for a, b in zip(heights, wanted, strict=True)) / len(wanted)
    for one, height in zip(ordered, heights, strict=True):
        axes.annotate(
            _label(one),
            _place(one),
            xytext=(x, math.exp(height - shift)),
            va="center",
            fontsize=NOTE_POINTS,
            arrowprops={"arrowstyle": "-", "color": _GUIDE, "linewidth": 0.5, "shrinkA": 1, "shrinkB": 2},
        )


def _label(one: Record) -> str:
    varied = one["varied"]
    return f"{one[varied]} {_UNITS[varied]}" if varied else "base size"


def _place(one: Record) -> tuple[float, float]:
    """Arithmetic intensity, and GMAC/s."""
    moved = one["bytes_of_products" if LEVELS[one["level"]].compiled else "bytes"]
    return one["multiply_adds"] / moved, one["multiply_adds_per_second"] / 1e9


def _counted(level: str) -> str:
    return "convolutions alone" if LEVELS[level].compiled else "operations one by one"


def _add_legend(axes: Axes, handles: Sequence[Line2D | Patch]) -> None:
    axes.legend(
        handles=handles,
        loc="upper center",
        bbox_to_anchor=(0.5, -0.11),
        ncols=2,
        fontsize=TICK_POINTS,
        frameon=False,
    )


def _note(
    axes: Axes, text: str, place: tuple[float, float], offset: tuple[float, float], **look: Any
) -> None:
    axes.annotate(
        text, place, xytext=offset, textcoords="offset points", fontsize=NOTE_POINTS, color=_LIMIT, **look
    )


def _draw_kinds(axes: Axes, kinds: Mapping[str, Mapping[str, float]]) -> None:
    levels = [level for level in LOOKS if level in kinds]
    bottoms = [0.0] * len(levels)
    handles = []
    for kind, colour in _KIND_COLOURS.items():
        heights = [1e3 * kinds[level].get(kind, 0.0) for level in levels]
        if any(heights):
            axes.bar(
                levels, heights, 0.62, bottoms, color=colour, edgecolor="white", linewidth=0.5, label=kind
            )
            handles.append(Patch(color=colour, label=kind))
        bottoms = [bottom + height for bottom, height in zip(bottoms, heights, strict=True)]
    axes.set_ylabel("milliseconds of a step, under the profiler", fontsize=LABEL_POINTS)
    axes.set_xlim(-0.6, len(levels) - 0.4)
    _add_legend(axes, handles[::-1])
    _tidy(axes)
    axes.grid(visible=False, axis="x")


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw both pictures of a record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--record", type=Path, default=records.RESULTS / "scaling.json")
    parser.add_argument("--scaling", type=Path, default=DOCS / "performance_scaling.svg")
    parser.add_argument("--roofline", type=Path, default=DOCS / "performance_roofline.png")
    settings = parser.parse_args(arguments)
    record = json.loads(settings.record.read_text())
    for path, draw in ((settings.scaling, draw_scaling), (settings.roofline, draw_roofline)):
        with atomic_write(path, "wb") as file:
            file.write(figure_to_bytes(draw(record), picture_format(path)))
        print(f"written to {path}")


if __name__ == "__main__":
    main()
