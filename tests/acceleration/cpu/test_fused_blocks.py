"""Fused blocks against the same layers, for every instruction set of this machine."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nas_lightning.acceleration.cpu.build import MARCH, instruction_set
from nas_lightning.acceleration.cpu.fused_blocks import can_fuse, fused_blocks, fused_projections
from tests.acceleration.cpu.cases import (
    INSTRUCTION_SETS,
    MARCHES,
    blocks_of,
    images,
    needs_compiler,
    projection,
    separable,
)

pytestmark = needs_compiler

KINDS: dict[str, dict[str, Any]] = {
    "sep_conv_3x3": {},
    "sep_conv_5x5": {"kernel": 5},
    "sep_conv_7x7": {"kernel": 7},
    "dil_conv_3x3": {"dilation": 2, "depth": 1},
    "dil_conv_5x5": {"kernel": 5, "dilation": 2, "depth": 1},
    "dilated by 3": {"dilation": 3, "depth": 1},
}
SHAPES = [(16, (8, 8)), (1, (6, 16)), (18, (9, 11)), (40, (16, 7)), (3, (5, 13))]
"""Channels and sides: whole vectors, remainders of every width, rows longer and shorter than a tile."""


@pytest.fixture(params=MARCHES)
def march(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Kernels are compiled for one level of x86-64."""
    monkeypatch.setenv(MARCH, request.param)
    return str(request.param)


def assert_fused_is_layers(
    layers: nn.Sequential, x: Tensor, wide: int = 0, rtol: float = 1e-10, atol: float = 1e-11
) -> None:
    """Outputs, gradients and statistics; the incoming gradient is some channels of wider images."""
    fused = copy.deepcopy(layers)
    assert can_fuse(blocks_of(fused), training=True)
    expected, actual = layers(x.relu()), fused_blocks((x,), blocks_of(fused))
    torch.testing.assert_close(actual, expected, rtol=rtol, atol=atol)
    torch.manual_seed(2)
    batch, channels, *size = expected.shape
    incoming = torch.randn(batch, channels + wide, *size, dtype=x.dtype)
    incoming = incoming.contiguous(memory_format=torch.channels_last)[:, wide:]
    for one, other in zip(
        torch.autograd.grad(actual, [x, *fused.parameters()], incoming),
        torch.autograd.grad(expected, [x, *layers.parameters()], incoming),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=rtol, atol=atol * max(1.0, float(other.abs().max())))
    for one, other in zip(fused.buffers(), layers.buffers(), strict=True):
        torch.testing.assert_close(one, other, rtol=rtol, atol=atol)


def norm_of(layers: nn.Sequential) -> nn.BatchNorm2d:
    (norm,) = (layer for layer in layers if isinstance(layer, nn.BatchNorm2d))
    return norm


def test_kernels_are_compiled_for_the_instruction_set_asked_for(march: str) -> None:
    assert instruction_set() == instruction_set(torch.float64) == INSTRUCTION_SETS[march]


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_fused_separable_convolutions_are_their_layers(kind: str, stride: int, march: str) -> None:
    for channels, size in SHAPES:
        assert_fused_is_layers(separable(channels, stride=stride, **KINDS[kind]), images(channels, size))


@pytest.mark.parametrize("channels", [1, 7, 16, 24])
def test_fused_projections_are_their_layers(channels: int, march: str) -> None:
    for size in ((8, 8), (5, 3), (32, 40)):
        assert_fused_is_layers(projection(3 * channels, channels), images(3 * channels, size))


