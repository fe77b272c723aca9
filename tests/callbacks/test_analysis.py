"""When analyses run, what their files say, and what is refused."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from torch import Tensor, nn

from nas_lightning.analysis import gradient_statistics, read_surface, tangent_kernel_trace
from nas_lightning.callbacks import Analysis, GradientVariance, HessianSpectrum, LossContour
from nas_lightning.callbacks.context import AnalysisContext
from nas_lightning.classifier import CellClassifier
from nas_lightning.datamodules import Synthetic
from nas_lightning.provenance import weights_hash
from tests.callbacks.cases import data, images, small_classifier, trained, trainer
from tests.cli.commands import read_events


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
        "interpolation-epoch0001.nc",
        "loss_contour-epoch0001.nc",
        "loss_line-epoch0001.nc",
        "loss_profile-epoch0001.nc",
    ]


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


@pytest.fixture(scope="module")
def contour(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The file of a finished contour."""
    folder = tmp_path_factory.mktemp("contour")
    trained(folder, LossContour(resolution=3))
    return (folder / "tb" / "landscape" / "loss_contour-epoch0001.nc").read_bytes()


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
def test_a_file_of_another_analysis_is_refused_and_kept(
    tmp_path: Path, contour: bytes, changed: Analysis, name: str
) -> None:
    path = tmp_path / "tb" / "landscape" / "loss_contour-epoch0001.nc"
    path.parent.mkdir(parents=True)
    path.write_bytes(contour)
    with pytest.raises(ValueError, match=rf"loss_contour-epoch0001\.nc: `{name}` is .*, the file has "):
        trained(tmp_path, changed)
    assert path.read_bytes() == contour


def test_a_file_of_other_weights_is_refused(tmp_path: Path, contour: bytes) -> None:
    path = tmp_path / "tb" / "landscape" / "loss_contour-epoch0001.nc"
    path.parent.mkdir(parents=True)
    path.write_bytes(contour)
    with pytest.raises(ValueError, match=r"`weights_sha256` is '[0-9a-f]+.*, the file has '"):
        trained(tmp_path, LossContour(resolution=3), gradient_clip_val=0.1)


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
        (lambda: LossContour(at_end=False), r"`at_end` \(=False\) leaves nothing to measure"),
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
    original = Synthetic.split_source

    def counted(self: Synthetic, split: Any) -> tuple[Tensor, Tensor, Tensor | None]:
        reads.append(split)
        return original(self, split)

    monkeypatch.setattr(Synthetic, "split_source", counted)
    trained(tmp_path, LossContour(resolution=5, direction_seeds=[0, 1]))
    assert reads == ["test", "test"]  # for the trial before the training, and for all pairs of directions


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


# The initial weights.


class Order(Callback):
    """Notes the hooks of a training, and the random numbers before its first batch."""

    def __init__(self) -> None:
        self.hooks: list[str] = []
        self.drawn: Tensor | None = None

    def on_sanity_check_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.hooks.append("sanity check")

    def on_train_batch_start(self, trainer: Trainer, *_: object) -> None:
        if trainer.global_step == 0:
            self.hooks.append("first batch")
            self.drawn = torch.get_rng_state()


class Early(LossContour):
    """Draws random numbers as no analysis should."""

    def __init__(self, order: Order, **settings: Any) -> None:
        super().__init__(**settings)
        self.order = order

    def measure(self, context: AnalysisContext) -> None:
        torch.rand(3)
        self.order.hooks.append(context.path.name)
        super().measure(context)


def test_the_initial_weights_are_measured_before_the_first_step_and_change_no_training(
    tmp_path: Path,
) -> None:
    seed_everything(0)
    initial = weights_hash(small_classifier(drop_path=0.3).network.state_dict())
    results = []
    for name, at_start in (("with", True), ("without", False)):
        seed_everything(0)
        order, classifier = Order(), small_classifier(drop_path=0.3)
        contour = Early(order, resolution=3, at_start=at_start)
        variance = GradientVariance(resolution=2, at_start=at_start, split="train", max_samples=20)
        _, trainer = trained(
            tmp_path / name, order, contour, variance, classifier=classifier, num_sanity_val_steps=2
        )
        losses = {key: float(value) for key, value in trainer.callback_metrics.items()}
        results.append((losses, weights_hash(classifier.state_dict()), order))
    (losses, weights, order), (plain_losses, plain_weights, plain_order) = results
    assert order.hooks == [
        *("sanity check", "loss_contour-start.nc", "first batch"),
        "loss_contour-epoch0001.nc",
    ]
    assert plain_order.hooks == ["sanity check", "first batch", "loss_contour-epoch0001.nc"]
    assert order.drawn is not None
    assert plain_order.drawn is not None
    assert torch.equal(order.drawn, plain_order.drawn)
    assert losses == plain_losses
    assert weights == plain_weights
    folder = tmp_path / "with" / "tb" / "landscape"
    for kind in ("loss_contour", "gradient_variance"):
        start, end = (read_surface(folder / f"{kind}-{moment}.nc") for moment in ("start", "epoch0001"))
        assert start.attrs["weights_sha256"] == initial != end.attrs["weights_sha256"]
        assert start.attrs["epoch"] == -1
        assert start.attrs["running_statistics"] == "estimated"
        assert "running_statistics" not in end.attrs
    tags = read_events(tmp_path / "with" / "tb").Tags()
    for group in ("landscape", "landscape_start"):
        assert {f"{group}/loss_contour", f"{group}/gradient_surface"} <= set(tags["images"])
        assert f"{group}/tangent_kernel_trace" in tags["scalars"]


