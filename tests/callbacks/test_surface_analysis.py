"""What surfaces log and draw."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, Trainer

from nas_lightning.analysis import (
    read_surface,
)
from nas_lightning.callbacks import GradientVariance, LossContour
from nas_lightning.classifier import CellClassifier
from tests.callbacks.cases import trained
from tests.cli.commands import read_events


def test_tensorboard_has_pictures_and_numbers(measured: tuple[Path, CellClassifier, Trainer]) -> None:
    events = read_events(measured[0].parent)
    tags = [tag for tag in events.Tags()["images"] if not tag.startswith("cell/")]
    pictures = {tag.removeprefix("landscape/") for tag in tags}
    assert pictures == {
        "loss_contour",
        "loss_surface",
        "loss_spread",
        "loss_profile",
        "loss_line",
        "interpolation",
        "gradient_heat_map",
        "gradient_surface",
        "gradient_by_node",
        "hessian_spectrum",
    }
    contours = events.Images("landscape/loss_contour")
    assert [picture.step for picture in contours] == [1, 1, 1]  # coarse, one pair of directions, and complete
    assert len({picture.encoded_image_string for picture in contours}) == 3
    assert {picture.step for picture in events.Images("landscape/gradient_heat_map")} == {0, 1}
    contour = read_surface(measured[0] / "loss_contour-epoch0001.nc")
    for name in ("near_convex_share", "curvature_center"):
        [number] = events.Scalars(f"landscape/{name}")
        assert number.value == pytest.approx(float(contour[name].mean()), rel=1e-5)
        [deviation] = events.Scalars(f"landscape/{name}_spread")
        assert deviation.value == pytest.approx(float(contour[name].std(ddof=1)), rel=1e-5, abs=1e-12)
    assert events.Scalars("landscape/hessian_largest_eigenvalue")[0].step == 1


def test_points_that_are_not_finite_reach_file_and_figure(tmp_path: Path) -> None:
    class Broken(Callback):
        def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
            with torch.no_grad():
                pl_module.network.classifier.weight.mul_(3e37)

    trained(
        tmp_path,
        Broken(),
        LossContour(resolution=3, extent=2.0),
        GradientVariance(resolution=3, extent=2.0),
    )
    folder = tmp_path / "tb" / "landscape"
    contour = read_surface(folder / "loss_contour-epoch0001.nc")
    assert contour["done"].values.all()
    assert not np.isfinite(contour["loss"].values).all()
    variance = read_surface(folder / "gradient_variance-epoch0001.nc")
    assert np.isnan(variance["variance"].values).any()
    assert math.isnan(float(variance["variance_ring"][0, -1]))
    assert {"landscape/loss_contour", "landscape/gradient_heat_map"} <= set(
        read_events(folder.parent).Tags()["images"]
    )


def test_a_surface_beside_the_weights_has_no_scalars(tmp_path: Path) -> None:
    trained(tmp_path, LossContour(resolution=3, extent=(0.0, 1.0)))
    surface = read_surface(tmp_path / "tb" / "landscape" / "loss_contour-epoch0001.nc")
    assert surface["alpha"].values.tolist() == [0, 0.5, 1]
    assert "near_convex_share" not in surface