@pytest.mark.parametrize("kind", ["sep_conv_3x3", "dil_conv_5x5", "projection"])
def test_float32_differs_by_rounding(kind: str, march: str) -> None:
    layers = projection(48, 18) if kind == "projection" else separable(18, **KINDS[kind])
    x = images(48 if kind == "projection" else 18, (16, 16), torch.float32)
    assert_fused_is_layers(layers.float(), x, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kind", ["sep_conv_3x3", "sep_conv_7x7", "dil_conv_5x5", "projection"])
def test_a_fused_evaluation_is_that_of_the_layers(kind: str, stride: int, march: str) -> None:
    for channels, size in SHAPES:
        layers = separable(channels, stride=stride, **KINDS[kind]) if kind != "projection" else None
        layers = layers or projection(3 * channels, channels)
        x = images(3 * channels if kind == "projection" else channels, size)
        layers(x.relu())  # statistics other than 0 and 1
        blocks = blocks_of(layers)
        with torch.no_grad():
            expected = layers.eval()(x.relu())
            torch.testing.assert_close(fused_blocks((x,), blocks), expected, rtol=1e-10, atol=1e-11)
            addend = torch.randn_like(expected)
            actual = fused_blocks((x,), blocks, addend=addend)
            torch.testing.assert_close(actual, addend + expected, rtol=1e-10, atol=1e-11)


def test_factors_and_an_addend_are_part_of_the_last_block(march: str) -> None:
    layers, x = separable(18), images(18, (9, 9))
    fused = copy.deepcopy(layers)
    addend = images(18, (9, 9)).detach().flip(0).requires_grad_()
    factors = torch.tensor([0.0, 1.25, 1.25, 0.0, 2.0], dtype=torch.float64)
    expected = addend + layers(x.relu()) * factors[:, None, None, None]
    actual = fused_blocks((x,), blocks_of(fused), factors, addend)
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-11)
    incoming = torch.randn_like(expected)
    gradients = (
        torch.autograd.grad(y, [x, addend, *of.parameters()], incoming)
        for y, of in ((actual, fused), (expected, layers))
    )
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("training", [True, False])
def test_projections_of_the_same_nodes_are_the_layers(training: bool, march: str) -> None:
    """Of several nodes, for several readers of other widths; norms with another eps are computed alone."""
    nodes = [images(18, (9, 11)).detach().roll(shift).requires_grad_() for shift in range(3)]
    for channels, eps in (((16,), 1e-5), ((4, 32), 1e-5), ((18, 18, 5), 1e-5), ((4, 4), 1e-2)):
        layers = [projection(54, width) for width in channels]
        norm_of(layers[0]).eps = eps
        together = copy.deepcopy(layers)
        for one in (*layers, *together):
            one.train(training)
        x = torch.cat(nodes, dim=1).relu()
        with torch.set_grad_enabled(training):
            expected = [layer(x) for layer in layers]
            actual = fused_projections(nodes, [block for layer in together for block in blocks_of(layer)])
        results: list[list[Tensor]] = [[*expected], [*actual]]
        for of, ys, result in zip((layers, together), (expected, actual), results, strict=True):
            if training:
                parameters = [p for layer in of for p in layer.parameters()]
                loss = torch.stack([(y * torch.ones_like(y).cumsum(2)).square().sum() for y in ys]).sum()
                result += torch.autograd.grad(loss, [*nodes, *parameters])
            result += [buffer for layer in of for buffer in layer.buffers()]
        for a, b in zip(*results, strict=True):
            torch.testing.assert_close(b, a, rtol=1e-9, atol=1e-9 * max(1.0, float(a.detach().abs().max())))


@pytest.mark.parametrize("momentum", [0.1, None])
def test_running_statistics_are_torch_s(momentum: float | None) -> None:
    layers = projection(6, 4)
    norm_of(layers).momentum = momentum
    fused = copy.deepcopy(layers)
    for step in range(3):
        x = images(6, (4, 4)).detach() + step
        layers(x.relu()), fused_blocks((x,), blocks_of(fused))
    torch.testing.assert_close(dict(fused.named_buffers()), dict(layers.named_buffers()))


def test_the_incoming_gradient_may_be_some_channels_of_wider_images() -> None:
    assert_fused_is_layers(separable(16), images(16, (8, 8)), wide=3)
    assert_fused_is_layers(projection(48, 16), images(48, (8, 8)), wide=48)


def test_images_of_another_memory_format_are_accepted() -> None:
    assert_fused_is_layers(separable(16), images(16, (8, 8)).detach().contiguous().requires_grad_())


