"""Lengths of paths through a network by listing every walk, and by simulation: slow and obvious."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from nas_lightning.cells import Edge, Genotype
from tests.oracles.cells_paths import edges_of

STAGES = {
    "skip_connect": 0,
    "max_pool_3x3": 0,
    "avg_pool_3x3": 0,
    "sep_conv_3x3": 2,
    "sep_conv_5x5": 2,
    "sep_conv_7x7": 2,
    "dil_conv_3x3": 1,
    "dil_conv_5x5": 1,
    "conv_7x1_1x7": 1,
    "conv_3x1_1x3": 1,
    "inv_res_3x3": 3,
    "inv_res_5x5": 3,
    **dict.fromkeys(("max_pool_5x5", "max_pool_7x7", "avg_pool_5x5", "avg_pool_7x7"), 0),
    **dict.fromkeys(("conv_1x1", "conv_3x3", "conv_5x5"), 1),
    **dict.fromkeys(("nor_conv_1x1", "nor_conv_3x3", "nor_conv_5x5", "nor_conv_7x7"), 1),
    **dict.fromkeys(("sep_conv_3x3_single", "sep_conv_5x5_single", "sep_conv_7x7_single"), 1),
}


def carries(edges: tuple[Edge, ...], node: int) -> bool:
    """Whether a node's value is not zero by its `none` operations alone."""
    return node < 2 or any(
        op not in ("none", "noise") and carries(edges, source) for op, source in edges_of(edges, node)
    )


def ways(edges: tuple[Edge, ...], node: int) -> list[Edge]:
    own = edges_of(edges, node)
    return [edge for edge in own if edge.op not in ("none", "noise") and carries(edges, edge.source)]


def cell_at(genotype: Genotype, index: int, cells: int) -> tuple[tuple[Edge, ...], list[int]]:
    edges, concat = genotype.cell(index in (cells // 3, 2 * cells // 3))
    return edges, [node for node in concat if carries(edges, node)]


def all_walks(genotype: Genotype, cells: int) -> Iterator[tuple[float, int]]:
    """Probability and stages of every walk from the classifier to the image."""

    def from_cell(index: int) -> Iterator[tuple[float, int]]:
        if index < 0:
            yield 1.0, 1  # the stem
            return
        edges, concat = cell_at(genotype, index, cells)
        for node in concat:
            for probability, stages in from_node(index, edges, node):
                yield probability / len(concat), stages

    def from_node(index: int, edges: tuple[Edge, ...], node: int) -> Iterator[tuple[float, int]]:
        if node < 2:
            for probability, stages in from_cell(index - 2 + node):
                yield probability, stages + 1  # the projection
            return
        choices = ways(edges, node)
        for op, source in choices:
            for probability, stages in from_node(index, edges, source):
                yield probability / len(choices), stages + STAGES[op]

    return from_cell(cells - 1)


def simulated(genotype: Genotype, cells: int, walks: int, seed: int = 0) -> float:
    """Mean stages of random walks."""
    generator = np.random.default_rng(seed)
    total = 0
    for _ in range(walks):
        index, total = cells - 1, total + 1
        while index >= 0:
            edges, concat = cell_at(genotype, index, cells)
            node = concat[generator.integers(len(concat))]
            while node >= 2:
                choices = ways(edges, node)
                op, node = choices[generator.integers(len(choices))]
                total += STAGES[op]
            index, total = index - 2 + node, total + 1
    return total / walks


def longest_connections(genotype: Genotype, cells: int) -> int:
    """Connections on the longest path, whatever the operations."""

    def of_cell(index: int) -> float:
        if index < 0:
            return 0
        edges, concat = genotype.cell(index in (cells // 3, 2 * cells // 3))
        return 1 + max(of_node(index, edges, node) for node in concat)

    def of_node(index: int, edges: tuple[Edge, ...], node: int) -> float:
        if node < 2:
            return of_cell(index - 2 + node)
        lengths = (of_node(index, edges, edge.source) for edge in edges_of(edges, node))
        return 1 + max(lengths, default=-math.inf)

    return int(of_cell(cells - 1))
