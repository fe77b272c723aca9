"""`--extend`: how a finished run is made longer."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nas_lightning.cli.checkpoint_settings import CheckpointSettings, read_checkpoint_settings

_LENGTHLESS = frozenset(
    {"StepLR", "MultiStepLR", "ExponentialLR", "ConstantLR", "LinearLR", "MultiplicativeLR", "LambdaLR"}
    | {"ReduceLROnPlateau", "CyclicLR", "CosineAnnealingWarmRestarts"}
)
"""Schedules whose learning rate in an epoch does not depend on how many epochs there are."""


@dataclass(frozen=True)
class Extension:
    """How a finished run is made longer.

    Attributes:
        trained: The settings of the run, with its checkpoint.
        epochs: Epochs to add.
        goes_on: Whether the run itself goes on; otherwise a new run starts from its weights.
    """

    trained: CheckpointSettings
    epochs: int
    goes_on: bool

    @property
    def epochs_before(self) -> int:
        """Epochs that the run has."""
        return self.trained.epoch + 1

    @property
    def max_epochs(self) -> int:
        """`trainer.max_epochs` of the longer run, or of the new one."""
        return self.epochs_before + self.epochs if self.goes_on else self.epochs

    def new_folder(self) -> Path:
        """Folder of the new run: the next free NAME-extended beside the old one."""
        folder = self.trained.path.parent.parent
        number = 1
        while True:
            extended = folder.with_name(f"{folder.name}-extended{number if number > 1 else ''}")
            if not extended.exists():
                return extended
            number += 1

    def record(self) -> dict[str, Any]:
        """What `result.json` says of it."""
        how = "the schedule goes on" if self.goes_on else "a new schedule from its weights"
        source = {} if self.goes_on else {"weights": str(self.trained.path)}
        return {"extended": {"after_epochs": self.epochs_before, "epochs": self.epochs, "how": how, **source}}

    def line(self, folder: Path) -> str:
        """What is done, in a sentence."""
        if self.goes_on:
            return (
                f"extend: {folder} goes on to {self.max_epochs} epochs; its schedule does not depend on them"
            )
        return (
            f"extend: the schedule of {self.trained.path.parent.parent} is over after {self.epochs_before}"
            f" epochs; {folder} starts a new one of {self.epochs} from its weights"
        )


def plan_extension(path: Path | None, folder: Path, epochs: int) -> Extension:
    """How to make a run longer.

    Args:
        path: Its last checkpoint, None if there is none.
        folder: Its folder, for messages.
        epochs: Epochs to add.

    Raises:
        ValueError: If there is no finished run.
    """
    said = f"`extend` (={epochs})"
    if epochs < 1:
        raise ValueError(f"{said} must be at least 1")
    if path is None:
        raise ValueError(f"{said}: {folder} holds no finished run")
    trained = read_checkpoint_settings(path, resuming=True)
    planned = trained.run.get("trainer.max_epochs")
    steps = trained.course.get("trainer.max_steps")
    ended = f"max_steps: {steps} steps" if steps is not None and steps <= trained.steps else trained.ended
    if ended is not None:
        raise ValueError(
            f"{said}: {path.parent.parent} ended after epoch {trained.epoch + 1}, {ended}:"
            f" start a new run from its weights, with `--weights {path}`"
        )
    if not isinstance(planned, int) or trained.epoch + 1 < planned:
        raise ValueError(
            f"{said}: {path} was written after epoch {trained.epoch + 1} of {planned}: finish the run first,"
            " with `--ckpt_path last`"
        )
    return Extension(trained, epochs, _is_lengthless(trained.model))


def _is_lengthless(model: dict[str, Any]) -> bool:
    schedule = model.get("lr_scheduler")
    name = schedule.get("class_path") if isinstance(schedule, dict) else None
    is_known = isinstance(name, str) and name.rpartition(".")[2] in _LENGTHLESS
    return is_known and not model.get("drop_path")  # drop path rises over all epochs
