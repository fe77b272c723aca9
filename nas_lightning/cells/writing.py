"""Writes genotypes in the forms of other projects; ``get_genotype`` reads every one back."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import yaml

from nas_lightning.cells.edge_lists import Pair
from nas_lightning.cells.forms import CELLS, NASBENCH301_PREFIX
from nas_lightning.cells.genotype import Genotype
from nas_lightning.cells.literal import parse_genotype


def write_genotype(genotype: Genotype, form: str) -> str:
    """The text of a genotype in a form.

    Args:
        genotype: The cells.
        form: One of ``FORMS``.

    Returns:
        The text, without a line break at its end.

    Raises:
        ValueError: If there is no such form, or it cannot hold these cells: those of NAS-Bench-301 have four
            nodes, each with two different sources, and concatenate all of them.
    """
    if form not in FORMS:
        raise ValueError(f"`to` (={form}) must be one of {', '.join(FORMS)}")
    text = FORMS[form](genotype)
    try:
        same = _ordered(parse_genotype(text)) == _ordered(genotype)
    except ValueError:
        same = False
    if not same:
        limit = _LIMITS.get(form, "it cannot name nodes without edges")
        raise ValueError(f"the form {form} cannot hold this genotype: {limit}")
    return text


def _ordered(genotype: Genotype) -> list[Any]:
    """The cells without the order of a node's edges, which changes nothing but the order of a sum."""
    return [
        [[sorted(node) for node in _nodes(genotype, cell)], tuple(getattr(genotype, f"{cell}_concat"))]
        for cell in CELLS
    ]


def _nodes(genotype: Genotype, cell: str) -> list[list[Pair]]:
    """The edges of each node of a cell, ``"normal"`` or ``"reduce"``, from node 2 on."""
    return [[(edge.op, edge.source) for edge in node] for node in getattr(genotype, cell).by_node]


def _call(name: str, fields: Mapping[str, Any]) -> str:
    return f"{name}({', '.join(f'{key}={value!r}' for key, value in fields.items())})"


def _fields(genotype: Genotype, edges: Callable[[list[list[Pair]]], Any]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for cell in CELLS:
        fields[cell] = edges(_nodes(genotype, cell))
        fields[f"{cell}_concat"] = list(getattr(genotype, f"{cell}_concat"))
    return fields


def _nested(genotype: Genotype) -> str:
    return _call("Genotype", _fields(genotype, lambda nodes: nodes))


def _yaml(genotype: Genotype) -> str:
    return yaml.safe_dump(genotype.as_mapping(), default_flow_style=None, sort_keys=False, width=110).rstrip()


def _json(genotype: Genotype) -> str:
    lines = [f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in genotype.as_mapping().items()]
    return "{\n" + ",\n".join(lines) + "\n}"


def _autodl(genotype: Genotype) -> str:
    fields = _fields(genotype, lambda nodes: [tuple(node) for node in nodes])
    return _call("Genotype", fields | {"connectN": None, "connects": None})


def _fairdarts(genotype: Genotype) -> str:
    return _call(
        "Genotype",
        _fields(
            genotype,
            lambda nodes: [(op, node, source) for node, edges in enumerate(nodes, 2) for op, source in edges],
        ),
    )


def _aw_nas(genotype: Genotype) -> str:
    fields = _fields(
        genotype,
        lambda nodes: [(op, source, node) for node, edges in enumerate(nodes, 2) for op, source in edges],
    )
    names = {"normal": "normal_0", "reduce": "reduce_1", "normal_concat": "normal_0_concat"}
    names["reduce_concat"] = "reduce_1_concat"
    order = ("normal", "reduce", "normal_concat", "reduce_concat")
    return _call("CNNGenotype", {names[key]: fields[key] for key in order})


def _nni(genotype: Genotype) -> str:
    model: dict[str, Any] = {}
    for cell in CELLS:
        nodes = _nodes(genotype, cell)
        for node, edges in enumerate(nodes, 2):
            for number, (op, source) in enumerate(edges):
                model[f"{cell}/op_{node}_{number}"] = op
                model[f"{cell}/input_{node}_{number}"] = [source]
        concat = list(getattr(genotype, f"{cell}_concat"))
        read = {source for edges in nodes for _, source in edges}
        loose = [node for node in range(2, len(nodes) + 2) if node not in read]
        if concat != (list(range(2, 6)) if len(nodes) == 4 else loose):
            model[f"{cell}_concat"] = concat  # not NNI's: this project reads it
    return json.dumps(model, indent=2)


def _nasbench301(genotype: Genotype) -> str:
    config: dict[str, str] = {}
    for cell in CELLS:
        first = 0
        for node, edges in enumerate(_nodes(genotype, cell), 2):
            for op, source in sorted(edges, key=lambda pair: pair[1]):
                config[f"{NASBENCH301_PREFIX}edge_{cell}_{first + source}"] = op
            if node > 2:
                sources = "_".join(str(source) for source in sorted(source for _, source in edges))
                config[f"{NASBENCH301_PREFIX}inputs_node_{cell}_{node}"] = sources
            first += node
    return json.dumps(config, indent=2)


FORMS: Mapping[str, Callable[[Genotype], str]] = MappingProxyType(
    {
        "literal": str,
        "nested": _nested,
        "yaml": _yaml,
        "json": _json,
        "nni": _nni,
        "nasbench301": _nasbench301,
        "aw_nas": _aw_nas,
        "autodl": _autodl,
        "fairdarts": _fairdarts,
    }
)
"""What ``nas-lightning cells convert --to`` writes."""

_LIMITS = {
    "nasbench301": "it takes four nodes, each with two different sources, and all of them concatenated",
}
