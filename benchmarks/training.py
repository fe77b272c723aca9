"""A training step at every level of speed, against a plain module fed by PIL.

The plain contestant is the tests' oracle network (NCHW, float32, one module per operation) with the paper's
per-image pipeline in a DataLoader of two workers. All start from the same weights; their losses on one batch
are compared before anything is timed.
"""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset, get_worker_info

from benchmarks.record import (
    DEVICE,
    TOLERANCE,
    alternate,
    machine,
    memory_of,
    print_times,
    ratio_of,
    summary,
    write,
)
from nas_lightning.acceleration import LEVELS, Level, accelerate
from nas_lightning.cells import get_genotype
from nas_lightning.datamodules import Synthetic
from nas_lightning.networks import CellNetwork, load_reference_weights
from tests.oracles.per_image_pipeline import augment_image
from tests.oracles.plain_network import PlainNetwork

Batch = tuple[Tensor, Tensor]
# How many times faster than the plain module a step should be: in float32, and in mixed precision.
LIMITS = {"compiled": -2.5, "max": -5.0} if DEVICE.type == "cuda" else {"compiled": -3.5}


class PlainImages(Dataset[tuple[Tensor, int]]):
    """The paper's pipeline, one image at a time."""

    def __init__(self, data: Synthetic) -> None:
        images, targets = data.split_arrays("train")
        self.images, self.targets = images.numpy(), targets.tolist()
        self.mean, self.std, self.length = data.mean, data.std, data.cutout
        self.random: np.random.Generator | None = None

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        if self.random is None:
            # Made in the worker and with its number, so that no two workers augment alike.
            worker = get_worker_info()
            self.random = np.random.default_rng(0 if worker is None else worker.id)
        size = self.images.shape[-1]
        top, left = self.random.integers(0, 9, 2)
        row, column = self.random.integers(0, size, 2)
        image = augment_image(
            self.images[index],
            top=int(top),
            left=int(left),
            flip=bool(self.random.integers(2)),
            centre=(int(row), int(column)),
            padding=4,
            length=self.length,
            mean=self.mean,
            std=self.std,
        )
        return torch.from_numpy(image), self.targets[index]


def forever(loader: DataLoader[Any]) -> Iterator[Any]:
    """The loader's batches, epoch after epoch."""
    while True:
        yield from loader


def step_function(network: nn.Module, level: Level) -> Callable[[tuple[Tensor, Tensor]], Tensor]:
    """Forward, backward, clip and optimiser step of a network, as CellClassifier does them at a level."""
    compute = accelerate(network, level, cuda_graphs=True)
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    fused = level.fused or None
    optimiser = torch.optim.SGD(parameters, lr=0.025, momentum=0.9, weight_decay=3e-4, fused=fused)

    def step(batch: tuple[Tensor, Tensor]) -> Tensor:
        inputs, targets = batch
        output = compute(inputs)
        logits = output[0] if isinstance(output, tuple) else output
        loss = functional.cross_entropy(logits, targets)
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(parameters, 5.0)
        optimiser.step()
        return loss.detach()

    return step


def make_networks(
    settings: argparse.Namespace, levels: Sequence[str]
) -> tuple[PlainNetwork, dict[str, CellNetwork]]:
    """The plain network, and one of ours for each level, all with the same weights."""
    genotype = get_genotype(settings.genotype)
    sizes = {"init_channels": settings.init_channels, "num_cells": settings.num_cells}
    torch.manual_seed(0)
    plain = PlainNetwork(genotype, 10, **sizes).to(DEVICE).train()
    networks = {}
    for name in levels:
        networks[name] = CellNetwork(genotype, 10, **sizes).to(DEVICE).train()
        load_reference_weights(networks[name], plain.state_dict())
    return plain, networks


def measure_memory(settings: argparse.Namespace) -> float:
    """Memory of one contestant's step in this fresh process, in MiB."""
    name = settings.memory
    plain, networks = make_networks(settings, [] if name == "plain" else [name])
    level = LEVELS["reference" if name == "plain" else name]
    step = step_function(plain if name == "plain" else networks[name], level)
    images = torch.randn(settings.batch_size, 3, settings.image_size, settings.image_size, device=DEVICE)
    targets = torch.randint(10, (settings.batch_size,), device=DEVICE)
    return memory_of(lambda: step((images, targets)))


