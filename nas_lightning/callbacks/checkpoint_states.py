"""The weights of a network in the checkpoints of its training, and of others like it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from nas_lightning.callbacks.checkpoint_structure import check_shapes
from nas_lightning.callbacks.checkpoints import CHECKPOINTS, folder_of
from nas_lightning.torch_files import read_torch_file

TOWER = "auxiliary_tower."
"""Beginning of the names of the auxiliary tower's weights, which no evaluation depends on."""


@dataclass(frozen=True, eq=False)
class CheckpointState:
    """The tensors of a network in a checkpoint, and the epoch, from 0, after which it was written.

    The epoch is -1 for initial weights. ``label`` is what a picture calls the checkpoint.
    """

    state: dict[str, Tensor]
    epoch: int
    label: str


def network_state(path: Path, network: nn.Module, key: str) -> CheckpointState:
    """The parameters and buffers of a network in a checkpoint, without those of an auxiliary tower.

    Args:
        path: The checkpoint, of Lightning.
        network: The network, which is a LightningModule or its ``network``.
        key: The setting that names the checkpoint, for messages.

    Returns:
        The tensors by the network's names, on the CPU, and when they were written.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged, no checkpoint, or of another network.
    """
    checkpoint = read_torch_file(path, key)
    held = checkpoint.get("state_dict") if isinstance(checkpoint, Mapping) else None
    if not isinstance(held, Mapping) or not all(isinstance(value, Tensor) for value in held.values()):
        raise ValueError(f"`{key}` (={path}) is not a checkpoint: it has no `state_dict` of tensors")
    own = evaluated_state(network)
    prefix = "" if own.keys() & held.keys() else "network."
    state = {
        name.removeprefix(prefix): value
        for name, value in held.items()
        if name.startswith(prefix) and not name.removeprefix(prefix).startswith(TOWER)
    }
    try:
        check_shapes(own, state)
    except ValueError as error:
        raise ValueError(f"`{key}` (={path}): {error}") from error
    epoch = int(checkpoint.get("epoch", -1)) if checkpoint.get("global_step") else -1
    return CheckpointState(state, epoch, checkpoint_label(path, epoch))


def evaluated_state(network: nn.Module) -> dict[str, Tensor]:
    """A network's own parameters and buffers, without those of an auxiliary tower."""
    return {name: value for name, value in network.state_dict().items() if not name.startswith(TOWER)}


def find_checkpoint(name: str, run: Path) -> Path:
    """A checkpoint given as a path, or as the name of a file in a run's ``checkpoints``.

    Example:
        >>> find_checkpoint("start", Path("tb_logs/digits/darts")).as_posix()
        'tb_logs/digits/darts/checkpoints/start.ckpt'
    """
    is_name = Path(name).name == name and not name.endswith(".ckpt")
    return run / CHECKPOINTS / f"{name}.ckpt" if is_name else Path(name)


def checkpoint_label(path: Path, epoch: int) -> str:
    """What a picture calls a checkpoint: its run, and its epoch, counted from 1; -1 for initial weights."""
    when = "initial weights" if epoch < 0 else f"after {epoch + 1} epoch{'s' * (epoch > 0)}"
    return f"{folder_of(path.absolute()).name}, {when}"