def test_a_far_mean_does_not_spoil_the_variance(march: str) -> None:
    layers = projection(48, 16).float()
    x = images(48, (16, 16), torch.float32).detach() + 1000
    double = copy.deepcopy(layers).double()
    fused_blocks((x,), blocks_of(layers))
    double(x.double().relu())
    variances = [list(one.buffers())[1].double() for one in (layers, double)]
    torch.testing.assert_close(*variances, rtol=1e-3, atol=0.0)


def test_gradients_that_do_not_exist_are_refused() -> None:
    layers, x = separable(4), images(4, (8, 8))
    y = fused_blocks((x,), blocks_of(layers))
    (gradient,) = torch.autograd.grad(y.square().sum(), x, retain_graph=True)
    assert gradient.isfinite().all()
    with pytest.raises(RuntimeError, match=r"no second derivative. Use `speed='reference'`"):
        torch.autograd.grad(y.square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="no gradient in evaluation mode"):
        fused_blocks((x,), blocks_of(layers.eval()))


def test_shapes_that_do_not_fit_are_refused_before_anything_is_read() -> None:
    layers, x = separable(4), images(4, (8, 8))
    for addend, node, factors in (
        (None, images(5, (8, 8)), None),
        (torch.zeros(5, 4, 4, 4, dtype=x.dtype), x, None),
        (torch.zeros(5, 3, 8, 8, dtype=x.dtype), x, None),
        (None, x, torch.ones(4, dtype=x.dtype)),
    ):
        with pytest.raises(ValueError, match="not fit"):
            fused_blocks((node,), blocks_of(layers), factors, addend)
    with pytest.raises(ValueError, match="differ in more than channels"):
        fused_projections([images(6, (8, 8)), images(6, (4, 4))], blocks_of(projection(12, 4)))


def test_one_value_a_channel_is_refused_as_by_torch() -> None:
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        fused_blocks((images(12, (1, 1), batch=1),), blocks_of(projection(12, 4)))


@pytest.mark.parametrize("channels", [4, 32])
def test_the_number_of_threads_changes_no_bit(channels: int) -> None:
    """With little work, which one thread does whatever is allowed, and with enough for several."""
    results = []
    threads = torch.get_num_threads()
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            layers, x = separable(channels).float(), images(channels, (19, 19), torch.float32, batch=37)
            output = fused_blocks((x,), blocks_of(layers))
            gradients = torch.autograd.grad(output.square().sum(), [x, *layers.parameters()])
            results.append([output, *gradients, *layers.buffers()])
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


def test_nan_stays_nan(march: str) -> None:
    x = images(16, (8, 8)).detach()
    x[0, 0, 0, 0] = float("nan")
    assert fused_blocks((x,), blocks_of(separable(16))).isnan().any()


class Subclass(nn.BatchNorm2d):
    """A norm that may compute anything."""


@pytest.mark.parametrize(
    "change",
    [
        lambda layers: layers.to(torch.bfloat16),
        lambda layers: layers.to("meta"),
        lambda layers: layers[2].float(),
        lambda layers: layers.eval(),
        lambda layers: setattr(layers[2], "track_running_stats", False),
        lambda layers: setattr(layers[2], "__class__", Subclass),
        lambda layers: setattr(layers[2], "weight", None),
        lambda layers: setattr(layers[0], "padding", (2, 2)),
        lambda layers: setattr(layers[0], "padding_mode", "circular"),
        lambda layers: setattr(layers[0], "kernel_size", (9, 9)),
        lambda layers: setattr(layers[4], "stride", (2, 2)),
        lambda layers: setattr(layers[1], "weight", nn.Parameter(layers[1].weight.detach().transpose(0, 1))),
        lambda layers: setattr(layers[1], "bias", nn.Parameter(torch.zeros(4))),
    ],
)
def test_other_layers_cannot_be_fused(change: Any) -> None:
    layers = separable(4)
    assert can_fuse(blocks_of(layers), training=True)
    assert not can_fuse(blocks_of(layers), training=False)
    change(layers)
    assert not can_fuse(blocks_of(layers), training=True)
    assert not can_fuse([], training=True)
