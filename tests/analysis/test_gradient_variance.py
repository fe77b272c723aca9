from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from nas_lightning.analysis import (
    PerSampleGradients,
    estimate_statistics,
    gradient_statistics,
    gradient_variance_surface,
    hessian_eigenvalues,
    loss_surface,
    per_sample_gradients,
    random_directions,
    sum_gradients,
)
from nas_lightning.cells import Genotype, get_genotype
from nas_lightning.networks import CellNetwork
from nas_lightning.networks.operations import BUILT_IN_FACTORIES
from nas_lightning.provenance import weights_hash
from tests.oracles.per_sample_gradients import every_gradient, slow_statistics

Batches = list[tuple[Tensor, Tensor]]


def make_batches(
    sizes: Sequence[int] = (4, 4, 3), *, size: int = 16, dtype: torch.dtype = torch.float64
) -> Batches:
    generator = torch.Generator().manual_seed(1)
    return [
        (
            torch.randn(n, 3, size, size, generator=generator).to(dtype),
            torch.randint(10, (n,), generator=generator),
        )
        for n in sizes
    ]


def trained_network(genotype: Genotype, *, auxiliary: bool = False, cells: int = 3) -> CellNetwork:
    """A small network whose batch norms are not the identity."""
    torch.manual_seed(0)
    network = CellNetwork(genotype, 10, init_channels=4, num_cells=cells, auxiliary=auxiliary).double()
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            assert layer.running_mean is not None
            assert layer.running_var is not None
            layer.running_mean.normal_(std=0.3)
            layer.running_var.uniform_(0.5, 2.0)
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.normal_(layer.bias, std=0.3)
    return network


def cell_of(operation: str) -> Genotype:
    """Cells in which an operation stands at both strides."""
    edges = [(operation, 0), (operation, 1), ("skip_connect", 0), (operation, 2)]
    return Genotype(edges, [2, 3], edges, [2, 3])


def assert_same(module: nn.Module, batches: Batches, *, tolerance: float, **settings: str) -> None:
    slow = slow_statistics(module, batches)
    fast = gradient_statistics(module, batches, **settings)  # type: ignore[arg-type]
    assert fast.count == slow.count
    assert fast.variance == pytest.approx(slow.variance, rel=tolerance)
    assert fast.mean_gradient_norm == pytest.approx(slow.mean_gradient_norm, rel=tolerance)
    assert fast.variance_by_parameter.keys() == slow.variance_by_parameter.keys()
    for name, variance in slow.variance_by_parameter.items():
        # A parameter may have next to no gradient: it is compared with the whole.
        assert fast.variance_by_parameter[name] == pytest.approx(
            variance, rel=tolerance, abs=tolerance * slow.variance * 1e-3
        ), name
    assert fast.noise_scale == pytest.approx(slow.variance / slow.mean_gradient_norm**2, rel=2 * tolerance)


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


