"""Images per second of a training step, against a plain module fed by PIL.

The plain contestant is the tests' oracle network (NCHW, float32, one module per operation) with the paper's
per-image pipeline in a DataLoader of two workers. Both start from the same weights; their losses on one batch
are compared before anything is timed.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset, get_worker_info

from benchmarks.record import alternate, machine, summary, write
from nas_lightning.cells import get_genotype
from nas_lightning.datamodules import Synthetic
from nas_lightning.networks import CellNetwork, load_reference_weights
from tests.oracles.per_image_pipeline import augment_image
from tests.oracles.plain_network import PlainNetwork


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


def step_function(network: nn.Module) -> Callable[[tuple[Tensor, Tensor]], float]:
    """Forward, backward, clip and optimiser step of a network."""
    parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimiser = torch.optim.SGD(parameters, lr=0.025, momentum=0.9, weight_decay=3e-4)

    def step(batch: tuple[Tensor, Tensor]) -> float:
        inputs, targets = batch
        output = network(inputs)
        logits = output[0] if isinstance(output, tuple) else output
        loss = functional.cross_entropy(logits, targets)
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(parameters, 5.0)
        optimiser.step()
        return float(loss.detach())

    return step


def main() -> None:
    """Measure, print and keep the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--genotype", default="darts_v2")
    parser.add_argument("--init_channels", type=int, default=16)
    parser.add_argument("--num_cells", type=int, default=8)
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--cutout", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=9)
    settings = parser.parse_args()

    genotype = get_genotype(settings.genotype)
    sizes = {"init_channels": settings.init_channels, "num_cells": settings.num_cells}
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    data = Synthetic(
        train_size=50_000, test_size=10, batch_size=settings.batch_size, cutout=settings.cutout, seed=0
    )
    data.setup()

    torch.manual_seed(0)
    plain = PlainNetwork(genotype, 10, **sizes).to(device).train()
    network = CellNetwork(genotype, 10, **sizes).to(device).train()
    load_reference_weights(network, plain.state_dict())

    batches = forever(data.train_dataloader())

    def prepare() -> tuple[Tensor, Tensor]:
        moved = data.transfer_batch_to_device(next(batches), device)
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
    with torch.no_grad():
        both_logits = plain(batch[0])[0], network(batch[0])
        losses = [functional.cross_entropy(logits, batch[1]) for logits in both_logits]
    # assert_close's tolerance for float32 (1.3e-6 relative), not equality: the mathematics is the same, but
    # done in another order.
    torch.testing.assert_close(losses[0], losses[1])

    plain_step, step = step_function(plain), step_function(network)

    def plain_training() -> None:
        inputs, targets = next(plain_batches)
        plain_step((inputs.to(device), targets.to(device)))

    times = summary(
        alternate(
            {
                "plain step": lambda: plain_step(batch),
                "step": lambda: step(batch),
                "data preparation": prepare,
                "plain training": plain_training,
                "training": lambda: step(prepare()),
            },
            settings.rounds,
        )
    )
    medians = {name: values["median"] for name, values in times.items()}
    ratios = {
        "step, plain / ours": medians["plain step"] / medians["step"],
        "training, plain / ours": medians["plain training"] / medians["training"],
        "data preparation, share of training": medians["data preparation"] / medians["training"],
    }
    record = {
        "settings": vars(settings),
        "seconds": times,
        "images_per_second": {
            name: settings.batch_size / medians[name] for name in ("plain training", "training")
        },
        "ratios": ratios,
    }
    print(f"{machine()['processor']}, {machine()['threads']} threads, {machine()['gpu'] or 'no GPU'}")
    for name, values in times.items():
        print(
            f"{name:<18} {values['median'] * 1e3:9.1f} ms"
            f"  ({values['lower_quartile'] * 1e3:.1f} to {values['upper_quartile'] * 1e3:.1f})"
        )
    for name, ratio in ratios.items():
        print(f"{name}: {ratio:.3f}")
    print(f"written to {write('training', record)}")


if __name__ == "__main__":
    main()
