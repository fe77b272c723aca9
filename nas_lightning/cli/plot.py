"""`nas-lightning plot`: pictures of surface files, side by side under one scale, and of loss profiles.

Starts quickly: matplotlib and xarray are imported after the arguments are read.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nas_lightning.cli.argument_parser import ArgumentParser, named_path
from nas_lightning.cli.plot_views import OWN_VIEWS, TRAJECTORY, check_options, write_animation

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.figure import Figure

VIEWS = {
    "contour": "level lines of the loss",
    "heat": "heat map",
    "surface": "surface in three dimensions",
    "spread": "mean over the pairs of directions, and its profiles with error bars",
    "nodes": "share of every node in the gradient variance at the trained weights",
} | {kind.view: kind.text for kind in OWN_VIEWS.values()}
VARIABLES = {
    "loss_contour": ("loss", "accuracy"),
    "curvature_map": ("eigenvalue_ratio", "largest_eigenvalue", "smallest_eigenvalue", "loss", "residual"),
    "gradient_variance": ("standard_deviation", "variance", "mean_gradient_norm", "standard_error"),
}
"""Variables of each kind of surface, the default first; the standard deviation is the variance's root."""
LABELS = {
    "loss": "loss (nat)",
    "accuracy": "accuracy",
    "standard_deviation": "standard deviation of the gradient",
    "variance": "variance of the gradient",
    "mean_gradient_norm": "norm of the mean gradient",
    "standard_error": "standard error of the variance",
    "eigenvalue_ratio": "|smallest / largest eigenvalue| of the Hessian",
    "largest_eigenvalue": "largest eigenvalue of the Hessian",
    "smallest_eigenvalue": "smallest eigenvalue of the Hessian",
    "residual": "residual of the eigenvalues",
}
FIXED_LIMITS = {"loss": (0.0, 10.0), "accuracy": (0.0, 1.0), "eigenvalue_ratio": (0.0, 1.0)}
"""Ends of the scale of variables that have the same scale in every picture."""


def main(arguments: Sequence[str]) -> None:
    """Run ``nas-lightning plot``; a leading ``plot`` is skipped."""
    options = argument_parser().parse(arguments)
    from nas_lightning.figures import picture_format, write_figure

    if options.output is not None and options.output.suffix.lower() == ".gif":
        animate(options)
        return
    if options.output is not None:
        picture_format(options.output)
    figure = draw(options)
    output: Path = options.output or options.files[0].with_suffix(".png")
    write_figure(figure, output)
    print(output)


def animate(options: argparse.Namespace) -> None:
    """Write the animation of one trajectory."""
    output, paths = options.output, options.files
    datasets = _read_same_kind(paths, options.view)
    kind = datasets[0].attrs["kind"]
    if len(paths) > 1 or kind != TRAJECTORY:
        found = f"{len(paths)} files" if len(paths) > 1 else f"a file of kind {kind}"
        raise ValueError(
            f"`output` (={output}) moves, as only one file of kind {TRAJECTORY} can, not {found}"
        )
    check_options(options, kind)
    title = options.title or _titles(paths, datasets, options.labels)[0]
    write_animation(datasets[0], title, paths[0], output)
    print(output)


