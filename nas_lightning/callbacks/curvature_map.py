"""Where the loss surface around the trained weights is convex in all directions, not only in those shown."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, ClassVar

from matplotlib.figure import Figure

from nas_lightning.analysis import (
    Directions,
    Surface,
    curvature_at_points,
    curvature_scalars,
    curvature_variables,
    random_direction,
)
from nas_lightning.analysis.extreme_eigenvalues import check_run
from nas_lightning.analysis.trial import check_second_derivative
from nas_lightning.callbacks.context import AnalysisContext, Dataset
from nas_lightning.callbacks.point_analysis import MeasurePoint
from nas_lightning.callbacks.surface_analysis import SurfaceAnalysis, drawn
from nas_lightning.figures import draw_heat_maps, draw_spread

_RATIO = "|smallest / largest eigenvalue| of the Hessian"
_LARGEST = "largest eigenvalue of the Hessian"


class CurvatureMap(SurfaceAnalysis):
    """Largest and smallest eigenvalue of the Hessian, and |lambda_min / lambda_max|, over a plane of weights.

    The map of Li et al. (2018, section 6): where the ratio is near 0, the loss is nearly convex there, in all
    directions of weight space. Batch norm keeps the running statistics of w*. A point costs some 15
    to 40 products with the Hessian over the images, each about two gradients (four of a module
    without cells); so the grid is coarse, and ``max_samples`` worth a thought. Each point is measured by one
    rank.

    Args:
        resolution: Points along each direction, as for :class:`SurfaceAnalysis`.
        normalized: Whether the eigenvalues are those of D H D, D the filters' root mean squares at w*, which
            do not see the scale of weights before a batch norm; otherwise those of H.
        tolerance: Residual, relative to the largest absolute eigenvalue, at which a point is done.
        max_products: Limit on the products of a point; one that reaches it is marked as not converged.
        seed: Of Lanczos's start vector.
        ratio_bound: Ratio up to which a point counts as nearly convex in ``nearly_convex_share``.
        batch_size: Images in a batch; a product needs several times the memory of a training step.
        settings: As for :class:`SurfaceAnalysis` and :class:`nas_lightning.callbacks.analysis.Analysis`.

    Raises:
        ValueError: If a setting is out of range.
    """

    kind = "curvature_map"
    headline = ("nearly_convex_share", "mean_ratio", "eigenvalue_ratio_center")
    chunk_size: ClassVar[int] = 1

    def __init__(
        self,
        resolution: int = 11,
        normalized: bool = True,
        tolerance: float = 1e-4,
        max_products: int = 100,
        seed: int = 0,
        ratio_bound: float = 0.1,
        batch_size: int = 40,
        **settings: Any,
    ) -> None:
        super().__init__(resolution, batch_size=batch_size, **settings)
        check_run(tolerance, max_products)
        if not 0 < ratio_bound < math.inf:
            raise ValueError(f"`ratio_bound` (={ratio_bound}) must be above 0 and finite")
        if not 0 <= seed < 2**31:
            raise ValueError(f"`seed` (={seed}) must be from 0 to 2**31 - 1")
        self.normalized = normalized
        self.tolerance = tolerance
        self.max_products = max_products
        self.seed = seed
        self.ratio_bound = ratio_bound

    def rehearse(self, context: AnalysisContext) -> None:
        """Refuse, beside what no analysis can measure, a loss without a second derivative."""
        super().rehearse(context)
        check_second_derivative(context.network, *context.few_samples(), self.loss)
        random_direction(context.network, 0, self.normalization, context.parameter_names[:1])

    def variables(self) -> Mapping[str, Mapping[str, str]]:
        """Both eigenvalues, their ratio, how well they are known, and the loss."""
        return curvature_variables(self.normalized, self.loss)

    def own_attributes(self) -> Mapping[str, str | float]:
        """Of which matrix the eigenvalues are, and how they are found."""
        return {
            "batch_norm": "frozen",
            "normalized": self.normalized,
            "tolerance": self.tolerance,
            "max_products": self.max_products,
            "seed": self.seed,
        }

    def at_points(
        self, context: AnalysisContext, prepared: Mapping[int, Directions], surface: Surface
    ) -> AbstractContextManager[MeasurePoint]:
        """A Lanczos run a point."""
        lanczos = (self.normalized, self.tolerance, self.max_products, self.seed)
        settings: dict[str, Any] = {"forward": context.twice_differentiable(self.speed), "loss": self.loss}
        return curvature_at_points(context.network, context.batches, prepared, *lanczos, **settings)

    def scalars(self, dataset: Dataset) -> Dataset:
        """Share of the square that is nearly convex, and the curvature at w*."""
        import xarray as xr

        return curvature_scalars(dataset, self.ratio_bound) if self.has_center else xr.Dataset()

    def figures(self, surface: Surface) -> dict[str, Figure]:
        """The ratio and the largest eigenvalue as heat maps; for several seeds, the ratio's spread."""
        ratio, spreads = drawn(surface, "eigenvalue_ratio")
        largest, _ = drawn(surface, "largest_eigenvalue")
        unit_interval: dict[str, Any] = {"scale": "linear", "vmin": 0.0, "vmax": 1.0}
        figures = {
            "landscape/curvature_ratio": draw_heat_maps([ratio], label=_RATIO, **unit_interval),
            "landscape/curvature_largest": draw_heat_maps([largest], label=_LARGEST),
        }
        if spreads:
            figures["landscape/curvature_spread"] = draw_spread(
                spreads, loss=False, label=_RATIO, **unit_interval
            )
        return figures
