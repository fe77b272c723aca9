"""Cost of a contour point, of exact gradient statistics and of curvature, against plain implementations.

The tests' oracle network, with the same weights, stands for what people run today. What the contestants
compute is compared before anything is timed.
"""

from __future__ import annotations

import argparse
import copy
import math
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

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
from benchmarks.trajectory_memory import MOST_MEBIBYTES, measure_in_child
from nas_lightning.acceleration import PerSampleSums, accelerate, twice_differentiable
from nas_lightning.analysis import (
    GaussNewtonProduct,
    HessianProduct,
    PerSampleGradients,
    Point,
    lanczos_quadrature,
    loss_at_points,
    losses_along,
    losses_between,
    profile_directions,
    random_directions,
    sum_gradients,
)
from nas_lightning.cells import get_genotype
from nas_lightning.networks import CellNetwork, load_reference_weights
from tests.oracles.plain_network import PlainNetwork

GENOTYPE = get_genotype("darts_v2")
Batch = tuple[Tensor, Tensor]
Forward = Callable[[Tensor], Tensor]
Sums = tuple[Tensor, list[Tensor]]
Contestants = dict[str, Callable[[], Any]]

# What is divided by what, and what the ratio may be at most, or at least if it is negative (None: for
# information). Without the level "compiled" its ratios are left out.
RATIOS: Mapping[tuple[str, str], float | None] = {
    ("plain contour point", "contour point, compiled"): -4.5,
    ("plain contour point", "contour point, fast"): None,
    ("plain contour point", "contour point, reference"): None,
    **{
        (f"{own}, {level}", other.format(level)): 1.05
        for level in ("compiled", "fast")
        for own, other in (
            ("contour point", "{} evaluation pass"),
            ("line point", "contour point, {}"),
            ("interpolation point", "contour point, {}"),
        )
    },
    ("backward per instance", "statistics, compiled"): -5.0,
    ("backward per instance", "statistics, fast"): None,
    ("statistics, compiled", "plain ordinary backward"): 1.0,
    ("statistics, fast", "plain ordinary backward"): None,
    ("statistics, fast", "ordinary backward"): None,
    ("vmap", "statistics, compiled"): None,
    ("Hessian product", "plain ordinary backward"): 2.6,
    ("Hessian product", "ordinary backward"): 2.6,
    ("Hessian product of PyTorch's layers", "plain ordinary backward"): None,
    ("Gauss-Newton product", "plain ordinary backward"): None,
    ("4 Hessian products in lockstep", "Hessian product"): 4.0,
    # A density of 64 steps and 4 vectors may cost a tenth more than its 256 products over one batch.
    ("Lanczos of a density without its products", "Hessian product"): 25.6,
}