def argument_parser() -> ArgumentParser:
    """The arguments of ``nas-lightning plot``."""
    parser = ArgumentParser(
        prog="nas-lightning plot",
        description="Draw loss contours and gradient-variance surfaces side by side under one scale, or loss"
        " profiles in one panel.",
        epilog="views: " + "; ".join(f"{name}: {text}" for name, text in VIEWS.items()),
        allow_abbrev=False,
    )
    parser.add_argument("files", metavar="FILE", nargs="+", type=named_path, help="files (.nc) of one kind")
    parser.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        type=named_path,
        help="FILE.png, .svg or .pdf, or .gif of one trajectory (beside the first file, .png)",
    )
    parser.add_argument(
        "--view",
        choices=tuple(VIEWS),
        help="what to draw (contour for losses, heat for other surfaces; other files have one view)",
    )
    parser.add_argument(
        "--variable",
        help="; ".join(f"of {kind}: {', '.join(names)}" for kind, names in VARIABLES.items())
        + " (the first)",
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
    parser.add_argument(
        "--labels",
        nargs="+",
        metavar="TEXT",
        help="title of each panel or name of each curve, in the order of the files; or one for all with facts"
        " of the file, such as '{genotype}, {epoch}, {seed}' (genotypes, and what tells files of one apart)",
    )
    return parser


def draw(options: argparse.Namespace) -> Figure:
    """Draw the files as the options say; notes on unfinished files go to standard error."""
    from nas_lightning import figures
    from nas_lightning.analysis.surface import finest_lattice

    if options.columns is not None and options.columns < 1:
        raise ValueError(f"`columns` (={options.columns}) must be at least 1")
    paths: list[Path] = options.files
    datasets = _read_same_kind(paths, options.view)
    kind = datasets[0].attrs["kind"]
    if kind in OWN_VIEWS:
        check_options(options, kind)
        titles = _titles(paths, datasets, options.labels)
        return OWN_VIEWS[kind].draw(datasets, titles, paths, options.title)
    view = options.view or ("contour" if kind == "loss_contour" else "heat")
    variable = options.variable or VARIABLES[kind][0]
    _check_view(options, view, kind, variable)
    layout = {"columns": options.columns, "title": options.title}
    titles = _titles(paths, datasets, options.labels)

    def each_file(read: Any, **settings: Any) -> list[Any]:
        results = []
        for path, dataset, title in zip(paths, datasets, titles, strict=True):
            try:
                results.append(read(dataset, title=title, **settings))
            except ValueError as error:
                raise ValueError(f"{path}: {error}") from error
        return results

    if view == "nodes":
        return figures.draw_variance_by_node(each_file(figures.read_variance_split), **layout)
    surfaces = each_file(
        figures.read_surface_panel,
        variable=variable,
        direction_seed=options.direction_seed,
        finest=finest_lattice,
    )
    panels = [surface.panel for surface in surfaces]
    for path, surface in zip(paths, surfaces, strict=True):
        if surface.note:
            print(f"nas-lightning: {path} is {surface.note}", file=sys.stderr)
    if view == "contour":
        return figures.draw_loss_contours(panels, **layout)
    scale, vmin, vmax = options.scale, options.vmin, options.vmax
    if variable in FIXED_LIMITS:
        low, high = FIXED_LIMITS[variable]
        scale = "linear" if scale == "auto" else scale
        vmin = low if vmin is None and scale == "linear" else vmin
        vmax = high if vmax is None else vmax
    settings = {"label": LABELS[variable], "scale": scale, "vmin": vmin, "vmax": vmax}
    if view == "spread":
        for path, surface in zip(paths, surfaces, strict=True):
            if not len(surface.pairs):
                raise ValueError(f"{path} has no finished pair of directions to draw the spread of")
        spreads = [
            figures.SurfaceSpread(panel.alphas, panel.betas, surface.pairs, panel.title, panel.facts)
            for surface, panel in zip(surfaces, panels, strict=True)
        ]
        return figures.draw_spread(spreads, loss=variable == "loss", title=options.title, **settings)
    drawing = figures.draw_heat_maps if view == "heat" else figures.draw_surfaces
    return drawing(panels, **layout, **settings)


def _read(path: Path, view: str | None) -> xr.Dataset:
    from nas_lightning.analysis.surface import read_surface
    from nas_lightning.netcdf import read_dataset

    dataset = read_dataset(path)
    if (own := OWN_VIEWS.get(dataset.attrs["kind"])) is not None:
        return own.read(path)
    at_center = dataset.attrs["kind"] == "gradient_variance" and "alpha" not in dataset.dims
    return dataset if view == "nodes" and at_center else read_surface(path)


def _read_same_kind(paths: Sequence[Path], view: str | None) -> list[xr.Dataset]:
    """Read files that can stand side by side."""
    datasets = [_read(path, view) for path in paths]
    for path, dataset in zip(paths, datasets, strict=True):
        kind, first = dataset.attrs["kind"], datasets[0].attrs["kind"]
        if kind not in (*VARIABLES, *OWN_VIEWS):
            raise ValueError(f"{path} is of kind {kind!r}; plot draws {', '.join((*VARIABLES, *OWN_VIEWS))}")
        if kind != first:
            raise ValueError(
                f"{paths[0]} is of kind {first}, {path} of kind {kind}: they have no common scale"
            )
        if min(dataset.sizes.get(name, 2) for name in ("alpha", "beta")) < 2:
            raise ValueError(f"{path} has a single step along alpha or beta, which is no surface")
    return datasets


def _titles(paths: Sequence[Path], datasets: Sequence[xr.Dataset], labels: Sequence[str] | None) -> list[str]:
    """The labels given, one a file or one for all; else the genotypes and what tells files of one apart."""
    from nas_lightning.figures import file_facts, file_titles

    facts = [file_facts(dataset) for dataset in datasets]
    if labels is None:
        return file_titles(facts, paths)
    if len(labels) not in (1, len(paths)):
        raise ValueError(
            f"`labels` (={' '.join(labels)}) must be one for all files or one for each of the {len(paths)}"
        )
    every = list(labels) if len(labels) == len(paths) else [labels[0]] * len(paths)
    return [_filled(label, known, path) for label, known, path in zip(every, facts, paths, strict=True)]


def _filled(label: str, facts: Mapping[str, str], path: Path) -> str:
    """A label with the facts of its file in place of their names in braces."""
    from nas_lightning.figures.facts import NAMES

    def fact(match: re.Match[str]) -> str:
        name = match[1]
        if name not in NAMES:
            raise ValueError(f"`labels` (={label}): there is no {{{name}}}; there are {', '.join(NAMES)}")
        if name not in facts:
            raise ValueError(f"`labels` (={label}): {path} does not say its {name}")
        return facts[name]

    return re.sub(r"{(\w*)}", fact, label)


def _check_view(options: argparse.Namespace, view: str, kind: str, variable: str) -> None:
    """Refuse views and variables that the files lack, and options that the view ignores."""
    if variable not in VARIABLES[kind]:
        known = ", ".join(VARIABLES[kind])
        raise ValueError(f"`variable` (={variable}) must be one of {known} for files of kind {kind}")
    if view == "contour" and variable != "loss":
        raise ValueError(f"`view` (=contour) draws the loss, not {variable}: choose heat or surface")
    kinds = [other for other, own in OWN_VIEWS.items() if view == own.view]
    if kinds:
        raise ValueError(f"`view` (={view}) needs files of kind {' or '.join(kinds)}, not {kind}")
    if view == "nodes" and kind != "gradient_variance":
        raise ValueError(f"`view` (=nodes) needs files of kind gradient_variance, not {kind}")
    ignored: set[str] = set()
    if view in ("nodes", "contour") or (view == "spread" and variable == "loss"):
        ignored |= {"scale", "vmin", "vmax"}  # their scale is always the same
    ignored |= {"columns", "direction_seed"} if view == "spread" else set()
    ignored |= {"direction_seed", "variable"} if view == "nodes" else set()
    for name in ("scale", "vmin", "vmax", "columns", "direction_seed", "variable"):
        if name in ignored and getattr(options, name) not in (None, "auto"):
            raise ValueError(f"`{name}` has no effect with `view` (={view}): leave it out")
