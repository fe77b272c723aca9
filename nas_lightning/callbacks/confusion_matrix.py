"""Which classes are taken for which others, after a training and after an evaluation."""

from __future__ import annotations

import csv
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Int64
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info
from torch import Tensor

from nas_lightning.analysis import balanced_accuracy, most_confused
from nas_lightning.analysis.evaluation import FORWARD_ERRORS, has_classes
from nas_lightning.callbacks.ending import ending
from nas_lightning.callbacks.loader_batches import labelled_pair
from nas_lightning.callbacks.loader_classes import class_balance, has_uneven_classes
from nas_lightning.callbacks.loggers import log_figures, run_folder
from nas_lightning.callbacks.progress import beside_bars
from nas_lightning.callbacks.protocols import CellModule, evaluation_split
from nas_lightning.figures import draw_confusion_matrix, write_figure
from nas_lightning.files import atomic_write

_LONGEST_NAME = 40


class ConfusionMatrix(Callback):
    """Shows the confusion matrix of a training's last evaluation, and of each validation and test.

    Loggers get the picture ``confusion_matrix/SPLIT`` at the step of the evaluation's epoch, the log one line
    with the balanced accuracy and the pairs that are confused most often, and the run's folder
    ``confusion_matrix-SPLIT.csv``: a row of counts for each true class, a column for each predicted one.
    Without a logger the picture is a file beside it.

    It counts what the evaluation itself predicts, over all ranks; entries with target -1 do not count. It
    works with any module whose ``validation_step`` (``test_step``) returns ``{"logits": ...}``, of shape
    ``[batch, classes]``, as that of CellClassifier does. A module that returns no logits must give them from
    its ``forward``, which is then called once more for each batch. Of several loaders the first counts.

    Args:
        when: ``"always"``, or ``"uneven"``: only where the classes of the data are known to be uneven, see
            :class:`nas_lightning.class_balance.ClassBalance`. So CellClassifier brings it, and then there are
            no files where there is no logger.
        every_n_epochs: Show it after the evaluation of every n-th epoch too.
        folder: Where the files go; None is the run's folder.

    Raises:
        ValueError: If a setting is out of range.
    """

    def __init__(
        self,
        when: Literal["always", "uneven"] = "always",
        every_n_epochs: int | None = None,
        folder: str | None = None,
    ) -> None:
        if when not in ("always", "uneven"):
            raise ValueError(f"`when` (={when!r}) must be 'always' or 'uneven'")
        if every_n_epochs is not None and every_n_epochs < 1:
            raise ValueError(f"`every_n_epochs` (={every_n_epochs}) must be at least 1")
        self.when = when
        self.every_n_epochs = every_n_epochs
        self.folder = folder
        self.checkpoint: str | None = None
        """Name of the checkpoint that is evaluated, which the names of the files get; None adds nothing."""
        self._counts: Int64[Tensor, "classes predicted"] | None = None
        self._epoch = 0
        self._shown: int | None = None
        self._is_on = False
        self._has_trained = False

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse a training without evaluation."""
        self._has_trained, self._shown = False, None
        if self.when == "always" and not trainer.enable_validation:
            raise ValueError("ConfusionMatrix needs an evaluation: the trainer has no validation loader")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Decide whether there is something to show: the trainer's loaders are known."""
        self._has_trained = True
        self._decide(trainer)
        balance = class_balance(trainer)
        if balance is not None and not hasattr(trainer.datamodule, "class_balance"):  # type: ignore[attr-defined]
            data = trainer.datamodule  # type: ignore[attr-defined]
            for line in balance.lines("loaders" if data is None else type(data).__name__):
                rank_zero_info(line)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Count anew."""
        self._counts = None
        if trainer.state.fn != "fit" or trainer.sanity_checking:
            self._decide(trainer)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Count the samples of a batch."""
        if not self._is_on or dataloader_idx:
            return
        try:
            self._count(trainer, pl_module, outputs, batch)
        except ValueError as error:
            if self.when == "always":
                raise
            self._is_on, self._counts = False, None  # nobody asked for it
            rank_zero_info(str(error))

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the matrix of a validation, and of a chosen epoch."""
        if trainer.sanity_checking:
            self._counts = None  # of a few batches, before the training
            return
        self._epoch = trainer.current_epoch
        is_chosen = self.every_n_epochs is not None and (self._epoch + 1) % self.every_n_epochs == 0
        if trainer.state.fn == "validate" or is_chosen:
            self._show(trainer, pl_module, evaluation_split(trainer))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the matrix of the last evaluation."""
        if self._shown != self._epoch:
            self._show(trainer, pl_module, evaluation_split(trainer))

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say so if a finished training is resumed that was killed before its matrix was written."""
        if self._has_trained or ending(trainer) is None:
            return
        self._decide(trainer)
        if self._is_on and self._writes(trainer):
            path = self._path(trainer, evaluation_split(trainer))
            if trainer.is_global_zero and not path.is_file():
                rank_zero_info(f"{path} is missing: `nas-lightning validate` with the checkpoint writes it")

    on_test_start = on_validation_start
    on_test_batch_end = on_validation_batch_end

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the matrix of a test."""
        self._epoch = trainer.current_epoch
        self._show(trainer, pl_module, "test")

    def _decide(self, trainer: Trainer) -> None:
        """Note whether this trainer's evaluations are to be counted."""
        is_wanted = getattr(trainer, "logs_evaluation", True) and not trainer.fast_dev_run  # type: ignore[attr-defined]
        if is_wanted and self.when == "uneven":
            is_wanted = has_uneven_classes(trainer)
        self._is_on = bool(is_wanted)

    def _count(self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any) -> None:
        inputs, targets = labelled_pair(batch)
        name = type(module).__name__
        logits = outputs.get("logits") if isinstance(outputs, Mapping) else None
        if logits is None:
            try:
                with trainer.precision_plugin.val_step_context():
                    logits = module(inputs)
            except FORWARD_ERRORS as error:
                said = str(error).strip().partition("\n")[0]
                problem = f"its forward ends in {type(error).__name__}: {said}"
                raise ValueError(_needs_logits(name, problem)) from error
        if not has_classes(logits, targets):
            given = [
                f"{list(one.shape)} of {one.dtype}" if isinstance(one, Tensor) else type(one).__name__
                for one in (logits, targets)
            ]
            raise ValueError(_needs_logits(name, f"it gives {given[0]} for targets {given[1]}"))
        classes = logits.shape[1]
        cells = (targets * classes + logits.argmax(dim=1))[targets >= 0]
        counts = torch.bincount(cells, minlength=classes**2)
        if len(counts) > classes**2:
            raise ValueError(f"the target {int(targets.max())} is no class: {name} gives {classes} logits")
        counts = counts.view(classes, classes)
        self._counts = counts if self._counts is None else self._counts + counts

    def _show(self, trainer: Trainer, module: LightningModule, split: str) -> None:
        if self._counts is None:
            return
        # Tensors of inference mode cannot be summed in place outside of it.
        total = trainer.strategy.reduce(self._counts.clone(), reduce_op="sum")
        self._shown = self._epoch
        writes = self._writes(trainer)
        path = self._path(trainer, split)
        if not trainer.is_global_zero:
            return
        assert isinstance(total, Tensor)
        counts = total.cpu().numpy()
        balance = class_balance(trainer)
        names = None if balance is None else balance.names
        if names is None or len(names) != len(counts):
            names = tuple(map(str, range(len(counts))))
        text = f"balanced accuracy {balanced_accuracy(counts):.4f}"
        confused = _confused(counts, names)
        said = [f"confusion matrix of the {split} split: {text}", confused]
        if writes:
            facts = [*_facts(trainer, split), f"{counts.sum():,} samples", text]
            title = module.genotype_name if isinstance(module, CellModule) else type(module).__name__
            try:
                write_matrix(path, counts, names)
                said.append(str(path))
                note = "; ".join(filter(None, [", ".join(facts), confused]))
                figure = draw_confusion_matrix(counts, names, title=title, note=note)
                if trainer.loggers:
                    tags = {f"confusion_matrix/{split}": figure}
                    log_figures(trainer.loggers, tags, self._epoch, path.parent)
                else:
                    write_figure(figure, path.with_suffix(".png"))
            except OSError as error:
                if self.when == "always" or trainer.state.fn == "fit":
                    raise
                said.append(str(error))  # an evaluation of a run in a folder that nobody may write
        with beside_bars(sys.stderr):
            rank_zero_info("; ".join(filter(None, said)))

    def _writes(self, trainer: Trainer) -> bool:
        return bool(trainer.loggers) or self.when == "always" or self.folder is not None

    def _path(self, trainer: Trainer, split: str) -> Path:
        folder = run_folder(trainer) if self.folder is None else Path(self.folder)  # asks all ranks
        names = ["confusion_matrix", split, *([] if self.checkpoint is None else [self.checkpoint])]
        return folder / f"{'-'.join(names)}.csv"


