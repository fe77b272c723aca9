"""Genotypes as other projects write them: which form a mapping has, and the cells in it.

=====================  ============================================================================
form                   keys
=====================  ============================================================================
``genotype``           ``normal``, ``normal_concat``, ``reduce``, ``reduce_concat``: the DARTS family
``aw_nas``             ``normal_0``, ``reduce_1``, ``normal_0_concat``, ``reduce_1_concat``
``nni``                ``normal/op_2_0``, ``normal/input_2_0``: a model of NNI's hub
``nni1``               ``normal_n2_p0``, ``normal_n2_switch``: NNI's first DARTS example
``nasbench301``        ``NetworkSelectorDatasetInfo:darts:edge_normal_0``, ``...:inputs_node_normal_3``
=====================  ============================================================================
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from nas_lightning.cells.edge_lists import (
    MOST_NODES,
    add_note,
    read_edges,
    rename_operations,
    without_isolated_nodes,
)
from nas_lightning.cells.genotype import FIELDS, Genotype
from nas_lightning.cells.plain_cells import plain_cell, plain_concat, split_cell

CELLS = ("normal", "reduce")
NASBENCH301_PREFIX = "NetworkSelectorDatasetInfo:darts:"

_OTHER_NAMES = {name: name for name in FIELDS} | {
    "reduction": "reduce",
    "reduction_concat": "reduce_concat",
    "normal_cell": "normal",
    "reduce_cell": "reduce",
    "reduction_cell": "reduce",
    "gene_normal": "normal",
    "gene_reduce": "reduce",
}
_AW_NAS = re.compile(r"(normal|reduce)_\d{1,4}(_concat)?")
_NNI = re.compile(r"(?:.*/)?(normal|reduce)/(op|input)_(\d{1,4})_(\d{1,4})")
_NNI1 = re.compile(r"(normal|reduce)_n(\d{1,4})_(?:p(\d{1,4})|switch)")
_NASBENCH301 = re.compile(r"(?:.*(?:[:.]|_COLON_))?(edge|inputs_node)_(normal|reduce)_(\d{1,4})")
_NNI1_OPERATIONS = (
    "maxpool",
    "avgpool",
    "skipconnect",
    "sepconv3x3",
    "sepconv5x5",
    "dilconv3x3",
    "dilconv5x5",
)
_LONGEST_MESSAGE = 800

THIS_NETWORK = "this network stacks a normal and a reduction cell of the DARTS family"


class Reading(NamedTuple):
    """A genotype, and what a user should know of how it was read, in sentences without a stop."""

    genotype: Genotype
    notes: tuple[str, ...] = ()


def form_of(mapping: Mapping[Any, Any]) -> str | None:
    """The form of a mapping, ``other`` for another kind of cell, or None if it is no genotype."""
    keys = {field_name(key) for key in mapping if isinstance(key, str)}
    if _other_kind(keys):
        return "other"
    if keys & set(CELLS):
        return "genotype"
    return next((form for form, (pattern, _) in _FORMS.items() if any(map(pattern.fullmatch, keys))), None)


def field_name(key: str) -> str:
    """The usual name of a field of a genotype; another key as it is."""
    return _OTHER_NAMES.get(key.lower(), key)


def fields_of_list(value: Any) -> dict[str, Any] | None:
    """The fields of ``[normal, normal_concat, reduce, reduce_concat]``, which is a named tuple in JSON."""
    if not isinstance(value, list) or len(value) != len(FIELDS):
        return None
    are_cells = all(_is_a_cell(edges) or any(map(_is_a_cell, _lists(edges))) for edges in value[::2])
    are_concats = all(_lists(concat) and all(type(node) is int for node in concat) for concat in value[1::2])
    return dict(zip(FIELDS, value, strict=True)) if are_cells and are_concats else None


def read_mapping_form(mapping: Mapping[Any, Any], what: str = "genotype", part: str = "key") -> Reading:
    """Read the cells of a mapping of any form.

    Args:
        mapping: A mapping with one of the forms above; further keys are left out with a note.
        what: What it is, for messages.
        part: What its keys are called in messages.

    Raises:
        ValueError: If it has none of the forms, is the cell of another network, or is not valid; one line.
    """
    form = form_of(mapping)
    mapping = {str(key): value for key, value in mapping.items()}
    other = _other_kind(set(mapping))
    if other:
        raise ValueError(f"{what}: {other}; {THIS_NETWORK}")
    notes: list[str] = []
    try:
        if form in _FORMS:
            fields = _FORMS[form][1](mapping, notes)
        else:
            fields = _read_fields(mapping, notes, what, part)
            for cell, name in zip(("normal", "reduction"), CELLS, strict=True):
                if name in fields:
                    edges = plain_cell(cell, fields[name])
                    concat = plain_concat(fields.get(f"{name}_concat"))
                    fields[name] = read_edges(cell, edges, concat, notes)
                    if concat is not None:
                        fields[f"{name}_concat"] = without_isolated_nodes(cell, edges, concat, notes)
        return Reading(Genotype.from_mapping(fields, what, part), tuple(notes))
    except (ValueError, OverflowError) as error:
        message = str(error)
        if len(message) <= _LONGEST_MESSAGE:
            raise
        raise ValueError(f"{message[: _LONGEST_MESSAGE - 120]} ... {message[-100:]}") from None


def _other_kind(keys: set[str]) -> str:
    """What a mapping of these keys is, if it is a cell of another kind; empty otherwise."""
    if "recurrent" in keys and "normal" not in keys:
        return "this is a recurrent cell"
    if "arch_str" in keys and "normal" not in keys:
        return "this is a NAS-Bench-201 cell"
    if keys & {"module_adjacency", "fixed_metrics", "module_operations"}:
        return "this is a NAS-Bench-101 cell"
    if keys & {"matrix", "adjacency", "adjacency_matrix"} and keys & {"ops", "operations", "labels"}:
        return "this is a NAS-Bench-101 cell"
    return ""


def _left_out(keys: Iterable[str], notes: list[str]) -> None:
    keys = [key if len(key) <= 40 else f"{key[:37]}..." for key in keys]
    if keys:
        more = f" and {len(keys) - 4} more" if len(keys) > 5 else ""
        names = ", ".join(keys if not more else keys[:4])
        add_note(notes, f"left out: {names}{more} (says nothing of the cells)")


def _read_fields(mapping: Mapping[str, Any], notes: list[str], what: str, part: str) -> dict[str, Any]:
    """The four fields; other keys are left out, unless they are misspelt or hold another cell."""
    fields: dict[str, Any] = {}
    others: list[str] = []
    cells: list[str] = []
    for key, value in mapping.items():
        name = field_name(key)
        if name in FIELDS:
            both = split_cell(value) if name in CELLS else None
            for own, part_of_it in zip((name, f"{name}_concat"), both or (value,), strict=False):
                if own in fields:
                    raise ValueError(f"{what}: {part} {own!r} is given twice")
                fields[own] = part_of_it
            continue
        meant = difflib.get_close_matches(name, FIELDS, n=1, cutoff=0.85)
        if meant:
            raise ValueError(f"{what}: unknown {part} {name!r}; did you mean {meant[0]!r}?")
        (cells if _is_a_cell(value) else others).append(name)
    missing = [name for name in CELLS if name not in fields]
    if cells and missing:
        raise ValueError(
            f"{what}: {part} {cells[0]!r} holds a cell, but {' and '.join(map(repr, missing))} must be "
            f"given; {THIS_NETWORK}"
        )
    if cells:
        raise ValueError(f"{what}: {part} {cells[0]!r} holds a further cell; {THIS_NETWORK}")
    _left_out(others, notes)
    return fields


def _lists(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _is_a_cell(value: Any) -> bool:
    """Whether a value holds edges, as those of a third cell."""
    return isinstance(value, list) and any(
        isinstance(edge, list)
        and any(isinstance(part, str) for part in edge)
        and any(type(part) is int for part in edge)
        for edge in value
    )


def _read_aw_nas(mapping: Mapping[str, Any], notes: list[str]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    others: list[str] = []
    for key, value in mapping.items():
        match = _AW_NAS.fullmatch(key)
        if match is None:
            others.append(key)
            continue
        name = f"{match.group(1)}{match.group(2) or ''}"
        if name in fields:
            raise ValueError(f"genotype of aw_nas: there are several {match.group(1)} cells; {THIS_NETWORK}")
        fields[name] = value
    for cell, name in zip(("normal", "reduction"), CELLS, strict=True):
        if name in fields:
            fields[name] = read_edges(cell, fields[name], fields.get(f"{name}_concat"), notes)
    _left_out(others, notes)
    return fields


def _read_nni(mapping: Mapping[str, Any], notes: list[str]) -> dict[str, Any]:
    """The cells of a model of NNI's hub: an operation and an input for each edge of each node.

    Its DARTS space, of four nodes, concatenates all nodes, as its PNAS space does; its NASNet, ENAS and
    AmoebaNet spaces, of five, those that no node reads.
    """
    found: dict[str, dict[tuple[int, int], dict[str, Any]]] = {name: {} for name in CELLS}
    others: list[str] = []
    concat: dict[str, Any] = {}
    for key, value in mapping.items():
        match = _NNI.fullmatch(key)
        if match is not None:
            cell, kind, node, edge = match.groups()
            found[cell].setdefault((int(node), int(edge)), {})[kind] = value
        elif key in ("normal_concat", "reduce_concat"):
            concat[key] = value
        else:
            others.append(key)
    fields: dict[str, Any] = {}
    for name in CELLS:
        nodes: dict[int, list[tuple[str, int]]] = {}
        for (node, edge), parts in sorted(found[name].items()):
            where = f"genotype of NNI: {name}/op_{node}_{edge} and {name}/input_{node}_{edge}"
            source = parts.get("input")
            if isinstance(source, list) and len(source) == 1:
                source = source[0]
            if not isinstance(parts.get("op"), str) or type(source) is not int:
                raise ValueError(f"{where} must be the name of an operation and the number of a node")
            nodes.setdefault(node, []).append((parts["op"], source))
        edges = _by_node(nodes, f"genotype of NNI: {name}")
        fields[name] = rename_operations(edges, notes)
        intermediate = list(range(2, len(edges) + 2))
        if len(edges) != 4 and f"{name}_concat" not in concat:
            read = {source for node in edges for _, source in node}
            loose = [node for node in intermediate if node not in read]
            if loose != intermediate:
                intermediate = loose
                add_note(
                    notes,
                    "the output concatenates the nodes that no node reads, as in NNI's NASNet, ENAS and "
                    "AmoebaNet spaces; for its PNAS space add normal_concat and reduce_concat with all nodes",
                )
        fields[f"{name}_concat"] = concat.get(f"{name}_concat", intermediate)
    _left_out(others, notes)
    return fields


def _by_node(nodes: dict[int, list[tuple[str, int]]], what: str) -> list[list[tuple[str, int]]]:
    """The edges of each node in a list, from node 2 on."""
    if not nodes:
        raise ValueError(f"{what}: the cell has no edges")
    if min(nodes) < 2 or max(nodes) > MOST_NODES:
        raise ValueError(f"{what}: intermediate nodes are 2 and on, not {min(nodes)} to {max(nodes)}")
    return [nodes.get(node, []) for node in range(2, max(nodes) + 1)]


def _read_nni1(mapping: Mapping[str, Any], notes: list[str]) -> dict[str, Any]:
    """NNI's first DARTS example: for each node the operation of every source, and which sources it reads."""
    operations: dict[str, dict[int, dict[int, Any]]] = {name: {} for name in CELLS}
    switches: dict[str, dict[int, Any]] = {name: {} for name in CELLS}
    others: list[str] = []
    for key, value in mapping.items():
        match = _NNI1.fullmatch(key)
        if match is None:
            others.append(key)
        elif match.group(3) is None:
            switches[match.group(1)][int(match.group(2))] = value
        else:
            operations[match.group(1)].setdefault(int(match.group(2)), {})[int(match.group(3))] = value
    fields: dict[str, Any] = {}
    for name in CELLS:
        nodes: dict[int, list[tuple[str, int]]] = {}
        for node, by_source in operations[name].items():
            chosen = switches[name].get(node)
            taken = {f"{name}_n{node}_p{source}" for source in by_source}
            taken &= {str(key) for key in chosen} if isinstance(chosen, list) else taken
            nodes[node] = []
            for source, op in sorted(by_source.items()):
                key = f"{name}_n{node}_p{source}"
                if key not in taken or op in ([], None):
                    continue
                if type(op) is int and 0 <= op < len(_NNI1_OPERATIONS):
                    op = _NNI1_OPERATIONS[op]
                if not isinstance(op, str):
                    raise ValueError(f"genotype of NNI: {key} (={op!r}) must be the name of an operation")
                nodes[node].append((op, source))
        edges = _by_node(nodes, f"genotype of NNI: {name}")
        fields[name] = rename_operations(edges, [])  # this form spells every operation otherwise
        fields[f"{name}_concat"] = list(range(2, len(edges) + 2))
    _left_out(others, notes)
    return fields


