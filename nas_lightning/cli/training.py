"""`nas-lightning fit`, `validate` and `test`: LightningCLI with run folders and checkpoints that agree."""

from __future__ import annotations

import logging
import os
import sys
import traceback
import warnings
from argparse import SUPPRESS
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from filelock import FileLock
from jsonargparse import Namespace
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only

from nas_lightning import callbacks
from nas_lightning.cells import genotype_notes, get_genotype, import_operations
from nas_lightning.classifier import CellClassifier
from nas_lightning.cli.callback_arguments import callbacks_argument, split_callback_arguments
from nas_lightning.cli.checkpoint_settings import CheckpointSettings, read_checkpoint_settings
from nas_lightning.cli.closing import fit_end, say_end
from nas_lightning.cli.config_files import with_included_files
from nas_lightning.cli.deciding import TRAINER_DEFAULTS, decisive, plain_settings
from nas_lightning.cli.extension import plan_extension
from nas_lightning.cli.launcher import check_tasks, draw_seed, has_slurm_tasks, is_requeued
from nas_lightning.cli.main import SUBCOMMANDS
from nas_lightning.cli.messages import is_user_error, one_line, plain_message
from nas_lightning.cli.own_classes import OwnCode, code_setting, own_code, with_own_classes
from nas_lightning.cli.run_folder import (
    actual_folder,
    check_folder_name,
    check_path,
    check_run_folder,
    checkpoint_file,
    drawn_run,
    is_given,
    latest_checkpoint,
    lock_folder,
    named_folder,
)
from nas_lightning.cli.setting_names import class_names, count_batches, known_settings, refuse_missing_values
from nas_lightning.cli.weights import architecture_of, load_weights
from nas_lightning.datamodules import ImageDataModule
from nas_lightning.datamodules.download import files_at_hand
from nas_lightning.files import FULL_DISK, atomic_write
from nas_lightning.identity import as_list, differing_settings

_ROOT_KEYS = ("data.root", "data.init_args.root")


class OneLineErrorParser(LightningArgumentParser):
    """A parser whose errors are one line instead of a page of usage."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise the parser's message as a ValueError in one line."""
        raise ValueError(plain_message(message, known_settings(self), class_names)) from ex


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


