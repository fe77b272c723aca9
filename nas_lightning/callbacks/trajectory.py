"""The path of a training in the plane of its own first two principal components."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from matplotlib.figure import Figure
from torch import nn

from nas_lightning.analysis import (
    CheckpointWeights,
    Directions,
    Forward,
    NoPlaneError,
    StoredWeights,
    Surface,
    TrajectoryPlane,
    checkpoint_variables,
    finest_lattice,
    loss_at_points,
    loss_variables,
    plane_axes,
    plane_directions,
    trajectory_plane,
    trajectory_scalars,
    trajectory_variables,
    visited,
)
from nas_lightning.callbacks.checkpoints import CHECKPOINTS, RunCheckpoint, save_start
from nas_lightning.callbacks.context import AnalysisContext, Dataset
from nas_lightning.callbacks.likeness import check_alike
from nas_lightning.callbacks.loggers import run_folder
from nas_lightning.callbacks.point_analysis import MeasurePoint, PointAnalysis
from nas_lightning.callbacks.run_path import PathPoint, RunPath, read_run_path
from nas_lightning.figures import draw_trajectories, read_trajectory_panel, write_trajectory_animation
from nas_lightning.netcdf import read_dataset, write_dataset
from nas_lightning.torch_files import read_torch_file

SEVERAL = "trajectories"
"""How the names of files of several runs begin."""
_FEWEST = 3


@dataclass(frozen=True)
class _Prepared:
    """What every rank needs: the checkpoints, their plane, and its directions."""

    points: Sequence[PathPoint]
    weights: Sequence[StoredWeights]
    plane: TrajectoryPlane
    directions: Directions
    attributes: Mapping[str, str | int | float]


class Trajectory(PointAnalysis):
    """The path of a training, and the loss over the plane of its first two principal components.

    The path goes through the initial weights, which this callback keeps as ``checkpoints/start.ckpt``, the
    checkpoints of a ModelCheckpoint that keeps all of its files, and w*, the weights that are measured. The
    plane and its origin are those of :mod:`nas_lightning.analysis.trajectory`. Every checkpoint is measured
    with its own running statistics, except that those of initial weights are estimated. Beside the file goes
    an animation, ``trajectory-epochEEEE.gif``.

    Several runs can share one plane: with `runs` the components are those of the checkpoints of all of them,
    and the origin is w* of the run that is measured.

    Args:
        resolution: Points along each component, at least 2.
        margin: Room around the path on all sides, as a share of its longer side.
        batch_norm: ``"reestimated"``: running statistics are estimated anew at every point, where there is
            batch norm, since those of w* fit no weights that are far from it; ``"frozen"``: those of w*.
        runs: Folders of further runs of the same genotype, size and data. The file's `name` is then
            ``trajectories`` by default.
        files: Pattern of the names of the checkpoints that count, in ``checkpoints/`` of a run's folder.
        animation: Whether an animation is written.
        settings: As for :class:`nas_lightning.callbacks.analysis.Analysis`, without `at_start`.

    Raises:
        ValueError: If a setting is out of range.
    """

    kind = "trajectory"
    headline = ("plane_variance", "path_length", "path_straightness")

    def __init__(
        self,
        resolution: int = 21,
        margin: float = 0.25,
        batch_norm: Literal["frozen", "reestimated"] = "reestimated",
        runs: Sequence[str] = (),
        files: str = "epoch*.ckpt",
        animation: bool = True,
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        if not isinstance(resolution, int) or not 2 <= resolution <= 10_000:
            raise ValueError(f"`resolution` (={resolution}) must be from 2 to 10000")
        if not 0 < margin < math.inf:
            raise ValueError(f"`margin` (={margin}) must be above 0 and finite")
        if self.at_start:
            raise ValueError("`at_start` (=True) has no path to draw: it begins with the first step")
        if not files or "/" in files:
            raise ValueError(f"`files` (={files!r}) must be a pattern of names, such as 'epoch*.ckpt'")
        self.resolution = resolution
        self.margin = margin
        self.batch_norm: Literal["frozen", "reestimated"] = batch_norm
        self.files = files
        self.animation = animation
        self.runs: tuple[Path, ...] = ()
        self.share_plane(runs)

    def share_plane(self, runs: Sequence[str | Path]) -> None:
        """Draw further runs in the same plane; unless there is a `name`, the file is ``trajectories``."""
        self.runs = tuple(Path(run) for run in runs)
        if self.runs and self.name == self.kind:
            self.name = SEVERAL

    def check(self, trainer: Trainer) -> None:
        """Refuse, beside what no analysis can measure, a training that leaves no path of checkpoints."""
        super().check(trainer)
        for folder in self.runs:
            if not (folder / CHECKPOINTS).is_dir():
                raise ValueError(f"`runs` (={folder}) is not the folder of a run: it has no {CHECKPOINTS}/")
        if trainer.state.fn != "fit" or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        keeping = [
            callback
            for callback in trainer.callbacks  # type: ignore[attr-defined]
            if isinstance(callback, ModelCheckpoint) and not isinstance(callback, RunCheckpoint)
            if callback.save_top_k == -1
        ]
        if not keeping:
            raise ValueError(
                "Trajectory needs checkpoints along the training: add the ModelCheckpoint of"
                " configs/trajectory.yaml, with `save_top_k` -1"
            )
        epochs, every = trainer.max_epochs or -1, keeping[0]._every_n_epochs
        if self.at_end and epochs > 0 and every and (count := 1 + -(-epochs // every)) < _FEWEST:
            raise ValueError(
                f"`every_n_epochs` (={every}) of the ModelCheckpoint leaves {count} checkpoints of"
                f" `trainer.max_epochs` (={epochs}), the initial weights included: Trajectory needs {_FEWEST}"
            )

    def rehearse(self, context: AnalysisContext) -> None:
        """Refuse, beside what no analysis can measure, a `batch_norm` that is unknown."""
        super().rehearse(context)
        batch_norm = self._batch_norm(context.network)
        with loss_at_points(context.network, context.batches, {}, batch_norm, loss=self.loss):
            pass

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the initial weights."""
        super().on_train_start(trainer, pl_module)
        save_start(trainer)

    def measure(self, context: AnalysisContext) -> None:
        """Complete the surface that the file holds, or a new one, and log it.

        Early in a training there may be too few checkpoints for a plane, which is said. So is why a training
        that diverged or stopped early has no plane: the other callbacks and the result must not be lost.
        """
        trainer = context.trainer
        is_early = trainer.state.fn == "fit" and 0 <= context.epoch + 1 < (trainer.max_epochs or -1)
        if is_early and trainer.training and not trainer.should_stop:
            folder = _own_folder(context)
            before = trainer.global_step
            own = context.on_rank_zero(lambda: read_run_path(folder, self.files, before=before))
            if (count := len(own.points) + 1) < _FEWEST:
                context.say(f"{context.path}: no plane of {count} checkpoints yet")
                return
        try:
            super().measure(context)
        except NoPlaneError as error:
            if trainer.state.fn != "fit":
                raise
            reason = str(error)
            context.on_rank_zero(lambda: write_dataset(context.path, self._without_plane(context, reason)))
            context.say(f"{context.path}: not measured: {reason}")

    def _without_plane(self, context: AnalysisContext, reason: str) -> Dataset:
        """A file that says why there is no path, so that a study does not wait for one."""
        import xarray as xr

        done = ((), np.int8(1), {"long_name": "1 where measured", "units": "1"})
        attributes = {"kind": self.kind, **context.attributes(), "resolution": self.resolution}
        return xr.Dataset({"done": done}, attrs={**attributes, "not_measured": reason})

    def prepare(self, context: AnalysisContext) -> _Prepared:
        """The checkpoints and their plane."""
        if context.initial or context.epoch < 0:
            raise ValueError("Trajectory needs the checkpoint of a training: these weights have no path")
        prefix, names = _prefix(context), context.parameter_names
        origin = {name: value.detach() for name, value in context.network.named_parameters()}
        folder, last = _own_folder(context), _last_step(context)
        runs = context.on_rank_zero(lambda: self._run_paths(folder, last))
        points = [*runs[0].points, PathPoint(None, 0, last, float(context.epoch + 1))]
        points += [point for run in runs[1:] for point in run.points]
        weights = [
            StoredWeights(origin, names, "w*")
            if point.path is None
            else CheckpointWeights(point.path, names, prefix)
            for point in points
        ]
        for weight in weights:
            _check_shapes(weight, origin)

        def plane() -> tuple[TrajectoryPlane, dict[str, str | int | float]]:
            attributes = self._attributes(context, runs, points, weights)
            kept = _stored_plane(context.path, attributes)
            return kept or trajectory_plane(weights, origin), attributes

        found_plane, attributes = context.on_rank_zero(plane)
        directions = plane_directions(weights, origin, found_plane.coefficients)
        return _Prepared(points, weights, found_plane, directions, attributes)

    def start(self, context: AnalysisContext, prepared: _Prepared) -> Surface:
        """The surface that the file holds, or a new one; on rank 0."""
        alphas, betas = plane_axes(prepared.plane.coordinates, self.resolution, self.margin)
        attributes = {**context.attributes(), **prepared.attributes}
        fresh = Surface.create(self.kind, loss_variables(self.loss), alphas, betas, [0], attributes)
        points = prepared.points
        fresh.attach(
            trajectory_variables(
                prepared.plane,
                runs=[point.run for point in points],
                steps=[point.step for point in points],
                epochs=[point.epochs for point in points],
            )
        )
        return Surface.resume_or_create(context.path, fresh)

    @contextmanager
    def at_points(
        self, context: AnalysisContext, prepared: _Prepared, surface: Surface
    ) -> Iterator[MeasurePoint]:
        """Measure the checkpoints, unless the file holds their losses, then yield how a point is measured."""
        batch_norm = self._batch_norm(context.network)
        passes = 2 if batch_norm == "reestimated" else 1
        forward = context.accelerate(self.speed, surface.total - surface.finished, passes)
        if "checkpoint_loss" not in surface.dataset:
            surface.attach(self._checkpoint_losses(context, prepared, forward))
        settings: dict[str, Any] = {"forward": forward, "loss": self.loss}
        directions = {0: prepared.directions}
        with loss_at_points(context.network, context.batches, directions, batch_norm, **settings) as measure:
            yield measure

    def scalars(self, dataset: Dataset) -> Dataset:
        """Variance in the plane, length and straightness; see :func:`trajectory_scalars`."""
        return trajectory_scalars(dataset)

    def figures(self, surface: Surface) -> dict[str, Figure]:
        """The path over the level lines of the loss."""
        if not surface.finished:
            return {}
        panel = read_trajectory_panel(
            surface.dataset, str(surface.dataset.attrs["title"]), finest=finest_lattice
        )
        return {"landscape/trajectory": draw_trajectories([panel])}

    def report(
        self, context: AnalysisContext, scalars: Dataset, figures: Callable[[], dict[str, Figure]]
    ) -> None:
        """Log numbers and pictures, and write the animation."""
        super().report(context, scalars, figures)
        path = context.path.with_suffix(".gif")

        def write() -> None:
            dataset = read_dataset(context.path)
            write_trajectory_animation(read_trajectory_panel(dataset, str(dataset.attrs["title"])), path)

        if self.animation:
            context.on_rank_zero(write)

    def _batch_norm(self, network: nn.Module) -> Literal["frozen", "reestimated"]:
        """How batch norm is treated; without it there is nothing to estimate."""
        norms = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        return self.batch_norm if any(norm.running_mean is not None for norm in norms) else "frozen"

    def _run_paths(self, folder: Path, last: int) -> list[RunPath]:
        """The checkpoints of the run before its last step, and those of the further runs."""
        first = read_run_path(folder, self.files, before=last)
        if not self.runs:
            return [first]
        seen = {folder.resolve()}
        for path in self.runs:
            if path.resolve() in seen:
                raise ValueError(f"`runs` (={path}) names a run that is in the plane already")
            seen.add(path.resolve())
        others = [
            read_run_path(path, self.files, number, with_last=True)
            for number, path in enumerate(self.runs, start=1)
        ]
        for other in others:
            check_alike(first.facts, other.facts, (first.folder, other.folder), "runs in one plane are")
        return [first, *others]

    def _attributes(
        self,
        context: AnalysisContext,
        runs: Sequence[RunPath],
        points: Sequence[PathPoint],
        weights: Sequence[StoredWeights],
    ) -> dict[str, str | int | float]:
        """What decides the plane and the values, beyond data and weights; a line if the starts differ."""
        hashes = [weight.sha256() for weight in weights]
        starts = [
            next((hashes[i] for i, point in enumerate(points) if point.run == run and point.step == 0), None)
            for run in range(len(runs))
        ]
        if len(set(starts)) > 1 or (len(runs) > 1 and starts[0] is None):
            context.say("note: the runs of this plane do not start from the same weights, or do not say so")
        together = "".join(f"{p.run} {p.step} {h}\n" for p, h in zip(points, hashes, strict=True))
        further: dict[str, str] = {"autocast": "bfloat16"} if self.speed == "max" else {}
        if len(runs) > 1:
            further["run_names"] = json.dumps([run.folder.resolve().name for run in runs])
        return {
            "batch_norm": self.batch_norm,
            "checkpoints": len(points),
            "checkpoints_sha256": hashlib.sha256(together.encode()).hexdigest(),
            **further,
        }

    def _checkpoint_losses(
        self, context: AnalysisContext, prepared: _Prepared, forward: Forward
    ) -> dict[str, Any]:
        """Loss and accuracy of every checkpoint, shared by the ranks."""
        points = prepared.points
        values = np.zeros((len(points), 2))
        settings: dict[str, Any] = {"forward": forward, "loss": self.loss}
        with visited(context.network) as visit:
            for index in range(context.rank, len(points), context.world_size):
                initial = points[index].step == 0
                values[index] = visit(prepared.weights[index], context.batches, initial=initial, **settings)
                context.stop_if_asked()
        return checkpoint_variables(context.reduce(values), self.loss)


