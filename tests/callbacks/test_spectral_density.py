"""Spectral densities of a small training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import seed_everything
from torch import nn

from nas_lightning.analysis import density_of, filter_scale, lanczos_quadrature, moments_of
from nas_lightning.analysis.curvature_products import GaussNewtonProduct, HessianProduct
from nas_lightning.analysis.density_file import read_densities
from nas_lightning.callbacks import SpectralDensity
from nas_lightning.callbacks import spectral_density as module
from nas_lightning.classifier import CellClassifier
from nas_lightning.cli.main import main
from nas_lightning.netcdf import write_dataset
from tests.callbacks.any_module import Own, loader, mean_squared_error, samples, squared_errors
from tests.callbacks.cases import data, images, small_classifier, trained, trainer

NAMES = ["hessian", "gauss_newton", "normalized_hessian", "normalized_gauss_newton"]
FILE = "spectral_density-epoch0000.nc"


def analysis(**settings: Any) -> SpectralDensity:
    small: dict[str, Any] = {"steps": 6, "start_vectors": 3, "lockstep": 2, "batch_size": 4}
    return SpectralDensity(**small | {"max_samples": 6, "width": 0.05, "ridge": 0.1} | settings)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, CellClassifier]:
    folder = tmp_path_factory.mktemp("spectral_density")
    classifier = small_classifier(init_channels=2, num_cells=2)
    trained(folder, analysis(), classifier=classifier, max_epochs=1)
    [path] = folder.rglob(FILE)
    return path, classifier


def measure(classifier: CellClassifier, folder: Path, **settings: Any) -> Path:
    """Measure trained weights again."""
    again = analysis(folder=str(folder), **settings)
    again.checkpoint_epoch = 0
    seed_everything(0)
    trainer(again, enable_progress_bar=False).validate(classifier, datamodule=data(), verbose=False)
    return folder / FILE


def test_the_file_holds_what_the_analysis_finds(measured: tuple[Path, CellClassifier]) -> None:
    path, classifier = measured
    found, network = read_densities(path), classifier.network
    assert found["matrix"].values.tolist() == NAMES
    assert found["done"].values.all()
    inputs, targets = images()
    drawn = torch.randperm(37, generator=torch.Generator().manual_seed(0))[:6].sort().values
    batches = [(inputs[rows], targets[rows]) for rows in (drawn[:4], drawn[4:])]
    for name in NAMES:
        kind = HessianProduct if name.endswith("hessian") else GaussNewtonProduct
        product = kind(network, batches)  # the plain network, one vector after the other
        scale = filter_scale(network) if name.startswith("normalized") else None
        expected = lanczos_quadrature(
            product.partial, np.ones(product.size, dtype=bool), range(3), steps=6, scale=scale
        )
        own = found.sel(matrix=name)
        largest = np.abs(expected.nodes).max()
        np.testing.assert_allclose(own["node"], expected.nodes, rtol=0, atol=1e-3 * largest)
        assert int(own["dimension"]) == expected.dimension
        for moment, (value, error) in moments_of(expected, 0.1).items():
            assert float(found[f"{name}_{moment}"]) == pytest.approx(value, rel=1e-2)
            assert float(found[f"{name}_{moment}_standard_error"]) == pytest.approx(error, rel=5e-2)
        density = density_of(expected, 0.05)
        np.testing.assert_allclose(own["eigenvalue"], density.points, rtol=0, atol=1e-3 * largest)
        assert float(own["kernel_width"]) == pytest.approx(density.width, rel=1e-3)
        assert float(own["log_density"].max()) == pytest.approx(density.log10.max(), abs=0.01)
    assert int(found["dimension"][2]) < int(found["dimension"][0])  # batch norm does not count


def test_an_interrupted_analysis_goes_on_to_the_bytes_of_an_unbroken_one(
    measured: tuple[Path, CellClassifier], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, classifier = measured
    unbroken = measure(classifier, tmp_path / "unbroken")
    assert read_densities(unbroken)["node"].equals(read_densities(path)["node"])

    class Interrupted(Exception):
        pass

    written = 0

    def write(target: Path, dataset: Any) -> None:
        nonlocal written
        write_dataset(target, dataset)
        written += 1
        if written == 4:
            raise Interrupted

    with monkeypatch.context() as patch:
        patch.setattr(module, "write_dataset", write)
        with pytest.raises(Interrupted):
            measure(classifier, tmp_path / "broken")
    part = read_densities(tmp_path / "broken" / FILE)
    assert part["done"].values.tolist() == [[1, 1, 1], [1, 1, 0], [0, 0, 0], [0, 0, 0]]
    assert np.isnan(part["log_density"].values[2]).all()
    # Another number of vectors in lockstep is another order of work, not another number.
    again = measure(classifier, tmp_path / "broken", lockstep=3)
    assert again.read_bytes() == unbroken.read_bytes()
    written = 0
    with monkeypatch.context() as patch:
        patch.setattr(module, "write_dataset", write)
        measure(classifier, tmp_path / "broken")
    assert not written  # complete


def test_files_are_drawn_side_by_side_and_an_unfinished_one_says_so(
    measured: tuple[Path, CellClassifier], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, _ = measured
    part = read_densities(path)
    part["done"].values[1:] = 0
    write_dataset(tmp_path / "part.nc", part)
    files = [str(path), str(tmp_path / "part.nc")]
    main(["plot", *files, "--view", "density", "--output", str(tmp_path / "both.png")])
    assert (tmp_path / "both.png").stat().st_size > 10_000
    said = capsys.readouterr().err
    assert "part.nc is unfinished: 3 of 12 start vectors are measured" in said
    part["done"].values[:] = 0
    write_dataset(tmp_path / "none.nc", part)
    with pytest.raises(SystemExit):
        main(["plot", str(tmp_path / "none.nc"), "--output", str(tmp_path / "none.png")])
    assert "none.nc: no start vector is measured" in capsys.readouterr().err


def test_another_setting_is_another_analysis_and_a_damaged_file_is_refused(
    measured: tuple[Path, CellClassifier], tmp_path: Path
) -> None:
    path, classifier = measured
    (tmp_path / FILE).write_bytes(path.read_bytes())
    with pytest.raises(ValueError, match="`steps` is 7, the file has 6: it belongs to another analysis"):
        measure(classifier, tmp_path, steps=7)
    write_dataset(tmp_path / FILE, read_densities(path).drop_vars("weight"))
    with pytest.raises(ValueError, match="`weight` is not over matrix and start_vector and step"):
        measure(classifier, tmp_path)
    write_dataset(tmp_path / FILE, read_densities(path).drop_vars("hessian_trace"))
    with pytest.raises(ValueError, match="is damaged: its matrices, their moments or `done`"):
        measure(classifier, tmp_path)


def test_weights_without_a_finite_loss_are_said(
    measured: tuple[Path, CellClassifier], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    classifier = small_classifier(init_channels=2, num_cells=2)
    with torch.no_grad():
        next(classifier.network.parameters())[0, 0] = torch.nan
    found = read_densities(measure(classifier, tmp_path, matrices=["hessian"], normalized=False))
    assert found["done"].values.all()
    assert np.isnan(found["node"]).all()
    assert np.isnan(found["log_density"]).all()
    assert np.isnan(found["hessian_trace"])


def test_any_module_and_loss_are_measured(tmp_path: Path) -> None:
    made = analysis(
        split="val", folder=str(tmp_path), steps=50, loss=squared_errors, matrices=["gauss_newton"]
    )
    inputs, _ = samples()
    targets = torch.linspace(-1, 1, len(inputs))
    layers = nn.Sequential(nn.Flatten(), nn.Linear(32, 2), nn.Tanh(), nn.Linear(2, 1))
    own = Own(layers, mean_squared_error)
    trainer(made, enable_progress_bar=False, max_epochs=1).fit(
        own, loader(inputs, targets), loader(inputs, targets)
    )
    found = read_densities(tmp_path / FILE)
    assert found["dimension"].values.tolist() == [69, 66]  # without what evaluation does not use, and biases
    assert found["invariant"].values.all()  # 6 images
    assert (found["node"].count("step") <= 8).all()
    drawn = torch.randperm(24, generator=torch.Generator().manual_seed(0))[:6].sort().values
    product = GaussNewtonProduct(own, [(inputs[drawn], targets[drawn])], loss=squared_errors)
    values = np.linalg.eigvalsh(product.partial(np.eye(product.size)))
    assert float(found["node"][0].max()) == pytest.approx(values[-1], rel=1e-4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, r"`steps` \(=0\) must be from 1 to 10000"),
        ({"start_vectors": 0}, r"`start_vectors` \(=0\) must be from 1"),
        ({"lockstep": 0}, r"`lockstep` \(=0\) must be from 1"),
        ({"seed": -1}, r"`seed` \(=-1\) must be from 0"),
        ({"width": 0.6}, r"`width` \(=0.6\) must be from 0.0001 to 0.5"),
        ({"ridge": 0.0}, r"`ridge` \(=0.0\) must be above 0"),
        ({"basis_gib": -1.0}, r"`basis_gib` \(=-1.0\) must be at least 0"),
        ({"matrices": []}, r"`matrices` \(=\[\]\) must name hessian or gauss_newton"),
        ({"matrices": ["hessian", "hessian"]}, "or both, each once"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SpectralDensity(**settings)
