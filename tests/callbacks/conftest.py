"""One training with every analysis, for the tests of all of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from lightning.pytorch import Trainer

from nas_lightning.callbacks import (
    GradientVariance,
    HessianSpectrum,
    Interpolation,
    LossContour,
    LossLine,
    LossProfile,
)
from nas_lightning.classifier import CellClassifier
from tests.callbacks.cases import trained


@pytest.fixture(scope="session")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, CellClassifier, Trainer]:
    folder = tmp_path_factory.mktemp("measured")
    classifier, trainer = trained(
        folder,
        LossContour(resolution=5, batch_size=10, direction_seeds=[0, 3]),
        GradientVariance(resolution=3, batch_size=10, every_n_epochs=1),
        LossProfile(resolution=3, batch_size=10, direction_seeds=[0, 4], curvature_samples=3),
        LossLine(resolution=3, extent=0.5, batch_size=10, direction_seeds=[0, 4], max_samples=20),
        Interpolation(resolution=3, batch_size=10),
        HessianSpectrum(k=2, trace_samples=2, batch_size=4, max_samples=6),
    )
    return folder / "tb" / "landscape", classifier, trainer
