"""Mean loss and accuracy against plain NumPy, over uneven batches and padding."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score
from torch.nn import functional

from nas_lightning.metrics import PADDING, BalancedAccuracy, MeanLoss, top_k_accuracy


@pytest.fixture
def logits_and_targets() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(37, 10, generator=generator), torch.randint(10, (37,), generator=generator)


def test_the_mean_loss_counts_images_not_batches(
    logits_and_targets: tuple[torch.Tensor, torch.Tensor],
) -> None:
    logits, targets = logits_and_targets
    losses = functional.cross_entropy(logits, targets, reduction="none")
    metric = MeanLoss()
    for part in torch.split(losses, 8):  # the last batch has 5
        metric.update(part.sum(), len(part))
    assert float(metric.compute()) == pytest.approx(float(np.mean(losses.double().numpy())), rel=1e-6)


def test_not_a_number_stays_one() -> None:
    metric = MeanLoss()
    metric.update(torch.tensor(1.0), 1)
    metric.update(torch.tensor(math.nan), 1)
    assert math.isnan(float(metric.compute()))
    metric.reset()
    metric.update(torch.tensor(math.inf), 2)
    assert math.isinf(float(metric.compute()))


@pytest.mark.parametrize("top_k", [1, 5])
def test_accuracy_does_not_count_padding(
    top_k: int, logits_and_targets: tuple[torch.Tensor, torch.Tensor]
) -> None:
    logits, targets = logits_and_targets
    order = np.argsort(-logits.numpy(), axis=1)[:, :top_k]
    expected = float(np.mean((order == targets.numpy()[:, None]).any(1)))
    metric = top_k_accuracy(10, top_k)
    metric.update(logits, targets)
    metric.update(logits[:3], torch.full((3,), PADDING))
    assert float(metric.compute()) == pytest.approx(expected, abs=1e-6)


def test_the_top_5_of_three_classes_are_all_of_them() -> None:
    metric = top_k_accuracy(3, 5)
    metric.update(torch.eye(3), torch.tensor([1, 2, 0]))
    assert float(metric.compute()) == 1


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
def test_balanced_accuracy_leaves_out_padding_and_classes_without_images(
    logits_and_targets: tuple[torch.Tensor, torch.Tensor],
) -> None:
    logits, targets = logits_and_targets
    targets = torch.where(targets < 5, 0, targets)
    targets[targets == 8] = 9  # class 8 has no image, and is predicted
    assert (logits.argmax(1) == 8).any()
    metric = BalancedAccuracy(10)
    for part in torch.split(torch.arange(37), 8):
        metric.update(logits[part], targets[part])
    metric.update(logits[:3], torch.full((3,), PADDING))
    expected = balanced_accuracy_score(targets.numpy(), logits.argmax(1).numpy())
    assert float(metric.compute()) == pytest.approx(expected, abs=1e-6)
    metric.reset()
    metric.update(logits[:3], torch.full((3,), PADDING))
    assert math.isnan(float(metric.compute()))
