"""The Hessian spectrum of a small training."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer, seed_everything

from nas_lightning.analysis import filter_scale, hessian_eigenvalues
from nas_lightning.callbacks import HessianSpectrum
from nas_lightning.classifier import CellClassifier
from nas_lightning.netcdf import read_dataset, write_dataset
from tests.callbacks.cases import data, images, trainer
from tests.oracles.per_sample_gradients import mean_loss


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
    inputs, targets = inputs[drawn], targets[drawn]
    assert float(spectrum["center_loss"]) == pytest.approx(mean_loss(classifier.network, [(inputs, targets)]))
    scaled = hessian_eigenvalues(
        *(classifier.network, batches, 1), smallest=0, trace_samples=0, scale=filter_scale(classifier.network)
    )
    assert float(spectrum["normalized_largest_eigenvalue"]) == pytest.approx(scaled.eigenvalues[0], rel=1e-3)


def test_a_file_of_an_earlier_version_gets_what_it_lacks(
    measured: tuple[Path, CellClassifier, Trainer], tmp_path: Path
) -> None:
    folder, classifier, _ = measured
    name = "hessian_spectrum-epoch0001.nc"
    whole = read_dataset(folder / name)
    added = ["center_loss", "normalized_largest_eigenvalue", "normalized_residual"]
    marked = whole.drop_vars(added).assign(trace=whole["trace"] + 1)  # it is kept, not measured again
    write_dataset(tmp_path / name, marked)
    analysis = HessianSpectrum(k=2, trace_samples=2, batch_size=4, max_samples=6, folder=str(tmp_path))
    analysis.checkpoint_epoch = 1
    seed_everything(0)
    trainer(analysis, enable_progress_bar=False).validate(classifier, datamodule=data(), verbose=False)
    completed = read_dataset(tmp_path / name)
    for variable in added:
        assert completed[variable].values == pytest.approx(whole[variable].values, rel=1e-4, abs=1e-4)
    assert float(completed["trace"]) == float(whole["trace"]) + 1
