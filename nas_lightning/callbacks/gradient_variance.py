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
from nas_lightning.callbacks.loader_batches import check_data
from nas_lightning.callbacks.point_analysis import MeasurePoint
from nas_lightning.callbacks.protocols import CellModule
from nas_lightning.callbacks.surface_analysis import SurfaceAnalysis, drawn
from nas_lightning.figures import (
    draw_heat_maps,
    draw_spread,
    draw_surfaces,
    draw_variance_by_node,
    read_variance_split,
)
from nas_lightning.netcdf import matching_dataset, write_dataset

PASSES_OF_A_GRADIENT = 3
"""Cost of a forward and backward pass, in forward passes."""

PREPROCESSING = "preprocess"
PARTS = ("stem", "cells", "classifier")

_TRACE = "tangent_kernel_trace"
_BY_NODE = "variance_by_node"
_AT_CENTER = frozenset(
    {
        _TRACE,
        _BY_NODE,
        "center_loss",
        "center_variance",
        "center_normalized_variance",
        "center_mean_gradient_norm",
    }
    | {"center_noise_scale", "variance_by_part"}
)
"""Variables of w* itself; a file of an earlier version lacks some. Only classes have the kernel's trace, only
cells the variance by node."""


class GradientVariance(SurfaceAnalysis):
    """Gradient variance g(alpha, beta) = Var(grad f_i(w* + alpha w1 + beta w2)) over a plane of weights.

    At w* itself it is exact and split by cell and by node; the ranks share the images. There the file also
    has the mean loss and the normalised variance, which the scale of weights before a batch norm does not
    change, see :mod:`nas_lightning.analysis.gradient_variance`. Layers without a rule for per-sample
    gradients, such as those of a registered operation, go through ``torch.func.vmap``.

    Args:
        resolution: Points along each direction, as for :class:`SurfaceAnalysis`; None for w* alone, without
            a plane, at the cost of one point.
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
    headline = (
        *("center_variance", "center_normalized_variance", "center_mean_gradient_norm"),
        *("center_noise_scale", "variance_ring_0.5"),
    )

    def __init__(
        self,
        resolution: int | None = 21,
        method: Literal["exact", "minibatch"] = "exact",
        batch_size: int = 80,
        tolerance: float = 0.0,
        **settings: Any,
    ) -> None:
        super().__init__(resolution, batch_size=batch_size, **settings)
        if not 0 <= tolerance < 1:
            raise ValueError(f"`tolerance` (={tolerance}) must be at least 0 and below 1")
        if resolution is None and method != "exact":
            raise ValueError(f"`method` (={method}) needs a `resolution`: at w* alone the variance is exact")
        self.tolerance = tolerance
        self.method: Literal["exact", "minibatch"] = method

    def check(self, trainer: Trainer) -> None:
        """Refuse a split that gives too few mini-batches."""
        super().check(trainer)
        images = self.max_samples or check_data(trainer, self.split, None)
        if self.method == "minibatch" and images is not None and images <= 2 * self.batch_size:
            raise ValueError(
                f"`batch_size` (={self.batch_size}) makes fewer than 3 mini-batches of {images} images:"
                " `method` (=minibatch) needs more"
            )

    def rehearse(self, context: AnalysisContext) -> None:
        """Refuse, beside what no analysis can measure, samples without gradients of their own."""
        super().rehearse(context)
        try:
            PerSampleGradients(context.network, *context.few_samples(), unsupported="vmap", loss=self.loss)
        except RuntimeError as error:
            reason = str(error).strip().partition("\n")[0]
            raise ValueError(f"the gradients of single samples cannot be computed: {reason}") from error

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

    def measure(self, context: AnalysisContext) -> None:
        """Complete the surface that the file holds, or a new one; with no resolution, measure w* alone."""
        if self.resolution is not None:
            super().measure(context)
            return
        import xarray as xr

        attributes = context.on_rank_zero(
            lambda: {"kind": self.kind, **context.attributes(), **self.own_attributes()}
        )
        dataset = context.on_rank_zero(lambda: matching_dataset(context.path, attributes))
        dataset = xr.Dataset(attrs=attributes) if dataset is None else dataset
        if _wanted_at_center(context) - set(dataset.variables):
            found = _missing_at_center(context, *self._prepare(context, points=1), dataset)
            dataset = dataset.assign(found)
            context.on_rank_zero(lambda: write_dataset(context.path, dataset))
        self.report(context, self.scalars(dataset), lambda: _center_figures(dataset))

    def _prepare(
        self, context: AnalysisContext, points: int
    ) -> tuple[PerSampleGradients, PerSampleSums | None]:
        """The gradients of single images, and where that pays off, their sums from compiled code."""
        first = next(iter(context.batches))
        gradients = PerSampleGradients(context.network, *first, unsupported="vmap", loss=self.loss)
        if gradients.by_vmap:
            context.say(f"gradients of {', '.join(gradients.by_vmap)}: by torch.func.vmap")
        is_compiled = context.level(self.speed, points, PASSES_OF_A_GRADIENT).compiled
        if is_compiled and self.method == "exact" and not gradients.by_vmap and self.loss is None:
            return gradients, PerSampleSums(context.network, gradients.parameters, gradients.rules)
        return gradients, None

    @contextmanager
    def at_points(
        self, context: AnalysisContext, prepared: Mapping[int, Directions], surface: Surface
    ) -> Iterator[MeasurePoint]:
        """Measure w*, all ranks together; then a point is a forward and backward pass over the images."""
        batches = context.batches
        gradients, batch_sums = self._prepare(context, points=surface.total - surface.finished + 1)
        surface.attach(_missing_at_center(context, gradients, batch_sums, surface.dataset))
        settings: dict[str, Any] = {"tolerance": self.tolerance, "batch_sums": batch_sums}
        with variance_at_points(gradients, batches, prepared, self.method, **settings) as measure:
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
        return figures | (_center_figures(surface.dataset) if surface.complete else {})


def _wanted_at_center(context: AnalysisContext) -> frozenset[str]:
    """The variables of w* that this module and its data have."""
    without_classes = frozenset() if context.has_classes else frozenset({_TRACE})
    without_cells = frozenset({_BY_NODE}) if context.cells is None else frozenset()
    return _AT_CENTER - without_classes - without_cells


def _missing_at_center(
    context: AnalysisContext,
    gradients: PerSampleGradients,
    batch_sums: PerSampleSums | None,
    dataset: Dataset,
) -> dict[str, DataArray]:
    """What a dataset lacks of the statistics at w*; all ranks share the images."""
    found: dict[str, DataArray] = {}
    missing = _wanted_at_center(context) - set(dataset.variables)
    if missing - {_TRACE}:
        share = context.batches.share(context.rank, context.world_size)
        sums = sum_gradients(gradients, share, batch_sums)
        context.sum_over_ranks(sums.tensors())
        found |= _center(sums.statistics(), context.cells)
    if _TRACE in missing:
        found |= _tangent_kernel_trace(context, gradients)
    return found


def _center_figures(dataset: Dataset) -> dict[str, Figure]:
    """The variance at w* by cell and node, of a network of cells."""
    if _BY_NODE not in dataset.variables:
        return {}
    split = read_variance_split(dataset, str(dataset.attrs["title"]))
    return {"landscape/gradient_by_node": draw_variance_by_node([split])}


def _tangent_kernel_trace(context: AnalysisContext, gradients: PerSampleGradients) -> dict[str, DataArray]:
    """The tangent kernel's trace at w*; all ranks share the images."""
    import xarray as xr

    share = context.batches.share(context.rank, context.world_size)
    sums = sum_squared_logit_gradients(gradients, share)
    context.sum_over_ranks([sums])
    total, count = sums.tolist()
    attributes = {"long_name": "trace of the label logits' tangent kernel at w*, a sample", "units": "1"}
    return {_TRACE: xr.DataArray(total / count, attrs=attributes)}


