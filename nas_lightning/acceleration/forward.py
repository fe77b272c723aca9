"""A network's evaluation, and its per-sample sums, at a level."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from nas_lightning.acceleration.folding import FoldedNetwork
from nas_lightning.acceleration.level import Level
from nas_lightning.acceleration.per_sample import FusedGradients


def folded_forward(network: nn.Module, level: Level) -> Callable[[Tensor], Tensor] | None:
    """Fold a network for evaluation; the result follows the network's weights.

    Args:
        network: The network; it is not changed.
        level: How to compute.

    Returns:
        Maps inputs to the logits of the network in evaluation mode; None where the level is the network
        itself.
    """
    if not level.rearranged:
        return None
    folded = FoldedNetwork(network, compiled=level.compiled)
    tensors = [*network.parameters(), *network.buffers()]
    versions: list[int] = []

    def forward(inputs: Tensor) -> Tensor:
        nonlocal versions
        current = [tensor._version for tensor in tensors]
        if current != versions:
            folded.refresh()
            versions = current
        with torch.autocast(inputs.device.type, torch.bfloat16) if level.mixed else nullcontext():
            return folded(inputs)

    return forward


def fused_sums(
    network: nn.Module, parameters: Mapping[str, nn.Parameter]
) -> Callable[[Tensor, Tensor], tuple[dict[str, Tensor], dict[str, Tensor]] | None]:
    """Compile the sums over a batch of the per-sample gradients' squared norms and of the gradients.

    Args:
        network: The network; it is not changed.
        parameters: The parameters that count, by name.

    Returns:
        Maps a batch (inputs, targets) to the two sums by parameter; None for a batch of another size than the
        first.
    """
    fused = FusedGradients(network, parameters)

    def sums(inputs: Tensor, targets: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor]] | None:
        return fused.sums(inputs, targets) if fused.takes(len(targets)) else None

    return sums