def _read_nasbench301(mapping: Mapping[str, Any], notes: list[str]) -> dict[str, Any]:
    """A configuration of NAS-Bench-301, NASLib or YAHPO Gym: an operation for some of all possible edges.

    Edges are numbered by the sources of node 2, then of node 3, and so on. ``inputs_node_normal_3: 0_2`` has
    the sources of a node; node 2 reads both inputs. The output concatenates all nodes.
    """
    operations: dict[str, dict[int, Any]] = {name: {} for name in CELLS}
    inputs: dict[str, dict[int, Any]] = {name: {} for name in CELLS}
    others: list[str] = []
    for key, value in mapping.items():
        match = _NASBENCH301.fullmatch(key)
        if match is None:
            others.append(key.rpartition(":")[2])
        elif value is not None:
            kind, name, number = match.groups()
            (operations if kind == "edge" else inputs)[name][int(number)] = value
    fields: dict[str, Any] = {}
    for name in CELLS:
        what = f"genotype of NAS-Bench-301: {name} cell"
        first, node, nodes = 0, 2, []
        last = max(inputs[name], default=2)
        if last > MOST_NODES or max(operations[name], default=0) > MOST_NODES**2:
            raise ValueError(f"{what}: intermediate nodes have numbers from 2 on, not {last}")
        while node <= last or any(edge >= first for edge in operations[name]):
            given = inputs[name].get(node)
            here = range(first, first + node)
            sources = [edge - first for edge in here if edge in operations[name]]
            if given is not None:
                sources = _node_numbers(given, f"{what}: inputs_node_{name}_{node}")
            for source in sources:
                if not isinstance(operations[name].get(first + source), str) or not source < node:
                    raise ValueError(
                        f"{what}: node {node} reads node {source}, but edge_{name}_{first + source} names no"
                        " operation"
                    )
            nodes.append([(operations[name][first + source], source) for source in sources])
            first, node = first + node, node + 1
        if not any(nodes):
            raise ValueError(f"{what}: there are no edges")
        fields[name] = rename_operations(nodes, notes)
        fields[f"{name}_concat"] = list(range(2, len(nodes) + 2))
    _left_out(others, notes)
    return fields


def _node_numbers(value: Any, what: str) -> list[int]:
    """The numbers in ``0_1`` or ``[0, 1]``; YAML reads ``0_1`` as 1 and ``1_2`` as 12."""
    if type(value) is int and 0 <= value < 100:
        value = f"{value // 10}_{value % 10}"
    parts = value.split("_") if isinstance(value, str) else value
    if not isinstance(parts, list) or not all(re.fullmatch(r"\d{1,3}", str(part)) for part in parts):
        raise ValueError(f"{what} (={value!r}) must name nodes, such as 0_1")
    return [int(part) for part in parts]


_FORMS: dict[str | None, tuple[re.Pattern[str], Callable[[Mapping[str, Any], list[str]], dict[str, Any]]]] = {
    "nni": (_NNI, _read_nni),
    "nni1": (_NNI1, _read_nni1),
    "aw_nas": (_AW_NAS, _read_aw_nas),
    "nasbench301": (_NASBENCH301, _read_nasbench301),
}
"""For each form other than ``genotype`` what its keys look like, and what reads it."""
