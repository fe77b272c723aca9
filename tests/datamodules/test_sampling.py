from __future__ import annotations

import pickle

import pytest
import torch

from nas_lightning.datamodules.sampling import (
    EvaluationSampler,
    IndexBatch,
    TrainingSampler,
    derive_seed,
    index_loader,
)


def training_batches(
    count: int, ranks: int, batch_size: int, seed: int, epoch: int
) -> list[list[IndexBatch]]:
    """Batches of every rank in an epoch."""
    result = []
    for rank in range(ranks):
        sampler = TrainingSampler(count, num_replicas=ranks, rank=rank, seed=seed)
        sampler.set_epoch(epoch)
        result.append(list(index_loader("train", sampler, batch_size // ranks)))
    return result


@pytest.mark.parametrize("ranks", [2, 4, 8])
@pytest.mark.parametrize("count", [101, 96, 40, 47])
def test_ranks_together_take_the_batches_of_one_process(count: int, ranks: int) -> None:
    (single,) = training_batches(count, 1, 16, seed=3, epoch=2)
    together = training_batches(count, ranks, 16, seed=3, epoch=2)
    assert len(single) == count // 16
    assert {len(batches) for batches in together} == {count // 16}
    for step, batch in enumerate(single):
        parts = torch.stack([batches[step].indices for batches in together], dim=1)
        assert torch.equal(parts.flatten(), batch.indices)


def test_order_depends_on_seed_and_epoch_only() -> None:
    def order(seed: int, epoch: int) -> list[int]:
        (batches,) = training_batches(100, 1, 10, seed, epoch)
        return torch.cat([batch.indices for batch in batches]).tolist()

    assert sorted(order(0, 0)) == list(range(100))
    assert order(0, 5) == order(0, 5)
    orders = {tuple(order(seed, epoch)) for seed in range(4) for epoch in range(4)}
    assert len(orders) == 16  # neighbouring seeds do not repeat each other's epochs


def test_training_batches_know_their_epoch_and_evaluation_batches_have_none() -> None:
    ((first, *_),) = training_batches(20, 1, 10, seed=0, epoch=7)
    assert (first.split, first.epoch) == ("train", 7)
    assert first.indices.dtype == torch.int64
    sampler = EvaluationSampler(20, num_replicas=1, rank=0)
    (batch,) = index_loader("test", sampler, 30)
    assert (batch.split, batch.epoch) == ("test", None)
    assert len(pickle.dumps(batch)) < 1500


@pytest.mark.parametrize("ranks", [1, 2, 3, 8])
@pytest.mark.parametrize("count", [1, 5, 21, 24])
def test_evaluation_sees_each_image_once_and_pads_with_minus_one(count: int, ranks: int) -> None:
    seen, batch_counts = [], set()
    for rank in range(ranks):
        batches = list(index_loader("test", EvaluationSampler(count, num_replicas=ranks, rank=rank), 4))
        batch_counts.add(tuple(len(batch.indices) for batch in batches))
        seen += torch.cat([batch.indices for batch in batches]).tolist()
    assert len(batch_counts) == 1  # the same batches on every rank
    assert sorted(index for index in seen if index >= 0) == list(range(count))
    assert seen.count(-1) == -count % ranks


def test_seeds_of_different_purposes_and_numbers_differ() -> None:
    seeds = {
        derive_seed(purpose, seed, epoch) for purpose in "ab" for seed in range(30) for epoch in range(30)
    }
    assert len(seeds) == 1800
    assert derive_seed("augmentation", 0, 0) == derive_seed("augmentation", 0, 0)
