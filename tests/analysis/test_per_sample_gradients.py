"""Per-sample gradients of every layer against one backward pass a sample; other layers are refused."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from nas_lightning.analysis import (
    PerSampleGradients,
    gradient_statistics,
    per_sample_gradients,
)
from nas_lightning.cells import Genotype, get_genotype
from nas_lightning.networks.operations import BUILT_IN_FACTORIES
from nas_lightning.provenance import weights_hash
from tests.analysis.cases import Shift, assert_same, make_batches, small_network, trained_network


def cell_of(operation: str) -> Genotype:
    """Cells in which an operation stands at both strides."""
    edges = [(operation, 0), (operation, 1), ("skip_connect", 0), (operation, 2)]
    return Genotype(edges, [2, 3], edges, [2, 3])


@pytest.mark.parametrize("operation", [name for name in BUILT_IN_FACTORIES if name != "none"])
def test_every_operation_agrees_with_one_backward_pass_a_sample(operation: str) -> None:
    network = trained_network(cell_of(operation))
    assert_same(network, make_batches(), tolerance=1e-10)
    assert_same(network.float(), make_batches(dtype=torch.float32), tolerance=1e-5)


@pytest.mark.parametrize("name", ["darts_v2", "nasnet", "amoebanet", "enas", "snas_mild", "darts_v2:C1"])
def test_every_base_cell_agrees_with_one_backward_pass_a_sample(name: str) -> None:
    network = trained_network(get_genotype(name), cells=4)
    assert_same(network, make_batches((5, 2)), tolerance=1e-10)
    assert_same(network.float(), make_batches((5, 2), dtype=torch.float32), tolerance=1e-5)


def test_the_tower_has_no_part() -> None:
    network = trained_network(get_genotype("darts_v2"), auxiliary=True)
    batches = make_batches(size=32)
    statistics = gradient_statistics(network, batches)
    assert_same(network, batches, tolerance=1e-10)
    assert statistics.variance_by_parameter.keys() == network.evaluated_parameters().keys()
    assert not any(name.startswith("auxiliary") for name in statistics.variance_by_parameter)


def test_cells_that_only_the_tower_reads_have_no_part() -> None:
    edges = [("sep_conv_3x3", 0), ("skip_connect", 0)]  # every second cell is left out
    network = trained_network(Genotype(edges, [2], edges, [2]), auxiliary=True, cells=4)
    statistics = gradient_statistics(network, make_batches((2,), size=32))
    assert statistics.variance_by_parameter.keys() == network.evaluated_parameters().keys()


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 4, 3, stride=2, padding=(1, 2), dilation=(2, 1), groups=2),
        nn.Conv2d(4, 4, 1, stride=2),
        nn.Conv2d(4, 4, 1, padding=1),
        nn.Conv2d(4, 4, (1, 5), padding=(0, 2), groups=4),
        nn.Sequential(nn.Conv2d(4, 4, 3), nn.ReLU(inplace=True)),
        nn.BatchNorm2d(4),
        nn.BatchNorm2d(4, affine=False),
    ],
    ids=["grouped", "strided pointwise", "padded pointwise", "row", "in place", "norm", "plain norm"],
)
def test_layers_of_any_kind(layer: nn.Module) -> None:
    assert PerSampleGradients(small_network(layer), *make_batches()[0]).by_vmap == []
    assert_same(small_network(layer), make_batches(), tolerance=1e-10)


@pytest.mark.parametrize(
    ("layer", "name"),
    [
        (Shift(4), "1"),
        (nn.Sequential(Shift(4), nn.ReLU(inplace=True)), "1.0"),
        (nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular"), "1"),
        (nn.Conv2d(4, 4, 3, padding="same"), "1"),
        (nn.GroupNorm(2, 4), "1"),
        (nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 4, 1)), "1"),
    ],
    ids=["own", "own, then in place", "circular", "same", "group norm", "weight norm"],
)
def test_other_layers_are_refused_by_name_or_measured_by_vmap(layer: nn.Module, name: str) -> None:
    network = small_network(layer)
    with pytest.raises(ValueError, match=rf"layer '{name}' \(\w+\) has parameters and no rule"):
        gradient_statistics(network, make_batches())
    assert PerSampleGradients(network, *make_batches()[0], "vmap").by_vmap == [name]
    assert_same(network, make_batches(), tolerance=1e-10, unsupported="vmap")


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.convolution(self.convolution(x).relu())  # type: ignore[no-any-return]


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x).relu())  # type: ignore[no-any-return]


class Bypassed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return functional.conv2d(x, self.convolution.weight).relu()


@pytest.mark.parametrize("layer", [Twice(), Tied(), Bypassed()], ids=lambda layer: type(layer).__name__)
def test_shared_parameters_are_measured_with_the_module_around_them(layer: nn.Module) -> None:
    network = small_network(layer)
    with pytest.raises(ValueError, match="layer '1' "):
        gradient_statistics(network, make_batches())
    assert_same(network, make_batches(), tolerance=1e-10, unsupported="vmap")


class AlsoElsewhere(nn.Module):
    """Calls a layer, and uses its weight once more beside the call."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) + functional.linear(x, self.layer.weight.square())  # type: ignore[no-any-return]


