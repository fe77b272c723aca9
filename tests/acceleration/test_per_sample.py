from __future__ import annotations

import pytest
import torch
from torch import nn

from nas_lightning.acceleration import PerSampleSums
from nas_lightning.analysis import PerSampleGradients, sum_gradients
from nas_lightning.cells import get_genotype
from tests.acceleration.cases import SMALL, TINY, batch, networks


@pytest.mark.parametrize("name", ["darts_v2", "nasnet", "small"])
def test_sums_are_those_of_the_samples(name: str) -> None:
    network = networks(SMALL if name == "small" else get_genotype(name))[1]
    x, targets = batch()
    network(x)
    gradients = PerSampleGradients(network, x, targets)
    found = PerSampleSums(network, gradients.parameters, gradients.rules, compiled=False)(x, targets)
    assert found is not None
    loss, squares, sums = found
    expected = sum_gradients(gradients, [(x, targets)])
    torch.testing.assert_close(loss, expected.loss, rtol=1e-9, atol=0.0)
    for parameter in gradients.parameters:
        torch.testing.assert_close(squares[parameter], expected.squared_norms[parameter], rtol=1e-9, atol=0.0)
        torch.testing.assert_close(sums[parameter], expected.gradients[parameter], rtol=1e-9, atol=1e-12)
    assert network.training
    assert all(p.grad is None for p in network.parameters())


@pytest.mark.parametrize(
    "module",
    [
        nn.Linear(4, 3),
        nn.Sequential(nn.Linear(4, 5, bias=False), nn.ReLU(), nn.Linear(5, 3)),
        nn.Sequential(nn.Unflatten(1, (2, 2)), nn.Linear(2, 3), nn.Flatten(), nn.Linear(6, 3)),
    ],
    ids=["one", "two", "positions"],
)
def test_sums_of_linear_layers_are_those_of_the_samples(module: nn.Module) -> None:
    torch.manual_seed(0)
    module = module.double()
    x, targets = torch.randn(7, 4, dtype=torch.float64), torch.randint(3, (7,))
    gradients = PerSampleGradients(module, x, targets)
    found = PerSampleSums(module, gradients.parameters, gradients.rules, compiled=False)(x, targets)
    assert found is not None
    expected = sum_gradients(gradients, [(x, targets)])
    torch.testing.assert_close(found[1], expected.squared_norms, rtol=1e-10, atol=0.0)
    torch.testing.assert_close(found[2], expected.gradients, rtol=1e-10, atol=1e-12)


@pytest.mark.slow
@pytest.mark.usefixtures("fresh_compiler")
def test_compiled_sums_are_the_same() -> None:
    network = networks(TINY)[1]
    x, targets = batch()
    network(x)
    gradients = PerSampleGradients(network, x, targets)
    fused = PerSampleSums(network, gradients.parameters, gradients.rules)
    data = [(x, targets), (x[:5], targets[:5])]  # the second one is measured without it
    compiled, expected = sum_gradients(gradients, data, fused), sum_gradients(gradients, data)
    assert fused(x[:5], targets[:5]) is None
    assert compiled.count == expected.count
    assert compiled.statistics().variance == pytest.approx(expected.statistics().variance, rel=1e-10)
    norm = expected.statistics().mean_gradient_norm
    normalized = expected.statistics().normalized_variance
    assert compiled.statistics().normalized_variance == pytest.approx(normalized, rel=1e-10)
    assert compiled.statistics().mean_gradient_norm == pytest.approx(norm, rel=1e-10)
