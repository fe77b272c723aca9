"""Why the weights of a file do not fit a network, by the reason rather than by the names of tensors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache

import torch
from torch import Tensor

from nas_lightning.cells import Edge, Genotype, published_genotypes
from nas_lightning.cells.stack import reduction_indices
from nas_lightning.networks.network import CellNetwork
from nas_lightning.networks.operations import BUILT_IN_FACTORIES, build_operation
from nas_lightning.networks.state_dicts import Group, search_sign

Shapes = tuple[tuple[int, ...], ...]
"""Shapes of the tensors of a layer, without counters, sorted."""
_MOST_EDGES = 4


def why_it_does_not_fit(
    network: CellNetwork,
    given: Mapping[Group, Sequence[Tensor]],
    names: Sequence[str],
    problems: Sequence[str],
) -> str:
    """The reason, in one line.

    Args:
        network: The network.
        given: The tensors of every layer of the file.
        names: Names of all tensors of the file.
        problems: What is wrong with single tensors, which is said where no reason is found.
    """
    sign = search_sign(names)
    if sign is not None:
        return (
            f"it holds the weights of a search network ({sign!r}), whose edges have all candidate operations;"
            " train the genotype that the search found, or give the weights of its training"
        )
    if any(group[0] == "cell" for group in given) and not any("running" in name for name in names):
        return (
            "it has no running statistics of batch norms (`running_mean`, `running_var`), as where the "
            "parameters were saved in place of `state_dict()`"
        )
    file = _File(given)
    reasons = [*_sizes(network, file), *_cells(network, file)]
    if reasons:
        return "; ".join(reasons)
    more = f"; {len(problems) - 3} more" if len(problems) > 3 else ""
    return "; ".join(problems[:3]) + more


class _File:
    """What the layers of a file say of its network."""

    def __init__(self, given: Mapping[Group, Sequence[Tensor]]) -> None:
        self.given = given
        indices = {int(group[1]) for group in given if group[0] == "cell"}
        self.num_cells = max(indices, default=-1) + 1
        self.is_imagenet = ("stem0",) in given
        self._shapes = {group: _sorted(tensors) for group, tensors in given.items()}

    def weight(self, group: Group, ndim: int = 4) -> tuple[int, ...] | None:
        """Shape of the first weight of a layer."""
        return next((tuple(x.shape) for x in self.given.get(group, ()) if x.ndim == ndim), None)

    def channels(self, cell: int) -> int:
        """Channels of a cell's nodes; 0 if unknown."""
        return (self.weight(("cell", cell, "preprocess", 1)) or (0,))[0]

    @property
    def classes(self) -> int:
        """Number of classes; 0 if unknown."""
        return (self.weight(("classifier",), 2) or (0,))[0]

    def edge(self, cell: int, position: int) -> Shapes:
        """Shapes of the tensors of an edge."""
        return self._shapes.get(("cell", cell, "edge", position), ())

    def edges(self, cell: int) -> int:
        """Number of a cell's edges up to the last one with weights."""
        positions = [int(g[3]) for g in self.given if g[:3] == ("cell", cell, "edge")]
        return max(positions, default=-1) + 1

    def concatenated(self, cell: int) -> int:
        """How many nodes a cell concatenates; 0 if unknown."""
        read = self.weight(("cell", cell + 1, "preprocess", 1)) or self.weight(("classifier",), 2)
        channels = self.channels(cell)
        return read[1] // channels if read and channels else 0


def _sizes(network: CellNetwork, file: _File) -> list[str]:
    """Differences in stem, depth, width, classes and tower."""
    reasons = []
    is_imagenet = network.plan.stem == "imagenet"
    if file.is_imagenet != is_imagenet and {("stem",), ("stem0",)} & set(file.given):
        has, stem = ("the ImageNet stem", "imagenet") if file.is_imagenet else ("the CIFAR stem", "cifar")
        reasons.append(f"it has {has}: set `stem` to {stem}")
    if file.num_cells != len(network.cells):
        reasons.append(f"it has {file.num_cells} cells, the network {len(network.cells)} (`num_cells`)")
    channels = network.plan.cells[0].channels
    reduced = 2 if 0 in reduction_indices(file.num_cells) else 1
    own_reduced = 2 if network.plan.cells[0].reduction else 1
    if file.channels(0) and file.channels(0) * own_reduced != channels * reduced:
        theirs, ours = file.channels(0) // reduced, channels // own_reduced
        reasons.append(f"its first cell has {theirs} channels, the network's {ours} (`init_channels`)")
    if file.classes and file.classes != network.num_classes:
        reasons.append(f"it has {file.classes} classes, the network {network.num_classes}")
    if network.auxiliary_tower is not None:
        if ("tower",) not in file.given:
            reasons.append(
                "it has no auxiliary tower: load it into a network without one (`auxiliary_weight` 0, or"
                " auxiliary=False)"
            )
        elif not reasons and len(file.given["tower",]) < len(network.auxiliary_tower.state_dict()) // 2:
            reasons.append("its auxiliary tower has other layers: load it into a network without one")
    return reasons


