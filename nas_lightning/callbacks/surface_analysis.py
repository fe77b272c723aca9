"""Surfaces around the trained weights, on a grid along pairs of random directions."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from nas_lightning.analysis import (
    Directions,
    Surface,
    axis,
    check_seeds,
    cosine,
    finest_lattice,
    random_directions,
)
from nas_lightning.callbacks.context import AnalysisContext
from nas_lightning.callbacks.point_analysis import PointAnalysis
from nas_lightning.figures import SurfacePanel, SurfaceSpread, read_surface_panel


class SurfaceAnalysis(PointAnalysis):
    """An analysis on a grid of weights w* + alpha w1 + beta w2, for one or more pairs of directions.

    Args:
        resolution: Points along each direction, at least 2; an odd number includes w* itself. None, where an
            analysis allows it, measures w* alone.
        extent: Last step along each direction, the first being its negative; or (first, last).
        direction_seeds: Seeds of the pairs of directions. Several give a mean surface and its spread.
        normalization: Scale of the directions: that of each ``"filter"``, of each ``"layer"``, or ``"none"``.
        orthogonal: Whether the second direction is made orthogonal to the first.
        settings: As for :class:`~nas_lightning.callbacks.analysis.Analysis`.

    Raises:
        ValueError: If a setting is out of range.
    """

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

    @abstractmethod
    def variables(self) -> Mapping[str, Mapping[str, str]]:
        """What is measured at every point, with the attributes of each."""

    @abstractmethod
    def own_attributes(self) -> Mapping[str, str | float]:
        """What decides the values, beyond data, weights and directions."""

    @property
    def has_center(self) -> bool:
        """Whether w* lies inside the grid, as the scalars need."""
        return self.resolution is not None and bool(self.steps[0] < 0 < self.steps[-1])

    def prepare(self, context: AnalysisContext) -> dict[int, Directions]:
        """The two directions of every seed."""
        names = context.parameter_names
        return {
            seed: random_directions(context.network, seed, self.normalization, self.orthogonal, names)
            for seed in self.direction_seeds
        }

    def start(self, context: AnalysisContext, prepared: Mapping[int, Directions]) -> Surface:
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
        cosines = [cosine(*prepared[seed]) for seed in self.direction_seeds]
        description = {"long_name": "cosine between the two directions", "units": "1"}
        fresh.attach({"cosine": xr.DataArray(cosines, dims="direction_seed", attrs=description)})
        return Surface.resume_or_create(context.path, fresh)


def drawn(surface: Surface, variable: str) -> tuple[SurfacePanel, list[SurfaceSpread]]:
    """Panel of a surface with a finished point; once complete, its spread over several direction seeds."""
    title = str(surface.dataset.attrs["title"])
    read = read_surface_panel(surface.dataset, variable, title, finest=finest_lattice)
    panel, has_spread = read.panel, surface.complete and len(read.pairs) > 1
    return panel, [
        SurfaceSpread(panel.alphas, panel.betas, read.pairs, panel.title, panel.facts)
    ] if has_spread else []
