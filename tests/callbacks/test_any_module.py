"""Every analysis in any trainer: modules, losses and loaders that are none of the project's."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer, seed_everything
from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset, IterableDataset, SubsetRandomSampler

from nas_lightning.analysis import (
    evaluate,
    gradient_statistics,
    hessian_eigenvalues,
    read_profile,
    read_surface,
)
from nas_lightning.callbacks import Analysis, GradientVariance, HessianSpectrum, LossContour, LossProfile
from nas_lightning.callbacks.loader_batches import read_batches
from nas_lightning.netcdf import read_dataset
from tests.callbacks.any_module import (
    Own,
    convolutions,
    loader,
    mean_squared_error,
    pixel_losses,
    samples,
    squared_errors,
    summed_errors,
)
from tests.callbacks.cases import trainer
from tests.cli.commands import read_events


class Steps(Callback):
    """Counts the batches that were trained on."""

    count = 0

    def on_train_batch_start(self, *_: Any) -> None:
        self.count += 1


def analyses(**settings: Any) -> list[Analysis]:
    return [
        LossContour(resolution=3, **settings),
        LossProfile(resolution=3, direction_seeds=[0], curvature_samples=3, **settings),
        GradientVariance(resolution=2, **settings),
        HessianSpectrum(k=1, smallest=0, trace_samples=0, max_products=20, **settings),
    ]


def fitted(folder: Path, module: LightningModule, *loaders: Any, **settings: Any) -> Trainer:
    seed_everything(0)
    logger = TensorBoardLogger(folder, name="", version="tb")
    fit = trainer(*analyses(**settings), max_epochs=1, logger=logger, enable_progress_bar=False)
    fit.fit(module, *loaders)
    return fit


def test_a_module_of_other_layers_is_measured_in_a_plain_trainer(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    inputs, targets = samples()
    module = Own(convolutions())
    fitted(tmp_path, module, loader(inputs, targets, shuffle=True), loader(inputs[:20], targets[:20]))
    assert caplog.text.count("the trainer has no test loader") == 1  # once for four analyses
    folder = tmp_path / "tb" / "landscape"
    batches = [(inputs[:20], targets[:20])]
    contour = read_surface(folder / "loss_contour-epoch0000.nc")
    loss, accuracy = evaluate(module, batches)
    assert float(contour["loss"].sel(alpha=0, beta=0)[0]) == pytest.approx(loss)
    assert float(contour["accuracy"].sel(alpha=0, beta=0)[0]) == pytest.approx(accuracy)
    assert contour.attrs["split"] == "val"
    assert (contour.attrs["title"], contour.attrs["data"]) == ("Own", "TensorDataset")
    assert "genotype" not in contour.attrs
    statistics = gradient_statistics(module, batches)
    variance = read_surface(folder / "gradient_variance-epoch0000.nc")
    assert float(variance["center_variance"]) == pytest.approx(statistics.variance, rel=1e-4)
    assert float(variance["variance_by_part"].sum()) == pytest.approx(statistics.variance, rel=1e-4)
    assert "variance_by_node" not in variance
    assert "tangent_kernel_trace" in variance
    spectrum = read_dataset(folder / "hessian_spectrum-epoch0000.nc")
    found = hessian_eigenvalues(module, batches, 1, smallest=0, trace_samples=0, max_products=20)
    assert float(spectrum["eigenvalue"][0]) == pytest.approx(found.eigenvalues[0], rel=1e-2)
    assert read_profile(folder / "loss_profile-epoch0000.nc").attrs["num_classes"] == 3
    tags = read_events(tmp_path / "tb").Tags()
    assert {f"landscape/{name}" for name in ("loss_contour", "gradient_surface", "hessian_spectrum")} <= set(
        tags["images"]
    )
    assert "landscape/near_convex_share" in tags["scalars"]


@pytest.mark.parametrize("loss", [squared_errors, mean_squared_error], ids=["each", "mean"])
def test_a_regression_is_measured_by_its_own_loss(tmp_path: Path, loss: Any) -> None:
    inputs, _ = samples()
    targets = inputs.mean((1, 2, 3)) + 1
    module = Own(nn.Sequential(nn.Flatten(), nn.Linear(32, 1)), mean_squared_error)
    data = loader(inputs, targets)
    fitted(tmp_path, module, data, data, loss=loss)
    folder = tmp_path / "tb" / "landscape"
    contour = read_surface(folder / "loss_contour-epoch0000.nc")
    expected = float(mean_squared_error(module(inputs), targets))
    assert float(contour["loss"].sel(alpha=0, beta=0)[0]) == pytest.approx(expected)
    assert contour["accuracy"].isnull().all()
    assert contour.attrs["loss"] == f"{loss.__module__}.{loss.__name__}"
    variance = read_surface(folder / "gradient_variance-epoch0000.nc")
    # The gradient of a sample's squared error e^2 is 2 e (x, 1).
    errors = (module(inputs)[:, 0] - targets).detach()
    rows = torch.cat([inputs.flatten(1), torch.ones(len(inputs), 1)], dim=1)
    gradients = 2 * errors[:, None] * rows
    assert float(variance["center_variance"]) == pytest.approx(
        float(gradients.var(0, correction=0).sum()), 1e-4
    )
    assert float(variance["center_loss"]) == pytest.approx(expected)
    assert "tangent_kernel_trace" not in variance
    spectrum = read_dataset(folder / "hessian_spectrum-epoch0000.nc")
    largest = torch.linalg.eigvalsh(2 * rows.double().T @ rows.double() / len(rows))[-1]
    assert float(spectrum["eigenvalue"][0]) == pytest.approx(float(largest), rel=1e-3)
    profile = read_profile(folder / "loss_profile-epoch0000.nc")
    assert (profile["loss"].attrs["units"], profile.attrs["num_classes"]) == ("1", 0)
    assert math.isfinite(float(profile["mean_rise"][0]))
    weight = module.get_parameter(next(iter(dict(module.named_parameters())))).detach()
    curvature = float(weight.square().mean() * 2 * rows[:, :-1].square().sum() / len(rows))
    error = float(profile["second_derivative_standard_error"])
    assert abs(float(profile["second_derivative"]) - curvature) < 4 * error


def test_a_segmentation_is_measured_pixel_by_pixel(tmp_path: Path) -> None:
    inputs, _ = samples()
    targets = (inputs[:, 0] > 0).long()
    module = Own(nn.Conv2d(2, 2, 3, padding=1))
    data = loader(inputs, targets)
    fitted(tmp_path, module, data, data, loss=pixel_losses)
    contour = read_surface(tmp_path / "tb" / "landscape" / "loss_contour-epoch0000.nc")
    expected = float(functional.cross_entropy(module(inputs), targets))
    assert float(contour["loss"].sel(alpha=0, beta=0)[0]) == pytest.approx(expected)
    assert contour["accuracy"].isnull().all()


def smoothed(outputs: Tensor, targets: Tensor) -> Tensor:
    return functional.cross_entropy(outputs, targets, reduction="none", label_smoothing=0.1)


def test_an_own_loss_of_classes_keeps_the_accuracy(tmp_path: Path) -> None:
    inputs, targets = samples()
    module = Own(convolutions())
    data = loader(inputs, targets)
    fitted(tmp_path, module, data, data, loss=smoothed)
    contour = read_surface(tmp_path / "tb" / "landscape" / "loss_contour-epoch0000.nc")
    module.eval()
    accuracy = float((module(inputs).argmax(1) == targets).float().mean())
    assert float(contour["accuracy"].sel(alpha=0, beta=0)[0]) == pytest.approx(accuracy)


# What must refuse does so before the first step.


class Noise(nn.Module):
    def forward(self, inputs: Tensor) -> Tensor:
        return inputs + 0.1 * torch.randn_like(inputs)


class Twice(nn.Module):
    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        return inputs, inputs


class Clipped(torch.autograd.Function):
    """Has a gradient and, by its own word, no second one."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor) -> Tensor:
        return inputs.sin()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient


