"""Reads the edges of one cell in the ways that search codes write them.

=============================================  ====================================================
``[(op, source), ...]``                        two edges a node, as DARTS prints them
``[[(op, source), ...], ...]``                 a list for each node, with any number of edges
``[(op, source, weight), ...]``                with architecture weights, which are dropped
``[(op, source, destination), ...]``           aw_nas; the destination is the larger number
``[(op, destination, source), ...]``           FairDARTS
``[(source, op), ...]``                        the node first
=============================================  ====================================================
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

from nas_lightning.cells.operation_aliases import usual_operation

Pair: TypeAlias = tuple[str, int]

MOST_NODES = 1000
"""Largest node number of a cell that is read: a larger number is not a node."""


class _Item(NamedTuple):
    """An edge as it stands in a text: its operation, and the numbers beside it in their order."""

    op: str
    numbers: tuple[int | float, ...]
    node: int | None  # where edges stand in one list for each node


def read_edges(cell: str, value: Any, concat: Any, notes: list[str]) -> Any:
    """The edges of a cell as ``Genotype`` takes them; remarks for the user are added to ``notes``.

    Args:
        cell: ``"normal"`` or ``"reduction"``, for messages.
        value: What stands in the text. What is no list of edges is returned as it is: ``Genotype`` refuses it
            in its own words.
        concat: The cell's concat list. It tells how many nodes the cell has, where that is open.
        notes: Remarks on what was dropped or renamed.

    Raises:
        ValueError: If it is not sure which number of an edge is its source.
    """
    items = _items(value)
    if items is None:
        return value
    lengths = {len(item.numbers) for item in items}
    if len(lengths) != 1:
        return value
    items = _without_weights(cell, items, notes)
    length = len(items[0].numbers)
    if length > 2 or length == 0:
        return value
    if length == 2:
        return rename_operations(_by_destination(cell, items, concat), notes)
    if not all(type(item.numbers[0]) is int for item in items):
        return value
    renamed = [((_renamed(item.op, notes), item.numbers[0]), item.node) for item in items]
    if items[0].node is None:
        pairs = [pair for pair, _ in renamed]
        return _dense(pairs, concat, notes) or _of_other_numbers(pairs, concat, notes) or pairs
    nodes: list[list[Any]] = [[] for _ in value]
    for pair, node in renamed:
        assert node is not None
        nodes[node - 2].append(pair)
    return flat_if_paired(nodes)


def flat_if_paired(nodes: list[list[Any]]) -> list[Any]:
    """One list where every node has two edges, the usual form; a list for each node otherwise."""
    return [pair for node in nodes for pair in node] if all(len(node) == 2 for node in nodes) else nodes


def rename_operations(nodes: Sequence[Sequence[Pair]], notes: list[str]) -> list[Any]:
    """The edges of each node with the names that operations have here."""
    return flat_if_paired([[(_renamed(op, notes), source) for op, source in node] for node in nodes])


def _renamed(op: str, notes: list[str]) -> str:
    usual = usual_operation(op)
    if usual != op:
        add_note(notes, f"operation {op!r} is read as {usual}")
    return usual


def add_note(notes: list[str], note: str) -> None:
    """Add a remark once."""
    if note not in notes:
        notes.append(note)


def _items(value: Any) -> list[_Item] | None:
    """The edges of a list or of a list for each node; None where it is neither."""
    if not isinstance(value, list) or not value:
        return None
    if all(isinstance(group, list) and all(isinstance(edge, list) for edge in group) for group in value):
        found = [_item(edge, node) for node, group in enumerate(value, 2) for edge in group]
    else:
        found = [_item(edge, None) for edge in value]
    items = [item for item in found if item is not None]
    return items if items and len(items) == len(found) else None


def _item(edge: Any, node: int | None) -> _Item | None:
    if not isinstance(edge, list) or not 2 <= len(edge) <= 4:
        return None
    names: list[str] = []
    numbers: list[int | float] = []
    for part in edge:
        if isinstance(part, str) and not part.isdecimal():
            names.append(part)
        elif isinstance(part, str):
            numbers.append(int(part) if len(part) < 5 else -1)
        elif type(part) in (int, float):
            numbers.append(part)
    is_edge = len(names) == 1 and len(names) + len(numbers) == len(edge)
    return _Item(names[0], tuple(numbers), node) if is_edge else None


def _without_weights(cell: str, items: list[_Item], notes: list[str]) -> list[_Item]:
    """The edges without the numbers that are weights: those with a fraction in any edge of the cell."""
    count = len(items[0].numbers)
    weights = {at for item in items for at in range(count) if isinstance(item.numbers[at], float)}
    if not weights or count == 1:
        return items
    if len(weights) == count:
        raise ValueError(f"{cell} cell: the edge {_told(items[0])} names no source; it must be a node number")
    add_note(notes, "the weights of the edges are left out")
    kept = [at for at in range(count) if at not in weights]
    return [item._replace(numbers=tuple(item.numbers[at] for at in kept)) for item in items]


def _by_destination(cell: str, items: list[_Item], concat: Any) -> list[list[Pair]]:
    """The edges of each node where every edge names source and destination, in one order or the other."""
    source_first = [item for item in items if item.numbers[0] < item.numbers[1]]
    source_last = [item for item in items if item.numbers[0] > item.numbers[1]]
    if source_first and source_last:
        raise ValueError(
            f"{cell} cell: {_told(source_first[0])} and {_told(source_last[0])} name source and destination "
            "in different orders; the destination is the larger number and stands at one place in all edges"
        )
    if len(source_first) + len(source_last) < len(items):
        same = next(item for item in items if item.numbers[0] == item.numbers[1])
        raise ValueError(f"{cell} cell: the edge {_told(same)} leads from a node to itself")
    nodes: dict[int, list[Pair]] = {}
    for item in items:
        source, destination = sorted(item.numbers)
        assert isinstance(source, int)
        assert isinstance(destination, int)
        if not 2 <= destination <= MOST_NODES or destination != (item.node or destination):
            place = f"node {item.node}, where it stands" if item.node else "an intermediate node, from 2 on"
            raise ValueError(f"{cell} cell: the edge {_told(item)} must lead to {place}")
        nodes.setdefault(destination, []).append((item.op, source))
    named = [node for node in concat if type(node) is int] if isinstance(concat, list) else []
    last = max([*nodes, *(node for node in named if node <= MOST_NODES)])
    return [nodes.get(node, []) for node in range(2, last + 1)]


def without_isolated_nodes(cell: str, value: Any, concat: Any, notes: list[str]) -> Any:
    """The concat list without nodes that have no edges, where the edges are written as FairDARTS does.

    Its genotypes concatenate all four nodes, its network (fairdarts/model.py) those that have edges.
    """
    items = _items(value)
    if items is None or not isinstance(concat, list):
        return concat
    numbers = [item.numbers for item in items]
    if not all(len(own) == 2 and own[0] > own[1] and type(own[0]) is int for own in numbers):
        return concat
    destinations = {own[0] for own in numbers}
    isolated = [node for node in concat if type(node) is int and node >= 2 and node not in destinations]
    for node in isolated[:MOST_NODES]:
        add_note(
            notes, f"{cell} cell: node {node} has no edges; as in FairDARTS's network, it is not concatenated"
        )
    return [node for node in concat if node not in isolated]


def _dense(pairs: list[Any], concat: Any, notes: list[str]) -> list[Any] | None:
    """The edges by node if every node reads all nodes before it, in their order, as in a search space.

    A list of pairs has two a node otherwise; the concat list tells which, as the nodes of the two differ.
    """
    nodes: list[Any] = []
    rest = list(pairs)
    while rest:
        count = len(nodes) + 2
        if [source for _, source in rest[:count]] != list(range(count)):
            return None
        nodes.append(rest[:count])
        rest = rest[count:]
    is_named = isinstance(concat, list) and concat and all(type(node) is int for node in concat)
    if len(nodes) < 2 or not is_named or max(concat) != len(nodes) + 1:
        return None
    add_note(notes, f"every node reads all nodes before it: {len(nodes)} nodes, {len(pairs)} edges")
    return nodes


def _of_other_numbers(pairs: list[Any], concat: Any, notes: list[str]) -> list[Any] | None:
    """The edges by node where each node has one edge, or the best three or more, as its concat list tells.

    A node has no more edges than nodes before it. Where two edges a node are possible too, but make nodes
    after the last one of the concat list, a remark says so.
    """
    if not isinstance(concat, list) or not concat or not all(type(node) is int for node in concat):
        return None
    last = max(concat)
    if len(pairs) == 2 * (last - 1) or not 2 <= last <= len(pairs) + 1:
        return None
    are_pairs = len(pairs) % 2 == 0 and all(source < 2 + at // 2 for at, (_, source) in enumerate(pairs))
    if are_pairs and len(pairs) > 2 * (last - 1):
        add_note(
            notes,
            f"two edges a node make nodes 2 to {len(pairs) // 2 + 1}, and those after {last} reach no "
            "output; if a node has another number of edges, give each node a list of its own",
        )
        return None
    for most in (1, *range(3, last)):
        rest, nodes = list(pairs), []
        for node in range(2, last + 1):
            count = min(most, node)
            nodes.append(rest[:count])
            rest = rest[count:]
        sources = [[source for _, source in edges] for edges in nodes]
        are_valid = all(min(own, default=-1) >= 0 and max(own) < node for node, own in enumerate(sources, 2))
        if not rest and are_valid and all(len(set(own)) == len(own) for own in sources):
            number = "one edge" if most == 1 else f"up to {most} edges"
            add_note(notes, f"{number} a node: the concat list ends with node {last}")
            return nodes
    return None


def _told(item: _Item) -> str:
    return f"({', '.join(map(repr, (item.op, *item.numbers)))})"
