"""From the arguments of a command to the settings of its run, with those that a checkpoint brings."""

from __future__ import annotations

import os
from argparse import SUPPRESS
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from jsonargparse import Namespace
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.utilities import rank_zero_info

from nas_lightning.callbacks.curve_ends import KEY
from nas_lightning.cells import get_genotype, import_operations
from nas_lightning.cli.callback_arguments import callbacks_argument, split_callback_arguments
from nas_lightning.cli.checkpoint_settings import (
    CheckpointSettings,
    latest_checkpoint,
    read_checkpoint_settings,
)
from nas_lightning.cli.config_files import with_included_files
from nas_lightning.cli.curve import with_ends
from nas_lightning.cli.deciding import decisive, plain_settings
from nas_lightning.cli.extension import plan_extension
from nas_lightning.cli.launcher import draw_seed, has_slurm_tasks, is_requeued
from nas_lightning.cli.messages import is_user_error, plain_message
from nas_lightning.cli.own_classes import with_own_classes
from nas_lightning.cli.run_folder import (
    actual_folder,
    checkpoint_file,
    drawn_run,
    is_given,
    named_folder,
    refuse_comments,
)
from nas_lightning.cli.setting_names import class_names, count_batches, known_settings
from nas_lightning.cli.setting_values import check_values
from nas_lightning.cli.weights import architecture_of
from nas_lightning.identity import differing_settings

_ROOT_KEYS = ("data.root", "data.init_args.root")


class OneLineErrorParser(LightningArgumentParser):
    """A parser whose errors are one line instead of a page of usage."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise the parser's message as a ValueError in one line."""
        raise ValueError(plain_message(message, known_settings(self), class_names)) from ex


class TrainingSettingsCLI(LightningCLI):
    """The settings of a run, whose checkpoint brings its own; what contradicts it is refused."""

    _seed_is_drawn = False
    _data_is_remembered = False
    ends: list[str] | None = None
    """The ends of the curve that is trained; None of the training of one network."""

    def __init__(self, arguments: list[str], **options: Any) -> None:
        self.arguments = arguments
        self._origin: dict[str, Any] = {}
        super().__init__(parser_class=OneLineErrorParser, **options)

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """The subcommand that is given, since each one's parser takes a while to make.

        With it stand those arguments of the trainer's method that the command line supplies.
        """
        supplied = {"model", "datamodule"}
        loaders = {"fit": {"train_dataloaders", "val_dataloaders"}}
        return {self.arguments[0]: supplied | loaders.get(self.arguments[0], {"dataloaders"})}

    def _prepare_subcommand_parser(
        self, klass: type, subcommand: str, **kwargs: Any
    ) -> LightningArgumentParser:
        """Leave Lightning's table of metrics out by default: they are printed one a line."""
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        if "verbose" in self._subcommand_method_arguments[subcommand]:
            parser.set_defaults({"verbose": False})
        return parser

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
                help="Make a finished run this many epochs longer, or start anew from its weights.",
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
        if self.ends is not None:
            arguments = with_ends(arguments, self.ends)
        self.arguments, changes = split_callback_arguments(arguments)
        self.config = parser.parse_args(self.arguments)
        if changes:
            given = self.settings.as_dict()["trainer"]["callbacks"] or self.default_callbacks()
            self.arguments.append(callbacks_argument(given, changes))
            self.config = parser.parse_args(self.arguments)
        settings = self.settings
        refuse_comments(self.arguments, "experiment", "run", "weights", "ckpt_path")
        check_values(settings)
        for key in ("weights", "extend") if self.ends is not None else ():
            if settings.get(key) is not None:
                raise ValueError(
                    f"`{key}` (={settings[key]}) does not go with `{KEY}`: leave one of them out"
                )
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
            self._move_to(moved)

    def _move_to(self, folder: Path) -> None:
        """Make a folder that of the run."""
        settings = self.settings
        settings.trainer.default_root_dir = str(folder.parent.parent)
        settings.experiment, settings.run = folder.parent.name, folder.name

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
                raise self.unusable(error) from error

    def unusable(self, error: Exception) -> ValueError:
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
        for key in ("trainer.max_epochs", "weights"):
            if is_given(self.arguments, key):
                raise ValueError(f"`extend` (={epochs}) decides `{key}` itself: leave one of them out")
        given, folder = self.settings.ckpt_path, self.run_folder
        path = latest_checkpoint(folder) if given in (None, "last") else Path(given)
        self._may_start = False
        extension = plan_extension(path, folder, epochs)
        trained = extension.trained
        run = trained.run | {"trainer.max_epochs": extension.max_epochs}
        self._take_settings(trained.path, replace(trained, run=run))
        settings = self.settings
        if not extension.goes_on:
            settings.ckpt_path, settings.weights = None, str(trained.path)
            self._move_to(extension.new_folder())
        self._origin = extension.record()
        rank_zero_info(extension.line(self.run_folder))

    def _take_settings(self, path: Path, longer: CheckpointSettings | None = None) -> None:
        """Take the settings that were not given from a checkpoint, and refuse what contradicts it.

        ``longer`` are its settings with another number of epochs, which replaces the given one.
        """
        resuming = self.config["subcommand"] == "fit"
        trained = longer or read_checkpoint_settings(path, resuming=resuming)
        if trained.is_curve and self.ends is None:
            raise ValueError(
                f"`ckpt_path` (={path}) holds a curve between two networks, not one network: `fit --config"
                " RUN/config.yaml --ckpt_path last` goes on with it"
            )
        if self.ends is not None and not trained.is_curve:
            raise ValueError(f"`ckpt_path` (={path}) holds one network, no curve: leave out `{KEY}`")
        if resuming:
            trained.refuse_to_resume()
        drawn = self.settings.seed_everything
        settings = self._parse_again(trained.defaults(resuming=resuming))
        settings.ckpt_path = str(path)
        if self._seed_is_drawn:
            settings.seed_everything = trained.run.get("seed_everything", drawn)
        try:
            get_genotype(settings.model.genotype)
        except FileNotFoundError:
            settings.model.genotype = trained.genotype
        self._find_data(trained)
        if longer is not None:
            settings.trainer.max_epochs = longer.run["trainer.max_epochs"]
        trained.refuse_contradictions(settings.as_dict(), resuming=resuming)
        if resuming:
            trained.refuse_another_course(decisive(plain_settings(settings.as_dict())))
        self.trained: CheckpointSettings = trained

    def _parse_again(self, defaults: dict[str, Any]) -> Namespace:
        """The settings with other values for what was not given; the run's folder stays."""
        subcommand = self.config["subcommand"]
        folder = self.settings.trainer.default_root_dir, self.settings.experiment, self.settings.run
        self._parser(subcommand).set_defaults(defaults)
        self.config[subcommand] = self.parser.parse_args(self.arguments)[subcommand]
        settings = self.settings
        settings.trainer.default_root_dir, settings.experiment, settings.run = folder
        return settings

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
            seed = self.settings.seed_everything
            settings = self._parse_again(known)
            settings.ckpt_path, settings.seed_everything = None, seed