class Once(nn.Module):
    def forward(self, inputs: Tensor) -> Tensor:
        output: Tensor = Clipped.apply(inputs)
        return output


class Overflow(nn.Module):
    def forward(self, inputs: Tensor) -> Tensor:
        return 1e30 * inputs * 1e30


class Frozen(nn.Module):
    def forward(self, inputs: Tensor) -> Tensor:
        return inputs.detach()


def flat(*after: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(32, 3), *after)


class Mixed(nn.Module):
    """Subtracts the batch's mean: samples have no gradients of their own."""

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs - inputs.mean(0)


class WithoutForward(Own):
    forward = LightningModule.forward

    def training_step(self, batch: Any, batch_index: int) -> Tensor:
        return functional.cross_entropy(self.layers(batch[0]), batch[1])


INPUTS, TARGETS = samples()


@pytest.mark.parametrize(
    ("make", "analysis", "data", "message"),
    [
        (lambda: Own(flat(Noise())), LossContour(), None, "LossContour: Own is random in evaluation: two"),
        (lambda: Own(flat(Twice())), LossContour(), None, r"Own returns tuple for 4 inputs: it must return"),
        (lambda: Own(nn.Conv2d(2, 3, 1)), LossProfile(), None, r"Own returns \(4, 3, 4, 4\) for 4 inputs"),
        (
            lambda: Own(flat(Once())),
            HessianSpectrum(k=1),
            None,
            "second derivative of the loss of Own is wrong",
        ),
        (lambda: Own(flat(Mixed())), GradientVariance(), None, "per-sample gradients do not follow from its"),
        (
            lambda: Own(flat(nn.BatchNorm1d(3, track_running_stats=False))),
            GradientVariance(),
            None,
            r"layer 'layers.2' \(BatchNorm1d\) keeps no running statistics",
        ),
        (lambda: Own(flat(Overflow())), LossContour(), None, "the loss of Own is not finite although its"),
        (lambda: Own(flat(Frozen())), GradientVariance(), None, "depends on no parameter with requires_grad"),
        (lambda: WithoutForward(flat()), LossContour(), None, "WithoutForward cannot evaluate .*: NotImpl"),
        (lambda: Own(flat()), LossContour(), (INPUTS, TARGETS.float()), "the targets are float32 of shape"),
        (
            lambda: Own(flat()),
            LossContour(),
            (INPUTS, TARGETS + 3),
            r"the target [345] is no class: the outputs have",
        ),
        (lambda: Own(flat()), LossContour(), (INPUTS / 0, TARGETS), "the inputs of the data hold NaN or inf"),
        (
            lambda: Own(flat()),
            LossContour(loss=summed_errors),
            (INPUTS, TARGETS.float()),
            r"`loss` gives .* for 4 samples whose own losses have the mean .*: it must return the mean",
        ),
        (
            lambda: Own(flat()),
            LossContour(loss=lambda outputs, targets: 1.0),
            None,
            r"`loss` \(.*<lambda>\) returns float: it must return a tensor",
        ),
        (
            lambda: Own(flat()),
            LossContour(loss=lambda outputs, targets: outputs[0]),
            None,
            r"returns \[3\] for 4 samples: it must return one value for each of them",
        ),
        (
            lambda: Own(flat()),
            LossContour(loss=functional.mse_loss),
            None,
            r"Own cannot evaluate \[4, 2, 4, 4\] inputs with \[4\] targets: RuntimeError: The size of tensor",
        ),
        (lambda: Own(flat()), LossContour(batch_norm="reestimated"), None, "needs batch-norm layers"),
        (
            lambda: Own(flat()),
            LossContour(max_samples=99),
            None,
            "is more than the 24 samples of the val loader",
        ),
        (lambda: Own(flat()), HessianSpectrum(k=200), None, "ask for more eigenvalues than the 99 of"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_the_first_step(
    tmp_path: Path, make: Callable[[], Own], analysis: Analysis, data: Any, message: str
) -> None:
    steps = Steps()
    fit = trainer(copy.deepcopy(analysis), steps, max_epochs=1, default_root_dir=tmp_path)
    good = loader(*samples())
    with pytest.raises(ValueError, match=message):
        fit.fit(make(), good, good if data is None else loader(*data))
    assert steps.count == 0
    assert not list(tmp_path.rglob("*.nc"))


class Few(IterableDataset[Any]):
    """Three samples whose number no loader knows."""

    def __iter__(self) -> Iterator[Any]:
        return zip(*(part[:3] for part in samples()), strict=True)


def test_a_stream_of_few_samples_is_measured(tmp_path: Path) -> None:
    stream = DataLoader(Few(), batch_size=2)
    contour = LossContour(resolution=3)
    trainer(contour, max_epochs=1, default_root_dir=tmp_path).fit(Own(flat()), loader(*samples()), stream)
    [file] = tmp_path.rglob("*.nc")
    assert read_dataset(file).attrs["samples"] == 3


def test_a_stream_with_fewer_than_max_samples_is_refused_before_the_first_step(tmp_path: Path) -> None:
    steps, contour = Steps(), LossContour(resolution=3, max_samples=9)
    fit = trainer(contour, steps, max_epochs=1, default_root_dir=tmp_path)
    with pytest.raises(ValueError, match=r"`max_samples` \(=9\) is more than the 3 samples of the loader"):
        fit.fit(Own(flat()), loader(*samples()), DataLoader(Few(), batch_size=2))
    assert steps.count == 0


def test_a_split_without_a_loader_is_refused(tmp_path: Path) -> None:
    data = loader(*samples())
    fit = trainer(LossContour(split="val"), max_epochs=1, default_root_dir=tmp_path)
    with pytest.raises(ValueError, match=r"`split` \(='val'\) must be one that the trainer has a loader for"):
        fit.fit(Own(flat()), data)


def test_the_trial_changes_neither_weights_nor_random_numbers(tmp_path: Path) -> None:
    data = loader(*samples(), shuffle=True)
    seen: list[tuple[Tensor, dict[str, Tensor]]] = []

    class State(Callback):
        def on_train_batch_start(self, trainer: Trainer, module: LightningModule, *_: Any) -> None:
            if not trainer.global_step:
                seen.append((torch.get_rng_state(), copy.deepcopy(module.state_dict())))

    for callbacks in ([], analyses()):
        seed_everything(3)
        module = Own(convolutions())
        trainer(State(), *callbacks, max_epochs=1, default_root_dir=tmp_path).fit(module, data, data)
    (numbers, weights), (others, other_weights) = seen
    assert torch.equal(numbers, others)
    assert all(torch.equal(weights[name], other_weights[name]) for name in weights)


# Loaders.


class Jittered(Dataset[tuple[Tensor, int]]):
    """Augments at random whenever a sample is read."""

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return index + torch.rand(2, 4, 4), index % 3


class Stream(IterableDataset[tuple[Tensor, int]]):
    def __iter__(self) -> Iterator[tuple[Tensor, int]]:
        return iter([(torch.full((2, 4, 4), float(index)), index % 3) for index in range(10)])


def read(train: Any, split: str = "train", shuffled: bool = False, most: int | None = None) -> Any:
    """What an analysis would read, by the index of each sample."""
    found: list[Any] = []

    class Reads(Callback):
        def on_fit_start(self, trainer: Trainer, module: LightningModule) -> None:
            for _ in range(2):
                batches = read_batches(
                    trainer,
                    split,
                    max_samples=most,
                    sample_seed=3,
                    batch_size=4,
                    shuffled=shuffled,
                    device=torch.device("cpu"),
                    dtype=torch.float64,
                )
                found.append(batches)

    fit = trainer(Reads(), max_epochs=1, limit_train_batches=0)
    if isinstance(train, LightningDataModule):
        fit.fit(Own(flat()), datamodule=train)
    else:
        fit.fit(Own(flat()), train)
    first, second = found
    assert first.sha256() == second.sha256()
    assert torch.equal(first.targets, first.inputs[:, 0, 0, 0].long() % 3)
    assert next(iter(first))[0].dtype == torch.float64
    return first.inputs[:, 0, 0, 0].long().tolist()


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: DataLoader(Jittered(), batch_size=4, shuffle=True, drop_last=True), list(range(10))),
        (lambda: DataLoader(Jittered(), sampler=SubsetRandomSampler([7, 2, 5])), [2, 5, 7]),
        (lambda: DataLoader(Stream(), batch_size=3), list(range(10))),
        (
            lambda: [(torch.full((2, 2, 4, 4), 1.0 * i), torch.tensor([i % 3] * 2)) for i in (4, 8)],
            [4, 4, 8, 8],
        ),
        (lambda: [DataLoader(Jittered()), DataLoader(Stream())], list(range(10))),
        (lambda: {"a": DataLoader(Stream())}, list(range(10))),
    ],
    ids=["shuffled", "subset", "stream", "list", "several", "by name"],
)
def test_every_loader_is_read_whole_and_in_order(make: Callable[[], Any], expected: list[int]) -> None:
    assert read(make()) == expected


