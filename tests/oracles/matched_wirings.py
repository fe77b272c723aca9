"""Matched pairs of wirings by listing every pair and counting its parameters: slow and obvious."""

from __future__ import annotations

from functools import cache
from itertools import product
from typing import Any

from nas_lightning.cells import CellEdges, Edge, Genotype, count_parameters, reads_inputs


@cache
def rewirings(genotype: Genotype) -> list[Genotype]:
    """Every genotype with these operations that has a path, whatever its connections."""
    found = []
    for normal, reduce in product(_wired(genotype.normal), _wired(genotype.reduce)):
        try:
            found.append(Genotype(normal, genotype.normal_concat, reduce, genotype.reduce_concat))
        except ValueError:
            continue  # no path
    return found


def matched(genotype: Genotype, **settings: Any) -> list[Genotype]:
    """The other members of the genotype's class: as many inputs read, and a size of the same band."""
    reads = _inputs_read(genotype)
    sizes = {
        pair: count_parameters(pair, **settings, live=True)
        for pair in rewirings(genotype)
        if _inputs_read(pair) == reads
    }
    band: list[int] = []
    for size in sorted(set(sizes.values()), reverse=True):
        if band and band[0] <= 1.05 * size:
            band.append(size)
        elif sizes[genotype] in band:
            break
        else:
            band = [size]
    return [pair for pair, size in sizes.items() if size in band and pair != genotype]


def _wired(edges: CellEdges) -> list[CellEdges]:
    return [
        edges.with_edges(Edge(edge.op, source) for edge, source in zip(edges, sources, strict=True))
        for sources in product(*(range(node) for node in edges.nodes))
    ]


def _inputs_read(genotype: Genotype) -> tuple[int, int]:
    normal, reduction = (sum(reads_inputs(*genotype.cell(which))) for which in (False, True))
    return normal, reduction
