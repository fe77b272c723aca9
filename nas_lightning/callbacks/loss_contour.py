"""The loss contour around the trained weights (section 4.2.1 of the paper)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, Literal

from matplotlib.figure import Figure

from nas_lightning.analysis import (
    Directions,
    Surface,
    loss_at_points,
    loss_scalars,
    loss_variables,
    random_direction,
)
from nas_lightning.callbacks.context import AnalysisContext, Dataset
from nas_lightning.callbacks.point_analysis import MeasurePoint
from nas_lightning.callbacks.surface_analysis import SurfaceAnalysis, drawn
from nas_lightning.figures import LOSS_LEVELS, draw_loss_contours, draw_spread, draw_surfaces


class LossSurface(SurfaceAnalysis):
    """An analysis whose points have a loss and an accuracy.

    Args:
        resolution: Points along each direction.
        batch_norm: ``"frozen"``: the running statistics of w* everywhere; ``"reestimated"``: estimated anew
            at every point from the same images.
        settings: As for :class:`SurfaceAnalysis`.
    """

    def __init__(
        self,
        resolution: int,
        batch_norm: Literal["frozen", "reestimated"] = "frozen",
        **settings: Any,
    ) -> None:
        super().__init__(resolution, **settings)
        self.batch_norm: Literal["frozen", "reestimated"] = batch_norm

    def variables(self) -> Mapping[str, Mapping[str, str]]:
        """Loss and accuracy."""
        return loss_variables(self.loss)

    def rehearse(self, context: AnalysisContext) -> None:
        """Refuse, beside what no analysis can measure, a `batch_norm` that the module does not allow."""
        super().rehearse(context)
        settings: dict[str, Any] = {"loss": self.loss}
        with loss_at_points(context.network, context.batches, {}, self.batch_norm, **settings):
            pass
        random_direction(context.network, 0, self.normalization, context.parameter_names[:1])

    def own_attributes(self) -> Mapping[str, str | float]:
        """How batch norm is treated, and whether the network computes in bfloat16."""
        shortened = {"autocast": "bfloat16"} if self.speed == "max" else {}
        return {"batch_norm": self.batch_norm, **shortened}

    def at_points(
        self, context: AnalysisContext, prepared: Mapping[int, Directions], surface: Surface
    ) -> AbstractContextManager[MeasurePoint]:
        """One pass over the images a point, two if batch norm is re-estimated."""
        passes = 2 if self.batch_norm == "reestimated" else 1
        forward = context.accelerate(self.speed, surface.total - surface.finished, passes)
        settings: dict[str, Any] = {"forward": forward, "loss": self.loss}
        return loss_at_points(context.network, context.batches, prepared, self.batch_norm, **settings)


class LossContour(LossSurface):
    """Loss and accuracy over a plane of weights, s(alpha, beta) = E_i[f_i(w* + alpha w1 + beta w2)].

    Args:
        resolution: Points along each direction, as for :class:`SurfaceAnalysis`.
        batch_norm: ``"frozen"``: the running statistics of w* everywhere; ``"reestimated"``: estimated anew
            at every point from the same images.
        loss_rise: Rise of the loss, in nat, that bounds the near-convex region of the scalars.
        settings: As for :class:`SurfaceAnalysis` and :class:`nas_lightning.callbacks.analysis.Analysis`.

    Raises:
        ValueError: If a setting is out of range.
    """

    kind = "loss_contour"
    headline = ("near_convex_share", "near_convex_radius", "convexity_ratio", "curvature_center")

    def __init__(
        self,
        resolution: int = 51,
        batch_norm: Literal["frozen", "reestimated"] = "frozen",
        loss_rise: float = 1.0,
        **settings: Any,
    ) -> None:
        super().__init__(resolution, batch_norm, **settings)
        if not 0 < loss_rise < math.inf:
            raise ValueError(f"`loss_rise` (={loss_rise}) must be above 0 and finite")
        self.loss_rise = loss_rise

    def scalars(self, dataset: Dataset) -> Dataset:
        """Width, convexity and curvature; see :func:`nas_lightning.analysis.loss_scalars`."""
        import xarray as xr

        return loss_scalars(dataset, self.loss_rise) if self.has_center else xr.Dataset()

    def figures(self, surface: Surface) -> dict[str, Figure]:
        """The contour and the surface in three dimensions; for several direction seeds, their spread."""
        loss, spreads = drawn(surface, "loss")
        label = "loss (nat)" if self.loss is None else "loss"
        figures = {
            "landscape/loss_contour": draw_loss_contours([loss]),
            "landscape/loss_surface": draw_surfaces([loss], label=label, vmax=LOSS_LEVELS[-1]),
        }
        if spreads:
            figures["landscape/loss_spread"] = draw_spread(spreads)
        return figures
