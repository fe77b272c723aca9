"""Loss and accuracy on the straight line between two checkpoints."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch import LightningModule, Trainer
from matplotlib.figure import Figure
from torch import Tensor

from nas_lightning.analysis import (
    InterpolationSurface,
    Surface,
    check_ends,
    distance_between,
    losses_between,
    new_interpolation,
    path_positions,
    path_scalars,
    statistics_of,
)
from nas_lightning.callbacks.checkpoint_states import (
    checkpoint_label,
    evaluated_state,
    find_checkpoint,
    network_state,
)
from nas_lightning.callbacks.checkpoints import CHECKPOINTS, save_start
from nas_lightning.callbacks.context import AnalysisContext, Dataset
from nas_lightning.callbacks.loggers import run_folder
from nas_lightning.callbacks.point_analysis import MeasurePoint
from nas_lightning.callbacks.split_analysis import SplitAnalysis
from nas_lightning.figures import draw_interpolations
from nas_lightning.provenance import weights_hash

_LONGEST_NAME = 120
"""Characters of a file's name, beyond which it has a hash in place of the checkpoints' names."""


@dataclass(frozen=True, eq=False)
class Ends:
    """The networks between which losses are measured, and what they are called."""

    states: Sequence[dict[str, Tensor]]
    labels: Sequence[str]

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """All pairs, in the order of the networks."""
        return list(combinations(range(len(self.states)), 2))

    def by_pair(self) -> dict[int, tuple[dict[str, Tensor], dict[str, Tensor]]]:
        """Both ends of every pair, by its number."""
        return {number: (self.states[i], self.states[j]) for number, (i, j) in enumerate(self.pairs)}


class Interpolation(SplitAnalysis):
    """Loss and accuracy at w(t) = (1 - t) A + t B for two checkpoints A and B, and the barrier between them.

    All parameters and buffers are interpolated. After a training, B is its weights, and A its initial ones or
    another checkpoint; ``nas-lightning landscape --between A.ckpt B.ckpt`` measures two or more of them.
    Initial weights that the run no longer has, and equal weights, are said, and nothing is measured.

    Args:
        start: A: the name of a file in the run's ``checkpoints`` (``"start"``: the initial weights, which the
            callback keeps there before the first step), or the path of a checkpoint.
        resolution: Number of positions t, at least 2; 0 and 1 are among them.
        extent: First and last position; beyond (0, 1) the line goes on behind its ends.
        batch_norm: Running statistics at t. ``"reestimated"``: from images of the training split, at the ends
            as well, which then differ a little from their own evaluation. ``"interpolated"``: (1 - t) those
            of A and t those of B, which fit no activation between the ends and make the barrier higher; the
            ends are their own evaluation bit for bit.
        settings: As for :class:`~nas_lightning.callbacks.split_analysis.SplitAnalysis` and
            :class:`nas_lightning.callbacks.analysis.Analysis`.

    Raises:
        ValueError: If a setting is out of range.
    """

    kind = "interpolation"
    headline = ("train_barrier", "val_barrier", "test_barrier", "test_accuracy_barrier")

    def __init__(
        self,
        start: str = "start",
        resolution: int = 21,
        extent: tuple[float, float] = (0.0, 1.0),
        batch_norm: Literal["reestimated", "interpolated"] = "reestimated",
        **settings: Any,
    ) -> None:
        super().__init__(at_start=False, **settings)
        if not start:
            raise ValueError(f"`start` (={start!r}) must name a checkpoint")
        self.start_checkpoint = start
        self.resolution = resolution
        self.positions = path_positions(resolution, extent)
        self.batch_norm = batch_norm
        self.between: tuple[Path, ...] = ()
        """Set to measure the lines between these checkpoints after a validation."""
        self.file: Path | None = None
        """The file that was written last."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the initial weights, if the line begins there."""
        if self.start_checkpoint == "start":
            save_start(trainer)
        super().on_train_start(trainer, pl_module)

    def check(self, trainer: Trainer) -> None:
        """Check, beside what every analysis needs, that the other checkpoint is there."""
        super().check(trainer)
        if self.initial is not None:
            raise ValueError(
                "Interpolation needs a trained network: give one with `--ckpt_path`, or two with `--between`"
            )
        path = find_checkpoint(self.start_checkpoint, run_folder(trainer))
        is_written_meanwhile = path.parent.name == CHECKPOINTS and trainer.state.fn == "fit"
        if not self.between and not path.is_file() and not is_written_meanwhile:
            raise FileNotFoundError(
                f"`start` (={self.start_checkpoint}): {path} is not there; name another checkpoint, or"
                " compare two with `nas-lightning landscape --between`"
            )

    @property
    def read_splits(self) -> tuple[str, ...]:
        """With re-estimated statistics the training split as well."""
        return (*self.splits, *(("train",) if self.batch_norm == "reestimated" else ()))

    def rehearse(self, context: AnalysisContext) -> None:
        """Refuse, beside what no analysis can measure, checkpoints of another network."""
        super().rehearse(context)
        if self.between:
            self._ends(context)
        else:
            path = find_checkpoint(self.start_checkpoint, run_folder(context.trainer))
            if path.is_file() and self.start_checkpoint != "start":
                network_state(path, context.network, "start")

    def measure(self, context: AnalysisContext) -> None:
        """Measure the line; after a training that has nothing to measure, say why."""
        try:
            ends = self._ends(context)
        except (OSError, ValueError) as error:
            if context.trainer.state.fn == "validate":
                raise
            context.say(f"{context.path}: no line is measured: {error}")
            return
        if self.between:
            path = context.path.with_name(between_name(self.name, ends.labels))
            context = replace(context, path=path, group=path.stem)
        super().measure(context)
        self.file = context.path

    def prepare(self, context: AnalysisContext) -> Ends:
        """The networks at the ends."""
        return self._ends(context)

    def _ends(self, context: AnalysisContext) -> Ends:
        """The networks at the ends, which fit together and differ."""
        if self.between:
            found = [network_state(path, context.network, "between") for path in self.between]
            ends = Ends([one.state for one in found], _different([one.label for one in found]))
        else:
            run = run_folder(context.trainer)
            first = network_state(find_checkpoint(self.start_checkpoint, run), context.network, "start")
            last = {
                name: value.detach().cpu().clone() for name, value in evaluated_state(context.network).items()
            }
            label = checkpoint_label(run / CHECKPOINTS / "last.ckpt", context.epoch)
            ends = Ends([first.state, last], [first.label, label])
        for i, j in ends.pairs:
            try:
                check_ends(context.network, ends.states[i], ends.states[j])
            except ValueError as error:
                names = f"{self.between[i]} and {self.between[j]}: " if self.between else ""
                raise ValueError(f"{names}{error}") from error
        return ends

    def start(self, context: AnalysisContext, prepared: Ends) -> Surface:
        """The lines that the file holds, or new ones; on rank 0."""
        import xarray as xr

        splits = self.batches_by_split(context)
        known = context.attributes()
        if self.between:  # of several trainings
            known = {name: value for name, value in known.items() if name not in _OF_ONE_NETWORK}
        has_statistics = statistics_of(context.network, {"train": []}, self.batch_norm) is not None
        attributes = {
            **known,
            **self.split_attributes(splits),
            "ends_sha256": ", ".join(weights_hash(state) for state in prepared.states),
            "labels": json.dumps([[prepared.labels[i], prepared.labels[j]] for i, j in prepared.pairs]),
            "resolution": self.resolution,
            "batch_norm": "reestimated" if has_statistics else "interpolated",
            **({"autocast": "bfloat16"} if self.speed == "max" else {}),
        }
        pairs = prepared.by_pair()
        fresh = new_interpolation(self.positions, pairs, splits, attributes, self.loss)
        lengths = [distance_between(context.network, *pair) for pair in pairs.values()]
        description = {"long_name": "distance between the ends' weights", "units": "1"}
        fresh.attach({"distance": xr.DataArray(lengths, dims="direction_seed", attrs=description)})
        return InterpolationSurface.resume_or_create(context.path, fresh)

    def at_points(
        self, context: AnalysisContext, prepared: Ends, surface: Surface
    ) -> AbstractContextManager[MeasurePoint]:
        """A point takes a pass over the images of every split, and one to re-estimate statistics."""
        splits = self.batches_by_split(context)
        statistics = None
        if self.batch_norm == "reestimated":
            statistics = statistics_of(context.network, {}, self.batch_norm, context.batches_of("train"))
        passes = len(splits) + (statistics is not None)
        forward = context.accelerate(self.speed, surface.total - surface.finished, passes)
        settings: dict[str, Any] = {"statistics": statistics, "forward": forward, "loss": self.loss}
        return losses_between(context.network, splits, prepared.by_pair(), **settings)

    def scalars(self, dataset: Dataset) -> Dataset:
        """The barriers; see :func:`nas_lightning.analysis.barrier_scalars`."""
        curves = InterpolationSurface(dataset).curves
        scalars = path_scalars(curves, curves["distance"].values.tolist())
        return scalars.drop_vars("pair", errors="ignore").rename(pair="direction_seed")

    def figures(self, surface: Surface) -> dict[str, Figure]:
        """Loss and accuracy on the lines, their mean if there are several, and the barriers."""
        assert isinstance(surface, InterpolationSurface)
        lines = surface.curves
        figure = draw_interpolations([lines], [str(lines.attrs["title"])])
        return {} if figure is None else {"landscape/interpolation": figure}


_OF_ONE_NETWORK = ("epoch", "training_seed", "weights_sha256")
"""Attributes that do not hold for several checkpoints."""


def _different(labels: Sequence[str]) -> list[str]:
    """Labels with a number where several are the same."""
    return [
        f"{label} ({labels[: place + 1].count(label)})" if labels.count(label) > 1 else label
        for place, label in enumerate(labels)
    ]


def between_name(name: str, labels: Sequence[str]) -> str:
    """Name of the file of the lines between checkpoints.

    Example:
        >>> between_name("interpolation", ["darts, after 3 epochs", "darts-seed1, after 3 epochs"])
        'interpolation-darts-3-to-darts-seed1-3.nc'
    """
    short = [
        label.replace(", after ", "-").replace(", initial weights", "-start").partition(" ")[0]
        for label in labels
    ]
    joined = "-to-".join(short)
    if len(joined) > _LONGEST_NAME or len(set(short)) < len(short):
        joined = f"{len(labels)}-checkpoints-{hashlib.sha256(json.dumps(labels).encode()).hexdigest()[:8]}"
    return f"{name}-{joined}.nc"
