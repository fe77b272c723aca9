"""Curvature by point and by block, of a small training's network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer, seed_everything
from lightning.pytorch.loggers import TensorBoardLogger

from nas_lightning.analysis import Surface, block_eigenvalues, curvature_map, random_directions, read_surface
from nas_lightning.analysis.block_surface import block_names, read_blocks
from nas_lightning.callbacks import Analysis, BlockCurvature, CurvatureMap
from nas_lightning.classifier import CellClassifier
from tests.callbacks.any_module import Own, convolutions, loader, samples
from tests.callbacks.cases import data, images, trainer
from tests.cli.commands import read_events

NAMES = ("curvature_map-epoch0001.nc", "block_curvature-epoch0001.nc")


def analyses(folder: Path) -> list[Analysis]:
    few: dict[str, Any] = {"max_samples": 5, "max_products": 3, "folder": str(folder)}
    return [CurvatureMap(resolution=3, extent=0.5, **few), BlockCurvature(**few)]


def measure(classifier: CellClassifier, folder: Path, chosen: list[Analysis]) -> None:
    for analysis in chosen:
        analysis.checkpoint_epoch = 1
    seed_everything(0)
    logger = TensorBoardLogger(folder, name="", version="tb")
    trainer(*chosen, logger=logger, enable_progress_bar=False).validate(
        classifier, datamodule=data(), verbose=False
    )


@pytest.fixture(scope="module")
def whole(measured: tuple[Path, CellClassifier, Trainer], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("curvature")
    measure(measured[1], folder, analyses(folder))
    return folder


def five_images() -> list[tuple[torch.Tensor, torch.Tensor]]:
    inputs, targets = images()
    drawn = torch.randperm(37, generator=torch.Generator().manual_seed(0))[:5].sort().values
    return [(inputs[drawn], targets[drawn])]


def test_the_map_is_that_of_the_analysis(measured: tuple[Path, CellClassifier, Trainer], whole: Path) -> None:
    network = measured[1].network
    surface = read_surface(whole / NAMES[0])
    assert surface["done"].values.all()
    assert (surface.attrs["samples"], surface.attrs["max_products"], surface.attrs["normalized"]) == (5, 3, 1)
    assert (surface["products"].values == 3).all()
    assert not surface["converged"].any()  # three products are a bound, in both ways the same
    directions = random_directions(network, 0, names=list(network.evaluated_parameters()))
    expected = curvature_map(network, five_images(), directions, [0, 0.5], [0], max_products=3)
    found = surface.sel(alpha=[0, 0.5], beta=[0]).isel(direction_seed=0)
    for name in ("largest_eigenvalue", "smallest_eigenvalue", "eigenvalue_ratio", "loss"):
        assert found[name].values == pytest.approx(expected[name].values, rel=1e-3), name


def test_the_blocks_are_those_of_the_variance(
    measured: tuple[Path, CellClassifier, Trainer], whole: Path
) -> None:
    folder, classifier, _ = measured
    table = read_blocks(whole / NAMES[1])
    assert table["done"].values.all()
    names = block_names(table)
    split = read_surface(folder / "gradient_variance-epoch0001.nc")["variance_by_node"]
    for cell in split["cell"].values.tolist():
        for node in split["node"].values.tolist():
            text = node.decode() if isinstance(node, bytes) else node
            block = f"cell {cell} {f'node {text}' if text.isdigit() else text}"
            assert (block in names) == bool(np.isfinite(split.sel(cell=cell, node=node)))
    chosen = names.index("cell 0 node 2")
    place = classifier.network.parameter_place
    own = [n for n in classifier.network.evaluated_parameters() if place(n) == ("cells", 0, 2)]
    expected = block_eigenvalues(classifier.network, five_images(), own, max_products=3)
    assert float(table["largest_eigenvalue"][chosen]) == pytest.approx(expected.largest, rel=1e-3)
    assert table["parameters"][chosen] == sum(classifier.network.get_parameter(name).numel() for name in own)
    assert table.attrs["samples"] == 5


def test_tensorboard_has_pictures_and_numbers(whole: Path) -> None:
    events = read_events(whole / "tb")
    assert {
        f"landscape/{name}" for name in ("curvature_ratio", "curvature_largest", "block_curvature")
    } <= set(events.Tags()["images"])
    [share] = events.Scalars("landscape/block_share")
    assert share.value > 0
    [ratio] = events.Scalars("landscape/eigenvalue_ratio_center")
    assert ratio.value > 0


@pytest.mark.parametrize("place", [0, 1], ids=["map", "blocks"])
def test_a_broken_measurement_goes_on_to_the_same_bytes(
    measured: tuple[Path, CellClassifier, Trainer],
    whole: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    place: int,
) -> None:
    saves = 0
    with monkeypatch.context() as patch:
        save = Surface.save if place == 0 else read_class().save

        def broken(self: Any, path: Any) -> None:
            nonlocal saves
            saves += 1
            save(self, path)
            if saves == 4:
                raise RuntimeError("killed")

        patch.setattr(Surface if place == 0 else read_class(), "save", broken)
        with pytest.raises(RuntimeError, match="killed"):
            measure(measured[1], tmp_path, analyses(tmp_path)[place : place + 1])
    read = read_surface if place == 0 else read_blocks
    assert int(read(tmp_path / NAMES[place])["done"].sum()) == 3  # one save before the first point
    measure(measured[1], tmp_path, analyses(tmp_path)[place : place + 1])
    assert (tmp_path / NAMES[place]).read_bytes() == (whole / NAMES[place]).read_bytes()


def read_class() -> type[Surface]:
    from nas_lightning.analysis.block_surface import BlockSurface

    return BlockSurface


def test_a_module_without_cells_has_blocks_of_its_children(tmp_path: Path) -> None:
    few: dict[str, Any] = {"max_products": 3, "max_samples": 6, "folder": str(tmp_path)}
    chosen = [BlockCurvature(**few), CurvatureMap(resolution=2, **few)]
    fit = trainer(*chosen, max_epochs=1, enable_progress_bar=False, default_root_dir=tmp_path)
    fit.fit(Own(convolutions()), loader(*samples()), loader(*samples()))
    assert block_names(read_blocks(tmp_path / "block_curvature-epoch0000.nc")) == [
        "network",
        "layers.0",
        "layers.4",
    ]
    surface = read_surface(tmp_path / "curvature_map-epoch0000.nc")
    assert np.isfinite(surface["largest_eigenvalue"]).all()
    assert surface["loss"].attrs["units"] == "nat"


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        (CurvatureMap, {"resolution": 1}, "`resolution`"),
        (CurvatureMap, {"tolerance": 1.0}, r"`tolerance` \(=1.0\) must be above 0 and below 1"),
        (CurvatureMap, {"max_products": 0}, r"`max_products` \(=0\) must be from 1 to 1000000"),
        (CurvatureMap, {"ratio_bound": 0.0}, r"`ratio_bound` \(=0.0\) must be above 0 and finite"),
        (CurvatureMap, {"seed": -1}, r"`seed` \(=-1\) must be from 0 to"),
        (BlockCurvature, {"tolerance": 0.0}, r"`tolerance` \(=0.0\)"),
        (BlockCurvature, {"seed": 2**31}, r"`seed` \(=2147483648\) must be from 0 to"),
    ],
)
def test_settings_out_of_range_are_refused(kind: type[Analysis], settings: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kind(**settings)
