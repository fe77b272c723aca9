"""A figure for dark pages: paper becomes dark, ink becomes light, colours become a little lighter."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from matplotlib.artist import Artist
from matplotlib.collections import Collection, QuadMesh
from matplotlib.colors import Colormap, ListedColormap, to_rgba, to_rgba_array
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.text import Text
from mpl_toolkits.mplot3d.art3d import Poly3DCollection  # type: ignore[import-untyped]
from mpl_toolkits.mplot3d.axis3d import Axis as Axis3D  # type: ignore[import-untyped]

from nas_lightning.figures.picture import ON_COLOUR

PAPER, INK = "#181d24", "#e6edf3"
"""What stands for white and for black."""
_GREY = 0.06
"""Largest difference between the channels of a grey."""
_WHITE_SHARE = 0.3
_LINE = ("color", "markerfacecolor", "markeredgecolor")
_AREA = ("facecolor", "edgecolor")

Rgba: TypeAlias = tuple[float, float, float, float]


def dark_copy(figure: Figure) -> Figure:
    """A copy of a finished figure for a dark page.

    Greys are turned around between :data:`PAPER` and :data:`INK`. Every other colour, colour maps included,
    is mixed with white in the same share, so that the order of lightness stays and legends and colour bars
    stay right. Figures of coloured areas (heat maps, surfaces) keep their colours.
    """
    copy: Figure = pickle.loads(pickle.dumps(figure))
    areas = (
        isinstance(artist, Poly3DCollection | QuadMesh)
        for axes in copy.axes
        if axes.get_label() != "<colorbar>"
        for artist in axes.collections
    )
    share = 0.0 if any(areas) else _WHITE_SHARE
    found = list(dict.fromkeys(copy.findobj()))
    # Texts first: a contour's labels follow its colour map.
    for artist in sorted(found, key=lambda artist: not isinstance(artist, Text)):
        _recolour(artist, share)
    for axes in copy.axes:
        for axis in axes._axis_map.values():
            if isinstance(axis, Axis3D):
                axis.set_pane_color(to_rgba(PAPER))
                axis.line.set_color(INK)
                axis._axinfo["grid"]["color"] = to_rgba("#4a525c")
    return copy


def on_dark(colour: Any, white: float = _WHITE_SHARE) -> Rgba:
    """The colour that stands for one on white paper, mixed with a share of white; its opacity stays."""
    *channels, opacity = to_rgba(colour)
    light = np.array(channels)
    if np.ptp(light) <= _GREY:
        paper, ink = np.array(to_rgba(PAPER)[:3]), np.array(to_rgba(INK)[:3])
        mixed = ink + (paper - ink) * light.mean()
    else:
        mixed = light + (1 - light) * white
    red, green, blue = mixed.tolist()
    return red, green, blue, opacity


def _recolour(artist: Artist, white: float) -> None:
    if artist.get_gid() == ON_COLOUR:
        return
    for effect in artist.get_path_effects() or ():
        if "foreground" in (settings := getattr(effect, "_gc", {})):
            settings["foreground"] = on_dark(settings["foreground"], white)
    if isinstance(artist, Text):
        artist.set_color(on_dark(artist.get_color(), white))
        if (box := artist.get_bbox_patch()) is not None:
            _change(box, _AREA, white)
    elif isinstance(artist, Line2D):
        _change(artist, _LINE, white)
    elif isinstance(artist, Patch):
        _change(artist, _AREA, white)
    elif isinstance(artist, Poly3DCollection):
        pass  # its edges are translucent
    elif isinstance(artist, Collection):
        if artist.get_array() is not None:
            artist.set_cmap(_dark_map(artist.get_cmap(), white))
        else:
            _change(artist, _AREA, white)


def _change(artist: Artist, channels: Sequence[str], white: float) -> None:
    """Change some colours of an artist, all of which are read first: some follow others."""
    before = {channel: getattr(artist, f"get_{channel}")() for channel in channels}
    for channel, colour in before.items():
        colours = to_rgba_array(colour)
        if (colours[:, 3] > 0).any():  # what is not painted is left so
            after = [on_dark(one, white) for one in colours]
            getattr(artist, f"set_{channel}")(after if isinstance(artist, Collection) else after[0])


def _dark_map(colours: Colormap, white: float) -> ListedColormap:
    return ListedColormap([on_dark(colour, white) for colour in colours(np.linspace(0, 1, 256))], name="dark")