class TrainingCLI(LightningCLI):
    """The command line of a training.

    Beyond LightningCLI, every run has a stable folder (``default_root_dir/experiment/run``) that no other run
    overwrites, a checkpoint brings its settings, and settings that contradict it are refused.
    """

    model: CellClassifier
    datamodule: ImageDataModule
    trainer: Trainer

    def __init__(self, arguments: list[str], trainer_class: type[Trainer] = Trainer) -> None:
        self.arguments = arguments
        self._lock: FileLock | None = None
        self._seed_is_drawn = False
        self._data_is_remembered = False
        self._origin: dict[str, Any] = {}
        fitting = arguments[0] == "fit"
        usage = {
            "usage": f"nas-lightning {arguments[0]} [--config FILE ...] [--KEY VALUE ...]",
            "description": f"{SUBCOMMANDS[arguments[0]][1]}.",
        }
        super().__init__(
            model_class=CellClassifier,
            datamodule_class=ImageDataModule,
            subclass_mode_data=True,
            trainer_class=trainer_class,
            parser_class=OneLineErrorParser,
            parser_kwargs=dict.fromkeys(self.subcommands(), usage),
            save_config_callback=SaveRunConfig if fitting else None,
            save_config_kwargs={},
            trainer_defaults=TRAINER_DEFAULTS,
            seed_everything_default=0,
            auto_configure_optimizers=False,
        )

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """The subcommands, with those arguments of the trainer's method that the command line supplies."""
        return {
            "fit": {"model", "train_dataloaders", "val_dataloaders", "datamodule"},
            "validate": {"model", "dataloaders", "datamodule"},
            "test": {"model", "dataloaders", "datamodule"},
        }

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the run's names, and take the number of classes from the data."""
        parser.add_argument(
            "--experiment",
            type=str | None,
            default=None,
            help="Folder of related runs under trainer.default_root_dir (default: the data set's name).",
        )
        parser.add_argument(
            "--run",
            type=str | None,
            default=None,
            help="Folder of this run in the experiment (default: the genotype spec, and the seed unless 0).",
        )
        parser.add_argument(
            "--code",
            type=list[str],
            default=[],
            help="Python files or folders with classes of your own, beside the working folder.",
        )
        fitting = self.arguments[0] == "fit"
        weights = "Start from these weights: a checkpoint, or a state dict of the DARTS family of code."
        # Evaluations take the settings of a run, which say what it started from.
        parser.add_argument("--weights", type=str | None, default=None, help=weights if fitting else SUPPRESS)
        if fitting:
            parser.add_argument(
                "--extend",
                type=int | None,
                default=None,
                help="Make a finished run so many epochs longer, or start anew from its weights.",
            )
        else:
            parser.add_argument(
                "--reference_weights",
                type=str | None,
                default=None,
                help="State dict written by the DARTS family of code, in place of a checkpoint.",
            )
        parser.set_defaults({"data": {"class_path": "nas_lightning.datamodules.Digits"}})
        count_batches(parser)
        parser.link_arguments("data.num_classes", "model.num_classes", apply_on="instantiate")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse the arguments given to the constructor rather than those of the process."""
        arguments = with_own_classes(with_included_files(self.arguments))
        self.arguments, changes = split_callback_arguments(arguments)
        self.config = parser.parse_args(self.arguments)
        if changes:
            given = self.settings.as_dict()["trainer"]["callbacks"] or self.default_callbacks()
            self.arguments.append(callbacks_argument(given, changes))
            self.config = parser.parse_args(self.arguments)
        settings = self.settings
        refuse_missing_values(settings.as_dict())
        if settings.seed_everything is False:
            raise ValueError("`seed_everything` (=False) must be a number, or true for a random one")
        if settings.seed_everything is not True and not 0 <= settings.seed_everything < 2**32:
            raise ValueError(f"`seed_everything` (={settings.seed_everything}) must be from 0 to 2**32 - 1")
        clip = settings.trainer.gradient_clip_val
        if clip is not None and clip < 0:
            raise ValueError(f"`trainer.gradient_clip_val` (={clip}) must not be negative; null: no clipping")
        for name in ("experiment", "run"):
            if settings[name] is not None:
                check_folder_name(name, settings[name])
        for key in ("ckpt_path", "trainer.default_root_dir"):
            check_path(key, str(settings.get(key)))
        if settings.ckpt_path and Path(settings.ckpt_path).is_dir():
            settings.ckpt_path = str(checkpoint_file(Path(settings.ckpt_path)))
        self._place_run()

    def default_callbacks(self) -> list[dict[str, Any]]:
        """The callbacks, as settings, that are used without any."""
        return []

    def _place_run(self) -> None:
        """Draw the seed if a random one is asked for, and find a run that was moved."""
        settings = self.settings
        if settings.seed_everything is True:
            goes_on = settings.ckpt_path == "last" or has_slurm_tasks(os.environ)
            is_named = settings.run is not None or not goes_on
            seed = None if is_named else drawn_run(settings)
            settings.seed_everything = draw_seed(os.environ) if seed is None else seed
            self._seed_is_drawn = True
            rank_zero_info(f"seed_everything: {settings.seed_everything}, a random one")
        moved = actual_folder(settings, self.arguments)
        if moved is not None:
            if self.config["subcommand"] == "fit":
                rank_zero_info(f"the run goes on in {moved}, where its files are")
            settings.trainer.default_root_dir = str(moved.parent.parent)
            settings.experiment, settings.run = moved.parent.name, moved.name

    @property
    def settings(self) -> Namespace:
        """The settings of the chosen subcommand."""
        settings: Namespace = self.config[self.config["subcommand"]]
        return settings

    @property
    def run_folder(self) -> Path:
        """``default_root_dir/experiment/run``."""
        return named_folder(self.settings, is_random=self._seed_is_drawn)

    def _parse_ckpt_path(self) -> None:
        """Resolve ``last``, and take the settings that were not given from the checkpoint."""
        settings = self.settings
        reference = settings.get("reference_weights")
        if reference is not None and settings.ckpt_path is not None:
            raise ValueError(
                f"`reference_weights` (={reference}) and `ckpt_path` (={settings.ckpt_path}) both give"
                " weights: leave one out"
            )
        self._may_start = settings.ckpt_path == "last"
        import_operations(settings.model.get("operations") or ())  # what the command names may be imported
        if settings.get("extend") is not None:
            self._extend(settings.extend)
            return
        if self.config["subcommand"] == "fit" and not settings.trainer.fast_dev_run:
            path = self._checkpoint_to_resume()
        else:
            path = settings.ckpt_path
            if path == "last":
                path = self.run_folder / "checkpoints" / "last.ckpt"
        settings.ckpt_path = None if path is None else str(path)
        if path is None:
            self.check_without_checkpoint()
        else:
            try:
                self._take_settings(Path(path))
            except Exception as error:
                if is_user_error(error):
                    raise
                raise self._unusable(error) from error

    def _unusable(self, error: Exception) -> ValueError:
        """The error that says that a checkpoint's contents are at fault."""
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        return ValueError(f"`ckpt_path` (={self.settings.ckpt_path}) cannot be restored: {reason}")

    def _checkpoint_to_resume(self) -> Path | None:
        """The checkpoint that a training resumes from; None if it starts.

        A job that SLURM has queued again resumes by itself, if it is the same training.
        """
        settings, folder = self.settings, self.run_folder
        for left_over in sorted(Path(settings.trainer.default_root_dir).glob("hpc_ckpt_*.ckpt")):
            rank_zero_info(f"{left_over} lies in no run's folder: it is left alone")
        if settings.ckpt_path not in (None, "last"):
            return Path(settings.ckpt_path)
        path = latest_checkpoint(folder)
        if self._may_start:
            if path is None:
                rank_zero_info(
                    f"{folder / 'checkpoints' / 'last.ckpt'} does not exist yet: starting from scratch"
                )
            return path
        goes_on = is_requeued(os.environ) or (path is not None and path.name != "last.ckpt")
        if not goes_on or not has_slurm_tasks(os.environ):
            return None
        self._may_start = True
        if path is not None:
            self._refuse_another_training(path)
        return path

    def _refuse_another_training(self, path: Path) -> None:
        """Refuse to resume, without being asked, a training that other settings decided."""
        trained = read_checkpoint_settings(path)
        settings = plain_settings(self.settings.as_dict())
        if self._seed_is_drawn:
            settings["seed_everything"] = trained.run.get("seed_everything")
        found = trained.deciding
        differences = ["unknown settings"] if found is None else differing_settings(decisive(settings), found)
        if differences:
            raise ValueError(
                f"{path} is of another training ({'; '.join(differences)}): name a new run with `--run NAME`,"
                " or move the checkpoint away"
            )

    def _extend(self, epochs: int) -> None:
        """Lengthen a finished run, or start a new one from its weights."""
        given, folder = self.settings.ckpt_path, self.run_folder
        path = latest_checkpoint(folder) if given in (None, "last") else Path(given)
        self._may_start = False
        extension = plan_extension(path, folder, epochs)
        trained = extension.trained
        run = trained.run | {"trainer.max_epochs": extension.max_epochs}
        self._take_settings(trained.path, replace(trained, run=run))
        settings = self.settings
        if not extension.goes_on:
            folder = extension.new_folder()
            settings.ckpt_path, settings.weights = None, str(trained.path)
            settings.trainer.default_root_dir = str(folder.parent.parent)
            settings.experiment, settings.run = folder.parent.name, folder.name
        self._origin = extension.record()
        rank_zero_info(extension.line(self.run_folder))

    def _take_settings(self, path: Path, longer: CheckpointSettings | None = None) -> None:
        """Take the settings that were not given from a checkpoint, and refuse what contradicts it.

        ``longer`` are its settings with another number of epochs, which replaces the given one.
        """
        subcommand = self.config["subcommand"]
        resuming = subcommand == "fit"
        placed = self.settings
        trained = longer or read_checkpoint_settings(path, resuming=resuming)
        if resuming:
            trained.refuse_to_resume()
        self._parser(subcommand).set_defaults(trained.defaults(resuming=resuming))
        self.config[subcommand] = self.parser.parse_args(self.arguments)[subcommand]
        settings = self.settings
        settings.ckpt_path = str(path)
        settings.trainer.default_root_dir = placed.trainer.default_root_dir
        settings.experiment, settings.run = placed.experiment, placed.run
        if self._seed_is_drawn:
            settings.seed_everything = trained.run.get("seed_everything", placed.seed_everything)
        try:
            get_genotype(settings.model.genotype)
        except FileNotFoundError:
            settings.model.genotype = trained.genotype
        self._find_data(trained)
        if longer is not None:
            settings.trainer.max_epochs = longer.run["trainer.max_epochs"]
        trained.refuse_contradictions(settings.as_dict(), resuming=resuming)
        self.trained: CheckpointSettings = trained

    def _find_data(self, trained: CheckpointSettings) -> None:
        """Read the data where the checkpoint was trained, unless another place is given."""
        arguments = self.settings.data.get("init_args") or {}
        if trained.root is None or "root" not in arguments or is_given(self.arguments, *_ROOT_KEYS):
            return
        if arguments["root"] in trained.roots:
            arguments["root"] = trained.root
            self._data_is_remembered = True

    def check_without_checkpoint(self) -> None:
        """Refuse to evaluate an untrained network."""
        name = self.config["subcommand"]
        if name == "fit" and self.settings.weights is not None:
            self._take_architecture(self.settings.weights)
        elif name != "fit" and self.settings.reference_weights is None:
            raise ValueError(f"`ckpt_path` is missing: {name} evaluates a trained network")

    def _take_architecture(self, file: str) -> None:
        """Take the network's settings that were not given from the weights, if this program wrote them."""
        known = architecture_of("weights", file)
        if known:
            self._parser("fit").set_defaults(known)
            placed = self.settings
            self.config["fit"] = self.parser.parse_args(self.arguments)["fit"]
            settings = self.settings
            settings.ckpt_path, settings.seed_everything = None, placed.seed_everything
            settings.trainer.default_root_dir = placed.trainer.default_root_dir
            settings.experiment, settings.run = placed.experiment, placed.run

    def after_fit(self) -> None:
        """Say what came out, where it is and what to do next."""
        folder = self.run_folder
        writes = self.trainer.is_global_zero and not self.settings.trainer.fast_dev_run
        if writes and (folder / "result.json").is_file():
            result, commands = fit_end(folder)
            say_end(result, folder, commands)

    def after_validate(self) -> None:
        """Print the metrics, one a line."""
        if self.trainer.is_global_zero:
            callbacks.evaluated_part(self.trainer, "test" if self.subcommand == "test" else "val")
            for name, value in self.trainer.callback_metrics.items():
                print(f"{name} {float(value):.6f}")

    after_test = after_validate

    def instantiate_classes(self) -> None:
        """Make data, model and trainer; errors in their arguments become one line."""
        self._own_code = own_code(self.settings.as_dict())
        self.settings.code = code_setting(self._own_code)
        try:
            super().instantiate_classes()
        except ValueError as error:
            raise ValueError(plain_message(str(error), ())) from error
        except TypeError as error:
            if "`devices`" not in str(error):
                raise
            raise ValueError(f"`trainer.devices` (={self.settings.trainer.devices}): {error}") from error
        except Exception as error:
            if is_user_error(error) or self.settings.ckpt_path is None:
                raise
            raise self._unusable(error) from error
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
        kwargs["plugins"] = [*as_list(settings["plugins"]), callbacks.AtomicCheckpointIO()]
        trainer: Trainer = super().instantiate_trainer(callbacks=own, **kwargs)
        if isinstance(trainer._accelerator_connector.cluster_environment, SLURMEnvironment):
            check_tasks(os.environ, trainer.world_size)
        # It came from the environment, where it may be another program's.
        rank_zero_only.rank = trainer.global_rank  # type: ignore[attr-defined]
        return trainer

    def before_fit(self) -> None:
        """Prepare the data before the run writes anything, and lock its folder."""
        for callback in self._requeues:
            callback.listen(self.trainer)
        self._check_monitors()
        if not self.trainer.is_global_zero:
            return
        writes = not self.settings.trainer.fast_dev_run
        if writes:
            self._check_run_folder()
        self.datamodule.trainer = self.trainer
        self.datamodule.prepare_data()
        self.datamodule.setup("fit")
        if writes:
            self._lock = lock_folder(self.run_folder)  # until the training ends, however it does
            self._check_run_folder()  # another process may have finished a run there meanwhile

    def _check_monitors(self) -> None:
        """Refuse what waits for a metric that this training does not have."""
        metrics = list(self.model.training_metrics)
        if self.trainer.limit_val_batches:
            split = self.datamodule.evaluation_split
            metrics += [f"{name}/{split}" for name in self.model.evaluation_metrics]
        schedule = self.settings.model.get("lr_scheduler.init_args.monitor")
        callbacks.check_monitors(self.trainer.callbacks, metrics, schedule)  # type: ignore[attr-defined]

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
                raise
            again = "resume with `--ckpt_path last`" if subcommand == "fit" else "repeat the command"
            raise OSError(error.errno, f"{one_line(error)}; make room, then {again}") from error
        except Exception as error:
            if not _is_restoring(error) or (is_user_error(error) and "checkpoint" in str(error)):
                raise
            raise self._unusable(error) from error
        finally:
            for callback in self._requeues:
                callback.stop_listening()
            if self._lock is not None:
                self._lock.release()

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
        key = "weights" if self.config["subcommand"] == "fit" else "reference_weights"
        file = self.settings.get(key)
        if file is not None and self.settings.ckpt_path is None:
            said = load_weights(self.model.network, key, file, anew=key == "weights")
            for sentence in said:
                rank_zero_info(f"{key}: {sentence}")
            self._origin |= {"weights": file, "weights_read": list(said)}


