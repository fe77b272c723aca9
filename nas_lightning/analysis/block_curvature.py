"""Where in a network its curvature is made: the ends of the spectrum of every cell's and node's own block.

The block H_bb of the Hessian H holds the second derivatives in the parameters b of one place, all others
fixed at w*. By Cauchy's interlacing theorem

    lambda_min(H) <= lambda_min(H_bb) <= lambda_max(H_bb) <= lambda_max(H),

and likewise for a node within its cell: no place is sharper than the network. For a positive semi-definite H
the largest eigenvalues of disjoint blocks that cover it add up to at least lambda_max(H). Source: Golub and
Van Loan, *Matrix Computations* (4th edition, 2013), theorem 8.1.7.

With D = diag(||w_u|| / sqrt(n_u)) over the filters u, the blocks are those of D H D, which do not see the
scale of weights before a batch norm; see :mod:`nas_lightning.analysis.filters`.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import nn

from nas_lightning.analysis.curvature_products import HessianProduct
from nas_lightning.analysis.evaluation import Batches, Forward, Loss
from nas_lightning.analysis.extreme_eigenvalues import (
    NOT_FINITE,
    ExtremeEigenvalues,
    check_run,
    extreme_eigenvalues,
)
from nas_lightning.analysis.filters import filter_scale

Place: TypeAlias = tuple[str, int | None, int | None]
"""Part of a network, number of the cell or None, and its node or None (the projections of its inputs)."""

WHOLE = "network"
"""Name of the block of all parameters."""
PREPROCESSING = "preprocess"


@dataclass(frozen=True)
class Block:
    """Parameters in one place of a network.

    Attributes:
        name: ``"network"``, a part such as ``"stem"``, ``"cell 3"``, ``"cell 3 node 2"`` or ``"cell 3
            preprocess"``.
        parameters: Names of its parameters.
        cell: Number of the cell; None outside the cells.
        node: Node of the cell, ``"preprocess"`` or a number; empty for a whole cell.
    """

    name: str
    parameters: tuple[str, ...]
    cell: int | None = None
    node: str = ""


def parameter_blocks(places: Mapping[str, Place]) -> list[Block]:
    """The blocks of a network: the whole, its parts, and every cell, followed by its nodes.

    Args:
        places: Place of every parameter by its name, in the order of the network.

    Example:
        >>> places = {"stem.weight": ("stem", None, None), "cells.0.weight": ("cells", 0, 2)}
        >>> [block.name for block in parameter_blocks(places)]
        ['network', 'stem', 'cell 0', 'cell 0 node 2']
    """
    found: dict[str, Block] = {WHOLE: Block(WHOLE, tuple(places))}
    for part, cell, _ in places.values():
        here = {name: place for name, place in places.items() if place[:2] == (part, cell)}
        if cell is None:
            label = part if part != WHOLE else f"{WHOLE} (part)"
            found[label] = Block(label, tuple(here))
            continue
        found[f"cell {cell}"] = Block(f"cell {cell}", tuple(here), cell)
        for node in sorted({node or 0 for _, _, node in here.values()}):
            own = tuple(name for name, place in here.items() if (place[2] or 0) == node)
            label = str(node) if node else PREPROCESSING
            name = f"cell {cell} {f'node {node}' if node else PREPROCESSING}"
            found[name] = Block(name, own, cell, label)
    return list(found.values())


def children_places(names: Sequence[str]) -> dict[str, Place]:
    """Places in a module without cells: its children, below what all parameters have in common.

    Example:
        >>> [place[0] for place in children_places(["net.0.weight", "net.0.bias", "net.2.weight"]).values()]
        ['net.0', 'net.0', 'net.2']
    """
    paths = [name.split(".")[:-1] for name in names]
    depth = 1
    while min(map(len, paths), default=0) > depth and len({tuple(path[:depth]) for path in paths}) == 1:
        depth += 1
    return {
        name: (".".join(path[:depth]) or name, None, None) for name, path in zip(names, paths, strict=True)
    }


def with_filters(module: nn.Module, blocks: Sequence[Block]) -> list[Block]:
    """The blocks that hold a filter, see :mod:`nas_lightning.analysis.filters`; in others D H D is 0."""
    filters = {name for name, parameter in module.named_parameters() if parameter.ndim > 1}
    return [block for block in blocks if filters & set(block.parameters)]


def block_eigenvalues(
    module: nn.Module,
    batches: Batches,
    names: Collection[str],
    *,
    normalized: bool = True,
    tolerance: float | int = 1e-4,
    max_products: int = 100,
    seed: int = 0,
    forward: Forward | None = None,
    loss: Loss | None = None,
) -> ExtremeEigenvalues:
    """Compute the largest and smallest eigenvalue of one block of the Hessian of the mean loss.

    A product needs gradients in the block alone: everything before it runs forward without a graph, so that
    blocks near the output cost little more than two forward passes.

    Args:
        module: Maps inputs to logits ``[batch, classes]`` in evaluation mode; its weights are w*.
        batches: The samples, on the module's device.
        names: Parameters of the block, as ``named_parameters()`` has them.
        normalized: Whether the block is that of D H D.
        tolerance: Residual, relative to the block's largest absolute eigenvalue, at which the run stops.
        max_products: Limit on the products.
        seed: Of the start vector.
        forward: Computes the module, differentiably in its parameters, twice; None is the module itself.
        loss: See :func:`~nas_lightning.analysis.loss.evaluate`.

    Returns:
        The eigenvalues, in nat (per squared weight where not normalised); NaN where the loss or a product is
        not finite.

    Raises:
        ValueError: If a name is no live parameter of the module, or a setting is out of range.

    Example:
        >>> module = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 2))
        >>> batches = [(torch.randn(5, 2), torch.tensor([0, 1, 1, 0, 1]))]
        >>> last = block_eigenvalues(module, batches, ["2.weight"])
        >>> whole = block_eigenvalues(module, batches, [name for name, _ in module.named_parameters()])
        >>> 0 <= last.largest <= whole.largest * 1.001
        True
    """
    check_run(tolerance, max_products)
    with _only_live(module, names):
        product = HessianProduct(module, batches, loss=loss, forward=forward)
        if not math.isfinite(product.partial_loss()):
            return NOT_FINITE
        return extreme_eigenvalues(
            product.partial,
            product.size,
            tolerance=tolerance,
            max_products=max_products,
            seed=seed,
            scale=filter_scale(module) if normalized else None,
        )


@contextmanager
def _only_live(module: nn.Module, names: Collection[str]) -> Iterator[None]:
    """Let only some live parameters require gradients; afterwards all do that did."""
    live = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
    unknown = sorted(set(names) - live.keys())
    if unknown or not names:
        raise ValueError(f"`names` (={unknown or list(names)}) must be live parameters of the module")
    others = [parameter for name, parameter in live.items() if name not in names]
    with torch.inference_mode(False):
        try:
            for parameter in others:
                parameter.requires_grad_(False)
            yield
        finally:
            for parameter in others:
                parameter.requires_grad_(True)
