"""The record of a run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from nas_lightning.callbacks import RunRecord
from nas_lightning.classifier import CellClassifier
from tests.callbacks.cases import data, small_classifier, trainer
from tests.cli.commands import read_metrics


class Diverging(CellClassifier):
    """A classifier whose evaluation loss is not a number."""

    def validation_step(self, batch: Sequence[Tensor], batch_index: int) -> None:
        inputs, targets = batch
        super().validation_step((inputs * torch.nan, targets), batch_index)


def test_a_loss_that_is_not_a_number_is_shown_as_such(tmp_path: Path) -> None:
    trainer(RunRecord(tmp_path)).fit(Diverging(init_channels=4, num_cells=3), datamodule=data())
    assert [str(row["loss/test"]) for row in read_metrics(tmp_path)] == ["nan", "nan"]
    result = json.loads((tmp_path / "result.json").read_text(), parse_constant=pytest.fail)
    assert result["final"]["loss/test"] == "nan"


def test_a_training_stopped_by_steps_is_finished_and_timed(tmp_path: Path) -> None:
    fit = trainer(RunRecord(tmp_path), max_epochs=5)
    fit.fit_loop.epoch_loop.max_steps = 4
    fit.fit(small_classifier(), datamodule=data())
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["finished"]
    assert result["epochs"] == 2
    assert all(row["images_per_second"] > 0 for row in read_metrics(tmp_path))
