"""The command line up to the settled settings."""

from __future__ import annotations

from nas_lightning.cli.landscape import LandscapeCLI
from nas_lightning.cli.training import TrainingCLI


class ParsedOnly(TrainingCLI):
    """Parses and settles the settings, and makes and runs nothing."""

    def instantiate_classes(self) -> None:
        self.datamodule = self.model = self.trainer = None  # type: ignore[assignment]

    def before_instantiate_classes(self) -> None: ...

    def after_instantiate_classes(self) -> None: ...

    def _run_subcommand(self, subcommand: str) -> None: ...


class ParsedLandscape(ParsedOnly, LandscapeCLI):
    """The same of `landscape`."""
