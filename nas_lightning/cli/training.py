"""`nas-lightning fit`, `validate` and `test`: LightningCLI with run folders and checkpoints that agree."""

from __future__ import annotations

import logging
import os
import re
import sys
import traceback
import warnings
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from filelock import FileLock
from jsonargparse import Namespace
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.cli import LightningArgumentParser, SaveConfigCallback
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only

from nas_lightning import callbacks
from nas_lightning.callbacks.own_code import OwnCode
from nas_lightning.cells import genotype_notes
from nas_lightning.classifier import CellClassifier
from nas_lightning.cli.closing import fit_end, metrics_text, say_end
from nas_lightning.cli.curve import named_ends
from nas_lightning.cli.deciding import TRAINER_DEFAULTS, decisive, plain_settings
from nas_lightning.cli.launcher import check_tasks
from nas_lightning.cli.main import SUBCOMMANDS
from nas_lightning.cli.messages import is_user_error, one_line, plain_message, trainer_message
from nas_lightning.cli.own_classes import code_setting, own_code
from nas_lightning.cli.run_folder import check_run_folder, lock_folder
from nas_lightning.cli.training_settings import TrainingSettingsCLI
from nas_lightning.cli.weights import load_weights
from nas_lightning.curve_classifier import CurveClassifier
from nas_lightning.datamodules import ImageDataModule
from nas_lightning.datamodules.download import files_at_hand
from nas_lightning.files import FULL_DISK, atomic_write
from nas_lightning.identity import as_list


