"""Cells of data files as lists: edges with named parts, nodes by their number, concat lists in a text.

======================================================  ===========================================
``{"op": "sep_conv_3x3", "from": 0, "to": 2}``          an edge; further names are in the code
``{"2": [...], "3": [...]}``                            the edges of each node
``{"edges": [...], "concat": [2, 3]}``                  a cell with its concat list
``"range(2, 6)"``, ``"2, 3"``, ``["2", "3"]``           a concat list, as JSON holds those of Python
======================================================  ===========================================
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from typing import Any

from nas_lightning.cells.python_text import read_value

_PARTS = {
    "op": frozenset({"op", "operation", "primitive", "op_name", "operation_name", "op_type", "type", "name"}),
    "from": frozenset(
        {"from", "source", "src", "input", "in", "from_node", "source_node", "input_node", "input_index"}
    ),
    "to": frozenset(
        {"to", "target", "dst", "dest", "destination", "node", "output", "to_node", "target_node"}
    ),
}
_EDGES = ("edges", "ops", "operations", "gene")


def plain_cell(cell: str, value: Any) -> Any:
    """The edges of a cell as lists; what is no mapping and holds none is returned as it is.

    Args:
        cell: ``"normal"`` or ``"reduction"``, for messages.
        value: The edges as they stand in a file.

    Raises:
        ValueError: If a mapping names neither an edge nor nodes, or an edge leads backwards.
    """
    if isinstance(value, Mapping):
        if not value or not all(re.fullmatch(r"\d{1,4}", str(key)) for key in value):
            raise ValueError(
                f"{cell} cell: the edges must be a list, or a mapping from node numbers to lists, "
                f"not a mapping with {', '.join(map(repr, list(value)[:4])) or 'nothing'}"
            )
        by_node = {int(key): item for key, item in value.items()}
        if sorted(by_node) != list(range(2, len(by_node) + 2)):
            raise ValueError(
                f"{cell} cell: its nodes are numbered {', '.join(map(str, sorted(by_node)[:8]))}; "
                f"{len(by_node)} intermediate nodes have the numbers 2 to {len(by_node) + 1}"
            )
        value = [_edges_of_node(item) for _, item in sorted(by_node.items())]
    if not isinstance(value, list):
        return value
    return [
        _edge(cell, item)
        if isinstance(item, Mapping)
        else [_edge(cell, edge) if isinstance(edge, Mapping) else edge for edge in item]
        if isinstance(item, list)
        else item
        for item in value
    ]


def _edges_of_node(value: Any) -> Any:
    """The edges of a node in a list; an edge alone is one, too."""
    is_edge = isinstance(value, Mapping) or (
        isinstance(value, list) and any(not isinstance(part, list | Mapping) for part in value)
    )
    return [value] if is_edge else value


def split_cell(value: Any) -> tuple[Any, Any] | None:
    """Edges and concat list of ``{"edges": [...], "concat": [...]}``; None for another value."""
    if isinstance(value, Mapping) and "concat" in value:
        edges = [value[key] for key in _EDGES if key in value]
        if len(edges) == 1:
            return edges[0], value["concat"]
    return None


def plain_concat(value: Any) -> Any:
    """A concat list as integers where its text or its numbers can mean nothing else."""
    if isinstance(value, str) and len(value) <= 200:
        if re.fullmatch(r"\s*[\[(]?\s*\d{1,4}(?:[\s,]+\d{1,4})*[\s,]*[\])]?\s*", value):
            value = re.findall(r"\d+", value)
        else:
            with contextlib.suppress(ValueError):
                value = read_value(value)
    if not isinstance(value, list):
        return value
    return [_node(item) for item in value]


def _node(item: Any) -> Any:
    if isinstance(item, float) and item.is_integer():
        return int(item)
    return int(item) if isinstance(item, str) and re.fullmatch(r"\d{1,4}", item) else item


def _edge(cell: str, edge: Mapping[Any, Any]) -> list[Any]:
    """``[op, source]`` or ``[op, source, destination]`` of an edge whose parts have names."""
    named = {
        part: [value for key, value in edge.items() if str(key).lower() in names]
        for part, names in _PARTS.items()
    }
    told = ", ".join(f"{key}: {value!r}" for key, value in list(edge.items())[:4])
    if len(named["op"]) != 1 or len(named["from"]) != 1 or len(named["to"]) > 1:
        raise ValueError(
            f"{cell} cell: the edge {{{told}}} must name an operation and its source, such as "
            "{op: sep_conv_3x3, from: 0}, and may name the node that it leads to, as `to`"
        )
    parts = [_node(values[0]) for part in ("op", "from", "to") for values in [named[part]] if values]
    if not all(type(number) is int for number in parts[1:]):
        raise ValueError(f"{cell} cell: the edge {{{told}}} must name nodes by their numbers")
    if len(parts) == 3 and not parts[1] < parts[2]:
        raise ValueError(f"{cell} cell: the edge {{{told}}} must lead from a node to one of a larger number")
    return parts
