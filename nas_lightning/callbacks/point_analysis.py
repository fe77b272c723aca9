"""Analyses that measure point by point: all ranks share the points, chunks are saved, a kill loses one."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any, ClassVar, TypeAlias

from matplotlib.figure import Figure

from nas_lightning.analysis import Point, Surface, finest_lattice, measure_pending, spread
from nas_lightning.callbacks.analysis import Analysis
from nas_lightning.callbacks.context import AnalysisContext, Dataset
from nas_lightning.callbacks.progress import PointProgress

MeasurePoint: TypeAlias = Callable[[Point], Mapping[str, float]]


class PointAnalysis(Analysis):
    """An analysis whose file is a surface, or curves, of points that are measured one by one."""

    headline: ClassVar[tuple[str, ...]]
    """Scalars that are printed; loggers and file get all."""
    chunk_size: ClassVar[int] = 16
    """Points between two saves, rounded up to a multiple of the number of ranks."""

    def measure(self, context: AnalysisContext) -> None:
        """Complete what the file holds, or a new one, and log it."""
        prepared = self.prepare(context)
        surface = context.on_rank_zero(lambda: self.start(context, prepared))
        with self.at_points(context, prepared, surface) as measure:
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
        known = {name: mean for name, mean, _ in statistics}
        headline = [
            _in_words(name, mean, known.get(f"{name}_standard_error", deviation))
            for name, mean, deviation in statistics
            if name in self.headline
        ]
        context.say(f"{context.path}: {', '.join(headline) or 'complete'}")

    @abstractmethod
    def prepare(self, context: AnalysisContext) -> Any:
        """What every rank needs before the file is opened, such as the directions."""

    @abstractmethod
    def start(self, context: AnalysisContext, prepared: Any) -> Surface:
        """The surface or curves that the file holds, or new ones; on rank 0."""

    @abstractmethod
    def at_points(
        self, context: AnalysisContext, prepared: Any, surface: Surface
    ) -> AbstractContextManager[MeasurePoint]:
        """Yields the function that measures a point."""

    @abstractmethod
    def scalars(self, dataset: Dataset) -> Dataset:
        """Numbers to compare architectures by, of a complete file; over direction seeds, or not."""

    @abstractmethod
    def figures(self, surface: Surface) -> dict[str, Figure]:
        """Pictures of the points measured so far, by tag."""

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
                chunk_size=self.chunk_size,
                after_chunk=after_chunk,
            )
        finally:
            progress.close()


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