def test_max_samples_are_drawn_by_their_seed_and_order_by_request() -> None:
    drawn = read(DataLoader(Jittered()), most=4)
    assert len(set(drawn)) == 4
    assert drawn == sorted(drawn) != list(range(4))
    assert sorted(read(DataLoader(Jittered()), most=4, shuffled=True)) == drawn
    assert read(DataLoader(Stream(), batch_size=3), most=4) == [0, 1, 2, 3]


class OwnData(LightningDataModule):
    """Doubles its images on the device, and augments them in training."""

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(Jittered(), batch_size=4)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        assert self.trainer is not None
        return (batch[0] * 0 - 1 if self.trainer.training else batch[0].floor() * 2), batch[1] * 2 % 3


def test_a_data_modules_hooks_see_an_evaluation() -> None:
    assert read(OwnData()) == [2 * index for index in range(10)]


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ({"image": torch.ones(2, 3)}, "the loader gives a dict: analyses need pairs"),
        ((torch.ones(2, 3), torch.ones(3)), "the loader gives a list of Tensor, Tensor: .* as many targets"),
        ((torch.ones(2), torch.ones(2), torch.ones(2)), "list of Tensor, Tensor, Tensor"),
    ],
)
def test_batches_that_are_no_pairs_are_refused(batch: Any, message: str) -> None:
    class Batches(IterableDataset[Any]):
        def __iter__(self) -> Iterator[Any]:
            return iter([batch])

    with pytest.raises(ValueError, match=message):
        read(DataLoader(Batches(), batch_size=None))


def test_a_profile_leaves_out_the_curvature_that_a_module_does_not_have(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    analysis = LossProfile(resolution=2, direction_seeds=[0], folder=str(tmp_path))
    fit = trainer(analysis, max_epochs=1, enable_progress_bar=False, default_root_dir=tmp_path)
    fit.fit(Own(flat(Once())), loader(*samples()), loader(*samples()))
    profile = read_profile(tmp_path / "loss_profile-epoch0000.nc")
    assert "second_derivative" not in profile
    assert np.isfinite(profile["loss"].values).all()
    assert "no second derivative at w*: the second derivative of the loss of Own is wrong" in caplog.text
