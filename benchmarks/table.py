"""Writes what was measured into docs/performance.md, between its markers.

Records of a machine with a GPU lie beside the others as ``NAME-gpu.json``; ``make benchmark`` or
``benchmarks/gpu_check.sh`` on such a machine writes them, at the size of the paper's network.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.record import RESULTS
from nas_lightning.files import atomic_write

PAGE = Path(__file__).parents[1] / "docs" / "performance.md"
START, END = "<!-- measured: start -->\n", "<!-- measured: end -->\n"
SETS = "<!-- instruction sets: start -->\n", "<!-- instruction sets: end -->\n"

# What, the least or most that was asked for on a CPU and on a GPU, and where it stands in which record.
Find = Callable[[Mapping[str, Any]], Any]
MEASURES: tuple[tuple[str, str, str, str, Find], ...] = (
    (
        *("training step, plain / float32", "at least 3.5", "at least 2.5", "training"),
        lambda record: record["ratios"]["step, plain / compiled"],
    ),
    (
        *("training step, plain / mixed precision", "", "at least 5", "training"),
        lambda record: record["ratios"]["step, plain / max"],
    ),
    (
        *("training step, plain / float32, uncompiled", "", "", "training"),
        lambda record: record["ratios"]["step, plain / fast"],
    ),
    (
        *("contour point, plain with a data loader / ours", "at least 4.5", "at least 10", "landscape"),
        lambda record: record["ratios"]["plain contour point / contour point, compiled"],
    ),
    (
        *("the same, uncompiled", "", "", "landscape"),
        lambda record: record["ratios"]["plain contour point / contour point, fast"],
    ),
    (
        *("contour point, ours / a bare compiled pass", "at most 1.05", "at most 1.05", "landscape"),
        lambda record: record["ratios"]["contour point, compiled / compiled evaluation pass"],
    ),
    (
        *("exact variance, a pass per instance / ours", "at least 5", "at least 60", "landscape"),
        lambda record: record["ratios"]["backward per instance / statistics, compiled"],
    ),
    (
        *("exact variance, ours / plain forward and backward", "at most 1.0", "at most 1.2", "landscape"),
        lambda record: record["ratios"]["statistics, compiled / plain ordinary backward"],
    ),
    (
        *("the same, uncompiled", "", "", "landscape"),
        lambda record: record["ratios"]["statistics, fast / plain ordinary backward"],
    ),
    (
        *("point of a line / of a contour", "at most 1.05", "at most 1.05", "landscape"),
        lambda record: record["ratios"]["line point, compiled / contour point, compiled"],
    ),
    (
        *("Hessian product / plain forward and backward", "at most 2.6", "at most 2.6", "landscape"),
        lambda record: record["ratios"]["Hessian product / plain ordinary backward"],
    ),
    (
        *("the same, with PyTorch's layers", "", "", "landscape"),
        lambda record: record["ratios"]["Hessian product of PyTorch's layers / plain ordinary backward"],
    ),
    (
        *("Lanczos of 64 steps, 4 vectors / a product over a batch", "at most 25.6", "", "landscape"),
        lambda record: record["ratios"]["Lanczos of a density without its products / Hessian product"],
    ),
    (
        *("MiB of a process: plane of 50 checkpoints, 3.8 M weights", "under 600", "", "landscape"),
        lambda record: record["memory_mib"]["trajectory of 50 checkpoints"],
    ),
    (
        *("data preparation / step", "under 0.02", "under 0.02", "training"),
        lambda record: record["ratios"]["data preparation / step"],
    ),
    (
        *("images a second, from the host / on the device", "at least 0.95", "", "residence"),
        lambda record: record["ratios"]["16 channels, 8 cells, images a second, host / device"],
    ),
    (
        *("the same, quick start's network", "at least 0.95", "", "residence"),
        lambda record: record["ratios"]["4 channels, 3 cells, images a second, host / device"],
    ),
    (
        *("memory of a step, compiled / plain", "at most 1.1", "at most 1.1", "training"),
        lambda record: record["memory_mib"]["compiled / plain"],
    ),
    (
        *("memory of a contour point, compiled / plain", "at most 1.1", "at most 1.1", "landscape"),
        lambda record: record["memory_mib"]["compiled contour point / plain contour point"],
    ),
    (
        *("memory of the variance, compiled / plain backward", "at most 1.1", "at most 1.1", "landscape"),
        lambda record: record["memory_mib"]["compiled / plain"],
    ),
)


def measured_table(results: Path = RESULTS) -> str:
    """The measures in Markdown.

    Args:
        results: Folder of the records.
    """
    lines = [
        f"| what | two CPU cores: asked | measured | on | one GPU: asked | {_on_gpu(results)} |",
        "|---|---|---|---|---|---|",
    ]
    for what, on_cpu, on_gpu, name, find in MEASURES:
        found = [value_of(results / f"{name}{suffix}.json", find) for suffix in ("", "-gpu")]
        processor = _processor(results / f"{name}.json") if found[0] else ""
        lines.append(f"| {what} | {on_cpu} | {found[0]} | {processor} | {on_gpu} | {found[1]} |")
    return "\n".join(lines) + "\n"


def instruction_table(results: Path = RESULTS) -> str:
    """Training steps by instruction set in Markdown.

    Args:
        results: Folder of the records.
    """
    record = json.loads((results / "instruction_sets.json").read_text())
    lines = [
        f"| {record['machine']['processor']}, kernels compiled with | threads | `reference` |"
        " times as fast: `fast` | `compiled` |",
        "|---|---|---|---|---|",
    ]
    for run in record["runs"]:
        clock = "cpu" if run["threads"] == 1 else "wall"
        medians = {level: seconds["median"] for level, seconds in run[clock].items()}
        ratios = (
            f"{medians['reference'] / medians[level]:.2f}" if level in medians else ""
            for level in ("fast", "compiled")
        )
        march = next(flag for flag in run["compiler_flags"].split() if flag.startswith("-march"))
        threads = f"{run['threads']}{', busy' if run['busy'] else ''}"
        seconds = f"{medians['reference']:.3f} {'CPU s' if clock == 'cpu' else 's'}"
        lines.append(
            f"| {run['instruction_set']} (`-O3 {march}`) | {threads} | {seconds} | {' | '.join(ratios)} |"
        )
    return "\n".join(lines) + "\n"


def with_table(page: str, table: str, start: str = START, end: str = END) -> str:
    """The page with another table between two markers."""
    before, _, rest = page.partition(start)
    _, _, after = rest.partition(end)
    return f"{before}{start}\n{table}\n{end}{after}"


def _on_gpu(results: Path) -> str:
    """Heading of the GPU's column: which one, with which software, or that there was none."""
    paths = sorted({results / f"{name}-gpu.json" for *_, name, _ in MEASURES})
    machines = [json.loads(path.read_text())["machine"] for path in paths if path.exists()]
    described = [
        f"measured: {one['gpu']}, CUDA {one['cuda']}, PyTorch {one['versions']['torch']}" for one in machines
    ]
    return "; ".join(dict.fromkeys(described)) or "not measured: no GPU at hand"


def _processor(path: Path) -> str:
    """The CPU of a record and, where it was noted, the instruction set."""
    measured_on = json.loads(path.read_text())["machine"]
    name = re.sub(r"\((R|TM)\)| Processor", "", measured_on["processor"])
    return ", ".join(filter(None, [name, measured_on.get("instruction_set")]))


def value_of(path: Path, find: Find) -> str:
    """Median and quartiles, in three digits; nothing where there is no such record or measurement."""
    if not path.exists():
        return ""
    try:
        found = find(json.loads(path.read_text()))
    except KeyError:  # a level that was left out
        return ""
    if not isinstance(found, Mapping):
        return f"{found:.3g}"
    low, median, high = (found[key] for key in ("lower_quartile", "median", "upper_quartile"))
    return f"{median:.3g} ({low:.3g} to {high:.3g})"


def main() -> None:
    """Write the table."""
    page = with_table(PAGE.read_text(encoding="utf-8"), measured_table())
    page = with_table(page, instruction_table(), *SETS)
    with atomic_write(PAGE) as file:
        file.write(page)


if __name__ == "__main__":
    main()
