"""Levels of speed: what is computed stays the same, in training and in analyses."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn
from torch.nn import functional

from nas_lightning.acceleration.cpu.library import kernel_library
from nas_lightning.acceleration.folding import FoldedNetwork
from nas_lightning.acceleration.forward import folded_forward, fused_sums
from nas_lightning.acceleration.layers import BatchNorm, Convolution
from nas_lightning.acceleration.level import LEVELS, LONG_PASSES, LONG_WORK, Speed, check_speed, level_of
from nas_lightning.acceleration.per_sample import FusedGradients
from nas_lightning.analysis import (
    PerSampleGradients,
    evaluate,
    loss_surface,
    random_directions,
    sum_gradients,
)
from nas_lightning.callbacks import DropPathSchedule
from nas_lightning.cells import Genotype, get_genotype
from nas_lightning.classifier import CellClassifier
from nas_lightning.datamodules import Synthetic
from nas_lightning.networks import CellNetwork, load_reference_weights
from nas_lightning.networks.operations import FactorizedReduction
from tests.oracles.plain_network import PlainNetwork

SMALL = Genotype(
    [("sep_conv_3x3", 0), ("dil_conv_3x3", 1), ("skip_connect", 2), ("max_pool_3x3", 0)],
    [2, 3],
    [("dil_conv_3x3", 0), ("sep_conv_3x3", 1), ("skip_connect", 1), ("avg_pool_3x3", 2)],
    [2, 3],
)
"""Every kind of layer, few of each."""
TINY = Genotype(
    *([("sep_conv_3x3", 0), ("max_pool_3x3", 1)], [2]),
    *([("dil_conv_3x3", 0), ("skip_connect", 1)], [2]),
)
"""What is compiled in earnest, which takes a minute."""
SIZES: dict[str, Any] = {"init_channels": 4, "num_cells": 3}
RECIPE: dict[str, Any] = {"lr": 0.025, "momentum": 0.9, "weight_decay": 3e-4}


needs_compiler = pytest.mark.skipif(kernel_library(torch.float64) is None, reason="needs a C compiler")
IN_ONE_PASS = pytest.param(True, marks=needs_compiler)


def batch(dtype: torch.dtype = torch.float64, images: int = 6) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(images, 3, 16, 16, generator=generator, dtype=torch.float64)
    return x.to(dtype), torch.randint(10, (images,), generator=generator)


def networks(genotype: Genotype, dtype: torch.dtype, **sizes: Any) -> tuple[PlainNetwork, CellNetwork]:
    torch.manual_seed(0)
    plain = PlainNetwork(genotype, 10, **SIZES | sizes).to(dtype).train()
    network = CellNetwork(genotype, 10, **SIZES | sizes).to(dtype).train()
    load_reference_weights(network, plain.state_dict())
    return plain, network


def trained_losses(network: nn.Module, steps: int, dtype: torch.dtype, **recipe: Any) -> list[float]:
    """Losses of the paper's training on one batch, clipped as the trainer clips."""
    parameters = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(parameters, **RECIPE | recipe)
    x, targets = batch(dtype)
    losses = []
    for _ in range(steps):
        output = network(x)
        loss = functional.cross_entropy(output[0] if isinstance(output, tuple) else output, targets)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(parameters, 5.0)
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


@pytest.mark.parametrize("name", ["darts_v2", "nasnet", "small"])
def test_reference_training_is_the_plain_one_step_by_step(name: str) -> None:
    plain, network = networks(SMALL if name == "small" else get_genotype(name), torch.float64)
    expected = trained_losses(plain, 6, torch.float64)
    assert trained_losses(network, 6, torch.float64) == pytest.approx(expected, rel=1e-10)
    assert expected[-1] < expected[0]


def test_reference_training_in_float32_differs_by_rounding() -> None:
    plain, network = networks(SMALL, torch.float32)
    expected = trained_losses(plain, 3, torch.float32)
    assert trained_losses(network, 3, torch.float32) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("in_one_pass", [False, IN_ONE_PASS])
def test_channels_last_training_with_a_fused_step_is_the_plain_one(in_one_pass: bool) -> None:
    plain, network = networks(SMALL, torch.float64)
    expected = trained_losses(plain, 6, torch.float64)
    network.take_one_pass("training" if in_one_pass else None)
    plain_forward = network.forward
    network.forward = lambda x: plain_forward(x.contiguous(memory_format=torch.channels_last))  # type: ignore[method-assign]
    assert trained_losses(network, 6, torch.float64, fused=True) == pytest.approx(expected, rel=1e-10)


