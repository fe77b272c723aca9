"""The paths of trainings over the loss in the plane of their first two principal components."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int, UInt8
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import AbstractPathEffect, withStroke

from nas_lightning.figures.facts import shared_note
from nas_lightning.figures.landscape import add_loss_bar, draw_contour
from nas_lightning.figures.picture import NOTE_POINTS, TICK_POINTS, figure_to_array, label_axes, settle
from nas_lightning.figures.surface import SurfacePanel, explain_marks, plane_figure, read_surface_panel
from nas_lightning.files import atomic_write

if TYPE_CHECKING:
    import xarray as xr

RANDOM_WALK = "of a random walk the two components explain 61 % and 15 %"
"""What every picture says: Antognini and Sohl-Dickstein (NeurIPS 2018)."""
FRAME_MILLISECONDS = 160
LAST_MILLISECONDS = 2000
_COLOURS = ("#D55E00", "#0072B2", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_LABELS = 6
_APART = 0.11  # of a panel: between two labels of epochs
_GIF_DOTS = 100.0
_GIF_COLOURS = 128


@dataclass(frozen=True, eq=False)
class TrajectoryPath:
    """The path of one training.

    Attributes:
        name: The run.
        coordinates: Its checkpoints in the plane, in their order.
        epochs: Epochs before each of them; NaN within an epoch.
        steps: Steps of the optimiser before each of them.
    """

    name: str
    coordinates: Float[np.ndarray, "checkpoint 2"]
    epochs: Float[np.ndarray, " checkpoint"]
    steps: Int[np.ndarray, " checkpoint"]


@dataclass(frozen=True, eq=False)
class TrajectoryPanel:
    """A plane with the paths in it.

    Attributes:
        surface: The loss, in nat; alpha and beta are coordinates along the two components.
        paths: The trainings, the first of which ends at (0, 0).
        explained: Shares of the two components in the variance of all checkpoints.
    """

    surface: SurfacePanel
    paths: Sequence[TrajectoryPath]
    explained: tuple[float, float]


def read_trajectory_panel(
    dataset: xr.Dataset,
    title: str = "",
    *,
    finest: Callable[[xr.Dataset, int], xr.Dataset | None] | None = None,
) -> TrajectoryPanel:
    """Read the paths and the surface of a file of the kind ``trajectory``.

    Args:
        dataset: The file's dataset.
        title: Title of the panel.
        finest: As for :func:`nas_lightning.figures.surface.read_surface_panel`.

    Raises:
        ValueError: If it is of another kind, or has no finished point.
    """
    needed = ("coordinate", "explained_variance", "checkpoint_run", "checkpoint_epochs", "checkpoint_step")
    for name in needed:
        if name not in dataset:
            raise ValueError(f"the file has no variable {name!r}: it holds no trajectory")
    surface = read_surface_panel(dataset, "loss", title, finest=finest).panel
    run = dataset["checkpoint_run"].values
    names = json.loads(str(dataset.attrs.get("run_names", "[]")))
    paths = [
        TrajectoryPath(
            str(names[number]) if number < len(names) else f"run {number}",
            dataset["coordinate"].values[run == number].astype(np.float64),
            dataset["checkpoint_epochs"].values[run == number].astype(np.float64),
            dataset["checkpoint_step"].values[run == number],
        )
        for number in np.unique(run).tolist()
    ]
    first, second = dataset["explained_variance"].values[:2].tolist()
    return TrajectoryPanel(surface, paths, (first, second))


def draw_trajectories(
    panels: Sequence[TrajectoryPanel], *, columns: int | None = None, title: str = ""
) -> Figure:
    """Draw the paths of trainings over the level lines of the loss.

    A circle is the first checkpoint, a cross the last, dots are those between; numbers are epochs of
    training. Coordinates are lengths in weight space, from the last weights of the first path. Level lines
    are those of :func:`~nas_lightning.figures.landscape.draw_loss_contours`.

    Args:
        panels: The planes; each has its own components, so that they cannot be compared point by point.
        columns: Panels side by side; up to four by default.
        title: Title of the whole figure.

    Raises:
        ValueError: If there is nothing to draw, or ``columns`` is not positive.
    """
    return _draw(panels, columns, title)[0]


def write_trajectory_animation(
    panel: TrajectoryPanel, path: str | Path, *, milliseconds: int = FRAME_MILLISECONDS
) -> None:
    """Write the picture as an animated GIF in which the paths grow, a frame a checkpoint, atomically.

    Paths of several runs grow together, by their steps of the optimiser. The same panel gives the same bytes.

    Args:
        panel: The plane.
        path: The file.
        milliseconds: Time of a frame; the last one stays for two seconds.

    Raises:
        OSError: If the file cannot be written.
    """
    from PIL import Image

    figure, [growing] = _draw([panel], None, "")
    moments = np.unique(np.concatenate([drawn.steps for drawn in panel.paths])).tolist()
    words = figure.axes[0].text(
        *(0.02, 0.98, ""), transform=figure.axes[0].transAxes, va="top", fontsize=TICK_POINTS, zorder=8
    )
    words.set_path_effects(_halo())
    frames = []
    for moment in moments:
        words.set_text(_moment(panel.paths, moment))
        for drawn, artists in zip(panel.paths, growing, strict=True):
            artists.grow(drawn, int((drawn.steps <= moment).sum()))
        frames.append(figure_to_array(figure, _GIF_DOTS))
    # One palette, that of the last frame, in which everything is drawn. Averaging makes white a light grey.
    last = Image.fromarray(frames[-1]).quantize(_GIF_COLOURS, dither=Image.Dither.NONE)
    palette = np.array(last.getpalette()).reshape(-1, 3)
    palette[palette.sum(axis=1).argmax()] = 255
    images = [Image.fromarray(_nearest(frame, palette)) for frame in frames]
    for image in images:
        image.putpalette(palette.flatten().tolist())
    content = io.BytesIO()
    durations = [milliseconds] * (len(images) - 1) + [LAST_MILLISECONDS]
    images[0].save(
        *(content, "GIF"), save_all=True, append_images=images[1:], duration=durations, loop=0, disposal=1
    )
    with atomic_write(path, "wb") as file:
        file.write(content.getvalue())


def _nearest(
    frame: UInt8[np.ndarray, "height width 3"], palette: Int[np.ndarray, "colours 3"]
) -> UInt8[np.ndarray, "height width"]:
    """Number of the nearest colour of a palette, for every pixel."""
    packed = frame.astype(np.int64) @ np.array([65536, 256, 1])
    found, places = np.unique(packed, return_inverse=True)
    colours = np.stack([found >> 16, (found >> 8) & 255, found & 255], axis=1)
    squares = ((colours[:, None] - palette[None]) ** 2).sum(axis=2)
    nearest: np.ndarray = squares.argmin(axis=1).astype(np.uint8)[places.reshape(packed.shape)]
    return nearest


@dataclass(frozen=True, eq=False)
class _Growing:
    """What is drawn of a path, and is drawn less of in the frames of an animation."""

    line: Line2D
    start: Line2D
    head: Line2D
    labels: Mapping[int, Artist]

    def grow(self, path: TrajectoryPath, count: int) -> None:
        """Show the first checkpoints only."""
        x, y = path.coordinates[:count].T
        self.line.set_data(x, y)
        self.head.set_data(x[-1:], y[-1:])
        self.head.set_visible(count > 1)
        self.start.set_visible(count > 0)
        for index, label in self.labels.items():
            label.set_visible(index < count)


def _draw(
    panels: Sequence[TrajectoryPanel], columns: int | None, title: str
) -> tuple[Figure, list[list[_Growing]]]:
    figure, planes = plane_figure([panel.surface for panel in panels], columns, title)
    growing = []
    unequal = False
    several = max(len(panel.paths) for panel in panels) > 1
    for axes, panel in zip(planes, panels, strict=True):
        draw_contour(axes, panel.surface, center=False)
        label_axes(axes, panel.surface.title, *_axis_names(panel.explained, short=len(panels) > 1))
        growing.append(
            [
                _draw_path(axes, path, _COLOURS[number % len(_COLOURS)])
                for number, path in enumerate(panel.paths)
            ]
        )
        unequal |= axes.get_aspect() == "auto"
    add_loss_bar(figure, planes)
    explain_marks(figure, _legend(panels, several=several))
    facts = shared_note([panel.surface.facts for panel in panels])
    notes = [facts, RANDOM_WALK, "numbers: epochs", "the axes have different scales" if unequal else ""]
    return settle(figure, planes=planes, note="; ".join(filter(None, notes))), growing


def _axis_names(explained: Sequence[float], *, short: bool) -> list[str]:
    """Names of the axes, with the components' shares of the variance."""
    shares = [f"{100 * share:.0f} %" for share in explained]
    form = "{} component ({})" if short else "{} component, {} of the variance"
    return [form.format(nth, share) for nth, share in zip(("first", "second"), shares, strict=True)]


