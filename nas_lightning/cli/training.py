"""`nas-lightning fit`, `validate` and `test`: LightningCLI with run folders and checkpoints that agree."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

import torch
from jsonargparse import Namespace
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_info

from nas_lightning import callbacks
from nas_lightning.cells import genotype_slug, get_genotype
from nas_lightning.classifier import CellClassifier
from nas_lightning.datamodules import ImageDataModule
from nas_lightning.files import atomic_write
from nas_lightning.networks import import_operations

TRAINER_DEFAULTS = {
    "default_root_dir": "tb_logs",
    "max_epochs": 600,
    "gradient_clip_val": 5.0,
    "num_sanity_val_steps": 0,
    "enable_model_summary": False,
    "log_every_n_steps": 1,  # nothing is logged between epochs: this only keeps Lightning from asking for it
}
FREE_DATA_KEYS = ("root", "evaluation_batch_size")
"""Settings of the data that change no number and so may differ between a checkpoint and its use."""


class OneLineErrorParser(LightningArgumentParser):
    """A parser whose errors are one line instead of a page of usage."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise what is wrong with the arguments as a ValueError."""
        raise ValueError(message) from ex


class SaveRunConfig(SaveConfigCallback):
    """Keeps ``config.yaml`` in the run's folder, as the settings that the run or its resumption has."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Learn the folder, on every rank (rank 0 tells it to the others), and write on rank 0."""
        self._folder = trainer.log_dir
        super().setup(trainer, pl_module, stage)

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write the settings, without the checkpoint that they were resumed from."""
        config = self.config.clone()
        config["ckpt_path"] = None
        if self._folder is not None:
            with atomic_write(Path(self._folder) / self.config_filename) as file:
                file.write(self.parser.dump(config, skip_none=False))


class TrainingCLI(LightningCLI):
    """The command line of a training.

    Beyond LightningCLI it has a stable folder for every run (``default_root_dir/experiment/run``), refuses to
    write over one, and holds what is said explicitly against what a checkpoint was trained with.
    """

    model: CellClassifier
    datamodule: ImageDataModule
    trainer: Trainer

    def __init__(self, arguments: list[str]) -> None:
        self.arguments = arguments
        fitting = arguments[0] == "fit"
        usage = {"usage": f"nas-lightning {arguments[0]} [--config FILE ...] [--KEY VALUE ...]"}
        super().__init__(
            model_class=CellClassifier,
            datamodule_class=ImageDataModule,
            subclass_mode_data=True,
            parser_class=OneLineErrorParser,
            parser_kwargs=dict.fromkeys(self.subcommands(), usage),
            save_config_callback=SaveRunConfig if fitting else None,
            save_config_kwargs={"save_to_log_dir": False},
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
        """Parse the arguments this was made with, whatever the process's own are."""
        self.config = parser.parse_args(self.arguments)

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
        root: str = settings.trainer.default_root_dir
        experiment: str = settings.experiment or data_name
        return Path(root, experiment, run)

    def _parse_ckpt_path(self) -> None:
        """Resolve ``last``, and settle the settings between the command line and the checkpoint."""
        settings = self.settings
        if settings.ckpt_path == "last":
            last = self.run_folder / "checkpoints" / "last.ckpt"
            settings.ckpt_path = str(last) if last.is_file() else None
            if settings.ckpt_path is None:
                rank_zero_info(f"{last} does not exist yet: starting from scratch")
        elif settings.ckpt_path is None and self.config["subcommand"] != "fit":
            raise ValueError(
                f"`ckpt_path` is missing: {self.config['subcommand']} evaluates a trained network"
            )
        if settings.ckpt_path is not None:
            self._adopt_checkpoint(Path(settings.ckpt_path))

    def _adopt_checkpoint(self, path: Path) -> None:
        """Take from a checkpoint the settings that were not given; those that were must agree with it."""
        checkpoint = _read_checkpoint(path)
        subcommand = self.config["subcommand"]
        model = {
            name: value
            for name, value in checkpoint.get("hyper_parameters", {}).items()
            if not name.startswith("_") and name != "num_classes"
        }
        data = dict(checkpoint.get("datamodule_hyper_parameters", {}))
        data_class = data.pop("_class_path", None)
        data = {name: value for name, value in data.items() if name not in (*FREE_DATA_KEYS, "_instantiator")}
        import_operations(model.get("operations") or ())
        parser = self._parser(subcommand)
        parser.set_defaults({f"model.{name}": value for name, value in model.items()})
        seed = checkpoint.get("seed_everything", self.settings.seed_everything)
        parser.set_defaults({"seed_everything": seed})
        if data_class is not None:
            parser.set_defaults({"data": {"class_path": data_class, "init_args": data}})
        self.config[subcommand] = self.parser.parse_args(self.arguments)[subcommand]
        self.config[subcommand]["ckpt_path"] = str(path)

        # What differs now from the checkpoint was said on the command line or in a configuration file.
        settings = self.settings.as_dict()
        if "genotype" in checkpoint:
            spec = settings["model"].pop("genotype")
            if str(get_genotype(spec)) != checkpoint["genotype"]:
                raise ValueError(
                    f"`model.genotype` (={spec}) contradicts the checkpoint {path}, which holds"
                    f" {model.get('genotype')}: {checkpoint['genotype']}"
                )
        _refuse_contradictions("model", settings["model"], model, path)
        if settings["seed_everything"] != seed:
            raise ValueError(
                f"`seed_everything` (={settings['seed_everything']}) contradicts the checkpoint {path}, which"
                f" was trained with {seed}; leave it out, or train a new run"
            )
        if data_class is not None:
            if settings["data"]["class_path"] != data_class:
                raise ValueError(
                    f"`data` (={settings['data']['class_path']}) contradicts the checkpoint {path}, which was"
                    f" trained on {data_class}"
                )
            _refuse_contradictions("data", settings["data"].get("init_args") or {}, data, path)

    def after_validate(self) -> None:
        """Print what was measured, one metric a line."""
        if self.trainer.is_global_zero:
            for name, value in self.trainer.callback_metrics.items():
                print(f"{name} {float(value):.6f}")

    after_test = after_validate

    def before_instantiate_classes(self) -> None:
        """Refuse to write over another run, and a folder that cannot be written."""
        settings = self.settings
        if self.config["subcommand"] != "fit" or settings.trainer.fast_dev_run or _rank() > 0:
            return
        folder = self.run_folder
        resumed = (
            settings.ckpt_path is not None and folder.resolve() in Path(settings.ckpt_path).resolve().parents
        )
        if not resumed and (
            (folder / "checkpoints" / "last.ckpt").exists() or (folder / "metrics.csv").exists()
        ):
            raise ValueError(
                f"{folder} already holds a run: continue it with `--ckpt_path last`,"
                " or name a new one with `--run NAME`"
            )
        try:
            (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(f"cannot write the run's folder {folder}: {error.strerror}") from error

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Make the trainer with the run's logger, callbacks and atomic checkpoints."""
        subcommand = self.config["subcommand"]
        settings = self.config_init[subcommand]["trainer"]
        own = list(settings["callbacks"] or [])
        if settings["enable_progress_bar"] is not False and not any(isinstance(c, ProgressBar) for c in own):
            own.append(callbacks.TrainingProgress())
        folder = self.run_folder
        if subcommand != "fit":
            kwargs |= {"logger": False, "enable_checkpointing": False}
        else:
            if settings["logger"] in (None, True):
                kwargs["logger"] = TensorBoardLogger(
                    folder.parent.parent,
                    name=folder.parent.name,
                    version=folder.name,
                    default_hp_metric=False,
                )
            own += [callbacks.CellSummary(), callbacks.DropPathSchedule(), callbacks.RunRecord()]
            if settings["enable_checkpointing"] is not False and not settings["fast_dev_run"]:
                own += callbacks.run_checkpoints(folder / "checkpoints", self.datamodule.evaluation_split)
            plugins = settings["plugins"] or []
            plugins = plugins if isinstance(plugins, list) else [plugins]
            kwargs["plugins"] = [*plugins, callbacks.AtomicCheckpointIO()]
        return super().instantiate_trainer(callbacks=own, **kwargs)

    def after_instantiate_classes(self) -> None:
        """Refuse what the data and the network cannot do together."""
        given = self.settings.model.get("num_classes")
        if given is not None and given != self.datamodule.num_classes:
            raise ValueError(
                f"`model.num_classes` (={given}) follows from the data set: {self.datamodule.name} has"
                f" {self.datamodule.num_classes} classes; leave it out"
            )
        self.model.network.check_image_size(self.datamodule.image_size)


def _rank() -> int:
    """Rank of this process as its launcher (torchrun, SLURM or Lightning) says, before there is a trainer."""
    names = ("RANK", "SLURM_PROCID", "LOCAL_RANK")
    return next((int(os.environ[name]) for name in names if name in os.environ), 0)


def _read_checkpoint(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"`ckpt_path` (={path}) is not a file")
    try:
        checkpoint = torch.load(path, weights_only=True, map_location="cpu", mmap=True)
    except Exception as error:
        raise ValueError(f"`ckpt_path` (={path}) is not a readable checkpoint: {error}") from error
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise ValueError(f"`ckpt_path` (={path}) is not a checkpoint of this program: it has no `state_dict`")
    return checkpoint


def _refuse_contradictions(
    group: str, given: Mapping[str, Any], trained: Mapping[str, Any], path: Path
) -> None:
    for name, value in given.items():
        if name in trained and isinstance(value, Mapping) and isinstance(trained[name], Mapping):
            _refuse_contradictions(f"{group}.{name}", value, trained[name], path)
        elif name in trained and value != trained[name]:
            raise ValueError(
                f"`{group}.{name}` (={value}) contradicts the checkpoint {path}, which was trained with"
                f" {trained[name]}; leave it out, or train a new run"
            )


def main(arguments: list[str]) -> None:
    """Run `fit`, `validate` or `test`.

    Args:
        arguments: The subcommand and its arguments.
    """
    # Advice on other products and on Lightning's own code is no help to the user of this program.
    warnings.filterwarnings("ignore", ".*callbacks used to create the checkpoint need to be provided.*")
    warnings.filterwarnings("ignore", r".*isinstance\(treespec, LeafSpec\).*")
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(
        lambda record: "Tip: For seamless" not in record.getMessage()
    )
    TrainingCLI(arguments)
