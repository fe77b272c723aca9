"""The loss line of a small training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Trainer

from nas_lightning.analysis import LineSurface, loss_line
from nas_lightning.callbacks import LossLine
from nas_lightning.callbacks.split_batches import split_batches
from nas_lightning.classifier import CellClassifier
from tests.callbacks.cases import data
from tests.cli.commands import read_events


def splits_of(classifier: CellClassifier, *names: str, **settings: Any) -> dict[str, Any]:
    """The batches that an analysis of a training of these tests reads."""
    made: Any = data()
    made.setup()
    parameter = next(classifier.parameters())
    how: dict[str, Any] = {"max_samples": None, "sample_seed": 0, "batch_size": 10, "shuffled": False}
    how |= {"device": parameter.device, "dtype": parameter.dtype} | settings
    return {name: split_batches(made, name, **how) for name in names}


def test_the_line_is_that_of_the_analysis(measured: tuple[Path, CellClassifier, Trainer]) -> None:
    folder, classifier, _ = measured
    line = LineSurface.read(folder / "loss_line-epoch0001.nc")
    splits = splits_of(classifier, "train", "test", max_samples=20)
    expected = loss_line(classifier.network, splits, [-0.5, 0.0, 0.5], [0, 4])
    assert line["position"].values.tolist() == [-0.5, 0.0, 0.5]
    assert line["done"].values.all()
    assert set(expected.data_vars) == {
        *("train_loss", "train_accuracy", "test_loss", "test_accuracy"),
        *("train_mean_rise", "test_mean_rise"),
    }
    for name in map(str, expected.data_vars):
        assert line[name].values == pytest.approx(expected[name].values, rel=1e-5), name
    assert line.attrs["splits"] == "train, test"
    assert line.attrs["split_samples"] == "20, 20"
    assert line.attrs["batch_norm"] == "frozen"
    events = read_events(folder.parent)
    [number] = events.Scalars("landscape/test_mean_rise")
    assert number.value == pytest.approx(float(line["test_mean_rise"].mean()), rel=1e-5)
    assert "landscape/loss_line" in events.Tags()["images"]


def test_settings_out_of_range_are_refused() -> None:
    refused: list[tuple[dict[str, Any], str]] = [
        ({"resolution": 1}, "`resolution`"),
        ({"extent": 0.0}, "`extent`"),
        ({"direction_seeds": [1, 1]}, "`direction_seeds`"),
        ({"splits": []}, r"`splits` \(=\[\]\) must be a list of different splits"),
        ({"splits": ["test", "test"]}, "`splits`"),
    ]
    for settings, message in refused:
        with pytest.raises(ValueError, match=message):
            LossLine(**settings)
