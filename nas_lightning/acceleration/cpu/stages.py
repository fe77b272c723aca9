"""Names from before the fused blocks had theirs, for callers that still use them."""

from __future__ import annotations

import torch
from torch import nn

from nas_lightning.acceleration.cpu.fused_blocks import Block as Stage
from nas_lightning.acceleration.cpu.fused_blocks import can_fuse as can_compute_stages
from nas_lightning.acceleration.cpu.fused_blocks import fused_blocks as compute_stages
from nas_lightning.acceleration.cpu.fused_blocks import fused_projections as project

__all__ = ["Stage", "can_compute_stages", "compute_stages", "has_own_ways", "is_altered", "project"]


def is_altered(layer: nn.Module) -> bool:
    """Whether :func:`has_own_ways`; code that is being compiled does not look, it is settled before."""
    return not torch.compiler.is_compiling() and has_own_ways(layer)


def has_own_ways(layer: nn.Module) -> bool:
    """Whether a layer has hooks or a ``forward`` of its own."""
    hooks = (layer._forward_hooks, layer._forward_pre_hooks, layer._backward_hooks, layer._backward_pre_hooks)
    return any(hooks) or "forward" in vars(layer)
