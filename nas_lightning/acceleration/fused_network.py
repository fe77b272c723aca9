"""The cell network with its layers fused: the same function in fewer passes over memory.

What several readers of a tensor have in common is computed once: the ReLU of a node, equal poolings of a
node, the projections of a cell's output, which read its nodes without concatenating them. On a CPU with a C
compiler, ReLU, depthwise convolution, 1x1 convolution and batch norm are one kernel, a fused block.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Sequence
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from nas_lightning.acceleration.cpu.calibration import KINDS, PROJECTION, SEPARABLE
from nas_lightning.acceleration.cpu.fused_blocks import Block, can_fuse, fused_blocks, fused_projections
from nas_lightning.acceleration.layers import every_second_pixel
from nas_lightning.cells import check_image_size
from nas_lightning.networks.cell import Cell
from nas_lightning.networks.network import CellNetwork
from nas_lightning.networks.operations import (
    DilatedConvolution,
    FactorizedReduction,
    PlainConvolution,
    ReLUConvBN,
    RowColumnConvolution,
    SeparableConvolution,
    SingleSeparableConvolution,
)
from nas_lightning.networks.stem import stem_outputs

Shared: TypeAlias = dict[tuple[object, ...], Tensor]
"""What edges of a cell have in common, by source and kind."""


class FusedNetwork(nn.Module):
    """A cell network in one mode, training or evaluation, with its layers fused.

    Args:
        network: Its layers are used as they are; it must not be called any more.
        training: The mode; in evaluation nothing is differentiated.
        kinds: Kinds of kernels that may be used.

    Attributes:
        kernels: Number of operations that are computed by fused blocks.
    """

    def __init__(self, network: CellNetwork, training: bool, kinds: Collection[str] = KINDS) -> None:
        super().__init__()
        self._network = (network.train(training),)  # not a submodule: its cells are not called
        self.stem, self.classifier = network.stem, network.classifier
        self.auxiliary_tower = network.auxiliary_tower if training else None
        cells = [cell for cell in network.cells if isinstance(cell, Cell)]
        self.cells = nn.ModuleList(FusedCell(cell, training, kinds) for cell in cells)
        self.projections = nn.ModuleList(
            nn.ModuleList(_projection(layer, training, kinds) for layer in cell.preprocess) for cell in cells
        )
        self.train(training)
        self.kernels = sum(isinstance(module, BlocksEdge | _BlockProjection) for module in self.modules())

    def forward(
        self, x: Float[Tensor, "batch 3 height width"]
    ) -> (
        Float[Tensor, "batch classes"] | tuple[Float[Tensor, "batch classes"], Float[Tensor, "batch classes"]]
    ):
        """As :meth:`nas_lightning.networks.CellNetwork.forward`."""
        (network,) = self._network
        for size in x.shape[2:]:
            check_image_size(network.plan, size, network.stem_stride, tower=self.training)
        live, factors = network.live_cells(), network.drop_path_factors(len(x))
        # The outputs of the stem count as those of cells -2 and -1.
        before_last, last = stem_outputs(self.stem, x)
        nodes: tuple[Tensor, ...] = (last,)
        inputs = self._project(-1, nodes, live)
        if before_last is not last:
            inputs |= self._project(-2, (before_last,), live)
        read_by_tower: Tensor | None = None
        for index, cell in enumerate(self.cells):
            if live[index]:
                own = (inputs.pop((index, which), None) for which in (0, 1))
                nodes = cell(*own, factors[index])
                inputs |= self._project(index, nodes, live)
                if index == network.plan.auxiliary_index and self.auxiliary_tower is not None:
                    read_by_tower = torch.cat(nodes, dim=1)
        logits: Tensor = self.classifier(torch.cat([node.mean((2, 3)) for node in nodes], dim=1))
        return logits if self.auxiliary_tower is None else (logits, self.auxiliary_tower(read_by_tower))

    def _project(
        self, output: int, nodes: tuple[Tensor, ...], live: Sequence[bool]
    ) -> dict[tuple[int, int], Tensor]:
        """Projections of the output of a cell (below 0: the stem), by the reading cell and its input."""
        (network,) = self._network
        readers = [(output + 1, 1), (output + 2, 0)] if output > -2 else [(0, 0)]
        if output == -1 and network.plan.stem == "cifar":
            readers.insert(0, (0, 0))
        projected: dict[tuple[int, int], Tensor] = {}
        together: dict[tuple[int, int], Block] = {}
        rectified: Tensor | None = None
        for index, which in readers:
            if index == len(self.cells):
                break
            if not live[index] or not network.plan.cells[index].live_inputs[which]:
                continue
            projection = self.projections[index][which]  # type: ignore[index]
            if isinstance(projection, _BlockProjection):
                together[index, which] = projection.block
            elif isinstance(projection, NodeReduction):
                projected[index, which] = projection(nodes)
            elif isinstance(projection, _Rectified):
                rectified = functional.relu(torch.cat(nodes, dim=1)) if rectified is None else rectified
                projected[index, which] = projection(rectified)
            else:
                projected[index, which] = projection(torch.cat(nodes, dim=1))
        if together:
            projected |= zip(together, fused_projections(nodes, list(together.values())), strict=True)
        return projected


class FusedCell(nn.Module):
    """A cell that reads projected inputs and returns its nodes one by one."""

    def __init__(self, cell: Cell, training: bool, kinds: Collection[str] = KINDS) -> None:
        super().__init__()
        self._cell = (cell,)
        self.edges = nn.ModuleList(
            fused_edge(operation, source, training, kinds)
            for operation, source in zip(cell.edges, cell.sources, strict=True)
        )

    def forward(
        self,
        before_last: Float[Tensor, "batch channels _ _"] | None,
        last: Float[Tensor, "batch channels _ _"] | None,
        factors: Float[Tensor, "droppable batch"] | None = None,
    ) -> tuple[Float[Tensor, "batch channels _ _"], ...]:
        """The nodes of the concat list, ``[batch, channels, height, width]`` each."""
        (cell,) = self._cell
        nodes: list[Tensor | None] = [before_last, last]
        shared: Shared = {}
        scales = {} if factors is None else dict(zip(cell.droppable_edges, factors, strict=True))
        for node, positions in enumerate(cell.positions, start=2):
            total: Tensor | None = None
            for index in positions:
                x = nodes[cell.sources[index]]
                if cell.plan.live_edges[index] and x is not None:
                    total = self.edges[index](total, x, scales.get(index), shared)
                elif index in cell.noise_edges and cell.training:
                    noise = cell.noise(nodes, scales.get(index))
                    total = noise if total is None else total + noise
            if total is None and node in cell.live_nodes:
                total = cell.zero_node(nodes)
            nodes.append(total)
        return tuple(x for node in cell.concat if (x := nodes[node]) is not None)


class Edge(nn.Module):
    """An operation that is added to the sum of a node."""

    def __init__(self, operation: nn.Module, source: int) -> None:
        super().__init__()
        self.operation, self.source = operation, source

    def value(self, x: Tensor, shared: Shared) -> Tensor:
        """Value of the edge for a node, given what other edges have in common with it."""
        if getattr(self.operation, "rectified_input", False):
            x = self.rectified(x, shared)
        return self.operation(x)  # type: ignore[no-any-return]

    def rectified(self, x: Tensor, shared: Shared) -> Tensor:
        """ReLU of the node, computed once."""
        if (self.source, "relu") not in shared:
            shared[self.source, "relu"] = functional.relu(x)
        return shared[self.source, "relu"]

    def forward(
        self,
        total: Float[Tensor, "batch channels _h _w"] | None,
        x: Float[Tensor, "batch channels _ _"],
        factors: Float[Tensor, " batch"] | None,
        shared: Shared,
    ) -> Float[Tensor, "batch channels _h _w"]:
        """A node's sum so far and this edge's value, times drop path's factors; None is zero and one."""
        value = self.value(x, shared)
        if factors is None:
            return value if total is None else total + value
        scale = factors.to(value.dtype).view(-1, 1, 1, 1)
        return value * scale if total is None else torch.addcmul(total, value, scale)


