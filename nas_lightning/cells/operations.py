"""The vocabulary of primitive operations: which names an edge may carry. No torch.

``nas_lightning.networks.operations`` computes them; ``nas_lightning.cells.size`` counts their cost.
"""

from __future__ import annotations

import difflib
import keyword
import re
from collections.abc import Iterable

BUILT_IN_OPERATIONS: tuple[str, ...] = (
    "none",
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "sep_conv_7x7",
    "dil_conv_3x3",
    "dil_conv_5x5",
    "conv_7x1_1x7",
    "conv_3x1_1x3",
    "inv_res_3x3",
    "inv_res_5x5",
    "noise",
    "max_pool_5x5",
    "max_pool_7x7",
    "avg_pool_5x5",
    "avg_pool_7x7",
    "conv_1x1",
    "conv_3x3",
    "conv_5x5",
    "nor_conv_1x1",
    "nor_conv_3x3",
    "nor_conv_5x5",
    "nor_conv_7x7",
    "sep_conv_3x3_single",
    "sep_conv_5x5_single",
    "sep_conv_7x7_single",
)
"""Operations that every genotype may use. ``none`` contributes zero and is never computed."""

_READING_NOTHING = ("none", "noise")

# Insertion order is kept, so that listings are stable.
_declared: dict[str, None] = {}


def operation_names() -> tuple[str, ...]:
    """Names an edge may carry: the built-in ones, then the user's in order of declaration."""
    return BUILT_IN_OPERATIONS + tuple(_declared)


def carries(op: str) -> bool:
    """Whether an operation's output depends on its input, so that values and gradients pass."""
    return op not in _READING_NOTHING


def declare_operation(name: str) -> None:
    """Make a further operation name valid in genotypes.

    ``nas_lightning.networks.register_operation`` calls this; declaring a name twice is harmless.

    Args:
        name: A Python identifier, so that the name survives in every form of a genotype.

    Raises:
        ValueError: If the name is no identifier, is a keyword, or belongs to a built-in operation.
    """
    if not isinstance(name, str) or not name.isidentifier() or keyword.iskeyword(name):
        raise ValueError(f"operation name {name!r} must be a Python identifier, for example 'my_conv_3x3'")
    if name in BUILT_IN_OPERATIONS:
        raise ValueError(f"operation name {name!r} belongs to a built-in operation: choose another")
    _declared[name] = None


def misspelt(op: str) -> str:
    """The hint of :func:`nearest` for an operation that is misspelt, not for one of another kind or size."""
    digits = re.findall(r"\d", op)
    same = [name for name in operation_names() if re.findall(r"\d", name) == digits]
    meant = difflib.get_close_matches(op.lower(), same, n=1, cutoff=0.85)
    return f"; did you mean {meant[0]!r}?" if meant else ""


def nearest(name: str, known: Iterable[str]) -> str:
    """``"; did you mean 'NAME'?"`` with the known name nearest to a misspelt one, or an empty string."""
    by_lower = {candidate.lower(): candidate for candidate in known}
    matches = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.5)
    return f"; did you mean {by_lower[matches[0]]!r}?" if matches else ""
