"""The record of a run: curves in TensorBoard, ``metrics.csv`` and ``result.json``."""

from __future__ import annotations

import csv
import json
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_info

from nas_lightning.callbacks.ending import ending, is_within_epoch
from nas_lightning.callbacks.loader_batches import data_name
from nas_lightning.callbacks.loader_classes import class_balance
from nas_lightning.callbacks.loggers import log_settings, run_folder
from nas_lightning.callbacks.protocols import ImageData, cell_module, evaluation_split
from nas_lightning.callbacks.run_settings import chosen_settings, run_settings
from nas_lightning.files import atomic_write
from nas_lightning.identity import identity_hash
from nas_lightning.provenance import run_seed, software_versions, weights_hash

Row: TypeAlias = dict[str, int | float]
"""Metrics of an epoch by tag, and the epoch."""


class RunRecord(Callback):
    """Records a training, one row an epoch, and its result.

    Every epoch's row goes to all loggers (at step = epoch, from 0) and to ``metrics.csv`` in the run's
    folder. The rows are part of the checkpoint, so that a run that was killed and resumed has each epoch
    once. At the end, ``result.json`` holds final and best metrics, sizes and provenance, and TensorBoard's
    hyperparameter table gets the run. Both files are written atomically, by rank 0.

    Args:
        folder: The run's folder; None is that of the trainer's first logger, and without a logger there are
            no files. A CSVLogger keeps the rows in its own ``metrics.csv``.
        deciding: The settings that decide the training, with dotted keys. ``result.json`` keeps them and
            their hash, by which a study knows the training; None: it keeps neither.
        origin: What ``result.json`` says of the weights that the training started from, or of the shorter
            run that it makes longer; it may be filled until the training starts.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str] | None = None,
        deciding: Mapping[str, Any] | None = None,
        origin: Mapping[str, Any] | None = None,
    ) -> None:
        self.folder = None if folder is None else Path(folder)
        self._follows_logger = folder is None
        self._image_size: int | None = None
        self.deciding = deciding
        self._origin: Mapping[str, Any] = {} if origin is None else origin
        self.rows: list[Row] = []
        self._evaluation: Row = {}
        self._learning_rate = 0.0
        self._images = 0
        self._training_time = 0.0
        self._started = 0.0
        self._ended: str | None = None
        self._part: dict[str, Any] | None = None
        self._has_trained = False

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Give the loggers the settings; TensorBoard writes its ``hparams.yaml`` soon after."""
        if stage != "fit":
            return
        if trainer.current_epoch == 0:
            self.rows = []  # of an earlier training by the same trainer
        if self._follows_logger:
            is_logged = bool(trainer.loggers) and not trainer.fast_dev_run  # type: ignore[attr-defined]
            self.folder = run_folder(trainer) if is_logged else None
        if trainer.loggers:
            log_settings(trainer.loggers, chosen_settings(trainer, pl_module))

    def state_dict(self) -> dict[str, Any]:
        """The rows so far, what is known of the next one, and what decides the training."""
        so_far = {
            "evaluation": dict(self._evaluation),
            "learning_rate": self._learning_rate,
            "images": self._images,
            "training_time": self._training_time,
        }
        deciding = None if self.deciding is None else dict(self.deciding)
        rows, origin = [dict(row) for row in self.rows], dict(self._origin)
        return {"rows": rows, "epoch_so_far": so_far, "deciding": deciding, "origin": origin}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue the rows of a checkpoint."""
        self._origin = {**(state_dict.get("origin") or {}), **self._origin}
        self.rows = [dict(row) for row in state_dict["rows"]]
        if not all(isinstance(value, int | float) for row in self.rows for value in row.values()):
            raise ValueError("the checkpoint's record has a row with a value that is no number")
        so_far = state_dict.get("epoch_so_far")
        if so_far is not None:  # an earlier version kept whole epochs only
            self._evaluation = dict(so_far["evaluation"])
            self._learning_rate = so_far["learning_rate"]
            self._images = so_far["images"]
            self._training_time = so_far["training_time"]

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Say so if the training was stopped here, before its last epoch or step."""
        if trainer.should_stop and not is_within_epoch(trainer):
            checkpoint["ended"] = self._ended or ending(trainer)

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Do not train past the end of a training that was stopped early.

        A plain trainer, for which nobody made this record, goes as far as it is told.
        """
        if self._follows_logger:
            return
        self._ended = checkpoint.get("ended")
        if self._ended is not None:
            trainer.should_stop = True

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say so if less than the whole split is evaluated."""
        self._part = evaluated_part(trainer, "val")
        self._has_trained = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock, also where a training goes on within an epoch."""
        self._has_trained = True
        self._started = time.perf_counter() - self._training_time

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock, and note the learning rate before the schedule steps."""
        self._evaluation = {}
        self._images = 0
        self._learning_rate = float(trainer.optimizers[0].param_groups[0]["lr"])
        self._started = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count images, and stop the clock in case this is the epoch's last batch."""
        self._image_size = int(batch[0].shape[-1])
        self._images += len(batch[1]) * trainer.world_size
        if trainer.is_last_batch and pl_module.device.type == "cuda":
            torch.cuda.synchronize(pl_module.device)
        self._training_time = time.perf_counter() - self._started

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep this epoch's evaluation, which the trainer would repeat in epochs without one."""
        if trainer.training or trainer.state.fn == "fit":
            self._evaluation = _values(trainer, suffix=f"/{evaluation_split(trainer)}")

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Add the epoch's row, on every rank: reading the metrics adds them up over the ranks."""
        row = {
            **_values(trainer, suffix="/train"),
            **self._evaluation,
            "learning_rate": self._learning_rate,
            "drop_path_probability": float(cell_module(pl_module).network.drop_path_probability),
            "images_per_second": self._images / max(self._training_time, 1e-9),
        }
        self.rows.append({"epoch": trainer.current_epoch, **row})
        # Before the loggers, which may fail: a server that is gone.
        if trainer.is_global_zero and self.folder is not None and not _has_own_csv(trainer, self.folder):
            _write_csv(self.folder / "metrics.csv", self.rows)
        for logger in trainer.loggers:
            logger.log_metrics(row, step=trainer.current_epoch)
            logger.save()
            if trainer.is_global_zero and isinstance(logger, TensorBoardLogger):
                logger.experiment.flush()

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the result; also for a finished run that was killed before it had one and is resumed.

        The record of a finished run stays as it is: it says where and with what the run was trained.
        """
        if not trainer.is_global_zero or not self.rows:
            return
        if self.folder is not None and not self._has_trained:
            if not _has_own_csv(trainer, self.folder):
                _write_csv(self.folder / "metrics.csv", self.rows)
            if _is_result_of(self.folder / "result.json", len(self.rows)):
                return
        result = self._result(trainer, pl_module)
        if self.folder is not None:
            with atomic_write(self.folder / "result.json") as file:
                json.dump(_finite(result), file, indent=2, allow_nan=False)
                file.write("\n")
        table = chosen_settings(trainer, pl_module)
        table |= {f"cell.{name}": value for name, value in result["cell"].items() if name != "genotype"}
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.log_hyperparams(table, _outcome(result), step=int(self.rows[-1]["epoch"]))
                logger.save()

    def _result(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """What ``result.json`` holds."""
        module, split = cell_module(pl_module), evaluation_split(trainer)
        data: object = trainer.datamodule  # type: ignore[attr-defined]
        images = data if isinstance(data, ImageData) else None
        size = images.image_size if images is not None else self._image_size
        cell = {} if size is None else module.cell_description(size)
        ended = self._ended or ending(trainer)
        balance = class_balance(trainer)
        uneven = balance.record() if balance is not None and balance.is_uneven else {}
        result = {
            "finished": ended is not None,
            "ended": ended,
            "epochs": len(self.rows),
            "evaluation_split": split,
            **({} if self._part is None else {"evaluated_part": self._part}),
            "final": {name: value for name, value in self.rows[-1].items() if name != "epoch"},
            "best": _best(self.rows, f"accuracy/{split}"),
            "cell": {"genotype": str(module.genotype), **cell},
            "settings": run_settings(trainer, pl_module),
            "provenance": {
                "seed": run_seed(),
                "weights_sha256": weights_hash(module.network.state_dict()),
                "device": str(trainer.strategy.root_device),
                "versions": software_versions(),
                "data": {
                    "name": data_name(trainer, "train"),
                    "split_sizes": {} if images is None else images.split_sizes,
                    **({"class_balance": uneven} if uneven else {}),
                },
            },
        }
        if self._origin:
            result["origin"] = dict(self._origin)
        if self.deciding is not None:
            result |= {"identity": identity_hash(self.deciding), "deciding": dict(self.deciding)}
        return result


def evaluated_part(trainer: Trainer, stage: Literal["val", "test"]) -> dict[str, Any] | None:
    """What is evaluated where the trainer limits the batches, with a line that says so; None: all of it."""
    data: Any = trainer.datamodule  # type: ignore[attr-defined]
    describe = getattr(data, "describe_evaluation", None)
    part: dict[str, Any] | None = None if describe is None else describe(stage)
    if part is not None:
        images = "images" if part["images"] is None else f"{part['images']} images"
        rank_zero_info(
            f"{data.name}: `trainer.limit_{stage}_batches` evaluates {images} of the {part['of']} of the"
            f" {part['split']} split, {part['chosen']}"
        )
    return part


def _outcome(result: Mapping[str, Any]) -> dict[str, float]:
    """The results in TensorBoard's table of hyperparameters."""
    split, final, best = result["evaluation_split"], result["final"], result["best"]
    accuracy, *others = (f"{name}/{split}" for name in ("accuracy", "balanced_accuracy", "loss"))
    outcome = {f"final/{name}": final[name] for name in (accuracy, *others) if name in final}
    return outcome | ({f"best/{accuracy}": best[accuracy]} if best else {})


def _values(trainer: Trainer, suffix: str) -> Row:
    return {name: float(value) for name, value in trainer.callback_metrics.items() if name.endswith(suffix)}


def _best(rows: list[Row], metric: str) -> Row:
    evaluated = [row for row in rows if not math.isnan(row.get(metric, math.nan))]
    return dict(max(evaluated, key=lambda row: row[metric])) if evaluated else {}


def _has_own_csv(trainer: Trainer, folder: Path) -> bool:
    """Whether a logger keeps its own ``metrics.csv`` in the folder."""
    files = [logger for logger in trainer.loggers if isinstance(logger, CSVLogger)]
    return any(Path(logger.log_dir).absolute() == folder.absolute() for logger in files)


def _is_result_of(path: Path, epochs: int) -> bool:
    """Whether a file is the whole result of a finished training of this number of epochs."""
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    if not isinstance(result, dict) or not isinstance(result.get("final"), dict):
        return False
    return result.get("finished") is True and result.get("epochs") == epochs


def _write_csv(path: Path, rows: list[Row]) -> None:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with atomic_write(path) as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _finite(value: Any) -> Any:
    """JSON has no NaN and no infinity: such numbers become strings and stay visible."""
    if isinstance(value, dict):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
