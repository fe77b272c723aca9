"""Finds the weights of a network of cells in what a file holds, and the layer that each tensor belongs to.

Programs wrap state dicts (``{"state_dict": ..., "epoch": 600}``), prefix their names (``module.``,
``_orig_mod.``, ``model.``) and spell layers in their own ways (``stem.conv``, ``preproc0``, ``dag.0.1``).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

Group = tuple[str | int, ...]
"""A layer of the network: ``("stem",)``, ``("stem0",)``, ``("stem1",)``, ``("tower",)``,
``("classifier",)``, ``("cell", 3, "preprocess", 0)``, ``("cell", 3, "edge", 5)``,
``("cell", 3, "node", 2, 1)`` for edge 1 of the third intermediate node, or ``("cell", 3, "to", 4, 0, 1)`` for
operation 1 of those from node 0 to node 4."""

_WRAPPED = re.compile(r"(^|\.)(_orig_mod|_fsdp_wrapped_module)(?=\.)")
_LEADING = re.compile(r"(?:(?:module|_orig_mod)\.)*")
_CELL = re.compile(r"(?P<prefix>(?:.*?\.)?)cells\.\d{1,4}\.")
_DEEPEST = 8
_AVERAGES = re.compile(r"ema|averag|swa|shadow|teacher|momentum|best|target", re.IGNORECASE)

_SEARCH = re.compile(
    r"(^|\.|_)(alphas?|betas?|gammas?|arch_parameters?|arch_weights?|log_alphas?|thetas?)"
    r"(_(normal|reduce\w*|\d+|cell\w*))?(\.\d+)*$"
)
_CANDIDATES = re.compile(
    r"cells\.\d+\.(.+\.)?("
    r"(_?ops|_?edges|dag|nodes|_?operations)(\.\d+)+\.(_ops|m_ops|ops|_?candidate\w*|mixed\w*)\.\d+\."
    r"|\d+<-\d+\.|(sep_conv|dil_conv|max_pool|avg_pool|skip_?connect)\w*\.)"
)

_STEM = re.compile(r"_?stem_?([01])(?:\.|$)|_?stem\.(first|second)\.|_?stem\.")
_PREPROCESS = re.compile(r"_?pre\w*?[._]?([01])\.")
_EDGE = re.compile(r"(?:_?ops|_?operations|_?edges|_?op_list|_?layers)\.(\d{1,4})\.")
_NODE = re.compile(r"(?:_?dag|_?nodes|_?blocks)\.(\d{1,4})\.(?:(?:_?ops|_?edges)\.)?(\d{1,4})\.")
_FAIRDARTS_EDGE = re.compile(r"_ops\.(\d{1,4})\.(\d{1,4})\.(\d{1,4})\.(?=op\.|conv_\d|bn\.)")
_CLASSIFIER = re.compile(r"_?(?:classifier|linear|fc|head|logits)\.(?=(?:weight|bias)$)")
_TOWER = re.compile(r"_?\w*aux\w*\.")


@dataclass(frozen=True)
class Candidate:
    """A mapping in a file that holds the weights of a network of cells.

    Attributes:
        place: Keys that lead to it, and the prefix of its names.
        tensors: Tensor by name, without the prefix, in the order of the file.
        others: Type of every other entry, by name.
    """

    place: tuple[str, ...]
    tensors: dict[str, Tensor]
    others: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return ".".join(self.place) or "the state dict itself"


def find_weights(content: Any, choice: str | None = None) -> tuple[Candidate, tuple[str, ...]]:
    """The weights of a network of cells in what a file holds.

    Args:
        content: A state dict, or mappings that lead to one.
        choice: Key or prefix of the network to take, where there are several.

    Returns:
        The weights, and what else there was to choose from, in sentences.

    Raises:
        ValueError: If there is none, or there are several of which none is the plain one.
    """
    if not isinstance(content, Mapping):
        raise ValueError(f"it holds a {type(content).__name__}, not a state dict")
    found = list(_candidates(content))
    if choice is not None:
        chosen = [one for one in found if choice in (str(one), *one.place)]
        if not chosen:
            there = ", ".join(map(str, found)) or "none"
            raise ValueError(f"it holds no network {choice!r}; there are: {there}")
        found = chosen
    if not found:
        raise ValueError(_nothing(content))
    plain = [one for one in found if not _AVERAGES.search(str(one))] or found
    first = plain[0]
    if any(not _is_same(first, other) for other in plain[1:]):
        names = ", ".join(map(str, plain))
        raise ValueError(f"it holds several networks ({names}): name one, as in FILE#{plain[0]}")
    rest = [str(one) for one in found if one not in plain]
    note = f"{first} is read; FILE#{rest[0]} reads that one" if rest else ""
    return first, (note,) if note else ()


def search_sign(names: Sequence[str]) -> str | None:
    """What shows that tensors belong to a search network, None for those of one genotype."""
    inside = next((match for name in names if (match := _CANDIDATES.search(name))), None)
    architecture = next((name for name in names if _SEARCH.search(name)), None)
    if inside is not None:
        return f"{inside.group()}*"
    return architecture


def group_of(name: str) -> tuple[Group, str] | None:
    """The layer that a tensor belongs to and its name inside; None for a name of unknown form.

    Example:
        >>> group_of("cells.3._ops.5.op.2.weight")
        (('cell', 3, 'edge', 5), 'op.2.weight')
        >>> group_of("stem.bn.bias")
        (('stem',), 'bn.bias')
    """
    cell = re.match(r"cells\.(\d{1,4})\.", name)
    if cell:
        index, rest = int(cell[1]), name[cell.end() :]
        for pattern, kind in (
            (_FAIRDARTS_EDGE, "to"),
            (_NODE, "node"),
            (_EDGE, "edge"),
            (_PREPROCESS, "preprocess"),
        ):
            match = pattern.match(rest)
            if match:
                return ("cell", index, kind, *map(int, match.groups())), rest[match.end() :]
        return None
    match = _STEM.match(name)
    if match:
        which = match[1] or {"first": "0", "second": "1"}.get(match[2] or "", "")
        return (f"stem{which}",), name[match.end() :]
    match = _CLASSIFIER.match(name)
    if match:
        return ("classifier",), name[match.end() :]
    match = _TOWER.match(name)
    return (("tower",), name[match.end() :]) if match else None


def _candidates(content: Mapping[Any, Any]) -> Iterator[Candidate]:
    """Every mapping, from the outside in, that holds tensors of cells, once for each prefix."""
    seen = {id(content)}
    level: list[tuple[tuple[str, ...], Mapping[Any, Any]]] = [((), content)]
    for _ in range(_DEEPEST):
        inner = []
        for place, mapping in level:
            entries = _of_one_prefix(dict(_named(mapping)))
            tensors = {key: found for key, value in entries.items() if (found := _tensor(value)) is not None}
            prefixes = dict.fromkeys(match["prefix"] for key in tensors if (match := _CELL.match(key)))
            for prefix in prefixes:
                own = {
                    key: _WRAPPED.sub("", key.removeprefix(prefix))
                    for key in entries
                    if key.startswith(prefix)
                }
                held = {name: tensors[key] for key, name in own.items() if key in tensors}
                others = {
                    name: type(entries[key]).__name__ for key, name in own.items() if key not in tensors
                }
                yield Candidate((*place, *filter(None, [prefix.rstrip(".")])), held, others)
            for key, value in _named(mapping):
                if isinstance(value, Mapping) and id(value) not in seen:
                    seen.add(id(value))
                    inner.append(((*place, key), value))
        level = inner


def _of_one_prefix(entries: dict[str, Any]) -> dict[str, Any]:
    """Entries without what wrappers put before their names, where only some have it and none stands twice."""
    leading = {found.group() for key in entries if _CELL.match(key) and (found := _LEADING.match(key))}
    bare = [_LEADING.sub("", key, count=1) for key in entries]
    is_mixed = len(leading) > 1 and len(set(bare)) == len(bare)
    return dict(zip(bare, entries.values(), strict=True)) if is_mixed else entries


def _named(mapping: Mapping[Any, Any]) -> Iterator[tuple[str, Any]]:
    return ((key, value) for key, value in mapping.items() if isinstance(key, str))


def _tensor(value: Any) -> Tensor | None:
    """A tensor of plain numbers, or an array as one."""
    if isinstance(value, Tensor):
        is_plain = value.layout == torch.strided and not value.is_quantized and not value.is_nested
        return value if is_plain and value.device.type != "meta" else None
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiu" and value.dtype.isnative:
        return torch.from_numpy(np.array(value))
    return None


def _is_same(one: Candidate, other: Candidate) -> bool:
    """Whether two places hold the same tensors, such as a state dict and a copy of the references."""
    return one.tensors.keys() == other.tensors.keys() and all(
        tensor is other.tensors[name] or _shares_memory(tensor, other.tensors[name])
        for name, tensor in one.tensors.items()
    )


def _shares_memory(one: Tensor, other: Tensor) -> bool:
    try:
        return one.shape == other.shape and one.data_ptr() == other.data_ptr()
    except RuntimeError:  # a tensor without memory
        return False


def _nothing(content: Mapping[Any, Any]) -> str:
    """Why there are no weights of cells."""
    names = [key for key, value in _named(content) if isinstance(value, Tensor)]
    if names:
        return f"it holds no 'cells.*' (but {names[0]!r}), so the DARTS family of code did not write it"
    keys = [str(key) for key in content][:5]
    held = f"only {', '.join(map(repr, keys))}" if keys else "nothing"
    return f"it holds no state dict of a network of cells ({held})"
