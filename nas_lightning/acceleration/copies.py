"""Copies of a module that compute otherwise but hold the same tensors."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

WHOLE_CELLS = 10
"""Most cells of a network that is compiled as a whole, in some minutes on two cores."""


def sharing_copy(module: nn.Module) -> nn.Module:
    """A copy of a module whose parameters and buffers are the module's own.

    Layers of the copy may be replaced without a trace in the module; what happens to the weights of one
    happens to those of the other.

    Args:
        module: Any module that ``copy.deepcopy`` takes.

    Returns:
        The copy, uncompiled.
    """
    tensors = [*module.parameters(), *module.buffers()]
    return copy.deepcopy(module, {id(tensor): tensor for tensor in tensors})


def compile_module(module: nn.Module, **options: Any) -> None:
    """Compile a copy in place: as a whole or, with more than :data:`WHOLE_CELLS` cells, cell by cell.

    As a whole it is faster, but takes longer to compile with every cell; cell by cell, those that are alike
    share the compiled code. Sizes are fixed: a batch of another size would be compiled for anew.

    Args:
        module: Any module; its cells are those of an attribute ``cells``.
        options: As for :func:`torch.compile`.
    """
    # One entry for each different cell, in training and in evaluation; dynamo's own limit is 8.
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 64)
    cells = getattr(module, "cells", None)
    is_long = isinstance(cells, nn.ModuleList) and len(cells) > WHOLE_CELLS
    for part in cells if is_long and isinstance(cells, nn.ModuleList) else (module,):
        part.compile(dynamic=False, **options)
