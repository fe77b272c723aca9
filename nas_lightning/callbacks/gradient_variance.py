"""The gradient's variance over images, at and around the trained weights (section 4.2.2 of the paper)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
from lightning.pytorch import Trainer
from matplotlib.figure import Figure

from nas_lightning.acceleration import PerSampleSums
from nas_lightning.analysis import (
    Directions,
    GradientStatistics,
    PerSampleGradients,
    Surface,
    sum_gradients,
    sum_squared_logit_gradients,
    variance_at_points,
    variance_scalars,
    variance_variables,
)
from nas_lightning.callbacks.context import AnalysisContext, DataArray, Dataset
from nas_lightning.callbacks.protocols import CellNetworkLike, image_data
from nas_lightning.callbacks.surface_analysis import MeasurePoint, SurfaceAnalysis, drawn
from nas_lightning.figures import (
    draw_heat_maps,
    draw_spread,
    draw_surfaces,
    draw_variance_by_node,
    read_variance_split,
)

PASSES_OF_A_GRADIENT = 3
"""Cost of a forward and backward pass, in forward passes."""

PREPROCESSING = "preprocess"
PARTS = ("stem", "cells", "classifier")


class GradientVariance(SurfaceAnalysis):
    """Gradient variance g(alpha, beta) = Var(grad f_i(w* + alpha w1 + beta w2)) over a plane of weights.

    At w* itself it is exact and split by cell and by node; the ranks share the images. Layers without a rule
    for per-sample gradients, such as those of a registered operation, go through ``torch.func.vmap``.

    Args:
        resolution: Points along each direction, as for :class:`SurfaceAnalysis`.
        method: ``"exact"``: the gradient of every image; ``"minibatch"``: an unbiased estimate with its
            standard error from disjoint mini-batches of ``batch_size`` images in random order.
        tolerance: For ``"minibatch"``: relative standard error at which a point needs no more batches; 0
            takes all images.
        batch_size: Images in a batch, the paper's by default: a point needs the memory of a training step.
        settings: As for :class:`SurfaceAnalysis` and :class:`nas_lightning.callbacks.analysis.Analysis`.

    Raises:
        ValueError: If a setting is out of range.
    """

    kind = "gradient_variance"
    headline = ("center_variance", "center_mean_gradient_norm", "center_noise_scale", "variance_ring_0.5")

    def __init__(
        self,
        resolution: int = 21,
        method: Literal["exact", "minibatch"] = "exact",
        batch_size: int = 80,
        tolerance: float = 0.0,
        **settings: Any,
    ) -> None:
        super().__init__(resolution, batch_size=batch_size, **settings)
        if not 0 <= tolerance < 1:
            raise ValueError(f"`tolerance` (={tolerance}) must be at least 0 and below 1")
        self.tolerance = tolerance
        self.method: Literal["exact", "minibatch"] = method

    def check(self, trainer: Trainer) -> None:
        """Refuse a split that gives too few mini-batches."""
        super().check(trainer)
        images = self.max_samples or image_data(trainer).split_sizes[self.split]
        if self.method == "minibatch" and images <= 2 * self.batch_size:
            raise ValueError(
                f"`batch_size` (={self.batch_size}) makes fewer than 3 mini-batches of {images} images:"
                " `method` (=minibatch) needs more"
            )

    @property
    def shuffled(self) -> bool:
        """Mini-batches need images in random order."""
        return self.method == "minibatch"

    def variables(self) -> Mapping[str, Mapping[str, str]]:
        """Variance, norm of the mean gradient and, estimated, the standard error."""
        return variance_variables(self.method)

    def own_attributes(self) -> Mapping[str, str | float]:
        """Exact or estimated, and how well."""
        return {"method": self.method} | ({"tolerance": self.tolerance} if self.tolerance else {})

    @contextmanager
    def at_points(
        self, context: AnalysisContext, directions: Mapping[int, Directions], surface: Surface
    ) -> Iterator[MeasurePoint]:
        """Measure w*, all ranks together; then a point is a forward and backward pass over the images."""
        batches = context.batches
        gradients = PerSampleGradients(context.network, *next(iter(batches)), unsupported="vmap")
        if gradients.by_vmap:
            context.say(f"gradients of {', '.join(gradients.by_vmap)}: by torch.func.vmap")
        points = surface.total - surface.finished + 1
        is_compiled = context.level(self.speed, points, PASSES_OF_A_GRADIENT).compiled
        batch_sums = None
        if is_compiled and self.method == "exact" and not gradients.by_vmap:
            batch_sums = PerSampleSums(context.network, gradients.parameters, gradients.rules)
        if "center_variance" not in surface.dataset:
            sums = sum_gradients(gradients, batches.share(context.rank, context.world_size), batch_sums)
            context.sum_over_ranks(sums.tensors())
            surface.attach(_center(sums.statistics(), context.module.network))
        if "tangent_kernel_trace" not in surface.dataset:
            surface.attach(_tangent_kernel_trace(context, gradients))
        settings: dict[str, Any] = {"tolerance": self.tolerance, "batch_sums": batch_sums}
        with variance_at_points(gradients, batches, directions, self.method, **settings) as measure:
            yield measure

    def scalars(self, dataset: Dataset) -> Dataset:
        """Means over rings; see :func:`nas_lightning.analysis.variance_scalars`."""
        center = dataset[
            [name for name in dataset.data_vars if str(name).startswith(("center_", "tangent_"))]
        ]
        return center.merge(variance_scalars(dataset)) if self.has_center else center

    def figures(self, surface: Surface) -> dict[str, Figure]:
        """Standard deviation as a heat map and in three dimensions, and the variance by cell and node."""
        deviation, spreads = drawn(surface, "standard_deviation")
        figures = {
            "landscape/gradient_heat_map": draw_heat_maps([deviation]),
            "landscape/gradient_surface": draw_surfaces([deviation]),
        }
        if spreads:
            label = "standard deviation of the gradient"
            figures["landscape/gradient_spread"] = draw_spread(spreads, loss=False, label=label)
        if surface.complete:
            split = read_variance_split(surface.dataset, str(surface.dataset.attrs["title"]))
            figures["landscape/gradient_by_node"] = draw_variance_by_node([split])
        return figures


def _tangent_kernel_trace(context: AnalysisContext, gradients: PerSampleGradients) -> dict[str, DataArray]:
    """The tangent kernel's trace at w*; all ranks share the images."""
    import xarray as xr

    share = context.batches.share(context.rank, context.world_size)
    sums = sum_squared_logit_gradients(gradients, share)
    context.sum_over_ranks([sums])
    total, count = sums.tolist()
    attributes = {"long_name": "trace of the label logits' tangent kernel at w*, a sample", "units": "1"}
    return {"tangent_kernel_trace": xr.DataArray(total / count, attrs=attributes)}


