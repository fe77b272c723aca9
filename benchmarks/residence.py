"""Images per second of a training whose images stay on the host, against one that holds them on its device.

The images lie in a file that is mapped into memory, 50,000 of CIFAR's size. Both trainings are given the same
batches, which is asserted before anything is timed, and alternate in one process, a few steps a turn: CPU
seconds of all threads, which other processes change least, or wall seconds on a GPU.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from benchmarks.record import DEVICE, alternate, machine, print_times, ratio_of, summary, write
from benchmarks.training import forever, make_networks, step_function
from nas_lightning.acceleration import LEVELS
from nas_lightning.datamodules import Synthetic
from nas_lightning.datamodules.base import LabelledImages, OfficialSplit
from nas_lightning.datamodules.image_cache import map_npy, write_npy

ASKED = 0.95
NETWORKS = ((4, 3), (16, 8))
"""Channels and cells: of the quick start, where the images take the largest part of a step, and of
:mod:`benchmarks.training`."""


class Mapped(Synthetic):
    """The images of Synthetic in a file, which is mapped into memory."""

    def load_split(self, split: OfficialSplit) -> LabelledImages:
        """Write the file, once, and map it."""
        path = Path(self.root, f"{split}.npy")
        if not path.exists():
            made = super().load_split(split)[0].numpy()
            write_npy(path, made.shape, "|u1", [made])
        images = torch.from_numpy(map_npy(path))
        return images, torch.arange(len(images)) % self.num_classes


class Training:
    """A training that goes on a few steps at each call."""

    def __init__(self, resident: Any, root: str, settings: Namespace) -> None:
        sizes = {"train_size": settings.images, "test_size": 10, "image_size": 32}
        self.data = Mapped(
            **sizes, root=root, batch_size=settings.batch_size, cutout=16, seed=0, resident=resident
        )
        strategy = SimpleNamespace(root_device=DEVICE)
        trainer = SimpleNamespace(world_size=1, global_rank=0, strategy=strategy, lightning_module=None)
        self.data.trainer = trainer  # type: ignore[assignment]
        self.data.setup()
        self.batches = forever(self.data.train_dataloader())
        self.step = step_function(make_networks(settings, ["fast"])[1]["fast"], LEVELS["fast"])
        self.steps = settings.steps

    def batch(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Inputs and targets of the next step."""
        moved = self.data.transfer_batch_to_device(next(self.batches), DEVICE)
        inputs, targets = self.data.on_after_batch_transfer(moved)
        return inputs, targets

    def __call__(self) -> None:
        """Train."""
        for _ in range(self.steps):
            self.step(self.batch())


def measure(settings: Namespace, root: str) -> dict[str, list[float]]:
    """Seconds of some steps of both trainings, by where the images are."""
    trainings = {resident: Training(resident, root, settings) for resident in ("device", "host")}
    for _ in range(3):
        held, gathered = (training.batch() for training in trainings.values())
        torch.testing.assert_close(gathered, held, rtol=0, atol=0)
    clock = time.perf_counter if DEVICE.type == "cuda" else time.process_time
    return alternate(trainings, settings.rounds, clock)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and keep the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--genotype", default="darts_v2")
    for name, default in {"batch_size": 64, "images": 50_000, "steps": 10, "rounds": 15}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    settings = parser.parse_args(arguments)
    if settings.rounds < 2:
        parser.error(f"--rounds (={settings.rounds}) must be at least 2: there are no quartiles of one")
    times: dict[str, Any] = {}
    ratios: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as root:
        for channels, cells in NETWORKS:
            network = Namespace(**vars(settings), init_channels=channels, num_cells=cells)
            seconds = measure(network, root)
            name = f"{channels} channels, {cells} cells"
            times |= {f"{name}, {resident}": values for resident, values in summary(seconds).items()}
            # Seconds of the one over those of the other are images a second of the other over the one's.
            ratios[f"{name}, images a second, host / device"] = ratio_of(seconds, "device", "host", -ASKED)
    print(f"{machine()['processor']}, {machine()['threads']} threads, {machine()['gpu'] or 'no GPU'}")
    print_times(times, ratios)
    clock = "wall" if DEVICE.type == "cuda" else "CPU seconds of all threads"
    record = {"settings": vars(settings), "clock": clock, "seconds": times, "ratios": ratios}
    print(f"written to {write('residence', record)}")


if __name__ == "__main__":
    main()