def _center(statistics: GradientStatistics, cells: CellModule | None) -> dict[str, DataArray]:
    """The statistics at w*, and the variance by part, cell and node; without cells by part alone."""
    import xarray as xr

    parts = dict.fromkeys(PARTS, 0.0) if cells is not None else {}
    nodes: dict[tuple[int, str], float] = {}
    for name, share in statistics.variance_by_parameter.items():
        place = (name.partition(".")[0], None, None) if cells is None else cells.network.parameter_place(name)
        part, cell, node = place
        parts[part] = parts.get(part, 0.0) + share
        if cell is not None:
            key = (cell, PREPROCESSING if node is None else str(node))
            nodes[key] = nodes.get(key, 0.0) + share
    norm, scale = statistics.mean_gradient_norm, statistics.noise_scale

    def variable(values: Any, long_name: str, units: str, **coordinates: list[Any]) -> DataArray:
        attributes = {"long_name": long_name, "units": units}
        return xr.DataArray(values, coordinates, tuple(coordinates), attrs=attributes)

    variance = "gradient variance at w*"
    return {
        "center_loss": variable(statistics.loss, "mean loss at w*", "nat"),
        "center_variance": variable(statistics.variance, variance, "nat2"),
        "center_normalized_variance": variable(
            statistics.normalized_variance, f"normalised {variance}", "nat2"
        ),
        "center_mean_gradient_norm": variable(norm, "norm of the mean gradient at w*", "nat"),
        "center_noise_scale": variable(scale, "gradient noise scale at w*", "1"),
        "variance_by_part": variable(
            list(parts.values()), f"{variance} by part of the network", "nat2", part=list(parts)
        ),
        **({} if cells is None else {_BY_NODE: _by_node(nodes, f"{variance} by cell and node")}),
    }


def _by_node(nodes: Mapping[tuple[int, str], float], long_name: str) -> DataArray:
    import xarray as xr

    cells = range(max((cell for cell, _ in nodes), default=-1) + 1)
    names = sorted({node for _, node in nodes}, key=lambda node: 0 if node == PREPROCESSING else int(node))
    values = np.array([[nodes.get((cell, node), np.nan) for node in names] for cell in cells])
    values = values.reshape(len(cells), len(names))
    attributes = {"long_name": long_name, "units": "nat2"}
    coordinates = {"cell": list(cells), "node": names}
    return xr.DataArray(values, coordinates, ("cell", "node"), attrs=attributes)
