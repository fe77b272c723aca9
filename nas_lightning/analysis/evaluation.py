"""What every analysis does with a module: evaluation mode, the losses f_i, and no trace left behind."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeAlias

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

Batches: TypeAlias = Iterable[tuple[Tensor, Tensor]]
"""Batches of (inputs ``[batch, ...]``, targets ``[batch]``), iterated as often as needed, the last one
possibly smaller."""

Forward: TypeAlias = Callable[[Tensor], Tensor]
"""Maps inputs to the logits that a module computes in evaluation mode. It shares the module's weights, and
follows them when they change in place."""

Loss: TypeAlias = Callable[[Any, Any], Any]
"""Maps a module's outputs and the targets of a batch to the losses f_i: one value for each sample
``[batch]``, or several ``[batch, ...]``, whose mean counts; or one number, the mean over the samples."""

FORWARD_ERRORS = (AttributeError, LookupError, NotImplementedError, RuntimeError, TypeError)
"""Errors of a module's forward where the samples are not what it takes."""


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


def logits_of(forward: Forward, inputs: Shaped[Tensor, "batch *_"]) -> Float[Tensor, "batch classes"]:
    """Compute the logits of a batch; a ValueError if the output is not one tensor ``[batch, classes]``."""
    return check_logits(type(forward).__name__, forward(inputs), len(inputs))


def check_logits(name: str, logits: Any, count: int) -> Float[Tensor, "batch classes"]:
    """Refuse what a module gives for `count` inputs unless it is one tensor ``[count, classes]``."""
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != count:
        shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(
            f"{name} returns {shape} for {count} inputs: it must return logits [batch, classes]; for other"
            " outputs, give a `loss`"
        )
    return logits


def sample_losses(
    forward: Forward, inputs: Shaped[Tensor, "batch *_"], targets: Tensor, loss: Loss | None = None
) -> Float[Tensor, " batch"]:
    """Compute the loss f_i of every sample of a batch; without `loss` the cross entropy, in nats.

    Where `loss` gives one number, every sample gets it: their sum is right, and so is its gradient.
    """
    if inputs.is_inference():
        inputs, targets = inputs.clone(), targets.clone()  # autograd refuses tensors of inference mode
    return losses_of(forward, inputs, targets, loss)[1]


def losses_of(
    forward: Forward, inputs: Shaped[Tensor, "batch *_"], targets: Tensor, loss: Loss | None = None
) -> tuple[Any, Float[Tensor, " batch"]]:
    """Compute the outputs of a batch and the loss f_i of every sample; see :func:`sample_losses`."""
    if loss is None:
        logits = logits_of(forward, inputs)
        return logits, functional.cross_entropy(logits, targets, reduction="none")
    outputs = forward(inputs)
    return outputs, _per_sample(loss(outputs, targets), len(inputs), loss)


def has_classes(outputs: Any, targets: Any) -> bool:
    """Whether outputs are logits ``[batch, classes]`` and targets their classes: accuracy is defined."""
    if not isinstance(outputs, Tensor) or not isinstance(targets, Tensor):
        return False
    is_integer = not targets.is_floating_point() and not targets.is_complex() and targets.dtype != torch.bool
    return outputs.ndim == 2 and outputs.shape[1] > 1 and targets.shape == outputs.shape[:1] and is_integer


def loss_name(loss: Loss) -> str:
    """How files name a loss: the import path of a function or class, with the arguments of a partial one."""
    if isinstance(loss, partial):
        arguments = [*map(repr, loss.args), *(f"{name}={value!r}" for name, value in loss.keywords.items())]
        return f"{loss_name(loss.func)}({', '.join(arguments)})"
    if isinstance(loss, nn.Module):
        return " ".join(repr(loss).split())
    named = loss if hasattr(loss, "__qualname__") else type(loss)
    return f"{named.__module__}.{named.__qualname__}"


def _per_sample(values: Any, count: int, loss: Loss) -> Float[Tensor, " batch"]:
    """One value a sample, from what a loss gives for a batch."""
    if not isinstance(values, Tensor) or not values.is_floating_point():
        kind = str(values.dtype) if isinstance(values, Tensor) else type(values).__name__
        raise ValueError(f"`loss` ({loss_name(loss)}) returns {kind}: it must return a tensor of numbers")
    if values.ndim == 0:
        return values.expand(count)
    if len(values) != count:
        raise ValueError(
            f"`loss` ({loss_name(loss)}) returns {list(values.shape)} for {count} samples: it must return one"
            " value for each of them, or their mean"
        )
    return values.flatten(1).mean(1) if values.ndim > 1 else values
