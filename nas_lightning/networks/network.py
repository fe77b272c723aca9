"""CellNetwork: stem, stacked cells and classifier."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.module import _has_any_global_hook

from nas_lightning.acceleration.cpu.stages import project
from nas_lightning.acceleration.layers import BatchNorm, Convolution
from nas_lightning.cells import Genotype, check_image_size, stack_plan
from nas_lightning.cells.stack import check_positive
from nas_lightning.networks.cell import Cell
from nas_lightning.networks.operations import ConvolutionStages, FactorizedReduction
from nas_lightning.networks.regularization import AuxiliaryTower, drop_path_factors

Mode: TypeAlias = Literal["training", "evaluation"]
"""Of a module: ``train()`` or ``eval()``."""
WHOLE_CELLS = 10
"""Most cells of a network that is compiled as a whole, in some minutes on two cores."""


class CellNetwork(nn.Module):
    """Classifier of stacked cells (Shu et al., ICLR 2020, appendix A.3; Liu et al., ICLR 2019, section 3.2).

    A 3x3 convolution with batch norm to ``3 * init_channels`` channels, ``num_cells`` cells of which those at
    ``num_cells // 3`` and ``2 * num_cells // 3`` reduce the resolution and double the channels, global
    average pooling and a linear layer. Weights start as PyTorch's layers do.

    Parameters that reach neither the classifier nor the tower have ``requires_grad=False`` and are never
    used, so that the sum over all parameters is the size the literature reports and distributed training
    finds no unused parameter.

    Args:
        genotype: The cells.
        num_classes: Number of classes.
        init_channels: Channels of the nodes of the first cell.
        num_cells: Number of cells.
        auxiliary: Whether an auxiliary tower reads the output of cell ``2 * num_cells // 3`` in training.
        stem_stride: Stride of the first convolution: 2 for Tiny-ImageNet (appendix A.3), otherwise 1.
        drop_path: Whether drop path will be used. Its factors are then applied from the first training step,
            whatever the probability, so that compiled training compiles once. Setting a positive probability
            switches it on as well.

    Attributes:
        genotype: As given.
        plan: How the cells are stacked and what of them is live in training.
        stem: First convolution and batch norm.
        cells: The cells, each with its operations in ``edges``.
        auxiliary_tower: The tower, or None.
        classifier: The linear layer.

    Raises:
        ValueError: If a size is not positive, or there are fewer than three cells with an auxiliary tower.

    Example:
        >>> cell = [("sep_conv_3x3", 0), ("skip_connect", 1)]
        >>> network = CellNetwork(Genotype(cell, [2], cell, [2]), num_classes=10, init_channels=4)
        >>> network(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 10])
    """

    _drop_path_probability: Tensor

    def __init__(
        self,
        genotype: Genotype,
        num_classes: int,
        init_channels: int = 36,
        num_cells: int = 20,
        auxiliary: bool = False,
        stem_stride: int = 1,
        *,
        drop_path: bool = False,
    ) -> None:
        super().__init__()
        check_positive(num_classes=num_classes, stem_stride=stem_stride)
        self.genotype = genotype
        self.num_classes = num_classes
        self.stem_stride = stem_stride
        self.plan = stack_plan(
            genotype, init_channels=init_channels, num_cells=num_cells, auxiliary=auxiliary
        )
        self._live_in_training = tuple(cell.live for cell in self.plan.cells)
        # Without the tower, which only training evaluates, some cells may reach nothing.
        without_tower = stack_plan(genotype, init_channels=init_channels, num_cells=num_cells)
        self._live_in_evaluation = tuple(cell.live for cell in without_tower.cells)

        self.stem = nn.Sequential(
            OrderedDict[str, nn.Module](
                convolution=Convolution(
                    3, self.plan.stem_channels, 3, stride=stem_stride, padding=1, bias=False
                ),
                norm=BatchNorm(self.plan.stem_channels),
            )
        )
        cells = [Cell(genotype, plan) for plan in self.plan.cells]
        self.cells = nn.ModuleList(cells)
        self.auxiliary_tower: AuxiliaryTower | None = None
        if self.plan.auxiliary_index is not None:
            channels = self.plan.cells[self.plan.auxiliary_index].output_channels
            self.auxiliary_tower = AuxiliaryTower(channels, num_classes)
        self.classifier = nn.Linear(self.plan.output_channels, num_classes)

        self._droppable_edges = [len(cell.droppable_edges) for cell in cells]
        self._uses_drop_path = drop_path
        self._one_pass_in: Mode | None = None
        # Not saved: a freshly loaded network drops nothing. A tensor: compiled code reads its value at run
        # time.
        self.register_buffer("_drop_path_probability", torch.zeros(()), persistent=False)

    @property
    def drop_path_probability(self) -> float:
        """Probability of drop path for every edge and sample in training; evaluation drops nothing."""
        return float(self._drop_path_probability)

    @drop_path_probability.setter
    def drop_path_probability(self, probability: float) -> None:
        if not 0 <= probability < 1:
            raise ValueError(f"`drop_path_probability` (={probability}) must be at least 0 and below 1")
        self._uses_drop_path = self._uses_drop_path or probability > 0
        self._drop_path_probability.fill_(probability)

    def forward(
        self, x: Float[Tensor, "batch 3 height width"]
    ) -> (
        Float[Tensor, "batch classes"] | tuple[Float[Tensor, "batch classes"], Float[Tensor, "batch classes"]]
    ):
        """Logits of a batch of images.

        Args:
            x: Images, normalised; see :meth:`check_image_size` for what sizes fit.

        Returns:
            The logits; in training mode with an auxiliary tower, (logits, auxiliary logits).

        Raises:
            ValueError: If the images do not fit the reductions or, in training, the tower.
        """
        for size in x.shape[2:]:
            check_image_size(self.plan, size, self.stem_stride, tower=self.training)
        tower = self.auxiliary_tower if self.training else None
        live = self._live_in_evaluation if tower is None else self._live_in_training
        factors = self._drop_path_factors(len(x))
        can_be = len(x) > 0 and (self.training or not torch.is_grad_enabled())
        is_in_one_pass = can_be and self._is_in_one_pass(self.training)
        compute = self._compute_in_one_pass if is_in_one_pass else self._compute_by_layers
        features = self.stem(x)
        tower_reads = None if tower is None else self.plan.auxiliary_index
        pooled, read_by_tower = compute(features, live, factors, tower_reads)
        logits: Tensor = self.classifier(pooled)
        if tower is None:
            return logits
        assert read_by_tower is not None  # the tower's cell is live where the tower is
        return logits, tower(read_by_tower)

    def _compute_by_layers(
        self,
        features: Tensor,
        live: Sequence[bool],
        factors: Sequence[Tensor | None],
        tower_reads: int | None,
    ) -> tuple[Tensor, Tensor | None]:
        """What the classifier reads, and the tower if it reads a cell."""
        # Every reader of a cell's output but the classifier begins with a ReLU: it is applied once.
        read_by_tower: Tensor | None = None
        before_last: Tensor | None = functional.relu(features)
        last = before_last
        final = len(self.cells) - 1
        for index, cell in enumerate(self.cells):
            output = cell(before_last, last, factors[index]) if live[index] else None
            if output is not None and index < final:
                output = functional.relu(output)
            before_last, last = last, output
            if output is not None and index == tower_reads:
                read_by_tower = functional.relu(output) if index == final else output
        assert last is not None  # the last cell is always live
        return _mean_of_pixels(last), read_by_tower

    def _compute_in_one_pass(
        self,
        features: Tensor,
        live: Sequence[bool],
        factors: Sequence[Tensor | None],
        tower_reads: int | None,
    ) -> tuple[Tensor, Tensor | None]:
        """The same; what reads an output is computed when it is there, and outputs are not concatenated."""
        read_by_tower: Tensor | None = None
        nodes: tuple[Tensor, ...] = (features,)
        inputs = self._projections(-1, nodes, live)
        for index, cell in enumerate(self.cells):
            if not live[index]:
                continue
            own = (inputs.pop((index, which), None) for which in (0, 1))
            nodes = cell(*own, factors[index], in_one_pass=True)
            inputs |= self._projections(index, nodes, live)
            if index == tower_reads:
                read_by_tower = functional.relu(torch.cat(nodes, dim=1))
        return torch.cat([_mean_of_pixels(node) for node in nodes], dim=1), read_by_tower

    def _projections(
        self, output: int, nodes: tuple[Tensor, ...], live: Sequence[bool]
    ) -> dict[tuple[int, int], Tensor]:
        """What live cells make of an output, by the cell's number and 0 or 1 for which of its inputs.

        Args:
            output: Number of the cell, or -1 for the stem.
            nodes: Its nodes.
            live: Of the cells.
        """
        readers = [(0, 0), (0, 1), (1, 0)] if output < 0 else [(output + 1, 1), (output + 2, 0)]
        projected: dict[tuple[int, int], Tensor] = {}
        together: dict[tuple[int, int], ConvolutionStages] = {}
        for index, which in readers:
            if index >= len(self.cells) or not live[index] or not self.plan.cells[index].live_inputs[which]:
                continue
            cell = self.cells[index]
            assert isinstance(cell, Cell)
            projection = cell.preprocess[which]
            if isinstance(projection, FactorizedReduction):
                projected[index, which] = projection.of_nodes(nodes)
            else:
                assert isinstance(projection, ConvolutionStages)
                together[index, which] = projection
        if together:
            stages = [stage for projection in together.values() for stage in projection.stages()]
            projected |= zip(together, project(nodes, stages), strict=True)
        return projected

    def evaluated_parameters(self) -> dict[str, nn.Parameter]:
        """Live parameters that the logits in evaluation mode depend on: without the tower and its cells."""
        evaluated = {}
        for name, parameter in self.named_parameters():
            part, cell, _ = self.parameter_place(name)
            is_used = part != "auxiliary_tower" if cell is None else self._live_in_evaluation[cell]
            if parameter.requires_grad and is_used:
                evaluated[name] = parameter
        return evaluated

    def parameter_place(self, name: str) -> tuple[str, int | None, int | None]:
        """Where in the network a parameter is.

        Args:
            name: Its name, as ``named_parameters`` has it.

        Returns:
            ``"stem"``, ``"cells"``, ``"auxiliary_tower"`` or ``"classifier"``; the number of the cell, from
            0; and the intermediate node whose edges it belongs to, from 2, or None for the projections of
            the cell's inputs.
        """
        part, *inside = name.split(".")
        if part != "cells":
            return part, None, None
        node = int(inside[2]) // 2 + 2 if inside[1] == "edges" else None
        return part, int(inside[0]), node

    def take_one_pass(self, mode: Mode | None = "training") -> tuple[nn.Module, ...]:
        """Compute stages of convolution and batch norm in one pass over memory each.

        It is done while all of them can be, see :mod:`nas_lightning.acceleration.cpu.stages`,
        and are as they were made; otherwise, in the other mode, and in evaluation where gradients are
        recorded, the whole network is computed layer by layer. Compiled code does not look for changes that
        were made after compiling.

        Args:
            mode: In which mode to, ``"training"`` or ``"evaluation"``; None is layer by layer.

        Returns:
            The operations that are computed so, in that mode; none where it cannot be.
        """
        self._one_pass_in = mode
        if mode is None or not self._is_in_one_pass(mode == "training"):
            return ()
        cells = (cell for cell in self.cells if isinstance(cell, Cell))
        parts = (part for cell in cells for part in (*cell.preprocess, *cell.edges))
        return tuple(part for part in parts if isinstance(part, ConvolutionStages))

    def _is_in_one_pass(self, training: bool) -> bool:
        """Whether operations are computed in one pass, in training or in evaluation."""
        if self._one_pass_in != ("training" if training else "evaluation"):
            return False
        if not torch.compiler.is_compiling() and _has_any_global_hook():  # type: ignore[no-untyped-call]
            return False
        return all(isinstance(cell, Cell) and cell.can_take_one_pass(training) for cell in self.cells)

    def compile_regions(self, **options: Any) -> None:
        """Compile the network in place: as a whole up to :data:`WHOLE_CELLS` cells, otherwise cell by cell.

        As a whole it is faster, but takes longer to compile with every cell; cell by cell, those that are
        alike share the compiled code. Names, parameters and values stay. Sizes are fixed: a batch of another
        size would be compiled for anew.

        Args:
            options: As for :func:`torch.compile`.
        """
        if self._one_pass_in is not None and not self._is_in_one_pass(self._one_pass_in == "training"):
            self._one_pass_in = None
        # One entry for each different cell, in training and in evaluation; dynamo's own limit is 8.
        torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, 64)
        if len(self.cells) <= WHOLE_CELLS:
            self.compile(dynamic=False, **options)
            return
        for cell in self.cells:
            cell.compile(dynamic=False, **options)

    def check_image_size(self, image_size: int) -> None:
        """Refuse images that the reduction cells cannot halve, or that do not fit the auxiliary tower.

        Args:
            image_size: Height and width in pixels.

        Raises:
            ValueError: If the size does not fit; the message names the sizes that do.
        """
        check_image_size(self.plan, image_size, self.stem_stride)

    def _drop_path_factors(self, batch: int) -> tuple[Tensor | None, ...]:
        """Factors of the droppable edges of every cell, or None where nothing is dropped."""
        if not (self.training and self._uses_drop_path):
            return (None,) * len(self.cells)
        factors = drop_path_factors(sum(self._droppable_edges), batch, self._drop_path_probability)
        return torch.split(factors, self._droppable_edges)


def _mean_of_pixels(x: Tensor) -> Tensor:
    """[batch, channels, height, width] as [batch, channels]."""
    return functional.adaptive_avg_pool2d(x, 1).flatten(1)
