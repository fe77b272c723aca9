"""The trace of the label logits' tangent kernel, beside one backward pass a sample."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nas_lightning.analysis import PerSampleGradients, sum_squared_logit_gradients, tangent_kernel_trace
from nas_lightning.cells import get_genotype
from tests.analysis.cases import make_batches, small_network, trained_network
from tests.oracles.per_sample_gradients import slow_tangent_kernel_trace


@pytest.mark.parametrize("spec", ["darts_v2", "nasnet", "amoebanet", "snas_mild", "darts_v2:connections=3"])
def test_the_trace_of_a_cell_network(spec: str) -> None:
    network, batches = trained_network(get_genotype(spec)), make_batches()
    slow = slow_tangent_kernel_trace(network, batches)
    assert tangent_kernel_trace(network, batches) == pytest.approx(slow, rel=1e-10)


def test_it_is_the_trace_of_the_kernel_of_chosen_logits() -> None:
    """Of a linear map the kernel is known: K_ij = (x_i . x_j + 1) [y_i = y_j]."""
    linear, inputs = nn.Linear(3, 4), torch.randn(6, 3)
    targets = torch.tensor([0, 1, 2, 3, 0, 1])
    kernel = (inputs @ inputs.T + 1) * (targets[:, None] == targets[None])
    found = tangent_kernel_trace(linear, [(inputs[:4], targets[:4]), (inputs[4:], targets[4:])])
    assert found == pytest.approx(float(kernel.trace()) / 6, rel=1e-6)


def test_the_logits_bias_does_not_change_it() -> None:
    network, batches = trained_network(get_genotype("darts_v2")), make_batches()
    before = tangent_kernel_trace(network, batches)
    with torch.no_grad():
        network.classifier.bias.add_(5.0)
    assert tangent_kernel_trace(network, batches) == pytest.approx(before, rel=1e-12)


def test_a_layer_without_a_rule_goes_through_vmap() -> None:
    class Scale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.rand(3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * self.weight

    module = nn.Sequential(Scale(), nn.Linear(3, 2)).double()
    batches = [(torch.randn(5, 3).double(), torch.tensor([0, 1, 1, 0, 1]))]
    with pytest.raises(ValueError, match="has parameters and no rule"):
        tangent_kernel_trace(module, batches)
    slow = slow_tangent_kernel_trace(module, batches)
    assert tangent_kernel_trace(module, batches, unsupported="vmap") == pytest.approx(slow, rel=1e-10)


def test_sums_of_two_processes_add_up_and_inference_mode_is_left() -> None:
    network, batches = trained_network(get_genotype("darts_v2")), make_batches()
    expected = tangent_kernel_trace(network, batches)
    with torch.inference_mode():
        gradients = PerSampleGradients(network, *batches[0])
        parts = [sum_squared_logit_gradients(gradients, part) for part in (batches[:1], batches[1:], [])]
    total, count = torch.stack(parts).sum(0).tolist()
    assert count == 11
    assert total / count == pytest.approx(expected, rel=1e-12)


def test_nothing_to_measure_is_refused() -> None:
    with pytest.raises(ValueError, match="`batches` is empty"):
        tangent_kernel_trace(small_network(), [])
