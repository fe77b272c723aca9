"""`nas-lightning landscape`: the analyses of a checkpoint, without training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.cli import LightningArgumentParser

from nas_lightning import callbacks
from nas_lightning.cli.training import TrainingCLI, run_logger, silence_advice
from nas_lightning.networks import load_reference_weights


class LandscapeTrainer(Trainer):
    """A trainer with the method behind the subcommand ``landscape``."""

    def landscape(
        self,
        model: Any,
        datamodule: Any,
        ckpt_path: str | None = None,
        weights_only: bool | None = None,
    ) -> None:
        """Validate a network, during which the analysis callbacks run.

        Args:
            model: The module.
            datamodule: The data.
            ckpt_path: Checkpoint that holds the weights: a path, or `last` for that of the run.
            weights_only: Whether the checkpoint may hold tensors and plain values only.
        """
        self.validate(
            model, datamodule=datamodule, ckpt_path=ckpt_path, weights_only=weights_only, verbose=False
        )


class LandscapeCLI(TrainingCLI):
    """The command line of the analyses.

    It runs the analyses among the callbacks of the settings, or all three with their defaults if there are
    none. Files and pictures go to the folder of the checkpoint's run.
    """

    def __init__(self, arguments: list[str]) -> None:
        super().__init__(arguments, trainer_class=LandscapeTrainer)

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """The subcommand, with those arguments of the trainer's method that the command line supplies."""
        return {"landscape": {"model", "datamodule"}}

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the weights of other code."""
        super().add_arguments_to_parser(parser)
        parser.add_argument(
            "--reference_weights",
            type=str | None,
            default=None,
            help="State dict written by the DARTS family of code, in place of a checkpoint.",
        )

    def check_without_checkpoint(self) -> None:
        """Without a checkpoint there must be reference weights."""
        if self.settings.reference_weights is None:
            raise ValueError(
                "`ckpt_path` is missing: landscape analyses a trained network; or give `reference_weights`"
            )

    @property
    def run_folder(self) -> Path:
        """Folder of the run that the checkpoint belongs to; for reference weights that of the settings."""
        path = self.settings.ckpt_path
        if path is None or path == "last":
            return super().run_folder
        folder = Path(path).parent
        return folder.parent if folder.name == "checkpoints" else folder

    def before_instantiate_classes(self) -> None:
        """Refuse two sources of weights."""
        settings = self.settings
        if settings.reference_weights is not None and settings.ckpt_path is not None:
            raise ValueError(
                f"`reference_weights` (={settings.reference_weights}) and `ckpt_path` (={settings.ckpt_path})"
                " both give weights: leave one out"
            )

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Make the trainer with the analyses among the callbacks, and the logger of the run."""
        settings = self.config_init["landscape"]["trainer"]
        given = settings["callbacks"] or []
        analyses = [callback for callback in given if isinstance(callback, callbacks.Analysis)] or [
            callbacks.LossContour(),
            callbacks.GradientVariance(),
            callbacks.HessianSpectrum(),
        ]
        for analysis in analyses:
            analysis.checkpoint_epoch = -1 if self.settings.ckpt_path is None else self.trained.epoch
        settings["callbacks"] = analyses
        # The analyses run on the whole split.
        kwargs |= {"limit_val_batches": 1.0, "fast_dev_run": False}
        logger = run_logger(self.run_folder) if settings["logger"] in (None, True) else settings["logger"]
        return super().instantiate_trainer(logger=logger, **kwargs)

    def before_landscape(self) -> None:
        """Load reference weights."""
        file = self.settings.reference_weights
        if file is not None:
            weights = _read_weights(Path(file))
            try:
                load_reference_weights(self.model.network, weights)
            except ValueError as error:
                raise ValueError(f"`reference_weights` (={file}): {error}") from error


def _read_weights(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"`reference_weights` (={path}) is not a file")
    try:
        weights = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # whatever reading a foreign file raises
        raise ValueError(
            f"`reference_weights` (={path}) is damaged, or holds other than tensors and plain values"
        ) from error
    if not isinstance(weights, dict):
        raise ValueError(
            f"`reference_weights` (={path}) must hold a state dict, not a {type(weights).__name__}"
        )
    if "pytorch-lightning_version" in weights:
        raise ValueError(
            f"`reference_weights` (={path}) is a checkpoint of this program: give it as `ckpt_path`"
        )
    return weights


def main(arguments: list[str]) -> None:
    """Run `landscape`, the first of the arguments."""
    silence_advice()
    LandscapeCLI(arguments)