@pytest.mark.slow
@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize(
    ("whole_cells", "in_one_pass"),
    [pytest.param(10, True, marks=needs_compiler), pytest.param(2, True, marks=needs_compiler), (10, False)],
)
def test_compiled_training_is_the_plain_one_step_by_step(
    whole_cells: int, in_one_pass: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nas_lightning.networks.network.WHOLE_CELLS", whole_cells)
    plain, network = networks(SMALL, torch.float64)
    expected = trained_losses(plain, 6, torch.float64)
    # Traced and differentiated as for compiling, but run by PyTorch's own kernels.
    network.take_one_pass("training" if in_one_pass else None)
    network.compile_regions(backend="aot_eager")
    assert (network._compiled_call_impl is None) == (whole_cells == 2)
    assert trained_losses(network, 6, torch.float64) == pytest.approx(expected, rel=1e-10)
    statistics = dict(network.named_buffers())
    for name, values in copy.deepcopy(network).named_buffers():
        assert torch.equal(values, statistics[name])
    reference = networks(SMALL, torch.float64)[1]
    trained_losses(reference, 6, torch.float64)
    for name, expected_values in reference.named_buffers():
        torch.testing.assert_close(statistics[name], expected_values, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("stride", "kernel"), [(1, 3), (2, 3), (1, 5), (2, 5)])
@pytest.mark.parametrize("size", [8, 9])
def test_a_dilated_convolution_is_torch_s(stride: int, kernel: int, size: int) -> None:
    torch.manual_seed(0)
    geometry: dict[str, Any] = {"stride": stride, "padding": kernel - 1, "dilation": 2, "groups": 4}
    layer = Convolution(4, 4, kernel, **geometry).double()
    x = torch.randn(3, 4, size, size, dtype=torch.float64, requires_grad=True)
    expected = functional.conv2d(x, layer.weight, layer.bias, **geometry)
    actual = layer(x)
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)
    weights = torch.randn_like(expected)
    gradients = [
        torch.autograd.grad((y * weights).sum(), [x, layer.weight], retain_graph=True)
        for y in (actual, expected)
    ]
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize("momentum", [0.1, None])
def test_compiled_batch_norm_is_torch_s(momentum: float | None) -> None:
    torch.manual_seed(0)
    layer = BatchNorm(4, momentum=momentum).double()
    expected = nn.BatchNorm2d(4, momentum=momentum).double()
    compiled = torch.compile(layer, backend="aot_eager", dynamic=False)
    for step in range(3):
        x = (torch.randn(5, 4, 3, 6, dtype=torch.float64) * 3 + step).requires_grad_()
        outputs = compiled(x), expected(x)
        torch.testing.assert_close(*outputs, rtol=1e-10, atol=1e-12)
        weights = torch.randn_like(x)
        gradients = [
            torch.autograd.grad((y * weights).sum(), [x, one.weight, one.bias])
            for y, one in zip(outputs, (layer, expected), strict=True)
        ]
        for one, other in zip(*gradients, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(dict(layer.named_buffers()), dict(expected.named_buffers()))


@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize("settings", [{"affine": False}, {"track_running_stats": False}])
def test_compiled_batch_norm_without_weights_or_statistics_is_torch_s(settings: dict[str, bool]) -> None:
    torch.manual_seed(0)
    layer, expected = BatchNorm(4, **settings).double(), nn.BatchNorm2d(4, **settings).double()
    x = torch.randn(5, 4, 3, 6, dtype=torch.float64)
    compiled = torch.compile(layer, backend="aot_eager", dynamic=False)
    torch.testing.assert_close(compiled(x), expected(x), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(dict(layer.named_buffers()), dict(expected.named_buffers()))


@pytest.mark.parametrize("in_one_pass", [False, IN_ONE_PASS])
@pytest.mark.parametrize("name", ["darts_v2", "nasnet", "eeea_net_c", "small"])
def test_a_folded_network_is_the_network(
    name: str, in_one_pass: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not in_one_pass:
        monkeypatch.setattr("nas_lightning.acceleration.cpu.fused_blocks.kernel_library", lambda dtype: None)
    network = networks(SMALL if name == "small" else get_genotype(name), torch.float64)[1]
    x, _ = batch(images=70)
    network(x)  # statistics other than 0 and 1
    before = copy.deepcopy(network.state_dict())
    folded = FoldedNetwork(network)
    kinds = [type(module) for module in network.modules()]
    expected_folded = kinds.count(BatchNorm) - kinds.count(FactorizedReduction)
    assert folded.folded < expected_folded if in_one_pass else folded.folded == expected_folded
    compute, taken = CellNetwork._compute_in_one_pass, []

    def noted(network: CellNetwork, *arguments: Any) -> Any:
        taken.append(network)
        return compute(network, *arguments)

    monkeypatch.setattr(CellNetwork, "_compute_in_one_pass", noted)
    expected = network.eval()(x)
    torch.testing.assert_close(folded(x), expected, rtol=1e-10, atol=1e-12)
    assert bool(taken) == in_one_pass
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(1.25)
    assert not torch.allclose(folded(x), network(x))
    folded.refresh()
    torch.testing.assert_close(folded(x), network(x), rtol=1e-10, atol=1e-12)
    assert before.keys() == network.state_dict().keys()


def test_convolutions_with_bias_and_norms_without_weights_are_folded() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(
        *(nn.Conv2d(3, 4, 3, bias=True), nn.BatchNorm2d(4, affine=False), nn.ReLU()),
        *(nn.Conv2d(4, 2, 1, groups=2), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2 * 14 * 14, 10)),
    ).double()
    x, _ = batch()
    module(x)
    folded = FoldedNetwork(module.eval())
    assert folded.folded == 2
    torch.testing.assert_close(folded(x), module(x), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("mode", ["frozen", "reestimated"])
def test_fast_surfaces_differ_by_less_than_a_ten_thousandth(mode: Any) -> None:
    network = networks(get_genotype("darts_v2"), torch.float32)[1]
    data = [batch(torch.float32, 40), batch(torch.float32, 9)]
    network(data[0][0])
    arguments = (network, data, random_directions(network, 0), [-0.5, 0.0, 0.5], [-0.5, 0.0, 0.5], mode)
    weights = copy.deepcopy(network.state_dict())
    surfaces = [
        loss_surface(*arguments, forward=folded_forward(network, LEVELS[speed]))
        for speed in ("reference", "fast")
    ]
    relative = abs(surfaces[1]["loss"] / surfaces[0]["loss"] - 1)
    assert 0 < float(relative.max()) < 1e-4
    assert all(torch.equal(weights[name], values) for name, values in network.state_dict().items())


def compile_quickly(module: nn.Module) -> None:
    """Traced as for compiling, but run by PyTorch's own kernels."""
    assert isinstance(module, CellNetwork)
    module.compile_regions(backend="aot_eager")


@pytest.mark.slow
@pytest.mark.usefixtures("fresh_compiler")
def test_surfaces_are_the_same_at_every_level(monkeypatch: pytest.MonkeyPatch) -> None:
    network = networks(TINY, torch.float32)[1]
    data = [batch(torch.float32, 32), batch(torch.float32, 9)]
    network(data[0][0])
    arguments = (network, data, random_directions(network, 0), [-0.5, 0.0, 0.5], [0.0, 0.5])
    reference = loss_surface(*arguments, forward=folded_forward(network, LEVELS["reference"]))["loss"]
    compiled = loss_surface(*arguments, forward=folded_forward(network, LEVELS["compiled"]))["loss"]
    monkeypatch.setattr("nas_lightning.acceleration.folding.compile_module", compile_quickly)
    shortened = loss_surface(*arguments, forward=folded_forward(network, LEVELS["max"]))["loss"]
    assert float(abs(compiled / reference - 1).max()) < 1e-4
    assert 1e-6 < float(abs(shortened / reference - 1).max()) < 2e-2
    assert reference.sel(alpha=0, beta=0).item() == pytest.approx(evaluate(network, data)[0])


@pytest.mark.parametrize("name", ["darts_v2", "nasnet", "small"])
def test_fused_gradients_are_those_of_the_instances(name: str) -> None:
    network = networks(SMALL if name == "small" else get_genotype(name), torch.float64)[1]
    x, targets = batch()
    network(x)
    gradients = PerSampleGradients(network, x, targets)
    squares, sums = FusedGradients(network, gradients.parameters, compiled=False).sums(x, targets)
    expected = sum_gradients(gradients, [(x, targets)])
    for parameter in gradients.parameters:
        torch.testing.assert_close(squares[parameter], expected.squared_norms[parameter], rtol=1e-9, atol=0.0)
        torch.testing.assert_close(sums[parameter], expected.gradients[parameter], rtol=1e-9, atol=1e-12)
    assert network.training
    assert all(p.grad is None for p in network.parameters())


@pytest.mark.slow
@pytest.mark.usefixtures("fresh_compiler")
def test_compiled_gradient_sums_are_the_same() -> None:
    network = networks(TINY, torch.float64)[1]
    x, targets = batch()
    network(x)
    gradients = PerSampleGradients(network, x, targets)
    fused = fused_sums(network, gradients.parameters)
    data = [(x, targets), (x[:5], targets[:5])]  # the second one is measured without it
    compiled, expected = sum_gradients(gradients, data, fused), sum_gradients(gradients, data)
    assert compiled.count == expected.count
    assert compiled.statistics().variance == pytest.approx(expected.statistics().variance, rel=1e-10)
    norm = expected.statistics().mean_gradient_norm
    assert compiled.statistics().mean_gradient_norm == pytest.approx(norm, rel=1e-10)


def test_automatic_levels_follow_the_work() -> None:
    assert level_of("auto", "cpu", passes=1, work=LONG_WORK / 2) is LEVELS["fast"]
    assert level_of("auto", "cpu", passes=1, work=LONG_WORK) is LEVELS["compiled"]
    assert level_of("auto", "cuda", passes=LONG_PASSES - 1, work=1e30) is LEVELS["fast"]
    assert level_of("auto", "cuda", passes=LONG_PASSES, work=0) is LEVELS["compiled"]
    assert level_of("auto", "mps", passes=1e9, work=1e30) is LEVELS["fast"]
    assert level_of("max", "cpu", passes=0, work=0).mixed
    with pytest.raises(ValueError, match=r"`speed` \(='warp'\) must be one of 'auto', 'reference'"):
        check_speed("warp")


def fit(
    folder: Path, speed: Speed, epochs: int = 2, checkpoint: str | None = None
) -> tuple[Trainer, CellClassifier]:
    torch.manual_seed(0)
    data = Synthetic(train_size=24, test_size=13, image_size=16, num_classes=10, batch_size=8, seed=0)
    model = CellClassifier(str(SMALL), num_classes=10, **SIZES, drop_path=0.2, speed=speed)
    trainer = Trainer(
        default_root_dir=folder,
        accelerator="cpu",
        max_epochs=epochs,
        gradient_clip_val=5.0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[DropPathSchedule()],
    )
    trainer.fit(model, datamodule=data, ckpt_path=checkpoint, weights_only=False if checkpoint else None)
    return trainer, model


def test_checkpoints_of_one_level_load_at_another(tmp_path: Path) -> None:
    path = str(tmp_path / "first.ckpt")
    checkpoints = {}
    for speed in ("reference", "fast"):
        trainer, _ = fit(tmp_path, speed)
        trainer.save_checkpoint(path)
        checkpoints[speed] = torch.load(path, weights_only=False)
    one, other = checkpoints["reference"], checkpoints["fast"]
    assert one["state_dict"].keys() == other["state_dict"].keys()
    for name, values in one["state_dict"].items():
        torch.testing.assert_close(values, other["state_dict"][name], rtol=1e-3, atol=1e-4)
    groups = [checkpoint["optimizer_states"][0]["param_groups"] for checkpoint in (one, other)]
    assert groups[0] == groups[1]
    trainer, model = fit(tmp_path, "reference", epochs=2, checkpoint=path)
    assert trainer.optimizers[0].param_groups[0]["fused"] is None
    for name, values in model.network.state_dict().items():
        assert torch.equal(values, other["state_dict"][f"network.{name}"])


@pytest.mark.parametrize(
    ("speed", "said"), [("auto", ["speed: fast, chosen by `auto` for 3 steps"]), ("fast", [])]
)
def test_a_run_says_which_level_was_chosen_for_it(
    tmp_path: Path, speed: Speed, said: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level("INFO"):
        fit(tmp_path, speed, epochs=1)
    assert [record.message for record in caplog.records if record.message.startswith("speed:")] == said


@pytest.mark.slow
@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize("speed", ["compiled", "max"])
def test_compiled_fits_end_where_the_reference_does(
    tmp_path: Path, speed: Speed, monkeypatch: pytest.MonkeyPatch
) -> None:
    backends = []

    def compile_regions(network: CellNetwork, **options: Any) -> None:
        backends.append(options)
        for cell in network.cells:
            cell.compile(dynamic=False, backend="aot_eager")

    monkeypatch.setattr(CellNetwork, "compile_regions", compile_regions)
    expected, _ = fit(tmp_path, "reference")
    trainer, model = fit(tmp_path, speed)
    assert len(backends) == 1
    tolerance = 0.05 if speed == "max" else 1e-3
    for name in ("loss/train", "loss/test"):
        value = float(expected.callback_metrics[name])
        assert float(trainer.callback_metrics[name]) == pytest.approx(value, rel=tolerance)
    assert all(p.dtype == torch.float32 for p in model.parameters())
