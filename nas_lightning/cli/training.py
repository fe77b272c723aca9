"""`nas-lightning fit`, `validate` and `test`: LightningCLI with run folders and checkpoints that agree."""

from __future__ import annotations

import logging
import os
import sys
import traceback
import warnings
from pathlib import Path
from typing import Any, NoReturn

from filelock import FileLock, Timeout
from jsonargparse import Namespace
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.utilities import rank_zero_info

from nas_lightning import callbacks
from nas_lightning.cells import genotype_slug, get_genotype, import_operations
from nas_lightning.classifier import CellClassifier
from nas_lightning.cli.checkpoint_settings import read_checkpoint_settings
from nas_lightning.cli.config_files import with_included_files
from nas_lightning.cli.deciding import TRAINER_DEFAULTS, decisive, plain_settings
from nas_lightning.cli.main import SUBCOMMANDS
from nas_lightning.cli.messages import is_user_error, one_line, plain_message
from nas_lightning.cli.setting_names import class_names, known_settings, refuse_missing_values
from nas_lightning.datamodules import ImageDataModule
from nas_lightning.files import FULL_DISK, atomic_write, naming
from nas_lightning.identity import as_list


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

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write the settings without ``ckpt_path``."""
        if trainer.is_global_zero:
            config = self.config.clone()
            config["ckpt_path"] = None
            with atomic_write(self.folder / self.config_filename) as file:
                file.write(self.parser.dump(config, skip_none=False))


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
        parser.set_defaults({"data": {"class_path": "nas_lightning.datamodules.Digits"}})
        parser.link_arguments("data.num_classes", "model.num_classes", apply_on="instantiate")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse the arguments given to the constructor rather than those of the process."""
        self.arguments = with_included_files(self.arguments)
        self.config = parser.parse_args(self.arguments)
        settings = self.settings
        refuse_missing_values(settings.as_dict())
        if settings.seed_everything is False:
            raise ValueError("`seed_everything` (=False) must be a number, or true for a random one")
        if not 0 <= int(settings.seed_everything) < 2**32:
            raise ValueError(f"`seed_everything` (={settings.seed_everything}) must be from 0 to 2**32 - 1")
        clip = settings.trainer.gradient_clip_val
        if clip is not None and clip < 0:
            raise ValueError(f"`trainer.gradient_clip_val` (={clip}) must not be negative; null: no clipping")
        for name in ("experiment", "run"):
            if settings[name] is not None and Path(settings[name]).name != settings[name]:
                raise ValueError(f"`{name}` (={settings[name]}) must be the name of one folder")

    @property
    def settings(self) -> Namespace:
        """The settings of the chosen subcommand."""
        settings: Namespace = self.config[self.config["subcommand"]]
        return settings

    @property
    def run_folder(self) -> Path:
        """``default_root_dir/experiment/run``."""
        settings = self.settings
        data_name = settings.data.class_path.rsplit(".", 1)[-1].lower()
        run = settings.run
        if run is None:
            run = genotype_slug(settings.model.genotype)
            if settings.seed_everything:
                run += f"-seed{int(settings.seed_everything)}"
        if not run:
            raise ValueError(f"`run` (={run!r}) must be the name of a folder")
        root: str = settings.trainer.default_root_dir
        experiment: str = settings.experiment or data_name
        return Path(root, experiment, run)

    def _parse_ckpt_path(self) -> None:
        """Resolve ``last``, and take the settings that were not given from the checkpoint."""
        settings = self.settings
        resuming = self.config["subcommand"] == "fit"
        self._may_start = settings.ckpt_path == "last"
        if self._may_start:
            last = self.run_folder / "checkpoints" / "last.ckpt"
            settings.ckpt_path = str(last) if last.is_file() or not resuming else None
            if settings.ckpt_path is None:
                rank_zero_info(f"{last} does not exist yet: starting from scratch")
        if settings.ckpt_path is None:
            self.check_without_checkpoint()
            return
        path = str(settings.ckpt_path)
        import_operations(settings.model.get("operations") or ())  # what the command names may be imported
        trained = read_checkpoint_settings(Path(path), resuming=resuming)
        subcommand = self.config["subcommand"]
        self._parser(subcommand).set_defaults(trained.defaults(resuming=resuming))
        self.config[subcommand] = self.parser.parse_args(self.arguments)[subcommand]
        self.settings.ckpt_path = path
        try:
            get_genotype(self.settings.model.genotype)
        except FileNotFoundError:
            self.settings.model.genotype = trained.genotype
        trained.refuse_contradictions(self.settings.as_dict(), resuming=resuming)
        self.trained = trained

    def check_without_checkpoint(self) -> None:
        """Refuse to evaluate an untrained network."""
        name = self.config["subcommand"]
        if name != "fit":
            raise ValueError(f"`ckpt_path` is missing: {name} evaluates a trained network")

    def after_validate(self) -> None:
        """Print the metrics, one a line."""
        if self.trainer.is_global_zero:
            for name, value in self.trainer.callback_metrics.items():
                print(f"{name} {float(value):.6f}")

    after_test = after_validate

    def instantiate_classes(self) -> None:
        """Make data, model and trainer; errors in their arguments become one line."""
        try:
            super().instantiate_classes()
        except ValueError as error:
            raise ValueError(plain_message(str(error), ())) from error

    def before_instantiate_classes(self) -> None:
        """Refuse a folder of another run before anything is made."""
        if self.config["subcommand"] == "fit" and not self.settings.trainer.fast_dev_run and _rank() == 0:
            self._check_run_folder()

    def _check_run_folder(self) -> None:
        """Refuse to write over another run, into another run, or where nothing can be written."""
        settings, folder = self.settings, self.run_folder
        if settings.ckpt_path is not None:
            if folder.resolve() not in Path(settings.ckpt_path).resolve().parents:
                raise ValueError(
                    f"`ckpt_path` (={settings.ckpt_path}) belongs to another run than {folder}: a run resumes"
                    " in its own folder, with `--config RUN/config.yaml --ckpt_path last`"
                )
        elif (folder / "checkpoints" / "last.ckpt").exists() or (
            (folder / "metrics.csv").exists() and not self._may_start
        ):
            raise ValueError(
                f"{folder} already holds a run: continue it with `--ckpt_path last`,"
                " or name a new one with `--run NAME`"
            )
        existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
        if not existing.is_dir() or not os.access(existing, os.W_OK):
            raise ValueError(f"cannot write the run's folder {folder}: {existing} is not a writable folder")

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Make the trainer with the run's logger, callbacks and atomic checkpoints."""
        subcommand = self.config["subcommand"]
        settings = self.config_init[subcommand]["trainer"]
        # The summary's line comes before the progress bar is drawn.
        own: list[Callback] = [callbacks.CellSummary()] if subcommand == "fit" else []
        own += as_list(settings["callbacks"])
        if settings["enable_progress_bar"] is not False and not any(isinstance(c, ProgressBar) for c in own):
            own.append(callbacks.TrainingProgress())
        folder = self.run_folder
        for analysis in [callback for callback in own if isinstance(callback, callbacks.Analysis)]:
            analysis.folder = analysis.folder or str(folder / "landscape")
        if subcommand != "fit":
            kwargs = {"logger": False, "enable_checkpointing": False} | kwargs
        else:
            if settings["logger"] in (None, True):
                kwargs["logger"] = run_logger(folder)
            if not settings["fast_dev_run"]:
                deciding = decisive(plain_settings(self.settings.as_dict()))
                own.append(callbacks.RunRecord(folder, deciding))
                self.save_config_kwargs["folder"] = folder
                if settings["enable_checkpointing"] is not False:
                    split = self.datamodule.evaluation_split
                    own += callbacks.run_checkpoints(folder / "checkpoints", split)
        kwargs["plugins"] = [*as_list(settings["plugins"]), callbacks.AtomicCheckpointIO()]
        return super().instantiate_trainer(callbacks=own, **kwargs)

    def before_fit(self) -> None:
        """Prepare the data before the run writes anything, and lock its folder."""
        if _rank() > 0:
            return
        self.datamodule.trainer = self.trainer
        self.datamodule.prepare_data()
        self.datamodule.setup("fit")
        if not self.settings.trainer.fast_dev_run:
            lock = self.run_folder / ".lock"
            try:
                with naming(lock):
                    self.run_folder.mkdir(parents=True, exist_ok=True)
                    self._lock = FileLock(lock, timeout=0)
                    self._lock.acquire()  # until the training ends, however it does
            except Timeout:
                raise ValueError(
                    f"{self.run_folder} is being written by another process; use another `--run NAME`"
                ) from None
            self._check_run_folder()  # another process may have finished a run there meanwhile

    def _run_subcommand(self, subcommand: str) -> None:
        try:
            super()._run_subcommand(subcommand)
        except SystemExit:  # Lightning's bare answer to signals
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
            if is_user_error(error) or not _is_restoring(error):
                raise
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise ValueError(
                f"`ckpt_path` (={self.settings.ckpt_path}) cannot be restored: {reason}"
            ) from error
        finally:
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


def run_logger(folder: Path) -> callbacks.EventLogger:
    """The logger whose files lie in a run's folder."""
    return callbacks.EventLogger(
        folder.parent.parent, name=folder.parent.name, version=folder.name, default_hp_metric=False
    )


def _rank() -> int:
    """Rank of this process according to its launcher (torchrun, SLURM or Lightning)."""
    names = ("RANK", "SLURM_PROCID", "LOCAL_RANK")
    return next((int(os.environ[name]) for name in names if name in os.environ), 0)


def _is_restoring(error: BaseException) -> bool:
    """Whether Lightning raised an error while it restored a checkpoint, whose contents must be at fault."""
    frames = traceback.extract_tb(error.__traceback__)
    return any(Path(f.filename).stem == "checkpoint_connector" and "restore" in f.name for f in frames)


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
