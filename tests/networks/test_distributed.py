"""Plain DistributedDataParallel, without find_unused_parameters, in two real processes."""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from nas_lightning.cells import Genotype, dead_nodes
from nas_lightning.networks import CellNetwork
from tests.networks.cases import all_cases, batch, loss_of

SAMPLES = 4


def cases() -> dict[str, Genotype]:
    """All but the published cells that show nothing new."""
    skipped = {"setn", "eeea_net_c", "gdas"}
    return {name: genotype for name, genotype in all_cases().items() if name not in skipped}


def gradients(network: nn.Module, images: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """Gradients of one process on one batch; the network keeps its running statistics."""
    network = copy.deepcopy(network)
    network.zero_grad()
    loss_of(network(images), targets).backward()  # type: ignore[no-untyped-call]
    return {name: p.grad for name, p in network.named_parameters() if p.grad is not None}


def difference(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    assert actual.keys() == expected.keys()
    return max(
        float((actual[name] - expected[name]).abs().max() / (1 + expected[name].abs().max()))
        for name in expected
    )


def compare(genotype: Genotype, training: bool, rank: int) -> float:
    """Largest difference between DDP's gradients and those of one process, over two steps."""
    torch.manual_seed(0)
    # The tower takes no part in evaluation mode.
    network = CellNetwork(genotype, 5, 2, 5, auxiliary=training).double().train(training)
    images, targets = batch(size=32 if training else 8, samples=SAMPLES)
    halves = list(zip(images.chunk(2), targets.chunk(2), strict=True))
    wrapped = DistributedDataParallel(network)
    worst = 0.0
    for _ in range(2):  # an unused parameter shows in the second step
        if training:
            first, second = (gradients(network, *half) for half in halves)
            expected = {name: (first[name] + second[name]) / 2 for name in first}
        else:
            expected = gradients(network, images, targets)
        network.zero_grad()
        loss_of(wrapped(halves[rank][0]), halves[rank][1]).backward()  # type: ignore[no-untyped-call]
        actual = {name: p.grad for name, p in network.named_parameters() if p.grad is not None}
        assert all(p.requires_grad == (name in actual) for name, p in network.named_parameters())
        worst = max(worst, difference(actual, expected))
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                if name in actual:
                    parameter.sub_(0.01 * actual[name])
    weights = torch.cat([parameter.detach().flatten() for parameter in network.parameters()])
    others = [torch.empty_like(weights) for _ in range(2)]
    dist.all_gather(others, weights)
    assert torch.equal(*others)
    return worst


def worker(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    differences = {
        f"{name}, {'training' if training else 'evaluation'}": compare(genotype, training, rank)
        for name, genotype in cases().items()
        for training in (True, False)
    }
    (Path(folder) / f"{rank}.json").write_text(json.dumps(differences))
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_have_the_gradients_of_one(tmp_path: Path) -> None:
    assert sum(bool(dead_nodes(g.normal, g.normal_concat)) for g in cases().values()) >= 3
    multiprocessing.spawn(worker, args=(str(tmp_path),), nprocs=2)  # type: ignore[attr-defined, no-untyped-call]
    for rank in (0, 1):
        differences = json.loads((tmp_path / f"{rank}.json").read_text())
        assert len(differences) == 2 * len(cases())
        assert {name: value for name, value in differences.items() if not value < 1e-10} == {}