class Shift(nn.Module):
    """A layer of a user's own: a learnt shift of every channel, squared."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.linspace(0.1, 0.5, channels))

    def forward(self, x: Tensor) -> Tensor:
        return x + (self.shift**2).view(-1, 1, 1)


def small_network(*layers: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), *layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 10)
    ).double()


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


def test_the_mean_is_summed_in_float64() -> None:
    """Where all samples nearly agree, the variance is a small difference of large numbers."""
    network = small_network().float()
    inputs, targets = make_batches((1,), dtype=torch.float32)[0]
    noise = torch.randn(200, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    batches = [(inputs + 1e-3 * noise, targets.expand(200))]
    slow = slow_statistics(network, batches)
    assert slow.variance < 1e-4 * slow.mean_gradient_norm**2
    assert gradient_statistics(network, batches).variance == pytest.approx(slow.variance, rel=1e-3)


def test_autocast_and_compiled_modules_are_measured_as_they_are() -> None:
    network, batches = small_network().float(), make_batches(dtype=torch.float32)
    expected = gradient_statistics(network, batches)
    estimate = gradient_statistics(network, batches, method="minibatch")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert gradient_statistics(network, batches) == expected
        assert gradient_statistics(network, batches, method="minibatch") == estimate
    network.compile(backend="eager")
    assert gradient_statistics(network, batches).variance == pytest.approx(expected.variance, rel=1e-6)


def test_batches_that_can_be_read_once_are_refused() -> None:
    with pytest.raises(ValueError, match="`batches` can be iterated only once"):
        gradient_statistics(small_network(), iter(make_batches()))


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


def test_nothing_to_measure_is_refused() -> None:
    with pytest.raises(ValueError, match="depends on no parameter with requires_grad"):
        gradient_statistics(small_network().requires_grad_(False), make_batches())
    for nothing in ([], [(torch.zeros(0, 3, 8, 8).double(), torch.zeros(0).long())]):
        with pytest.raises(ValueError, match="`batches` is empty"):
            gradient_statistics(small_network(), nothing)
    with pytest.raises(ValueError, match="at least 3"):
        gradient_statistics(small_network(), make_batches((3, 3)), method="minibatch")


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


def test_it_works_in_inference_mode() -> None:
    network, batches = trained_network(get_genotype("darts_v2")), make_batches()
    expected = gradient_statistics(network, batches)
    with torch.inference_mode():
        made_inside = [(inputs.clone(), targets.clone()) for inputs, targets in batches]
        assert made_inside[0][0].is_inference()
        assert gradient_statistics(network, made_inside) == expected
        assert gradient_statistics(network, made_inside, method="minibatch").count == expected.count


@pytest.mark.parametrize("layer", [nn.Identity(), Shift(4)], ids=["rules", "vmap"])
def test_large_gradients_are_handed_over_in_parts(monkeypatch: pytest.MonkeyPatch, layer: nn.Module) -> None:
    network, batches = small_network(layer), make_batches((5, 3))
    whole = gradient_statistics(network, batches, unsupported="vmap")
    monkeypatch.setattr(per_sample_gradients, "ELEMENTS_AT_ONCE", 250)
    gradients = PerSampleGradients(network, *batches[0], "vmap")
    seen: dict[str, list[int]] = {}
    gradients.backward(*batches[0], lambda name, values: seen.setdefault(name, []).append(len(values)))
    assert seen["0.weight"] == [2, 2, 1]  # 112 elements a sample
    parts = gradient_statistics(network, batches, unsupported="vmap")
    assert parts.variance == pytest.approx(whole.variance, rel=1e-12)


def test_sums_of_two_processes_add_up() -> None:
    network, batches = trained_network(get_genotype("darts_v2")), make_batches()
    gradients = PerSampleGradients(network, *batches[0])
    first, second, none = (sum_gradients(gradients, part) for part in (batches[:1], batches[1:], []))
    for one, other, zero in zip(first.tensors(), second.tensors(), none.tensors(), strict=True):
        one += other + zero
    expected, found = gradient_statistics(network, batches), first.statistics()
    assert found.count == expected.count
    assert found.variance == pytest.approx(expected.variance, rel=1e-12)
    assert found.mean_gradient_norm == pytest.approx(expected.mean_gradient_norm, rel=1e-12)


def test_batches_that_the_sums_do_not_take_go_through_the_layers() -> None:
    network, batches = small_network(), make_batches((4, 4, 3))
    gradients = PerSampleGradients(network, *batches[0])
    expected = sum_gradients(gradients, batches)
    taken = []

    def batch_sums(inputs: Tensor, targets: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]] | None:
        taken.append(len(targets) == 4)
        every = every_gradient(network, [(inputs, targets)])
        if not taken[-1]:
            return None
        return (
            {name: torch.stack([g[name].square().sum() for g in every]).sum() for name in every[0]},
            {name: torch.stack([g[name] for g in every]).sum(0) for name in every[0]},
        )

    found = sum_gradients(gradients, batches, batch_sums)
    assert taken == [True, True, False]
    for one, other in zip(found.tensors(), expected.tensors(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-14)


def test_equal_samples_have_no_variance() -> None:
    inputs, targets = make_batches((1,))[0]
    statistics = gradient_statistics(small_network(), [(inputs.expand(6, -1, -1, -1), targets.expand(6))])
    assert statistics.variance == pytest.approx(0, abs=1e-12)
    assert statistics.mean_gradient_norm > 0.1


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_stays_so(value: float) -> None:
    network = small_network()
    with torch.no_grad():
        dict(network.named_parameters())["3.bias"][0] = value
    assert math.isnan(gradient_statistics(network, make_batches()).variance)


def partitions(count: int, size: int) -> list[list[list[int]]]:
    """Every way to deal samples to batches of a size, the last one smaller."""
    dealt = []
    for order in itertools.permutations(range(count)):
        batches = [sorted(order[start : start + size]) for start in range(0, count, size)]
        dealt.append(batches)
    return dealt


def test_the_mini_batch_estimate_is_unbiased_over_all_partitions() -> None:
    inputs, targets = make_batches((5,))[0]
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 256, 10)).double()
    gradients = PerSampleGradients(network, inputs, targets)
    exact = gradient_statistics(network, [(inputs, targets)])
    estimates = []
    for batches in partitions(5, 2):  # two of two and one of one
        estimates.append(estimate_statistics(gradients, [(inputs[rows], targets[rows]) for rows in batches]))
    assert np.mean([e.variance for e in estimates]) == pytest.approx(exact.variance, rel=1e-10)
    assert {round(e.mean_gradient_norm / exact.mean_gradient_norm, 10) for e in estimates} == {1.0}
    assert np.std([e.variance for e in estimates]) > 1e-3 * exact.variance
    assert estimates[0].variance_by_parameter.keys() == exact.variance_by_parameter.keys()
    assert sum(estimates[0].variance_by_parameter.values()) == pytest.approx(estimates[0].variance)


def test_the_standard_error_is_the_spread_of_the_estimate() -> None:
    torch.manual_seed(0)
    network = nn.Linear(6, 10).double()
    estimates, exact = [], []
    for _ in range(100):
        inputs, targets = torch.randn(240, 6).double(), torch.randint(10, (240,))
        gradients = PerSampleGradients(network, inputs, targets)
        batches = [(inputs[i : i + 10], targets[i : i + 10]) for i in range(0, 240, 10)]
        estimates.append(estimate_statistics(gradients, batches))
        exact.append(gradient_statistics(network, batches).variance)
    spread = np.std([e.variance for e in estimates])
    claimed = np.sqrt(np.mean([e.standard_error**2 for e in estimates]))
    assert claimed == pytest.approx(spread, rel=0.2)
    # Around the variance of the very samples it spreads less.
    around = np.sqrt(np.mean([(e.variance - v) ** 2 for e, v in zip(estimates, exact, strict=True)]))
    assert 0.4 * claimed < around < 0.9 * claimed


def test_an_estimate_ends_where_its_error_suffices() -> None:
    torch.manual_seed(0)
    module = nn.Linear(12, 3, bias=False).double()
    count, size = 1200, 6
    inputs = torch.randn(count, 12, dtype=torch.float64) + 1
    targets = torch.randint(3, (count,))
    exact = gradient_statistics(module, [(inputs, targets)])
    gradients = PerSampleGradients(module, inputs, targets)
    taken, deviations, norms = [], [], []
    for seed in range(40):
        order = torch.randperm(count, generator=torch.Generator().manual_seed(seed))
        batches = list(zip(torch.split(inputs[order], size), torch.split(targets[order], size), strict=True))
        found = estimate_statistics(gradients, batches, tolerance=0.08)
        assert found.standard_error <= 0.08 * found.variance
        taken.append(found.count)
        deviations.append((found.variance - exact.variance) / found.standard_error)
        norms.append(found.mean_gradient_norm**2)
    assert size * 8 <= min(taken)
    assert max(taken) < count / 2
    assert np.mean(np.abs(deviations) < 2) > 0.8
    spread = np.std(norms, ddof=1) / np.sqrt(len(norms))
    assert abs(np.mean(norms) - exact.mean_gradient_norm**2) < 4 * spread
    whole = estimate_statistics(gradients, batches)
    assert whole.count == count
    assert whole.mean_gradient_norm == pytest.approx(exact.mean_gradient_norm)
    with pytest.raises(ValueError, match=r"`tolerance` \(=-1\) must not be negative"):
        estimate_statistics(gradients, batches, -1)


def test_a_surface_is_the_statistics_of_displaced_copies() -> None:
    network, batches = trained_network(get_genotype("darts_v2")), make_batches()
    before = weights_hash(network.state_dict())
    directions = random_directions(network, 3)
    alphas, betas = [-0.5, 0.0, 0.25], [0.0, 1.0]
    surface = gradient_variance_surface(network, batches, directions, alphas, betas)
    assert weights_hash(network.state_dict()) == before
    assert surface["variance"].dims == ("alpha", "beta")
    assert not {"standard_error"} & set(surface.data_vars)
    for alpha, beta in itertools.product(alphas, betas):
        moved = copy.deepcopy(network)
        with torch.no_grad():
            for name, parameter in moved.named_parameters():
                if name in directions[0]:
                    parameter.add_(alpha * directions[0][name] + beta * directions[1][name])
        slow = slow_statistics(moved, batches)
        point = surface.sel(alpha=alpha, beta=beta)
        assert float(point["variance"]) == pytest.approx(slow.variance, rel=1e-10)
        assert float(point["mean_gradient_norm"]) == pytest.approx(slow.mean_gradient_norm, rel=1e-10)


def test_a_surface_of_estimates_has_errors() -> None:
    network, batches = trained_network(get_genotype("darts_v2")), make_batches((2, 2, 2, 2, 2, 1))
    directions = random_directions(network, 3)
    surface = gradient_variance_surface(network, batches, directions, [0.0, 1.0], [0.0], method="minibatch")
    estimate = gradient_statistics(network, batches, method="minibatch")
    assert float(surface["variance"][0, 0]) == pytest.approx(estimate.variance, rel=1e-12)
    assert float(surface["standard_error"][0, 0]) == pytest.approx(estimate.standard_error, rel=1e-12)
    assert estimate.standard_error > 0


def test_the_definition_itself() -> None:
    """Two samples with gradients a and b: the variance is |a - b|^2 / 4."""
    network, batches = small_network(), make_batches((2,))
    first, second = every_gradient(network, batches)
    quarter = sum(float(((first[name] - second[name]) ** 2).sum()) for name in first) / 4
    assert gradient_statistics(network, batches).variance == pytest.approx(quarter, rel=1e-12)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_measures_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    network, batches = trained_network(get_genotype("darts_v2")), make_batches()
    expected = gradient_statistics(network, batches)
    directions = random_directions(network, 0)
    losses = loss_surface(network, batches, directions, [0.0, 0.5], [0.0])
    top = hessian_eigenvalues(network, batches, 1, trace_samples=0).eigenvalues[0]
    network.cuda()
    moved = [(inputs.cuda(), targets.cuda()) for inputs, targets in batches]
    for here, there in zip(random_directions(network, 0), directions, strict=True):
        assert all((tensor.cpu() == there[name]).all() for name, tensor in here.items())
    found = gradient_statistics(network, moved)
    assert found.variance == pytest.approx(expected.variance, rel=1e-8)
    assert found.mean_gradient_norm == pytest.approx(expected.mean_gradient_norm, rel=1e-8)
    assert_same(network.float(), [(x.float(), y) for x, y in moved], tolerance=1e-5)
    network.double()
    surface = loss_surface(network, moved, random_directions(network, 0), [0.0, 0.5], [0.0])
    assert surface["loss"].values == pytest.approx(losses["loss"].values, rel=1e-5)
    assert hessian_eigenvalues(network, moved, 1, trace_samples=0).eigenvalues[0] == pytest.approx(
        top, rel=1e-3
    )
