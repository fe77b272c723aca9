"""How cost grows with the size of the work, set against what is counted and what the machine can do.

One of channels, cells, batch and image size changes at a time. Counted are the multiply-adds of convolutions
and matrix products and the bytes that the operations of the level ``reference`` read and write one by one;
measured in the same process are the machine's matrix products and its memory. A step cannot be faster than
both allow: the roofline of Williams, Waterman and Patterson (2009, doi:10.1145/1498765.1498785).
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.multiprocessing.spawn import ProcessException, spawn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel
from torch.profiler import ProfilerActivity, profile, record_function
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.record import DEVICE, alternate, machine, summary, write
from benchmarks.training import Batch, make_networks, step_function
from nas_lightning.acceleration import LEVELS, Level, accelerate
from nas_lightning.acceleration.copies import sharing_copy
from nas_lightning.analysis import Point, loss_at_points, random_directions
from nas_lightning.networks import CellNetwork

QUANTITIES = ("channels", "cells", "batch", "image_size")
PASSES = ("training", "evaluation")
ALLOCATIONS = ("aten::empty", "aten::new_empty", "profiler::")
"""Beginnings of the names of operations that neither read nor write what is in a tensor."""
OVERWRITING = ("aten::copy_", "aten::fill_", "aten::zero_")
"""Operations that do not read the tensor that they write."""
PROFILED_STEPS = 5
KINDS: Mapping[str, tuple[str, ...]] = {
    "optimiser": ("optimizer.", "_foreach_", "_fused_sgd", "linalg_vector_norm"),
    "fused by the compiler": ("torch-compiled", "compiledf", "triton_", "cpp_fused", "cudagraph"),
    "fused separable blocks": ("nas_lightning::fused_blocks", "_fused_blocks"),
    "convolution backward": ("convolution_backward", "convolutionbackward", "conv2d_backward"),
    "convolution forward": ("conv",),
    "batch norm": ("batch_norm", "batchnorm"),
    "pooling": ("pool",),
    "addition, ReLU, concatenation": ("aten::add", "addbackward", "relu", "threshold", "aten::cat"),
}
"""Kinds of operations, and parts of the names, in small letters, by which the profiler's events are told."""
OTHER, BETWEEN = "other operations", "between operations"


class Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts multiply-adds and bytes of what runs inside, forward and backward, operation by operation.

    An operation reads its inputs and writes its output once, whatever it does in truth: the least traffic of
    operations that are not fused. A view moves nothing. Multiply-adds: out elements x in channels per group
    x kernel elements for a convolution, as many again for each gradient that its backward pass returns;
    ``n m k`` for a matrix product. (``torch.utils.flop_counter`` counts too many for the weights' gradient of
    a grouped convolution.)

    Attributes:
        multiply_adds: Those of convolutions and matrix products.
        bytes: Bytes of all operations.
        bytes_of_products: Bytes of convolutions and matrix products alone: what is left where everything else
            is fused into them.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.multiply_adds = 0
        self.bytes = 0
        self.bytes_of_products = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run an operation and count it."""
        result = func(*args, **(kwargs or {}))
        if not func.is_view and not func._schema.name.startswith(ALLOCATIONS):
            products = _multiply_adds(func._schema.name, args, result)
            moved = _bytes_moved(func._schema, args, kwargs or {}, result)
            self.multiply_adds += products
            self.bytes += moved
            self.bytes_of_products += moved if products else 0
        return result


def _multiply_adds(name: str, args: Sequence[Any], result: Any) -> int:
    if name == "aten::convolution":
        return int(result.numel() * args[1][0].numel())
    if name == "aten::convolution_backward":
        return int(args[0].numel() * args[2][0].numel() * sum(args[-1][:2]))  # of input and of weights
    if name in ("aten::mm", "aten::addmm"):
        first, second = args[-2:]
        return int(first.shape[0] * first.shape[1] * second.shape[1])
    return 0


def _bytes_moved(schema: Any, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> int:
    read: dict[tuple[int, int], int] = {}
    written: dict[tuple[int, int], int] = {}
    names = [argument.name for argument in schema.arguments]
    given = {**dict(zip(names, args, strict=False)), **kwargs}
    for argument in schema.arguments:
        tensors = _sizes(given.get(argument.name))
        is_written = argument.alias_info is not None and argument.alias_info.is_write
        if is_written:
            written |= tensors
        if not is_written or not (argument.is_out or schema.name in OVERWRITING):
            read |= tensors
    written |= _sizes(result)
    return sum(read.values()) + sum(written.values())


def _sizes(values: Any) -> dict[tuple[int, int], int]:
    """Bytes of every tensor by where it lies: one that is named twice is read once."""
    tensors = [value for value in tree_leaves(values) if isinstance(value, Tensor)]
    # An expanded tensor has more elements than bytes behind them.
    sizes = [min(t.numel() * t.element_size(), t.untyped_storage().nbytes()) for t in tensors]
    return {(t.data_ptr(), size): size for t, size in zip(tensors, sizes, strict=True)}


def autocast_of(level: Level) -> AbstractContextManager[object]:
    """Autocast to bfloat16 at a level that mixes precisions, otherwise nothing."""
    return torch.autocast(DEVICE.type, torch.bfloat16) if level.mixed else nullcontext()


def best_seconds(call: Callable[[], object], rounds: int) -> float:
    """Shortest time of a call, in seconds."""
    return min(alternate({"": call}, rounds)[""])


def measure_limits(matrix: int, mebibytes: int, rounds: int) -> dict[str, dict[str, float]]:
    """What the machine can do: the best of several large matrix products, copies and sums.

    Args:
        matrix: Side of the square matrices.
        mebibytes: Size of an array in memory; several times the caches. Smaller ones tell the caches' rate.
        rounds: How often each is tried.

    Returns:
        ``multiply_adds_per_second`` by data type, and ``bytes_per_second`` of ``memory`` and ``caches``.
    """
    rates = {}
    for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        first, second = torch.randn(2, matrix, matrix, device=DEVICE).to(dtype)
        out = torch.empty_like(first)
        rates[name] = matrix**3 / best_seconds(partial(torch.mm, first, second, out=out), rounds)
    bandwidths: dict[str, float] = {"memory": 0.0, "caches": 0.0}
    for place, size in (
        ("memory", float(mebibytes)),
        *(("caches", small) for small in (0.25, 1.0, 4.0, 16.0)),
    ):
        a, b, c = torch.ones(3, int(size * 2**18), device=DEVICE)
        contestants = {2: partial(a.copy_, b), 3: partial(torch.add, a, b, out=c)}
        for arrays, call in contestants.items():
            rate = arrays * a.nbytes / best_seconds(call, rounds)
            bandwidths[place] = max(bandwidths[place], rate)
    return {"multiply_adds_per_second": rates, "bytes_per_second": bandwidths}


def sizes_of(settings: argparse.Namespace) -> list[dict[str, Any]]:
    """The base size and those in which one quantity is another one.

    Returns:
        Sizes, each with what is ``varied``: None for the base.
    """
    base = {quantity: getattr(settings, quantity) for quantity in QUANTITIES}
    sizes: list[dict[str, Any]] = [{"varied": None, **base}]
    for quantity, factor in itertools.product(QUANTITIES, settings.factors):
        size = {"varied": quantity, **base, quantity: max(1, round(base[quantity] * factor))}
        if size[quantity] != base[quantity] and size not in sizes:
            sizes.append(size)
    return sizes


def networks_of(settings: argparse.Namespace, size: Mapping[str, Any]) -> dict[str, CellNetwork]:
    """A network of a size for each level, all with the same weights."""
    names = argparse.Namespace(
        genotype=settings.genotype, init_channels=size["channels"], num_cells=size["cells"]
    )
    return make_networks(names, settings.levels)[1]


def batch_of(size: Mapping[str, Any]) -> Batch:
    """Random images and classes."""
    images = torch.randn(size["batch"], 3, size["image_size"], size["image_size"])
    return images.to(DEVICE), torch.randint(10, (size["batch"],)).to(DEVICE)


def evaluation_function(network: CellNetwork, level: Level) -> Callable[[Batch], Tensor]:
    """Mean cross entropy of a batch in evaluation mode, as it is computed at a level."""
    forward = accelerate(sharing_copy(network).eval(), level)

    def evaluate(batch: Batch) -> Tensor:
        with torch.no_grad(), autocast_of(level):
            return functional.cross_entropy(forward(batch[0]), batch[1])

    return evaluate


def count(settings: argparse.Namespace, size: Mapping[str, Any], level: Level) -> dict[str, dict[str, int]]:
    """Multiply-adds and bytes of a training step and of an evaluation pass over one batch.

    They are those of the operations of the level ``reference``, at a level that mixes precisions with its
    data types: what the levels do otherwise is not work that is asked for.
    """
    names = argparse.Namespace(**vars(settings) | {"levels": [level.name]})
    (network,) = networks_of(names, size).values()
    as_written = Level(level.name, fused=False, compiled=False, mixed=level.mixed)
    calls = {
        "evaluation": evaluation_function(network, as_written),
        "training": step_function(network, as_written),
    }
    batch = batch_of(size)
    calls["training"](batch)  # makes the optimiser's state
    counts = {}
    for name, call in calls.items():
        with Counter() as counter:
            call(batch)
        counts[name] = {key: getattr(counter, key) for key in ("multiply_adds", "bytes", "bytes_of_products")}
    return counts


def measure_size(settings: argparse.Namespace, size: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Seconds and counts of both passes at every level, for one size, after their losses were compared."""
    if any(LEVELS[name].compiled for name in settings.levels):
        torch._dynamo.reset()
    batch = batch_of(size)
    contestants: dict[str, Callable[[], object]] = {}
    losses = {}
    for name, network in networks_of(settings, size).items():
        contestants[f"evaluation {name}"] = partial(evaluation_function(network, LEVELS[name]), batch)
        step = step_function(network, LEVELS[name])
        losses[name] = float(step(batch))
        rtol = 2e-2 if LEVELS[name].mixed else 1e-4
        torch.testing.assert_close(losses[name], losses[settings.levels[0]], rtol=rtol, atol=0.0)
        contestants[f"training {name}"] = partial(step, batch)
    times = summary(alternate(contestants, settings.rounds))
    counts = {mixed: count(settings, size, level) for mixed, level in _precisions(settings.levels).items()}
    return [
        {
            **size,
            "pass": kind,
            "level": name,
            "seconds": times[f"{kind} {name}"],
            **counts[LEVELS[name].mixed][kind],
        }
        for kind, name in itertools.product(PASSES, settings.levels)
    ]


