"""Analyses that measure loss and accuracy of several splits at every point."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from lightning.pytorch import Trainer

from nas_lightning.callbacks.context import AnalysisContext
from nas_lightning.callbacks.loader_batches import check_data
from nas_lightning.callbacks.point_analysis import PointAnalysis
from nas_lightning.callbacks.split_batches import SplitBatches


class SplitAnalysis(PointAnalysis):
    """An analysis of several splits at once; the last of them is its main one.

    Args:
        splits: Splits whose loss and accuracy are measured; `max_samples` holds for each of them.
        settings: As for :class:`nas_lightning.callbacks.analysis.Analysis`.

    Raises:
        ValueError: If there is no split, or one twice.
    """

    def __init__(
        self, splits: Sequence[Literal["train", "val", "test"]] = ("train", "test"), **settings: Any
    ) -> None:
        if isinstance(splits, str) or not splits or len(set(splits)) < len(splits):
            raise ValueError(f"`splits` (={splits}) must be a list of different splits, at least one")
        super().__init__(split=splits[-1], **settings)
        self.splits = tuple(splits)

    def check(self, trainer: Trainer) -> None:
        """Check, beside what every analysis needs, that all splits are there and large enough."""
        super().check(trainer)
        for split in self.read_splits:
            check_data(trainer, split, self.max_samples)

    @property
    def read_splits(self) -> tuple[str, ...]:
        """The splits that are read: those measured, and those that running statistics come from."""
        return self.splits

    def batches_by_split(self, context: AnalysisContext) -> dict[str, SplitBatches]:
        """The batches of every split, by the name of the one that is read in its place."""
        found = [context.batches_of(split) for split in self.splits]
        return {batches.split: batches for batches in found}

    def split_attributes(self, splits: dict[str, SplitBatches]) -> dict[str, str]:
        """Which images of each split were measured."""
        return {
            "splits": ", ".join(splits),
            "split_samples": ", ".join(str(len(batches.targets)) for batches in splits.values()),
            "split_data_sha256": ", ".join(batches.sha256() for batches in splits.values()),
        }
