"""Sentences and numbers in print. The sentences are templates and stand in ``words.j2``."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

import pandas as pd
from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from jinja2.environment import TemplateModule

from nas_lightning.cells import format_width
from nas_lightning.cells.table2 import is_stand_in
from nas_lightning.report.paper import data_title, family_title

MISSING = "—"
_PACKAGE = "nas_lightning.report"
SETTING_NAMES = {
    "data": "data set",
    "epochs": "epochs",
    "batch_size": "batch size",
    "learning_rate": "learning rate",
    "seed": "seeds",
    "init_channels": "initial channels",
    "num_cells": "cells",
    "cutout": "cutout",
    "drop_path": "drop path",
    "auxiliary_weight": "weight of the tower",
    "evaluation_split": "split",
}
"""Names of columns of settings."""


def say(name: str, /, **facts: Any) -> str:
    """The text of a macro of ``words.j2`` with the facts that it needs, in single spaces."""
    text = str(getattr(_sentences(), name)(**facts))
    # A no-break space stays what it is.
    return re.sub(r"[ \n]+", " ", text).strip()


def environment(*, html: bool, package: str = _PACKAGE) -> Environment:
    """Templates with filters for numbers and lists; an undefined name is an error.

    Args:
        html: Whether what is filled in is escaped.
        package: Where templates are looked for, before this package.
    """
    made = Environment(
        loader=ChoiceLoader([PackageLoader(name, ".") for name in dict.fromkeys((package, _PACKAGE))]),
        autoescape=html,
        trim_blocks=html,
        lstrip_blocks=html,
        undefined=StrictUndefined,
    )
    made.filters |= {
        "counted": counted,
        "data_title": data_title,
        "family_title": family_title,
        "listed": listed,
        "p_value": p_value_text,
        "signed": signed,
        "width": format_width,
    }
    return made


@cache
def _sentences() -> TemplateModule:
    return environment(html=False).get_template("words.j2").module


def listed(words: Iterable[str], last: str = "and") -> str:
    """Words as a sentence lists them.

    Examples:
        >>> listed(["a", "b", "c"], "or")
        'a, b or c'
    """
    every = list(words)
    return f"{', '.join(every[:-1])} {last} {every[-1]}" if len(every) > 1 else "".join(every)


def counted(number: int, noun: str) -> str:
    """A number of things whose plural ends in s: "1 run", "2 runs"."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def distinct(values: Iterable[Any]) -> list[str]:
    """The different values as text: numbers by size, others as they come; missing ones do not count."""
    found = list(dict.fromkeys(value for value in values if not pd.isna(value)))
    if all(isinstance(value, int | float) for value in found):
        found.sort()
    return [f"{value:g}" if isinstance(value, float) else str(value) for value in found]


def setting_entries(run: pd.Series, names: Iterable[str]) -> dict[str, object]:
    """Settings of a run as entries of a table's row."""
    return {SETTING_NAMES[name].capitalize(): "".join(distinct([run[name]])) for name in names}


def architecture_entries(run: pd.Series, settings: Iterable[str]) -> dict[str, object]:
    """What a row about an architecture begins with: name, data set, some settings, width and depth."""
    mark = " (stand-in)" if is_stand_in(run["family"], run["variant"]) else ""
    return {
        "Architecture": run["architecture"] + mark,
        "Data": data_title(run["data"]),
        **setting_entries(run, settings),
        "Width": format_width(float(run["width"])),
        "Depth": int(run["depth"]),
    }


def signed(value: float | int, digits: int = 2) -> str:
    """A number with the minus sign of print; a dash for NaN and infinity."""
    return f"{value:.{digits}f}".replace("-", "\N{MINUS SIGN}") if math.isfinite(value) else MISSING


def p_value_text(p: float | int, *, sign: bool = False) -> str:
    """A p-value of three digits, ``"< 0.0001"`` for less, a dash for NaN; after "p" with an equals sign."""
    if not math.isfinite(p):
        return MISSING
    if p < 0.0001:
        return "< 0.0001"
    return f"{'= ' if sign else ''}{p:.3g}"


def mean_and_spread(values: Sequence[float] | pd.Series, digits: int | None = None) -> str:
    """Mean and standard deviation over seeds (divided by n - 1), such as ``"2.81 ± 0.05"``.

    Three significant digits by default. NaN is left out; one value has no deviation, none is a dash.
    """
    known = pd.Series(values, dtype=float).dropna()
    if known.empty:
        return MISSING
    mean, deviation = float(known.mean()), float(known.std(ddof=1))
    if not math.isfinite(mean):
        return str(mean)
    if digits is None:
        digits = max(0, 2 - math.floor(math.log10(abs(mean)))) if mean else 2
    if digits > 5 or abs(mean) >= 1e6:
        return f"{mean:.2e}" if len(known) == 1 else f"{mean:.2e} ± {deviation:.1e}"
    return f"{mean:.{digits}f}" if len(known) == 1 else f"{mean:.{digits}f} ± {deviation:.{digits}f}"
