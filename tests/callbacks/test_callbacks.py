"""Callbacks on a small training without the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from torch import Tensor

from nas_lightning.callbacks import AtomicCheckpointIO, RunRecord, TrainingProgress
from nas_lightning.classifier import CellClassifier
from nas_lightning.datamodules import Synthetic
from tests.cli.commands import read_metrics


class Diverging(CellClassifier):
    """A classifier whose evaluation loss is not a number."""

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_index: int) -> None:
        inputs, targets = batch
        super().validation_step((inputs * torch.nan, targets), batch_index)


class DrawNumbers(Callback):
    """Keeps a random number of every batch, as drop path would draw it."""

    def __init__(self) -> None:
        self.numbers: list[float] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: object) -> None:
        self.numbers.append(float(torch.rand(())))


def data() -> Synthetic:
    return Synthetic(image_size=16, train_size=48, test_size=10, batch_size=16)


def trainer(*callbacks: Callback, epochs: int = 2) -> Trainer:
    return Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        logger=False,
        callbacks=list(callbacks),
        enable_checkpointing=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )


def test_a_loss_that_is_not_a_number_is_shown_as_such(tmp_path: Path) -> None:
    trainer(RunRecord(tmp_path)).fit(Diverging(init_channels=4, num_cells=3), datamodule=data())
    assert [str(row["loss/test"]) for row in read_metrics(tmp_path)] == ["nan", "nan"]
    result = json.loads((tmp_path / "result.json").read_text(), parse_constant=pytest.fail)
    assert result["final"]["loss/test"] == "nan"


def test_a_training_stopped_by_steps_is_finished_and_timed(tmp_path: Path) -> None:
    fit = trainer(RunRecord(tmp_path), epochs=5)
    fit.fit_loop.epoch_loop.max_steps = 4
    fit.fit(CellClassifier(init_channels=4, num_cells=3), datamodule=data())
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["finished"]
    assert result["epochs"] == 2
    assert all(row["images_per_second"] > 0 for row in read_metrics(tmp_path))


def test_drop_path_draws_from_seed_epoch_and_batch() -> None:
    draws = []
    for seed in (0, 0, 1):
        seed_everything(seed)
        numbers = DrawNumbers()
        model = CellClassifier(init_channels=4, num_cells=3, drop_path=0.3)
        trainer(numbers).fit(model, datamodule=data())
        draws.append(numbers.numbers)
    assert draws[0] == draws[1]
    assert not set(draws[0]) & set(draws[2])
    assert len(set(draws[0])) == 6  # three batches in each of two epochs


def test_a_record_without_image_data_is_refused(tmp_path: Path) -> None:
    datamodule = data()
    datamodule.prepare_data()
    datamodule.setup()
    with pytest.raises(ValueError, match="data module of images"):
        trainer(RunRecord(tmp_path)).fit(
            CellClassifier(init_channels=4, num_cells=3), datamodule.train_dataloader()
        )


def test_an_epoch_without_a_terminal_is_one_line_with_the_time_left(
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = CellClassifier(init_channels=4, num_cells=3)
    trainer(TrainingProgress(), epochs=3).fit(model, datamodule=data())
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("epoch ")]
    assert [line.split(":")[0] for line in lines] == ["epoch 1/3", "epoch 2/3", "epoch 3/3"]
    assert all("accuracy/test" in line for line in lines)
    assert lines[-1].endswith("left 00:00")


def test_what_a_killed_process_left_of_a_checkpoint_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".last.ckpt.x1.tmp").write_bytes(b"half a checkpoint")
    (tmp_path / ".best.ckpt.x2.tmp").write_bytes(b"of another file")
    AtomicCheckpointIO().save_checkpoint({"weights": torch.zeros(3)}, tmp_path / "last.ckpt")
    assert {path.name for path in tmp_path.iterdir()} == {"last.ckpt", ".best.ckpt.x2.tmp"}
    assert torch.equal(torch.load(tmp_path / "last.ckpt")["weights"], torch.zeros(3))