def run_logger(folder: Path) -> TensorBoardLogger:
    """The logger whose files lie in a run's folder."""
    from nas_lightning.callbacks.event_logger import EventLogger  # only then TensorBoard is imported

    return EventLogger(
        folder.parent.parent, name=folder.parent.name, version=folder.name, default_hp_metric=False
    )


def _is_restoring(error: BaseException) -> bool:
    """Whether Lightning raised an error while it restored a checkpoint, whose contents must be at fault."""
    frames = traceback.extract_tb(error.__traceback__)
    names = {frame.name for frame in frames if Path(frame.filename).stem == "checkpoint_connector"}
    return any("restore" in name or "resume" in name for name in names)


def main(arguments: list[str]) -> None:
    """Run `fit`, `validate` or `test`, the first of the arguments."""
    silence_advice()
    TrainingCLI(arguments)


def silence_advice() -> None:
    """Silence Lightning's advice on other products and on its own code."""
    warnings.filterwarnings("ignore", ".*Checkpoint directory .* exists and is not empty.*")
    warnings.filterwarnings("ignore", ".*callbacks used to create the checkpoint need to be provided.*")
    warnings.filterwarnings("ignore", r".*isinstance\(treespec, LeafSpec\).*")
    silent = ("Tip: For seamless", "will override existing callbacks passed to Trainer: DropPathSchedule")
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(
        lambda record: not any(text in record.getMessage() for text in silent)
    )