def _draw_path(axes: Axes, path: TrajectoryPath, colour: str) -> _Growing:
    """A path with its start, its end, and epochs where there is room."""
    x, y = path.coordinates.T
    style: dict[str, Any] = {"color": colour, "path_effects": _halo()}
    [line] = axes.plot(x, y, "-o", linewidth=1.1, markersize=2.6, zorder=6, **style)
    ends: dict[str, Any] = {"color": colour, "linestyle": "", "zorder": 7}
    [start] = axes.plot(x[:1], y[:1], **_START, **ends)
    [head] = axes.plot(x[-1:], y[-1:], **_END, **ends)
    return _Growing(line, start, head, _label_epochs(axes, path, colour))


_START: Mapping[str, Any] = {
    "marker": "o",
    "markersize": 6.0,
    "markerfacecolor": "white",
    "markeredgewidth": 1.3,
}
_END: Mapping[str, Any] = {"marker": "X", "markersize": 6.5, "markeredgecolor": "white"}


def _halo() -> list[AbstractPathEffect]:
    """A white edge; each artist has its own, whose colour a dark page changes once."""
    return [withStroke(linewidth=2.4, foreground="white")]


def _label_epochs(axes: Axes, path: TrajectoryPath, colour: str) -> dict[int, Artist]:
    """Numbers of epochs beside some checkpoints: the ends first, then those between, none over another."""
    known = np.flatnonzero(np.isfinite(path.epochs))
    if not known.size:
        return {}
    wanted = known[np.unique(np.linspace(0, known.size - 1, _LABELS).round().astype(int))]
    order = list(dict.fromkeys([wanted[0], wanted[-1], *wanted]))
    kept: list[np.ndarray] = []
    labels: dict[int, Artist] = {}
    for index in map(int, order):
        place = axes.transAxes.inverted().transform(axes.transData.transform(path.coordinates[index]))
        if all(np.hypot(*(place - other)) > _APART for other in kept):
            kept.append(place)
            labels[index] = axes.annotate(
                f"{path.epochs[index]:g}",
                path.coordinates[index].tolist(),
                (4, 4),
                textcoords="offset points",
                fontsize=NOTE_POINTS,
                color=colour,
                path_effects=_halo(),
                zorder=8,
            )
    return labels


def _legend(panels: Sequence[TrajectoryPanel], *, several: bool) -> dict[str, Artist]:
    """What the marks of paths mean; the runs by name where a panel has several."""
    entries: dict[str, Artist] = {}
    if several:
        for panel in panels:
            for number, path in enumerate(panel.paths):
                colour = _COLOURS[number % len(_COLOURS)]
                entries.setdefault(path.name, Line2D([], [], color=colour, marker="o", markersize=2.6))
    colour = "#404040" if several else _COLOURS[0]
    ends: dict[str, Any] = {"color": colour, "linestyle": ""}
    return entries | {
        "first checkpoint": Line2D([], [], **_START, **ends),
        "last": Line2D([], [], **_END, **ends),
    }


def _moment(paths: Sequence[TrajectoryPath], step: int) -> str:
    """How far the trainings are in a frame."""
    epochs = [path.epochs[path.steps == step] for path in paths]
    found = np.concatenate(epochs)
    found = found[np.isfinite(found)]
    if not found.size or len(set(found.tolist())) > 1:
        return f"step {step}"
    return f"epoch {found[0]:g}"
