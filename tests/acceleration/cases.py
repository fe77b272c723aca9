"""Networks and trainings that the tests of acceleration share."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from nas_lightning.acceleration.cpu.build import kernel_library
from nas_lightning.cells import Genotype
from nas_lightning.networks import CellNetwork, load_reference_weights
from tests.oracles.plain_network import PlainNetwork

SMALL = Genotype(
    [("sep_conv_3x3", 0), ("dil_conv_3x3", 1), ("skip_connect", 2), ("max_pool_3x3", 0)],
    [2, 3],
    [("dil_conv_3x3", 0), ("sep_conv_3x3", 1), ("skip_connect", 1), ("avg_pool_3x3", 2)],
    [2, 3],
)
"""Every kind of layer, few of each."""
TINY = Genotype(
    *([("sep_conv_3x3", 0), ("max_pool_3x3", 1)], [2]),
    *([("dil_conv_3x3", 0), ("skip_connect", 1)], [2]),
)
"""For tests that really compile, which takes a minute."""
SIZES: dict[str, Any] = {"init_channels": 4, "num_cells": 3}
RECIPE: dict[str, Any] = {"lr": 0.025, "momentum": 0.9, "weight_decay": 3e-4}

needs_compiler = pytest.mark.skipif(kernel_library(torch.float64) is None, reason="needs a C compiler")
KERNELS = [False, pytest.param(True, marks=needs_compiler)]
"""Without and with the kernels in C."""


def without_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have this test run as on a machine without a C compiler."""
    for module in ("cpu.fused_blocks", "layers"):
        monkeypatch.setattr(f"nas_lightning.acceleration.{module}.kernel_library", lambda dtype: None)


def batch(dtype: torch.dtype = torch.float64, images: int = 6) -> tuple[Tensor, Tensor]:
    """Random images of 16 pixels and labels of ten classes."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(images, 3, 16, 16, generator=generator, dtype=torch.float64)
    return x.to(dtype), torch.randint(10, (images,), generator=generator)


def networks(
    genotype: Genotype, dtype: torch.dtype = torch.float64, **sizes: Any
) -> tuple[PlainNetwork, CellNetwork]:
    """The oracle and the network with the same weights, in training mode."""
    torch.manual_seed(0)
    oracle = PlainNetwork(genotype, 10, **SIZES | sizes).to(dtype).train()
    network = CellNetwork(genotype, 10, **SIZES | sizes).to(dtype).train()
    load_reference_weights(network, oracle.state_dict())
    return oracle, network


def trained_losses(
    compute: Any, network: nn.Module, steps: int, dtype: torch.dtype = torch.float64, **recipe: Any
) -> list[float]:
    """Losses of the paper's training on one batch, clipped as the trainer clips, where the network lies."""
    parameters = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(parameters, **RECIPE | recipe)
    x, targets = (values.to(parameters[0].device) for values in batch(dtype))
    losses = []
    for _ in range(steps):
        output = compute(x)
        loss = functional.cross_entropy(output[0] if isinstance(output, tuple) else output, targets)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(parameters, 5.0)
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses
