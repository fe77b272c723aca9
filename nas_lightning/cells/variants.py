"""Variants of a genotype: random connections and operations, widest and shallowest, the paper's C1 to C13.

Source: Shu, Wang and Cai, ICLR 2020, appendix A.2 (random variants), table 2 (C1 to C13), section 5 (adapted
cells).
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import zip_longest
from typing import TYPE_CHECKING

from nas_lightning.cells.genotype import CellEdges, Edge, Genotype
from nas_lightning.cells.published import published_genotypes, published_variants
from nas_lightning.cells.table2 import TABLE2

if TYPE_CHECKING:
    import numpy as np

RANDOM_OPERATIONS: tuple[str, ...] = (
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
)
"""Candidates of random operations: those of the DARTS space without ``none``, draw k meaning entry k."""

MAX_SEED = 2**32 - 1


def random_connections(genotype: Genotype, seed: int) -> Genotype:
    """Rewire both cells at random; operations and concat lists stay.

    Every edge reads a node drawn uniformly from those before its own. NumPy's legacy generator
    ``RandomState(seed)`` makes the draws: edge by edge, one ``choice`` for the normal cell, then one for the
    reduction cell. Draws are independent, so a node may read one node twice, and a node may be left without
    a reader. The authors' release (shuyao95/Understanding-NAS, ``genotypes.py``) draws the same wirings.

    Args:
        genotype: The base cells.
        seed: Seed, from 0 to 2**32 - 1.

    Returns:
        The variant.

    Raises:
        ValueError: If the seed is out of range, or the wiring leaves no path without ``none``.
    """
    generator = _generator(seed)
    normal: list[Edge] = []
    reduce: list[Edge] = []
    cells = [list(zip(edges, edges.nodes, strict=True)) for edges in (genotype.normal, genotype.reduce)]
    for pair in zip_longest(*cells):
        for found, rewired in zip(pair, (normal, reduce), strict=True):
            if found is not None:
                edge, node = found
                rewired.append(Edge(edge.op, int(generator.choice(node))))
    return _with_edges(genotype, normal, reduce)


def random_operations(genotype: Genotype, seed: int) -> Genotype:
    """Exchange all operations at random; sources and concat lists stay.

    NumPy's legacy generator ``RandomState(seed)`` draws all operations of the normal cell by one ``choice(7,
    n)``, then those of the reduction cell likewise, among ``RANDOM_OPERATIONS``. Seeds 1 to 10 are the
    variants of table 3 of the paper, but for C1 to C5 of DARTS (``table3_spec``).

    Args:
        genotype: The base cells.
        seed: Seed, from 0 to 2**32 - 1.

    Returns:
        The variant.

    Raises:
        ValueError: If the seed is out of range.
    """
    generator = _generator(seed)
    cells = []
    for edges in (genotype.normal, genotype.reduce):
        draws = generator.choice(len(RANDOM_OPERATIONS), len(edges))
        cells.append([Edge(RANDOM_OPERATIONS[d], e.source) for d, e in zip(draws, edges, strict=True)])
    return _with_edges(genotype, *cells)


def rewired(genotype: Genotype, normal: str, reduce: str | None = None) -> Genotype:
    """Give the cells these connections; operations and concat lists stay.

    Args:
        genotype: The base cells.
        normal: Source of every edge of the normal cell, a digit each.
        reduce: The same of the reduction cell; None leaves it as it is.

    Returns:
        The variant.

    Raises:
        ValueError: If a text has not one digit for each edge, an edge reads a node that does not precede its
            own, or the wiring leaves no path without ``none``.
    """
    cells = []
    for name, edges, digits in (("normal", genotype.normal, normal), ("reduction", genotype.reduce, reduce)):
        if digits is not None and not (digits.isascii() and digits.isdigit() and len(digits) == len(edges)):
            raise ValueError(
                f"the wiring {digits!r} must have a digit for each of the {name} cell's {len(edges)} edges"
            )
        sources = [edge.source for edge in edges] if digits is None else list(map(int, digits))
        cells.append([Edge(edge.op, source) for edge, source in zip(edges, sources, strict=True)])
    return _with_edges(genotype, *cells)


def widest_shallowest(genotype: Genotype) -> Genotype:
    """The adapted genotype of section 5: the widest and shallowest cells.

    In both cells, one edge of each node reads input 0 and the other input 1 (where a node has another number
    of edges, they read the two in turn); operations and concat lists stay. Width, depth and size do not
    depend on which edge reads which input. As many edges as possible keep their source, and in a tie the
    first edge reads input 0, so adapting twice changes nothing.

    Args:
        genotype: The base cells.

    Returns:
        The adapted genotype: every concatenated node at depth 1, so depth 2 and the width of the concat
        list's length, where all nodes have edges.

    Raises:
        ValueError: If ``none`` operations leave no path from an input to the output.
    """
    return _with_edges(genotype, _from_inputs(genotype.normal), _from_inputs(genotype.reduce))


def adapted(base: str) -> Genotype | None:
    """The adapted cells of a base cell as the authors published them; None where they are not public."""
    entries = published_variants().values()
    found = (e.genotype for e in entries if e.variant_of == base and e.kind == "adapted")
    return next(found, None)


def table2_variant(base: str, number: int) -> Genotype:
    """Variant C1 to C13 of table 2: random connections with the width and depth that the paper prints.

    The paper gives no seeds: ``nas_lightning.cells.table2`` has them, with the rule that finds them, and says
    which variants are stand-ins.

    Args:
        base: ``darts_v2``, ``enas``, ``amoebanet`` or ``nasnet``.
        number: 1 to 13.

    Returns:
        The variant.

    Raises:
        ValueError: If table 2 has no such variant.
    """
    if base not in TABLE2:
        raise ValueError(
            f"{base!r} has no variants C1 to C13: table 2 has them for {', '.join(TABLE2)}; "
            "use connections=SEED"
        )
    if not 1 <= number <= len(TABLE2[base]):
        raise ValueError(f"variant C{number} of {base}: table 2 has C1 to C{len(TABLE2[base])}")
    return random_connections(published_genotypes()[base].genotype, TABLE2[base][number - 1].seed)


def table3_spec(base: str, number: int) -> str:
    """Genotype spec of a column of table 3: C0, the original, or C1 to C10, its variants by operations.

    C1 to C5 of ``darts_v2`` are the authors' ``darts_ops1`` to ``5``; every other variant is
    ``random_operations`` with its number as the seed.
    """
    if number == 0:
        return base
    name = f"darts_ops{number}"
    return name if base == "darts_v2" and name in published_variants() else f"{base}:operations={number}"


def _generator(seed: int) -> np.random.RandomState:
    import numpy as np  # here, so that listing cells does not wait for it

    if isinstance(seed, bool) or not 0 <= seed <= MAX_SEED:
        raise ValueError(f"seed {seed!r} must be an integer from 0 to {MAX_SEED}")
    # The paper's variants are defined by this generator's stream, which NumPy keeps frozen.
    return np.random.RandomState(seed)


def _from_inputs(edges: CellEdges) -> list[Edge]:
    adapted = []
    for own in edges.by_node:
        orders = [[(first + place) % 2 for place in range(len(own))] for first in (0, 1)]
        kept = [sum(e.source == source for e, source in zip(own, o, strict=True)) for o in orders]
        sources = orders[kept[1] > kept[0]]
        adapted += [Edge(edge.op, source) for edge, source in zip(own, sources, strict=True)]
    return adapted


def _with_edges(genotype: Genotype, normal: Iterable[Edge], reduce: Iterable[Edge]) -> Genotype:
    """A genotype with other edges of the same nodes."""
    return Genotype(
        genotype.normal.with_edges(normal),
        genotype.normal_concat,
        genotype.reduce.with_edges(reduce),
        genotype.reduce_concat,
    )
