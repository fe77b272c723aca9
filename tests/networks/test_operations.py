from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from nas_lightning.cells import Genotype, get_genotype, operation_names
from nas_lightning.networks import (
    CellNetwork,
    build_operation,
    load_reference_weights,
    measure_size,
    register_operation,
)
from nas_lightning.networks.operations import BUILT_IN_FACTORIES
from tests.networks.cases import NOISY, assert_equal_networks, batch, loss_of, oracle_and_network
from tests.oracles.plain_network import OPERATIONS


def built_in() -> tuple[str, ...]:
    return tuple(BUILT_IN_FACTORIES)


def test_vocabulary_of_the_cells_is_implemented() -> None:
    assert set(built_in()) <= set(operation_names())
    assert set(built_in()) == set(OPERATIONS)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("name", built_in())
def test_equals_the_plain_operation(name: str, stride: int) -> None:
    torch.manual_seed(0)
    channels = 6
    plain = OPERATIONS[name](channels, stride).double()
    own = build_operation(name, channels, stride).double()
    # Both list their layers in the order of computation, so parameters pair up by position.
    pairs = list(zip(own.parameters(), plain.parameters(), strict=True))
    with torch.no_grad():
        for parameter, reference in pairs:
            reference.add_(0.3 * torch.randn_like(reference))
            parameter.copy_(reference)
    x = torch.randn(3, channels, 8, 8, dtype=torch.float64, requires_grad=True)
    y = x.detach().clone().requires_grad_()
    for training in (True, False):
        torch.manual_seed(1)
        expected = plain.train(training)(x)
        torch.manual_seed(1)
        actual = own.train(training)(y)
        assert actual.shape == (3, channels, 8 // stride, 8 // stride)
        torch.testing.assert_close(actual, expected, rtol=1e-12, atol=1e-12)
        if expected.requires_grad and actual.requires_grad:
            weights = torch.randn_like(expected)
            (expected * weights).sum().backward()
            (actual * weights).sum().backward()
            torch.testing.assert_close(y.grad, x.grad, rtol=1e-9, atol=1e-9)
    for parameter, reference in pairs:
        torch.testing.assert_close(parameter.grad, reference.grad, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", [name for name in built_in() if "conv" in name])
def test_without_affine_batch_norm_has_no_parameters(name: str) -> None:
    operation = build_operation(name, 4, 1, affine=False)
    assert all(parameter.dim() == 4 for parameter in operation.parameters())


class ScaledConvolution(nn.Module):
    """A user's operation: a 3x3 convolution of the rectified node, times a learnt scale."""

    rectified_input = True

    def __init__(self, channels: int, stride: int, affine: bool) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(channels, channels, 3, stride, padding=1, bias=False)
        self.scale = nn.Parameter(torch.ones(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        assert bool((x >= 0).all())
        scaled: Tensor = self.convolution(x) * self.scale
        return scaled


def user_genotype(op: str) -> Genotype:
    normal = [(op, 0), ("skip_connect", 1), (op, 2), ("none", 0)]
    reduce = [(op, 1), ("max_pool_3x3", 0), (op, 0), (op, 0)]  # node 3 is dead
    return Genotype(normal, [2, 3], reduce, [2])


def test_registered_operation_trains_and_counts() -> None:
    register_operation("test_scaled_conv", ScaledConvolution)
    register_operation("test_scaled_conv", ScaledConvolution)  # the same again changes nothing
    assert "test_scaled_conv" in operation_names()
    genotype = user_genotype("test_scaled_conv")
    assert get_genotype(repr(genotype)) == genotype
    torch.manual_seed(0)
    network = CellNetwork(genotype, 5, 4, 4).double()
    images, targets = batch(size=8)
    loss = loss_of(network(images), targets)
    loss.backward()  # type: ignore[no-untyped-call]
    for name, parameter in network.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.grad is not None:
                parameter.sub_(0.01 * parameter.grad)
    assert float(loss_of(network(images), targets).detach()) < float(loss.detach())

    # Four cells at 4, 8 (reduction), 16 (reduction), 16 channels: per edge 9 C^2 weights and C scales.
    def weights(channels: int) -> int:
        return 9 * channels**2 + channels

    with_pools = user_genotype("max_pool_3x3")
    size, without = (measure_size(CellNetwork(g, 5, 4, 4), 8) for g in (genotype, with_pools))
    normal, dead = 2 * weights(4) + 2 * weights(16), 2 * weights(8) + 2 * weights(16)
    assert size.parameters - without.parameters == normal + dead + weights(8) + weights(16)
    # Two edges of a normal cell and one of a reduction cell are live and computed.
    live = normal + weights(8) + weights(16)
    assert size.live_parameters - without.live_parameters == live
    convolutions = 2 * 9 * 16 * 64 + 9 * 64 * 16 + 9 * 256 * 4 + 2 * 9 * 256 * 4
    assert size.multiply_adds - without.multiply_adds == convolutions


def test_registered_operation_reads_its_own_names() -> None:
    register_operation("test_scaled_conv", ScaledConvolution)
    network = CellNetwork(user_genotype("test_scaled_conv"), 5, 4, 3)
    state = {
        name: torch.randn_like(tensor) if tensor.is_floating_point() else tensor
        for name, tensor in network.state_dict().items()
    }
    assert "cells.0.edges.0.scale" in state
    names = {
        "stem.convolution": "stem.0",
        "stem.norm": "stem.1",
        ".edges.": "._ops.",
        "preprocess.0.convolution_even": "preprocess0.conv_1",
        "preprocess.0.convolution_odd": "preprocess0.conv_2",
        "cells.2.preprocess.0.norm": "cells.2.preprocess0.bn",
        "preprocess.0.convolution": "preprocess0.op.1",
        "preprocess.0.norm": "preprocess0.op.2",
        "preprocess.1.convolution": "preprocess1.op.1",
        "preprocess.1.norm": "preprocess1.op.2",
    }
    reference = {}
    for name, tensor in state.items():
        for own, theirs in names.items():
            name = name.replace(own, theirs)
        reference[name] = tensor
    load_reference_weights(network, reference)
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor, state[name]), name


def returns_too_many_channels(channels: int, stride: int, affine: bool) -> nn.Module:
    return nn.Conv2d(channels, channels + 1, 3, stride, padding=1)


def ignores_the_stride(channels: int, stride: int, affine: bool) -> nn.Module:
    return nn.Conv2d(channels, channels, 3, padding=1)


def takes_other_channels(channels: int, stride: int, affine: bool) -> nn.Module:
    return nn.Conv2d(channels + 1, channels, 3, stride, padding=1)


def makes_no_module(channels: int, stride: int, affine: bool) -> nn.Module:
    return None  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        (
            returns_too_many_channels,
            r"\(channels=4, stride=1\) returns \(2, 5, 8, 8\) .* must return \(2, 4, 8, 8\)",
        ),
        (
            ignores_the_stride,
            r"\(channels=8, stride=2\) returns \(2, 8, 8, 8\) .* must return \(2, 8, 4, 4\)",
        ),
        (takes_other_channels, r"\(channels=4, stride=1\) fails on an input of shape \(2, 4, 8, 8\)"),
        (makes_no_module, r"the factory returned None; it must return a torch.nn.Module"),
    ],
)
def test_operation_of_the_wrong_shape(factory: type[nn.Module], message: str) -> None:
    name = f"test_{factory.__name__}"
    register_operation(name, factory)
    with pytest.raises(ValueError, match=rf"^operation '{name}'.*{message}") as caught:
        CellNetwork(user_genotype(name), 5, 4, 4)
    assert "\n" not in str(caught.value)


def test_registration_is_refused() -> None:
    with pytest.raises(ValueError, match="'sep_conv_3x3' belongs to a built-in operation"):
        register_operation("sep_conv_3x3", ScaledConvolution)
    with pytest.raises(ValueError, match="must be a Python identifier"):
        register_operation("my conv", ScaledConvolution)
    register_operation("test_taken", ScaledConvolution)
    with pytest.raises(ValueError, match="'test_taken' is already registered with another factory"):
        register_operation("test_taken", ignores_the_stride)
    with pytest.raises(
        ValueError, match="operation 'unheard_of' is not registered; known are none, max_pool_3x3"
    ):
        build_operation("unheard_of", 4, 1)


def test_noise_is_drawn_in_training_and_zero_in_evaluation() -> None:
    torch.manual_seed(0)
    x = torch.ones(4, 8, 16, 16, requires_grad=True)
    noise = build_operation("noise", 8, 2)
    drawn = noise(x)
    assert drawn.shape == (4, 8, 8, 8)
    assert abs(float(drawn.mean())) < 0.1
    assert abs(float(drawn.std()) - 1) < 0.1
    assert not drawn.requires_grad
    assert not bool(noise.eval()(x).any())


def test_a_network_with_noise_equals_the_plain_one(monkeypatch: pytest.MonkeyPatch) -> None:
    oracle, network = oracle_and_network(NOISY)
    images, targets = batch()
    assert_equal_networks(oracle, network, images, targets, training=False)
    first, second = (network.train()(images)[0] for _ in range(2))
    assert not torch.equal(first, second)
    # The two draw in another order, so both get the same "noise".
    monkeypatch.setattr(torch, "randn_like", lambda x: torch.full_like(x, 0.7))
    assert_equal_networks(oracle, network, images, targets, training=True)
    network.drop_path_probability = 0.3
    loss_of(network(images), targets).backward()  # type: ignore[no-untyped-call]
