"""A cell's initial weights among those of its matched controls.

Every network is measured in the same way: the same images, the same initial seeds, and the same numbers in
the same places of the network (:class:`nas_lightning.audit.stacked.InitialWeights`). Batch norm's running
statistics are estimated from the images first, because those of a new network (mean 0, variance 1) make
gradients fade in every cell; then all statistics are taken in evaluation mode, of the cross entropy f_i.

What is exchangeable, and why: a statistic at given seeds and images is a fixed function of the genotype. The
median over seeds is one, too. Cell and controls are distinct members of one class of wirings (see
:mod:`nas_lightning.audit.controls`), which is the same whichever of them is audited. If the cell was drawn
uniformly from all wirings, then, given the class, every order of cell and controls is as likely as any other.
So the cell's rank is uniform on 1 to k + 1 and its p-value exact, whatever the statistic's distribution and
however few seeds. That holds for each audit over the draw of its controls: audits of several cells of one
class are independent only if each draws controls with a seed of its own.

The seeds do not enter the p-value. How far the rank depends on them is said by the ranks with each seed
alone: they are an interval over seeds, not a test.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing import current_process, get_context, parent_process
from multiprocessing.process import BaseProcess
from threading import Thread
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional

from nas_lightning.audit.controls import Controls
from nas_lightning.audit.stacked import InitialWeights, Stack, stacked_network
from nas_lightning.audit.standing import Standing, among_controls, finite
from nas_lightning.cells import Genotype, check_image_size, stack_plan
from nas_lightning.cells.operations import BUILT_IN_OPERATIONS
from nas_lightning.networks import CellNetwork

if TYPE_CHECKING:  # its imports take seconds, in every process
    from nas_lightning.datamodules import ImageDataModule

STATISTICS: Mapping[str, str] = {
    "gradient_norm": "norm of the mini-batch's gradient, ||E grad f_i||",
    "sample_gradient_norm": "mean norm of a sample's gradient, E ||grad f_i||",
    "gradient_variance": "variance of the gradient over samples, E ||grad f_i - E grad f_i||^2",
    "tangent_kernel_trace": "trace of the tangent kernel of the label's logit, E ||grad z_y||^2",
    "gradient_curvature": "curvature of the mean loss along its own gradient g, g.Hg / g.g",
}
"""What is measured, in words. The last is an exact lower bound of the largest Hessian eigenvalue."""

_NETWORKS_FOR_A_PROCESS = 8
"""Fewest networks for which another process is started: its imports take seconds."""


@dataclass(frozen=True)
class InitialSettings:
    """The networks that are measured.

    Attributes:
        seeds: Initial seeds.
        init_channels: Channels of the nodes of the first cell.
        num_cells: Number of cells.
        num_classes: Outputs of the classifier.
        stem_stride: Stride of the stem.
        double: Whether to compute in float64: some times slower.
    """

    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    init_channels: int = 8
    num_cells: int = 20
    num_classes: int = 10
    stem_stride: int = 2
    double: bool = False

    def __post_init__(self) -> None:
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"`seeds` (={list(self.seeds)}) must be one or more different numbers")


@dataclass(frozen=True)
class InitialStatistic:
    """One statistic of a cell and of its controls.

    Attributes:
        name: One of ``STATISTICS``.
        own: The cell's value for every seed.
        controls: The controls' medians over seeds, in the order of the controls.
        standing: Rank of the cell's median over seeds among the controls' medians.
        by_seed: The cell's mid-percentile among the controls with each seed alone.
    """

    name: str
    own: tuple[float, ...]
    controls: tuple[float, ...]
    standing: Standing
    by_seed: tuple[float, ...]

    def record(self) -> dict[str, Any]:
        """Plain values for JSON; what is not finite is None."""
        return {
            "meaning": STATISTICS[self.name],
            "own": [finite(value) for value in self.own],
            "controls": [finite(value) for value in self.controls],
            "standing": self.standing.record() | {"value": finite(self.standing.value)},
            "by_seed": list(self.by_seed),
        }


@dataclass(frozen=True)
class Initial:
    """A cell at its initial weights among matched controls.

    Attributes:
        settings: The networks.
        images: Number of images.
        statistics: By name.
    """

    settings: InitialSettings
    images: int
    statistics: Mapping[str, InitialStatistic]

    def record(self) -> dict[str, Any]:
        """Plain values for JSON."""
        names = ("init_channels", "num_cells", "num_classes", "stem_stride")
        return {
            **{name: getattr(self.settings, name) for name in names},
            "seeds": list(self.settings.seeds),
            "precision": "float64" if self.settings.double else "float32",
            "images": self.images,
            "statistics": {name: found.record() for name, found in self.statistics.items()},
        }


def fixed_images(
    data: ImageDataModule, count: int = 8, seed: int = 0
) -> tuple[Float[Tensor, "count channels height width"], Int64[Tensor, " count"]]:
    """Images of the training split, normalised and not augmented, drawn by a seed; and their classes.

    Raises:
        ValueError: If there are fewer images, or fewer than 2 are asked for.
    """
    data.prepare_data()
    data.setup("fit")
    images, targets = data.split_arrays("train")
    if not 2 <= count <= len(targets):
        raise ValueError(f"`count` (={count}) must be from 2 to {len(targets)}, the images of {data.name}")
    rows = np.random.RandomState(seed).permutation(len(targets))[:count]
    return data.normalise(images[rows]), targets[rows]


def measure_initial(
    genotype: Genotype,
    images: Float[Tensor, "images channels height width"],
    targets: Int64[Tensor, " images"],
    settings: InitialSettings | None = None,
    weights: InitialWeights | None = None,
) -> dict[str, Float[np.ndarray, " seeds"]]:
    """Measure one genotype's network at its initial weights, all seeds together.

    The values are those of ``gradient_statistics``, ``tangent_kernel_trace`` and ``HessianProduct`` of
    :mod:`nas_lightning.analysis` after ``estimate_running_statistics``, on the same weights.

    Args:
        genotype: The cells.
        images: Normalised.
        targets: Their classes.
        settings: The network.
        weights: Initial weights that were drawn before, for the settings' seeds.

    Returns:
        Every one of ``STATISTICS`` by seed.

    Raises:
        ValueError: If an edge carries an operation of the user's own, or the images are not coloured, have
            classes beyond the network's, or cannot be halved as often as it halves them.
    """
    settings = settings or InitialSettings()
    _check(genotype, images, targets, settings)
    dtype = torch.float64 if settings.double else torch.float32
    network, stack = stacked_network(
        genotype,
        weights or InitialWeights(settings.seeds),
        len(images),
        init_channels=settings.init_channels,
        num_cells=settings.num_cells,
        num_classes=settings.num_classes,
        stem_stride=settings.stem_stride,
        dtype=dtype,
    )
    inputs = images.to(dtype).repeat(len(settings.seeds), 1, 1, 1)
    labels = targets.repeat(len(settings.seeds))
    with torch.no_grad():
        stack.mode = "estimate"
        network(inputs)
    stack.mode = "differentiate"
    losses, logits = _gradients(network, stack, inputs, labels)
    mean = losses.mean(1)
    norm = _norms(mean)
    found = {
        "gradient_norm": norm,
        "sample_gradient_norm": _norms(losses).mean(1),
        "gradient_variance": _norms(losses - mean[:, None]).square().mean(1),
        "tangent_kernel_trace": _norms(logits).square().mean(1),
        "gradient_curvature": _curvature(
            network, stack, inputs, labels, (mean / norm[:, None]).to(mean.dtype)
        ),
    }
    return {name: values.numpy() for name, values in found.items()}


def audit_initial(
    genotype: Genotype,
    controls: Controls,
    images: Float[Tensor, "images channels height width"],
    targets: Int64[Tensor, " images"],
    settings: InitialSettings | None = None,
    *,
    processes: int | None = None,
) -> Initial:
    """Rank a cell's initial weights among those of its controls.

    Args:
        genotype: The audited cells.
        controls: As drawn by :func:`~nas_lightning.audit.controls.matched_controls`.
        images: Normalised, see :func:`fixed_images`.
        targets: Their classes.
        settings: The networks; five seeds of 20 cells with 8 channels by default.
        processes: How many processes share the work, one thread each; None for the cores this one may use.

    Returns:
        The ranks.

    Raises:
        ValueError: If ``processes`` is under 1, or as :func:`measure_initial`.
    """
    settings = settings or InitialSettings()
    _check(genotype, images, targets, settings)
    measured = measure_all((genotype, *controls.genotypes), images, targets, settings, processes)
    statistics = {}
    for name in STATISTICS:
        values = np.stack([of_one[name] for of_one in measured])
        medians = np.median(values, axis=1)
        statistics[name] = InitialStatistic(
            name=name,
            own=tuple(values[0].tolist()),
            controls=tuple(medians[1:].tolist()),
            standing=among_controls(float(medians[0]), medians[1:]),
            by_seed=tuple(among_controls(float(of_seed[0]), of_seed[1:]).percentile for of_seed in values.T),
        )
    return Initial(settings, len(images), statistics)


def check_operations(genotype: Genotype) -> None:
    """Refuse operations of the user's own: second derivatives are carried through known layers only."""
    own = sorted({edge.op for edge in (*genotype.normal, *genotype.reduce)} - set(BUILT_IN_OPERATIONS))
    if own:
        raise ValueError(
            f"operation {own[0]!r} is your own: initial weights are measured with built-in operations only"
        )


