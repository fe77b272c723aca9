"""What every analysis does with a module: evaluation mode, the losses f_i, and no trace left behind."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

Batches: TypeAlias = Iterable[tuple[Tensor, Tensor]]
"""Batches of (inputs ``[batch, ...]``, targets ``[batch]``), iterated as often as needed, the last one
possibly smaller."""

Forward: TypeAlias = Callable[[Tensor], Tensor]
"""Maps inputs to the logits that a module computes in evaluation mode. It shares the module's weights, and
follows them when they change in place."""


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put a module into evaluation mode and leave inference mode; afterwards everything is as before."""
    modes = {layer: layer.training for layer in module.modules()}
    try:
        module.eval()
        # In inference mode nothing can be differentiated, not even under `torch.enable_grad()`.
        with torch.inference_mode(False):
            yield
    finally:
        for layer, mode in modes.items():
            layer.training = mode


@contextmanager
def differentiating(device_type: str) -> Iterator[None]:
    """Enable gradients, without autocast and compiled code: hooks and second derivatives need it."""
    # Fused attention has no second derivative.
    plain_attention = sdpa_kernel(SDPBackend.MATH)
    with torch.enable_grad(), torch.autocast(device_type, enabled=False), plain_attention:
        # Without dynamo nothing is compiled, and its import takes seconds.
        if "torch._dynamo" in sys.modules:
            with torch.compiler.set_stance("force_eager"):
                yield
        else:
            yield


def check_batches(batches: Batches) -> None:
    """Refuse an iterator of batches: it is empty after the first pass."""
    if isinstance(batches, Iterator):
        raise ValueError("`batches` can be iterated only once: give a list, or a loader")


def first_batch(batches: Batches) -> tuple[Tensor, Tensor]:
    """The first batch that holds a sample; a ValueError if there is none, or a batch is no pair."""
    check_batches(batches)
    for batch in batches:
        if not isinstance(batch, tuple | list) or len(batch) != 2:
            raise ValueError("`batches` must be a list of pairs (inputs, targets)")
        inputs, targets = batch
        if len(targets):
            return inputs, targets
    raise ValueError("`batches` is empty: there is no gradient to measure")


def logits_of(forward: Forward, inputs: Float[Tensor, "batch *_"]) -> Float[Tensor, "batch classes"]:
    """Compute the logits of a batch; a ValueError if the output is not one tensor ``[batch, classes]``."""
    logits = forward(inputs)
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(inputs):
        shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(
            f"{type(forward).__name__} returns {shape} for {len(inputs)} inputs: it must return logits"
            " [batch, classes]"
        )
    return logits


def sample_losses(
    forward: Forward, inputs: Float[Tensor, "batch *_"], targets: Int[Tensor, " batch"]
) -> Float[Tensor, " batch"]:
    """Compute the cross entropy f_i of every sample of a batch, in nats."""
    if inputs.is_inference():
        inputs, targets = inputs.clone(), targets.clone()  # autograd refuses tensors of inference mode
    return functional.cross_entropy(logits_of(forward, inputs), targets, reduction="none")