class SaveRunConfig(SaveConfigCallback):
    """Writes ``config.yaml`` into the run's folder: the settings of the run, or of its last resumption."""

    def __init__(self, parser: LightningArgumentParser, config: Namespace, *, folder: Path) -> None:
        super().__init__(parser, config)
        self.folder = folder
        settings = config.clone()
        del settings["ckpt_path"]  # as null it would undo an option that stands before `--config`
        for name in ("weights", "extend"):
            if settings.get(name) is None or name == "extend":
                settings.pop(name, None)
        self.text = parser.dump(settings, skip_none=False)
        # A spawned process cannot be sent the command line that they hold.
        del self.parser, self.config

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write the settings without ``ckpt_path``."""
        if trainer.is_global_zero:
            with atomic_write(self.folder / self.config_filename) as file:
                file.write(self.text)


class TrainingCLI(TrainingSettingsCLI):
    """The command line of a training.

    Beyond LightningCLI, every run has a stable folder (``default_root_dir/experiment/run``) that no other run
    overwrites, a checkpoint brings its settings, and settings that contradict it are refused.
    """

    model: CellClassifier
    datamodule: ImageDataModule
    trainer: Trainer

    def __init__(self, arguments: list[str], trainer_class: type[Trainer] = Trainer) -> None:
        self._lock: FileLock | None = None
        self._was_finished = False
        self.ends = named_ends(arguments)
        callbacks.keep_log_beside_bars()
        fitting = arguments[0] == "fit"
        usage = {
            "usage": f"nas-lightning {arguments[0]} [--config FILE ...] [--KEY VALUE ...]",
            "description": f"{SUBCOMMANDS[arguments[0]][1]}.",
        }
        super().__init__(
            arguments,
            model_class=CellClassifier if self.ends is None else CurveClassifier,
            datamodule_class=ImageDataModule,
            subclass_mode_data=True,
            trainer_class=trainer_class,
            parser_kwargs={arguments[0]: usage},
            save_config_callback=SaveRunConfig if fitting else None,
            save_config_kwargs={},
            trainer_defaults=TRAINER_DEFAULTS,
            seed_everything_default=0,
            auto_configure_optimizers=False,
        )

    def after_fit(self) -> None:
        """Say what came out, where it is and what to do next."""
        folder = self.run_folder
        writes = self.trainer.is_global_zero and not self.settings.trainer.fast_dev_run
        if writes and (folder / "result.json").is_file():
            result, commands = fit_end(folder)
            say_end(result + "; it was finished before" * self._was_finished, folder, commands)

    def after_validate(self) -> None:
        """Print the metrics, one a line, and what they are of."""
        if not self.trainer.is_global_zero:
            return
        callbacks.evaluated_part(self.trainer, "test" if self.subcommand == "test" else "val")
        metrics = self.trainer.callback_metrics
        for name, value in metrics.items():
            print(f"{name} {float(value):.6f}")
        split = "test" if self.subcommand == "test" else self.datamodule.evaluation_split
        file = self.settings.ckpt_path or self.settings.reference_weights
        say_end(metrics_text(metrics, split), file, kind="file")

    after_test = after_validate

    def instantiate_classes(self) -> None:
        """Make data, model and trainer; errors in their arguments become one line."""
        self._own_code = own_code(self.settings.as_dict())
        self.settings.code = code_setting(self._own_code)
        try:
            super().instantiate_classes()
        except ValueError as error:
            raise ValueError(plain_message(str(error), ())) from error
        except Exception as error:
            if is_user_error(error) or self.settings.ckpt_path is None:
                raise
            raise self.unusable(error) from error
        for note in genotype_notes(self.settings.model.genotype):
            rank_zero_info(f"note: {note}")

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Make the trainer with the run's logger, callbacks and atomic checkpoints."""
        subcommand = self.config["subcommand"]
        settings = self.config_init[subcommand]["trainer"]
        # The summary's line comes before the progress bar is drawn.
        own: list[Callback] = [callbacks.CellSummary()] if subcommand == "fit" else []
        own += as_list(settings["callbacks"])
        if settings["enable_progress_bar"] is not False and not any(isinstance(c, ProgressBar) for c in own):
            # Before the analyses, so that its bar ends before theirs begin.
            own.insert(1 if subcommand == "fit" else 0, callbacks.TrainingProgress())
        folder = self.run_folder
        # Lightning looks for the checkpoint of a requeued job, and puts files of no logger, into this folder.
        kwargs["default_root_dir"] = str(folder)
        for analysis in [callback for callback in own if isinstance(callback, callbacks.Analysis)]:
            analysis.folder = analysis.folder or str(folder / "landscape")
        if subcommand != "fit":
            kwargs.setdefault("logger", False)
            kwargs.setdefault("enable_checkpointing", False)
        else:
            if settings["logger"] in (None, True):
                kwargs["logger"] = run_logger(folder)
            if not settings["fast_dev_run"]:
                deciding = decisive(plain_settings(self.settings.as_dict()))
                own = [callbacks.ExactResume(), *own, callbacks.RunRecord(folder, deciding, self._origin)]
                own += [OwnCode(self._own_code)] if self._own_code else []
                self.save_config_kwargs["folder"] = folder
                if settings["enable_checkpointing"] is not False:
                    split = self.datamodule.evaluation_split
                    own += callbacks.run_checkpoints(folder / "checkpoints", split)
                    own.append(callbacks.Requeue(folder / "checkpoints"))
        own = self._with_confusion_matrix(own)
        kwargs["plugins"] = [*as_list(settings["plugins"]), callbacks.AtomicCheckpointIO()]
        try:
            trainer: Trainer = super().instantiate_trainer(callbacks=own, **kwargs)
        except Exception as error:
            if not is_user_error(error) and not isinstance(error, ImportError | TypeError):
                raise
            message = trainer_message(one_line(error), self.settings.trainer.as_dict())
            if message is None:
                raise
            raise ValueError(message) from error
        if isinstance(trainer._accelerator_connector.cluster_environment, SLURMEnvironment):
            check_tasks(os.environ, trainer.world_size)
        callbacks.answer_between_batches(trainer)
        # It came from the environment, where it may be another program's.
        rank_zero_only.rank = trainer.global_rank  # type: ignore[attr-defined]
        return trainer

    def _with_confusion_matrix(self, own: list[Callback]) -> list[Callback]:
        """The callbacks with the confusion matrix first: analyses after a training may take hours."""
        found = [callback for callback in own if isinstance(callback, callbacks.ConfusionMatrix)]
        folder, subcommand = self.run_folder, self.config["subcommand"]
        # An evaluation of weights that belong to no run makes no folder.
        if not found and (subcommand == "fit" or (subcommand != "landscape" and folder.is_dir())):
            found = [callbacks.ConfusionMatrix(when="uneven")]
        file = self.settings.ckpt_path or self.settings.get("reference_weights")
        for callback in found:
            callback.folder = callback.folder or str(folder)
            if subcommand != "fit" and file is not None and Path(file).stem != "last":
                callback.checkpoint = Path(file).stem  # that of the last epoch stays
        return [*found, *(callback for callback in own if callback not in found)]

    def before_fit(self) -> None:
        """Prepare the data before the run writes anything, and lock its folder."""
        for callback in self._requeues:
            callback.listen(self.trainer)
        balanced = self._check_monitors()
        if not self.trainer.is_global_zero:
            return
        writes = not self.settings.trainer.fast_dev_run
        if writes:
            self._check_run_folder()
        self.datamodule.trainer = self.trainer
        self.datamodule.prepare_data()
        self.datamodule.setup("fit")
        if balanced and not self.datamodule.class_balance.is_uneven:
            raise ValueError(
                f"`monitor` (={balanced[0]}) is a metric of uneven classes, and those of"
                f" {self.datamodule.name} are even: follow accuracy/{self.datamodule.evaluation_split}"
            )
        if writes:
            self._lock = lock_folder(self.run_folder)  # until the training ends, however it does
            self._check_run_folder()  # another process may have finished a run there meanwhile
            self._was_finished = (self.run_folder / "result.json").is_file()

    def _check_monitors(self) -> list[str]:
        """Refuse what waits for a metric that this training cannot have.

        Returns:
            What is waited for and depends on the data: the balanced accuracy, or nothing.
        """
        metrics, balanced = list(self.model.training_metrics), []
        if self.trainer.limit_val_batches:
            split = self.datamodule.evaluation_split
            metrics += [f"{name}/{split}" for name in self.model.evaluation_metrics]
            balanced = [f"balanced_accuracy/{split}"]
        schedule = self.settings.model.get("lr_scheduler.init_args.monitor")
        return callbacks.check_monitors(self.trainer.callbacks, metrics, schedule, balanced)  # type: ignore[attr-defined]

    def _check_run_folder(self) -> None:
        """Refuse a folder of another run."""
        check_run_folder(self.run_folder, self.settings.ckpt_path, may_start=self._may_start)

    @property
    def _requeues(self) -> list[callbacks.Requeue]:
        """The trainer's answers to SLURM's signal: one, or none."""
        return [callback for callback in self.trainer.callbacks if isinstance(callback, callbacks.Requeue)]  # type: ignore[attr-defined]

    def _run_subcommand(self, subcommand: str) -> None:
        # The data may be gone from where the checkpoint was trained: nobody meant to download them.
        needs_files = self._data_is_remembered and subcommand != "fit"
        try:
            with files_at_hand(self.datamodule) if needs_files else nullcontext():
                super()._run_subcommand(subcommand)
        except SystemExit:  # Lightning's bare answer to signals
            if any(callback.requeued for callback in self._requeues):
                print("nas-lightning: stopped to be requeued; the same command resumes", file=sys.stderr)
                raise SystemExit(callbacks.REQUEUE_EXIT_CODE) from None
            by, code = ("SIGTERM", 143) if self.trainer.received_sigterm else ("Ctrl-C", 130)
            if not (self.trainer.received_sigterm or self.trainer.interrupted):
                raise
            how = "`--ckpt_path last`" if subcommand == "fit" else "the same command"
            print(f"nas-lightning: stopped by {by}; resume with {how}", file=sys.stderr)
            raise SystemExit(code) from None
        except OSError as error:
            if error.errno not in FULL_DISK:
                if (failed := self._failed_logger(error)) is None:
                    raise
                raise failed from error
            again = "resume with `--ckpt_path last`" if subcommand == "fit" else "repeat the command"
            raise OSError(error.errno, f"{one_line(error)}; make room, then {again}") from error
        except Exception as error:
            if self.trainer.world_size > 1 and _is_broken_connection(error):
                again = "resume with `--ckpt_path last`" if subcommand == "fit" else "repeat the command"
                raise ConnectionError(
                    "another process of this training has ended, and this one cannot go on alone: see what it"
                    f" says, then {again}"
                ) from error
            if (failed := self._failed_logger(error)) is not None:
                raise failed from error
            if not _is_restoring(error) or (is_user_error(error) and "checkpoint" in str(error)):
                raise
            raise self.unusable(error) from error
        finally:
            for callback in self._requeues:
                callback.stop_listening()
            if self._lock is not None:
                self._lock.release()

    def _failed_logger(self, error: Exception) -> ValueError | None:
        """The line for an error of a logger of the user's, as of a server that is gone; None: of another."""
        logger = failing_logger(error)
        if logger is None or type(logger).__module__.startswith("nas_lightning."):
            return None
        again = ""
        if (self.run_folder / "checkpoints" / "last.ckpt").is_file():
            again = "; resume with `--ckpt_path last`, without this logger if need be"
        return ValueError(
            f"`trainer.logger`: {type(logger).__name__} failed: {type(error).__name__}:"
            f" {one_line(error)}{again}"
        )

    def after_instantiate_classes(self) -> None:
        """Refuse data and a network that do not fit together."""
        given = self.settings.model.get("num_classes")
        if given is not None and given != self.datamodule.num_classes:
            raise ValueError(
                f"`model.num_classes` (={given}) follows from the data set: {self.datamodule.name} has"
                f" {self.datamodule.num_classes} classes; leave it out"
            )
        self.model.check_epochs(self.trainer.max_epochs)
        self.model.make_optimizer()
        self.model.network.check_image_size(self.datamodule.image_size)
        if isinstance(self.model, CurveClassifier) and self.settings.ckpt_path is None:
            self.model.load_ends()
        key = "weights" if self.config["subcommand"] == "fit" else "reference_weights"
        file = self.settings.get(key)
        if file is not None and self.settings.ckpt_path is None:
            said = load_weights(self.model.network, key, file, anew=key == "weights")
            for sentence in (f"taken from {file}", *said):
                rank_zero_info(f"{key}: {sentence}")
            self._origin |= {"weights": file, "weights_read": list(said)}


