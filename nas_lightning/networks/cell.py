"""Cell: a genotype's normal or reduction cell as a module."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from nas_lightning.acceleration.cpu.stages import is_altered
from nas_lightning.acceleration.layers import MaxPool
from nas_lightning.cells import CellPlan, Genotype, live_nodes
from nas_lightning.networks.operations import (
    ConvolutionStages,
    FactorizedReduction,
    build_operation,
    pointwise_projection,
    pooling_key,
)


class Cell(nn.Module):
    """One cell of the stack.

    Both inputs are brought to the cell's channels (and, behind a reduction cell, input 0 to input 1's
    resolution); every intermediate node sums its two edges; the output concatenates the nodes of the concat
    list. What does not reach the classifier (``plan.live``, ``live_inputs``, ``live_edges``) exists as
    parameters with ``requires_grad=False`` and is never called, nor is an edge that carries ``none``; a node
    all of whose edges carry ``none`` is zero.

    Args:
        genotype: The cells.
        plan: Which of the two cells, its channels, its strides and what of it is live.

    Attributes:
        plan: As given.
        preprocess: Projections of input 0 and input 1.
        edges: Operations in the order of the genotype, two for each node; see :meth:`node_edges`.
        droppable_edges: Positions of the live edges that drop path may drop: all but stride-1 skips.
    """

    def __init__(self, genotype: Genotype, plan: CellPlan) -> None:
        super().__init__()
        edges = genotype.reduce if plan.reduction else genotype.normal
        self.plan = plan
        self.concat = genotype.reduce_concat if plan.reduction else genotype.normal_concat
        self.sources = tuple(source for _, source in edges)
        self.live_nodes = live_nodes(edges, self.concat)
        self.droppable_edges = tuple(
            index
            for index, (op, source) in enumerate(edges)
            if plan.live_edges[index] and not (op == "skip_connect" and plan.stride(source) == 1)
        )

        before_last, last = plan.input_channels
        self.preprocess = nn.ModuleList(
            [
                FactorizedReduction(before_last, plan.channels)
                if plan.follows_reduction
                else pointwise_projection(before_last, plan.channels),
                pointwise_projection(last, plan.channels),
            ]
        )
        self.edges = nn.ModuleList(
            build_operation(op, plan.channels, plan.stride(source)) for op, source in edges
        )
        for modules, live in ((self.preprocess, plan.live_inputs), (self.edges, plan.live_edges)):
            for module, is_live in zip(modules, live, strict=True):
                if not is_live:
                    module.requires_grad_(False)

    def can_take_one_pass(self, training: bool) -> bool:
        """Whether :meth:`forward` in one pass computes what the layers do, in training or in evaluation."""
        if type(self) is not Cell or is_altered(self):
            return False
        parts = [*self.preprocess, *(edge for edge in self.edges if isinstance(edge, ConvolutionStages))]
        return all(
            isinstance(part, ConvolutionStages | FactorizedReduction) and part.can_take_one_pass(training)
            for part in parts
        )

    def node_edges(self, node: int) -> tuple[nn.Module, nn.Module]:
        """The two operations that intermediate node ``node`` (from 2) sums."""
        return self.edges[2 * (node - 2)], self.edges[2 * (node - 2) + 1]

    def forward(
        self,
        before_last: Float[Tensor, "batch _ _ _"] | None,
        last: Float[Tensor, "batch _ _ _"] | None,
        factors: Float[Tensor, "droppable batch"] | None = None,
        *,
        in_one_pass: bool = False,
    ) -> Float[Tensor, "batch _ _ _"] | tuple[Float[Tensor, "batch channels _ _"], ...]:
        """Output of the cell.

        Args:
            before_last: Input 0, rectified; in one pass projected (:attr:`preprocess`) as well. May be None
                where no live edge reads it.
            last: Input 1, likewise.
            factors: Drop path's factor for every edge of ``droppable_edges`` and sample; None drops nothing.
            in_one_pass: Whether stages of convolution and batch norm are computed in one pass each.

        Returns:
            The concatenated nodes, not rectified: ``[batch, output_channels, height, width]``; in one pass
            the nodes one by one.
        """
        nodes: list[Tensor | None] = []
        for projection, x, live in zip(
            self.preprocess, (before_last, last), self.plan.live_inputs, strict=True
        ):
            if not live or x is None:
                nodes.append(None)
            else:
                nodes.append(x if in_one_pass else projection(x))
        known: dict[object, Tensor] = {}
        scales = dict(zip(self.droppable_edges, () if factors is None else factors, strict=False))
        for node in range(2, len(self.edges) // 2 + 2):
            total: Tensor | None = None
            for index in (2 * (node - 2), 2 * (node - 2) + 1):
                x = nodes[self.sources[index]]
                if self.plan.live_edges[index] and x is not None:
                    total = self._add_edge(total, index, x, known, scales.get(index), in_one_pass)
            if total is None and node in self.live_nodes:
                total = self._zero_node(nodes)
            nodes.append(total)
        output = tuple(x for node in self.concat if (x := nodes[node]) is not None)
        return output if in_one_pass else torch.cat(output, dim=1)

    def _add_edge(
        self,
        total: Tensor | None,
        index: int,
        x: Tensor,
        known: dict[object, Tensor],
        factors: Tensor | None,
        in_one_pass: bool,
    ) -> Tensor:
        """A node's sum so far and an edge's value, times drop path's factors.

        What several edges have in common is kept in ``known``: the ReLU of a node, and its pooling.
        """
        edge, source = self.edges[index], self.sources[index]
        if in_one_pass and isinstance(edge, ConvolutionStages):
            return edge.add_to(total, x, factors)
        if getattr(edge, "rectified_input", False):
            if source not in known:
                known[source] = functional.relu(x)
            x = known[source]
        key = pooling_key(edge)
        value: Tensor
        if key is None:
            value = edge(x)
        else:
            if (source, key) not in known:
                pool = edge.in_one_pass if in_one_pass and isinstance(edge, MaxPool) else edge
                known[source, key] = pool(x)
            value = known[source, key]
        if factors is None:
            return value if total is None else total + value
        scale = factors.to(value.dtype).view(-1, 1, 1, 1)
        return value * scale if total is None else torch.addcmul(total, value, scale)

    def _zero_node(self, nodes: list[Tensor | None]) -> Tensor:
        """A node without live edges, at the resolution of the cell's nodes."""
        x = next(node for node in nodes if node is not None)  # a cell always reads one of its inputs
        batch, channels, height, width = x.shape
        if self.plan.reduction:
            height, width = (height + 1) // 2, (width + 1) // 2
        return x.new_zeros(batch, channels, height, width)
