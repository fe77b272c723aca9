"""The Hessian spectrum of a small training."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer

from nas_lightning.analysis import (
    hessian_eigenvalues,
)
from nas_lightning.classifier import CellClassifier
from nas_lightning.netcdf import read_dataset
from tests.callbacks.cases import images


def test_the_spectrum_is_that_of_the_analysis(measured: tuple[Path, CellClassifier, Trainer]) -> None:
    folder, classifier, _ = measured
    spectrum = read_dataset(folder / "hessian_spectrum-epoch0001.nc")
    inputs, targets = images()
    drawn = torch.randperm(37, generator=torch.Generator().manual_seed(0))[:6].sort().values
    batches = [(inputs[rows], targets[rows]) for rows in (drawn[:4], drawn[4:])]
    expected = hessian_eigenvalues(classifier.network, batches, 2, trace_samples=2)
    assert spectrum["eigenvalue"].values == pytest.approx(expected.eigenvalues, rel=1e-3)
    assert spectrum["trace"].values == pytest.approx(expected.trace, rel=1e-3)
    assert spectrum["converged"] == 1
