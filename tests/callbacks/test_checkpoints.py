"""Checkpoints of killed runs, and of initial weights."""

from __future__ import annotations

from pathlib import Path

import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything

from nas_lightning.callbacks import AtomicCheckpointIO, LossProfile
from nas_lightning.callbacks.checkpoints import save_start
from nas_lightning.cli.main import main
from nas_lightning.provenance import weights_hash
from nas_lightning.torch_files import read_torch_file
from tests.callbacks.cases import data, small_classifier, trained, trainer
from tests.cli.commands import TINY


def test_what_a_killed_process_left_of_a_checkpoint_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".last.ckpt.x1.tmp").write_bytes(b"half a checkpoint")
    (tmp_path / ".best.ckpt.x2.tmp").write_bytes(b"of another file")
    AtomicCheckpointIO().save_checkpoint({"weights": torch.zeros(3)}, tmp_path / "last.ckpt")
    assert {path.name for path in tmp_path.iterdir()} == {"last.ckpt", ".best.ckpt.x2.tmp"}
    assert torch.equal(torch.load(tmp_path / "last.ckpt")["weights"], torch.zeros(3))


class KeepsStart(Callback):
    """Asks for the initial weights."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        save_start(trainer)


def test_the_initial_weights_are_kept_and_can_be_measured(tmp_path: Path) -> None:
    settings = {"resolution": 2, "direction_seeds": [0], "batch_size": 10, "max_samples": 20}
    measured = LossProfile(at_start=True, at_end=False, **settings)  # type: ignore[arg-type]
    seed_everything(0)
    initial = weights_hash(small_classifier().state_dict())
    trained(tmp_path, KeepsStart(), measured, max_epochs=1)
    path = tmp_path / "tb" / "checkpoints" / "start.ckpt"
    assert weights_hash(read_torch_file(path)["state_dict"]) == initial

    file = tmp_path / "tb" / "landscape" / "loss_profile-start.nc"
    expected = file.read_bytes()
    file.unlink()
    chosen = [f"--trainer.callbacks.{name}={value}" for name, value in settings.items()]
    main(["landscape", f"--ckpt_path={path}", *TINY[2:], "--trainer.callbacks=LossProfile", *chosen])
    assert file.read_bytes() == expected


def test_a_resumed_training_leaves_the_initial_weights(tmp_path: Path) -> None:
    folder = {"default_root_dir": tmp_path, "enable_progress_bar": False}
    first = trainer(KeepsStart(), max_epochs=1, **folder)
    first.fit(small_classifier(), datamodule=data())
    first.save_checkpoint(tmp_path / "epoch.ckpt")
    path = tmp_path / "checkpoints" / "start.ckpt"
    before = path.read_bytes()
    second = trainer(KeepsStart(), max_epochs=2, **folder)
    second.fit(small_classifier(), datamodule=data(), ckpt_path=tmp_path / "epoch.ckpt")
    assert second.global_step == 2 * first.global_step
    assert path.read_bytes() == before
