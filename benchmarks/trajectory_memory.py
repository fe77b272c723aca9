"""Memory of a process that finds the plane of a training's checkpoints.

``python -m benchmarks.trajectory_memory FOLDER`` prints the most memory that the process has held since its
start, the import of torch included, and how much of it came after the imports, both in MiB. Nothing but what
the plane needs is imported.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import nn

from nas_lightning.analysis.stored_weights import CheckpointWeights
from nas_lightning.analysis.trajectory import plane_directions, trajectory_plane
from nas_lightning.torch_files import read_torch_file, write_torch_file

MOST_MEBIBYTES = 600.0
"""Limit for 50 checkpoints of the paper's network, in all."""


def measure_in_child(network: nn.Module, count: int) -> dict[str, float]:
    """Memory of a fresh process, in MiB, for so many perturbed checkpoints of a network."""
    with TemporaryDirectory() as folder:
        write_checkpoints(Path(folder), network, count)
        command = [sys.executable, "-m", "benchmarks.trajectory_memory", folder]
        root = Path(__file__).parents[1]
        answer = subprocess.run(command, cwd=root, check=True, stdout=subprocess.PIPE).stdout
    whole, added = json.loads(answer)
    return {f"trajectory of {count} checkpoints": whole, "the same, after the imports": added}


def write_checkpoints(folder: Path, network: nn.Module, count: int) -> None:
    """Write checkpoints along a random walk from a network's weights."""
    generator = torch.Generator().manual_seed(0)
    state = {name: value.clone() for name, value in network.state_dict().items()}
    names = [name for name, parameter in network.named_parameters() if parameter.requires_grad]
    for index in range(count):
        write_torch_file(folder / f"{index:04d}.ckpt", {"state_dict": state, "names": names})
        for name in names:
            state[name] += 0.01 * torch.randn(state[name].shape, generator=generator)


def main(arguments: Sequence[str] | None = None) -> None:
    """Find the plane and its directions, and print the memory."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    files = sorted(parser.parse_args(arguments).folder.glob("*.ckpt"))
    before = _most_mebibytes()
    names = read_torch_file(files[0])["names"]
    path = [CheckpointWeights(file, names) for file in files]
    last = path[-1].state_dict()
    origin = {name: last[name].clone() for name in names}
    del last
    plane = trajectory_plane(path, origin)
    plane_directions(path, origin, plane.coefficients)
    print(json.dumps([_most_mebibytes(), _most_mebibytes() - before]))


def _most_mebibytes() -> float:
    """The most resident memory so far; not a number where Linux cannot be asked."""
    status = Path("/proc/self/status")  # ``getrusage`` counts the parent process in
    if not status.exists():
        return math.nan
    return int(status.read_text().partition("VmHWM:")[2].split()[0]) / 2**10


if __name__ == "__main__":
    main()
