"""The loss profile of a small training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Trainer, seed_everything

from nas_lightning.analysis import loss_profile, read_profile, second_derivative
from nas_lightning.callbacks import LossProfile
from nas_lightning.classifier import CellClassifier
from nas_lightning.netcdf import write_dataset
from tests.callbacks.cases import data, images, trainer
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


def test_the_curvature_at_the_weights_is_that_of_the_analysis(
    measured: tuple[Path, CellClassifier, Trainer],
) -> None:
    folder, classifier, _ = measured
    profile = read_profile(folder / "loss_profile-epoch0001.nc")
    estimate, error = second_derivative(classifier.network, [images()], 3)
    assert float(profile["second_derivative"]) == pytest.approx(estimate, rel=1e-3)
    assert float(profile["second_derivative_standard_error"]) == pytest.approx(error, rel=1e-3)
    assert profile["second_derivative"].attrs["samples"] == 3
    [number] = read_events(folder.parent).Scalars("landscape/second_derivative")
    assert number.value == pytest.approx(estimate, rel=1e-3)


def test_a_file_of_an_earlier_version_gets_the_curvature_and_keeps_the_rest(
    measured: tuple[Path, CellClassifier, Trainer], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder, classifier, _ = measured
    name = "loss_profile-epoch0001.nc"
    whole = read_profile(folder / name)
    added = ["second_derivative", "second_derivative_standard_error"]
    write_dataset(tmp_path / name, whole.drop_vars(added).assign(loss=whole["loss"] + 1))

    def measure(**settings: Any) -> Any:
        small: dict[str, Any] = {"resolution": 3, "batch_size": 10, "direction_seeds": [0, 4]}
        analysis = LossProfile(folder=str(tmp_path), **(small | settings))
        analysis.checkpoint_epoch = 1
        seed_everything(0)
        trainer(analysis, enable_progress_bar=False).validate(classifier, datamodule=data(), verbose=False)
        return read_profile(tmp_path / name)

    assert "second_derivative" not in measure(curvature_samples=0)
    completed = measure(curvature_samples=3)
    assert "second derivative" in caplog.text
    assert " ± " in caplog.text.rpartition("second derivative")[2].splitlines()[0]
    for variable in added:
        assert completed[variable].values == whole[variable].values
    assert (completed["loss"].values == whole["loss"].values + 1).all()  # kept, not measured again
    kept = (tmp_path / name).read_bytes()
    measure(curvature_samples=3)
    assert (tmp_path / name).read_bytes() == kept
    assert measure(curvature_samples=1)["second_derivative"].attrs["samples"] == 1
    (tmp_path / name).unlink()
    assert "second_derivative" not in measure(batch_norm="reestimated")


def test_settings_out_of_range_are_refused() -> None:
    refused: list[tuple[dict[str, Any], str]] = [
        ({"resolution": 1}, "`resolution`"),
        ({"extent": 0.0}, "`extent`"),
        ({"direction_seeds": [1, 1]}, "`direction_seeds`"),
        ({"curvature_samples": -1}, r"`curvature_samples` \(=-1\) must be from 0 to 1000000"),
    ]
    for settings, message in refused:
        with pytest.raises(ValueError, match=message):
            LossProfile(**settings)
