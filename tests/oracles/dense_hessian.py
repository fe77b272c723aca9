"""The Hessian of the mean loss and its Gauss-Newton part, row by row in float64."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional


def dense_hessian(module: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    """Second derivatives of (1/n) sum_i f_i in the parameters with requires_grad, in their order."""
    module = copy.deepcopy(module).double().eval()
    live = [parameter for parameter in module.parameters() if parameter.requires_grad]
    mean = functional.cross_entropy(module(inputs.double()), targets)
    gradients = torch.autograd.grad(mean, live, create_graph=True, materialize_grads=True)
    entries = torch.cat([gradient.reshape(-1) for gradient in gradients])
    rows = []
    for entry in entries:
        row = (
            torch.autograd.grad(entry, live, retain_graph=True, materialize_grads=True)
            if entry.requires_grad
            else [torch.zeros_like(parameter) for parameter in live]
        )
        rows.append(torch.cat([piece.reshape(-1) for piece in row]))
    return torch.stack(rows)


def dense_gauss_newton(module: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    """(1/n) sum_i J_i^T (diag p_i - p_i p_i^T) J_i in the same parameters, one sample and class at a time."""
    module = copy.deepcopy(module).double().eval()
    live = [parameter for parameter in module.parameters() if parameter.requires_grad]
    size = sum(parameter.numel() for parameter in live)
    total = torch.zeros(size, size, dtype=torch.float64)
    for x in inputs.double():
        logits = module(x[None])[0]
        jacobian = []
        for logit in logits:
            row = torch.autograd.grad(logit, live, retain_graph=True, materialize_grads=True)
            jacobian.append(torch.cat([piece.reshape(-1) for piece in row]))
        rows, p = torch.stack(jacobian), logits.detach().softmax(0)
        total += rows.T @ (torch.diag(p) - torch.outer(p, p)) @ rows
    return total / len(targets)
