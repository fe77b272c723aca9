"""The context of an analysis: what it measures, how its ranks act together, where its results go."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from jaxtyping import Float
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.exceptions import SIGTERMException
from matplotlib.figure import Figure
from torch import Tensor, nn

from nas_lightning.acceleration import Accelerated, Level, Speed, accelerate, level_of
from nas_lightning.callbacks.protocols import CellModule, image_data
from nas_lightning.callbacks.requeue import requeue_requested
from nas_lightning.callbacks.split_batches import SplitBatches
from nas_lightning.figures import figure_to_array
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


@dataclass(frozen=True)
class AnalysisContext:
    """What an analysis measures, where it writes, and how the ranks act together.

    The weights of `network` are w*, of epoch `epoch` (from 0; -1 if they are initial ones or unknown).
    If they are `initial`, `network` is a copy of the module's whose running statistics are estimated. The
    results go to `path` and, in loggers, to the group of tags `group` in place of ``landscape``.
    """

    trainer: Trainer
    module: CellModule
    network: nn.Module
    batches: SplitBatches
    epoch: int
    path: Path
    group: str = "landscape"
    initial: bool = False

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
        return {
            "title": self.module.genotype_name,
            "genotype": str(self.module.genotype),
            "epoch": self.epoch,
            "weights_sha256": weights_hash(self.module.network.state_dict()),
            "data": image_data(self.trainer).name,
            "split": self.batches.split,
            "samples": len(self.batches.targets),
            "sample_seed": self.batches.sample_seed,
            "data_sha256": self.batches.sha256(),
            "batch_size": self.batches.batch_size,
            "precision": _precision(self.batches),
            "training_seed": str(run_seed()),
            "device": str(self.batches.images.device),
            "versions": json.dumps(software_versions()),
            **({"running_statistics": "estimated"} if self.initial else {}),
        }

    def level(self, speed: Speed, points: int, passes: int) -> Level:
        """Choose the level of an analysis.

        All ranks together measure all images at `points`, each at the cost of `passes` forward passes.
        """
        images = math.ceil(points / self.world_size) * len(self.batches.targets)
        work = 0
        if speed == "auto":
            description = self.module.cell_description(image_data(self.trainer).image_size)
            work = passes * images * int(description["multiply_adds"])
        device_type = self.batches.images.device.type
        return level_of(speed, device_type, passes=images / self.batches.batch_size, work=work)

    def accelerate(self, speed: Speed, points: int, passes: int) -> Accelerated:
        """The network's evaluation at the analysis's :meth:`level`; says so where the network runs plain."""
        forward = accelerate(self.network, self.level(speed, points, passes))
        if forward.why_plain is not None:
            self.say(f"speed: {forward.description()}")
        return forward

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
        """Send pictures, by tag (``landscape/NAME``), to TensorBoard; the step is the epoch.

        `make` draws them; it is called only on rank 0, and only where there is a TensorBoard.
        """
        loggers = [logger for logger in self.trainer.loggers if isinstance(logger, TensorBoardLogger)]
        if self.rank > 0 or not loggers:
            return
        for tag, figure in make().items():
            image = figure_to_array(figure, dots_per_inch=140.0)
            tag = self._in_group(tag)
            for logger in loggers:
                logger.experiment.add_image(tag, image, global_step=max(self.epoch, 0), dataformats="HWC")
                logger.experiment.flush()

    def _in_group(self, tag: str) -> str:
        return f"{self.group}/{tag.partition('/')[2]}"

    def say(self, text: str) -> None:
        """Print a line, on rank 0."""
        rank_zero_info(text)


def _precision(batches: SplitBatches) -> str:
    """Type of the numbers, and whether a GPU multiplies them in TF32."""
    name = str(batches.dtype).removeprefix("torch.")
    allows_tf32 = torch.backends.cudnn.allow_tf32 or torch.backends.cuda.matmul.allow_tf32
    is_single = batches.dtype == torch.float32 and batches.images.device.type == "cuda"
    return f"{name}, TF32" if is_single and allows_tf32 else name
