"""What `nas-lightning cells` says, as plain records: the content of its JSON and of its text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from nas_lightning.cells import (
    Edge,
    Genotype,
    StackPlan,
    UnknownOperationSize,
    cell_depth,
    cell_width,
    check_image_size,
    count_parameters,
    dead_nodes,
    duplicate_edges,
    multiply_adds,
    stack_plan,
)


@dataclass(frozen=True)
class Settings:
    """The network whose size is counted.

    Attributes:
        init_channels: Channels of the nodes of the first cell.
        num_cells: Number of cells.
        num_classes: Number of classes.
        auxiliary: Whether parameters include an auxiliary tower.
        image_size: Height and width of the images in pixels.
        stem_stride: Stride of the stem.
    """

    init_channels: int = 36
    num_cells: int = 20
    num_classes: int = 10
    auxiliary: bool = False
    image_size: int = 32
    stem_stride: int = 1


def describe_variant(genotype: Genotype, settings: Settings) -> dict[str, Any]:
    """Width and depth of the normal cell, and the size of the network.

    Args:
        genotype: The cells.
        settings: The network.

    Returns:
        ``width``, ``depth``, ``parameters``, ``live_parameters`` and ``multiply_adds``.

    Raises:
        ValueError: If a setting is not possible or the images do not fit the network.
    """
    return {
        "width": cell_width(genotype.normal, genotype.normal_concat),
        "depth": cell_depth(genotype.normal, genotype.normal_concat),
        **_size(genotype, settings),
    }


def describe_cell(edges: Sequence[Edge], concat: Sequence[int]) -> dict[str, Any]:
    """Everything about one cell: edges, width, depth, dead nodes, duplicate edges and rank.

    Args:
        edges: Two edges per intermediate node.
        concat: Nodes that the cell's output concatenates.

    Returns:
        The record; ``rank`` is None for cells with more intermediate nodes than the census takes.
    """
    from nas_lightning.cells.census import MAX_NODES

    return {
        "edges": [[edge.op, edge.source] for edge in edges],
        "concat": list(concat),
        "width": cell_width(edges, concat),
        "depth": cell_depth(edges, concat),
        "dead_nodes": sorted(dead_nodes(edges, concat)),
        "nodes_reading_one_node_twice": list(duplicate_edges(edges)),
        "rank": describe_rank(edges, concat) if len(edges) // 2 <= MAX_NODES else None,
    }


def describe_rank(edges: Sequence[Edge], concat: Sequence[int]) -> dict[str, Any]:
    """Where a cell ranks among all wirings with its number of nodes and its concat list.

    Args:
        edges: Two edges per intermediate node.
        concat: Nodes that the cell's output concatenates.

    Returns:
        ``nodes``, ``concat``, ``width``, ``depth`` and, for the ``ordered`` wirings and those with
        ``distinct`` sources, the total, how many are at least as wide, at least as shallow and both, and the
        shares of these.

    Raises:
        ValueError: If the cell has more intermediate nodes than the census takes.
    """
    from nas_lightning.cells.census import rank_cell

    record: dict[str, Any] = {
        "nodes": len(edges) // 2,
        "concat": sorted(concat),
        "width": cell_width(edges, concat),
        "depth": cell_depth(edges, concat),
    }
    for name, distinct in (("ordered", False), ("distinct", True)):
        rank = asdict(rank_cell(edges, concat, distinct=distinct))
        counts = {key: rank[key] for key in ("total", "at_least_as_wide", "at_least_as_shallow", "both")}
        shares = {f"{key}_share": counts[key] / rank["total"] for key in counts if key != "total"}
        record[name] = counts | shares
    return record


def describe_network(genotype: Genotype, settings: Settings) -> dict[str, Any]:
    """The network of a genotype: its settings, its size and its dead cells.

    Args:
        genotype: The cells.
        settings: The network.

    Returns:
        The settings, ``parameters``, ``live_parameters``, ``multiply_adds`` and ``dead_cells``.

    Raises:
        ValueError: If a setting is not possible or the images do not fit the network.
    """
    return {
        **asdict(settings),
        **_size(genotype, settings),
        "dead_cells": [cell.index for cell in _plan(genotype, settings).cells if not cell.live],
    }


def _plan(genotype: Genotype, settings: Settings) -> StackPlan:
    return stack_plan(
        genotype,
        init_channels=settings.init_channels,
        num_cells=settings.num_cells,
        auxiliary=settings.auxiliary,
    )


def _size(genotype: Genotype, settings: Settings) -> dict[str, int]:
    # A network with a tower is there to be trained, so that its images must fit the tower as well.
    check_image_size(_plan(genotype, settings), settings.image_size, settings.stem_stride)
    count = partial(
        count_parameters,
        genotype,
        init_channels=settings.init_channels,
        num_cells=settings.num_cells,
        num_classes=settings.num_classes,
        auxiliary=settings.auxiliary,
    )
    try:
        return {
            "parameters": count(),
            "live_parameters": count(live=True),
            "multiply_adds": multiply_adds(
                genotype,
                init_channels=settings.init_channels,
                num_cells=settings.num_cells,
                num_classes=settings.num_classes,
                stem_stride=settings.stem_stride,
                image_size=settings.image_size,
            ),
        }
    except UnknownOperationSize:
        # An operation of the user's own: only the network itself knows its size.
        from nas_lightning.networks import CellNetwork, measure_size

        network = CellNetwork(
            genotype,
            settings.num_classes,
            settings.init_channels,
            settings.num_cells,
            auxiliary=settings.auxiliary,
            stem_stride=settings.stem_stride,
        )
        size = measure_size(network, settings.image_size)
        return {
            "parameters": size.parameters,
            "live_parameters": size.live_parameters,
            "multiply_adds": size.multiply_adds,
        }
