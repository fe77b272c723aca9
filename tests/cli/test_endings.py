"""Trainings that end before their last epoch, metrics that nobody logs, evaluations of a part of a split."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch import Callback

from nas_lightning.classifier import CellClassifier
from nas_lightning.cli.main import main
from nas_lightning.datamodules import Synthetic
from nas_lightning.datamodules.sampling import stratified_subset
from tests.cli.commands import TINY, read_checkpoint, read_metrics, read_result, refusal
from tests.cli.test_resume import fit

EARLY = (
    "--trainer.max_epochs=9",
    "--trainer.callbacks=EarlyStopping",
    "--trainer.callbacks.monitor=loss/test",
    "--trainer.callbacks.stopping_threshold=100",
)
"""Stops after the first epoch: every loss is below 100."""
PATIENT = (
    "--trainer.max_epochs=9",
    "--trainer.callbacks=EarlyStopping",
    "--trainer.callbacks.monitor=accuracy/test",
    "--trainer.callbacks.mode=max",
    "--trainer.callbacks.min_delta=1",
    "--trainer.callbacks.patience=2",
)
"""Stops after three epochs: no accuracy rises by 1."""


class StopsAfter(Callback):
    """Asks the trainer to stop after the second epoch."""

    def on_train_epoch_end(self, trainer: Any, *_: Any) -> None:
        trainer.should_stop = trainer.current_epoch == 1


@pytest.mark.parametrize(
    ("settings", "epochs", "reason"),
    [
        ((), 3, "all 3 epochs"),
        (EARLY, 1, "early stopping: loss/test reached 100"),
        (PATIENT, 3, "early stopping: accuracy/test did not improve for 2 epochs"),
        (("--trainer.max_steps=5",), 2, "max_steps: 5 steps"),
        (("--trainer.max_time=00:00:00:01", "--trainer.max_epochs=999"), None, "max_time: "),
        (
            ("--trainer.callbacks=tests.cli.test_endings.StopsAfter",),
            2,
            "trainer.should_stop: a callback ended the training",
        ),
    ],
    ids=["full", "threshold", "patience", "steps", "time", "callback"],
)
def test_what_lightning_ends_in_order_is_finished_and_stays_so(
    settings: tuple[str, ...], epochs: int | None, reason: str, tmp_path: Path
) -> None:
    analysis = (
        "--trainer.callbacks+=LossProfile",
        "--trainer.callbacks.resolution=3",
        "--trainer.callbacks.curvature_samples=0",
    )
    with_analysis = (*settings, *analysis, "--trainer.callbacks.max_samples=20")
    run = fit(tmp_path, *with_analysis)
    result = read_result(run)
    assert result["finished"]
    assert result["ended"].startswith(reason)
    epochs = epochs or result["epochs"]
    assert result["epochs"] == len(read_metrics(run)) == epochs
    profile = run / "landscape" / f"loss_profile-epoch{epochs - 1:04d}.nc"
    assert profile.exists()
    # As if it had been killed before its analysis and its result: it is not trained any further.
    profile.unlink()
    (run / "result.json").unlink()
    before = read_checkpoint(run / "checkpoints" / "last.ckpt")
    fit(tmp_path, *with_analysis, "--ckpt_path=last")
    assert read_result(run)["epochs"] == epochs
    assert read_result(run)["ended"].startswith(reason)
    assert profile.exists()
    after = read_checkpoint(run / "checkpoints" / "last.ckpt")
    assert before["global_step"] == after["global_step"]
    assert all(
        torch.equal(before["state_dict"][name], after["state_dict"][name]) for name in before["state_dict"]
    )


@pytest.mark.parametrize(
    ("settings", "fragments"),
    [
        (
            ["--trainer.callbacks=EarlyStopping", "--trainer.callbacks.monitor=val_loss"],
            ["EarlyStopping", "`loss/test`"],
        ),
        (["--trainer.callbacks=EarlyStopping", "--trainer.callbacks.monitor=val_acc"], ["`accuracy/test`"]),
        (["--trainer.callbacks=EarlyStopping", "--trainer.callbacks.monitor=train_loss"], ["`loss/train`"]),
        (
            ["--trainer.callbacks=ModelCheckpoint", "--trainer.callbacks.monitor=accuracy/val"],
            ["`accuracy/test`"],
        ),
        (
            [
                "--trainer.callbacks=EarlyStopping",
                "--trainer.callbacks.monitor=loss/test",
                "--trainer.limit_val_batches=0",
            ],
            ["`loss/train`"],
        ),
        (
            [
                "--model.lr_scheduler=lightning.pytorch.cli.ReduceLROnPlateau",
                "--model.lr_scheduler.init_args.monitor=val/loss",
            ],
            ["model.lr_scheduler", "`loss/test`"],
        ),
    ],
    ids=["loss", "accuracy", "train", "checkpoint", "no evaluation", "schedule"],
)
def test_a_metric_that_nobody_logs_is_refused_before_the_training(
    settings: list[str], fragments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = refusal(["fit", *TINY, f"--trainer.default_root_dir={tmp_path / 'logs'}", *settings], capsys)
    for fragment in ["no metric of this training", *fragments]:
        assert fragment in line
    assert not list(tmp_path.iterdir())


class SortedByClass(Synthetic):
    """A test split sorted by class, as several official ones are."""

    def load_split(self, split: Any) -> Any:
        images, targets = super().load_split(split)
        order = targets.argsort(stable=True)
        return images[order], targets[order]


class WithOwnLoader(SortedByClass):
    def val_dataloader(self) -> Any:
        return self.evaluation_dataloader("test")


def test_a_limited_evaluation_draws_a_stratified_part_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    data = [a for a in TINY if not a.startswith("--data=")]
    own = ["--data=tests.cli.test_endings.SortedByClass", "--data.test_size=200"]
    arguments = [*own[:1], *data, *own[1:], "--data.evaluation_batch_size=10", "--trainer.max_epochs=2"]
    root = f"--trainer.default_root_dir={tmp_path}"
    main(["fit", *arguments, root, "--trainer.limit_val_batches=0.3"])
    run = tmp_path / "sortedbyclass" / "darts_v2"
    assert "evaluates 60 images of the 200 of the test split" in caplog.text
    part = read_result(run)["evaluated_part"]
    assert part == {
        "split": "test",
        "images": 60,
        "of": 200,
        "chosen": "at random, stratified by class, validation_seed 0",
    }
    # The accuracy is that of the part, computed the obvious way.
    checkpoint = run / "checkpoints" / "last.ckpt"
    classifier = CellClassifier.load_from_checkpoint(checkpoint, map_location="cpu").eval()
    module = SortedByClass(image_size=16, train_size=48, test_size=200, num_classes=10, batch_size=16)
    module.setup()
    images, targets = module.split_arrays("test")
    chosen = stratified_subset(targets, 60, 0)
    with torch.no_grad():
        predicted = classifier(module.normalise(images[chosen])).argmax(1)
    accuracy = float((predicted == targets[chosen]).double().mean())
    assert read_metrics(run)[-1]["accuracy/test"] == pytest.approx(accuracy, abs=1e-6)
    capsys.readouterr()
    batches = ["--data.evaluation_batch_size=10"]
    main(["test", f"--ckpt_path={checkpoint}", "--trainer.limit_test_batches=6", *batches])
    assert f"accuracy/test {accuracy:.6f}" in capsys.readouterr().out
    line = refusal(["fit", *arguments, root, "--run=none", "--trainer.limit_val_batches=0.01"], capsys)
    assert "`trainer.limit_val_batches` (=0.01) leaves none of the 20 batches" in line


def test_a_loader_of_one_s_own_is_limited_as_it_is_and_says_so(tmp_path: Path) -> None:
    data = [a for a in TINY if not a.startswith("--data=")]
    own = ["--data=tests.cli.test_endings.WithOwnLoader", "--data.evaluation_batch_size=10"]
    root = f"--trainer.default_root_dir={tmp_path}"
    main(["fit", own[0], *data, own[1], root, "--trainer.max_epochs=1", "--trainer.limit_val_batches=2"])
    part = json.loads((tmp_path / "withownloader" / "darts_v2" / "result.json").read_text())["evaluated_part"]
    assert part["chosen"] == "the first 2 batches of its own loader"


@pytest.mark.slow
def test_a_study_takes_a_run_that_stopped_early_as_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    flags = dict(flag.removeprefix("--").split("=") for flag in TINY)
    data = {key.removeprefix("data."): int(value) for key, value in flags.items() if key.startswith("data.")}
    stopping = {"monitor": "loss/test", "stopping_threshold": 100.0}
    base = {
        "model": {"init_channels": 4, "num_cells": 3},
        "data": {"class_path": "Synthetic", "init_args": data},
        "trainer": {
            "accelerator": "cpu",
            "max_epochs": 9,
            "callbacks": [
                {"class_path": "EarlyStopping", "init_args": stopping},
                {"class_path": "LossProfile", "init_args": {"resolution": 3, "max_samples": 20}},
            ],
        },
    }
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(base))
    study = {
        "name": "early",
        "configs": ["base.yaml"],
        "axes": {"architectures": ["darts_v2"], "seeds": [0, 1]},
    }
    (tmp_path / "early.yaml").write_text(yaml.safe_dump(study))
    for _ in range(2):
        with contextlib.suppress(SystemExit):
            main(["study", "run", "early.yaml", "--jobs=1"])
        output = capsys.readouterr().out
        assert "2 of 2 runs are finished" in output
        assert "failed" not in output
    main(["study", "status", "early.yaml"])
    assert "early stopping: loss/test reached 100" in capsys.readouterr().out
    starts = [json.loads(path.read_text()) for path in tmp_path.glob("tb_logs/*/*/study.json")]
    assert len(starts) == 2
    main(["study", "report", "early.yaml"])
    captured = capsys.readouterr()
    assert "has 1 of 9 epochs: early stopping: loss/test reached 100" in captured.err
    assert "early stopping" in Path(captured.out.split()[-1]).read_text()
    assert all(len(one["attempts"] if isinstance(one, dict) else one) == 1 for one in starts)
