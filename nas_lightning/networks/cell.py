"""Cell: a genotype's normal or reduction cell as a module."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from nas_lightning.cells import CellPlan, Genotype, live_nodes
from nas_lightning.networks.operations import FactorizedReduction, ReLUConvBN, build_operation


class Cell(nn.Module):
    """One cell of the stack.

    Both inputs are brought to the cell's channels (and, behind a reduction cell, input 0 to input 1's
    resolution); every intermediate node sums its edges; the output concatenates the nodes of the concat
    list. What does not reach the classifier (``plan.live``, ``live_inputs``, ``live_edges``) exists as
    parameters with ``requires_grad=False`` and is never called, nor is an edge that carries ``none``; a node
    without edges, or with none but ``none``, is zero.

    Args:
        genotype: The cells.
        plan: Which of the two cells, its channels, its strides and its live parts.

    Attributes:
        plan: As given.
        preprocess: Projections of input 0 and input 1.
        edges: Operations in the order of the genotype; see :meth:`node_edges`.
        edge_nodes: Node of every edge, from 2.
        positions: For every intermediate node, the positions of its edges.
        noise_edges: Positions of the edges that add noise to a live node in training.
        droppable_edges: Positions of the edges that drop path may drop: the noisy ones, and the live ones but
            for stride-1 skips.
    """

    def __init__(self, genotype: Genotype, plan: CellPlan) -> None:
        super().__init__()
        edges = genotype.reduce if plan.reduction else genotype.normal
        self.plan = plan
        self.concat = genotype.reduce_concat if plan.reduction else genotype.normal_concat
        self.sources = tuple(source for _, source in edges)
        self.edge_nodes, self.positions = edges.nodes, edges.positions
        self.live_nodes = live_nodes(edges, self.concat)
        self.noise_edges = tuple(
            index
            for index, (edge, node) in enumerate(zip(edges, self.edge_nodes, strict=True))
            if edge.op == "noise" and node in self.live_nodes and plan.live
        )
        self.droppable_edges = tuple(
            index
            for index, (op, source) in enumerate(edges)
            if index in self.noise_edges
            or (plan.live_edges[index] and not (op == "skip_connect" and plan.stride(source) == 1))
        )

        before_last, last = plan.input_channels
        first = FactorizedReduction if plan.follows_reduction else ReLUConvBN
        self.preprocess = nn.ModuleList([first(before_last, plan.channels), ReLUConvBN(last, plan.channels)])
        self.edges = nn.ModuleList(
            build_operation(op, plan.channels, plan.stride(source)) for op, source in edges
        )
        for modules, live in ((self.preprocess, plan.live_inputs), (self.edges, plan.live_edges)):
            for module, is_live in zip(modules, live, strict=True):
                if not is_live:
                    module.requires_grad_(False)

    def node_edges(self, node: int) -> tuple[nn.Module, ...]:
        """The operations that intermediate node ``node`` (from 2) sums."""
        return tuple(self.edges[index] for index in self.positions[node - 2])

    def forward(
        self,
        before_last: Float[Tensor, "batch _ _ _"] | None,
        last: Float[Tensor, "batch _ _ _"] | None,
        factors: Float[Tensor, "droppable batch"] | None = None,
    ) -> Float[Tensor, "batch channels _ _"]:
        """Output of the cell.

        Args:
            before_last: Input 0, the output of the cell before the last; may be None where no live edge
                reads it.
            last: Input 1, the output of the last cell, likewise.
            factors: Drop path's factor for every edge of ``droppable_edges`` and sample; None drops nothing.

        Returns:
            The concatenated nodes: ``[batch, output_channels, height, width]``.
        """
        nodes: list[Tensor | None] = [
            projection(x) if live else None
            for projection, x, live in zip(
                self.preprocess, (before_last, last), self.plan.live_inputs, strict=True
            )
        ]
        scales = {} if factors is None else dict(zip(self.droppable_edges, factors, strict=True))
        for node, positions in enumerate(self.positions, start=2):
            values = [
                self.noise(nodes, scales.get(index))
                if index in self.noise_edges
                else self._edge(index, nodes, scales.get(index))
                for index in positions
                if self.plan.live_edges[index] or (index in self.noise_edges and self.training)
            ]
            if values:
                nodes.append(sum(values[1:], values[0]))
            else:
                nodes.append(self.zero_node(nodes) if node in self.live_nodes else None)
        return torch.cat([x for node in self.concat if (x := nodes[node]) is not None], dim=1)

    def _edge(self, index: int, nodes: list[Tensor | None], factors: Tensor | None) -> Tensor:
        """Value of an edge, times drop path's factor of every sample."""
        edge, x = self.edges[index], nodes[self.sources[index]]
        assert x is not None  # a live edge reads a live node
        if getattr(edge, "rectified_input", False):  # a registered operation may ask for it
            x = functional.relu(x)
        return _scaled(edge(x), factors)

    def noise(
        self, nodes: list[Tensor | None], factors: Tensor | None
    ) -> Float[Tensor, "batch channels _ _"]:
        """Noise for a node, times drop path's factor of every sample; ``nodes`` as in `zero_node`."""
        return _scaled(torch.randn_like(self.zero_node(nodes)), factors)

    def zero_node(self, nodes: list[Tensor | None]) -> Float[Tensor, "batch channels _ _"]:
        """Value of a node without live edges, at the resolution of the cell's nodes.

        Args:
            nodes: The projected inputs, of which a live cell reads at least one.
        """
        x = next(node for node in nodes if node is not None)
        batch, channels, height, width = x.shape
        if self.plan.reduction:
            height, width = (height + 1) // 2, (width + 1) // 2
        return x.new_zeros(batch, channels, height, width)


def _scaled(value: Tensor, factors: Tensor | None) -> Tensor:
    return value if factors is None else value * factors.to(value.dtype).view(-1, 1, 1, 1)
