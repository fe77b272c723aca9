"""A surface over two directions as a panel: its values, its plane, and marks where it has no finite value.

Alpha runs along x and beta along y, as in figures 6 and 7 of the paper.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path
from matplotlib.patheffects import withStroke

from nas_lightning.figures.facts import file_facts
from nas_lightning.figures.picture import add_legend, grid_of, label_axes, new_figure, wrap

if TYPE_CHECKING:
    import xarray as xr

ALPHA = "\N{GREEK SMALL LETTER ALPHA}"
BETA = "\N{GREEK SMALL LETTER BETA}"
_MARKS: Mapping[str, tuple[str, str | None]] = {
    "NaN": ("#BDBDBD", "//////"),
    "infinite": ("#FFFFFF", "xxxxxx"),
    "not measured": ("#EDEDED", None),
}
"""Colour and hatch of points without a finite value."""


@dataclass(frozen=True, eq=False)
class SurfacePanel:
    """One surface to draw.

    Attributes:
        alphas: Steps along the first direction, increasing.
        betas: Steps along the second direction, increasing.
        values: Value at every point; NaN and infinity are drawn as such.
        title: Title of the panel.
        measured: Points that have a value; all by default. The others are drawn apart from NaN.
        facts: What the file says of data, images and epoch (:func:`nas_lightning.figures.facts.file_facts`);
            a picture's note has those in which its panels agree.

    Raises:
        ValueError: If an axis has fewer than two steps or does not increase.
    """

    alphas: Float[np.ndarray, " alpha"]
    betas: Float[np.ndarray, " beta"]
    values: Float[np.ndarray, "alpha beta"]
    title: str = ""
    measured: Bool[np.ndarray, "alpha beta"] | None = None
    facts: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, steps in (("alphas", self.alphas), ("betas", self.betas)):
            if len(steps) < 2 or not (np.isfinite(steps).all() and (np.diff(steps) > 0).all()):
                raise ValueError(
                    f"`{name}` must be two or more finite, increasing steps, not {steps.tolist()}"
                )

    @property
    def is_measured(self) -> Bool[np.ndarray, "alpha beta"]:
        """Points that have a value, NaN and infinity included."""
        return np.ones(self.values.shape, dtype=bool) if self.measured is None else self.measured

    @property
    def is_nan(self) -> Bool[np.ndarray, "alpha beta"]:
        """Measured points whose value is not a number."""
        return np.asarray(self.is_measured & np.isnan(self.values))

    @property
    def is_infinite(self) -> Bool[np.ndarray, "alpha beta"]:
        """Measured points whose value is infinite."""
        return np.asarray(self.is_measured & np.isinf(self.values))

    @property
    def finite(self) -> Float[np.ndarray, "alpha beta"]:
        """Values, with NaN in place of everything that is not a finite measurement."""
        return np.where(self.is_measured & np.isfinite(self.values), self.values, np.nan)


@dataclass(frozen=True, eq=False)
class ReadSurface:
    """A surface as it is drawn.

    Attributes:
        panel: The mean over the finished pairs of directions, or the measured points of one pair.
        pairs: Values of every finished pair; empty where none is finished.
        note: State of an unfinished surface; empty for a finished one.
    """

    panel: SurfacePanel
    pairs: Float[np.ndarray, "pair alpha beta"]
    note: str


def read_surface_panel(
    dataset: xr.Dataset,
    variable: str,
    title: str = "",
    *,
    direction_seed: int | None = None,
    finest: Callable[[xr.Dataset, int], xr.Dataset | None] | None = None,
) -> ReadSurface:
    """Read one variable of a surface: the mean over its finished pairs of directions.

    Where no pair is finished, or ``direction_seed`` names an unfinished one, its finest complete grid is
    read, and where it has none, the points that are done.

    Args:
        dataset: Variables and ``done`` over (direction_seed, alpha, beta).
        variable: Name of a variable, or ``"standard_deviation"``, the square root of ``"variance"``.
        title: Title of the panel; a line on the pairs of directions is added where there are several.
        direction_seed: The pair to read; all by default.
        finest: Gives the finest complete grid of a pair, or None, as
            `nas_lightning.analysis.surface.finest_lattice` does.

    Returns:
        The panel, the single pairs, and a note on an unfinished surface.

    Raises:
        ValueError: If the surface lacks the variable or the pair, or has no finished point.
    """
    dimensions = ("direction_seed", "alpha", "beta")
    if variable == "standard_deviation" and "variance" in dataset:
        with np.errstate(invalid="ignore"):  # NaN stays NaN
            dataset = dataset.assign(standard_deviation=np.sqrt(dataset["variance"]))
    for name in (variable, "done"):
        if name not in dataset or set(dataset[name].dims) != set(dimensions):
            raise ValueError(f"the surface has no variable {name!r} over pairs of directions")
    seeds = dataset["direction_seed"].values.tolist()
    if direction_seed is not None and direction_seed not in seeds:
        raise ValueError(f"`direction_seed` (={direction_seed}) must be one of {', '.join(map(str, seeds))}")
    done = dataset["done"].transpose(*dimensions).values.astype(bool)
    values = dataset[variable].transpose(*dimensions).values.astype(np.float64)
    pages = range(len(seeds)) if direction_seed is None else [seeds.index(direction_seed)]
    finished = [page for page in pages if done[page].all()]
    missing = "" if done[list(pages)].all() else f"unfinished: {int(done.sum())} of {done.size} points"
    steps = [dataset[name].values.astype(np.float64) for name in ("alpha", "beta")]
    facts = file_facts(dataset)
    if finished:
        if direction_seed is not None:
            title += f"\npair of directions {direction_seed}"
        elif len(seeds) > 1:
            some = f"{len(finished)} of {len(seeds)}" if len(finished) < len(seeds) else str(len(seeds))
            title += f"\nmean of {some} pairs of directions"
        with np.errstate(invalid="ignore"):  # infinity less infinity is NaN, and drawn as such
            mean = values[finished].mean(axis=0)
        panel = SurfacePanel(steps[0], steps[1], mean, title, facts=facts)
        return ReadSurface(panel, values[finished], missing)

    page = max(pages, key=lambda index: int(done[index].sum()))
    if not done[page].any():
        pair = "" if direction_seed is None else f" for `direction_seed` (={direction_seed})"
        raise ValueError(f"the surface has no finished point yet{pair}")
    title += f"\n{int(done[page].sum())} of {done[page].size} points"
    title += f", pair of directions {seeds[page]}" if len(seeds) > 1 else ""
    grid = None if finest is None else finest(dataset, seeds[page])
    if grid is None:
        panel = SurfacePanel(steps[0], steps[1], values[page], title, done[page], facts)
        return ReadSurface(panel, values[:0], f"{missing}; those are drawn")
    shown = grid[variable].transpose("alpha", "beta").values.astype(np.float64)
    panel = SurfacePanel(grid["alpha"].values, grid["beta"].values, shown, title, facts=facts)
    return ReadSurface(
        panel, values[:0], f"{missing}; drawn on {len(panel.alphas)} x {len(panel.betas)} of them"
    )


def plane_figure(
    panels: Sequence[SurfacePanel], columns: int | None, title: str
) -> tuple[Figure, list[Axes]]:
    """An empty figure with a plane for every panel; edge panels carry the names of the axes.

    Raises:
        ValueError: If there are no panels, or ``columns`` is not positive.
    """
    across, down = grid_of(len(panels), columns)
    side = {1: 3.6, 2: 2.9}.get(across, 2.4)
    lines = max(len(wrap(panel.title, side)) for panel in panels)
    height = down * (side + 0.35 + 0.17 * lines) + 0.65
    figure = new_figure(across * (side + 0.35) + 1.3, height, title, layout="compressed")
    planes = []
    for index, panel in enumerate(panels):
        axes = figure.add_subplot(down, across, index + 1)
        name_plane(axes, panel.title)
        if index + across < len(panels):
            axes.set_xlabel("")
        if index % across:
            axes.set_ylabel("")
        planes.append(axes)
    return figure, planes


def name_plane(axes: Axes, title: str) -> None:
    """Write the title and the names of the steps."""
    label_axes(axes, title, ALPHA, BETA)
    axes.locator_params(nbins=5)


def set_plane(axes: Axes, horizontal: tuple[float, float], vertical: tuple[float, float]) -> None:
    """Set the limits of alpha and beta, at equal scale unless the plane would become a strip."""
    axes.set_xlim(*horizontal)
    axes.set_ylim(*vertical)
    ratio = (vertical[1] - vertical[0]) / (horizontal[1] - horizontal[0])
    if 1 / 3 <= ratio <= 3:
        axes.set_aspect("equal")
    else:
        axes.set_box_aspect(1)


def mark_center(axes: Axes) -> None:
    """Mark (0, 0), the trained weights, if it lies within the plane."""
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    if left <= 0 <= right and bottom <= 0 <= top:
        outline = [withStroke(linewidth=2.6, foreground="white")]
        axes.plot(0, 0, "+", color="black", markersize=7, markeredgewidth=1.2, path_effects=outline, zorder=5)


def mark_values(axes: Axes, panel: SurfacePanel, *, infinite: bool) -> None:
    """Fill the grid cells of points without a value, NaN, and on demand infinite ones."""
    x, y = cell_borders(panel.alphas), cell_borders(panel.betas)
    marked = {"not measured": ~panel.is_measured, "NaN": panel.is_nan}
    marked |= {"infinite": panel.is_infinite} if infinite else {}
    for label, chosen in marked.items():
        if not chosen.any():
            continue
        i, j = np.nonzero(chosen)
        corners = [(x[i], y[j]), (x[i + 1], y[j]), (x[i + 1], y[j + 1]), (x[i], y[j + 1])]
        # One path for all cells, so that no seams show between them.
        path = Path.make_compound_path_from_polys(np.transpose(corners, (2, 0, 1)))
        colour, hatch = _MARKS[label]
        style = {"facecolor": colour, "edgecolor": "#4D4D4D", "linewidth": 0, "hatch": hatch, "zorder": 1.5}
        axes.add_patch(PathPatch(path, label=label, **style))


def explain_marks(figure: Figure, lines: Mapping[str, Artist] | None = None) -> None:
    """Explain ``lines`` and the marks that occur, once for all panels."""
    marks: dict[str, Artist] = {
        str(patch.get_label()): patch for axes in figure.axes for patch in axes.patches
    }
    entries = dict(lines or {}) | {name: marks[name] for name in _MARKS if name in marks}
    if entries:
        add_legend(figure, entries, handlelength=1.6, handleheight=1.2)


def cell_borders(steps: Float[np.ndarray, " steps"]) -> Float[np.ndarray, " borders"]:
    """Borders of the cells around steps: half way between neighbours, and as far outside at the ends.

    Examples:
        >>> cell_borders(np.array([0.0, 1.0, 3.0])).tolist()
        [-0.5, 0.5, 2.0, 4.0]
    """
    middles = (steps[:-1] + steps[1:]) / 2
    return np.concatenate([[2 * steps[0] - middles[0]], middles, [2 * steps[-1] - middles[-1]]])
