"""Cost of a contour point and of exact gradient statistics, against plain implementations.

The tests' oracle network, with the same weights, stands for what people run today. What the contestants
compute is compared before anything is timed.
"""

from __future__ import annotations

import argparse
import math
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.record import alternate, machine, summary, write
from nas_lightning.analysis import InstanceGradients, Point, loss_measure, random_directions, sum_gradients
from nas_lightning.cells import get_genotype
from nas_lightning.networks import CellNetwork, load_reference_weights
from tests.oracles.plain_network import PlainNetwork

GENOTYPE = get_genotype("darts_v2")
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
Batch = tuple[Tensor, Tensor]
Forward = Callable[[Tensor], Tensor]
Sums = tuple[Tensor, list[Tensor]]
Contestants = dict[str, Callable[[], Any]]

# What is divided by what, and what the ratio may be at most (None: for information).
RATIOS: Mapping[tuple[str, str], float | None] = {
    ("contour point", "evaluation pass"): 1.05,
    ("contour point", "plain contour point"): None,
    ("statistics", "ordinary backward"): 1.8,
    ("statistics", "backward per instance"): 0.45,
    ("statistics without set-up", "ordinary backward"): None,
    ("statistics", "vmap"): None,
    ("statistics", "plain ordinary backward"): None,
}


def make_networks(settings: argparse.Namespace) -> tuple[PlainNetwork, CellNetwork]:
    """The plain network and ours, with the same weights, in evaluation mode."""
    torch.manual_seed(0)
    sizes = {"init_channels": settings.channels, "num_cells": settings.cells}
    plain = PlainNetwork(GENOTYPE, 10, **sizes).to(DEVICE).eval()
    network = CellNetwork(GENOTYPE, 10, **sizes).to(DEVICE).eval()
    load_reference_weights(network, plain.state_dict())
    return plain, network


def make_images(settings: argparse.Namespace, count: int) -> Batch:
    """Random images and classes, the same on every device."""
    images = torch.randn(count, 3, settings.image_size, settings.image_size)
    return images.to(DEVICE), torch.randint(10, (count,)).to(DEVICE)


def evaluation_pass(forward: Forward, batches: Sequence[Batch]) -> float:
    """Mean cross entropy, the device waited for once."""
    with torch.no_grad():
        losses = [functional.cross_entropy(forward(x), targets, reduction="sum") for x, targets in batches]
        return float(torch.stack(losses).sum()) / sum(len(targets) for _, targets in batches)


def ordinary_backward(forward: Forward, live: Sequence[Tensor], batch: Batch) -> tuple[Tensor, ...]:
    """Gradient of the mean loss of a batch."""
    return torch.autograd.grad(functional.cross_entropy(forward(batch[0]), batch[1]), live)


def backward_per_instance(network: nn.Module, live: Sequence[Tensor], batch: Batch) -> Sums:
    """Sums over instances of the gradient's square and of the gradient, one backward pass after the other."""
    sums = [torch.zeros_like(parameter) for parameter in live]
    squares = torch.zeros((), dtype=torch.float64, device=sums[0].device)
    for instance in zip(*(torch.split(values, 1) for values in batch), strict=True):
        gradients = ordinary_backward(network, live, instance)
        torch._foreach_add_(sums, list(gradients))
        squares += sum_of_squares(gradients)
    return squares, sums


def vmap_per_instance(network: nn.Module, batch: Batch) -> Sums:
    """The same by ``vmap(grad)`` over the whole network, 16 instances at a time to fit into memory."""

    def loss(parameters: dict[str, Tensor], x: Tensor, target: Tensor) -> Tensor:
        logits: Tensor = torch.func.functional_call(network, parameters, (x[None],))
        return functional.cross_entropy(logits, target[None])

    parameters = {name: p.detach() for name, p in network.named_parameters() if p.requires_grad}
    per_instance = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0), chunk_size=16)
    gradients = list(per_instance(parameters, *batch).values())
    return sum_of_squares(gradients, torch.float64), [gradient.sum(0) for gradient in gradients]


