"""The gradient variance of a small training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer, seed_everything
from torch import Tensor, nn

from nas_lightning.analysis import (
    gradient_statistics,
    read_surface,
)
from nas_lightning.callbacks import GradientVariance
from nas_lightning.cells import Genotype
from nas_lightning.classifier import CellClassifier
from nas_lightning.netcdf import read_dataset, write_dataset
from nas_lightning.networks import register_operation
from tests.callbacks.cases import data, images, trained, trainer


def test_the_variance_at_the_center_is_split_by_cell_and_node(
    measured: tuple[Path, CellClassifier, Trainer],
) -> None:
    folder, classifier, _ = measured
    surface = read_surface(folder / "gradient_variance-epoch0001.nc")
    statistics = gradient_statistics(classifier.network, [images()])
    assert float(surface["center_variance"]) == pytest.approx(statistics.variance, rel=1e-5)
    normalized = float(surface["center_normalized_variance"])
    assert normalized == pytest.approx(statistics.normalized_variance, rel=1e-5)
    assert float(surface["center_loss"]) == pytest.approx(statistics.loss, rel=1e-5)
    assert float(surface["center_mean_gradient_norm"]) == pytest.approx(
        statistics.mean_gradient_norm, rel=1e-5
    )
    assert float(surface["center_noise_scale"]) == pytest.approx(statistics.noise_scale, rel=1e-5)
    at_center = surface["variance"].sel(direction_seed=0, alpha=0.0, beta=0.0)
    assert float(at_center) == pytest.approx(statistics.variance, rel=1e-5)
    parts = surface["variance_by_part"]
    assert float(parts.sum()) == pytest.approx(statistics.variance, rel=1e-5)
    assert float(surface["variance_by_node"].sum()) == pytest.approx(float(parts.sel(part="cells")), rel=1e-9)
    assert surface["node"].values.tolist() == ["preprocess", "2", "3", "4", "5"]
    # Edges 2 and 3 of a cell belong to node 3.
    node = sum(
        variance
        for name, variance in statistics.variance_by_parameter.items()
        if name.startswith(("cells.0.edges.2.", "cells.0.edges.3."))
    )
    assert float(surface["variance_by_node"].sel(cell=0, node="3")) == pytest.approx(node, rel=1e-5)


class LearntGain(nn.Module):
    """A registered operation with a parameter of its own."""

    def __init__(self, channels: int, stride: int, affine: bool) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(channels, 1, 1))
        self.pool = nn.AvgPool2d(stride)

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(x) * self.gain.tanh()  # type: ignore[no-any-return]


def test_an_operation_of_ones_own_goes_through_vmap(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    register_operation("learnt_gain", LearntGain)
    edges = [("learnt_gain", 0), ("sep_conv_3x3", 1)]
    classifier = CellClassifier(genotype=str(Genotype(edges, [2], edges, [2])), init_channels=4, num_cells=3)
    with caplog.at_level("INFO"):
        trained(tmp_path, GradientVariance(resolution=2, batch_size=20), classifier=classifier)
    assert "gradients of cells.0.edges.0, cells.1.edges.0, cells.2.edges.0: by torch.func.vmap" in caplog.text
    surface = read_surface(tmp_path / "tb" / "landscape" / "gradient_variance-epoch0001.nc")
    expected = gradient_statistics(classifier.network, [images()], unsupported="vmap")
    assert float(surface["center_variance"]) == pytest.approx(expected.variance, rel=1e-5)
    assert "variance_ring" in surface


def test_estimates_carry_their_error(tmp_path: Path) -> None:
    trained(tmp_path, GradientVariance(resolution=3, batch_size=5, method="minibatch"))
    surface = read_surface(tmp_path / "tb" / "landscape" / "gradient_variance-epoch0001.nc")
    center = surface.sel(direction_seed=0, alpha=0.0, beta=0.0)
    exact, error = float(surface["center_variance"]), float(center["standard_error"])
    assert error > 0
    assert abs(float(center["variance"]) - exact) < 4 * error
    assert float(center["variance"]) != exact


def measure_checkpoint(classifier: CellClassifier, analysis: GradientVariance) -> None:
    analysis.checkpoint_epoch = 1
    seed_everything(0)
    trainer(analysis, enable_progress_bar=False).validate(classifier, datamodule=data(), verbose=False)


def test_without_a_resolution_the_trained_weights_alone_are_measured(
    measured: tuple[Path, CellClassifier, Trainer], tmp_path: Path
) -> None:
    folder, classifier, _ = measured
    settings: dict[str, Any] = {"resolution": None, "batch_size": 10, "folder": str(tmp_path)}
    path = tmp_path / "gradient_variance-epoch0001.nc"
    measure_checkpoint(classifier, GradientVariance(**settings))
    found, plane = read_dataset(path), read_dataset(folder / path.name)
    assert not {"alpha", "beta", "direction_seed", "done"} & set(found.variables)
    at_center = {name for name, variable in plane.data_vars.items() if "alpha" not in variable.dims}
    assert set(found.data_vars) == {n for n in at_center if str(n).startswith(("center_", "tangent_"))} | {
        "variance_by_part",
        "variance_by_node",
    }
    for name, variable in found.data_vars.items():
        assert variable.values == pytest.approx(plane[name].values, rel=1e-5, nan_ok=True)
    # A complete file is not measured again; one of an earlier version gets what it lacks.
    write_dataset(path, found.assign(center_variance=found["center_variance"] + 1))
    measure_checkpoint(classifier, GradientVariance(**settings))
    assert float(read_dataset(path)["center_variance"]) == float(found["center_variance"]) + 1
    write_dataset(path, found.drop_vars("center_normalized_variance"))
    measure_checkpoint(classifier, GradientVariance(**settings))
    assert read_dataset(path).identical(found)


def test_an_estimate_needs_a_plane() -> None:
    with pytest.raises(ValueError, match=r"`method` \(=minibatch\) needs a `resolution`"):
        GradientVariance(resolution=None, method="minibatch")