def _cells(network: CellNetwork, file: _File) -> list[str]:
    """Differences in the operations of the cells and in the nodes that they concatenate."""
    reasons = []
    for reduction in (False, True):
        cell = _first_cell(file, reduction)
        if cell is None:
            continue
        edges, concat = network.genotype.cell(reduction)
        name = "reduction" if reduction else "normal"
        differing = list(_differing(file, cell, edges, reduction))
        found = []
        if differing:
            said = [
                f"edge {position} has {_held(file, cell, position, stride)}, the genotype {op}"
                for position, op, stride in differing[:_MOST_EDGES]
            ]
            rest = len(differing) - len(said)
            found += [", ".join(said) + (f" and {rest} edges more" if rest else "")]
        if file.edges(cell) > len(edges):
            found.append(f"it has {file.edges(cell)} edges, the genotype {len(edges)}")
        concatenated = file.concatenated(cell)
        if concatenated and concatenated != len(concat):
            found.append(f"it concatenates {concatenated} nodes, the genotype {len(concat)}")
        if found:
            reasons.append(f"it was written for another {name} cell: {', '.join(found)}")
    if reasons:
        fitting = [
            name for name in published_genotypes() if _fits(published_genotypes()[name].genotype, file)
        ]
        if fitting:
            reasons.append(f"its operations are those of {' or '.join(fitting[:3])}")
    return reasons


def _first_cell(file: _File, reduction: bool) -> int | None:
    """The first cell of a kind whose channels are known."""
    reductions = reduction_indices(file.num_cells)
    cells = (cell for cell in range(file.num_cells) if (cell in reductions) == reduction)
    return next((cell for cell in cells if file.channels(cell)), None)


def _fits(genotype: Genotype, file: _File) -> bool:
    """Whether a genotype's operations and concatenations are those of a file."""
    for reduction in (False, True):
        cell = _first_cell(file, reduction)
        edges, concat = genotype.cell(reduction)
        if cell is None or file.edges(cell) > len(edges) or file.concatenated(cell) != len(concat):
            return False
        if any(True for _ in _differing(file, cell, edges, reduction)):
            return False
    return True


def _differing(
    file: _File, cell: int, edges: Sequence[Edge], reduction: bool
) -> Iterator[tuple[int, str, int]]:
    """Position, operation and stride of the edges on which a file has other weights."""
    for position, (op, source) in enumerate(edges):
        stride = 2 if reduction and source < 2 else 1
        if file.edge(cell, position) != _shapes(op, file.channels(cell), stride):
            yield position, op, stride


def _held(file: _File, cell: int, position: int, stride: int) -> str:
    """What a file has on an edge."""
    held = file.edge(cell, position)
    if not held:
        return "no weights"
    both = [(name, s) for s in (stride, 3 - stride) for name in BUILT_IN_FACTORIES]
    fitting = [name for name, s in both if held == _shapes(name, file.channels(cell), s)]
    return f"the weights of {' or '.join(dict.fromkeys(fitting))}" if fitting else "other weights"


def _sorted(tensors: Sequence[Tensor]) -> Shapes:
    return tuple(sorted(tuple(tensor.shape) for tensor in tensors if tensor.ndim))


@lru_cache(maxsize=1024)
def _shapes(op: str, channels: int, stride: int) -> Shapes:
    """Shapes of the tensors of an operation."""
    with torch.device("meta"):
        return _sorted(list(build_operation(op, channels, stride).state_dict().values()))
