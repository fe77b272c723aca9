"""CellNetwork: stem, stacked cells and classifier."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nas_lightning.cells import Genotype, Stem, check_image_size, stack_plan
from nas_lightning.cells.stack import IMAGENET_STEM_STRIDE, check_positive, check_stem_stride
from nas_lightning.networks.cell import Cell
from nas_lightning.networks.regularization import AuxiliaryTower, drop_path_factors
from nas_lightning.networks.stem import build_stem, stem_outputs


class CellNetwork(nn.Module):
    """Classifier of stacked cells (Shu et al., ICLR 2020, appendix A.3; Liu et al., ICLR 2019, section 3.2).

    A 3x3 convolution with batch norm to ``3 * init_channels`` channels, ``num_cells`` cells of which those at
    ``num_cells // 3`` and ``2 * num_cells // 3`` reduce the resolution and double the channels, global
    average pooling and a linear layer. Weights start as PyTorch's layers do. For images of ImageNet's size
    there is the stem ``"imagenet"``, as in DARTS's network of 14 cells and 48 channels.

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
        stem: What comes before the first cell: ``"cifar"``, or ``"imagenet"`` for images of 224 pixels; see
            :data:`nas_lightning.cells.stack.Stem`.
        drop_path: Whether drop path will be used. Its factors are then applied from the first training step,
            whatever the probability, so that compiled training compiles once. Setting a positive probability
            switches it on as well.

    Attributes:
        genotype: As given.
        plan: How the cells are stacked and which parts are live in training.
        stem: What comes before the first cell, see :mod:`nas_lightning.networks.stem`.
        cells: The cells, each with its operations in ``edges``.
        auxiliary_tower: The tower, or None.
        classifier: The linear layer.
        uses_drop_path: Whether drop path's factors are applied in training.

    Raises:
        ValueError: If a size is not positive or does not suit the stem, or there are fewer than three cells
            with an auxiliary tower.

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
        stem: Stem = "cifar",
        drop_path: bool = False,
    ) -> None:
        super().__init__()
        check_positive(num_classes=num_classes)
        check_stem_stride(stem, stem_stride)
        self.genotype = genotype
        self.num_classes = num_classes
        self.stem_stride = stem_stride
        self.plan = stack_plan(
            genotype, init_channels=init_channels, num_cells=num_cells, auxiliary=auxiliary, stem=stem
        )
        self._live_in_training = tuple(cell.live for cell in self.plan.cells)
        # Without the tower, which only training evaluates, some cells may reach nothing.
        without_tower = stack_plan(genotype, init_channels=init_channels, num_cells=num_cells)
        self._live_in_evaluation = tuple(cell.live for cell in without_tower.cells)

        self.stem = build_stem(self.plan, stem_stride)
        cells = [Cell(genotype, plan) for plan in self.plan.cells]
        self.cells = nn.ModuleList(cells)
        self.auxiliary_tower: AuxiliaryTower | None = None
        if self.plan.auxiliary_index is not None:
            channels = self.plan.cells[self.plan.auxiliary_index].output_channels
            self.auxiliary_tower = AuxiliaryTower(channels, num_classes, stem)
        self.classifier = nn.Linear(self.plan.output_channels, num_classes)

        self._droppable_edges = [len(cell.droppable_edges) for cell in cells]
        self.uses_drop_path = drop_path
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
        self.uses_drop_path = self.uses_drop_path or probability > 0
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
        live, factors = self.live_cells(), self.drop_path_factors(x.shape[0])  # len() fixes it in exports
        before_last: Tensor | None
        last: Tensor | None
        before_last, last = stem_outputs(self.stem, x)
        read_by_tower: Tensor | None = None
        for index, cell in enumerate(self.cells):
            output = cell(before_last, last, factors[index]) if live[index] else None
            if index == self.plan.auxiliary_index:
                read_by_tower = output
            before_last, last = last, output
        assert last is not None  # the last cell is always live
        logits: Tensor = self.classifier(last.mean((2, 3)))
        return logits if tower is None else (logits, tower(read_by_tower))

    @property
    def first_cell_stride(self) -> int:
        """Pixels of the image for one of the first cell, along each side."""
        return IMAGENET_STEM_STRIDE if self.plan.stem == "imagenet" else self.stem_stride

    def live_cells(self) -> tuple[bool, ...]:
        """For every cell, whether the classifier or, in training, the auxiliary tower reads it."""
        return self._live_in_training if self.training else self._live_in_evaluation

    def drop_path_factors(self, batch: int | torch.SymInt) -> tuple[Float[Tensor, "_ {batch}"] | None, ...]:
        """For every cell, factors of its droppable edges and samples; None where nothing is dropped."""
        if not (self.training and self.uses_drop_path):
            return (None,) * len(self.cells)
        factors = drop_path_factors(sum(self._droppable_edges), int(batch), self._drop_path_probability)
        return torch.split(factors, self._droppable_edges)

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
        index = int(inside[0])
        cell = self.cells[index]
        assert isinstance(cell, Cell)
        return part, index, cell.edge_nodes[int(inside[2])] if inside[1] == "edges" else None

    def check_image_size(self, image_size: int) -> None:
        """Refuse images that the reduction cells cannot halve, or that do not fit the auxiliary tower.

        Args:
            image_size: Height and width in pixels.

        Raises:
            ValueError: If the size does not fit; the message names the sizes that do.
        """
        check_image_size(self.plan, image_size, self.stem_stride)