def _check(genotype: Genotype, images: Tensor, targets: Tensor, settings: InitialSettings) -> None:
    check_operations(genotype)
    if images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(
            f"images have the shape {tuple(images.shape)}; it must be (number, 3, height, width)"
        )
    largest = int(targets.max())
    if largest >= settings.num_classes:
        raise ValueError(f"`num_classes` (={settings.num_classes}) must be above the images' class {largest}")
    plan = stack_plan(genotype, init_channels=settings.init_channels, num_cells=settings.num_cells)
    for size in images.shape[2:]:
        check_image_size(plan, size, settings.stem_stride)


def measure_all(
    genotypes: Sequence[Genotype],
    images: Tensor,
    targets: Tensor,
    settings: InitialSettings,
    processes: int | None = None,
) -> list[dict[str, Float[np.ndarray, " seeds"]]]:
    """What :func:`measure_initial` gives of every genotype, the work shared among processes.

    Args:
        genotypes: The cells.
        images: Normalised.
        targets: Their classes.
        settings: The networks.
        processes: How many, as of :func:`audit_initial`.
    """
    if processes is None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        processes = min(cores, max(1, len(genotypes) // _NETWORKS_FOR_A_PROCESS))
    if processes < 1:
        raise ValueError(f"`processes` (={processes}) must be at least 1")
    # A daemon may have no children.
    if processes == 1 or current_process().daemon:
        return list(_measure_some(genotypes, images.numpy(), targets.numpy(), settings))
    share = partial(_share, images=images.numpy(), targets=targets.numpy(), settings=settings)
    parts = [genotypes[first::processes] for first in range(processes)]
    # Threads do not survive a fork.
    spawn = get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=spawn, initializer=end_with_parent) as pool:
        try:
            shares = list(pool.map(share, parts))
        except BrokenProcessPool as error:
            raise OSError(
                "a process that measures initial weights was killed, perhaps for want of memory; the same "
                "command tries again"
            ) from error
    return [shares[index % processes][index // processes] for index in range(len(genotypes))]


def end_with_parent() -> None:
    """Let this process end with its parent, however that ends: a pool's own wait for work without end."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # no traceback of each process at Ctrl-C
    if (parent := parent_process()) is not None:
        Thread(target=_end_after, args=(parent,), daemon=True).start()


def _end_after(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)


def _share(
    genotypes: Sequence[Genotype], images: np.ndarray, targets: np.ndarray, settings: InitialSettings
) -> list[dict[str, np.ndarray]]:
    return list(_measure_some(genotypes, images, targets, settings))


def _measure_some(
    genotypes: Iterable[Genotype], images: np.ndarray, targets: np.ndarray, settings: InitialSettings
) -> Iterator[dict[str, np.ndarray]]:
    weights = InitialWeights(settings.seeds)
    with _one_thread():
        for genotype in genotypes:
            yield measure_initial(
                genotype, torch.from_numpy(images), torch.from_numpy(targets), settings, weights
            )


@contextmanager
def _one_thread() -> Iterator[None]:
    """Small layers gain nothing from threads; sums are the same in any number of processes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _gradients(
    network: CellNetwork, stack: Stack, inputs: Tensor, labels: Tensor
) -> tuple[Float[Tensor, "seeds images parameters"], Float[Tensor, "seeds images parameters"]]:
    """Every sample's gradient of its loss and of its label's logit."""
    leaves = list(stack.weights.values())
    with torch.enable_grad():
        logits = network(inputs)
        losses = functional.cross_entropy(logits, labels, reduction="sum")
        own = logits.gather(1, labels[:, None]).sum()
        of_losses = torch.autograd.grad(losses, leaves, retain_graph=True)
        of_logits = torch.autograd.grad(own, leaves)
    first, second = (
        torch.cat([part.flatten(1) for part in parts], dim=1).view(-1, stack.images, _size(parts))
        for parts in (of_losses, of_logits)
    )
    return first, second


def _size(parts: Sequence[Tensor]) -> int:
    return sum(part[0].numel() for part in parts)


def _norms(vectors: Float[Tensor, "*many parameters"]) -> Float[Tensor, "*many"]:
    """Euclidean norms, in float64: squares overflow and round long before gradients do."""
    norms: Tensor = torch.linalg.vector_norm(vectors, dim=-1, dtype=torch.float64)
    return norms


def _curvature(
    network: CellNetwork,
    stack: Stack,
    inputs: Tensor,
    labels: Tensor,
    directions: Float[Tensor, "seeds parameters"],
) -> Float[Tensor, " seeds"]:
    r"""Second derivative of each seed's mean loss along a direction.

    With logits z(t) and p their softmax, the loss log sum exp z - z_y has the second derivative
    (p - e_y) . z'' + sum_c p_c z'_c^2 - (sum_c p_c z'_c)^2.
    """
    start = 0
    for name, weight in stack.weights.items():
        size = weight[0].numel()
        part = directions[:, start : start + size].view(-1, *weight.shape[1:]).to(weight.dtype)
        stack.directions[name] = part.repeat_interleave(stack.images, dim=0)
        start += size
    stack.mode = "taylor"
    zeros = torch.zeros_like(inputs)
    with torch.no_grad():
        logits = network(torch.cat([inputs, zeros, zeros])).double().view(3, len(labels), -1)
    shares = logits[0].softmax(1)
    slope = (shares * logits[1]).sum(1)
    bend = (shares * logits[2]).sum(1) - logits[2].gather(1, labels[:, None])[:, 0]
    second: Tensor = bend + (shares * logits[1].square()).sum(1) - slope.square()
    return second.view(-1, stack.images).mean(1)
