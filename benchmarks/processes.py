"""Images per second of several trainings at once on one device: how many small runs should share a GPU.

Each process is `nas-lightning fit` on made-up images of CIFAR's size, started as a study starts its runs:
with its share of the GPU and its part of the cores. Epochs count in which all of them were training.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks import record
from benchmarks.throughput import Throughput, measure_throughput
from nas_lightning.study.executors import LocalExecutor, visible_gpus
from nas_lightning.study.jobs import job_environment

ENOUGH = 0.95
"""Share of the best total from which fewer processes are preferred: each one takes its part of the memory."""
MEMORY_SECONDS = 0.5
"""Time between two looks at the GPU's memory."""
DEFAULTS = {
    "cpu": {"processes": "1,2", "init_channels": 4, "num_cells": 3, "batch_size": 16, "batches": 10}
    | {"speed": "fast", "seconds": 3.0, "rounds": 2},
    "gpu": {"processes": "1,2,4,8,16", "init_channels": 36, "num_cells": 20, "batch_size": 80, "batches": 50}
    | {"speed": "fast", "seconds": 15.0, "rounds": 3},
}
"""On a GPU the paper's network, on a CPU what ends in two minutes; both at the level that ``auto`` means."""


class MemoryWatch:
    """Most memory of a GPU that was in use, by whomever, as ``nvidia-smi`` tells it.

    Args:
        device: The GPU, as ``CUDA_VISIBLE_DEVICES`` has it; None watches nothing.
    """

    def __init__(self, device: str | None) -> None:
        self.device = device
        self.peak_mib: int | None = None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> MemoryWatch:
        if self.device is not None:
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        if self.device is not None:
            self._thread.join()

    def _watch(self) -> None:
        query = ["--query-gpu=memory.used", "--format=csv,noheader,nounits", "-i", str(self.device)]
        while not self._over.is_set():
            try:
                answer = subprocess.run(
                    ["nvidia-smi", *query], capture_output=True, text=True, timeout=30, check=True
                )
                used = int(answer.stdout.split()[0])
            except (OSError, subprocess.SubprocessError, ValueError, IndexError):
                return
            self.peak_mib = max(used, self.peak_mib or 0)
            self._over.wait(MEMORY_SECONDS)


def fit_settings(options: argparse.Namespace) -> dict[str, Any]:
    """Settings of the measured training."""
    model = {key: getattr(options, key) for key in ("genotype", "init_channels", "num_cells", "speed")}
    images = {
        "train_size": options.batches * options.batch_size,
        "test_size": 10,
        "image_size": 32,
        "num_classes": 10,
        "batch_size": options.batch_size,
    }
    return {
        "model": model,
        "data": {"class_path": "nas_lightning.datamodules.Synthetic", "init_args": images},
        "trainer": {"enable_model_summary": False, "devices": 1},
    }


def recommended(totals: Mapping[int, float]) -> int:
    """The fewest processes whose total is at least :data:`ENOUGH` of the best.

    Args:
        totals: Images per second of all processes together, by their number.

    Returns:
        The number.
    """
    best = max(totals.values())
    return min(processes for processes, total in totals.items() if total >= ENOUGH * best)


def measure(
    settings: Mapping[str, Any], processes: int, device: str | None, seconds: float, timeout: float
) -> tuple[Throughput, int | None]:
    """Run so many processes at once.

    Args:
        settings: Of the training.
        processes: Number of processes.
        device: The GPU that they share; None: the CPU.
        seconds: How long they train beside each other.
        timeout: Seconds after which the measurement is given up.

    Returns:
        Their rates, and the peak of the GPU's memory in MiB.
    """
    executor = LocalExecutor(processes, () if device is None else (device,))
    gpus = 0 if device is None else 1 / processes
    with MemoryWatch(device) as memory:
        found = measure_throughput(settings, executor, processes, gpus=gpus, seconds=seconds, timeout=timeout)
    return found, memory.peak_mib


def threads(processes: int) -> int:
    """CPU threads of each of so many processes."""
    return int(job_environment(LocalExecutor(processes).threads)["OMP_NUM_THREADS"])


