"""Names of published genotypes: case and separators do not matter, and other names are known.

Beside the names of the data file stand the paper's short names, those of the variables in the repositories
from which the genotypes were taken, and the names that their authors use, each where it means one genotype.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import cache
from types import MappingProxyType

from nas_lightning.cells.published import PublishedGenotype, published_genotypes, published_variants

ALIASES: Mapping[str, str] = MappingProxyType(
    {
        # The paper's DARTS is the second-order cell, its SNAS the one with the mild constraint.
        "darts": "darts_v2",
        "snas": "snas_mild",
        "darts_first_order": "darts_v1",
        "darts_1st": "darts_v1",
        "darts_second_order": "darts_v2",
        "darts_2nd": "darts_v2",
        "nasnet_a": "nasnet",
        "amoebanet_a": "amoebanet",
        "amoeba": "amoebanet",
        "pnas": "pnasnet",
        "snas_moderate_constraint": "snas_moderate",
        "snas_aggressive_constraint": "snas_aggressive",
        "pcdarts": "pc_darts_cifar",
        "pcdarts_cifar10": "pc_darts_cifar",
        "pcdarts_image": "pc_darts_imagenet",
        "drnas": "drnas_cifar10",
        "dots": "dots_cifar10",
        "cdarts": "cdarts_cifar10",
        "shapley_nas": "shapley_nas_cifar10",
        "eg_nas": "eg_nas_cifar10",
        "nsga_net": "nsganet",
        "noisydarts": "noisydarts_a",
        "smoothdarts": "sdarts_adv",
        "eeea_net": "eeea_net_c",
    }
)
"""Other names, in addition to those that the data give."""

# Variables of sources that say nothing by themselves.
_NO_NAMES = frozenset({"genotype", "network", "arch"})


def full_name(name: str) -> str | None:
    """The name of a published genotype or variant however it is spelt; None if there is none.

    ``PC-DARTS``, ``pcdarts`` and ``PCDARTS`` are ``pc_darts_cifar``; ``NASNet_ADAPT`` is ``nasnet_adapted``.
    """
    return _names().get(_plain(name)) if 0 < len(name) <= 100 else None


def find_published(name: str) -> PublishedGenotype | None:
    """The searched cell or published variant of a name, however it is spelt; None if there is none."""
    known = full_name(name)
    return None if known is None else _entries()[known]


def unknown_name_hint(name: str) -> str:
    """The end of a message about an unknown name: the name meant if it is misspelt, or the longer ones.

    A name of another method is never suggested: what differs from a known name in its first letter or by more
    than one letter is taken for another method. Names that differ in digits are listed.
    """
    plain = _plain(name)
    tokens = _tokens(name)
    numbered = re.sub(r"\d+", "", plain) if plain[:1].isalpha() else None
    longer = [
        known
        for known in _entries()
        if (tokens and _tokens(known)[: len(tokens)] == tokens and plain[-1:] not in "+-")
        or re.sub(r"\d+", "", _plain(known)) == numbered
    ]
    if longer:
        return f"; there {'are' if len(longer) > 1 else 'is'} {', '.join(longer[:12])}"
    if len(plain) <= 100:
        meant = list(dict.fromkeys(full for known, full in _names().items() if _is_misspelt(plain, known)))
        spelt = [known for known in (*_entries(), *ALIASES) if _is_misspelt(plain, _plain(known))]
        if len(meant) == 1:
            return f"; did you mean {(spelt or meant)[0]!r}?"
    return "; `nas-lightning cells list` shows the published ones; a file or a literal is a genotype, too"


@cache
def _entries() -> Mapping[str, PublishedGenotype]:
    return MappingProxyType({**published_genotypes(), **published_variants()})


@cache
def _names() -> Mapping[str, str]:
    """The full name of every name without case and separators."""
    entries = _entries()
    sources = [(entry.source.rpartition(":")[2].strip('"'), name) for name, entry in entries.items()]
    methods = [(entry.method, name) for name, entry in entries.items()]
    names: dict[str, str] = {}
    for group in (
        ((name, name) for name in entries),
        ALIASES.items(),
        ((variable, name) for variable, name in sources if variable.isidentifier()),
        methods,
    ):
        for plain, name in _of_one_meaning(group).items():
            if plain not in _NO_NAMES:
                names.setdefault(plain, name)
    return MappingProxyType(names)


def _of_one_meaning(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Plain names to full ones, without names of several."""
    meanings: dict[str, set[str]] = {}
    for other, name in pairs:
        meanings.setdefault(_plain(other), set()).add(name)
    return {plain: min(names) for plain, names in meanings.items() if len(names) == 1}


def _plain(name: str) -> str:
    """A name in lower case without separators; the last sign of DARTS+ and of DARTS- is part of the name."""
    return re.sub(r"[\s_.,()]+|-+(?=.)", "", name.strip().lower())


def _tokens(name: str) -> list[str]:
    return re.findall(r"[a-z0-9+]+", name.lower())


def _is_misspelt(given: str, known: str) -> bool:
    """Whether a name is a known one with a letter left out, doubled, wrong or swapped with its neighbour.

    The first letter and all digits must agree, and nothing may be appended: ``q-darts`` and ``darts_v3`` are
    other methods than ``p-darts`` and ``darts_v2``.
    """
    if min(len(given), len(known)) < 5 or abs(len(given) - len(known)) > 1 or given == known:
        return False
    first = next((i for i, (a, b) in enumerate(zip(given, known, strict=False)) if a != b), None)
    if first is None:  # one is the start of the other
        return len(given) < len(known) and known[-1].isalpha()
    if first == 0:
        return False
    rest, meant = given[first:], known[first:]
    if len(given) == len(known):
        is_swapped = rest[:2] == meant[1::-1] and rest[2:] == meant[2:] and rest[:2].isalpha()
        # Of names of five and six letters many are those of other methods: EG-NAS, EPNAS, NAONet.
        is_wrong = (
            len(known) > 6 and len(meant) > 1 and rest[1:] == meant[1:] and (rest[0] + meant[0]).isalpha()
        )
        return is_swapped or is_wrong
    if len(given) < len(known):
        return rest == meant[1:] and meant[0].isalpha()
    return rest[1:] == meant and rest[0].isalpha()