def memory_in_child(settings: argparse.Namespace, contestant: str) -> float:
    """`measure_memory` of a contestant in a fresh process."""
    options = [f"--{name}={value}" for name, value in {**vars(settings), "memory": contestant}.items()]
    command = [sys.executable, "-m", "benchmarks.training", *options]
    root = Path(__file__).parents[1]
    return float(subprocess.run(command, cwd=root, check=True, stdout=subprocess.PIPE).stdout.split()[-1])


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and keep the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--memory", choices=("plain", *LEVELS), help="print one contestant's MiB, and end")
    parser.add_argument("--genotype", default="darts_v2")
    parser.add_argument("--levels", default=",".join(LEVELS), help="which levels, separated by commas")
    sizes = {"init_channels": 16, "num_cells": 8, "batch_size": 64, "image_size": 32, "cutout": 16}
    if DEVICE.type == "cuda":  # the paper's network
        sizes |= {"init_channels": 36, "num_cells": 20, "batch_size": 80}
    for name, default in {**sizes, "rounds": 9}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    settings = parser.parse_args(arguments)
    torch.backends.cudnn.allow_tf32 = False  # float32 is float32
    if settings.memory:
        print(measure_memory(settings))
        return
    del settings.memory
    if settings.rounds < 2:
        parser.error(f"--rounds (={settings.rounds}) must be at least 2: there are no quartiles of one")
    levels = settings.levels.split(",")
    data = Synthetic(
        **{"train_size": 50_000, "test_size": 10, "image_size": settings.image_size},
        **{"batch_size": settings.batch_size, "cutout": settings.cutout, "seed": 0},
    )
    data.setup()
    plain, networks = make_networks(settings, levels)
    batches = forever(data.train_dataloader())

    def prepare() -> tuple[Tensor, Tensor]:
        moved = data.transfer_batch_to_device(next(batches), DEVICE)
        inputs, targets = data.on_after_batch_transfer(moved)
        return inputs, targets

    loader = DataLoader(
        PlainImages(data),
        batch_size=settings.batch_size,
        shuffle=True,
        num_workers=2,
        persistent_workers=True,
    )
    plain_batches = forever(loader)
    batch = prepare()
    steps = {"plain": step_function(plain, LEVELS["reference"])}
    for name, network in networks.items():
        steps[name] = step_function(network, LEVELS[name])
    first_seconds, differences = {}, {}
    expected = math.nan
    for name, step in steps.items():
        start = time.perf_counter()
        loss = float(step(batch))
        first_seconds[name] = time.perf_counter() - start
        if name == "plain":
            expected = loss
        # Rounding: the mathematics is the same, but done in another order, and at "max" in bfloat16.
        torch.testing.assert_close(loss, expected, rtol=2e-2 if name == "max" else TOLERANCE, atol=0.0)
        differences[name] = abs(loss - expected) / expected

    def plain_training() -> Tensor:
        inputs, targets = next(plain_batches)
        return steps["plain"]((inputs.to(DEVICE), targets.to(DEVICE)))

    contestants: dict[str, Callable[[], object]] = {
        f"{name} step": partial(step, batch) for name, step in steps.items()
    }
    contestants |= {"data preparation": prepare, "plain training": plain_training}
    contestants |= {f"{name} training": partial(_train, steps[name], prepare) for name in levels}
    seconds = alternate(contestants, settings.rounds)
    times = summary(seconds)
    best = "compiled" if "compiled" in levels else levels[-1]
    ratios = {
        f"step, plain / {name}": ratio_of(seconds, "plain step", f"{name} step", LIMITS.get(name))
        for name in levels
    }
    ratios |= {
        f"training, plain / {name}": ratio_of(seconds, "plain training", f"{name} training")
        for name in levels
    }
    ratios["data preparation / step"] = ratio_of(seconds, "data preparation", f"{best} step", 0.02)
    print(f"{machine()['processor']}, {machine()['threads']} threads, {machine()['gpu'] or 'no GPU'}")
    print_times(times, ratios)
    memory = {name: memory_in_child(settings, name) for name in ("plain", *levels)}
    record = {
        "settings": vars(settings),
        "relative_differences_of_losses": differences,
        "seconds_of_the_first_step": first_seconds,
        "seconds": times,
        "ratios": ratios,
        "memory_mib": memory | {f"{name} / plain": memory[name] / memory["plain"] for name in levels},
    }
    print("memory, MiB: " + ", ".join(f"{name} {value:.0f}" for name, value in memory.items()))
    print(f"written to {write('training', record)}")


def _train(step: Callable[[Batch], Tensor], prepare: Callable[[], Batch]) -> Tensor:
    return step(prepare())


if __name__ == "__main__":
    main()