def _own_folder(context: AnalysisContext) -> Path:
    """The folder of the run that is measured; all ranks must ask together."""
    found = run_folder(context.trainer)
    beside = context.path.parent.parent
    return beside if (beside / CHECKPOINTS).is_dir() else found


def _prefix(context: AnalysisContext) -> str:
    """What the names of the network's weights begin with in a checkpoint."""
    named = context.module.named_modules(remove_duplicate=False)
    name = next(name for name, module in named if module is context.network)
    return f"{name}." if name else ""


def _last_step(context: AnalysisContext) -> int:
    """Steps of the optimiser before the weights that are measured."""
    trainer = context.trainer
    if trainer.state.fn == "fit" or trainer.ckpt_path is None:
        return int(trainer.global_step)
    return int(read_torch_file(trainer.ckpt_path, mmap=True)["global_step"])


def _check_shapes(weights: StoredWeights, origin: Mapping[str, torch.Tensor]) -> None:
    """Refuse a checkpoint of another network."""
    for name, shape in weights.shapes.items():
        if shape != tuple(origin[name].shape):
            raise ValueError(
                f"{weights.label} is of another network: its {name} has shape {shape}, not"
                f" {tuple(origin[name].shape)}"
            )


def _stored_plane(path: Path, attributes: Mapping[str, str | int | float]) -> TrajectoryPlane | None:
    """The plane that a file holds, if it is that of the same checkpoints.

    A matrix product may round otherwise on another number of threads; a file goes on with its own plane.
    """
    if not path.exists():
        return None
    found = read_dataset(path)
    if any(found.attrs.get(name) != attributes[name] for name in ("checkpoints", "checkpoints_sha256")):
        return None
    try:
        return TrajectoryPlane(
            coefficients=found["coefficient"].values,
            coordinates=found["coordinate"].values,
            explained_variance=found["explained_variance"].values,
            distances=found["distance"].values,
            steps=found["path_step"].values,
        )
    except KeyError as error:
        raise ValueError(f"{path} is damaged: it has no {error}") from None