# Whose memory is measured, and what it is divided by: gradients of a batch, and points of a contour.
MEMORY: Mapping[str, str | None] = {
    "plain": None,
    "fast": "plain",
    "compiled": "plain",
    "plain contour point": None,
    "fast contour point": "plain contour point",
    "compiled contour point": "plain contour point",
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
    torch.testing.assert_close(value, expected, rtol=TOLERANCE, atol=0.0)
    return abs(value - expected) / abs(expected)


@contextmanager
def contour_contestants(settings: argparse.Namespace) -> Iterator[tuple[Contestants, dict[str, float]]]:
    """A contour point, ours and others', after their losses at w* have been compared."""
    plain, network = make_networks(settings)
    images, classes = make_images(settings, settings.images)
    batches = list(zip(*(torch.split(values, settings.batch) for values in (images, classes)), strict=True))
    loader = DataLoader(TensorDataset(images.cpu(), classes.cpu()), batch_size=settings.batch)
    w_star = {name: parameter.detach().clone() for name, parameter in plain.named_parameters()}
    weights = copy.deepcopy(network.state_dict())
    first, second = random_directions(plain, seed=0)

    def plain_point(alpha: float, beta: float) -> float:
        for name, parameter in plain.named_parameters():
            parameter.data = w_star[name] + alpha * first[name] + beta * second[name]
        total = 0.0
        with torch.no_grad():
            for inputs, targets in loader:
                loss = functional.cross_entropy(plain(inputs.to(DEVICE))[0], targets.to(DEVICE))
                total += float(loss) * len(targets)
        return total / len(images)

    directions = {0: random_directions(network, seed=0)}
    levels = settings.levels.split(",")
    best = levels[-1]
    folded = accelerate(network, best)
    with ExitStack() as stack:
        contestants: Contestants = {
            "plain contour point": lambda: plain_point(0.5, -0.5),
            f"{best} evaluation pass": lambda: evaluation_pass(folded, batches),
        }
        center, aside = Point(0, 0.0, 0.0, (0, 0, 0)), Point(0, 0.5, -0.5, (0, 0, 0))
        expected = plain_point(0.0, 0.0)
        differences = {
            f"loss, {best} evaluation pass": relative_difference(evaluation_pass(folded, batches), expected)
        }
        for speed in levels:
            measure = stack.enter_context(
                loss_at_points(network, batches, directions, forward=accelerate(network, speed))
            )
            differences[f"loss, {speed}"] = relative_difference(measure(center)["loss"], expected)
            contestants[f"contour point, {speed}"] = partial(measure, aside)
            network.load_state_dict(weights)
        along, splits = {0: profile_directions(network, 0)}, {"test": batches}
        line = stack.enter_context(losses_along(network, splits, along, forward=folded))
        ends = {0: (weights, network_at(weights, along[0][0]))}
        between = stack.enter_context(losses_between(network, splits, ends, forward=folded))
        for name, measured in (("line", line), ("interpolation", between)):
            differences[f"loss, {name}"] = relative_difference(measured(center)["test_loss"], expected)
            contestants[f"{name} point, {best}"] = partial(measured, Point(0, 0.5, 0.0, (0, 0, 0)))
            network.load_state_dict(weights)
        yield contestants, differences


def network_at(weights: Mapping[str, Tensor], direction: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state one step along a direction."""
    return {name: value + direction[name] if name in direction else value for name, value in weights.items()}


def gradient_contestants(settings: argparse.Namespace) -> tuple[Contestants, dict[str, float]]:
    """Gradient statistics of one batch, after variances and mean gradients have been compared."""
    plain, network = make_networks(settings)
    batch = make_images(settings, settings.batch)
    prepared = PerSampleGradients(network, *batch)
    live, plain_live = list(prepared.parameters.values()), list(plain.parameters())
    contestants: Contestants = {
        "ordinary backward": lambda: ordinary_backward(network, live, batch),
        "statistics, fast": lambda: sum_gradients(prepared, [batch]).statistics(),
        "backward per instance": lambda: backward_per_instance(network, live, batch),
        "vmap": lambda: vmap_per_instance(network, batch),
        "plain ordinary backward": lambda: ordinary_backward(lambda x: plain(x)[0], plain_live, batch),
    }
    exact = contestants["statistics, fast"]()
    differences = {}
    if "compiled" in settings.levels:
        fused = PerSampleSums(network, prepared.parameters, prepared.rules)
        contestants["statistics, compiled"] = lambda: sum_gradients(prepared, [batch], fused).statistics()
        compiled = contestants["statistics, compiled"]()
        differences["variance, compiled"] = relative_difference(compiled.variance, exact.variance)
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


def curvature_contestants(settings: argparse.Namespace) -> tuple[Contestants, dict[str, float]]:
    """Products over one batch and Lanczos without them, after the products have been compared."""
    network = make_networks(settings)[1]
    batch = make_images(settings, settings.batch)
    cheap = twice_differentiable(network)
    kinds = {"Hessian product": HessianProduct, "Gauss-Newton product": GaussNewtonProduct}
    products = {name: kind(network, [batch], forward=cheap) for name, kind in kinds.items()}
    slow = {name: kind(network, [batch]) for name, kind in kinds.items()}
    size = products["Hessian product"].size
    vectors = np.random.default_rng(0).standard_normal((size, 4))
    diagonal = np.linspace(-1.0, 10.0, size)[:, None]
    norms = {
        name: [float(np.linalg.norm(one[name].partial(vectors[:, 0]))) for one in (products, slow)]
        for name in kinds
    }
    contestants: Contestants = {
        name: partial(product.partial, vectors[:, 0]) for name, product in products.items()
    }
    contestants |= {
        "Hessian product of PyTorch's layers": lambda: slow["Hessian product"].partial(vectors[:, 0]),
        "4 Hessian products in lockstep": lambda: products["Hessian product"].partial(vectors),
        "Lanczos of a density without its products": lambda: lanczos_quadrature(
            lambda v: diagonal * v, np.ones(size, dtype=bool), range(4), steps=64, device=DEVICE
        ),
    }
    return contestants, {name: relative_difference(*norms[name]) for name in norms}


def measure_memory(settings: argparse.Namespace, contestant: str) -> float:
    """Memory of one of :data:`MEMORY`, in this fresh process, in MiB."""
    if contestant.endswith("contour point"):
        level = contestant.split()[0]
        own = contestant if level == "plain" else f"contour point, {level}"
        with contour_contestants(settings) as (contour, _):
            return memory_of(contour[own])
    plain, network = make_networks(settings)
    batch = make_images(settings, settings.batch)
    if contestant == "plain":
        return memory_of(lambda: ordinary_backward(lambda x: plain(x)[0], list(plain.parameters()), batch))
    prepared = PerSampleGradients(network, *batch)
    fused = PerSampleSums(network, prepared.parameters, prepared.rules) if contestant == "compiled" else None
    return memory_of(lambda: sum_gradients(prepared, [batch], fused))


def memory_in_child(settings: argparse.Namespace, contestant: str) -> float:
    """`measure_memory` of a contestant in a fresh process."""
    options = [f"--{name}={value}" for name, value in [("memory", contestant), *vars(settings).items()]]
    command = [sys.executable, "-m", "benchmarks.landscape", *options]
    root = Path(__file__).parents[1]
    return float(subprocess.run(command, cwd=root, check=True, stdout=subprocess.PIPE).stdout.split()[-1])


def trajectory_memory(settings: argparse.Namespace) -> dict[str, float]:
    """Memory of a process that finds the plane of a path, in MiB; of its default sizes with the limit."""
    sizes = {"init_channels": settings.path_channels, "num_cells": settings.path_cells}
    network = CellNetwork(GENOTYPE, 10, auxiliary=True, **sizes)
    found = measure_in_child(network, settings.path)
    return found | {"the trajectory's limit": MOST_MEBIBYTES}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and keep the record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--memory", choices=MEMORY, help="print one contestant's MiB, and end")
    levels = ("reference", "fast", "compiled")
    parser.add_argument("--levels", default=",".join(levels), help="the first of them, separated by commas")
    paper = {"path": 50, "path_channels": 36, "path_cells": 20}  # 3.8 million parameters with the tower
    sizes = {"channels": 16, "cells": 8, "batch": 64, "images": 512, "image_size": 32, "rounds": 9}
    if DEVICE.type == "cuda":  # the paper's network
        sizes |= {"channels": 36, "cells": 20, "batch": 80, "images": 10_000}
    for name, default in (sizes | paper).items():
        parser.add_argument(f"--{name}", type=int, default=default)
    settings = parser.parse_args(arguments)
    if settings.rounds < 2:
        parser.error(f"--rounds (={settings.rounds}) must be at least 2: there are no quartiles of one")
    if settings.levels not in (",".join(levels[:2]), ",".join(levels)):
        parser.error(f"--levels (={settings.levels}) must be {','.join(levels[:2])} or {','.join(levels)}")
    torch.backends.cudnn.allow_tf32 = False  # float32 throughout
    if contestant := vars(settings).pop("memory"):
        print(measure_memory(settings, contestant))
        return
    with contour_contestants(settings) as (contour, differences):
        gradient, gradient_differences = gradient_contestants(settings)
        curvature, curvature_differences = curvature_contestants(settings)
        seconds = alternate(contour, settings.rounds) | alternate(gradient | curvature, settings.rounds)
    times: dict[str, Any] = {**summary(seconds)}
    ratios = {
        f"{over} / {under}": ratio_of(seconds, over, under, limit)
        for (over, under), limit in RATIOS.items()
        if over in seconds and under in seconds
    }
    print(f"{machine()['processor']}, {machine()['threads']} threads, {machine()['gpu'] or 'no GPU'}")
    print_times(times, ratios)
    measured = {
        name: other
        for name, other in MEMORY.items()
        if "compiled" in settings.levels or "compiled" not in name
    }
    memory = {name: memory_in_child(settings, name) for name in measured}
    memory |= {f"{name} / {other}": memory[name] / memory[other] for name, other in measured.items() if other}
    memory |= trajectory_memory(settings)
    print("memory, MiB: " + ", ".join(f"{name} {value:.2f}" for name, value in memory.items()))
    record = {
        "settings": {"genotype": "darts_v2", **vars(settings)},
        "relative_differences": differences | gradient_differences | curvature_differences,
        "seconds": times,
        "ratios": ratios,
        "memory_mib": memory,
    }
    print(f"written to {write('landscape', record)}")


if __name__ == "__main__":
    main()
