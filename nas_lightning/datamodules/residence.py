"""Where the images of a training are: on its device, or on the host, with batches prepared ahead."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

Resident = Literal["auto", "device", "host"]
SHARE = 0.5
"""Share of a GPU's free memory that images may take where nothing else is asked for: activations follow."""


def check_resident(value: object) -> None:
    """Refuse a value of ``resident`` that is none of :data:`Resident`.

    Raises:
        ValueError: If it is something else.
    """
    if value not in get_args(Resident):
        raise ValueError(f"`resident` (={value!r}) must be 'auto', 'device' or 'host'")


def free_memory(device: torch.device) -> int | None:
    """Bytes that this process can still get of a GPU; None for a device that does not tell.

    What PyTorch holds without using it counts as free.
    """
    if device.type != "cuda":
        return None
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def stays_on_host(resident: Resident, size: int, device: torch.device) -> bool:
    """Whether images of so many bytes stay on the host. Those of a CPU stay as they are with ``"auto"``."""
    if resident != "auto":
        return resident == "host"
    free = free_memory(device)
    return free is not None and size > SHARE * free


def why_on_host(size: int, device: torch.device) -> str:
    """Why images of so many bytes stay on the host."""
    free = free_memory(device) or 0
    return (
        f"their {size / 2**30:.2f} GiB are more than {SHARE:.0%} of the {free / 2**30:.2f} GiB that are free"
        f" on {device} (`resident` = 'auto')"
    )


def pinned(tensor: Tensor, device: torch.device | None) -> Tensor:
    """A tensor of the host that a GPU can fetch by itself; as it is for any other device."""
    if device is None or device.type != "cuda":
        return tensor
    with torch.cuda.device(device):  # in a thread of its own, the first GPU would be asked
        return tensor.pin_memory()
