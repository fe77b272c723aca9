"""The analysis callbacks on small trainings without the command line."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor, nn
from torch.nn import functional

from nas_lightning.analysis import (
    evaluate,
    gradient_statistics,
    hessian_eigenvalues,
    random_directions,
    read_surface,
)
from nas_lightning.callbacks import Analysis, GradientVariance, HessianSpectrum, LossContour
from nas_lightning.callbacks.progress import PointProgress
from nas_lightning.cells import Genotype
from nas_lightning.classifier import CellClassifier
from nas_lightning.datamodules import Synthetic
from nas_lightning.netcdf import read_dataset
from nas_lightning.networks import register_operation
from nas_lightning.provenance import weights_hash
from tests.cli.commands import read_events

EPOCHS = 2


def data(**settings: Any) -> Synthetic:
    return Synthetic(image_size=16, train_size=48, test_size=37, batch_size=16, **settings)


def trained(
    folder: Path, *callbacks: Callback, classifier: CellClassifier | None = None, **settings: Any
) -> tuple[CellClassifier, Trainer]:
    """A finished training whose files are in a folder, and whose events are in ``folder/tb``."""
    seed_everything(0)
    classifier = classifier or CellClassifier(init_channels=4, num_cells=3)
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=EPOCHS,
        logger=TensorBoardLogger(folder, name="", version="tb"),
        callbacks=list(callbacks),
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
        **settings,
    )
    trainer.fit(classifier, datamodule=data())
    return classifier, trainer


def images(split: str = "test") -> tuple[Tensor, Tensor]:
    made = data()
    made.setup()
    raw, targets = made.split_arrays(split)  # type: ignore[arg-type]
    return made.normalise(raw), targets


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, CellClassifier, Trainer]:
    folder = tmp_path_factory.mktemp("measured")
    classifier, trainer = trained(
        folder,
        LossContour(resolution=5, batch_size=10, direction_seeds=[0, 3]),
        GradientVariance(resolution=3, batch_size=10, every_n_epochs=1),
        HessianSpectrum(k=2, trace_samples=2, batch_size=4, max_samples=6),
    )
    return folder / "tb" / "landscape", classifier, trainer


def test_the_training_is_what_it_is_without_them(
    measured: tuple[Path, CellClassifier, Trainer], tmp_path: Path
) -> None:
    classifier, _ = trained(tmp_path)
    assert weights_hash(classifier.state_dict()) == weights_hash(measured[1].state_dict())


def test_there_is_a_file_for_every_chosen_epoch(measured: tuple[Path, CellClassifier, Trainer]) -> None:
    assert sorted(path.name for path in measured[0].glob("*.nc")) == [
        "gradient_variance-epoch0000.nc",
        "gradient_variance-epoch0001.nc",
        "hessian_spectrum-epoch0001.nc",
        "loss_contour-epoch0001.nc",
    ]


def test_the_center_of_the_contour_is_the_validation_loss(
    measured: tuple[Path, CellClassifier, Trainer],
) -> None:
    folder, classifier, trainer = measured
    contour = read_surface(folder / "loss_contour-epoch0001.nc")
    center = contour.sel(alpha=0.0, beta=0.0)
    inputs, targets = images()
    with torch.no_grad():
        expected = float(functional.cross_entropy(classifier.eval()(inputs), targets))
    assert center["loss"].values == pytest.approx([expected, expected], rel=1e-6)
    assert center["loss"].values == pytest.approx(float(trainer.callback_metrics["loss/test"]), rel=1e-6)
    accuracy = float(trainer.callback_metrics["accuracy/test"])
    assert center["accuracy"].values == pytest.approx([accuracy, accuracy])


def test_another_point_is_the_loss_of_displaced_weights(
    measured: tuple[Path, CellClassifier, Trainer],
) -> None:
    folder, classifier, _ = measured
    contour = read_surface(folder / "loss_contour-epoch0001.nc")
    first, second = random_directions(classifier.network, 3)
    state = {name: tensor.clone() for name, tensor in classifier.network.state_dict().items()}
    for name in first:
        state[name] += 0.5 * first[name] - 1.0 * second[name]
    moved = CellClassifier(init_channels=4, num_cells=3).network
    moved.load_state_dict(state)
    loss, accuracy = evaluate(moved, [images()])
    point = contour.sel(direction_seed=3, alpha=0.5, beta=-1.0)
    assert float(point["loss"]) == pytest.approx(loss, rel=1e-5)
    assert float(point["accuracy"]) == pytest.approx(accuracy)


def test_a_file_tells_where_its_numbers_come_from(measured: tuple[Path, CellClassifier, Trainer]) -> None:
    folder, classifier, _ = measured
    attributes = read_surface(folder / "loss_contour-epoch0001.nc").attrs
    assert attributes["weights_sha256"] == weights_hash(classifier.network.state_dict())
    assert attributes["genotype"] == str(classifier.genotype)
    for name, value in {
        "kind": "loss_contour",
        "title": "darts_v2",
        "epoch": 1,
        "data": "Synthetic",
        "split": "test",
        "samples": 37,
        "normalization": "filter",
        "batch_norm": "frozen",
        "precision": "float32",
        "training_seed": "0",
    }.items():
        assert attributes[name] == value, name
    assert torch.__version__.partition("+")[0] in attributes["versions"]


def test_the_variance_at_the_center_is_split_by_cell_and_node(
    measured: tuple[Path, CellClassifier, Trainer],
) -> None:
    folder, classifier, _ = measured
    surface = read_surface(folder / "gradient_variance-epoch0001.nc")
    statistics = gradient_statistics(classifier.network, [images()])
    assert float(surface["center_variance"]) == pytest.approx(statistics.variance, rel=1e-5)
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


def test_tensorboard_has_pictures_and_numbers(measured: tuple[Path, CellClassifier, Trainer]) -> None:
    events = read_events(measured[0].parent)
    pictures = {tag.removeprefix("landscape/") for tag in events.Tags()["images"]}
    assert pictures == {
        "loss_contour",
        "loss_surface",
        "loss_spread",
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


def test_a_finished_file_is_not_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    callbacks = (LossContour(resolution=3), HessianSpectrum(k=1, trace_samples=0, max_samples=4))
    trained(tmp_path, *callbacks)
    files = {path: path.read_bytes() for path in (tmp_path / "tb" / "landscape").glob("*.nc")}
    assert len(files) == 2
    for name in ("loss_contour.loss_at_points", "hessian_spectrum.hessian_eigenvalues"):
        monkeypatch.setattr(f"nas_lightning.callbacks.{name}", never)
    monkeypatch.setattr("nas_lightning.callbacks.loss_contour.loss_at_points", Unmeasured)
    trained(tmp_path, *callbacks)
    assert files == {path: path.read_bytes() for path in (tmp_path / "tb" / "landscape").glob("*.nc")}


def never(*_: object, **__: object) -> None:
    raise AssertionError("measured again")


class Unmeasured:
    """Stands in for the measure of a surface that is complete."""

    def __init__(self, *_: object, **__: object) -> None: ...

    def __enter__(self) -> Callable[..., None]:
        return never

    def __exit__(self, *_: object) -> None: ...


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        (LossContour(resolution=5), "alpha"),
        (LossContour(resolution=3, extent=0.5), "alpha"),
        (LossContour(resolution=3, direction_seeds=[1]), "direction_seed"),
        (LossContour(resolution=3, normalization="layer"), "normalization"),
        (LossContour(resolution=3, orthogonal=True), "orthogonal"),
        (LossContour(resolution=3, batch_norm="reestimated"), "batch_norm"),
        (LossContour(resolution=3, max_samples=12), "samples"),
        (LossContour(resolution=3, split="train"), "split"),
        (LossContour(resolution=3, batch_size=5), "batch_size"),
        (GradientVariance(resolution=3, name="loss_contour"), "kind"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_file_of_another_measurement_is_refused_and_kept(
    tmp_path: Path, changed: Analysis, name: str
) -> None:
    trained(tmp_path, LossContour(resolution=3))
    path = tmp_path / "tb" / "landscape" / "loss_contour-epoch0001.nc"
    content = path.read_bytes()
    with pytest.raises(ValueError, match=rf"loss_contour-epoch0001\.nc: `{name}` is .*, the file has "):
        trained(tmp_path, changed)
    assert path.read_bytes() == content


def test_a_file_of_other_weights_is_refused(tmp_path: Path) -> None:
    trained(tmp_path, LossContour(resolution=3))
    with pytest.raises(ValueError, match=r"`weights_sha256` is '[0-9a-f]+.*, the file has '"):
        trained(tmp_path, LossContour(resolution=3), gradient_clip_val=0.1)


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


def test_an_auxiliary_tower_changes_no_direction(tmp_path: Path) -> None:
    """The same weights with a tower beside them have the same surface."""
    made = Synthetic(image_size=32, train_size=16, test_size=9, batch_size=16)
    losses, cosines = [], []
    plain = CellClassifier(init_channels=4, num_cells=3)
    for weight in (0.0, 0.4):
        classifier = CellClassifier(init_channels=4, num_cells=3, auxiliary_weight=weight)
        classifier.network.load_state_dict(plain.network.state_dict(), strict=False)
        trainer = Trainer(
            accelerator="cpu",
            max_epochs=1,
            logger=False,
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=False,
            limit_train_batches=0,
            default_root_dir=tmp_path / str(weight),
            callbacks=[contour := LossContour(resolution=3)],
        )
        contour.checkpoint_epoch = -1
        trainer.validate(classifier, datamodule=made, verbose=False)
        surface = read_surface(tmp_path / str(weight) / "landscape" / "loss_contour.nc")
        losses.append(surface["loss"].values)
        cosines.append(float(surface["cosine"][0]))
    assert (losses[0] == losses[1]).all()
    assert cosines[0] == cosines[1]


def test_estimates_carry_their_error(tmp_path: Path) -> None:
    trained(tmp_path, GradientVariance(resolution=3, batch_size=5, method="minibatch"))
    surface = read_surface(tmp_path / "tb" / "landscape" / "gradient_variance-epoch0001.nc")
    center = surface.sel(direction_seed=0, alpha=0.0, beta=0.0)
    exact, error = float(surface["center_variance"]), float(center["standard_error"])
    assert error > 0
    assert abs(float(center["variance"]) - exact) < 4 * error
    assert float(center["variance"]) != exact


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LossContour(resolution=1), r"`resolution` \(=1\) must be at least 2"),
        (lambda: LossContour(extent=(1.0, -1.0)), r"`extent` \(=\(1.0, -1.0\)\)"),
        (lambda: LossContour(direction_seeds=[]), "`direction_seeds`"),
        (lambda: LossContour(direction_seeds=[1, 1]), "`direction_seeds`"),
        (
            lambda: LossContour(direction_seeds=[2**31]),
            r"\(=2147483648\) must fit into 32 bits",
        ),
        (lambda: HessianSpectrum(seed=2**31), "`seed`"),
        (lambda: LossContour(loss_rise=0.0), r"`loss_rise` \(=0.0\)"),
        (lambda: LossContour(max_samples=0), r"`max_samples` \(=0\) must be a number from 1"),
        (lambda: LossContour(batch_size=0), r"`batch_size` \(=0\)"),
        (lambda: LossContour(every_n_epochs=0), r"`every_n_epochs` \(=0\)"),
        (lambda: LossContour(sample_seed=-1), r"`sample_seed` \(=-1\)"),
        (lambda: LossContour(name="a/b"), r"`name` \(='a/b'\)"),
        (lambda: LossContour(resolution=100_000), r"`resolution` \(=100000\) must be .* at most 10000"),
        (lambda: LossContour(extent=1e300), r"`extent` \(=1e\+300\) must be"),
        (lambda: LossContour(extent=math.nan), r"`extent` \(=nan\) must be"),
        (lambda: HessianSpectrum(k=0), r"`k` \(=0\)"),
        (lambda: HessianSpectrum(trace_samples=10**12), "`trace_samples`"),
        (lambda: HessianSpectrum(tolerance=0.0), r"`tolerance` \(=0.0\)"),
    ],
)
def test_settings_out_of_range_are_refused(make: Callable[[], Analysis], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("callbacks", "message"),
    [
        (
            [LossContour(max_samples=38)],
            r"`max_samples` \(=38\) is more than the 37 images of the test split",
        ),
        ([LossContour(split="val")], r"`split` \(='val'\) must be one of Synthetic's splits"),
        ([HessianSpectrum(k=100_000)], r"`k` \(=100000\) and .* than the [0-9]+ of the network's live"),
        ([LossContour(folder="/dev/null/surfaces")], "cannot write /dev/null/surfaces: /dev/null is not"),
        ([LossContour(), LossContour()], "two callbacks write 'loss_contour'"),
        (
            [GradientVariance(method="minibatch", batch_size=20)],
            r"`batch_size` \(=20\) makes fewer than 3 mini-batches of 37 images",
        ),
    ],
)
def test_what_cannot_be_measured_is_refused_before_the_training(
    tmp_path: Path, callbacks: list[Analysis], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        trained(tmp_path, *callbacks)
    assert not (tmp_path / "tb" / "landscape").exists()


def test_the_images_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[str] = []
    original = Synthetic.split_arrays

    def counted(self: Synthetic, split: Any) -> tuple[Tensor, Tensor]:
        reads.append(split)
        return original(self, split)

    monkeypatch.setattr(Synthetic, "split_arrays", counted)
    trained(tmp_path, LossContour(resolution=5, direction_seeds=[0, 1]))
    assert reads == ["test"]


def test_progress_says_points_and_time_left(capsys: pytest.CaptureFixture[str]) -> None:
    progress = PointProgress("loss contour", 20, 100, visible=True)
    for finished in (25, 30, 38, 100):
        progress.update(finished)
    progress.close()
    lines = capsys.readouterr().out.splitlines()
    assert [line.rpartition(",")[0] for line in lines] == [
        "loss contour: 30 of 100 points",
        "loss contour: 100 of 100 points",
    ]
    assert all(re.fullmatch(r".*, \d\d:\d\d left", line) for line in lines)
    PointProgress("loss contour", 0, 100, visible=False).update(50)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("precision", ["bf16-true", "64-true", "bf16-mixed"])
def test_every_precision_is_measured_in_the_type_of_the_weights(tmp_path: Path, precision: str) -> None:
    trained(
        tmp_path,
        LossContour(resolution=3),
        GradientVariance(resolution=2),
        precision=precision,
    )
    for kind in ("loss_contour", "gradient_variance"):
        surface = read_surface(tmp_path / "tb" / "landscape" / f"{kind}-epoch0001.nc")
        expected = {"bf16-true": "bfloat16", "64-true": "float64", "bf16-mixed": "float32"}
        assert surface.attrs["precision"] == expected[precision]
        assert surface["done"].values.all()


def test_a_surface_beside_the_weights_has_no_scalars(tmp_path: Path) -> None:
    trained(tmp_path, LossContour(resolution=3, extent=(0.0, 1.0)))
    surface = read_surface(tmp_path / "tb" / "landscape" / "loss_contour-epoch0001.nc")
    assert surface["alpha"].values.tolist() == [0, 0.5, 1]
    assert "near_convex_share" not in surface