def test_the_gradient_at_the_start_is_that_of_the_initial_network(tmp_path: Path) -> None:
    seed_everything(0)
    classifier = small_classifier()
    batches = [images()]
    own = copy.deepcopy(classifier.network)
    for layer in own.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = None  # the average over all batches, here one
    with torch.no_grad():
        own.train()(batches[0][0])
    expected = gradient_statistics(own, batches)
    trace = tangent_kernel_trace(own, batches)
    assert expected.variance > 2 * gradient_statistics(classifier.network, batches).variance
    trained(
        tmp_path,
        GradientVariance(resolution=2, at_start=True, at_end=False, every_n_epochs=1, name="own"),
        classifier=classifier,
    )
    folder = tmp_path / "tb" / "landscape"
    assert sorted(path.name for path in folder.glob("*.nc")) == ["own-epoch0000.nc", "own-start.nc"]
    found = read_surface(folder / "own-start.nc")
    assert float(found["center_variance"]) == pytest.approx(expected.variance, rel=1e-4)
    assert float(found["center_mean_gradient_norm"]) == pytest.approx(expected.mean_gradient_norm, rel=1e-4)
    assert float(found["tangent_kernel_trace"]) == pytest.approx(trace, rel=1e-4)
    tags = read_events(tmp_path / "tb").Tags()["scalars"]
    assert {"own/center_variance", "own_start/center_variance"} <= set(tags)
    assert not [tag for tag in tags if tag.startswith("landscape/")]


@pytest.mark.parametrize("epochs", [1, 2], ids=["resumed", "finished"])
def test_after_an_epoch_the_initial_weights_are_gone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, epochs: int
) -> None:
    contour = LossContour(resolution=2, at_start=True, folder=str(tmp_path / "files"))
    fit = trainer(max_epochs=epochs)
    fit.fit(small_classifier(), datamodule=data())
    fit.save_checkpoint(tmp_path / "last.ckpt")

    def lines_of_resuming() -> list[str]:
        caplog.clear()
        with caplog.at_level("INFO"):
            trainer(contour).fit(small_classifier(), datamodule=data(), ckpt_path=tmp_path / "last.ckpt")
        return [line for line in caplog.messages if "initial weights are gone" in line]

    start, end = (tmp_path / "files" / f"loss_contour-{moment}.nc" for moment in ("start", "epoch0001"))
    (line,) = lines_of_resuming()
    assert str(start) in line
    assert "nas-lightning landscape" in line
    assert end.exists()
    assert not start.exists()
    start.write_bytes(end.read_bytes())
    assert lines_of_resuming() == []


class Stateless(nn.Module):
    """An operation whose batch norm keeps no statistics."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(channels, channels, 3, stride, 1)
        self.norm = nn.BatchNorm2d(channels, track_running_stats=False)

    def forward(self, x: Tensor) -> Tensor:
        normalised: Tensor = self.norm(self.convolution(x))
        return normalised


@pytest.mark.parametrize("checkpoint", [False, True], ids=["fit", "landscape"])
def test_an_own_operation_that_mixes_samples_is_refused_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkpoint: bool
) -> None:
    monkeypatch.setattr(GradientVariance, "measure", never)
    classifier, order = small_classifier(), Order()
    edges: Any = classifier.network.cells[0].edges
    edges[0] = Stateless(4, 1)
    variance = GradientVariance(resolution=2, folder=str(tmp_path))
    variance.checkpoint_epoch = 1 if checkpoint else None
    run: Any = trainer(variance, order)
    begin = partial(run.validate, verbose=False) if checkpoint else run.fit
    with pytest.raises(ValueError, match=r"GradientVariance: layer .*norm.* keeps no running statistics"):
        begin(classifier, datamodule=data())
    assert not order.hooks
    assert not list(tmp_path.iterdir())