def run_logger(folder: Path) -> TensorBoardLogger:
    """The logger whose files lie in a run's folder."""
    from nas_lightning.callbacks.event_logger import EventLogger  # only then TensorBoard is imported

    return EventLogger(
        folder.parent.parent, name=folder.parent.name, version=folder.name, default_hp_metric=False
    )


def failing_logger(error: BaseException) -> Logger | None:
    """The logger in whose method an error was raised, unless it is a fault of code such as a wrong name."""
    if isinstance(error, AssertionError | AttributeError | LookupError | NameError | TypeError):
        return None
    owners = [frame.f_locals.get("self") for frame, _ in traceback.walk_tb(error.__traceback__)]
    return next((owner for owner in owners if isinstance(owner, Logger)), None)


def _is_restoring(error: BaseException) -> bool:
    """Whether Lightning raised an error while it restored a checkpoint, whose contents must be at fault."""
    frames = traceback.extract_tb(error.__traceback__)
    names = {frame.name for frame in frames if Path(frame.filename).stem == "checkpoint_connector"}
    return any("restore" in name or "resume" in name for name in names)


def _is_broken_connection(error: BaseException) -> bool:
    """Whether a collective of the ranks failed since one of them is gone."""
    is_gone = re.search(r"Connection (reset|closed) by peer|Broken pipe|remote process exited", str(error))
    return isinstance(error, RuntimeError) and is_gone is not None


def main(arguments: list[str]) -> None:
    """Run `fit`, `validate` or `test`, the first of the arguments."""
    silence_advice()
    TrainingCLI(arguments)


def silence_advice() -> None:
    """Silence Lightning's advice on other products and on its own code."""
    warnings.filterwarnings("ignore", ".*Checkpoint directory .* exists and is not empty.*")
    warnings.filterwarnings("ignore", ".*callbacks used to create the checkpoint need to be provided.*")
    warnings.filterwarnings("ignore", r".*isinstance\(treespec, LeafSpec\).*")
    warnings.filterwarnings("ignore", ".*have no logger configured.*")
    silent = (
        "Tip: For seamless",
        "was configured so 100% of the batches will be used",
        "will override existing callbacks passed to Trainer: DropPathSchedule",
    )
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(
        lambda record: not any(text in record.getMessage() for text in silent)
    )
