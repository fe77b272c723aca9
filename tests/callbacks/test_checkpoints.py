"""Checkpoints of killed runs."""

from __future__ import annotations

from pathlib import Path

import torch

from nas_lightning.callbacks import AtomicCheckpointIO


def test_what_a_killed_process_left_of_a_checkpoint_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".last.ckpt.x1.tmp").write_bytes(b"half a checkpoint")
    (tmp_path / ".best.ckpt.x2.tmp").write_bytes(b"of another file")
    AtomicCheckpointIO().save_checkpoint({"weights": torch.zeros(3)}, tmp_path / "last.ckpt")
    assert {path.name for path in tmp_path.iterdir()} == {"last.ckpt", ".best.ckpt.x2.tmp"}
    assert torch.equal(torch.load(tmp_path / "last.ckpt")["weights"], torch.zeros(3))
