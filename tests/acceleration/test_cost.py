"""What a training step costs at the level `fast` against `reference`, alone and on a busy machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from nas_lightning.acceleration import accelerate
from nas_lightning.cells import get_genotype
from nas_lightning.networks import CellNetwork


@pytest.fixture
def every_kernel() -> None:
    """Not here: kernels are chosen as users' are."""


def costs(batch: int, rounds: int, clock: Callable[[], tuple[float, ...]]) -> dict[str, tuple[float, ...]]:
    """The least of each clock for a training step of darts_v2 at two levels, which alternate."""
    torch.manual_seed(0)
    network = CellNetwork(get_genotype("darts_v2"), 10, init_channels=16, num_cells=8).train()
    x, targets = torch.randn(batch, 3, 32, 32), torch.randint(10, (batch,))
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]

    def step(forward: Callable[[Tensor], Tensor]) -> None:
        torch.autograd.grad(functional.cross_entropy(forward(x), targets), parameters)

    forwards: dict[str, Callable[[Tensor], Tensor]] = {
        level: accelerate(network, level) for level in ("reference", "fast")
    }
    least: dict[str, tuple[float, ...]] = {}
    for index in range(rounds + 1):
        for level, forward in forwards.items():
            before = clock()
            step(forward)
            seconds = tuple(b - a for a, b in zip(before, clock(), strict=True))
            if index > 0:
                least[level] = tuple(map(min, least.get(level, seconds), seconds))
    return least


def test_fast_costs_no_more_than_reference() -> None:
    """In CPU seconds of one thread; where kernels are slower than layers, `fast` computes layers."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        least = costs(24, 4, lambda: (time.thread_time(),))
    finally:
        torch.set_num_threads(threads)
    assert least["fast"][0] <= least["reference"][0], least


_CODE = """
import json, sys, time
from nas_lightning.cli.waiting import sleep_while_waiting
sleep_while_waiting()
from tests.acceleration.test_cost import costs
print(json.dumps(costs(12, 4, lambda: (time.process_time(), time.perf_counter()))))
"""


@pytest.mark.slow
def test_on_a_busy_machine_fast_costs_no_more_than_reference() -> None:
    """With a busy process on each core and all threads: 1.3 times as much at most, CPU and wall."""
    cores = os.cpu_count() or 1
    busy = "import time\nend = time.time() + 120\nwhile time.time() < end: pass"
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))
    }
    others = [subprocess.Popen([sys.executable, "-c", busy]) for _ in range(cores)]
    try:
        run = subprocess.run(
            [sys.executable, "-c", _CODE], env=environment, capture_output=True, text=True, timeout=240
        )
    finally:
        for other in others:
            other.kill()
            other.wait()
    assert run.returncode == 0, run.stderr
    least = json.loads(run.stdout.splitlines()[-1])
    for fast, reference in zip(least["fast"], least["reference"], strict=True):
        assert fast <= 1.3 * reference, least
