"""What the page draws live, as plain data: numbers JSON can hold, common scales, colours, places of marks.

A picture's ``interactive`` is one of four forms, named by ``kind``:

==========  ============================================================================================
curves      ``panels``: ``title``, ``y_label``, ``log``, ``series``; a series has ``name``, ``family``,
            ``variant``, ``width``, ``depth``, the lists ``x``, ``mean``, ``low``, ``high``, and optional
            ``label``: what the legend says instead of the name
surfaces    ``label``; ``surfaces``: ``name``, ``alpha``, ``beta``, ``z[alpha][beta]``; optional ``view``,
            ``"map"`` for what is first seen from above, ``scale`` (linear, log or auto) and its ``limits``
plane       ``spaces``: ``title``, ``cells`` (``width``, ``depth``, ``count``), ``marks`` (``name``,
            ``width``, ``depth``, ``values`` by measure, optional ``original``: a diamond); ``measures``:
            label by measure
accuracy    ``y_label``; ``panels``: ``title``, ``marks`` (``index``, ``name``, ``mean``, ``low``, ``high``),
            in percent
==========  ============================================================================================

``page.js`` draws what :func:`live_data` returns; names stay as they are, the page escapes them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from matplotlib.colors import LogNorm, to_hex

from nas_lightning.figures.curves import architecture_colours
from nas_lightning.figures.scale import colour_scale
from nas_lightning.figures.width_depth import fan_out

DIGITS = 5
"""Significant digits of the numbers in the page."""


def live_data(interactive: Mapping[str, Any]) -> dict[str, Any]:
    """What the page needs to draw a picture live.

    Args:
        interactive: One of the four forms.

    Returns:
        Plain dictionaries, lists, strings and numbers of :data:`DIGITS` digits, None for NaN and infinity:
        curves gain a ``legend`` (one entry an architecture, with its colour; series refer to it by index),
        surfaces a common scale (``log``, ``low``, ``high``), measures of a plane their ``low`` and ``high``,
        marks at one place a place each (``x``, ``y``).

    Raises:
        ValueError: If the kind is unknown.
    """
    kind = interactive.get("kind")
    if kind == "curves":
        live = _curves(interactive)
    elif kind == "surfaces":
        live = _surfaces(interactive)
    elif kind == "plane":
        live = _plane(interactive)
    elif kind == "accuracy":
        live = {"y_label": interactive["y_label"], "panels": interactive["panels"]}
    else:
        raise ValueError(
            f"`kind` (={kind!r}) of an interactive picture must be curves, surfaces, plane or accuracy"
        )
    return {"kind": kind, **_plain(live)}


def json_for_html(value: Any) -> str:
    r"""JSON that may stand inside a ``<script>`` element whatever its strings hold.

    Args:
        value: Plain data without NaN and infinity.

    Returns:
        ASCII without ``<``, ``>`` and ``&``.

    Raises:
        ValueError: If a number is not finite.

    Examples:
        >>> json_for_html({"name": "</script>"})
        '{"name":"\\u003c/script\\u003e"}'
    """
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def _curves(interactive: Mapping[str, Any]) -> dict[str, Any]:
    entries: dict[str, dict[str, Any]] = {}
    panels = []
    for panel in interactive["panels"]:
        drawn = []
        for series in panel["series"]:
            name = series["name"]
            entries.setdefault(
                name,
                {
                    "name": series.get("label", name),
                    "width": series["width"],
                    "depth": series["depth"],
                    "original": series["variant"] == "original",
                },
            )
            curve: dict[str, Any] = {"entry": list(entries).index(name), "x": series["x"]}
            curve["mean"] = series["mean"]
            # With one seed there is no range to draw or to say.
            if not _same(series["low"], series["high"]):
                curve |= {"low": series["low"], "high": series["high"]}
            drawn.append(curve)
        panels.append(
            {"title": panel["title"], "y_label": panel["y_label"], "log": panel["log"], "series": drawn}
        )
    legend = list(entries.values())
    colours = architecture_colours(list(entries), [entry["width"] for entry in legend])
    for name, entry in entries.items():
        entry["colour"] = to_hex(colours[name])
    return {"panels": panels, "legend": legend}


def _surfaces(interactive: Mapping[str, Any]) -> dict[str, Any]:
    surfaces = interactive["surfaces"]
    low, high = interactive.get("limits", (None, None))
    values = [np.array(surface["z"], dtype=np.float64) for surface in surfaces]
    norm = colour_scale(values, interactive.get("scale", "auto"), low, high)
    scale = {"log": isinstance(norm, LogNorm), "low": norm.vmin, "high": norm.vmax}
    view = interactive.get("view", "surface")
    return {"label": interactive["label"], "view": view, **scale, "surfaces": surfaces}


def _plane(interactive: Mapping[str, Any]) -> dict[str, Any]:
    spaces = []
    for space in interactive["spaces"]:
        # As in the still picture.
        places, _ = fan_out(
            [mark["width"] for mark in space["marks"]], [mark["depth"] for mark in space["marks"]]
        )
        marks = [{**mark, "x": x, "y": y} for mark, (x, y) in zip(space["marks"], places, strict=True)]
        spaces.append({"title": space["title"], "cells": space["cells"], "marks": marks})
    marks = [mark for space in spaces for mark in space["marks"]]
    measures = []
    for key, label in interactive["measures"].items():
        values = [mark["values"].get(key) for mark in marks]
        finite = [value for value in values if value is not None and math.isfinite(value)]
        if finite:
            measures.append({"key": key, "label": label, "low": min(finite), "high": max(finite)})
    return {"spaces": spaces, "measures": measures}


def _same(low: Iterable[Any], high: Iterable[Any]) -> bool:
    """Whether a range has no extent anywhere."""
    return all(one == other or one != one or other != other for one, other in zip(low, high, strict=True))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, np.generic):
        return _plain(value.item())
    return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
