"""The paper's claims and the statistics that they compare, as ``claims.yaml`` lists them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Literal, TypeAlias

import yaml

Compare: TypeAlias = Literal["sizes", "kinds", "pairs", "census"]


@dataclass(frozen=True)
class Statement:
    """A claim of the paper in one sentence (not a quotation) and in a few words.

    Where it is right, its subjects do what ``holds`` says, else what ``fails`` says; ``asks`` is the question
    where it is undecided. A claim of absence says that there is no effect.
    """

    key: str
    section: str
    text: str
    label: str
    holds: str
    fails: str
    asks: str
    absence: bool = False


@dataclass(frozen=True)
class Statistic:
    """A column of the results that a claim compares.

    The claim (for generalisation: its opposite) predicts ``larger`` values, or smaller ones, for wide and
    shallow cells. A primary statistic decides the claim; a missing value of a censored one means "never
    reached". The column ``given`` is held fixed. Where no run of the study has a value, the claim's statistic
    of the column ``fallback`` stands in; ``stands_for`` is then the name of the one it replaces. The
    label tells a claim's primary statistics apart in few words.
    """

    claim: str
    column: str
    name: str
    unit: str = ""
    larger: bool = False
    primary: bool = False
    censored: bool = False
    compare: Compare = "sizes"
    label: str = ""
    runs: Literal["plain", "regularized"] = "plain"
    given: str = ""
    fallback: str = ""
    stands_for: str = ""


def statements() -> Mapping[str, Statement]:
    """The claims by key, in the paper's order; the last, ``observation``, needs no runs."""
    return _claims()[0]


def statistics(compare: Compare) -> list[Statistic]:
    """What claims compare by sizes (width, depth, path), by kinds of variants, by pairs, or by a census."""
    return [statistic for statistic in _claims()[1] if statistic.compare == compare]


@cache
def _claims() -> tuple[Mapping[str, Statement], tuple[Statistic, ...]]:
    text = Path(__file__).with_name("claims.yaml").read_text(encoding="utf-8")
    made, found = {}, []
    for key, entry in yaml.safe_load(text).items():
        found += [Statistic(key, **statistic) for statistic in entry.pop("statistics")]
        made[key] = Statement(key, **({"asks": entry["holds"]} | entry))
    return MappingProxyType(made), tuple(found)