class RectifiedEdge(Edge):
    """Layers behind a ReLU, which edges of one source share."""

    def value(self, x: Tensor, shared: Shared) -> Tensor:
        """The layers of the rectified node."""
        return self.operation(self.rectified(x, shared))  # type: ignore[no-any-return]


class PoolingEdge(Edge):
    """A pooling, which equal edges of one source share."""

    def value(self, x: Tensor, shared: Shared) -> Tensor:
        """The pooled node."""
        layer = self.operation
        settings = tuple(str(getattr(layer, name)) for name in layer.__constants__)  # type: ignore[union-attr]
        key = (self.source, type(layer), *settings)
        if key not in shared:
            shared[key] = layer(x)
        return shared[key]


class ReductionEdge(Edge):
    """A skip connection of stride 2."""

    def value(self, x: Tensor, shared: Shared) -> Tensor:
        """The reduced node."""
        return self.operation((x,))  # type: ignore[no-any-return]


class BlocksEdge(Edge):
    """An operation that fused blocks compute, the sum and drop path included."""

    def __init__(self, operation: nn.Module, source: int, blocks: Sequence[Block]) -> None:
        super().__init__(nn.Identity(), source)
        self.blocks = tuple(blocks)

    def forward(
        self,
        total: Float[Tensor, "batch channels _h _w"] | None,
        x: Float[Tensor, "batch channels _ _"],
        factors: Float[Tensor, " batch"] | None,
        shared: Shared,
    ) -> Float[Tensor, "batch channels _h _w"]:
        """A node's sum so far and this edge's value, in one kernel a block."""
        return fused_blocks((x,), self.blocks, factors, total)


