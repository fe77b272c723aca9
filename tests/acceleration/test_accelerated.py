from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import prune

from nas_lightning.acceleration import Accelerated, accelerate
from nas_lightning.acceleration.fused_network import FusedNetwork
from nas_lightning.analysis import loss_surface, random_directions
from nas_lightning.cells import Genotype, get_genotype
from nas_lightning.networks import CellNetwork, build_operation
from nas_lightning.networks.cell import Cell
from nas_lightning.networks.operations import DilatedConvolution, FactorizedReduction, SeparableConvolution
from tests.acceleration.cases import (
    KERNELS,
    SMALL,
    TINY,
    batch,
    needs_compiler,
    networks,
    trained_losses,
    without_kernels,
)
from tests.networks.cases import NOISY, all_cases


@pytest.fixture(params=KERNELS)
def kernels(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """With and without the kernels in C."""
    if not request.param:
        without_kernels(monkeypatch)
    return bool(request.param)


def evaluated(compute: Callable[[Tensor], Any], x: Tensor) -> Tensor:
    with torch.no_grad():
        return compute(x)  # type: ignore[no-any-return]


def assert_equal_training(network: CellNetwork, accelerated: Accelerated, x: Tensor) -> None:
    """Same outputs, gradients and running statistics of a training step."""
    state = copy.deepcopy(network.state_dict())
    found = []
    for compute in (network, accelerated):
        network.load_state_dict(state)
        network.zero_grad()
        torch.manual_seed(3)
        output = compute(x)
        logits = output if isinstance(output, tuple) else (output,)
        torch.stack([(own * own).sum() for own in logits]).sum().backward()  # type: ignore[no-untyped-call]
        gradients = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
        found.append((output, gradients, copy.deepcopy(network.state_dict())))
    (one, gradients, state), (other, other_gradients, other_state) = found
    torch.testing.assert_close(other, one, rtol=1e-9, atol=1e-10)
    assert gradients.keys() == other_gradients.keys()
    for name, gradient in gradients.items():
        scale = 1 + float(gradient.abs().max())
        torch.testing.assert_close(other_gradients[name], gradient, rtol=1e-7, atol=1e-9 * scale, msg=name)
    torch.testing.assert_close(other_state, state, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("name", all_cases())
def test_it_computes_what_the_network_does(name: str, kernels: bool) -> None:
    network = networks(all_cases()[name], num_cells=6, init_channels=2, auxiliary=True)[1]
    network.drop_path_probability = 0.3
    accelerated = accelerate(network, "fast")
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(3, 3, 32, 32, generator=generator, dtype=torch.float64)
    assert_equal_training(network, accelerated, x)
    network.eval()
    torch.testing.assert_close(evaluated(accelerated, x), evaluated(network, x), rtol=1e-9, atol=1e-11)
    forms = [form.module for form in accelerated._forms.values()]
    assert len(forms) == 2
    for module in forms:
        assert isinstance(module, FusedNetwork)
        assert bool(module.kernels) == kernels


def test_it_draws_the_noise_that_the_network_draws(kernels: bool) -> None:
    network = networks(NOISY, num_cells=6, init_channels=2, auxiliary=True)[1]
    network.drop_path_probability = 0.3
    accelerated = accelerate(network, "fast")
    x = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    assert_equal_training(network, accelerated, x)
    network.eval()
    torch.testing.assert_close(evaluated(accelerated, x), evaluated(network, x), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", ["darts_v2", "input 1 free"])
def test_it_computes_what_the_network_for_imagenet_does(name: str, kernels: bool) -> None:
    torch.manual_seed(0)
    network = CellNetwork(all_cases()[name], 5, 2, 3, auxiliary=True, stem="imagenet").double()
    accelerated = accelerate(network, "fast")
    x = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    assert_equal_training(network, accelerated, x)
    network.eval()
    torch.testing.assert_close(evaluated(accelerated, x), evaluated(network, x), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", ["darts_v2", "small"])
def test_training_is_the_oracle_s_step_by_step(name: str, kernels: bool) -> None:
    oracle, network = networks(SMALL if name == "small" else get_genotype(name))
    expected = trained_losses(oracle, oracle, 6)
    accelerated = accelerate(network, "fast")
    assert trained_losses(accelerated, network, 6, fused=True) == pytest.approx(expected, rel=1e-10)
    assert expected[-1] < expected[0]


def test_the_reference_is_the_plain_network() -> None:
    oracle, network = networks(SMALL)
    expected = trained_losses(oracle, oracle, 6)
    accelerated = accelerate(network, "reference")
    assert trained_losses(accelerated, network, 6) == pytest.approx(expected, rel=1e-10)
    assert accelerated._forms == {}


def test_float32_differs_by_rounding(kernels: bool) -> None:
    oracle, network = networks(SMALL, torch.float32)
    expected = trained_losses(oracle, oracle, 3, torch.float32)
    accelerated = accelerate(network, "fast")
    assert trained_losses(accelerated, network, 3, torch.float32) == pytest.approx(expected, rel=1e-4)


def compile_quickly(module: nn.Module, **options: Any) -> None:
    """Traced and differentiated as for compiling, but run by PyTorch's own kernels."""
    torch._dynamo.config.recompile_limit = 64
    for part in module.cells if len(module.cells) > WHOLE else (module,):  # type: ignore[arg-type, union-attr]
        part.compile(dynamic=False, backend="aot_eager")


WHOLE = 10


@pytest.mark.slow
@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize("whole", [10, 2])
def test_compiled_training_is_the_oracle_s_step_by_step(
    whole: int, kernels: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.acceleration.test_accelerated.WHOLE", whole)
    monkeypatch.setattr("nas_lightning.acceleration.accelerated.compile_module", compile_quickly)
    oracle, network = networks(SMALL)
    expected = trained_losses(oracle, oracle, 6)
    accelerated = accelerate(network, "compiled")
    assert trained_losses(accelerated, network, 6) == pytest.approx(expected, rel=1e-10)
    assert network._compiled_call_impl is None  # the network itself stays plain
    plain = networks(SMALL)[1]
    trained_losses(plain, plain, 6)
    torch.testing.assert_close(
        dict(network.named_buffers()), dict(plain.named_buffers()), rtol=1e-9, atol=1e-12
    )


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize(
    ("level", "dtype", "tolerance"),
    [
        ("fast", torch.float64, 1e-8),
        ("compiled", torch.float64, 1e-8),
        ("max", torch.float32, 3e-2),  # bfloat16; from the third step on CUDA graphs are replayed
    ],
)
def test_training_on_a_gpu_is_the_oracle_s_step_by_step(
    level: str, dtype: torch.dtype, tolerance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    oracle, network = networks(TINY, dtype)
    expected = trained_losses(oracle, oracle, 6, dtype)
    network.cuda()
    accelerated = accelerate(network, level, cuda_graphs=True)
    found = trained_losses(accelerated, network, 6, dtype, fused=True)
    assert found == pytest.approx(expected, rel=tolerance)
    assert expected[-1] < expected[0]
    images = batch(dtype)[0].cuda()
    network.eval()
    there = evaluated(accelerated, images).cpu()
    torch.testing.assert_close(there, evaluated(network.cpu(), images.cpu()), rtol=tolerance, atol=tolerance)


@pytest.mark.slow
@pytest.mark.usefixtures("fresh_compiler")
def test_surfaces_are_the_same_at_every_level(monkeypatch: pytest.MonkeyPatch) -> None:
    network = networks(TINY, torch.float32)[1]
    data = [batch(torch.float32, 32), batch(torch.float32, 9)]
    network(data[0][0])

    def surface(level: str) -> Any:
        arguments = (network, data, random_directions(network, 0), [-0.5, 0.0, 0.5], [0.0, 0.5])
        return loss_surface(*arguments, forward=accelerate(network, level))["loss"]

    reference, compiled = surface("reference"), surface("compiled")
    assert float(abs(compiled / reference - 1).max()) < 1e-4
    monkeypatch.setattr("nas_lightning.acceleration.accelerated.compile_module", compile_quickly)
    assert 1e-6 < float(abs(surface("max") / reference - 1).max()) < 2e-2


@pytest.mark.parametrize("mode", ["frozen", "reestimated"])
def test_fast_surfaces_differ_by_less_than_a_ten_thousandth(mode: Any, kernels: bool) -> None:
    network = networks(get_genotype("darts_v2"), torch.float32)[1]
    data = [batch(torch.float32, 40), batch(torch.float32, 9)]
    network(data[0][0])
    arguments = (network, data, random_directions(network, 0), [-0.5, 0.0, 0.5], [-0.5, 0.0, 0.5], mode)
    weights = copy.deepcopy(network.state_dict())
    reference = loss_surface(*arguments)["loss"]
    fast = loss_surface(*arguments, forward=accelerate(network, "fast"))["loss"]
    assert 0 < float(abs(fast / reference - 1).max()) < 1e-4
    assert all(torch.equal(weights[name], values) for name, values in network.state_dict().items())


@pytest.mark.slow
@pytest.mark.parametrize("fused", [False, True])
def test_changing_drop_path_recompiles_nothing(fused: bool) -> None:
    # In a process of its own: beartype's wrappers, which tests install, are not for the compiler.
    script = """
import torch
torch.set_num_threads(1)
torch._dynamo.config.error_on_recompile = True
from nas_lightning.cells import get_genotype
from nas_lightning.acceleration.fused_network import FusedNetwork
from nas_lightning.acceleration.copies import sharing_copy
from nas_lightning.networks import CellNetwork
torch.manual_seed(0)
network = CellNetwork(get_genotype("snas_aggressive"), 5, 2, 4, auxiliary=True, drop_path=True)
fused = FusedNetwork(sharing_copy(network), True) if FUSED else network
compiled = torch.compile(fused, fullgraph=True, backend="aot_eager")
images = torch.randn(4, 3, 32, 32)
for probability in (0.0, 0.3, 0.6):
    network.drop_path_probability = probability
    torch.manual_seed(1)
    logits, auxiliary_logits = compiled(images)
    (logits.sum() + auxiliary_logits.sum()).backward()
    torch.manual_seed(1)
    expected, _ = network(images)
    torch.testing.assert_close(logits, expected)
    print(f"{probability} {logits.std().item():.6f}")
"""
    done = subprocess.run(
        [sys.executable, "-c", f"FUSED = {fused}\n{script}"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert len({line.split()[1] for line in done.stdout.splitlines()}) == 3


# What keeps a network, or a part of it, from being fused: the result stays that of the network.


def operations(network: CellNetwork) -> Iterator[SeparableConvolution | DilatedConvolution]:
    for part in network.modules():
        if isinstance(part, SeparableConvolution | DilatedConvolution):
            yield part


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


def twice(layer: nn.Module, inputs: Any, output: Tensor) -> Tensor:
    return 2 * output


def doubling_hooks(network: CellNetwork) -> None:
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d | FactorizedReduction):
            part.register_forward_hook(twice)


def doubled_operations(network: CellNetwork) -> None:
    for operation in operations(network):
        operation.register_forward_hook(twice)


def hooks_of_relus(network: CellNetwork) -> None:
    for operation in operations(network):
        next(operation.children()).register_forward_hook(twice)


def hooked_cells(network: CellNetwork) -> None:
    for cell in network.cells:
        cell.register_forward_hook(twice)


def pruned_weights(network: CellNetwork) -> None:
    for part in network.modules():
        if isinstance(part, nn.Conv2d):
            prune.l1_unstructured(part, "weight", 0.3)  # type: ignore[no-untyped-call]


def methods_replaced(network: CellNetwork) -> None:
    for operation in operations(network):
        plain = operation.forward
        operation.forward = lambda x, plain=plain: 2 * plain(x)  # type: ignore[method-assign, misc]


def other_activations(network: CellNetwork) -> None:
    for operation in operations(network):
        for name, _ in list(operation.named_children()):
            if name.startswith("relu"):
                setattr(operation, name, nn.GELU())


def another_layer(network: CellNetwork) -> None:
    for operation in operations(network):
        operation.add_module("scale", nn.Softplus())


def own_layers(network: CellNetwork) -> None:
    class Standardised(nn.Conv2d):
        def forward(self, input: Tensor) -> Tensor:
            centred: Tensor = self._conv_forward(input, self.weight - self.weight.mean(), None)
            return centred

    for operation in operations(network):
        for layer in operation.children():
            if isinstance(layer, nn.Conv2d):
                layer.__class__ = Standardised


def own_operations(network: CellNetwork) -> None:
    class Doubled(SeparableConvolution):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)  # type: ignore[no-any-return, no-untyped-call]

    for operation in operations(network):
        operation.__class__ = Doubled


def own_cells(network: CellNetwork) -> None:
    class Doubled(Cell):
        def forward(self, *inputs: Any, **options: Any) -> Any:
            return 2 * super().forward(*inputs, **options)

    for cell in network.cells:
        cell.__class__ = Doubled


def own_reductions(network: CellNetwork) -> None:
    for part in network.modules():
        if isinstance(part, FactorizedReduction):
            part.relu = nn.GELU()  # type: ignore[assignment]


def another_projection(network: CellNetwork) -> None:
    cell = network.cells[1]
    assert isinstance(cell, Cell)
    cell.preprocess[1] = nn.Sequential(cell.preprocess[1], nn.Softplus())


def another_pooling(network: CellNetwork) -> None:
    cell = network.cells[0]
    assert isinstance(cell, Cell)
    cell.edges[0], cell.edges[3] = nn.AvgPool2d(3, 1, padding=1), nn.MaxPool2d((3, 5), 1, padding=(1, 2))


def inside_another_operation(network: CellNetwork) -> None:
    cell = network.cells[0]
    assert isinstance(cell, Cell)
    cell.edges[0] = nn.Sequential(nn.GELU(), build_operation("sep_conv_3x3", 4, 1)).double()


def transposed_weights(network: CellNetwork) -> None:
    for part in network.modules():
        if isinstance(part, nn.Conv2d) and part.kernel_size == (1, 1):
            part.weight.data = part.weight.data.transpose(0, 1).contiguous().transpose(0, 1)


CHANGES = [
    *(frozen_cell, frozen_norms, untracked_norms, doubling_hooks, doubled_operations, hooks_of_relus),
    *(hooked_cells, pruned_weights, methods_replaced, other_activations, another_layer, own_layers),
    *(own_operations, own_cells, own_reductions, another_projection, another_pooling),
    *(inside_another_operation, transposed_weights),
]


@needs_compiler
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("training", [True, False])
def test_what_cannot_be_fused_is_computed_by_layers(
    change: Callable[[CellNetwork], None], training: bool
) -> None:
    network = networks(SMALL)[1]
    network.train(training)
    change(network)
    accelerated = accelerate(network, "fast")
    x = batch()[0]
    if training:
        assert_equal_training(network, accelerated, x)
    else:
        torch.testing.assert_close(evaluated(accelerated, x), evaluated(network, x), rtol=1e-9, atol=1e-10)
    is_hooked = change in (doubling_hooks, doubled_operations, hooks_of_relus, hooked_cells, pruned_weights)
    assert (accelerated.why_plain is not None) == (is_hooked or change is methods_replaced)


def test_it_says_why_a_network_runs_plain() -> None:
    network = networks(SMALL)[1]
    network.cells[1].register_forward_hook(twice)
    accelerated = accelerate(network, "fast")
    said = "the network runs plain: layer 'cells.1' (Cell) has hooks or an overridden forward"
    assert accelerated.description() == said
    handle = nn.modules.module.register_module_forward_hook(twice)  # type: ignore[arg-type]
    try:
        assert accelerate(network, "fast").why_plain == "PyTorch's global module hooks are in use"
    finally:
        handle.remove()


@needs_compiler
def test_modes_of_layers_that_change_later_are_noticed() -> None:
    network = networks(SMALL)[1]
    accelerated = accelerate(network, "fast")
    x = batch()[0]
    assert_equal_training(network, accelerated, x)
    frozen_norms(network)
    assert_equal_training(network, accelerated, x)


@needs_compiler
def test_gradients_in_evaluation_are_the_network_s() -> None:
    network = networks(SMALL)[1].eval()
    results = []
    for compute in (network, accelerate(network, "fast")):
        x = batch()[0].requires_grad_()
        loss = compute(x).square().sum()
        results.append(torch.autograd.grad(loss, [x, *network.evaluated_parameters().values()]))
    torch.testing.assert_close(*results)


@needs_compiler
def test_a_second_derivative_is_refused() -> None:
    network = networks(SMALL)[1]
    x = batch()[0].requires_grad_()
    logits = accelerate(network, "fast")(x)
    with pytest.raises(RuntimeError, match=r"no second derivative\. Use `speed='reference'`"):
        torch.autograd.grad(logits.sum(), x, create_graph=True)


@needs_compiler
def test_weights_that_change_are_noticed_in_evaluation() -> None:
    network = networks(SMALL)[1].eval()
    accelerated = accelerate(network, "fast")
    x = batch(images=70)[0]
    for scale in (1.0, 1.25):
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.mul_(scale)
        torch.testing.assert_close(evaluated(accelerated, x), evaluated(network, x), rtol=1e-9, atol=1e-11)


@needs_compiler
def test_a_network_that_is_cast_is_accelerated_anew() -> None:
    network = networks(SMALL, torch.float32)[1]
    accelerated = accelerate(network, "fast")
    accelerated(batch(torch.float32)[0])
    network.double()
    assert_equal_training(network, accelerated, batch()[0])
    network.to(torch.bfloat16)
    assert accelerated(batch(torch.bfloat16)[0]).isfinite().all()


def test_synchronised_norms_are_left_to_the_layers() -> None:
    network = networks(SMALL)[1]
    x = batch()[0]
    network(x)
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(network))  # type: ignore[no-untyped-call]
    accelerated = accelerate(converted, "fast")
    network.eval(), converted.eval()
    torch.testing.assert_close(evaluated(accelerated, x), evaluated(network, x), rtol=1e-9, atol=1e-10)


@needs_compiler
def test_a_batch_without_images_is_left_to_the_network() -> None:
    network = networks(SMALL)[1]
    accelerate(network, "fast")(torch.zeros(0, 3, 16, 16, dtype=torch.float64)).sum().backward()
    assert all(torch.isfinite(buffer).all() for buffer in network.buffers())


def test_drop_path_that_begins_later_is_noticed(kernels: bool) -> None:
    network = networks(SMALL)[1]
    accelerated = accelerate(network, "fast")
    x = batch()[0]
    assert_equal_training(network, accelerated, x)
    network.drop_path_probability = 0.5
    assert_equal_training(network, accelerated, x)


def test_what_is_made_in_inference_mode_serves_outside_of_it() -> None:
    network = networks(SMALL)[1].eval()
    accelerated = accelerate(network, "fast")
    x = batch()[0]
    with torch.inference_mode():
        accelerated(x)
    with torch.no_grad():
        network.stem[1].running_mean.add_(1.0)  # type: ignore[index, operator]
    torch.testing.assert_close(evaluated(accelerated, x), evaluated(network, x), rtol=1e-9, atol=1e-11)


def test_it_can_be_copied_and_pickled() -> None:
    network = networks(SMALL)[1]
    accelerated = accelerate(network, "fast")
    x = batch()[0]
    accelerated(x)
    for other in (copy.deepcopy(accelerated), pickle.loads(pickle.dumps(accelerated))):
        assert other.network is not network
        torch.testing.assert_close(other(x), other.network(x), rtol=1e-9, atol=1e-10)


class Classifier(nn.Module):
    """A network that is not ours."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2))
        self.classifier = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).mean((2, 3)))  # type: ignore[no-any-return]


@pytest.mark.usefixtures("fresh_compiler")
@pytest.mark.parametrize("level", ["fast", "compiled"])
def test_any_network_is_accelerated(level: str, kernels: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    quickly = lambda module, **options: module.compile(dynamic=False, backend="aot_eager")  # noqa: E731
    monkeypatch.setattr("nas_lightning.acceleration.accelerated.compile_module", quickly)
    torch.manual_seed(0)
    network = Classifier().double()
    accelerated = accelerate(network, level)
    for images in (40, 40, 7):
        x, targets = batch(images=images)
        gradients = [
            torch.autograd.grad(functional.cross_entropy(compute(x), targets), list(network.parameters()))
            for compute in (network, accelerated)
        ]
        torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-11)
    network.eval()
    torch.testing.assert_close(evaluated(accelerated, x), evaluated(network, x), rtol=1e-9, atol=1e-11)


@needs_compiler
def test_an_operation_of_another_resolution_is_refused() -> None:
    network = networks(SMALL)[1]
    cell = network.cells[0]
    assert isinstance(cell, Cell)
    cell.edges[0] = nn.AdaptiveAvgPool2d(4)
    with pytest.raises(ValueError, match="addend of shape"):
        accelerate(network, "fast")(batch()[0])


@pytest.mark.parametrize("other", [nn.AvgPool2d(3, 1, padding=1), nn.Identity()])
def test_only_equal_poolings_of_a_node_are_computed_once(other: nn.Module, kernels: bool) -> None:
    pools = [("avg_pool_3x3", 0), ("avg_pool_3x3", 0), ("max_pool_3x3", 0), ("max_pool_3x3", 0)]
    network = CellNetwork(Genotype(pools, [2, 3], pools, [2, 3]), 10, init_channels=4, num_cells=3).double()
    cell = network.cells[0]
    assert isinstance(cell, Cell)
    cell.edges[1] = other
    assert_equal_training(network, accelerate(network, "fast"), batch()[0])


def test_a_level_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ValueError, match=r"`level` \(='auto'\) must be one of 'reference', 'fast'"):
        accelerate(nn.Linear(2, 2), "auto")


def replaced_classifier(network: CellNetwork) -> None:
    network.classifier = nn.Linear(network.classifier.in_features, 4).double()


def assigned_weights(network: CellNetwork) -> None:
    vector = nn.utils.parameters_to_vector(network.parameters()).detach()
    nn.utils.vector_to_parameters(1.25 * vector, network.parameters())


def another_epsilon(network: CellNetwork) -> None:
    network.train()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 0.5


@pytest.mark.parametrize("change", [replaced_classifier, assigned_weights, another_epsilon])
def test_a_network_that_changes_later_is_followed(
    change: Callable[[CellNetwork], None], kernels: bool
) -> None:
    network = networks(SMALL)[1]
    x = batch()[0]
    network(x)
    network.eval()
    accelerated = accelerate(network, "fast")
    evaluated(accelerated, x)
    change(network)
    network.eval() if change is not another_epsilon else network.train()
    assert_equal_training(network.train(), accelerated, x)
    network.eval()
    torch.testing.assert_close(evaluated(accelerated, x), evaluated(network, x), rtol=1e-9, atol=1e-10)


class PartByPart(Classifier):
    """Uses the layers of a Sequential one by one."""

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features[0](x).relu().mean((2, 3)))  # type: ignore[no-any-return]


class MeanOfBatch(Classifier):
    """Its output depends on the batch."""

    def forward(self, x: Tensor) -> Tensor:
        logits = super().forward(x)
        return logits - logits.mean(0)


class Pair(Classifier):
    """Returns two tensors."""

    def forward(self, x: Tensor) -> Any:
        logits = super().forward(x)
        return logits, logits


@pytest.mark.parametrize("kind", [PartByPart, MeanOfBatch, Pair])
def test_a_network_whose_copy_differs_runs_plain(kind: type[Classifier]) -> None:
    torch.manual_seed(0)
    network = kind().double().train()
    x = batch(images=100)[0]
    network(x)
    network.eval()
    accelerated = accelerate(network, "fast")
    for _ in range(2):
        torch.testing.assert_close(evaluated(accelerated, x), evaluated(network, x))
    assert accelerated.why_plain is not None
    assert accelerated.why_plain.startswith("its copy for evaluation")
