"""Size of an instantiated network, user operations included."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from nas_lightning.networks.network import CellNetwork


@dataclass(frozen=True)
class NetworkSize:
    """What a network costs.

    Attributes:
        parameters: All parameters, dead branches included: the size the literature reports.
        live_parameters: Parameters that are trained.
        multiply_adds: Multiply-adds of the convolutions and matrix products of one image in evaluation mode.
    """

    parameters: int
    live_parameters: int
    multiply_adds: int


def measure_size(network: CellNetwork, image_size: int) -> NetworkSize:
    """Count the parameters and multiply-adds of a network by running it on one image.

    Multiply-adds are counted where they are executed, in evaluation mode: no dead branch, no auxiliary tower.
    Batch norm, pooling, additions and activations are not counted, as is the custom (Liu et al., ICLR 2019,
    section 3.3). The network is left as it was.

    Args:
        network: The network, on any device.
        image_size: Height and width of the images in pixels.

    Returns:
        The counts.

    Raises:
        ValueError: If images of this size do not fit the network.
    """
    parameters = list(network.parameters())
    training = {module: module.training for module in network.modules()}
    network.eval()
    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            # forward, not __call__: a compiled network would be compiled for this one image
            network.forward(parameters[0].new_zeros(1, 3, image_size, image_size))
    finally:
        for module, was_training in training.items():
            module.training = was_training
    return NetworkSize(
        parameters=sum(p.numel() for p in parameters),
        live_parameters=sum(p.numel() for p in parameters if p.requires_grad),
        multiply_adds=counter.get_total_flops() // 2,
    )
