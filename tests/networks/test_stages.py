"""Stages in one pass over memory against the same layers one by one."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.utils.prune
from torch import Tensor, nn

from nas_lightning.acceleration.cpu import library as module
from nas_lightning.acceleration.cpu.library import kernel_library
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


def test_without_a_compiler_layers_are_computed_one_by_one(
    monkeypatch: pytest.MonkeyPatch, fresh_library: None, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    network = CellNetwork(GENOTYPE, 10, init_channels=4, num_cells=3)
    with pytest.warns(UserWarning, match="no C compiler"):
        assert network.take_one_pass() == ()
    assert network(torch.zeros(2, 3, 32, 32)).isfinite().all()


@needs_compiler
def test_other_numbers_are_left_to_the_layers() -> None:
    operation = made("sep_conv_3x3", 4, 1)
    assert operation.can_take_one_pass(training=True)
    for other in (torch.bfloat16, "meta"):
        assert not copy.deepcopy(operation).to(other).can_take_one_pass(training=True)
    operation.norm_1.float()
    assert not operation.can_take_one_pass(training=True)
