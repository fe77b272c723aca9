"""How cells are stacked into a network: channels, reductions, image sizes, and the live part of each cell.

The network builds its modules from this plan, and the size formulas, without torch, count by it.

Source: appendix A.3 of Shu et al. (ICLR 2020) and Liu et al. (ICLR 2019).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import compress
from typing import Literal, TypeAlias, get_args

from nas_lightning.cells.genotype import Genotype
from nas_lightning.cells.operations import carries
from nas_lightning.cells.topology import live_nodes, reads_inputs

Stem: TypeAlias = Literal["cifar", "imagenet"]
"""What comes before the first cell.

``"cifar"``: one 3x3 convolution to three times the cells' channels, which both inputs of the first cell read.
``"imagenet"``: three of stride 2, for images of 224 x 224 pixels; the first cell reads the output of the
second, at a quarter of the resolution, as input 0, and that of the third, at an eighth, as input 1.
"""

STEM_MULTIPLIERS: dict[Stem, int] = {"cifar": 3, "imagenet": 1}
"""Channels that a stem hands to the first cell, by those of the cell's nodes."""

IMAGENET_STEM_STRIDE = 8
"""Pixels of the image for one of the first cell, along each side."""

AUXILIARY_CHANNELS = (128, 768)
"""Channels after the first and the second convolution of the auxiliary tower."""

TOWER_STRIDES: dict[Stem, int] = {"cifar": 3, "imagenet": 2}
"""Stride of the auxiliary tower's 5x5 pooling."""

TOWER_INPUT_SIZES: dict[Stem, range] = {"cifar": range(8, 11), "imagenet": range(7, 9)}
"""Height and width of the feature maps that the auxiliary tower's pooling brings to 2x2."""


@dataclass(frozen=True)
class CellPlan:
    """One cell of the stack.

    Attributes:
        index: Position in the stack, from 0.
        reduction: Whether this is a reduction cell: edges that read a cell input have stride 2.
        follows_reduction: Whether the previous cell is a reduction cell, or the stem reduces like one:
            input 0 then has twice the resolution of input 1, and its preprocessing halves it.
        input_channels: Channels of input 0 and input 1.
        channels: Channels of every intermediate node.
        output_channels: Channels of the concatenated output.
        live: Whether the classifier (or the auxiliary tower, where there is one) reads this cell's output,
            directly or through later cells.
        live_inputs: For input 0 and input 1, whether a live edge of this cell reads it.
        live_edges: For every edge, whether its value reaches the classifier (or tower).
    """

    index: int
    reduction: bool
    follows_reduction: bool
    input_channels: tuple[int, int]
    channels: int
    output_channels: int
    live: bool
    live_inputs: tuple[bool, bool]
    live_edges: tuple[bool, ...]

    def stride(self, source: int) -> int:
        """Stride of an edge that reads ``source``."""
        return 2 if self.reduction and source < 2 else 1


@dataclass(frozen=True)
class StackPlan:
    """A network of stacked cells.

    Attributes:
        stem_channels: Channels after the stem.
        cells: The cells, first to last.
        auxiliary_index: Cell after which the auxiliary tower sits, or None without a tower.
        stem: What comes before the first cell.
    """

    stem_channels: int
    cells: tuple[CellPlan, ...]
    auxiliary_index: int | None
    stem: Stem

    @property
    def output_channels(self) -> int:
        """Channels that the classifier reads."""
        return self.cells[-1].output_channels


def reduction_indices(num_cells: int) -> tuple[int, int]:
    """Positions of the two reduction cells: one third and two thirds of the stack, rounded down."""
    return num_cells // 3, 2 * num_cells // 3


