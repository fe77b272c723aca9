"""Whether a module can be measured, asked on a few samples before an analysis needs hours."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor, nn

from nas_lightning.analysis.curvature_products import HessianProduct
from nas_lightning.analysis.evaluation import (
    FORWARD_ERRORS,
    Loss,
    check_logits,
    differentiating,
    evaluating,
    has_classes,
    losses_of,
    sample_losses,
)
from nas_lightning.analysis.per_sample_gradients import in_double

_STEPS = (1e-9, 1e-10, 1e-11, 1e-6)
"""Lengths of steps over which gradients are compared: a long one may cross a kink, a short one rounds."""

_SAME = 1e-3
"""Relative difference of two passes, or of a mean and its parts, that rounding may make."""


def check_evaluation(module: nn.Module, inputs: Tensor, targets: Tensor, loss: Loss | None = None) -> None:
    """Refuse a module that evaluation cannot measure.

    Afterwards weights, buffers and modes are as before; random numbers may have been drawn.

    Args:
        module: Maps inputs to logits, or to what `loss` takes.
        inputs: A few samples.
        targets: Their targets.
        loss: See :data:`~nas_lightning.analysis.evaluation.Loss`.

    Raises:
        ValueError: If the batch is not finite or its targets are no classes, the module cannot evaluate it,
            two passes over it differ, `loss` is no mean over samples, or weights are finite and the loss is
            not.
    """
    name = type(module).__name__
    for what, values in (("inputs", inputs), ("targets", targets)):
        if values.is_floating_point() and not bool(values.isfinite().all()):
            raise ValueError(f"the {what} of the data hold NaN or infinity: no loss can be measured")
    with evaluating(module), torch.no_grad():
        try:
            outputs = module(inputs)
            if loss is None:
                _check_classes(check_logits(name, outputs, len(inputs)), targets)
            again, losses = losses_of(module, inputs, targets, loss)
        except FORWARD_ERRORS as error:
            raise ValueError(
                f"{name} cannot evaluate {list(inputs.shape)} inputs with {list(targets.shape)} targets:"
                f" {type(error).__name__}: {_first_line(error)}"
            ) from error
    difference = _difference(outputs, again)
    if difference > _SAME:
        raise ValueError(
            f"{name} is random in evaluation: two passes over the same inputs differ by {difference:.2g} of"
            " their size, so that no surface around its weights is defined; something in it draws random"
            " numbers, whatever its mode"
        )
    if not bool(losses.isfinite().all()):
        if all(bool(values.isfinite().all()) for values in [*module.parameters(), *module.buffers()]):
            raise ValueError(f"the loss of {name} is not finite although its weights are: it overflows")
    elif loss is not None and bool((losses == losses[0]).all()):
        _check_mean(module, inputs, targets, float(losses[0]), loss)


def evaluated_parameters(
    module: nn.Module, inputs: Tensor, targets: Tensor, loss: Loss | None = None
) -> list[str]:
    """Names of the parameters with ``requires_grad`` that the loss in evaluation mode depends on.

    All of them where autograd does not reach through the module. The arguments are those of
    :func:`check_evaluation`.
    """
    live = {name: p for name, p in module.named_parameters() if p.requires_grad}
    try:
        with evaluating(module), differentiating(inputs.device.type):
            total = sample_losses(module, inputs, targets, loss).sum()
            found = torch.autograd.grad(total, list(live.values()), allow_unused=True)
    except RuntimeError:
        return list(live)
    return [name for name, gradient in zip(live, found, strict=True) if gradient is not None]


def check_second_derivative(
    module: nn.Module, inputs: Tensor, targets: Tensor, loss: Loss | None = None
) -> None:
    """Refuse a module whose loss autograd cannot differentiate twice; see :func:`check_evaluation`.

    Some functions have no second derivative and say nothing (``once_differentiable`` in
    ``torch.autograd.grad``). So a product with the Hessian, H v, is compared with the difference of gradients
    (grad F(w + e v) - grad F(w - e v)) / 2 e, in a copy in float64; small steps seldom cross a kink. The
    copy's weights are moved a little: a new batch norm's shift of 0 puts whole regions of an image on a kink.
    """
    norm = np.linalg.norm
    precise = copy.deepcopy(module).cpu().double()
    batches = [(in_double(inputs[:2]), in_double(targets[:2]))]
    parameters = [parameter for parameter in precise.parameters() if parameter.requires_grad]
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in parameters:
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            size = float(parameter.square().mean().sqrt())
            parameter.add_(noise, alpha=0.01 * (size if size > 0 else 1.0))
    try:
        product = HessianProduct(precise, batches, loss=loss)
        vector = np.random.default_rng(0).standard_normal(product.size)
        vector /= norm(vector)
        found = product.partial(vector)
        for step in _STEPS:
            change, gradient = _gradient_change(precise, batches, parameters, step, vector, loss)
            gap, size = float(norm(found - change)), max(float(norm(found)), float(norm(change)))
            if not gap > 0.1 * size + 1e-7 * float(norm(gradient)):  # NaN of a network that diverged
                return
    except (NotImplementedError, RuntimeError) as error:
        raise ValueError(
            f"the loss of {type(module).__name__} has no second derivative, which the Hessian needs:"
            f" {_first_line(error)}"
        ) from error
    raise ValueError(
        f"the second derivative of the loss of {type(module).__name__} is wrong: a product with the Hessian"
        f" differs from the change of the gradient by {gap / size:.2g} of its size; some operation in it"
        " cannot be differentiated twice"
    )


def _gradient_change(
    module: nn.Module,
    batches: list[tuple[Tensor, Tensor]],
    parameters: list[nn.Parameter],
    step: float,
    vector: Float64[np.ndarray, " parameters"],
    loss: Loss | None,
) -> tuple[np.ndarray, np.ndarray]:
    """(grad F(w + e v) - grad F(w - e v)) / 2 e of the mean loss F, and grad F(w + e v)."""
    [(inputs, targets)] = batches
    pieces = torch.split(torch.from_numpy(vector), [parameter.numel() for parameter in parameters])
    gradients = []
    for moved in (step, -2 * step):
        with torch.no_grad():
            for parameter, piece in zip(parameters, pieces, strict=True):
                parameter.add_(piece.view_as(parameter), alpha=moved)
        with evaluating(module), differentiating("cpu"):
            mean = sample_losses(module, inputs, targets, loss).mean()
            found = torch.autograd.grad(mean, parameters, allow_unused=True, materialize_grads=True)
        gradients.append(torch.cat([gradient.flatten() for gradient in found]))
    with torch.no_grad():
        for parameter, piece in zip(parameters, pieces, strict=True):
            parameter.add_(piece.view_as(parameter), alpha=step)
    return ((gradients[0] - gradients[1]) / (2 * step)).numpy(), gradients[0].numpy()


def _check_classes(logits: Tensor, targets: Tensor) -> None:
    """Refuse targets that are no classes of the logits."""
    if not has_classes(logits, targets):
        raise ValueError(
            f"the targets are {str(targets.dtype).removeprefix('torch.')} of shape {list(targets.shape)} for"
            f" outputs of shape {list(logits.shape)}: cross entropy needs the number of a class for each"
            " sample; give another `loss`"
        )
    outside = (targets < 0) | (targets >= logits.shape[1])
    if bool(outside.any()):
        raise ValueError(
            f"the target {int(targets[outside][0])} is no class: the outputs have the {logits.shape[1]}"
            f" classes 0 to {logits.shape[1] - 1}"
        )


def _check_mean(module: nn.Module, inputs: Tensor, targets: Tensor, value: float, loss: Loss) -> None:
    """Refuse one number for a batch that is not the mean of its samples' losses."""
    with evaluating(module), torch.no_grad():
        singles = [
            losses_of(module, inputs[i : i + 1], targets[i : i + 1], loss)[1] for i in range(len(targets))
        ]
    mean = float(torch.cat(singles).double().mean())
    if abs(value - mean) > _SAME * max(abs(value), abs(mean)):
        raise ValueError(
            f"`loss` gives {value:.6g} for {len(inputs)} samples whose own losses have the mean {mean:.6g}:"
            " it must return the mean over the samples, or one value for each"
        )


def _difference(first: Any, second: Any) -> float:
    """Largest difference between two outputs, as a share of the largest value; what is not finite is 0."""
    largest = 0.0
    for one, other in zip(_tensors(first), _tensors(second), strict=True):
        if one.shape != other.shape:
            return float("inf")
        if one.numel():
            scale = float(one.nan_to_num().abs().max())
            gap = float((one.double() - other.double()).nan_to_num().abs().max())
            largest = max(largest, gap / scale if scale else float(gap > 0))
    return largest


def _tensors(values: Any) -> Iterator[Tensor]:
    if isinstance(values, Tensor):
        yield values.detach()
    elif isinstance(values, Mapping):
        for value in values.values():
            yield from _tensors(value)
    elif isinstance(values, list | tuple):
        for value in values:
            yield from _tensors(value)


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
