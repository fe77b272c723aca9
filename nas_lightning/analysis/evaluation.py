"""What every analysis does with a module: evaluation mode, the losses f_i, and no trace left behind."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

Batches = Iterable[tuple[Tensor, Tensor]]
"""Batches of (inputs ``[batch, ...]``, targets ``[batch]``), iterated as often as needed, the last one
possibly smaller."""


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put a module into evaluation mode, and leave inference mode; afterwards all is as before.

    Args:
        module: Its submodules' modes are kept one by one.
    """
    modes = {layer: layer.training for layer in module.modules()}
    try:
        module.eval()
        # In inference mode nothing can be differentiated, whatever the mode of gradients is.
        with torch.inference_mode(False):
            yield
    finally:
        for layer, mode in modes.items():
            layer.training = mode


@contextmanager
def without_gradient(parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    """Let autograd pass parameters by.

    Args:
        parameters: Parameters that require a gradient, and do so again afterwards.
    """
    parameters = list(parameters)
    try:
        for parameter in parameters:
            parameter.requires_grad_(False)
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)


@contextmanager
def differentiating(device_type: str, *, compiled: bool = False) -> Iterator[None]:
    """Gradients on, autocast off, compiled modules uncompiled: hooks and second derivatives need it so.

    Args:
        device_type: ``"cpu"`` or ``"cuda"``.
        compiled: Whether compiled modules stay compiled.
    """
    # Fused attention has no second derivative.
    plain_attention = sdpa_kernel(SDPBackend.MATH)
    with torch.enable_grad(), torch.autocast(device_type, enabled=False), plain_attention:
        # Without dynamo nothing was compiled, and importing it takes seconds.
        if "torch._dynamo" in sys.modules and not compiled:
            with torch.compiler.set_stance("force_eager"):
                yield
        else:
            yield


def check_batches(batches: Batches) -> None:
    """Refuse batches that can be read only once.

    Args:
        batches: What is to be iterated.

    Raises:
        ValueError: If it is an iterator, which is empty after the first pass.
    """
    if isinstance(batches, Iterator):
        raise ValueError("`batches` can be iterated only once: give a list, or a loader")


def logits_of(
    module: Callable[[Tensor], Tensor], inputs: Float[Tensor, "batch *_"]
) -> Float[Tensor, "batch classes"]:
    """Output of a module that must be logits.

    Args:
        module: Maps the inputs to logits.
        inputs: Inputs of the batch.

    Returns:
        The logits.

    Raises:
        ValueError: If the module's output is not one tensor ``[batch, classes]``.
    """
    logits = module(inputs)
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(inputs):
        shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(
            f"{type(module).__name__} returns {shape} for {len(inputs)} inputs: it must return logits"
            " [batch, classes]"
        )
    return logits


def instance_losses(
    module: nn.Module, inputs: Float[Tensor, "batch *_"], targets: Int[Tensor, " batch"]
) -> Float[Tensor, " batch"]:
    """Cross entropy of the logits of every instance, f_i, in nats.

    Args:
        module: Maps the inputs to logits ``[batch, classes]``.
        inputs: Inputs of the batch.
        targets: Their classes.

    Returns:
        The losses.

    Raises:
        ValueError: As :func:`logits_of`.
    """
    if inputs.is_inference():
        inputs, targets = inputs.clone(), targets.clone()  # autograd refuses tensors of inference mode
    return functional.cross_entropy(logits_of(module, inputs), targets, reduction="none")