def _center(statistics: GradientStatistics, network: CellNetworkLike) -> dict[str, DataArray]:
    """The statistics at w*, and the variance by part, cell and node."""
    import xarray as xr

    parts = dict.fromkeys(PARTS, 0.0)
    nodes: dict[tuple[int, str], float] = {}
    for name, share in statistics.variance_by_parameter.items():
        part, cell, node = network.parameter_place(name)
        parts[part] += share
        if cell is not None:
            place = (cell, PREPROCESSING if node is None else str(node))
            nodes[place] = nodes.get(place, 0.0) + share
    cells = range(max((cell for cell, _ in nodes), default=-1) + 1)
    names = sorted({node for _, node in nodes}, key=lambda node: 0 if node == PREPROCESSING else int(node))
    by_node = np.array([[nodes.get((cell, node), np.nan) for node in names] for cell in cells])
    by_node = by_node.reshape(len(cells), len(names))
    norm, scale = statistics.mean_gradient_norm, statistics.noise_scale

    def variable(values: Any, long_name: str, units: str, **coordinates: list[Any]) -> DataArray:
        attributes = {"long_name": long_name, "units": units}
        return xr.DataArray(values, coordinates, tuple(coordinates), attrs=attributes)

    variance = "gradient variance at w*"
    return {
        "center_variance": variable(statistics.variance, variance, "nat2"),
        "center_mean_gradient_norm": variable(norm, "norm of the mean gradient at w*", "nat"),
        "center_noise_scale": variable(scale, "gradient noise scale at w*", "1"),
        "variance_by_part": variable(
            [parts[part] for part in PARTS], f"{variance} by part of the network", "nat2", part=list(PARTS)
        ),
        "variance_by_node": variable(
            by_node, f"{variance} by cell and node", "nat2", cell=list(cells), node=names
        ),
    }
