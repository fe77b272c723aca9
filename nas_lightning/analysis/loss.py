"""Loss and accuracy over a split, at w* and over a plane of weights (section 4.2.1 of the paper)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Literal, TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from nas_lightning.analysis.directions import Directions, cosine
from nas_lightning.analysis.displacement import at_points
from nas_lightning.analysis.evaluation import (
    Batches,
    Forward,
    Loss,
    check_batches,
    evaluating,
    has_classes,
    loss_name,
    losses_of,
)
from nas_lightning.analysis.surface import Point, measured_plane
from nas_lightning.provenance import weights_hash

if TYPE_CHECKING:
    import xarray as xr

BatchNorm: TypeAlias = Literal["frozen", "reestimated"]

LOSS_VARIABLES: Mapping[str, Mapping[str, str]] = {
    "loss": {"long_name": "mean cross entropy", "units": "nat"},
    "accuracy": {"long_name": "share of the instances classified correctly", "units": "1"},
}
"""What a loss contour measures at every point."""


def loss_variables(loss: Loss | None = None) -> Mapping[str, Mapping[str, str]]:
    """:data:`LOSS_VARIABLES`, in the words of an own loss where there is one."""
    if loss is None:
        return LOSS_VARIABLES
    return {**LOSS_VARIABLES, "loss": {"long_name": "mean loss", "units": "1"}}


def evaluate(
    module: nn.Module, batches: Batches, *, forward: Forward | None = None, loss: Loss | None = None
) -> tuple[float, float]:
    """Compute the mean loss (1/n) sum_i f_i and the accuracy over all samples, in evaluation mode.

    Every sample counts once, whatever the sizes of the batches. Sums are in float64 and stay on the device
    until the end.

    Args:
        module: Maps inputs to logits ``[batch, classes]``.
        batches: (inputs, targets), on the module's device.
        forward: Computes the module's logits in its place; None is the module itself.
        loss: Maps outputs and targets to the losses f_i, see :data:`~nas_lightning.analysis.evaluation.Loss`;
            None is the cross entropy of the logits.

    Returns:
        Mean loss (cross entropy: in nats), and the fraction of samples whose largest logit is the target's. A
        sample whose loss is NaN counts as misclassified. With an own loss whose outputs are not logits
        ``[batch, classes]`` of integer targets the accuracy is NaN.

    Raises:
        ValueError: If there is no sample, or the output is not one tensor of logits.

    Example:
        >>> batches = [(torch.zeros(3, 2), torch.tensor([0, 1, 2]))]
        >>> loss, accuracy = evaluate(nn.Linear(2, 3, bias=False), batches)
        >>> round(loss, 4), round(accuracy, 4)
        (1.0986, 0.3333)
    """
    check_batches(batches)
    count = 0
    sums: Tensor | None = None
    with evaluating(module), torch.no_grad():
        for inputs, targets in batches:
            outputs, losses = losses_of(forward or module, inputs, targets, loss)
            total = losses.sum(dtype=torch.float64)
            correct = torch.full_like(total, torch.nan)
            if has_classes(outputs, targets):
                correct = ((outputs.argmax(1) == targets) & ~losses.isnan()).sum(dtype=torch.float64)
            added = torch.stack([total, correct])
            sums = added if sums is None else sums + added
            count += len(targets)
    if sums is None or not count:
        raise ValueError("`batches` hold no sample")
    mean_loss, accuracy = (sums / count).tolist()
    return mean_loss, accuracy


def loss_surface(
    module: nn.Module,
    batches: Batches,
    directions: Directions,
    alphas: Float[np.ndarray, " alpha"] | Iterable[float | int],
    betas: Float[np.ndarray, " beta"] | Iterable[float | int],
    batch_norm: BatchNorm = "frozen",
    *,
    forward: Forward | None = None,
    loss: Loss | None = None,
) -> xr.Dataset:
    """Compute the loss surface s(alpha, beta) = E_i[f_i(w* + alpha w1 + beta w2)].

    A point costs one pass over the batches and one displacement of the weights. Afterwards parameters and
    buffers are as before, bit for bit. Source: Shu et al. (ICLR 2020), section 4.2.1.

    Args:
        module: Maps inputs to logits ``[batch, classes]``; its weights are w*.
        batches: (inputs, targets), on the module's device, iterated once a point.
        directions: w1 and w2, of :func:`~nas_lightning.analysis.directions.random_directions`.
        alphas: Steps along w1, increasing.
        betas: Steps along w2.
        batch_norm: See :func:`loss_at_points`.
        forward: See :func:`loss_at_points`.
        loss: See :func:`evaluate`.

    Returns:
        ``loss`` (nat) and ``accuracy`` (fraction) over (alpha, beta). NaN and infinity are kept. Attributes:
        ``kind``, ``weights_sha256``, ``samples``, ``batch_norm`` and ``cosine`` between the directions; the
        name of an own ``loss``.

    Raises:
        ValueError: If an argument is refused; the message names it.

    Example:
        >>> from nas_lightning.analysis.directions import random_directions
        >>> module = nn.Linear(2, 3)
        >>> batches = [(torch.randn(5, 2), torch.tensor([0, 1, 2, 0, 1]))]
        >>> surface = loss_surface(module, batches, random_directions(module, 0), [-1, 0, 1], [-1, 0, 1])
        >>> surface.loss.dims, surface.loss.sel(alpha=0, beta=0).item() == evaluate(module, batches)[0]
        (('alpha', 'beta'), True)
    """
    attributes: dict[str, str | int | float] = {
        "kind": "loss_contour",
        "weights_sha256": weights_hash(module.state_dict()),
        "samples": sum(len(targets) for _, targets in batches),
        "batch_norm": batch_norm,
        "cosine": cosine(*directions),
        **({} if loss is None else {"loss": loss_name(loss)}),
    }
    with loss_at_points(module, batches, {0: directions}, batch_norm, forward=forward, loss=loss) as measure:
        return measured_plane(measure, loss_variables(loss), alphas, betas, attributes)


@contextmanager
def loss_at_points(
    module: nn.Module,
    batches: Batches,
    directions_by_seed: Mapping[int, Directions],
    batch_norm: BatchNorm = "frozen",
    *,
    forward: Forward | None = None,
    loss: Loss | None = None,
) -> Iterator[Callable[[Point], dict[str, float]]]:
    """Measure loss and accuracy at the points of a surface.

    Batch norm normalises with running statistics, which belong to w*. At other weights there is a choice:

    - ``"frozen"``: those of w* everywhere (Li et al., NeurIPS 2018). The surface is that of the function
      which the trained network computes.
    - ``"reestimated"``: at every point estimated anew, from one pass over the same batches in which only the
      batch norms are in training mode; mean and (unbiased) variance are the batches' averages weighted by
      their sizes (after Izmailov et al., UAI 2018, section 3.2). At w* this is *not* the validation loss.

    Args:
        module: Maps inputs to logits ``[batch, classes]``; its weights are w*.
        batches: (inputs, targets), on the module's device.
        directions_by_seed: Directions of every direction seed.
        batch_norm: As above.
        forward: Computes the module's logits at every point in its place; None is the module itself.
        loss: See :func:`evaluate`.

    Yields:
        Function of a point that gives its ``loss`` and ``accuracy``. When the block ends, also by an
        exception, parameters and buffers are as before, bit for bit.

    Raises:
        ValueError: If directions do not fit, `batch_norm` is unknown, or there are no running statistics to
            estimate.
    """
    check_batches(batches)
    layers = running_norms(module, batch_norm)
    with evaluating(module), kept_buffers(module), at_points(module, directions_by_seed) as move_to:

        def measure(point: Point) -> dict[str, float]:
            move_to(point)
            if batch_norm == "reestimated":
                _reestimate(module, layers, batches)
            found = evaluate(module, batches, forward=forward, loss=loss)
            return dict(zip(LOSS_VARIABLES, found, strict=True))

        yield measure


def estimate_running_statistics(module: nn.Module, batches: Batches) -> None:
    """Set the running statistics of a module's batch norms to those of batches, as ``"reestimated"`` does.

    Those of a new network are mean 0 and variance 1, which no signal in it has: in evaluation mode
    activations and gradients fade from layer to layer, where in training mode batch norm lets gradients grow.

    Args:
        module: Maps inputs to logits; without batch norm it stays as it is.
        batches: (inputs, targets), on the module's device.
    """
    check_batches(batches)
    if layers := running_norms(module, "frozen"):
        with evaluating(module):
            _reestimate(module, layers, batches)


@contextmanager
def kept_buffers(module: nn.Module) -> Iterator[None]:
    """When the block ends, also by an exception, a module's buffers are as before, bit for bit."""
    buffers = list(module.buffers())
    with torch.no_grad():
        kept = [buffer.clone() for buffer in buffers]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in zip(buffers, kept, strict=True):
                buffer.copy_(value)


