"""The loss contour of a small training."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer
from torch.nn import functional

from nas_lightning.analysis import (
    evaluate,
    random_directions,
    read_surface,
)
from nas_lightning.callbacks import LossContour
from nas_lightning.classifier import CellClassifier
from nas_lightning.datamodules import Synthetic
from tests.callbacks.cases import images, small_classifier


def test_the_center_of_the_contour_is_the_validation_loss(
    measured: tuple[Path, CellClassifier, Trainer],
) -> None:
    folder, classifier, trainer = measured
    contour = read_surface(folder / "loss_contour-epoch0001.nc")
    center = contour.sel(alpha=0.0, beta=0.0)
    inputs, targets = images()
    with torch.no_grad():
        expected = float(functional.cross_entropy(classifier.eval()(inputs), targets))
    assert center["loss"].values == pytest.approx([expected, expected], rel=1e-6)
    assert center["loss"].values == pytest.approx(float(trainer.callback_metrics["loss/test"]), rel=1e-6)
    accuracy = float(trainer.callback_metrics["accuracy/test"])
    assert center["accuracy"].values == pytest.approx([accuracy, accuracy])


def test_another_point_is_the_loss_of_displaced_weights(
    measured: tuple[Path, CellClassifier, Trainer],
) -> None:
    folder, classifier, _ = measured
    contour = read_surface(folder / "loss_contour-epoch0001.nc")
    first, second = random_directions(classifier.network, 3)
    state = {name: tensor.clone() for name, tensor in classifier.network.state_dict().items()}
    for name in first:
        state[name] += 0.5 * first[name] - 1.0 * second[name]
    moved = small_classifier().network
    moved.load_state_dict(state)
    loss, accuracy = evaluate(moved, [images()])
    point = contour.sel(direction_seed=3, alpha=0.5, beta=-1.0)
    assert float(point["loss"]) == pytest.approx(loss, rel=1e-5)
    assert float(point["accuracy"]) == pytest.approx(accuracy)


def test_an_auxiliary_tower_changes_no_direction(tmp_path: Path) -> None:
    """The same weights with a tower beside them have the same surface."""
    made = Synthetic(image_size=32, train_size=16, test_size=9, batch_size=16)
    losses, cosines = [], []
    plain = small_classifier()
    for weight in (0.0, 0.4):
        classifier = small_classifier(auxiliary_weight=weight)
        classifier.network.load_state_dict(plain.network.state_dict(), strict=False)
        trainer = Trainer(
            accelerator="cpu",
            max_epochs=1,
            logger=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=False,
            limit_train_batches=0,
            default_root_dir=tmp_path / str(weight),
            callbacks=[contour := LossContour(resolution=3)],
        )
        contour.checkpoint_epoch = -1
        trainer.validate(classifier, datamodule=made, verbose=False)
        surface = read_surface(tmp_path / str(weight) / "landscape" / "loss_contour.nc")
        losses.append(surface["loss"].values)
        cosines.append(float(surface["cosine"][0]))
    assert (losses[0] == losses[1]).all()
    assert cosines[0] == cosines[1]