def _precisions(levels: Sequence[str]) -> dict[bool, Level]:
    return {LEVELS[name].mixed: LEVELS[name] for name in levels}


def shares(measured: Mapping[str, Any], limits: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """How near a measurement is to the machine's limits.

    Args:
        measured: A measurement with its seconds and counts.
        limits: Those of :func:`measure_limits`.

    Returns:
        ``multiply_adds_per_second`` and ``bytes_per_second``, which counts the operations one by one, and
        their shares of the rates of matrix product and memory. ``share_of_roof``: the least time, the longer
        of that of the multiply-adds and that of the bytes, over the measured one; ``share_of_fused_roof``
        with the bytes of convolutions and matrix products alone. Bytes may pass more than 1 of the memory
        where caches hold them or the compiler fuses operations.
    """
    seconds = measured["seconds"]["median"]
    dtype = "bfloat16" if LEVELS[measured["level"]].mixed else "float32"
    rate, memory = limits["multiply_adds_per_second"][dtype], limits["bytes_per_second"]["memory"]
    least = {
        key: max(measured["multiply_adds"] / rate, measured[key] / memory)
        for key in ("bytes", "bytes_of_products")
    }
    return {
        "multiply_adds_per_second": measured["multiply_adds"] / seconds,
        "share_of_matrix_rate": measured["multiply_adds"] / seconds / rate,
        "bytes_per_second": measured["bytes"] / seconds,
        "share_of_bandwidth": measured["bytes"] / seconds / memory,
        "share_of_roof": least["bytes"] / seconds,
        "share_of_fused_roof": least["bytes_of_products"] / seconds,
    }


def measure_points(settings: argparse.Namespace) -> list[dict[str, Any]]:
    """Seconds of loss surfaces of so many points, one batch each, the weights' set-up left out."""
    (size, *_) = sizes_of(settings)
    batches = [batch_of(size)]
    measured = []
    for level, network in networks_of(settings, size).items():
        directions = {0: random_directions(network, seed=0)}
        with loss_at_points(network, batches, directions, forward=accelerate(network, level)) as measure:

            def surface(number: int, measure: Callable[[Point], object] = measure) -> None:
                for index in range(number):
                    measure(Point(0, 0.1 * index, -0.1 * index, (0, 0, 0)))

            contestants = {str(number): partial(surface, number) for number in settings.points}
            times = summary(alternate(contestants, settings.rounds))
        measured += [{"level": level, "points": int(number), "seconds": s} for number, s in times.items()]
    return measured


def kind_of(event: Any) -> str:
    """The kind of an event of the profiler: by its name or that of the nearest event around it."""
    while event is not None:
        name = event.name.lower()
        for kind, parts in KINDS.items():
            if any(part in name for part in parts):
                return kind
        event = event.cpu_parent
    return OTHER


def profile_kinds(call: Callable[[], object], steps: int = PROFILED_STEPS) -> dict[str, float]:
    """Seconds of the median of some calls by kind of operation, under the profiler, which itself takes some.

    On a GPU the seconds of its kernels; what remains of the call's own time is ``between operations``: the
    interpreter, and waiting.
    """
    call()
    profiled = sorted((_profile_once(call) for _ in range(steps)), key=lambda kinds: sum(kinds.values()))
    return profiled[steps // 2]


def _profile_once(call: Callable[[], object]) -> dict[str, float]:
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (DEVICE.type == "cuda")
    with profile(activities=activities) as profiler, record_function("whole step"):
        call()
        if DEVICE.type == "cuda":
            torch.cuda.synchronize()
    seconds = dict.fromkeys((*KINDS, OTHER, BETWEEN), 0.0)
    for event in profiler.events() or []:
        if event.device_type.name != "CPU":
            continue  # kernels are counted with the operation that starts them
        if event.name == "whole step":
            seconds[BETWEEN] += event.cpu_time_total / 1e6
            continue
        own = event.self_device_time_total if DEVICE.type == "cuda" else event.self_cpu_time_total
        seconds[kind_of(event)] += own / 1e6
    seconds[BETWEEN] = max(0.0, 2 * seconds[BETWEEN] - sum(seconds.values()))
    return seconds


def measure_kinds(settings: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Seconds of a training step of the base size by kind of operation, for every level."""
    (size, *_) = sizes_of(settings)
    batch = batch_of(size)
    kinds = {}
    for name, network in networks_of(settings, size).items():
        kinds[name] = profile_kinds(partial(step_function(network, LEVELS[name]), batch))
    return kinds


def measure_ranks(settings: argparse.Namespace) -> dict[str, Any]:
    """Images per second of a training step in so many processes that average their gradients.

    Every process has the base size's batch, and on a CPU its part of the threads. The level is the last that
    is not compiled.

    Returns:
        ``level``, ``backend`` and by number of ``processes`` seconds and ``images_per_second``; what
        ``failed`` and why.
    """
    uncompiled = [name for name in settings.levels if not LEVELS[name].compiled]
    level = uncompiled[-1] if uncompiled else "fast"
    options = argparse.Namespace(**vars(settings) | {"levels": [level]})
    result: dict[str, Any] = {"level": level, "backend": "nccl" if DEVICE.type == "cuda" else "gloo"}
    processes, failed = {}, {}
    for ranks in settings.processes:
        with tempfile.TemporaryDirectory() as folder:
            arguments = (ranks, options, Path(folder), torch.get_num_threads())
            try:
                spawn(train_rank, arguments, nprocs=ranks)  # type: ignore[no-untyped-call]
            except (RuntimeError, ProcessException) as error:
                failed[ranks] = str(error).strip().splitlines()[-1]
                print(f"{ranks} processes: {failed[ranks]}", file=sys.stderr)
                continue
            seconds = json.loads((Path(folder) / "seconds").read_text())
        times = summary({"": seconds})[""]
        processes[str(ranks)] = {
            "threads_of_each": max(1, torch.get_num_threads() // ranks),
            "seconds": times,
            "images_per_second": ranks * settings.batch / times["median"],
        }
    return {**result, "processes": processes, "failed": failed}


def train_rank(rank: int, ranks: int, settings: argparse.Namespace, folder: Path, threads: int) -> None:
    """One process's training steps; the first one's seconds are kept in the folder."""
    on_gpus = DEVICE.type == "cuda"
    if on_gpus and torch.cuda.device_count() < ranks:
        raise RuntimeError("one GPU is not shared by processes that train together")
    if on_gpus:
        torch.cuda.set_device(rank)
    torch.set_num_threads(max(1, threads // ranks))
    distributed.init_process_group(
        "nccl" if on_gpus else "gloo", f"file://{folder}/meeting", rank=rank, world_size=ranks
    )
    (size, *_) = sizes_of(settings)
    (network,) = networks_of(settings, size).values()
    together: nn.Module = DistributedDataParallel(network, device_ids=[rank] if on_gpus else None)
    torch.manual_seed(rank)
    step = step_function(together, LEVELS[settings.levels[0]])
    seconds = alternate({"": partial(step, batch_of(size))}, settings.rounds)[""]
    if rank == 0:
        (folder / "seconds").write_text(json.dumps(seconds))
    distributed.destroy_process_group()


def print_record(record: Mapping[str, Any]) -> None:
    """Limits, a line for each measurement, and where the time goes."""
    limits = record["limits"]
    rates = [f"{name} {rate / 1e9:.1f}" for name, rate in limits["multiply_adds_per_second"].items()]
    bandwidths = [f"{name} {rate / 1e9:.1f}" for name, rate in limits["bytes_per_second"].items()]
    print(f"matrix product, GMAC/s: {', '.join(rates)}; GB/s: {', '.join(bandwidths)}")
    header = ("channels", "cells", "batch", "pixels", "pass", "level")
    print(("{:>8} {:>5} {:>5} {:>6} {:<10} {:<9}").format(*header), end=" ")
    print("  seconds (quartiles)         GMAC  GMAC/s  share    GB/s  share    roof fused roof")
    for one in record["measurements"]:
        seconds = one["seconds"]
        print(
            f"{one['channels']:>8} {one['cells']:>5} {one['batch']:>5} {one['image_size']:>6}"
            f" {one['pass']:<10} {one['level']:<9} {seconds['median']:9.5f}"
            f" ({seconds['lower_quartile']:.5f} to {seconds['upper_quartile']:.5f})"
            f" {one['multiply_adds'] / 1e9:8.3f} {one['multiply_adds_per_second'] / 1e9:7.2f}"
            f" {one['share_of_matrix_rate']:6.1%} {one['bytes_per_second'] / 1e9:7.2f}"
            f" {one['share_of_bandwidth']:6.1%} {one['share_of_roof']:7.1%}"
            f" {one['share_of_fused_roof']:10.1%}"
        )
    for one in record["grid_points"]:
        seconds = one["seconds"]["median"]
        print(
            f"{one['points']:>3} points, {one['level']}: {seconds:.5f} s, {seconds / one['points']:.5f} each"
        )
    for ranks, one in record["ranks"]["processes"].items():
        print(f"{ranks} processes, {record['ranks']['level']}: {one['images_per_second']:.1f} images/s")
    for level, kinds in record["seconds_by_kind"].items():
        whole = sum(kinds.values())
        named = [f"{kind} {seconds / whole:.1%}" for kind, seconds in kinds.items() if seconds]
        print(f"a step's time at {level}, {whole:.4f} s with the profiler: {', '.join(named)}")


def _numbers(kind: type[float] | type[int]) -> Callable[[str], list[float]]:
    def read(text: str) -> list[float]:
        numbers: list[float] = [kind(part) for part in text.split(",")]
        if min(numbers) <= 0:
            raise argparse.ArgumentTypeError(f"{text!r} must be positive numbers with commas between them")
        return numbers

    return read


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--genotype", default="darts_v2")
    parser.add_argument(
        "--levels",
        type=lambda text: text.split(","),
        default=["reference", "fast", "compiled"],
        metavar="A,B",
    )
    parser.add_argument("--factors", type=_numbers(float), default=[0.5, 1, 2], metavar="A,B")
    parser.add_argument("--points", type=_numbers(int), default=[1, 4, 9, 25], metavar="A,B")
    parser.add_argument("--processes", type=_numbers(int), default=[1, 2], metavar="A,B")
    sizes = {"channels": 8, "cells": 5, "batch": 32, "image_size": 32, "rounds": 7}
    matrix = 1024 if DEVICE.type == "cpu" else 8192
    for name, default in {**sizes, "matrix": matrix, "memory_mib": 512}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    settings = parser.parse_args(arguments)
    if settings.rounds < 2:
        parser.error(f"--rounds (={settings.rounds}) must be at least 2: there are no quartiles of one")
    if unknown := set(settings.levels) - set(LEVELS):
        parser.error(f"--levels (={','.join(sorted(unknown))}) must be of {', '.join(LEVELS)}")
    return settings


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and keep the record."""
    settings = parse(arguments)
    torch.backends.cudnn.allow_tf32 = False  # float32 is float32
    torch.manual_seed(0)
    limits = measure_limits(settings.matrix, settings.memory_mib, settings.rounds)
    measurements = [one for size in sizes_of(settings) for one in measure_size(settings, size)]
    record = {
        "settings": vars(settings),
        "limits": limits,
        "measurements": [one | shares(one, limits) for one in measurements],
        "grid_points": measure_points(settings),
        "ranks": measure_ranks(settings),
        "seconds_by_kind": measure_kinds(settings),
    }
    print(f"{machine()['processor']}, {machine()['threads']} threads, {machine()['gpu'] or 'no GPU'}")
    print_record(record)
    print(f"written to {write('scaling', record)}")


if __name__ == "__main__":
    main()
