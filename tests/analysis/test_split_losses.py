"""Losses of several splits at the current weights."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from nas_lightning.analysis import evaluate, losses_of_splits, split_variables


def batches(count: int, seed: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(count, 3, generator=generator, dtype=torch.float64)
    targets = torch.randint(5, (count,), generator=generator)
    return list(zip(*(torch.split(v, 4) for v in (inputs, targets)), strict=True))


def test_each_split_is_evaluated_with_statistics_of_the_named_batches() -> None:
    module = nn.Sequential(nn.Linear(3, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 5)).double()
    own = copy.deepcopy(module)
    train, test = batches(12, 0), batches(7, 1)
    found = losses_of_splits(module, {"train": train, "test": test})
    assert found == dict(
        zip(
            ("train_loss", "train_accuracy", "test_loss", "test_accuracy"),
            evaluate(own, train) + evaluate(own, test),
            strict=True,
        )
    )
    found = losses_of_splits(module, {"train": train, "test": test}, statistics=train)
    hidden = own.get_submodule("0")(torch.cat([inputs for inputs, _ in train]))
    norm = own.get_submodule("1")
    norm.get_buffer("running_mean").copy_(hidden.mean(0))
    # The mean of the batches' own unbiased variances, all of one size here.
    variances = [part.var(0) for part in torch.split(hidden, 4)]
    norm.get_buffer("running_var").copy_(torch.stack(variances).mean(0))
    assert found["test_loss"] == pytest.approx(evaluate(own, test)[0], rel=1e-12)
    assert set(split_variables(["train", "test"])) == set(found)
    assert split_variables(["test"])["test_loss"] == {
        "long_name": "mean cross entropy, test split",
        "units": "nat",
    }