def sum_of_squares(tensors: Sequence[Tensor], dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.stack(list(torch._foreach_norm(list(tensors), dtype=dtype))).double().square().sum()


def relative_difference(value: float, expected: float) -> float:
    """How far two contestants' numbers are apart; an AssertionError if by more than rounding."""
    torch.testing.assert_close(value, expected, rtol=1e-5, atol=0.0)
    return abs(value - expected) / abs(expected)


@contextmanager
def contour_contestants(settings: argparse.Namespace) -> Iterator[tuple[Contestants, dict[str, float]]]:
    """A contour point, ours and others', after their losses at w* have been compared."""
    plain, network = make_networks(settings)
    images, classes = make_images(settings, settings.images)
    batches = list(zip(*(torch.split(values, settings.batch) for values in (images, classes)), strict=True))
    loader = DataLoader(TensorDataset(images.cpu(), classes.cpu()), batch_size=settings.batch)
    center = {name: parameter.detach().clone() for name, parameter in plain.named_parameters()}
    first, second = random_directions(plain, seed=0)

    def plain_point(alpha: float, beta: float) -> float:
        for name, parameter in plain.named_parameters():
            parameter.data = center[name] + alpha * first[name] + beta * second[name]
        total = 0.0
        with torch.no_grad():
            for inputs, targets in loader:
                loss = functional.cross_entropy(plain(inputs.to(DEVICE))[0], targets.to(DEVICE))
                total += float(loss) * len(targets)
        return total / len(images)

    with loss_measure(network, batches, {0: random_directions(network, seed=0)}) as measure:
        contestants: Contestants = {
            "evaluation pass": lambda: evaluation_pass(network, batches),
            "contour point": lambda: measure(Point(0, 0.5, -0.5, (0, 0, 0))),
            "plain contour point": lambda: plain_point(0.5, -0.5),
        }
        loss = measure(Point(0, 0.0, 0.0, (0, 0, 0)))["loss"]
        differences = {"loss, evaluation pass": relative_difference(loss, evaluation_pass(network, batches))}
        differences["loss, plain contour point"] = relative_difference(loss, plain_point(0.0, 0.0))
        yield contestants, differences


def gradient_contestants(settings: argparse.Namespace) -> tuple[Contestants, dict[str, float]]:
    """Gradient statistics of one batch, after variances and mean gradients have been compared."""
    plain, network = make_networks(settings)
    batch = make_images(settings, settings.batch)
    prepared = InstanceGradients(network, *batch)
    live, plain_live = list(prepared.parameters.values()), list(plain.parameters())
    contestants: Contestants = {
        "ordinary backward": lambda: ordinary_backward(network, live, batch),
        # As for a single batch: finding out the layers and checking their rules included.
        "statistics": lambda: sum_gradients(InstanceGradients(network, *batch), [batch]).statistics(),
        "statistics without set-up": lambda: sum_gradients(prepared, [batch]).statistics(),
        "backward per instance": lambda: backward_per_instance(network, live, batch),
        "vmap": lambda: vmap_per_instance(network, batch),
        "plain ordinary backward": lambda: ordinary_backward(lambda x: plain(x)[0], plain_live, batch),
    }
    exact = contestants["statistics"]()
    differences: dict[str, float] = {}
    for name in ("backward per instance", "vmap"):
        squares, sums = contestants[name]()
        norm = math.sqrt(sum_of_squares(sums)) / settings.batch
        variance = float(squares) / settings.batch - norm**2
        differences[f"variance, {name}"] = relative_difference(exact.variance, variance)
        differences[f"mean gradient norm, {name}"] = relative_difference(exact.mean_gradient_norm, norm)
    for name in ("ordinary backward", "plain ordinary backward"):
        norm = math.sqrt(sum_of_squares(contestants[name]()))
        differences[f"mean gradient norm, {name}"] = relative_difference(exact.mean_gradient_norm, norm)
    return contestants, differences


def high_water_mark() -> float:
    """Most memory this process has held so far, in MiB: allocated on a GPU, resident without one."""
    if DEVICE.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    status = Path("/proc/self/status")
    if not status.exists():  # macOS, which counts bytes
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    # On Linux a child inherits its parent's ru_maxrss, in which its own mark would drown.
    return int(status.read_text().partition("VmHWM:")[2].split()[0]) / 2**10


def memory_rise(settings: argparse.Namespace, contestant: str) -> float:
    """How far one contestant, set-up included, raises the high-water mark of this fresh process, in MiB.

    It rises from where it is once network and batch are made and a forward pass without gradients has run.
    """
    _, network = make_networks(settings)
    batch = make_images(settings, settings.batch)
    evaluation_pass(network, [batch])
    level = high_water_mark()
    if contestant == "exact":
        sum_gradients(InstanceGradients(network, *batch), [batch]).statistics()
    else:
        ordinary_backward(network, list(network.evaluated_parameters().values()), batch)
    return high_water_mark() - level


def memory_in_child(settings: argparse.Namespace, contestant: str) -> float:
    """`memory_rise` of a contestant in a fresh process."""
    options = [f"--{name}={value}" for name, value in [("memory", contestant), *vars(settings).items()]]
    command = [sys.executable, "-m", "benchmarks.landscape", *options]
    root = Path(__file__).parents[1]
    return float(subprocess.run(command, cwd=root, check=True, stdout=subprocess.PIPE).stdout)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and keep the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--memory", choices=("exact", "ordinary"), help="print one contestant's MiB, and end")
    sizes = {"channels": 16, "cells": 8, "batch": 64, "images": 256, "image_size": 32, "rounds": 9}
    for name, default in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    settings = parser.parse_args(arguments)
    if settings.rounds < 2:
        parser.error(f"--rounds (={settings.rounds}) must be at least 2: there are no quartiles of one")
    torch.backends.cudnn.allow_tf32 = False  # float32 throughout
    if contestant := vars(settings).pop("memory"):
        print(memory_rise(settings, contestant))
        return
    with contour_contestants(settings) as (contour, differences):
        gradient, gradient_differences = gradient_contestants(settings)
        seconds = alternate(contour, settings.rounds) | alternate(gradient, settings.rounds)
    memory = {name: memory_in_child(settings, name) for name in ("exact", "ordinary")}
    memory |= {"exact / ordinary": memory["exact"] / memory["ordinary"], "at_most": 1.5}
    times: dict[str, Any] = {**summary(seconds)}
    ratios: dict[str, Any] = {}
    for (over, under), limit in RATIOS.items():
        # Divided round by round: what slows the machine down for a while slows both.
        divided = [a / b for a, b in zip(seconds[over], seconds[under], strict=True)]
        ratios[f"{over} / {under}"] = {**summary({"": divided})[""], "at_most": limit}
    print(f"{machine()['processor']}, {machine()['threads']} threads, {machine()['gpu'] or 'no GPU'}")
    for name, values in (times | ratios).items():
        low, median, high = (values[key] for key in ("lower_quartile", "median", "upper_quartile"))
        remark = "s" if name in times else f"at most {values['at_most']}" if values["at_most"] else ""
        print(f"{name:<46} {median:9.4f}  ({low:.4f} to {high:.4f})  {remark}".rstrip())
    print("memory, MiB: " + ", ".join(f"{name} {value:.2f}" for name, value in memory.items()))
    record = {
        "settings": {"genotype": "darts_v2", **vars(settings)},
        "relative_differences": differences | gradient_differences,
        "seconds": times,
        "ratios": ratios,
        "memory_mib": memory,
    }
    print(f"written to {write('landscape', record)}")


if __name__ == "__main__":
    main()