def test_a_weight_used_beside_its_layer_is_noticed() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(2), nn.Flatten(), AlsoElsewhere()
    ).double()
    with pytest.raises(
        ValueError, match=r"parameter '3\.layer\.weight': .* it is used outside the module that holds it"
    ):
        gradient_statistics(network, make_batches())


class ChangesInput(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = Shift(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) + x.mul_(2)  # type: ignore[no-any-return]


def test_an_input_changed_in_place_is_noticed() -> None:
    with pytest.raises(
        ValueError, match=r"the input of layer '1\.layer' is changed in place by a later layer"
    ):
        gradient_statistics(small_network(ChangesInput()), make_batches(), unsupported="vmap")


class AlongDimensionOne(nn.Module):
    """A linear layer that sees the samples along dimension 1."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.flatten(2).mT.transpose(0, 1)).mean(0)  # type: ignore[no-any-return]


class Mixing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(0)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ((AlongDimensionOne(),), "layer '1.layer' .* does not have the 2 samples along dimension 0"),
        ((Mixing(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, 10)), "or samples are mixed"),
    ],
    ids=["transposed", "mixed"],
)
def test_layers_that_do_not_keep_the_samples_apart_are_refused(
    layers: tuple[nn.Module, ...], message: str
) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 16, 3), *layers).double()
    with pytest.raises(ValueError, match=message):
        gradient_statistics(network, make_batches())


def test_batch_norm_of_vectors() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(768, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 10))
    assert_same(network.double(), make_batches(), tolerance=1e-10)


def test_batch_norm_without_running_statistics_is_refused() -> None:
    network = small_network(nn.BatchNorm2d(4, track_running_stats=False))
    with pytest.raises(ValueError, match=r"layer '1' \(BatchNorm2d\) keeps no running statistics"):
        gradient_statistics(network, make_batches(), unsupported="vmap")


def test_a_layer_that_stands_at_two_places() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(12, 12)
    network = nn.Sequential(nn.Flatten(), layer, nn.ReLU(), layer, nn.Linear(12, 10)).double()
    batches = [
        (torch.randn(5, 3, 2, 2).double(), torch.arange(5)),
        (torch.randn(0, 3, 2, 2).double(), torch.arange(0)),
    ]
    assert_same(network, batches, tolerance=1e-10, unsupported="vmap")
    assert isinstance(layer.weight, nn.Parameter)


def refuse(name: str, values: Tensor) -> None:
    raise KeyError(name)


def test_dead_parameters_do_not_count_and_nothing_is_left_behind() -> None:
    network = trained_network(get_genotype("amoebanet:adapted"))
    network.cells[0].train()
    modes = [layer.training for layer in network.modules()]
    flags = [p.requires_grad for p in network.parameters()]
    before = weights_hash(network.state_dict())
    statistics = gradient_statistics(network, make_batches())
    assert not all(flags)
    live = {name for name, p in network.named_parameters() if p.requires_grad}
    assert statistics.variance_by_parameter.keys() == live
    with pytest.raises(KeyError):
        PerSampleGradients(network, *make_batches()[0]).backward(*make_batches()[0], refuse)
    assert [layer.training for layer in network.modules()] == modes
    assert [p.requires_grad for p in network.parameters()] == flags
    assert weights_hash(network.state_dict()) == before
    assert all(p.grad is None for p in network.parameters())
    assert not any(layer._forward_hooks for layer in network.modules())


@pytest.mark.parametrize("layer", [nn.Identity(), Shift(4)], ids=["rules", "vmap"])
def test_large_gradients_are_passed_on_in_parts(monkeypatch: pytest.MonkeyPatch, layer: nn.Module) -> None:
    network, batches = small_network(layer), make_batches((5, 3))
    whole = gradient_statistics(network, batches, unsupported="vmap")
    monkeypatch.setattr(per_sample_gradients, "ELEMENTS_AT_ONCE", 250)
    gradients = PerSampleGradients(network, *batches[0], "vmap")
    seen: dict[str, list[int]] = {}
    gradients.backward(*batches[0], lambda name, values: seen.setdefault(name, []).append(len(values)))
    assert seen["0.weight"] == [2, 2, 1]  # 112 elements a sample
    parts = gradient_statistics(network, batches, unsupported="vmap")
    assert parts.variance == pytest.approx(whole.variance, rel=1e-12)
