"""Edge and Genotype: what a cell is, validated and hashable."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from nas_lightning.cells.operations import nearest, operation_names

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


@dataclass(frozen=True, init=False, repr=False)
class Genotype:
    """The normal and the reduction cell of a network, as search codes print them.

    Intermediate node ``n`` (from 2) sums the two edges ``normal[2 * (n - 2)]`` and ``normal[2 * (n - 2) +
    1]``; the cell's output concatenates the nodes listed in ``normal_concat``, in that order. Likewise for
    the reduction cell. Edges are given as ``Edge`` or as (operation, source) pairs, in lists or tuples.

    Attributes:
        normal: Edges of the normal cell, two per intermediate node.
        normal_concat: Intermediate nodes that the normal cell concatenates.
        reduce: Edges of the reduction cell.
        reduce_concat: Intermediate nodes that the reduction cell concatenates.

    Raises:
        ValueError: If a cell has an odd number of edges or none, an edge names an unknown operation or reads
            a node that does not precede its own, a concat list is empty, repeats a node or names one that
            does not exist, or no path of operations other than ``none`` leads from a cell input to the
            output.

    Example:
        >>> cell = [("sep_conv_3x3", 0), ("skip_connect", 1)]
        >>> Genotype(cell, [2], cell, [2]).normal[1].source
        1
    """

    normal: tuple[Edge, ...]
    normal_concat: tuple[int, ...]
    reduce: tuple[Edge, ...]
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
            nodes = _concat(cell, concat, len(checked) // 2)
            _check_path(cell, checked, nodes)
            object.__setattr__(self, field, checked)
            object.__setattr__(self, f"{field}_concat", nodes)

    def cell(self, reduction: bool) -> tuple[tuple[Edge, ...], tuple[int, ...]]:
        """Edges and concat list of the reduction cell, or of the normal cell."""
        return (self.reduce, self.reduce_concat) if reduction else (self.normal, self.normal_concat)

    def __repr__(self) -> str:
        """The literal that search codes print; ``parse_genotype`` reads it back."""
        pairs = {"normal": list(map(tuple, self.normal)), "reduce": list(map(tuple, self.reduce))}
        fields = self.as_mapping() | pairs
        return f"Genotype({', '.join(f'{name}={value!r}' for name, value in fields.items())})"

    def as_mapping(self) -> dict[str, list[Any]]:
        """The genotype as lists, for YAML and JSON; ``get_genotype`` reads it back."""
        return {
            "normal": list(map(list, self.normal)),
            "normal_concat": list(self.normal_concat),
            "reduce": list(map(list, self.reduce)),
            "reduce_concat": list(self.reduce_concat),
        }

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any], what: str = "genotype", part: str = "key") -> Genotype:
        """The genotype of a mapping from the four fields; ``what`` and ``part`` name it in messages."""
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


def _edges(cell: str, value: object) -> tuple[Edge, ...]:
    items = _items(f"{cell} cell: the edges", value)
    if len(items) < 2 or len(items) % 2:
        raise ValueError(
            f"{cell} cell: {len(items)} edges; there must be two per intermediate node, so an even number "
            "of at least 2"
        )
    known = operation_names()
    edges = []
    for index, item in enumerate(items):
        node = index // 2 + 2
        where = f"{cell} cell, node {node}, edge {index % 2 + 1} of 2"
        if isinstance(item, str | bytes) or not isinstance(item, Iterable) or len(pair := tuple(item)) != 2:
            raise ValueError(f"{where}: {item!r} must be a pair (operation, source)")
        op, source = pair[0], _integer(f"{where}: the source", pair[1])
        if not isinstance(op, str):
            raise ValueError(f"{where}: the operation must be a name, not {op!r}")
        if op not in known:
            hint = nearest(op, known) or f"; known are {', '.join(known)}"
            raise ValueError(
                f"{where}: unknown operation {op!r}{hint} (operations of your own must be registered first)"
            )
        if not 0 <= source < node:
            raise ValueError(
                f"{where}: source {source} must be a node from 0 to {node - 1}, before node {node}"
            )
        edges.append(Edge(op, source))
    return tuple(edges)


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


def _check_path(cell: str, edges: tuple[Edge, ...], concat: tuple[int, ...]) -> None:
    reached = {0, 1}
    for index, (op, source) in enumerate(edges):
        if op != "none" and source in reached:
            reached.add(index // 2 + 2)
    if reached.isdisjoint(concat):
        raise ValueError(
            f"{cell} cell: no path leads from a cell input to the output (concat {list(concat)}) without an "
            "operation 'none': replace a 'none' on such a path, or concatenate a node that is reached"
        )
