"""Trace of the neural tangent kernel, of the logit of each sample's label.

The empirical tangent kernel of the scalar function z_y(x; w), the logit of a sample's own label, has the
entries K_ij = <grad_w z_{y_i}(x_i), grad_w z_{y_j}(x_j)>. Its trace over the number n of samples is

(1/n) sum_i ||grad_w z_{y_i}(x_i)||^2,

over all parameters with ``requires_grad`` that the logits depend on, batch norm in evaluation mode. It is the
sum of squared norms from which the gradient variance follows, of another scalar than the loss.

Shu et al. (*NASI: Label- and data-agnostic neural architecture search at initialization*, ICLR 2022) search
by the trace norm of the kernel of all logits, which sums ||grad_w z_k(x_i)||^2 over the classes k too, and
approximate it by the squared norm of the gradient of a mini-batch's mean loss. Shu et al. (*Unifying
and boosting gradient-based training-free neural architecture search*, NeurIPS 2022) take the root of the
trace over n, of a network with one output. Ours takes one logit of every sample, exactly, without the root.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from nas_lightning.analysis.evaluation import Batches, first_batch, logits_of
from nas_lightning.analysis.per_sample_gradients import PerSampleGradients, Unsupported


def tangent_kernel_trace(
    module: nn.Module, batches: Batches, *, unsupported: Unsupported = "refuse"
) -> float:
    """Compute the mean over samples of ||grad_w z_{y_i}(x_i)||^2 at the module's weights.

    Args:
        module: Maps inputs ``[batch, ...]`` to logits ``[batch, classes]`` in evaluation mode.
        batches: Batches of (inputs, targets) on the module's device.
        unsupported: What to do with layers that have no rule, see :class:`PerSampleGradients`.

    Returns:
        The trace over the number of samples, in squared logits per squared weight.

    Raises:
        ValueError: If a layer is not supported, or there is no batch.

    Example:
        >>> linear = nn.Linear(2, 2, bias=False)
        >>> tangent_kernel_trace(linear, [(torch.tensor([[3.0, 4.0]]), torch.tensor([1]))])
        25.0
    """
    gradients = PerSampleGradients(module, *first_batch(batches), unsupported)
    total, count = sum_squared_logit_gradients(gradients, batches).tolist()
    return float(total / count)


def sum_squared_logit_gradients(gradients: PerSampleGradients, batches: Batches) -> Float[Tensor, " two"]:
    """Sum ||grad_w z_{y_i}(x_i)||^2 over samples; with their number, in float64, on the module's device.

    Args:
        gradients: The per-sample gradients of a module.
        batches: Batches of (inputs, targets); none at all gives zeros.

    Returns:
        The sum and the number of samples; those of several processes add up.
    """
    device = next(iter(gradients.parameters.values())).device
    with torch.inference_mode(False):
        sums = torch.zeros(2, dtype=torch.float64, device=device)

        def add(name: str, values: Tensor) -> None:
            # Squares overflow long before gradients do.
            sums[0] += torch.linalg.vector_norm(values, dtype=torch.float64).square()

        for inputs, targets in batches:
            if len(targets):
                gradients.backward(inputs, targets, add, label_logits)
                sums[1] += len(targets)
    return sums


def label_logits(
    module: nn.Module, inputs: Float[Tensor, "batch *_"], targets: Int[Tensor, " batch"]
) -> Float[Tensor, " batch"]:
    """Compute z_{y_i}(x_i), the logit of its label, of every sample of a batch."""
    if inputs.is_inference():
        inputs, targets = inputs.clone(), targets.clone()  # autograd refuses tensors of inference mode
    return logits_of(module, inputs).gather(1, targets[:, None])[:, 0]
