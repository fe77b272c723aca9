"""Mean loss and accuracies over a split, exact over batches of any size and over ranks."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.classification import MulticlassAccuracy, MulticlassStatScores

PADDING = -1
"""Target of the entries that pad a rank's share of an evaluation split; no metric counts them."""


class MeanLoss(Metric):
    """Mean loss over images, sum_i f_i / n; NaN stays NaN.

    (torchmetrics' MeanMetric removes NaN or, with ``nan_strategy="disable"``, forgets the weights.)
    """

    full_state_update = False
    total: Tensor
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros(()), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros(()), dist_reduce_fx="sum")

    def update(self, total: Float[Tensor, ""], count: int | Tensor) -> None:
        """Add the sum of the losses of `count` images."""
        self.total += total
        self.count += count

    def compute(self) -> Float[Tensor, ""]:
        """The mean so far."""
        return self.total / self.count


def top_k_accuracy(num_classes: int, top_k: int = 1) -> Metric:
    """Make the metric of the fraction of images whose class is among the ``top_k`` largest logits.

    The target :data:`PADDING` does not count.
    """
    return MulticlassAccuracy(
        num_classes,
        average="micro",
        top_k=min(top_k, num_classes),
        ignore_index=PADDING,
        validate_args=False,
    )


class BalancedAccuracy(MulticlassStatScores):
    """Mean recall over the classes that have images, see :func:`nas_lightning.analysis.balanced_accuracy`.

    The target :data:`PADDING` does not count. (The macro accuracy of torchmetrics counts a class without
    images as 0 once it is predicted.)
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes, average=None, ignore_index=PADDING, validate_args=False)

    def compute(self) -> Float[Tensor, ""]:
        """The mean so far; NaN without images."""
        hits, misses = (torch.as_tensor(state) for state in (self.tp, self.fn))
        images = hits + misses
        return (hits / images.clamp(min=1)).sum() / (images > 0).sum()
