"""Surfaces around the trained weights: measured by all ranks, saved after every chunk of points."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, ClassVar, Literal, TypeAlias

from matplotlib.figure import Figure

from nas_lightning.analysis import (
    Directions,
    Point,
    Surface,
    axis,
    check_seeds,
    cosine,
    finest_lattice,
    measure_pending,
    random_directions,
    spread,
)
from nas_lightning.callbacks.analysis import Analysis
from nas_lightning.callbacks.context import AnalysisContext, Dataset
from nas_lightning.callbacks.progress import PointProgress
from nas_lightning.figures import SurfacePanel, SurfaceSpread, read_surface_panel

MeasurePoint: TypeAlias = Callable[[Point], Mapping[str, float]]


class SurfaceAnalysis(Analysis):
    """An analysis on a grid of weights w* + alpha w1 + beta w2, for one or more pairs of directions.

    Args:
        resolution: Points along each direction, at least 2; an odd number includes w* itself. None, where an
            analysis allows it, measures w* alone.
        extent: Last step along each direction, the first being its negative; or (first, last).
        direction_seeds: Seeds of the pairs of directions. Several give a mean surface and its spread.
        normalization: Scale of the directions: that of each ``"filter"``, of each ``"layer"``, or ``"none"``.
        orthogonal: Whether the second direction is made orthogonal to the first.
        settings: As for :class:`Analysis`.

    Raises:
        ValueError: If a setting is out of range.
    """

    headline: ClassVar[tuple[str, ...]]
    """Scalars that are printed; loggers and file get all."""

    def __init__(
        self,
        resolution: int | None,
        extent: float | tuple[float, float] = 1.0,
        direction_seeds: Sequence[int] = (0,),
        normalization: Literal["filter", "layer", "none"] = "filter",
        orthogonal: bool = False,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        self.resolution = resolution
        self.steps = axis(2 if resolution is None else resolution, extent)
        self.direction_seeds = tuple(check_seeds("direction_seeds", direction_seeds))
        self.normalization = normalization
        self.orthogonal = orthogonal

    def measure(self, context: AnalysisContext) -> None:
        """Complete the surface that the file holds, or a new one, and log it."""
        directions = self.directions(context)
        surface = context.on_rank_zero(lambda: self.start(context, directions))
        with self.at_points(context, directions, surface) as measure:
            # A file that cannot be written fails here, not after the work.
            context.on_rank_zero(lambda: surface.save(context.path))
            if not surface.complete:
                self._measure_pending(context, surface, measure)
        scalars = self.scalars(surface.dataset)
        surface.attach({str(name): scalars[name] for name in scalars.data_vars})
        context.on_rank_zero(lambda: surface.save(context.path))
        self.report(context, scalars, lambda: self.figures(surface))

    def report(
        self, context: AnalysisContext, scalars: Dataset, figures: Callable[[], dict[str, Figure]]
    ) -> None:
        """Log numbers and pictures, and print the headline."""
        statistics = list(_statistics(scalars)) if scalars.data_vars else []
        tags = {f"landscape/{name}": mean for name, mean, _ in statistics}
        spreads = {f"landscape/{name}_spread": s for name, _, s in statistics if not math.isnan(s)}
        if tags:
            context.log_scalars(tags | spreads)
        context.log_figures(figures)
        headline = [_in_words(*statistic) for statistic in statistics if statistic[0] in self.headline]
        context.say(f"{context.path}: {', '.join(headline) or 'complete'}")

    @abstractmethod
    def variables(self) -> Mapping[str, Mapping[str, str]]:
        """What is measured at every point, with the attributes of each."""

    @abstractmethod
    def own_attributes(self) -> Mapping[str, str | float]:
        """What decides the values, beyond data, weights and directions."""

    @abstractmethod
    def at_points(
        self, context: AnalysisContext, directions: Mapping[int, Directions], surface: Surface
    ) -> AbstractContextManager[MeasurePoint]:
        """Yields the function that measures a point."""

    @abstractmethod
    def scalars(self, dataset: Dataset) -> Dataset:
        """Numbers to compare architectures by, of a complete surface; over direction seeds, or not."""

    @abstractmethod
    def figures(self, surface: Surface) -> dict[str, Figure]:
        """Pictures of the points measured so far, by tag."""

    @property
    def has_center(self) -> bool:
        """Whether w* lies inside the grid, as the scalars need."""
        return self.resolution is not None and bool(self.steps[0] < 0 < self.steps[-1])

    def directions(self, context: AnalysisContext) -> dict[int, Directions]:
        """The two directions of every seed."""
        names = context.parameter_names
        return {
            seed: random_directions(context.network, seed, self.normalization, self.orthogonal, names)
            for seed in self.direction_seeds
        }

    def start(self, context: AnalysisContext, directions: Mapping[int, Directions]) -> Surface:
        """The surface that the file holds, or a new one; on rank 0."""
        import xarray as xr

        attributes = {
            **context.attributes(),
            "normalization": self.normalization,
            "orthogonal": str(self.orthogonal),
            **self.own_attributes(),
        }
        fresh = Surface.create(
            self.kind, self.variables(), self.steps, self.steps, self.direction_seeds, attributes
        )
        cosines = [cosine(*directions[seed]) for seed in self.direction_seeds]
        description = {"long_name": "cosine between the two directions", "units": "1"}
        fresh.attach({"cosine": xr.DataArray(cosines, dims="direction_seed", attrs=description)})
        return Surface.resume_or_create(context.path, fresh)

    def _measure_pending(self, context: AnalysisContext, surface: Surface, measure: MeasurePoint) -> None:
        shown = 0
        visible = context.rank == 0 and context.trainer.progress_bar_callback is not None
        name = self.kind.replace("_", " ")
        progress = PointProgress(name, surface.finished, surface.total, visible=visible)

        def save() -> None:
            surface.save(context.path)
            context.stop_if_asked()

        def after_chunk(surface: Surface) -> None:
            nonlocal shown
            context.on_rank_zero(save)
            progress.update(surface.finished)
            lattice = finest_lattice(surface.dataset)
            if lattice is not None and lattice["alpha"].size > shown and not surface.complete:
                shown = lattice["alpha"].size
                context.log_figures(lambda: self.figures(surface))

        try:
            measure_pending(
                surface,
                measure,
                rank=context.rank,
                world_size=context.world_size,
                reduce=context.reduce,
                after_chunk=after_chunk,
            )
        finally:
            progress.close()


def drawn(surface: Surface, variable: str) -> tuple[SurfacePanel, list[SurfaceSpread]]:
    """Panel of a surface with a finished point; once complete, its spread over several direction seeds."""
    title = str(surface.dataset.attrs["title"])
    read = read_surface_panel(surface.dataset, variable, title, finest=finest_lattice)
    panel, has_spread = read.panel, surface.complete and len(read.pairs) > 1
    return panel, [
        SurfaceSpread(panel.alphas, panel.betas, read.pairs, panel.title, panel.facts)
    ] if has_spread else []


def _statistics(scalars: Dataset) -> Iterator[tuple[str, float, float]]:
    """Name, mean and standard deviation over direction seeds of every single number."""
    for name, values in spread(scalars).data_vars.items():
        mean, deviation = values.values.reshape(2, -1)
        rings = [f"_{ring:g}" for ring in values["ring"].values] if "ring" in values.dims else [""]
        if len(mean) == len(rings):
            for index, ring in enumerate(rings):
                yield f"{name}{ring}", float(mean[index]), float(deviation[index])


def _in_words(name: str, mean: float, deviation: float) -> str:
    error = "" if math.isnan(deviation) else f" ± {deviation:.2g}"
    return f"{name.replace('_', ' ')} {mean:.4g}{error}"
