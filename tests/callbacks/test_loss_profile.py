"""The loss profile of a small training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Trainer

from nas_lightning.analysis import loss_profile, read_profile
from nas_lightning.callbacks import LossProfile
from nas_lightning.classifier import CellClassifier
from tests.callbacks.cases import images
from tests.cli.commands import read_events


def test_the_profile_is_that_of_the_analysis(measured: tuple[Path, CellClassifier, Trainer]) -> None:
    folder, classifier, _ = measured
    profile = read_profile(folder / "loss_profile-epoch0001.nc")
    expected = loss_profile(classifier.network, [images()], [0.0, 0.5, 1.0], [0, 4])
    assert profile["radius"].values.tolist() == [0.0, 0.5, 1.0]
    assert profile["done"].values.all()
    for name in ("loss", "accuracy", "mean_rise", "one_nat_radius"):
        assert profile[name].values == pytest.approx(expected[name].values, rel=1e-5), name
    assert profile.attrs["num_classes"] == 10
    assert profile.attrs["batch_norm"] == "frozen"
    [number] = read_events(folder.parent).Scalars("landscape/mean_rise")
    assert number.value == pytest.approx(float(profile["mean_rise"].mean()), rel=1e-5)


def test_settings_out_of_range_are_refused() -> None:
    refused: list[tuple[dict[str, Any], str]] = [
        ({"resolution": 1}, "`resolution`"),
        ({"extent": 0.0}, "`extent`"),
        ({"direction_seeds": [1, 1]}, "`direction_seeds`"),
    ]
    for settings, message in refused:
        with pytest.raises(ValueError, match=message):
            LossProfile(**settings)
