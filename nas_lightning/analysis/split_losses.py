"""Loss and accuracy of several splits at the current weights, with statistics that belong to them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import nn

from nas_lightning.analysis.evaluation import Batches, Forward, Loss
from nas_lightning.analysis.loss import estimate_running_statistics, evaluate, loss_variables


def losses_of_splits(
    module: nn.Module,
    splits: Mapping[str, Batches],
    *,
    statistics: Batches | None = None,
    forward: Forward | None = None,
    loss: Loss | None = None,
) -> dict[str, float]:
    """Compute the mean loss and the accuracy over each split at a module's current weights.

    Args:
        module: Maps inputs to logits ``[batch, classes]``.
        splits: Batches of each split, on the module's device.
        statistics: Where given, batch norm's running statistics are first set to those of these batches at
            the current weights, once for all splits; they stay so. See
            :func:`~nas_lightning.analysis.loss.estimate_running_statistics`.
        forward: Computes the module's logits in its place; None is the module itself.
        loss: See :func:`~nas_lightning.analysis.loss.evaluate`.

    Returns:
        ``SPLIT_loss`` (cross entropy: in nats) and ``SPLIT_accuracy`` (a fraction) of each split.

    Raises:
        ValueError: If a split has no sample, or the output is not one tensor of logits.
    """
    if statistics is not None:
        estimate_running_statistics(module, statistics)
    values: dict[str, float] = {}
    for split, batches in splits.items():
        mean_loss, accuracy = evaluate(module, batches, forward=forward, loss=loss)
        values |= {f"{split}_loss": mean_loss, f"{split}_accuracy": accuracy}
    return values


def split_variables(splits: Iterable[str], loss: Loss | None = None) -> dict[str, dict[str, str]]:
    """Attributes of what :func:`losses_of_splits` measures, by variable."""
    return {
        f"{split}_{name}": {**text, "long_name": f"{text['long_name']}, {split} split"}
        for split in splits
        for name, text in loss_variables(loss).items()
    }
