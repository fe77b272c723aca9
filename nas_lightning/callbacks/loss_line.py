"""Loss and accuracy of several splits along random directions, to both sides of the trained weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal

from matplotlib.figure import Figure

from nas_lightning.analysis import (
    DIRECTION_SEEDS,
    Directions,
    LineSurface,
    Surface,
    axis,
    check_seeds,
    count_classes,
    line_scalars,
    losses_along,
    new_line,
    profile_directions,
    random_direction,
)
from nas_lightning.callbacks.context import AnalysisContext, Dataset
from nas_lightning.callbacks.point_analysis import MeasurePoint
from nas_lightning.callbacks.split_analysis import SplitAnalysis
from nas_lightning.figures import draw_loss_lines


class LossLine(SplitAnalysis):
    """Loss and accuracy at w* + a d as functions of the step a, for random directions d and several splits.

    One direction a seed, normalised filter by filter, so that the scale of weights before a batch norm does
    not change the line. The training images show whether w* is a minimum along the line; the test images
    show whether its surroundings generalise.

    Args:
        resolution: Number of steps, at least 2; an odd number includes w* itself.
        extent: Last step, the first being its negative; or (first, last). 1 moves every filter by its norm.
        direction_seeds: Seeds of the directions: a line is their mean, with its standard error.
        normalization: Scale of the directions: that of each ``"filter"``, of each ``"layer"``, or ``"none"``.
        batch_norm: ``"frozen"``: the running statistics of w* everywhere; ``"reestimated"``: estimated anew
            at every step from images of the training split.
        settings: As for :class:`~nas_lightning.callbacks.split_analysis.SplitAnalysis` and
            :class:`nas_lightning.callbacks.analysis.Analysis`.

    Raises:
        ValueError: If a setting is out of range.
    """

    kind = "loss_line"
    headline = ("train_mean_rise", "val_mean_rise", "test_mean_rise")

    def __init__(
        self,
        resolution: int = 21,
        extent: float | tuple[float, float] = 1.0,
        direction_seeds: Sequence[int] = DIRECTION_SEEDS,
        normalization: Literal["filter", "layer", "none"] = "filter",
        batch_norm: Literal["frozen", "reestimated"] = "frozen",
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        self.steps = axis(resolution, extent)
        self.direction_seeds = tuple(check_seeds("direction_seeds", direction_seeds))
        self.normalization = normalization
        self.batch_norm = batch_norm

    @property
    def read_splits(self) -> tuple[str, ...]:
        """With re-estimated statistics the training split as well."""
        return (*self.splits, *(("train",) if self.batch_norm == "reestimated" else ()))

    def rehearse(self, context: AnalysisContext) -> None:
        """Refuse, beside what no analysis can measure, a `batch_norm` that the module does not allow."""
        super().rehearse(context)
        with self._losses(context, self.batches_by_split(context), {}):
            pass
        random_direction(context.network, 0, self.normalization, context.parameter_names[:1])

    def prepare(self, context: AnalysisContext) -> dict[int, Directions]:
        """The direction of every seed."""
        names = context.parameter_names
        return {
            seed: profile_directions(context.network, seed, self.normalization, names)
            for seed in self.direction_seeds
        }

    def start(self, context: AnalysisContext, prepared: Mapping[int, Directions]) -> Surface:
        """The lines that the file holds, or new ones; on rank 0."""
        splits = self.batches_by_split(context)
        attributes = {
            **context.attributes(),
            **self.split_attributes(splits),
            "normalization": self.normalization,
            "num_classes": count_classes(context.network, context.batches, self.loss),
            "batch_norm": self.batch_norm,
            **({"autocast": "bfloat16"} if self.speed == "max" else {}),
        }
        fresh = new_line(self.steps, self.direction_seeds, splits, attributes, self.loss)
        return LineSurface.resume_or_create(context.path, fresh)

    def at_points(
        self, context: AnalysisContext, prepared: Mapping[int, Directions], surface: Surface
    ) -> AbstractContextManager[MeasurePoint]:
        """A point takes a pass over the images of every split, and one to re-estimate statistics."""
        splits = self.batches_by_split(context)
        passes = len(splits) + (self.batch_norm == "reestimated")
        forward = context.accelerate(self.speed, surface.total - surface.finished, passes)
        return self._losses(context, splits, prepared, forward=forward)

    def _losses(
        self,
        context: AnalysisContext,
        splits: Mapping[str, Any],
        directions: Mapping[int, Directions],
        **settings: Any,
    ) -> AbstractContextManager[MeasurePoint]:
        if self.batch_norm == "reestimated":
            settings["statistics"] = context.batches_of("train")
        return losses_along(context.network, splits, directions, self.batch_norm, loss=self.loss, **settings)

    def scalars(self, dataset: Dataset) -> Dataset:
        """How far the loss rises; see :func:`nas_lightning.analysis.line_scalars`."""
        return line_scalars(LineSurface(dataset).curves)

    def figures(self, surface: Surface) -> dict[str, Figure]:
        """The mean over the directions with a band of its standard error."""
        assert isinstance(surface, LineSurface)
        lines = surface.curves
        figure = draw_loss_lines([lines], [str(lines.attrs["title"])])
        return {} if figure is None else {"landscape/loss_line": figure}
