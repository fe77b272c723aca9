"""`nas-lightning plot`: pictures of surface files, side by side under one scale.

Starts quickly where it can: nothing here imports matplotlib or xarray before the arguments are read.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nas_lightning.cli.argument_parser import ArgumentParser

if TYPE_CHECKING:
    from matplotlib.figure import Figure

VIEWS = {
    "contour": "level lines of the loss",
    "heat": "heat map",
    "surface": "surface in three dimensions",
    "spread": "mean over the pairs of directions, and its profiles with error bars",
    "nodes": "share of every node in the gradient variance at the trained weights",
}
"""What can be drawn."""


def main(arguments: Sequence[str]) -> None:
    """Run ``nas-lightning plot``.

    Args:
        arguments: Arguments; a leading ``plot`` is skipped.

    Raises:
        ValueError: If an argument or a file is not valid.
        OSError: If a file cannot be read or written.
    """
    given = list(arguments)
    if given[:1] == ["plot"]:
        given = given[1:]
    options = _parser().parse_args(given or ["--help"])
    from nas_lightning.figures.picture import figure_to_bytes, picture_format
    from nas_lightning.files import atomic_write

    output = Path(options.output or Path(options.files[0]).with_suffix(".png"))
    picture = picture_format(output)
    content = figure_to_bytes(_draw(options), picture)
    with atomic_write(output, "wb") as file:
        file.write(content)
    print(output)


def _parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(
        prog="nas-lightning plot",
        description="Draw loss contours and gradient-variance surfaces side by side under one scale.",
        epilog="views: " + "; ".join(f"{name}: {text}" for name, text in VIEWS.items()),
        allow_abbrev=False,
    )
    parser.add_argument("files", metavar="FILE", nargs="+", help="surface files (.nc) of one kind")
    parser.add_argument(
        "-o", "--output", metavar="FILE", help="FILE.png, .svg or .pdf (beside the first file, .png)"
    )
    parser.add_argument(
        "--view", choices=tuple(VIEWS), help="what to draw (contour for losses, heat for gradient variance)"
    )
    parser.add_argument(
        "--variable",
        help="loss, accuracy; standard_deviation, variance, mean_gradient_norm, standard_error (the first)",
    )
    parser.add_argument(
        "--direction_seed", type=int, metavar="S", help="draw this pair of directions (the mean over all)"
    )
    parser.add_argument(
        "--scale",
        choices=("auto", "linear", "log"),
        default="auto",
        help="of colours and heights (auto: log where values span orders of magnitude)",
    )
    parser.add_argument("--vmin", type=float, help="lower end of the scale (the smallest value)")
    parser.add_argument("--vmax", type=float, help="upper end of the scale (the largest value)")
    parser.add_argument("--columns", type=int, help="panels side by side (up to 4)")
    parser.add_argument("--title", default="", help="title of the whole picture")
    return parser


def _draw(options: argparse.Namespace) -> Figure:
    from nas_lightning.cli import figures_files as files
    from nas_lightning.figures import landscape, panels, spread, surface3d, variance

    if options.columns is not None and options.columns < 1:
        raise ValueError(f"`columns` (={options.columns}) must be at least 1")
    paths = [Path(name) for name in options.files]
    datasets = files.read_same_kind(paths)
    kind = datasets[0].attrs["kind"]
    view = options.view or ("contour" if kind == "loss_contour" else "heat")
    _check_view(options, view, kind)
    names = files.titles(paths, datasets)
    if view == "nodes":
        splits = [files.variance_split(*given) for given in zip(paths, datasets, names, strict=True)]
        return variance.draw_variance_by_node(splits, columns=options.columns, title=options.title)
    variable = options.variable or files.DEFAULT_VARIABLE[kind]
    chosen = [
        files.choose(*given, variable=variable, direction_seed=options.direction_seed)
        for given in zip(paths, datasets, names, strict=True)
    ]
    for note in (surface.note for surface in chosen if surface.note):
        print(f"nas-lightning: {note}", file=sys.stderr)
    if view == "contour":
        return landscape.draw_loss_contours(
            [surface.panel for surface in chosen], columns=options.columns, title=options.title
        )
    scale, vmin, vmax = options.scale, options.vmin, options.vmax
    if variable in files.FIXED_LIMITS:  # the same in every picture of every run
        low, high = files.FIXED_LIMITS[variable]
        scale = "linear" if scale == "auto" else scale
        vmin = low if vmin is None and scale == "linear" else vmin
        vmax = high if vmax is None else vmax
    settings = {"label": files.LABELS[variable], "scale": scale, "vmin": vmin, "vmax": vmax}
    if view == "spread":
        spreads = [
            spread.SurfaceSpread(s.panel.alphas, s.panel.betas, s.finished_values(), s.panel.title)
            for s in chosen
        ]
        loss = variable == "loss"
        return spread.draw_spread(spreads, loss=loss, title=options.title, **settings)
    drawn: list[panels.SurfacePanel] = [surface.panel for surface in chosen]
    draw = variance.draw_heat_maps if view == "heat" else surface3d.draw_surfaces
    return draw(drawn, columns=options.columns, title=options.title, **settings)


def _check_view(options: argparse.Namespace, view: str, kind: str) -> None:
    """Refuse what the files do not hold, and options that a view has no use for."""
    from nas_lightning.cli.figures_files import DEFAULT_VARIABLE, VARIABLES

    variable = options.variable or DEFAULT_VARIABLE[kind]
    if variable not in VARIABLES[kind]:
        known = ", ".join(VARIABLES[kind])
        raise ValueError(f"`variable` (={variable}) must be one of {known} for files of kind {kind}")
    if view == "contour" and variable != "loss":
        raise ValueError(f"`view` (=contour) draws the loss, not {variable}: choose heat or surface")
    if view == "nodes" and kind != "gradient_variance":
        raise ValueError(f"`view` (=nodes) needs files of kind gradient_variance, not {kind}")
    fixed = view == "nodes" or view == "contour" or (view == "spread" and variable == "loss")
    given = {
        "scale": options.scale != "auto",
        "vmin": options.vmin is not None,
        "vmax": options.vmax is not None,
    }
    useless = [name for name, is_given in given.items() if is_given and fixed]
    useless += ["columns"] * (view == "spread" and options.columns is not None)
    useless += ["direction_seed"] * (view in ("spread", "nodes") and options.direction_seed is not None)
    useless += ["variable"] * (view == "nodes" and options.variable is not None)
    if useless:
        raise ValueError(f"`{useless[0]}` has no use with `view` (={view}): leave it out")