def parse(arguments: Sequence[str] | None, device: str | None) -> argparse.Namespace:
    """The options, with defaults that suit the device."""
    defaults = DEFAULTS["cpu" if device is None else "gpu"]
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--processes", type=_numbers, help="numbers of processes, such as 1,2,4")
    parser.add_argument("--genotype", default="darts_v2")
    parser.add_argument("--speed", help="`model.speed`: reference, fast, compiled or max")
    parser.add_argument("--init_channels", type=int)
    parser.add_argument("--num_cells", type=int)
    parser.add_argument("--batch_size", type=int)
    parser.add_argument("--batches", type=int, help="of an epoch")
    parser.add_argument("--seconds", type=float, help="of training beside each other, at least")
    parser.add_argument("--rounds", type=int, help="how often each number is measured, in turn")
    parser.add_argument("--timeout", type=float, default=600.0, help="seconds for one measurement")
    parser.set_defaults(**defaults)
    options = parser.parse_args(arguments)
    for key in ("init_channels", "num_cells", "batch_size", "batches", "rounds"):
        if getattr(options, key) < 1:
            parser.error(f"--{key} (={getattr(options, key)}) must be at least 1")
    return options


def _numbers(text: str) -> tuple[int, ...]:
    try:
        numbers = tuple(sorted({int(part) for part in text.split(",")}))
    except ValueError:
        numbers = ()
    if not numbers or numbers[0] < 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be numbers of at least 1, such as 1,2,4")
    return numbers


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and keep the record."""
    device = next(iter(visible_gpus()), None)
    options = parse(arguments, device)
    settings = fit_settings(options)
    rounds: dict[int, list[Throughput]] = {number: [] for number in options.processes}
    memory: dict[int, int] = {}
    failed: dict[int, str] = {}
    for _ in range(options.rounds):
        for number in options.processes:
            if number in failed:
                continue
            try:
                found, peak = measure(settings, number, device, options.seconds, options.timeout)
            except OSError as error:  # the memory may not suffice for so many
                failed[number] = str(error)
                print(f"{number} processes: {error}", file=sys.stderr)
                continue
            rounds[number].append(found)
            if peak is not None:
                memory[number] = max(peak, memory.get(number, 0))
    measured = {number: found for number, found in rounds.items() if found and number not in failed}
    if not measured:
        sys.exit(f"nothing could be measured: {next(iter(failed.values()))}")
    totals = {number: statistics.median(one.total for one in found) for number, found in measured.items()}
    base = totals[min(totals)]
    fewest = recommended(totals)
    kept = {
        "settings": vars(options),
        "device": next(iter(measured.values()))[0].device,
        "processes": {
            str(number): {
                "threads": threads(number),
                "images_per_second": [list(one.images_per_second) for one in found],
                "total": totals[number],
                "relative": totals[number] / base,
                "peak_memory_mib": memory.get(number),
            }
            for number, found in measured.items()
        },
        "failed": {str(number): reason for number, reason in failed.items()},
        "recommended": fewest,
        "gpus_per_run": None if device is None else 1 / fewest,
    }
    print(_table(measured, totals, memory))
    print(f"recommended: {fewest}, the fewest with at least {ENOUGH:.0%} of the best total")
    if device is not None:
        print(f"`nas-lightning study run FILE --gpus_per_run {1 / fewest:.4g}`")
    print(f"written to {record.write('processes', kept)}")


def _table(
    measured: Mapping[int, Sequence[Throughput]], totals: Mapping[int, float], memory: Mapping[int, int]
) -> str:
    base = totals[min(totals)]
    machine = record.machine()
    lines = [f"{machine['processor']}, {machine['cores']} cores, {machine['gpu'] or 'no GPU'}"]
    lines.append(
        f"{'processes':>9} {'images/s each':>14} {'total':>9} {'lowest':>9} {'highest':>9} {'relative':>9}"
        + (f" {'peak MiB':>9}" if memory else "")
    )
    for number, found in measured.items():
        each, of_rounds = totals[number] / number, [one.total for one in found]
        lines.append(
            f"{number:>9} {each:>14.1f} {totals[number]:>9.1f} {min(of_rounds):>9.1f} {max(of_rounds):>9.1f}"
            f" {totals[number] / base:>9.2f}" + (f" {memory.get(number, ''):>9}" if memory else "")
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