class _BlockProjection(nn.Module):
    """A 1x1 projection that a fused block computes, together with others of the same nodes."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        self.blocks = (block,)

    @property
    def block(self) -> Block:
        return self.blocks[0]


class NodeReduction(nn.Module):
    """A factorized reduction of several nodes' channels that reads only the pixels it needs."""

    def __init__(self, layer: FactorizedReduction) -> None:
        super().__init__()
        self._weights = (layer.convolution_even, layer.convolution_odd)
        self.norm = layer.norm

    def forward(self, nodes: Sequence[Tensor]) -> Tensor:
        """The reduced nodes, ``[batch, channels, height / 2, width / 2]``."""
        halves = []
        for first, convolution in enumerate(self._weights):
            pixels = torch.cat([every_second_pixel(node, first) for node in nodes], dim=1)
            halves.append(functional.conv2d(pixels.relu(), convolution.weight))
        return self.norm(torch.cat(halves, dim=1))  # type: ignore[no-any-return]


class _Rectified(nn.Sequential):
    """The layers of an operation behind its ReLU."""


def blocks_of(operation: nn.Module) -> tuple[Block, ...]:
    """The layers of an operation by fused blocks; none if it does not consist of them."""
    blocks: list[Block] = []
    layers = list(operation.children()) if type(operation) in _SEQUENCES else []
    while layers:
        size = 4 if len(layers) > 3 and isinstance(layers[2], nn.Conv2d) else 3
        if len(layers) < size or type(layers[0]) is not nn.ReLU:
            return ()
        depthwise, pointwise, norm = (None, *layers[1:size])[-3:]
        blocks.append(Block(depthwise, pointwise, norm))  # type: ignore[arg-type]
        layers = layers[size:]
    return tuple(blocks)


_SEQUENCES = (
    ReLUConvBN,
    SeparableConvolution,
    SingleSeparableConvolution,
    DilatedConvolution,
    RowColumnConvolution,
    PlainConvolution,
)
"""Operations that are layers one after the other."""


def fused_edge(operation: nn.Module, source: int, training: bool, kinds: Collection[str] = KINDS) -> Edge:
    """The edge that computes an operation in the fewest passes."""
    fused = _fused(operation, training, SEPARABLE in kinds)
    if isinstance(fused, tuple):
        return BlocksEdge(operation, source, fused)
    edges = {_Rectified: RectifiedEdge, NodeReduction: ReductionEdge}
    edges |= {nn.MaxPool2d: PoolingEdge, nn.AvgPool2d: PoolingEdge}
    return edges.get(type(fused), Edge)(fused, source)


def _projection(layer: nn.Module, training: bool, kinds: Collection[str]) -> nn.Module:
    fused = _fused(layer, training, PROJECTION in kinds)
    return _BlockProjection(fused[0]) if isinstance(fused, tuple) else fused


def _fused(operation: nn.Module, training: bool, kernels: bool) -> tuple[Block, ...] | nn.Module:
    """An operation as fused blocks, as layers behind a ReLU, as a reduction of nodes, or as it is."""
    blocks = blocks_of(operation)
    if kernels and can_fuse(blocks, training):
        return blocks
    if type(operation) is FactorizedReduction:
        halves = (operation.convolution_even, operation.convolution_odd)
        is_usual = type(operation.relu) is nn.ReLU and all(type(half) is nn.Conv2d for half in halves)
        return NodeReduction(operation) if is_usual else operation
    layers = list(operation.named_children()) if type(operation) in _SEQUENCES else []
    if layers and type(layers[0][1]) is nn.ReLU:
        return _Rectified(OrderedDict(layers[1:]))
    return operation
