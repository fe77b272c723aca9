"""Loss and accuracy along the curve that a CurveClassifier trains, and along the straight line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, Protocol, TypeAlias, cast, runtime_checkable

import numpy as np
from lightning.pytorch import LightningModule, Trainer
from matplotlib.figure import Figure
from torch import Tensor

from nas_lightning.analysis import (
    PathSurface,
    Surface,
    connectivity_scalars,
    losses_on_paths,
    new_paths,
)
from nas_lightning.callbacks.context import AnalysisContext, Dataset
from nas_lightning.callbacks.loader_batches import check_data
from nas_lightning.callbacks.point_analysis import MeasurePoint, PointAnalysis
from nas_lightning.callbacks.split_batches import SplitBatches
from nas_lightning.figures import draw_connectivity
from nas_lightning.provenance import weights_hash

Split: TypeAlias = Literal["train", "val", "test"]
Weights: TypeAlias = Mapping[str, Tensor]


@runtime_checkable
class CurveModule(Protocol):
    """A module that trains a curve between two networks, such as a CurveClassifier."""

    def ends(self) -> tuple[Weights, Weights]:
        """The parameters of both ends by name."""


class ModeConnectivity(PointAnalysis):
    """Loss and accuracy of training and test images along a trained curve between two networks.

    It measures the Bézier curve of a :class:`~nas_lightning.curve_classifier.CurveClassifier`, which brings
    it, and the straight line between the same ends. Batch norm's running statistics are estimated anew at
    every point, from the training images. A point costs two passes over the training images and one over the
    test images.

    Args:
        resolution: Positions from 0 to 1, evenly spaced; at least 3.
        splits: Splits that are measured; the first gives the running statistics.
        settings: As for :class:`~nas_lightning.callbacks.analysis.Analysis`, but for ``split``.

    Raises:
        ValueError: If a setting is out of range.
    """

    kind = "mode_connectivity"
    headline = ("curve_train_barrier", "line_train_barrier", "curve_test_barrier", "line_test_barrier")

    def __init__(
        self, resolution: int = 25, splits: Sequence[Split] = ("train", "test"), **settings: Any
    ) -> None:
        if not isinstance(resolution, int) or not 3 <= resolution < 10_000:
            raise ValueError(f"`resolution` (={resolution}) must be a number of positions from 3 to 9999")
        if not splits or len(set(splits)) < len(splits):
            raise ValueError(f"`splits` (={list(splits)}) must be different splits, at least one")
        super().__init__(split=splits[0], **settings)
        self.splits = tuple(splits)
        self.positions = np.linspace(0, 1, resolution)

    def check(self, trainer: Trainer) -> None:
        """Refuse a training of one network, beside what no analysis can measure."""
        module: LightningModule = trainer.lightning_module
        if not isinstance(module, CurveModule):
            raise ValueError(
                "ModeConnectivity measures a curve between two networks, and one network is trained: name the"
                ' two with `--model.ends "[A.ckpt, B.ckpt]"`'
            )
        super().check(trainer)
        for split in self.splits[1:]:
            check_data(trainer, split, self.max_samples)

    def prepare(self, context: AnalysisContext) -> tuple[Weights, Weights, Weights]:
        """The weights A, theta and B."""
        start, end = cast("CurveModule", context.module).ends()
        bend: Weights = dict(context.network.named_parameters())
        like = next(iter(bend.values())).dtype
        start, end = ({name: values.to(like) for name, values in one.items()} for one in (start, end))
        return start, bend, end

    def start(self, context: AnalysisContext, prepared: tuple[Weights, Weights, Weights]) -> Surface:
        """The paths that the file holds, or new ones; on rank 0."""
        others = {split: context.batches_of(split) for split in self.splits[1:]}
        attributes: dict[str, str | int | float] = {
            **context.attributes(),
            **{f"end_{name}_sha256": weights_hash(prepared[place]) for name, place in (("a", 0), ("b", 2))},
            "splits": ", ".join(self.splits),
            **{f"{split}_samples": len(batches.targets) for split, batches in others.items()},
            **{f"{split}_sha256": batches.sha256() for split, batches in others.items()},
            **({"autocast": "bfloat16"} if self.speed == "max" else {}),
        }
        fresh = new_paths(self.positions, self.splits, attributes, self.loss)
        return PathSurface.resume_or_create(context.path, fresh)

    @contextmanager
    def at_points(
        self, context: AnalysisContext, prepared: tuple[Weights, Weights, Weights], surface: Surface
    ) -> Iterator[MeasurePoint]:
        """Yields the function that measures a point."""
        splits: dict[str, SplitBatches] = {split: context.batches_of(split) for split in self.splits}
        forward = context.accelerate(self.speed, surface.total - surface.finished, 1 + len(splits))
        settings: dict[str, Any] = {"forward": forward, "loss": self.loss}
        statistics = splits[self.splits[0]]
        with losses_on_paths(context.network, splits, prepared, statistics=statistics, **settings) as measure:
            yield measure

    def scalars(self, dataset: Dataset) -> Dataset:
        """The barriers; see :func:`nas_lightning.analysis.connectivity_scalars`."""
        return connectivity_scalars(PathSurface(dataset).curves)

    def figures(self, surface: Surface) -> dict[str, Figure]:
        """Loss and accuracy along both paths."""
        assert isinstance(surface, PathSurface)
        if not surface.finished:
            return {}
        return {"landscape/mode_connectivity": draw_connectivity(surface.curves)}
