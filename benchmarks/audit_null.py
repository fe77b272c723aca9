"""Whether random cells look random: percentiles of level 0 over cells that were drawn uniformly.

Connections and operations of every cell are drawn at random, and it is audited with controls of its own. Its
place among cell and controls, ties broken at random, is uniform on 0 to 1 if the audit's null hypothesis
holds; so is its place in the census and over operations. The test is that of Kolmogorov and Smirnov.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import cache, partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from scipy import stats

from benchmarks.record import machine, write
from nas_lightning.audit import Standing, audit_structure, matched_controls
from nas_lightning.audit.initial import STATISTICS, InitialSettings, audit_initial, fixed_images
from nas_lightning.audit.structure import NetworkSettings
from nas_lightning.cells import get_genotype, random_connections, random_operations
from nas_lightning.datamodules import Digits
from nas_lightning.figures import write_figure
from nas_lightning.figures.picture import label_axes, new_figure, open_axes, settle

LEAST_P = 0.01
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#000000")
WIRING = ("width", "depth", "path")
SIZES = ("parameters", "multiply_adds")


def place(standing: Standing | None, draw: float, *, is_member: bool) -> float:
    """The cell's place from 0 to 1, at random among its equals; a space holds the cell, controls do not."""
    assert standing is not None  # four nodes have a census, and DARTS's operations a size
    extra = 0 if is_member else 1
    return (standing.below + draw * (standing.equal + extra)) / (standing.total + extra)


def audit(settings: argparse.Namespace, index: int) -> dict[str, float]:
    """Places of one random cell in everything that level 0 ranks; of initial weights only with controls."""
    # Seeds that share no stream: else the controls would depend on the cell.
    of_wiring, of_operations, of_controls, of_ties = np.random.SeedSequence(index).generate_state(4).tolist()
    rewired = random_connections(get_genotype(settings.genotype), of_wiring)
    genotype = random_operations(rewired, of_operations)
    generator = np.random.RandomState(of_ties)
    size = {"init_channels": settings.init_channels, "num_cells": settings.num_cells}
    structure = audit_structure(genotype, NetworkSettings(**size))
    places = {}
    for cell in (structure.normal, structure.reduction):
        for name in WIRING:
            standing = cell.standings["ordered"][name]
            places[f"{cell.name}_{name}"] = place(standing, generator.random_sample(), is_member=True)
    for name in SIZES:
        found = getattr(structure, f"{name}_standing")
        places[name] = place(found and found.standing, generator.random_sample(), is_member=True)
    try:
        controls = matched_controls(genotype, settings.controls, seed=of_controls, **size)
    except ValueError as error:
        if "no matched control" in str(error):
            return places
        raise
    images, targets = _images(settings.images)
    initial = audit_initial(
        genotype,
        controls,
        images,
        targets,
        InitialSettings(seeds=tuple(range(settings.seeds)), **size),
        processes=1,
    )
    for name, statistic in initial.statistics.items():
        places[name] = place(statistic.standing, generator.random_sample(), is_member=False)
    return places


@cache
def _images(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    return fixed_images(Digits(), count)


def draw_places(places: Mapping[str, Sequence[float]]) -> Figure:
    """The distribution function of every quantity's places.

    The band around the diagonal holds the whole of a uniform one with a probability of 1 - ``LEAST_P``.
    """
    figure = new_figure(7.2, 3.6)
    panels = figure.subplots(1, 2, sharey=True)
    shares = {"Initial weights": tuple(STATISTICS), "Wiring and size": tuple(set(places) - set(STATISTICS))}
    for axes, (title, names) in zip(panels, shares.items(), strict=True):
        reach = stats.kstwo.ppf(1 - LEAST_P, min(len(places[name]) for name in names))
        ends = np.array([0, 1])
        axes.fill_between(ends, ends - reach, ends + reach, color="#D9D9D9", linewidth=0)
        for number, name in enumerate(name for name in places if name in names):
            values = np.sort(places[name])
            share = np.arange(1, len(values) + 1) / len(values)
            colour, line = COLOURS[number % len(COLOURS)], "-" if number < len(COLOURS) else "--"
            axes.step(
                values, share, line, where="post", color=colour, linewidth=1, label=name.replace("_", " ")
            )
        label_axes(axes, title, x="place among random cells", y="share of audited cells")
        axes.set(xlim=(0, 1), ylim=(0, 1))
        open_axes(axes)
        axes.legend(frameon=False, fontsize=7)
    return settle(figure)


def main(arguments: Sequence[str] | None = None) -> None:
    """Audit, test, print, draw and keep the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--genotype", default="darts_v2")
    sizes = {"cells": 400, "controls": 19, "init_channels": 4, "num_cells": 5, "images": 2, "seeds": 1}
    for name, default in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--figure", type=Path, help="where the figure goes")
    settings = parser.parse_args(arguments)
    if settings.cells < 2 or settings.processes < 1:
        parser.error("--cells must be at least 2 and --processes at least 1")
    one = partial(audit, settings)
    if settings.processes == 1:
        found = [one(index) for index in range(settings.cells)]
    else:
        with ProcessPoolExecutor(settings.processes, mp_context=get_context("spawn")) as pool:
            found = list(pool.map(one, range(settings.cells), chunksize=4))
    places = {name: [of_one[name] for of_one in found if name in of_one] for name in max(found, key=len)}
    p_values = {name: float(stats.kstest(values, "uniform").pvalue) for name, values in places.items()}
    print(f"{machine()['processor']}: {settings.cells} cells")
    for name, p in p_values.items():
        print(f"{name:<24} {len(places[name])} cells, p {p:.3f}{'' if p > LEAST_P else '  NOT UNIFORM'}")
    shown = {name: getattr(settings, name) for name in ("genotype", *sizes)}
    # A line for each quantity, not one for each number.
    rounded = {name: " ".join(f"{value:.3f}" for value in values) for name, values in places.items()}
    record = {"settings": shown, "p_values": p_values, "places": rounded}
    print(f"written to {write('audit_null', record)}")
    if settings.figure is not None:
        write_figure(draw_places(places), settings.figure)
        print(settings.figure)


if __name__ == "__main__":
    main()
