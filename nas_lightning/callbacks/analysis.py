"""When and where an analysis runs: at initialisation, during and after a training, on a checkpoint."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from filelock import FileLock, Timeout
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.seed import isolate_rng
from torch import nn

from nas_lightning.acceleration import Speed, check_speed
from nas_lightning.analysis import estimate_running_statistics
from nas_lightning.analysis.trial import check_evaluation
from nas_lightning.callbacks.averaging import averaged_weights
from nas_lightning.callbacks.context import FEW, AnalysisContext
from nas_lightning.callbacks.ending import ending
from nas_lightning.callbacks.loader_batches import check_data, read_batches
from nas_lightning.callbacks.loggers import run_folder
from nas_lightning.callbacks.protocols import CellModule
from nas_lightning.callbacks.sigterm import sigterm_noted
from nas_lightning.callbacks.split_batches import SplitBatches
from nas_lightning.files import check_writable
from nas_lightning.netcdf import read_dataset

START = "start"
"""End of the name of a file, ``NAME-start.nc``, whose network has its initial weights."""


class Analysis(Callback, ABC):
    """Measures the network at the end of training, and at its start and after chosen epochs if asked.

    It works in any trainer, with any module whose forward gives logits (or what `loss` takes) and any
    loader of pairs (inputs, targets). Before the training it tries on a few samples what it will need.

    The results go to ``FOLDER/NAME-epochEEEE.nc`` and, as pictures and numbers, to all loggers under
    ``landscape/`` (under the analysis's ``name`` if it has one); the step is the epoch. Those of the initial
    weights go to ``FOLDER/NAME-start.nc`` and to ``landscape_start/``, at step 0: they are orders of
    magnitude away from those of a trained network, and would flatten its curves. All ranks share the work;
    only rank 0 writes. Weights, modes and random numbers of the training stay as they are.

    An analysis that was killed continues when the run is resumed, even if the training is complete. The
    initial weights exist only until the first step: a run that is resumed after an epoch says so if their
    file is missing or unfinished, and leaves it.

    The running statistics of a new network's batch norms, mean 0 and variance 1, are those of no data: with
    them gradients fade from layer to layer, while in the first step batch norm makes them grow. So the
    initial weights are measured with statistics estimated from the images, in a copy of the network. It is in
    float64, where the device has it, because rounding grows as the gradients do.

    The weights are the averaged ones where a callback of Lightning averages them, see
    :func:`~nas_lightning.callbacks.averaging.averaged_weights`.

    Args:
        split: Split whose images are measured. With loaders of your own, ``"test"`` is the validation's
            loader where the trainer has none for testing, and the training's where it has no other.
        max_samples: Number of its images, drawn without replacement; None for all.
        sample_seed: Seed of that draw.
        batch_size: Images in a batch.
        every_n_epochs: Measure after every n-th epoch too; None for no epoch but the last.
        at_start: Measure also the initial weights: before the first step, after the sanity check.
        at_end: Measure the last epoch.
        name: Beginning of the file's name; a second callback of the same class needs another one.
        folder: Where the files go; None is ``landscape/`` in the run's folder.
        speed: A level, see :mod:`nas_lightning.acceleration.level`; ``"auto"`` compiles where that pays off.
            Only ``"max"`` computes in bfloat16, which is noted in the file. A module without cells runs plain
            unless a level is named.
        loss: Maps the outputs and the targets of a batch to one loss for each sample, or to their mean; on
            the command line an import path. None is the cross entropy of the logits. Where the outputs are
            not logits ``[batch, classes]`` of integer targets, accuracies are NaN.

    Raises:
        ValueError: If a setting is out of range.
    """

    kind: ClassVar[str]

    def __init__(
        self,
        split: Literal["test", "val", "train"] = "test",
        max_samples: int | None = None,
        sample_seed: int = 0,
        batch_size: int = 250,
        every_n_epochs: int | None = None,
        at_start: bool = False,
        at_end: bool = True,
        name: str | None = None,
        folder: str | None = None,
        speed: Speed = "auto",
        loss: Callable[[Any, Any], Any] | None = None,
    ) -> None:
        check_speed(speed)
        for key, value in (
            ("max_samples", 1 if max_samples is None else max_samples),
            ("batch_size", batch_size),
            ("every_n_epochs", 1 if every_n_epochs is None else every_n_epochs),
        ):
            if not isinstance(value, int) or not 1 <= value < 2**31:
                raise ValueError(f"`{key}` (={value}) must be a number from 1 to 2**31 - 1")
        if not 0 <= sample_seed < 2**31:
            raise ValueError(f"`sample_seed` (={sample_seed}) must be from 0 to 2**31 - 1")
        if name is not None and (not name or Path(name).name != name):
            raise ValueError(f"`name` (={name!r}) must be usable as the beginning of a file name")
        if not (at_start or at_end or every_n_epochs):
            raise ValueError(
                "`at_end` (=False) leaves nothing to measure: set `at_start` or `every_n_epochs`"
            )
        self.split = split
        self.max_samples = max_samples
        self.sample_seed = sample_seed
        self.batch_size = batch_size
        self.every_n_epochs = every_n_epochs
        self.at_start = at_start
        self.at_end = at_end
        self.name = name or self.kind
        self.folder = folder
        self.speed: Speed = speed
        self.loss = loss
        self.checkpoint_epoch: int | None = None
        """Set to measure a checkpoint of that epoch after a validation; -1 for weights of unknown origin."""
        self.initial: str | None = None
        """Set to measure initial weights after a validation, to the end of the file's name."""
        self._has_trained = False

    @property
    def state_key(self) -> str:
        """One entry in a checkpoint for each name."""
        return f"{type(self).__qualname__}({self.name})"

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check before the training that the analysis can run after it."""
        self._has_trained = False
        self.check(trainer)
        self._rehearse(trainer, pl_module)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check before the validation of a checkpoint that the analysis can run after it."""
        if self.checkpoint_epoch is not None or self.initial is not None:
            self.check(trainer)
            self._rehearse(trainer, pl_module)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure the initial weights, if asked: the sanity check is over, no step is made."""
        self._has_trained = True
        if self.at_start and trainer.global_step == 0:
            with isolate_rng():
                self._run(trainer, pl_module, -1, START)
        elif self.at_start:
            self._say_if_start_is_lost(trainer)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure the epoch before, if it was chosen; its checkpoint is written, so a kill loses nothing."""
        epochs = trainer.current_epoch
        if self.every_n_epochs and epochs and epochs % self.every_n_epochs == 0:
            self._run(trainer, pl_module, epochs - 1)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure the last epoch: its checkpoint is written, the weights are on the device."""
        if self.at_end:
            self._run(trainer, pl_module, trainer.current_epoch - 1)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure a finished training that is resumed: the trainer then skips `on_train_end`."""
        if not self._has_trained and ending(trainer) is not None:
            if self.at_start:
                self._say_if_start_is_lost(trainer)
            if self.at_end:
                pl_module.to(trainer.strategy.root_device)  # the trainer has moved it to the CPU
                self._run(trainer, pl_module, trainer.current_epoch - 1)
                pl_module.cpu()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Measure a checkpoint, or initial weights."""
        if trainer.state.fn != "validate":
            return
        if self.initial is not None:
            self._run(trainer, pl_module, -1, self.initial)
        elif self.checkpoint_epoch is not None:
            self._run(trainer, pl_module, self.checkpoint_epoch)

    @abstractmethod
    def measure(self, context: AnalysisContext) -> None:
        """Measure, write the file and log; called on every rank, outside inference mode."""

    def rehearse(self, context: AnalysisContext) -> None:
        """Try on a few samples what `measure` needs, before anything is trained.

        Weights and random numbers stay as they are.

        Raises:
            ValueError: If the module cannot be measured, see
                :func:`nas_lightning.analysis.trial.check_evaluation`.
        """
        check_evaluation(context.network, *context.few_samples(), self.loss)

    @property
    def shuffled(self) -> bool:
        """Whether the images are read in random order."""
        return False

    def check(self, trainer: Trainer) -> None:
        """Check that the analysis can run, before anything is trained; the trainer's data is set up.

        Raises:
            ValueError: If the split, the strategy, the folder or another callback does not allow it.
        """
        check_data(trainer, self.split, self.max_samples)
        if not isinstance(trainer.strategy, SingleDeviceStrategy | DDPStrategy):
            raise ValueError(
                f"{type(self).__name__} needs the whole network on every rank: one device, or"
                f" `trainer.strategy` ddp, not {type(trainer.strategy).__name__}"
            )
        if self.folder is not None:
            check_writable(Path(self.folder))
        callbacks = trainer.callbacks  # type: ignore[attr-defined]
        if [c.name for c in callbacks if isinstance(c, Analysis)].count(self.name) > 1:
            raise ValueError(
                f"two callbacks write {self.name!r}: give one {type(self).__name__} another `name`"
            )

    def _say_if_start_is_lost(self, trainer: Trainer) -> None:
        path = self._folder(trainer) / f"{self.name}-{START}.nc"
        if not trainer.fast_dev_run and trainer.is_global_zero and not _is_complete(path):  # type: ignore[attr-defined]
            rank_zero_info(
                f"{path}: the initial weights are gone, the run is resumed from a checkpoint; `nas-lightning"
                " landscape` with the run's settings and no checkpoint measures them"
            )

    def _folder(self, trainer: Trainer) -> Path:
        root = run_folder(trainer)  # asks all ranks
        return Path(self.folder) if self.folder is not None else root / "landscape"

    def _rehearse(self, trainer: Trainer, pl_module: LightningModule) -> None:
        network = _network(pl_module)
        with isolate_rng(), torch.inference_mode(False):
            parameter = next(network.parameters())
            read = partial(self._batches, trainer, parameter.device, parameter.dtype, few=FEW)
            batches = read(self.split)
            context = AnalysisContext(
                trainer, pl_module, network, batches, -1, Path(), loss=self.loss, read_split=read
            )
            try:
                self.rehearse(context)
            except ValueError as error:
                raise ValueError(f"{type(self).__name__}: {error}") from error

    def _batches(
        self,
        trainer: Trainer,
        device: torch.device,
        dtype: torch.dtype,
        split: str,
        few: int | None = None,
    ) -> SplitBatches:
        """What is measured of a split, at most ``few`` samples of it."""
        return read_batches(
            trainer,
            split,
            max_samples=self.max_samples,
            sample_seed=self.sample_seed,
            batch_size=self.batch_size,
            shuffled=self.shuffled,
            device=device,
            dtype=dtype,
            few=few,
        )

    def _run(
        self, trainer: Trainer, pl_module: LightningModule, epoch: int, initial: str | None = None
    ) -> None:
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        folder = self._folder(trainer)
        _broadcast_statistics(trainer, pl_module)
        network = _network(pl_module)
        # `validate` is in inference mode.
        with torch.inference_mode(False), averaged_weights(trainer, pl_module):
            parameter = next(network.parameters())
            device, dtype = parameter.device, parameter.dtype
            group, moment = "landscape" if self.name == self.kind else self.name, ""
            if epoch >= 0:
                moment = f"-epoch{epoch:04d}"
            if initial is not None:
                group, moment = f"{group}_{initial}", f"-{initial}"
                dtype = dtype if device.type == "mps" else torch.float64
                network = copy.deepcopy(network).to(dtype)
            read = partial(self._batches, trainer, device, dtype)
            batches = read(self.split)
            if initial is not None:
                estimate_running_statistics(network, batches)
            path = folder / f"{self.name}{moment}.nc"
            context = AnalysisContext(
                *(trainer, pl_module, network, batches, epoch, path, group, initial is not None),
                *(self.loss, read),
            )
            lock = FileLock(folder / ".lock", timeout=0)
            context.on_rank_zero(lambda: _acquire(lock, folder))
            try:
                with sigterm_noted(trainer):
                    self.measure(context)
            finally:
                lock.release()


def _network(module: LightningModule) -> nn.Module:
    """The module to measure: the network of cells without its wrappers, or any other module itself."""
    network: Any = module.network if isinstance(module, CellModule) else module
    while (inner := getattr(network, "_orig_mod", None)) is not None or isinstance(network, nn.DataParallel):
        network = network.module if inner is None else inner
    assert isinstance(network, nn.Module)
    return network


def _broadcast_statistics(trainer: Trainer, module: LightningModule) -> None:
    """Give every rank the running statistics of rank 0, which are those of the checkpoint."""
    if isinstance(module, CellModule):
        module.broadcast_statistics()
    elif trainer.world_size > 1:
        for buffer in module.buffers():
            torch.distributed.broadcast(buffer.data, src=0)


def _is_complete(path: Path) -> bool:
    """Whether the file of an analysis is complete."""
    try:
        dataset = read_dataset(path)
    except (OSError, ValueError):
        return False
    return "done" not in dataset.variables or bool((dataset["done"].values == 1).all())


def _acquire(lock: FileLock, folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise ValueError(
            f"{folder} is being written by another process: wait for it, or name another `folder`"
        ) from None
    except OSError as error:
        raise OSError(error.errno, f"cannot write {folder}: {error.strerror}") from error
