"""Edge and Genotype: what a cell is, validated and hashable."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, NamedTuple

from nas_lightning.cells.operations import carries, misspelt, nearest, operation_names

FIELDS = ("normal", "normal_concat", "reduce", "reduce_concat")


class Edge(NamedTuple):
    """One edge of a cell: an operation applied to the output of an earlier node.

    Attributes:
        op: Name of the primitive operation, for example ``"sep_conv_3x3"``.
        source: Node the edge reads: 0 and 1 are the cell inputs (output of the cell before the last, and of
            the last), intermediate nodes count from 2.
    """

    op: str
    source: int


class CellEdges(tuple[Edge, ...]):
    """The edges of a cell, a tuple in the order of their nodes, with the node that each belongs to.

    Equality and hash include the nodes; a plain tuple is equal where every node has two edges. Slices and
    sums are plain tuples.

    Args:
        edges: For every intermediate node, from 2, its edges: any number, also none.
    """

    by_node: tuple[tuple[Edge, ...], ...]

    def __new__(cls, edges: Iterable[Iterable[Edge]]) -> CellEdges:
        """Join the edges of the nodes."""
        by_node = tuple(map(tuple, edges))
        self = super().__new__(cls, (edge for node in by_node for edge in node))
        self.by_node = by_node
        return self

    @property
    def node_count(self) -> int:
        """Number of intermediate nodes."""
        return len(self.by_node)

    @property
    def counts(self) -> tuple[int, ...]:
        """Number of edges of every intermediate node."""
        return tuple(map(len, self.by_node))

    @property
    def nodes(self) -> tuple[int, ...]:
        """Node of every edge, from 2."""
        return tuple(node for node, count in enumerate(self.counts, start=2) for _ in range(count))

    @property
    def positions(self) -> tuple[range, ...]:
        """For every intermediate node, the positions of its edges."""
        ends = list(accumulate(self.counts, initial=0))
        return tuple(map(range, ends, ends[1:]))

    @property
    def has_pairs(self) -> bool:
        """Whether every node has two edges."""
        return set(self.counts) <= {2}

    def with_edges(self, edges: Iterable[Edge]) -> CellEdges:
        """The same nodes with other edges; a ValueError unless they are as many."""
        new = tuple(edges)
        if len(new) != len(self):
            raise ValueError(f"{len(new)} edges for nodes of {len(self)}")
        return CellEdges(new[place.start : place.stop] for place in self.positions)

    def listed(self, form: type = list) -> list[Any]:
        """The edges for printing, each of a form: flat where all nodes have two, else grouped by node."""
        grouped = [list(map(form, node)) for node in self.by_node]
        return [edge for node in grouped for edge in node] if self.has_pairs else grouped

    def __getnewargs__(self) -> tuple[tuple[tuple[Edge, ...], ...]]:
        """What pickling calls the class with."""
        return (self.by_node,)

    def __eq__(self, other: object) -> bool:
        """Whether the edges and their nodes are equal."""
        if isinstance(other, CellEdges):
            return self.by_node == other.by_node
        return self.has_pairs and tuple(self) == other

    def __ne__(self, other: object) -> bool:
        """Whether an edge or its node differs."""
        return not self == other

    def __hash__(self) -> int:
        """Hash of the edges and their nodes; of the plain tuple where every node has two."""
        return hash(tuple(self) if self.has_pairs else self.by_node)


def cell_edges(edges: Sequence[Edge]) -> CellEdges:
    """Edges with their nodes; a plain sequence has two a node."""
    if isinstance(edges, CellEdges):
        return edges
    return CellEdges(edges[index : index + 2] for index in range(0, len(edges), 2))


def edge_nodes(edges: Sequence[Edge]) -> tuple[int, ...]:
    """Node of every edge, from 2; a plain sequence has two edges a node.

    Example:
        >>> edge_nodes([Edge("skip_connect", 0), Edge("skip_connect", 1), Edge("sep_conv_3x3", 2)])
        (2, 2, 3)
    """
    return cell_edges(edges).nodes


@dataclass(frozen=True, init=False, repr=False)
class Genotype:
    """The normal and the reduction cell of a network, as search codes print them.

    Intermediate nodes count from 2 and sum their edges; the cell's output concatenates the nodes listed in
    ``normal_concat``, in that order. Likewise for the reduction cell. Edges are given as ``Edge`` or as
    (operation, source) pairs, in lists or tuples: one list has two edges a node, in the order of the nodes; a
    list for each node gives it any number, also none. A node without edges is zero.

    Attributes:
        normal: Edges of the normal cell, with their nodes.
        normal_concat: Intermediate nodes that the normal cell concatenates.
        reduce: Edges of the reduction cell.
        reduce_concat: Intermediate nodes that the reduction cell concatenates.

    Raises:
        ValueError: If a flat list has an odd number of edges or none, an edge names an unknown operation or
            reads a node that does not precede its own, a concat list is empty, repeats a node or names one
            that does not exist, or no path of operations other than ``none`` and ``noise``
            leads from a cell input to the output.

    Example:
        >>> cell = [("sep_conv_3x3", 0), ("skip_connect", 1)]
        >>> Genotype(cell, [2], cell, [2]).normal[1].source
        1
        >>> Genotype([[("sep_conv_3x3", 0)], [], [("skip_connect", 2)] * 3], [2, 4], cell, [2]).normal.counts
        (1, 0, 3)
    """

    normal: CellEdges
    normal_concat: tuple[int, ...]
    reduce: CellEdges
    reduce_concat: tuple[int, ...]

    def __init__(
        self,
        normal: Iterable[Any],
        normal_concat: Iterable[Any],
        reduce: Iterable[Any],
        reduce_concat: Iterable[Any],
    ) -> None:
        for cell, field, edges, concat in (
            ("normal", "normal", normal, normal_concat),
            ("reduction", "reduce", reduce, reduce_concat),
        ):
            checked = _edges(cell, edges)
            nodes = _concat(cell, concat, checked.node_count)
            _check_path(cell, checked, nodes)
            object.__setattr__(self, field, checked)
            object.__setattr__(self, f"{field}_concat", nodes)

    def cell(self, reduction: bool) -> tuple[CellEdges, tuple[int, ...]]:
        """Edges and concat list of the reduction cell, or of the normal cell."""
        return (self.reduce, self.reduce_concat) if reduction else (self.normal, self.normal_concat)

    def __repr__(self) -> str:
        """The literal that search codes print; ``parse_genotype`` reads it back."""
        pairs = {"normal": self.normal.listed(tuple), "reduce": self.reduce.listed(tuple)}
        fields = self.as_mapping() | pairs
        return f"Genotype({', '.join(f'{name}={value!r}' for name, value in fields.items())})"

    def as_mapping(self) -> dict[str, list[Any]]:
        """The genotype as lists, for YAML and JSON; ``get_genotype`` reads it back."""
        return {
            "normal": self.normal.listed(),
            "normal_concat": list(self.normal_concat),
            "reduce": self.reduce.listed(),
            "reduce_concat": list(self.reduce_concat),
        }

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any], what: str = "genotype", part: str = "key") -> Genotype:
        """The genotype of a mapping from the four fields; ``what`` and ``part`` name it in messages.

        A ValueError if a field is missing, a key is none of them, or the cells are not valid.
        """
        for key in mapping:
            if key not in FIELDS:
                hint = nearest(str(key), FIELDS) or f"; the {part}s are {', '.join(FIELDS)}"
                raise ValueError(f"{what}: unknown {part} {key!r}{hint}")
        missing = [key for key in FIELDS if key not in mapping]
        if missing:
            raise ValueError(f"{what}: missing {part} {', '.join(map(repr, missing))}")
        return cls(**mapping)


def _items(what: str, value: object) -> tuple[Any, ...]:
    if isinstance(value, str | bytes) or not isinstance(value, Iterable):
        raise ValueError(f"{what} must be a list, not {value!r}")
    return tuple(value)


def _integer(what: str, value: object) -> int:
    # A bool is an int to Python, but no node number; NumPy's integers are.
    if not isinstance(value, bool):
        try:
            return operator.index(value)  # type: ignore[arg-type]
        except TypeError:
            pass
    raise ValueError(f"{what} must be a node number, not {value!r}")


def _is_listed(item: object) -> bool:
    """Whether an item may hold others: not a text."""
    return isinstance(item, Iterable) and not isinstance(item, str | bytes)


def _by_node(cell: str, value: object) -> list[tuple[Any, ...]]:
    """The items of every node; a flat list has two a node."""
    if isinstance(value, CellEdges):
        return list(value.by_node)
    items = [tuple(item) if _is_listed(item) else item for item in _items(f"{cell} cell: the edges", value)]
    grouped = [type(item) is tuple and all(map(_is_listed, item)) for item in items]
    if not any(grouped):
        if len(items) < 2 or len(items) % 2:
            raise ValueError(
                f"{cell} cell: {len(items)} edges; one list must have two per intermediate node, so an even "
                "number of at least 2; for another number give each node a list of its own"
            )
        return [tuple(items[index : index + 2]) for index in range(0, len(items), 2)]
    if not all(grouped):
        raise ValueError(
            f"{cell} cell: {items[grouped.index(False)]!r} stands beside lists of edges: give one list of "
            "pairs (operation, source), or a list of pairs for each node"
        )
    return items


def _edges(cell: str, value: object) -> CellEdges:
    return CellEdges(
        [
            _edge(f"{cell} cell, node {node}, edge {number} of {len(items)}", node, item)
            for number, item in enumerate(items, start=1)
        ]
        for node, items in enumerate(_by_node(cell, value), start=2)
    )


def _edge(where: str, node: int, item: Any) -> Edge:
    if not _is_listed(item) or len(pair := tuple(item)) != 2:
        raise ValueError(f"{where}: {item!r} must be a pair (operation, source)")
    op, source = pair[0], _integer(f"{where}: the source", pair[1])
    if not isinstance(op, str):
        raise ValueError(f"{where}: the operation must be a name, not {op!r}")
    known = operation_names()
    if op not in known:
        hint = misspelt(op) or f"; known are {', '.join(known)}"
        raise ValueError(
            f"{where}: unknown operation {op!r}{hint} (of your own: name their module as operations first)"
        )
    if not 0 <= source < node:
        raise ValueError(f"{where}: source {source} must be a node from 0 to {node - 1}, before node {node}")
    return Edge(op, source)


def _concat(cell: str, value: object, nodes: int) -> tuple[int, ...]:
    concat = tuple(
        _integer(f"{cell} cell: an entry of the concat list", item)
        for item in _items(f"{cell} cell: the concat list", value)
    )
    allowed = "intermediate node 2" if nodes == 1 else f"intermediate nodes 2 to {nodes + 1}"
    if not concat:
        raise ValueError(f"{cell} cell: the concat list is empty; it must name at least one of {allowed}")
    for position, node in enumerate(concat):
        if not 2 <= node <= nodes + 1:
            raise ValueError(f"{cell} cell: the concat list names node {node}; it may name {allowed}")
        if node in concat[:position]:
            raise ValueError(f"{cell} cell: the concat list names node {node} twice; name each node once")
    return concat


def _check_path(cell: str, edges: CellEdges, concat: tuple[int, ...]) -> None:
    reached = {0, 1}
    for node, own in enumerate(edges.by_node, start=2):
        if any(carries(op) and source in reached for op, source in own):
            reached.add(node)
    if reached.isdisjoint(concat):
        raise ValueError(
            f"{cell} cell: no path leads from a cell input to the output (concat {list(concat)}) without an "
            "operation 'none' or 'noise': replace one on such a path, or concatenate a node that is reached"
        )