def stack_plan(
    genotype: Genotype,
    *,
    init_channels: int = 36,
    num_cells: int = 20,
    auxiliary: bool = False,
    stem: Stem = "cifar",
) -> StackPlan:
    """Plan the stack of cells of a network.

    Args:
        genotype: The cells.
        init_channels: Channels of the nodes of the first cell; doubled at every reduction.
        num_cells: Number of cells; those at ``num_cells // 3`` and ``2 * num_cells // 3`` are reduction
            cells.
        auxiliary: Whether an auxiliary tower reads the output of cell ``2 * num_cells // 3``.
        stem: What comes before the first cell.

    Returns:
        The plan. Liveness is computed back from the classifier and, with ``auxiliary``, from the tower.

    Raises:
        ValueError: If a size is not positive, the stem does not exist, or ``num_cells`` is under 3 with an
            auxiliary tower.
    """
    check_positive(init_channels=init_channels, num_cells=num_cells)
    if stem not in get_args(Stem):
        raise ValueError(f"`stem` (={stem!r}) must be one of {', '.join(map(repr, get_args(Stem)))}")
    if stem == "imagenet" and init_channels % 2:
        raise ValueError(
            f"`init_channels` (={init_channels}) must be even with `stem` (=imagenet): its first convolution"
            " has half as many"
        )
    if auxiliary and num_cells < 3:
        raise ValueError(
            f"`num_cells` (={num_cells}) must be at least 3 with an auxiliary tower: "
            "the tower sits after cell 2L/3"
        )
    reductions = reduction_indices(num_cells)
    auxiliary_index = reductions[1] if auxiliary else None

    live_edges: dict[bool, tuple[bool, ...]] = {}
    live_inputs: dict[bool, tuple[bool, bool]] = {}
    for reduction in (False, True):
        edges, concat = genotype.cell(reduction)
        nodes = live_nodes(edges, concat)
        live_edges[reduction] = tuple(
            carries(edge.op) and node in nodes for edge, node in zip(edges, edges.nodes, strict=True)
        )
        live_inputs[reduction] = reads_inputs(edges, concat)
    live = {num_cells - 1, auxiliary_index}
    for index in range(num_cells - 1, -1, -1):
        if index in live:
            live |= set(compress((index - 2, index - 1), live_inputs[index in reductions]))

    cells = []
    stem_channels, channels = STEM_MULTIPLIERS[stem] * init_channels, init_channels
    before_last, last = stem_channels, stem_channels
    for index in range(num_cells):
        reduction = index in reductions
        if reduction:
            channels *= 2
        _, concat = genotype.cell(reduction)
        plan = CellPlan(
            index=index,
            reduction=reduction,
            follows_reduction=index - 1 in reductions if index else stem == "imagenet",
            input_channels=(before_last, last),
            channels=channels,
            output_channels=len(concat) * channels,
            live=index in live,
            live_inputs=live_inputs[reduction] if index in live else (False, False),
            live_edges=live_edges[reduction] if index in live else (False,) * len(live_edges[reduction]),
        )
        cells.append(plan)
        before_last, last = last, plan.output_channels
    return StackPlan(stem_channels, tuple(cells), auxiliary_index, stem)


def check_image_size(plan: StackPlan, image_size: int, stem_stride: int = 1, *, tower: bool = True) -> None:
    """Refuse images that the reduction cells cannot halve, or that do not fit the auxiliary tower.

    The stem turns H x W into ceil(H / s) x ceil(W / s), with s its stride, which every reduction cell must be
    able to halve exactly; the ImageNet stem's stride is 8, and the first cell halves its output of stride 4.
    The tower takes feature maps of ``TOWER_INPUT_SIZES`` only.

    Args:
        plan: The stack.
        image_size: Height and width in pixels.
        stem_stride: Stride of the CIFAR stem's convolution; 1 with the ImageNet stem.
        tower: Whether the plan's auxiliary tower, where there is one, is used, as it is in training only.

    Raises:
        ValueError: If the size does not fit; the message names the sizes that do.
    """
    check_stem_stride(plan.stem, stem_stride)
    is_imagenet = plan.stem == "imagenet"
    given = f"`image_size` (={image_size}) with "
    given += "`stem` (=imagenet)" if is_imagenet else f"`stem_stride` (={stem_stride})"
    factor = 2 ** sum(cell.reduction for cell in plan.cells)
    scale = factor * (IMAGENET_STEM_STRIDE if is_imagenet else stem_stride)
    size = -(-image_size // (IMAGENET_STEM_STRIDE if is_imagenet else stem_stride))
    is_halved = size % factor == 0 and (not is_imagenet or -(-image_size // 4) == 2 * size)
    if size < 1 or not is_halved:
        raise ValueError(
            f"{given} gives {size} pixels after the stem, which the {'' if is_imagenet else 'reduction '}"
            f"cells cannot halve: use images whose height and width are a multiple of {scale}"
        )
    features, fitting = size // factor, TOWER_INPUT_SIZES[plan.stem]
    if tower and plan.auxiliary_index is not None and features not in fitting:
        smallest, largest = min(fitting), max(fitting)
        raise ValueError(
            f"{given} gives {features} x {features} pixels at the auxiliary tower, which needs "
            f"{smallest} to {largest}: use images of {smallest * scale} to {largest * scale} pixels, "
            f"another {'`stem`' if is_imagenet else '`stem_stride`'}, or no tower"
        )


def check_stem_stride(stem: Stem, stem_stride: int) -> None:
    """Refuse a stride under 1, and any but 1 for a stem that has strides of its own."""
    check_positive(stem_stride=stem_stride)
    if stem == "imagenet" and stem_stride != 1:
        raise ValueError(
            f"`stem_stride` (={stem_stride}) belongs to `stem` (=cifar); the ImageNet stem has its own:"
            " leave it out"
        )


def check_positive(**sizes: int) -> None:
    """Refuse sizes under 1, by the name of the argument."""
    for name, value in sizes.items():
        if value < 1:
            raise ValueError(f"`{name}` (={value}) must be at least 1")
