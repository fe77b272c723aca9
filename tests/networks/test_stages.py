"""Stages in one pass over memory against the same layers one by one."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.utils.prune
from torch import Tensor, nn

from nas_lightning.acceleration.cpu import library as module
from nas_lightning.acceleration.cpu.library import kernel_library
from nas_lightning.acceleration.cpu.stages import compute_stages, project
from nas_lightning.acceleration.folding import FoldedNetwork
from nas_lightning.acceleration.layers import Convolution, MaxPool
from nas_lightning.cells import Genotype
from nas_lightning.networks import Cell, CellNetwork, build_operation
from nas_lightning.networks.operations import ConvolutionStages, FactorizedReduction, pointwise_projection

CELL = [("sep_conv_3x3", 0), ("dil_conv_3x3", 1), ("skip_connect", 2), ("sep_conv_5x5", 1)]
GENOTYPE = Genotype(CELL, [2, 3], CELL, [2, 3])

needs_compiler = pytest.mark.skipif(
    kernel_library(torch.float32) is None, reason="needs a C compiler with OpenMP"
)


@pytest.fixture
def fresh_library() -> Iterator[None]:
    """The library is looked for anew, and again afterwards."""
    module._library.cache_clear()
    yield
    module._library.cache_clear()


def made(name: str, channels: int, stride: int, dtype: torch.dtype = torch.float64) -> ConvolutionStages:
    torch.manual_seed(0)
    operation = pointwise_projection(3 * channels, channels)
    if name != "projection":
        built = build_operation(name, channels, stride)
        assert isinstance(built, ConvolutionStages)
        operation = built
    for parameter in operation.parameters():
        parameter.data = torch.randn_like(parameter)
    return operation.to(dtype)


def images(
    channels: int, size: tuple[int, int], dtype: torch.dtype = torch.float64, batch: int = 5
) -> Tensor:
    torch.manual_seed(1)
    x = torch.randn(batch, channels, *size, dtype=torch.float64).to(dtype)
    return x.contiguous(memory_format=torch.channels_last).requires_grad_()


def assert_equal_in_one_pass(
    operation: ConvolutionStages, x: Tensor, wide: int = 0, rtol: float = 1e-10, atol: float = 1e-11
) -> None:
    """Outputs, gradients and statistics; the gradient that arrives is some channels of wider images."""
    in_one_pass = copy.deepcopy(operation)
    assert in_one_pass.can_take_one_pass(training=True)
    expected, actual = operation(x.relu()), in_one_pass.add_to(None, x)
    torch.testing.assert_close(actual, expected, rtol=rtol, atol=atol)
    torch.manual_seed(2)
    batch, channels, *size = expected.shape
    arriving = torch.randn(batch, channels + wide, *size, dtype=x.dtype)
    arriving = arriving.contiguous(memory_format=torch.channels_last)[:, wide:]
    for one, other in zip(
        torch.autograd.grad(actual, [x, *in_one_pass.parameters()], arriving),
        torch.autograd.grad(expected, [x, *operation.parameters()], arriving),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=rtol, atol=atol * max(1.0, float(other.abs().max())))
    for one, other in zip(in_one_pass.buffers(), operation.buffers(), strict=True):
        torch.testing.assert_close(one, other, rtol=rtol, atol=atol)


@needs_compiler
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(
    "name", ["sep_conv_3x3", "sep_conv_5x5", "sep_conv_7x7", "dil_conv_3x3", "dil_conv_5x5"]
)
def test_a_separable_convolution_in_one_pass_is_its_layers(name: str, stride: int) -> None:
    for channels, size in ((16, (8, 8)), (1, (6, 16)), (18, (9, 11)), (40, (16, 7))):
        assert_equal_in_one_pass(made(name, channels, stride), images(channels, size))


@needs_compiler
@pytest.mark.parametrize("channels", [1, 7, 16, 24])
def test_a_projection_in_one_pass_is_its_layers(channels: int) -> None:
    for size in ((8, 8), (5, 3), (32, 40)):
        assert_equal_in_one_pass(made("projection", channels, 1), images(3 * channels, size))


@needs_compiler
def test_an_arriving_gradient_may_be_some_channels_of_wider_images() -> None:
    assert_equal_in_one_pass(made("sep_conv_3x3", 16, 1), images(16, (8, 8)), wide=3)
    assert_equal_in_one_pass(made("projection", 16, 1), images(48, (8, 8)), wide=48)


@needs_compiler
def test_images_of_another_memory_format_are_taken() -> None:
    x = images(16, (8, 8)).detach().contiguous().requires_grad_()
    assert_equal_in_one_pass(made("sep_conv_3x3", 16, 1), x)


@needs_compiler
@pytest.mark.parametrize("name", ["sep_conv_3x3", "dil_conv_5x5", "projection"])
def test_one_pass_in_float32_differs_by_rounding(name: str) -> None:
    channels = 48 if name == "projection" else 16
    operation, x = made(name, 16, 1, torch.float32), images(channels, (16, 16), torch.float32)
    assert_equal_in_one_pass(operation, x, rtol=1e-4, atol=1e-5)


@needs_compiler
def test_a_far_mean_does_not_spoil_the_variance() -> None:
    operation = made("projection", 16, 1, torch.float32)
    x = (images(48, (16, 16), torch.float32).detach() + 1000).requires_grad_()
    double = copy.deepcopy(operation).double()
    operation.add_to(None, x)
    double(x.double().relu())
    variances = [list(one.buffers())[1].double() for one in (operation, double)]
    torch.testing.assert_close(*variances, rtol=1e-3, atol=0.0)


@needs_compiler
def test_factors_and_a_sum_are_taken_into_the_last_pass() -> None:
    operation, x = made("sep_conv_3x3", 18, 1), images(18, (9, 9))
    in_one_pass = copy.deepcopy(operation)
    total = images(18, (9, 9)).detach().flip(0).requires_grad_()
    factors = torch.tensor([0.0, 1.25, 1.25, 0.0, 2.0], dtype=torch.float64)
    expected = total + operation(x.relu()) * factors[:, None, None, None]
    actual = in_one_pass.add_to(total, x, factors)
    torch.testing.assert_close(actual, expected, rtol=1e-10, atol=1e-11)
    arriving = torch.randn_like(expected)
    gradients = (
        torch.autograd.grad(y, [x, total, *of.parameters()], arriving)
        for y, of in ((actual, in_one_pass), (expected, operation))
    )
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-10)


@needs_compiler
@pytest.mark.parametrize("name", ["sep_conv_3x3", "sep_conv_7x7", "dil_conv_5x5", "projection"])
@pytest.mark.parametrize("stride", [1, 2])
def test_an_evaluation_in_one_pass_is_that_of_the_layers(name: str, stride: int) -> None:
    for channels, size in ((16, (8, 8)), (1, (6, 16)), (18, (9, 11)), (40, (16, 7))):
        operation = made(name, channels, stride)
        x = images(3 * channels if name == "projection" else channels, size)
        operation(x.relu())  # statistics other than 0 and 1
        with torch.no_grad():
            expected = operation.eval()(x.relu())
            torch.testing.assert_close(operation.add_to(None, x), expected, rtol=1e-10, atol=1e-11)
            total = torch.randn_like(expected)
            torch.testing.assert_close(operation.add_to(total, x), total + expected, rtol=1e-10, atol=1e-11)


@needs_compiler
def test_gradients_that_do_not_exist_are_refused() -> None:
    operation, x = made("sep_conv_3x3", 4, 1), images(4, (8, 8))
    pool = MaxPool(3, 1, padding=1)
    for y in (operation.add_to(None, x), pool.in_one_pass(x)):
        (gradient,) = torch.autograd.grad(y.square().sum(), x, retain_graph=True)
        assert gradient.isfinite().all()
        with pytest.raises(RuntimeError, match="no second derivative"):
            torch.autograd.grad(y.square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="no gradient in evaluation mode"):
        operation.eval().add_to(None, x)


@needs_compiler
def test_shapes_that_do_not_fit_are_refused_before_anything_is_read() -> None:
    operation, x = made("sep_conv_3x3", 4, 1), images(4, (8, 8))
    for total, node, factors in (
        (None, images(5, (8, 8)), None),
        (torch.zeros(5, 4, 4, 4, dtype=x.dtype), x, None),
        (torch.zeros(5, 3, 8, 8, dtype=x.dtype), x, None),
        (None, x, torch.ones(4, dtype=x.dtype)),
    ):
        with pytest.raises(ValueError, match="not fit"):
            compute_stages((node,), operation.stages(), factors, total)
    projection = list(made("projection", 4, 1).stages())
    with pytest.raises(ValueError, match="differ in more than channels"):
        project([images(6, (8, 8)), images(6, (4, 4))], projection)


@needs_compiler
def test_the_number_of_threads_changes_no_bit() -> None:
    results = []
    threads = torch.get_num_threads()
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            operation, x = (
                made("sep_conv_3x3", 18, 1, torch.float32),
                images(18, (9, 9), torch.float32, batch=37),
            )
            output = operation.add_to(None, x)
            gradients = torch.autograd.grad(output.square().sum(), [x, *operation.parameters()])
            results.append([output, *gradients, *operation.buffers()])
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))


@needs_compiler
def test_what_is_not_a_number_stays_so() -> None:
    operation, x = made("sep_conv_3x3", 16, 1), images(16, (8, 8)).detach()
    x[0, 0, 0, 0] = float("nan")
    assert operation.add_to(None, x).isnan().any()


@needs_compiler
@pytest.mark.parametrize(("size", "stride"), [(3, 1), (3, 2), (5, 2), (2, 2)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_max_pooling_in_one_pass_is_torch_s(size: int, stride: int, dtype: torch.dtype) -> None:
    layer = MaxPool(size, stride, padding=size // 2)
    for channels, sides in ((16, (8, 8)), (1, (6, 16)), (18, (9, 11)), (40, (16, 7)), (4, (1, 1))):
        x = images(channels, sides, dtype).detach().round(decimals=0)  # some are equal
        x[0, 0, 0, 0] = x[1, 0, -1, -1] = float("nan")
        x.requires_grad_()
        expected, actual = layer.train()(x), layer.in_one_pass(x)
        assert torch.equal(actual.isnan(), expected.isnan())
        assert torch.equal(actual.nan_to_num(), expected.nan_to_num())
        arriving = torch.randn_like(expected)
        gradients = (torch.autograd.grad(y, x, arriving)[0] for y in (expected, actual))
        torch.testing.assert_close(*gradients, rtol=1e-6, atol=1e-6)
        with torch.no_grad():
            assert torch.equal(layer.in_one_pass(x).nan_to_num(), expected.nan_to_num())


@needs_compiler
@pytest.mark.parametrize(("dtype", "size"), [(torch.float64, 17), (torch.bfloat16, 3)])
def test_max_pooling_of_other_numbers_or_wide_windows_is_left_to_torch(dtype: torch.dtype, size: int) -> None:
    x, layer = images(4, (20, 20), dtype), MaxPool(size, 1, padding=size // 2)
    expected, actual = layer(x), layer.in_one_pass(x)
    assert torch.equal(actual, expected)
    gradients = (torch.autograd.grad(y.square().sum(), x)[0] for y in (expected, actual))
    assert torch.equal(*gradients)
    with pytest.raises(RuntimeError, match="pad should be"):
        MaxPool(3, 1, padding=3).in_one_pass(x)


@needs_compiler
@pytest.mark.parametrize("in_one_pass", [False, True])
@pytest.mark.parametrize("name", ["max_pool_3x3", "avg_pool_3x3"])
def test_equal_poolings_of_a_node_are_computed_once(
    name: str, in_one_pass: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    edges = [(name, 0), (name, 1), (name, 0), ("sep_conv_3x3", 2)]
    network = CellNetwork(Genotype(edges, [2, 3], edges, [2, 3]), 10, init_channels=4, num_cells=3).eval()
    network.take_one_pass("evaluation" if in_one_pass else None)
    cell = network.cells[0]
    assert isinstance(cell, Cell)
    assert network._is_in_one_pass(training=False) == in_one_pass
    x = torch.randn(2, 3, 16, 16)
    expected = evaluated(network, x)
    pools = [cell.edges[0], cell.edges[2]]
    calls: list[nn.Module] = []
    kind = type(pools[0])
    for method in ("forward", "in_one_pass") if kind is MaxPool else ("forward",):
        original = getattr(kind, method)

        def counted(pool: nn.Module, x: Tensor, original: Any = original) -> Any:
            calls.extend(own for own in pools if own is pool)
            return original(pool, x)

        monkeypatch.setattr(kind, method, counted)
    assert torch.equal(evaluated(network, x), expected)
    assert calls == [pools[0]]
    pools[1].register_forward_hook(twice)
    assert not torch.allclose(evaluated(network, x), expected)  # one with hooks is computed for itself
    assert calls == [pools[0], pools[0], pools[1]]


@torch.no_grad()
def evaluated(network: nn.Module, x: Tensor) -> Tensor:
    output: Tensor = network.eval()(x)
    return output


def twice(layer: nn.Module, inputs: Any, output: Tensor) -> Tensor:
    return 2 * output


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("other", [nn.AvgPool2d(3, 1, padding=1), "hook"])
def test_poolings_that_differ_are_computed_for_themselves(
    other: nn.Module | str, compiled: bool, fresh_compiler: None
) -> None:
    edges = [("avg_pool_3x3", 0), ("avg_pool_3x3", 0), ("sep_conv_3x3", 2), ("skip_connect", 1)]
    cell = CellNetwork(Genotype(edges, [2, 3], edges, [2, 3]), 10, init_channels=4, num_cells=3).cells[0]
    assert isinstance(cell, Cell)
    if isinstance(other, nn.Module):
        cell.edges[1] = other
    else:
        cell.edges[1].register_forward_hook(twice)
    if compiled:
        cell.compile(backend="eager")
    x = torch.randn(2, 12, 8, 8).relu()
    node = cell.preprocess[0](x)
    output = cell(x, x)[:, : node.shape[1]]
    torch.testing.assert_close(output, cell.edges[0](node) + cell.edges[1](node))


@needs_compiler
@pytest.mark.parametrize("training", [True, False])
def test_projections_of_the_same_nodes_are_the_layers(training: bool) -> None:
    """Of several nodes, for several readers of other widths; with norms of another eps each by itself."""
    nodes = [images(18, (9, 11)).detach().roll(shift).requires_grad_() for shift in range(3)]
    for channels, eps in (((16,), 1e-5), ((4, 32), 1e-5), ((18, 18, 5), 1e-5), ((4, 4), 1e-2)):
        layers = [pointwise_projection(54, width).double() for width in channels]
        layers[0].norm.eps = eps  # type: ignore[union-attr]
        together = copy.deepcopy(layers)
        for one in (*layers, *together):
            one.train(training)
        x = torch.cat(nodes, dim=1).relu()
        with torch.set_grad_enabled(training):
            expected = [layer(x) for layer in layers]
            actual = project(nodes, [stage for layer in together for stage in layer.stages()])
        results = [[*expected], [*actual]]
        for of, ys, result in zip((layers, together), (expected, actual), results, strict=True):
            if training:
                parameters = [p for layer in of for p in layer.parameters()]
                loss = torch.stack([(y * torch.ones_like(y).cumsum(2)).square().sum() for y in ys]).sum()
                result += torch.autograd.grad(loss, [*nodes, *parameters])
            result += [buffer for layer in of for buffer in layer.buffers()]
        for one, other in zip(*results, strict=True):
            torch.testing.assert_close(other, one, rtol=1e-9, atol=1e-9 * max(1.0, float(one.abs().max())))


@needs_compiler
@pytest.mark.parametrize(("auxiliary", "compiled"), [(False, False), (True, False), (True, True)])
def test_a_network_in_one_pass_is_the_network(
    auxiliary: bool, compiled: bool, monkeypatch: pytest.MonkeyPatch, fresh_compiler: None
) -> None:
    taken: list[CellNetwork] = []
    if not compiled:
        compute = CellNetwork._compute_in_one_pass

        def noted(network: CellNetwork, *arguments: Any) -> Any:
            taken.append(network)
            return compute(network, *arguments)

        monkeypatch.setattr(CellNetwork, "_compute_in_one_pass", noted)
    torch.manual_seed(0)
    network = CellNetwork(GENOTYPE, 10, init_channels=4, num_cells=3, auxiliary=auxiliary, drop_path=True)
    network.double().drop_path_probability = 0.3
    in_one_pass = copy.deepcopy(network)
    assert in_one_pass.take_one_pass()
    if compiled:
        in_one_pass.compile_regions(backend="aot_eager")
    x = torch.randn(6, 3, 32, 32, dtype=torch.float64).contiguous(memory_format=torch.channels_last)
    results = []
    for one in (network, in_one_pass):
        torch.manual_seed(3)
        output = one(x)
        loss = sum(part.square().sum() for part in (output if auxiliary else (output,)))
        parameters = [p for p in one.parameters() if p.requires_grad]
        assert isinstance(loss, Tensor)
        results.append([loss, *torch.autograd.grad(loss, parameters), *one.buffers()])
    for expected, actual in zip(*results, strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-8, atol=1e-9)
    assert torch.allclose(evaluated(in_one_pass, x), evaluated(network, x), rtol=1e-8)
    if compiled:
        return
    assert in_one_pass.take_one_pass("evaluation")
    assert torch.allclose(evaluated(in_one_pass, x), evaluated(network, x), rtol=1e-8)
    assert [one is in_one_pass for one in taken] == [True, True]  # in training and in evaluation


def frozen_cell(network: CellNetwork) -> None:
    network.cells[1].eval()


def frozen_norms(network: CellNetwork) -> None:
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.eval()


def untracked_norms(network: CellNetwork) -> None:
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.track_running_stats = False


def doubling_hooks(network: CellNetwork) -> None:
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d | FactorizedReduction):
            part.register_forward_hook(lambda layer, inputs, output: 2 * output)


def doubled_operations(network: CellNetwork) -> None:
    for part in network.modules():
        if isinstance(part, ConvolutionStages):
            part.register_forward_hook(lambda layer, inputs, output: 2 * output)


def pruned_weights(network: CellNetwork) -> None:
    for part in network.modules():
        if isinstance(part, nn.Conv2d):
            torch.nn.utils.prune.l1_unstructured(part, "weight", 0.3)  # type: ignore[no-untyped-call]


def of_operations(network: CellNetwork) -> Iterator[ConvolutionStages]:
    yield from (part for part in network.modules() if isinstance(part, ConvolutionStages))


def hooks_of_relus(network: CellNetwork) -> None:
    for operation in of_operations(network):
        if hasattr(operation, "relu"):
            operation.relu.register_forward_hook(twice)  # type: ignore[union-attr]


def other_activations(network: CellNetwork) -> None:
    for operation in of_operations(network):
        if hasattr(operation, "relu"):
            operation.relu = nn.GELU()


def layers_of_one_s_own(network: CellNetwork) -> None:
    class Standardised(Convolution):
        def forward(self, input: Tensor) -> Tensor:
            return self._conv_forward(input, self.weight - self.weight.mean(), None)

    for operation in of_operations(network):
        for layer in operation.children():
            if isinstance(layer, Convolution):
                layer.__class__ = Standardised


def another_layer(network: CellNetwork) -> None:
    for operation in of_operations(network):
        operation.add_module("scale", nn.Softplus())


def methods_replaced(network: CellNetwork) -> None:
    for operation in of_operations(network):
        operation.forward = nn.Softplus()  # type: ignore[method-assign]


def operations_of_one_s_own(network: CellNetwork) -> None:
    class Doubled(ConvolutionStages):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)  # type: ignore[no-any-return, no-untyped-call]

    for operation in of_operations(network):
        operation.__class__ = Doubled


def cells_of_one_s_own(network: CellNetwork) -> None:
    class Doubled(Cell):
        def forward(self, *inputs: Any, **options: Any) -> Any:
            return 2 * super().forward(*inputs, **options)

    for cell in network.cells:
        cell.__class__ = Doubled


def hooked_cells(network: CellNetwork) -> None:
    for cell in network.cells:
        cell.register_forward_hook(twice)


def another_projection(network: CellNetwork) -> None:
    cell = network.cells[1]
    assert isinstance(cell, Cell)
    cell.preprocess[1] = nn.Sequential(cell.preprocess[1], nn.Softplus())


def transposed_weights(network: CellNetwork) -> None:
    for part in network.modules():
        if isinstance(part, nn.Conv2d) and part.kernel_size == (1, 1):
            part.weight.data = part.weight.data.transpose(0, 1).contiguous().transpose(0, 1)


@needs_compiler
@pytest.mark.parametrize(
    "change",
    [
        frozen_cell,
        frozen_norms,
        untracked_norms,
        doubling_hooks,
        doubled_operations,
        pruned_weights,
        transposed_weights,
        hooks_of_relus,
        other_activations,
        layers_of_one_s_own,
        another_layer,
        methods_replaced,
        operations_of_one_s_own,
        cells_of_one_s_own,
        hooked_cells,
        another_projection,
    ],
)
@pytest.mark.parametrize("mode", ["training", "evaluation"])
def test_what_cannot_be_computed_in_one_pass_is_computed_by_layers(
    change: Callable[[CellNetwork], None], mode: Any
) -> None:
    torch.manual_seed(0)
    network = CellNetwork(GENOTYPE, 10, init_channels=4, num_cells=3).double()
    network.train(mode == "training")
    in_one_pass = copy.deepcopy(network)
    assert in_one_pass.take_one_pass(mode)
    x = torch.randn(3, 3, 16, 16, dtype=torch.float64)
    for one in (network, in_one_pass):
        change(one)
        for _ in range(2):
            if mode == "training":
                one(x).square().sum().backward()
    with torch.set_grad_enabled(mode == "training"):
        torch.testing.assert_close(in_one_pass(x), network(x), rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(list(in_one_pass.buffers()), list(network.buffers()), rtol=1e-9, atol=1e-10)


@needs_compiler
def test_layers_altered_before_compiling_are_compiled_as_they_are(fresh_compiler: None) -> None:
    network = CellNetwork(GENOTYPE, 10, init_channels=4, num_cells=2).double()
    hooks_of_relus(network)
    compiled = copy.deepcopy(network)
    compiled.take_one_pass()
    compiled.compile_regions(backend="eager")
    x = torch.randn(3, 3, 16, 16, dtype=torch.float64)
    torch.testing.assert_close(compiled(x), network(x), rtol=1e-9, atol=1e-10)


@needs_compiler
def test_hooks_of_all_layers_see_all_layers() -> None:
    network = CellNetwork(GENOTYPE, 10, init_channels=4, num_cells=3)
    assert network.take_one_pass()
    called: list[nn.Module] = []

    def note(layer: nn.Module, inputs: Any, output: Any) -> None:
        called.append(layer)

    handle = nn.modules.module.register_module_forward_hook(note)
    try:
        network(torch.zeros(2, 3, 16, 16))
    finally:
        handle.remove()
    cell = network.cells[1]
    assert isinstance(cell, Cell)
    assert set(cell.edges[0].children()) <= set(called)


@needs_compiler
def test_gradients_in_evaluation_are_those_of_the_layers() -> None:
    network = CellNetwork(GENOTYPE, 10, init_channels=4, num_cells=3).eval()
    in_one_pass = copy.deepcopy(network)
    assert in_one_pass.take_one_pass("evaluation")
    results = []
    for one in (network, in_one_pass):
        x = torch.ones(2, 3, 16, 16, requires_grad=True)
        loss = one(x).square().sum()
        results.append(torch.autograd.grad(loss, [x, *one.evaluated_parameters().values()]))
    torch.testing.assert_close(*results)


@needs_compiler
def test_poolings_alone_in_evaluation_keep_their_gradients() -> None:
    cell = [("max_pool_3x3", 0), ("max_pool_3x3", 1), ("sep_conv_3x3", 2), ("skip_connect", 0)]
    network = CellNetwork(Genotype(cell, [2, 3], cell, [2, 3]), 10, init_channels=4, num_cells=3).double()
    in_one_pass = copy.deepcopy(network)
    assert in_one_pass.take_one_pass()
    x = torch.randn(3, 3, 16, 16, dtype=torch.float64)
    gradients = []
    for one in (network, in_one_pass):
        for part in one.modules():
            if isinstance(part, MaxPool):
                part.eval()
        gradients.append(torch.autograd.grad(one(x).square().sum(), [*one.stem.parameters()]))
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-9)


@needs_compiler
def test_an_operation_of_another_resolution_is_refused_as_by_the_layers() -> None:
    network = CellNetwork(GENOTYPE, 10, init_channels=4, num_cells=3)
    cell = network.cells[0]
    assert isinstance(cell, Cell)
    cell.edges[0], cell.edges[1] = nn.AdaptiveAvgPool2d(4), build_operation("sep_conv_3x3", 4, 1)
    assert network.take_one_pass()
    with pytest.raises(ValueError, match="addend of shape"):
        network(torch.zeros(2, 3, 16, 16))


@needs_compiler
def test_synchronised_norms_are_left_to_the_layers() -> None:
    network = CellNetwork(GENOTYPE, 10, init_channels=4, num_cells=3)
    network(torch.randn(6, 3, 16, 16))
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(network))  # type: ignore[no-untyped-call]
    assert isinstance(converted, CellNetwork)
    assert converted.take_one_pass() == ()
    x = torch.randn(4, 3, 16, 16)
    torch.testing.assert_close(FoldedNetwork(converted)(x), network.eval()(x), rtol=1e-4, atol=1e-5)


@needs_compiler
def test_a_built_in_operation_inside_a_user_s_own_stays_as_it_is() -> None:
    torch.manual_seed(0)
    network = CellNetwork(GENOTYPE, 10, init_channels=4, num_cells=3).double()
    own = nn.Sequential(nn.GELU(), build_operation("sep_conv_3x3", 4, 1)).double()
    cell = network.cells[0]
    assert isinstance(cell, Cell)
    cell.edges[0] = own
    in_one_pass = copy.deepcopy(network)
    assert in_one_pass.take_one_pass()
    x = torch.randn(3, 3, 16, 16, dtype=torch.float64)
    torch.testing.assert_close(in_one_pass(x), network(x), rtol=1e-9, atol=1e-10)


@needs_compiler
def test_a_network_that_is_cast_goes_back_to_layers() -> None:
    network = CellNetwork(GENOTYPE, 10, init_channels=4, num_cells=3)
    assert network.take_one_pass()
    assert network.double()(torch.zeros(2, 3, 32, 32, dtype=torch.float64)).isfinite().all()
    network.to(torch.bfloat16)
    assert network(torch.zeros(2, 3, 32, 32, dtype=torch.bfloat16)).isfinite().all()


@needs_compiler
def test_a_batch_without_images_is_left_to_the_layers() -> None:
    network = CellNetwork(GENOTYPE, 10, init_channels=4, num_cells=3)
    assert network.take_one_pass()
    network(torch.zeros(0, 3, 16, 16)).sum().backward()
    assert all(torch.isfinite(buffer).all() for buffer in network.buffers())


@needs_compiler
def test_one_value_a_channel_is_refused_as_by_torch() -> None:
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        made("projection", 4, 1).add_to(None, images(12, (1, 1), batch=1))


def test_without_a_compiler_layers_are_computed_one_by_one(
    monkeypatch: pytest.MonkeyPatch, fresh_library: None, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    network = CellNetwork(GENOTYPE, 10, init_channels=4, num_cells=3)
    with pytest.warns(UserWarning, match="no C compiler"):
        assert network.take_one_pass() == ()
    assert network(torch.zeros(2, 3, 32, 32)).isfinite().all()


def broken_compiler(folder: Path) -> str:
    path = folder / "broken"
    path.write_text("#!/bin/sh\necho this is no compiler >&2\nexit 1\n")
    path.chmod(0o755)
    return str(path)


def test_compilers_that_fail_are_none_and_are_told(
    monkeypatch: pytest.MonkeyPatch, fresh_library: None, tmp_path: Path
) -> None:
    monkeypatch.setenv("CC", broken_compiler(tmp_path))
    monkeypatch.setenv("PATH", "/bin-that-is-not")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.warns(UserWarning, match="layer by layer.*this is no compiler"):
        assert kernel_library(torch.float32) is None
    assert not list((tmp_path / "cache").rglob("*.so"))


@needs_compiler
def test_after_a_compiler_that_fails_the_next_is_tried(
    monkeypatch: pytest.MonkeyPatch, fresh_library: None, tmp_path: Path
) -> None:
    for compiler in (broken_compiler(tmp_path), "'gcc", " "):
        module._library.cache_clear()
        monkeypatch.setenv("CC", compiler)
        assert kernel_library(torch.float32) is not None


@needs_compiler
def test_a_user_without_a_home_compiles_for_the_process(
    monkeypatch: pytest.MonkeyPatch, fresh_library: None
) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    assert kernel_library(torch.float32) is not None


@needs_compiler
def test_what_was_compiled_is_found_again(
    monkeypatch: pytest.MonkeyPatch, fresh_library: None, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert kernel_library(torch.float32) is not None
    (library,) = (tmp_path / "nas_lightning").iterdir()
    written = library.stat().st_mtime_ns
    module._library.cache_clear()
    assert kernel_library(torch.float32) is not None
    assert library.stat().st_mtime_ns == written
    content = library.read_bytes()
    code = "import torch; from nas_lightning.acceleration.cpu.library import kernel_library"
    for damaged in (b"no library", content[:20_000]):
        library.unlink()  # the loaded one stays as it is
        library.write_bytes(damaged)
        subprocess.run([sys.executable, "-c", f"{code}; assert kernel_library(torch.float32)"], check=True)
        assert library.stat().st_size == len(content)


@needs_compiler
@pytest.mark.parametrize("place", ["/dev/full/cache", "file/cache"])
def test_a_place_that_cannot_be_written_costs_only_the_next_compilation(
    place: str, monkeypatch: pytest.MonkeyPatch, fresh_library: None, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", os.fspath(tmp_path / place))
    assert kernel_library(torch.float32) is not None


@needs_compiler
def test_other_numbers_are_left_to_the_layers() -> None:
    operation = made("sep_conv_3x3", 4, 1)
    assert operation.can_take_one_pass(training=True)
    for other in (torch.bfloat16, "meta"):
        assert not copy.deepcopy(operation).to(other).can_take_one_pass(training=True)
    operation.norm_1.float()
    assert not operation.can_take_one_pass(training=True)
