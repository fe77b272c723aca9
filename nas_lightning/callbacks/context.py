"""The context of an analysis: what it measures, how its ranks act together, where its results go."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from jaxtyping import Float
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.exceptions import SIGTERMException
from matplotlib.figure import Figure
from torch import Tensor, nn

from nas_lightning.acceleration import (
    LEVELS,
    Accelerated,
    Level,
    Speed,
    accelerate,
    level_of,
    twice_differentiable,
)
from nas_lightning.analysis.evaluation import Forward, Loss, evaluating, first_batch, has_classes, loss_name
from nas_lightning.analysis.trial import evaluated_parameters
from nas_lightning.callbacks.loader_batches import data_name
from nas_lightning.callbacks.loggers import log_figures
from nas_lightning.callbacks.progress import beside_bars
from nas_lightning.callbacks.protocols import CellModule
from nas_lightning.callbacks.requeue import requeue_requested
from nas_lightning.callbacks.split_batches import SplitBatches
from nas_lightning.provenance import run_seed, software_versions, weights_hash

if TYPE_CHECKING:
    from xarray import DataArray as DataArray
    from xarray import Dataset as Dataset
else:
    # xarray takes half a second to import and is needed only at the end of a training. The callbacks take
    # these names from here: jsonargparse executes the TYPE_CHECKING blocks of their own modules to resolve
    # their settings.
    DataArray = Dataset = Any

Result = TypeVar("Result")

FEW = 4
"""Samples on which is tried what an analysis needs."""


@dataclass(frozen=True)
class AnalysisContext:
    """What an analysis measures, where it writes, and how the ranks act together.

    The weights of `network` are w*, of epoch `epoch` (from 0; -1 if they are initial ones or unknown). It is
    the network of cells where `module` trains one, otherwise the module itself.
    If they are `initial`, `network` is a copy whose running statistics are estimated. The
    results go to `path` and, in loggers, to the group of tags `group` in place of ``landscape``. `loss` takes
    the place of the cross entropy; `read_split` reads another split.
    """

    trainer: Trainer
    module: LightningModule
    network: nn.Module
    batches: SplitBatches
    epoch: int
    path: Path
    group: str = "landscape"
    initial: bool = False
    loss: Loss | None = None
    read_split: Callable[[str], SplitBatches] | None = None

    def batches_of(self, split: str) -> SplitBatches:
        """Batches of a split, drawn and placed as `batches` are; a ValueError if the data lack it."""
        if split == self.batches.split:
            return self.batches
        assert self.read_split is not None
        return self.read_split(split)

    @property
    def cells(self) -> CellModule | None:
        """The module, if it trains cells."""
        return self.module if isinstance(self.module, CellModule) else None

    @cached_property
    def parameter_names(self) -> list[str]:
        """Names of the live parameters of `network` that the loss in evaluation mode depends on."""
        if self.cells is not None:
            return list(self.cells.network.evaluated_parameters())
        return evaluated_parameters(self.network, *self.few_samples(), self.loss)

    @cached_property
    def has_classes(self) -> bool:
        """Whether the outputs are logits of the targets' classes."""
        if self.loss is None:
            return True
        inputs, targets = self.few_samples()
        with evaluating(self.network), torch.no_grad():
            return has_classes(self.network(inputs), targets)

    def few_samples(self) -> tuple[Tensor, Tensor]:
        """Inputs and targets of the first samples."""
        inputs, targets = first_batch(self.batches)
        return inputs[:FEW], targets[:FEW]

    @property
    def rank(self) -> int:
        """Rank of this process among all ranks of all nodes."""
        return self.trainer.global_rank

    @property
    def world_size(self) -> int:
        """Number of ranks."""
        return self.trainer.world_size

    def attributes(self) -> dict[str, str | int | float]:
        """Provenance of the numbers; a file with other attributes is not resumed."""
        measured, named = (
            (self.module, {})
            if self.cells is None
            else (self.cells.network, {"genotype": str(self.cells.genotype)})
        )
        return {
            "title": type(self.module).__name__ if self.cells is None else self.cells.genotype_name,
            **named,
            "epoch": self.epoch,
            "weights_sha256": weights_hash(measured.state_dict()),
            "data": data_name(self.trainer, self.batches.split),
            "split": self.batches.split,
            "samples": len(self.batches.targets),
            "sample_seed": self.batches.sample_seed,
            "data_sha256": self.batches.sha256(),
            "batch_size": self.batches.batch_size,
            "precision": _precision(self.batches),
            "training_seed": str(run_seed()),
            "device": str(self.batches.inputs.device),
            "versions": json.dumps(software_versions()),
            **({"running_statistics": "estimated"} if self.initial else {}),
            **({} if self.loss is None else {"loss": loss_name(self.loss)}),
        }

    def level(self, speed: Speed, points: int, passes: int) -> Level:
        """Choose the level of an analysis.

        All ranks together measure all images at `points`, each at the cost of `passes` forward passes. A
        module without cells runs plain unless a level is named.
        """
        if self.cells is None and speed == "auto":
            return LEVELS["reference"]
        images = math.ceil(points / self.world_size) * len(self.batches.targets)
        work = 0
        if speed == "auto" and self.cells is not None:
            description = self.cells.cell_description(self.batches.inputs.shape[-1])
            work = passes * images * int(description["multiply_adds"])
        return level_of(speed, self.batches.inputs.device.type, work=work)

    def accelerate(self, speed: Speed, points: int, passes: int) -> Accelerated:
        """The network's evaluation at the analysis's :meth:`level`; says so where the network runs plain."""
        forward = accelerate(self.network, self.level(speed, points, passes))
        if forward.why_plain is not None:
            self.say(f"speed: {forward.description()}")
        return forward

    def twice_differentiable(self, speed: Speed) -> Forward:
        """The network's evaluation for second derivatives: at less cost, unless there are no cells.

        At the speed ``"reference"`` it is the network itself.
        """
        if self.cells is None or speed == "reference":
            return self.network
        return twice_differentiable(self.network)

    def reduce(self, values: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
        """Sum an array over all ranks, in float64; every rank gets the sum."""
        if self.world_size == 1:
            return values
        tensor = torch.from_numpy(values).to(self.trainer.strategy.root_device)
        self.sum_over_ranks([tensor])
        return tensor.cpu().numpy()

    def sum_over_ranks(self, tensors: Sequence[Tensor]) -> None:
        """Sum tensors over all ranks, in place."""
        if self.world_size > 1:
            for tensor in tensors:
                torch.distributed.all_reduce(tensor)

    def on_rank_zero(self, action: Callable[[], Result]) -> Result:
        """Do something on rank 0 only, and give its result to every rank.

        What the action raises is raised on every rank, so that none waits for one that has ended.
        """
        outcome: tuple[Any, BaseException | None] = (None, None)
        if self.rank == 0:
            try:
                outcome = (action(), None)
            except (Exception, SIGTERMException) as error:
                outcome = (None, error)
        result, failure = self.trainer.strategy.broadcast(outcome)
        if failure is not None:
            raise failure
        return result  # type: ignore[no-any-return]

    def stop_if_asked(self) -> None:
        """End the analysis if the process received SIGTERM, or SLURM's signal before the time limit.

        Lightning itself checks only between batches.
        """
        if self.trainer.received_sigterm or requeue_requested(self.trainer):
            raise SIGTERMException

    def log_scalars(self, scalars: dict[str, float]) -> None:
        """Send numbers, by tag (``landscape/NAME``), to all loggers; the step is the epoch."""
        scalars = {self._in_group(tag): value for tag, value in scalars.items()}
        for logger in self.trainer.loggers:
            logger.log_metrics(scalars, step=max(self.epoch, 0))
            logger.save()

    def log_figures(self, make: Callable[[], dict[str, Figure]]) -> None:
        """Send pictures, by tag (``landscape/NAME``), to all loggers; the step is the epoch.

        `make` draws them; it is called only on rank 0, and only where there is a logger.
        """
        if self.rank == 0 and self.trainer.loggers:
            figures = {self._in_group(tag): figure for tag, figure in make().items()}
            log_figures(self.trainer.loggers, figures, max(self.epoch, 0), self.path.parent.parent)

    def _in_group(self, tag: str) -> str:
        return f"{self.group}/{tag.partition('/')[2]}"

    def say(self, text: str) -> None:
        """Print a line, on rank 0."""
        with beside_bars(sys.stderr):
            rank_zero_info(text)


def _precision(batches: SplitBatches) -> str:
    """Type of the numbers, and whether a GPU multiplies them in TF32."""
    name = str(batches.dtype).removeprefix("torch.")
    allows_tf32 = torch.backends.cudnn.allow_tf32 or torch.backends.cuda.matmul.allow_tf32
    is_single = batches.dtype == torch.float32 and batches.inputs.device.type == "cuda"
    return f"{name}, TF32" if is_single and allows_tf32 else name
