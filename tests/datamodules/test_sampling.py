from __future__ import annotations

import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.model_selection import train_test_split
from torch.utils.data.distributed import DistributedSampler

from nas_lightning.datamodules import Synthetic
from nas_lightning.datamodules.sampling import (
    EvaluationSampler,
    IndexBatch,
    TrainingSampler,
    derive_seed,
    index_loader,
    stratified_split,
    stratified_subset,
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


@pytest.mark.parametrize("ranks", [1, 3])
def test_the_order_is_that_of_torch(ranks: int) -> None:
    for rank in range(ranks):
        sampler = TrainingSampler(2500, num_replicas=ranks, rank=rank, seed=3)
        sampler.set_epoch(5)
        assert list(sampler) == list(DistributedSampler.__iter__(sampler))


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


@pytest.mark.parametrize("size", [1, 7, 10, 33, 99, 100])
def test_a_stratified_subset_has_the_shares_of_all_in_any_order(size: int) -> None:
    targets = torch.tensor([0] * 50 + [1] * 30 + [2] * 19 + [3])
    chosen = stratified_subset(targets, size, seed=3)
    assert len(set(chosen.tolist())) == len(chosen) == size
    assert torch.equal(chosen, chosen.sort().values)
    counts = torch.bincount(targets[chosen], minlength=4)
    exact = size * torch.bincount(targets) / len(targets)
    assert ((counts - exact).abs() < 1).all()
    assert torch.equal(chosen, stratified_subset(targets, size, seed=3))
    if size == 33:
        assert not torch.equal(chosen, stratified_subset(targets, size, seed=4))


def test_a_division_is_that_of_scikit_learn() -> None:
    random = np.random.default_rng(0)
    for seed in range(300):
        classes = int(random.integers(2, 12))
        counts = random.integers(2, 30, classes) if seed % 2 else np.full(classes, random.integers(2, 30))
        labels = random.permutation(np.repeat(np.arange(classes), counts))
        held_out = int(random.integers(classes, len(labels) - classes + 1))
        expected = train_test_split(
            np.arange(len(labels)), test_size=held_out, stratify=labels, random_state=seed
        )
        found = stratified_split(torch.from_numpy(labels), held_out, seed)
        for one, other in zip(expected, found, strict=True):
            np.testing.assert_array_equal(np.sort(one), other.numpy())


@pytest.mark.parametrize("limit", [3, 0.3])
def test_a_limited_evaluation_has_the_same_images_on_any_number_of_ranks(limit: float | int) -> None:
    found = []
    for world_size in (1, 2, 3):
        positions: list[int] = []
        for rank in range(world_size):
            data = Synthetic(
                image_size=8, train_size=20, test_size=103, batch_size=20, evaluation_batch_size=10
            )
            data.setup()
            trainer = SimpleNamespace(world_size=world_size, global_rank=rank, limit_val_batches=limit)
            data.trainer = trainer  # type: ignore[assignment]
            batches = list(data.val_dataloader())
            assert len(batches) <= trainer.limit_val_batches == 3
            positions += [int(i) for batch in batches for i in batch.indices if i >= 0]
        assert len(positions) == 30
        found.append(sorted(positions))
    assert found[0] == found[1] == found[2]


def test_a_loader_goes_on_after_the_batches_that_it_gave() -> None:
    sampler = TrainingSampler(20, num_replicas=1, rank=0, seed=0)
    loader = index_loader("train", sampler, 4)
    sampler.set_epoch(2)
    whole = [batch.indices.tolist() for batch in loader]
    assert loader.state_dict() == {"batches": 0}
    again = index_loader("train", sampler, 4)
    again.load_state_dict({"batches": 3})
    iterator = iter(again)
    sampler.set_epoch(2)
    assert [batch.indices.tolist() for batch in iterator] == whole[3:]
    assert [batch.indices.tolist() for batch in again] == whole