def write_matrix(path: Path, counts: Int64[np.ndarray, "classes predicted"], names: tuple[str, ...]) -> None:
    """Write the counts atomically as CSV: a row for each true class, a column for each predicted one.

    Read it with ``pandas.read_csv(path, index_col=0)``.
    """
    with atomic_write(path) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["true class", *names])
        writer.writerows([name, *row] for name, row in zip(names, counts.tolist(), strict=True))


def _facts(trainer: Trainer, split: str) -> list[str]:
    """What the picture says of the data and the training."""
    name = getattr(trainer.datamodule, "name", None)  # type: ignore[attr-defined]
    epochs = trainer.current_epoch if trainer.state.fn == "fit" else 0
    trained = [f"after {epochs} epoch{'s' * (epochs > 1)}"] if epochs else []
    return [*([name] if isinstance(name, str) else []), f"{split} split", *trained]


def _confused(counts: Int64[np.ndarray, "classes predicted"], names: tuple[str, ...]) -> str:
    """The pairs that are confused most often, in words."""
    short = [name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…" for name in names]
    samples = counts.sum(axis=1)
    pairs = [
        f"{short[true]} for {short[predicted]} ({counts[true, predicted]:,} of {samples[true]:,})"
        for true, predicted in most_confused(counts, 3)
    ]
    return f"most often mistaken: {', '.join(pairs)}" if pairs else ""


def _needs_logits(name: str, problem: str) -> str:
    """The line about a module whose logits cannot be counted."""
    return (
        "ConfusionMatrix needs logits [batch, classes] and the number of a class for each sample."
        f" {name}: {' '.join(problem.split())}; let its validation_step return {{'logits': logits}}"
    )
