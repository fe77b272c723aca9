"""A training step on one CPU as processors with other vector instructions compute it, alone and busy.

Each instruction set has a process of its own, in which the kernels are compiled for it and PyTorch's layers
are held to it as well (``ATEN_CPU_CAPABILITY``, ``ONEDNN_MAX_CPU_ISA``, the width of compiled loops). The
levels alternate there: CPU seconds of one thread, wall seconds of all, and both again beside one busy
process on each core.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from nas_lightning.acceleration.cpu.build import MARCH, compiler_flags, instruction_set
from nas_lightning.cli.waiting import sleep_while_waiting

# Kernels, PyTorch's own loops, oneDNN, and bits of a vector in compiled loops.
INSTRUCTION_SETS = {
    "AVX-512": ("x86-64-v4", "avx512", "DEFAULT", 512),
    "AVX2": ("x86-64-v3", "avx2", "AVX2", 256),
    "SSE": ("x86-64-v2", "default", "SSE41", 0),
}
CLOCKS = {"cpu": time.process_time, "wall": time.perf_counter}


def measure(settings: Namespace) -> dict[str, Any]:
    """Seconds of each level's step in this process, by clock and by number of threads."""
    import torch

    from benchmarks.record import summary
    from benchmarks.training import make_networks, step_function
    from nas_lightning.acceleration import LEVELS

    torch._inductor.config.cpp.simdlen = INSTRUCTION_SETS[settings.child][3]
    torch.set_num_threads(settings.threads)
    batch = (
        torch.randn(settings.batch, 3, 32, 32),
        torch.randint(10, (settings.batch,)),
    )
    levels = [name for name in settings.levels.split(",") if not (settings.busy and LEVELS[name].compiled)]
    sizes = Namespace(genotype="darts_v2", init_channels=settings.channels, num_cells=settings.cells)
    networks = make_networks(sizes, levels)[1]
    steps: dict[str, Callable[[], object]] = {
        name: partial(step_function(networks[name], LEVELS[name]), batch) for name in levels
    }
    with ExitStack() as stack:
        for step in steps.values():
            step(), step()  # compiles, measures which kernels are used
        if settings.busy:
            code = "import time\nend = time.time() + 600\nwhile time.time() < end: pass"
            for _ in range(os.cpu_count() or 1):
                other = stack.enter_context(subprocess.Popen([sys.executable, "-c", code]))
                stack.callback(other.kill)
        seconds = alternate(steps, settings.rounds)
    return {
        "instruction_set": instruction_set(),
        "layers": torch.backends.cpu.get_cpu_capability(),
        "compiler_flags": " ".join(compiler_flags()),
        "threads": settings.threads,
        "busy": settings.busy,
        **{clock: summary({level: s[clock] for level, s in seconds.items()}) for clock in CLOCKS},
    }


def alternate(steps: dict[str, Callable[[], object]], rounds: int) -> dict[str, dict[str, list[float]]]:
    """Seconds of every step by both clocks."""
    seconds: dict[str, dict[str, list[float]]] = {level: {clock: [] for clock in CLOCKS} for level in steps}
    for _ in range(rounds):
        for level, step in steps.items():
            before = {clock: read() for clock, read in CLOCKS.items()}
            step()
            for clock, read in CLOCKS.items():
                seconds[level][clock].append(read() - before[clock])
    return seconds


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print and keep the record."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--child", choices=INSTRUCTION_SETS, help="measure one in this process, and end")
    parser.add_argument("--sets", default=",".join(INSTRUCTION_SETS))
    parser.add_argument("--levels", default="reference,fast,compiled")
    parser.add_argument("--threads", type=int, default=1, help="of a child")
    parser.add_argument("--busy", action="store_true", help="of a child: a busy process on each core")
    for name, default in {"channels": 16, "cells": 8, "batch": 64, "rounds": 7}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    settings = parser.parse_args(arguments)
    if settings.child:
        print(json.dumps(measure(settings)))
        return
    runs = []
    cores = os.cpu_count() or 1
    for name in settings.sets.split(","):
        for threads, busy in ((1, False), (cores, False), (cores, True)):
            runs.append(run_child(settings, name, threads, busy))
            print(line(runs[-1]))
    from benchmarks.record import write

    kept = {key: value for key, value in vars(settings).items() if key not in ("child", "busy", "threads")}
    print(f"written to {write('instruction_sets', {'settings': kept, 'runs': runs})}")


def run_child(settings: Namespace, name: str, threads: int, busy: bool) -> dict[str, Any]:
    """`measure` for one instruction set and number of threads in a fresh process."""
    march, layers, convolutions, _ = INSTRUCTION_SETS[name]
    environment = os.environ | {
        MARCH: march,
        "ATEN_CPU_CAPABILITY": layers,
        "ONEDNN_MAX_CPU_ISA": convolutions,
    }
    environment["OMP_NUM_THREADS"] = str(threads)
    sizes = ("channels", "cells", "batch", "rounds", "levels")
    options = [f"--{key}={getattr(settings, key)}" for key in sizes] + ["--busy"] * busy
    command = [sys.executable, "-m", "benchmarks.instruction_sets", f"--child={name}", f"--threads={threads}"]
    root = Path(__file__).parents[1]
    run = subprocess.run([*command, *options], cwd=root, env=environment, check=True, stdout=subprocess.PIPE)
    result: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return result


def line(run: dict[str, Any]) -> str:
    """One run's medians, and how many times as fast as the first level the others are."""
    clock = "cpu" if run["threads"] == 1 else "wall"
    first, *others = (seconds["median"] for seconds in run[clock].values())
    ratios = ", ".join(
        f"{level} {first / value:.2f}x" for level, value in zip(list(run[clock])[1:], others, strict=True)
    )
    where = f"{run['instruction_set']}, {run['threads']} threads{', busy' if run['busy'] else ''}"
    return f"{where:<28} reference {first:.3f} {clock} s; {ratios}"


if __name__ == "__main__":
    sleep_while_waiting()
    main()
