"""Lightning's callbacks that average weights, search for settings or spawn processes."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import (
    BatchSizeFinder,
    EMAWeightAveraging,
    LearningRateFinder,
    StochasticWeightAveraging,
)
from torch import nn
from torch.optim import SGD

from nas_lightning.analysis import evaluate, read_surface
from nas_lightning.callbacks import LossContour
from nas_lightning.classifier import CellClassifier
from nas_lightning.cli.main import main
from tests.callbacks.any_module import Own, loader, samples
from tests.callbacks.cases import data, images, small_classifier, trainer
from tests.cli.commands import read_metrics, read_result


def center(path: Path) -> float:
    return float(read_surface(path)["loss"].sel(alpha=0, beta=0)[0])


def test_a_classifier_is_copied_and_pickled() -> None:
    classifier = small_classifier()
    for other in (copy.deepcopy(classifier), pickle.loads(pickle.dumps(classifier))):
        assert other.make_optimizer().param_groups[0]["lr"] == 0.025
        assert torch.equal(other.network.classifier.weight, classifier.network.classifier.weight)


def test_the_average_of_ema_is_measured_at_every_epoch(tmp_path: Path) -> None:
    means: list[float] = []

    class Means(Callback):
        def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
            if trainer.current_epoch:
                [ema] = [c for c in trainer.callbacks if isinstance(c, EMAWeightAveraging)]  # type: ignore[attr-defined]
                assert ema._average_model is not None
                average: Any = ema._average_model.module
                means.append(evaluate(average.network, [images()])[0])

    seed_everything(0)
    contour = LossContour(resolution=3, every_n_epochs=1)
    fit = trainer(contour, EMAWeightAveraging(decay=0.5), Means(), default_root_dir=tmp_path)
    classifier = small_classifier()
    fit.fit(classifier, datamodule=data())
    folder = tmp_path / "landscape"
    assert center(folder / "loss_contour-epoch0000.nc") == pytest.approx(means[0], rel=1e-5)
    assert center(folder / "loss_contour-epoch0001.nc") == pytest.approx(
        evaluate(classifier.network, [images()])[0], rel=1e-5
    )


@pytest.mark.parametrize("first", [False, True])
def test_the_average_of_swa_is_measured_at_the_end(tmp_path: Path, first: bool) -> None:
    inputs, targets = samples()
    batches = loader(inputs, targets)
    seed_everything(0)
    module = Own(nn.Sequential(nn.Flatten(), nn.Linear(32, 3)))
    callbacks: list[Callback] = [StochasticWeightAveraging(0.1, 1), LossContour(resolution=3)]
    fit = trainer(*(callbacks if first else callbacks[::-1]), max_epochs=3, default_root_dir=tmp_path)
    fit.fit(module, batches, batches)
    found = center(tmp_path / "landscape" / "loss_contour-epoch0002.nc")
    assert found == pytest.approx(evaluate(module, [(inputs, targets)])[0], rel=1e-5)


def test_swa_updates_the_batch_norms_of_a_fused_network(tmp_path: Path) -> None:
    # The weights stand still: six steps would make rounding errors a thousand times larger, at any level.
    statistics: list[list[torch.Tensor]] = []
    for speed in ("reference", "fast"):
        seed_everything(0)
        classifier = small_classifier(speed=speed, optimizer=lambda parameters: SGD(parameters, lr=1e-12))
        average = StochasticWeightAveraging(1e-12)
        trainer(average, default_root_dir=tmp_path).fit(classifier, datamodule=data())
        statistics.append(list(classifier.network.buffers()))
    for reference, fast in zip(*statistics, strict=True):
        torch.testing.assert_close(fast, reference, rtol=1e-4, atol=1e-5)
    tracked = {int(b) for b in statistics[1] if not b.is_floating_point()}
    assert tracked == {3}  # of the averaged weights' own pass, not of the six steps before it


def test_the_learning_rate_that_is_found_is_trained_with() -> None:
    seed_everything(0)
    classifier = small_classifier()
    rates: list[float] = []

    class Rates(Callback):
        def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
            rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    finder = LearningRateFinder(min_lr=1e-4, max_lr=0.5, num_training_steps=30)
    trainer(finder, Rates(), max_epochs=20).fit(classifier, datamodule=data())
    assert finder.optimal_lr is not None
    assert classifier.learning_rate == finder.optimal_lr.suggestion() != 0.025
    assert rates[0] == classifier.learning_rate
    assert rates[10] == pytest.approx(rates[0] / 2)  # the cosine


def test_the_batch_size_that_is_found_fits_the_data() -> None:
    datamodule = data()
    trainer(BatchSizeFinder(max_trials=8), max_epochs=1).fit(small_classifier(), datamodule=datamodule)
    assert datamodule.batch_size == datamodule.split_sizes["train"] == 48


ARGUMENTS = [
    *("--model.init_channels", "4", "--model.num_cells", "3", "--data", "Synthetic"),
    *("--data.image_size", "16", "--data.train_size", "48", "--data.test_size", "37"),
    *("--data.batch_size", "16", "--trainer.max_epochs", "2", "--trainer.accelerator", "cpu"),
]


@pytest.mark.parametrize(
    "arguments",
    [
        ["EMAWeightAveraging"],
        ["StochasticWeightAveraging", "--trainer.callbacks.swa_lrs", "0.01"],
        ["LearningRateFinder"],
        ["BatchSizeFinder"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_the_command_line_takes_them(tmp_path: Path, arguments: list[str]) -> None:
    main(
        [
            *("fit", *ARGUMENTS, "--run", "r", "--trainer.default_root_dir", str(tmp_path)),
            *("--trainer.callbacks", *arguments),
        ]
    )
    run = tmp_path / "synthetic" / "r"
    assert read_result(run)["finished"]
    assert read_result(run)["settings"]["data.batch_size"] == (
        48 if arguments[0] == "BatchSizeFinder" else 16
    )
    classifier = CellClassifier.load_from_checkpoint(run / "checkpoints" / "last.ckpt", map_location="cpu")
    assert read_metrics(run)[-1]["loss/test"] == pytest.approx(
        evaluate(classifier.network, [images()])[0], rel=1e-4
    )


@pytest.mark.slow
def test_processes_are_spawned(tmp_path: Path) -> None:
    main(
        [
            *("fit", *ARGUMENTS, "--run", "r", "--trainer.default_root_dir", str(tmp_path)),
            *("--trainer.strategy", "ddp_spawn", "--trainer.devices", "2"),
            *("--trainer.callbacks", "LossContour", "--trainer.callbacks.resolution", "3"),
        ]
    )
    assert read_result(tmp_path / "synthetic" / "r")["finished"]
    assert (tmp_path / "synthetic" / "r" / "landscape" / "loss_contour-epoch0001.nc").exists()