def running_norms(module: nn.Module, batch_norm: BatchNorm) -> list[_BatchNorm]:
    """The batch norms with running statistics; a ValueError if ``"reestimated"`` and there are none."""
    if batch_norm not in ("frozen", "reestimated"):
        raise ValueError(f"`batch_norm` (={batch_norm!r}) must be 'frozen' or 'reestimated'")
    layers = [
        layer
        for layer in module.modules()
        if isinstance(layer, _BatchNorm) and layer.running_mean is not None
    ]
    if batch_norm == "reestimated" and not layers:
        raise ValueError(
            "`batch_norm` (='reestimated') needs batch-norm layers with running statistics, and "
            f"{type(module).__name__} has none"
        )
    return layers


@torch.no_grad()
def _reestimate(module: nn.Module, layers: list[_BatchNorm], batches: Batches) -> None:
    """Set the running statistics to those of the batches at the current weights."""
    momenta = [layer.momentum for layer in layers]
    count = 0
    try:
        for layer in layers:
            layer.training = True
            # NaN would survive the averaging.
            layer.reset_running_stats()
            if isinstance(layer, nn.SyncBatchNorm):
                # Ranks measure different points: their statistics must not mix.
                layer.forward = partial(_BatchNorm.forward, layer)  # type: ignore[method-assign]
        for inputs, targets in batches:
            count += len(targets)
            for layer in layers:
                layer.momentum = len(targets) / count
            module(inputs)
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
            layer.training = False
            if isinstance(layer, nn.SyncBatchNorm):
                del layer.forward
