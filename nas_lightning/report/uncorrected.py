"""A test of a claim before the correction: what was compared, the result, and what sentences say of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

import numpy as np
import pandas as pd

from nas_lightning.report.effects import NOISE_FLOOR
from nas_lightning.report.resampling import TestResult
from nas_lightning.report.samples import UNIT_COLUMNS, Sample, describe_groups
from nas_lightning.report.statements import Statement, Statistic, statements

Predictor: TypeAlias = Literal["width", "depth", "path", "original", "kind", "adaptation"]

ALPHA = 0.05
RANK_BOUND = 0.2
"""Kendall's tau-b under which an advantage does not matter. Without ties, the wider of two cells then wins
fewer than 60 in 100 times; with ties it can be more of the pairs that are not tied."""
ERROR_BOUND = math.log(1.05)
"""Logarithm of a ratio of errors under which an advantage does not matter: 5 %."""
FEWEST_CELLS = 5
"""Base cells that the comparison of adapted with original cells needs."""
SIZES: Mapping[Predictor, str] = MappingProxyType(
    {"width": "width", "depth": "depth", "path": "network_path"}
)
"""Predictors that are sizes, and their columns."""
_HELD = MappingProxyType(
    {
        "width": "width",
        "depth": "depth",
        "network_path": "mean path",
        "live_parameters": "live parameters",
        "given": "the loss",
    }
)
"""Columns that a test can hold fixed, in words."""
_NOISE = MappingProxyType({"seeds": "noise", "random directions": "direction_noise"})
"""Noises of a value, and the columns of their variances."""
_TOGETHER = 0.3
"""Rank correlation from which on a predictor is said to go together with another column."""


@dataclass(frozen=True, eq=False)
class UncorrectedTest:
    """A test before the correction: the sample, the keys of the groups that it was given, and the result.

    The table has the architectures that were compared, held are the columns that were held fixed.
    """

    statistic: Statistic
    predictor: Predictor
    effect_name: str
    sample: Sample
    table: pd.DataFrame
    used: Sequence[Any]
    result: TestResult
    primary: bool
    held: tuple[str, ...] = ()
    null: float = 0.0

    @property
    def statement(self) -> Statement:
        """The claim."""
        return statements()[self.statistic.claim]

    @property
    def given(self) -> tuple[str, ...]:
        """What was held fixed, in words."""
        return tuple(_HELD[column] for column in self.held)

    @property
    def bound(self) -> float | None:
        """An advantage below it is too small to matter; None for a claim of a direction."""
        if not (self.statement.absence and self.primary):
            return None
        return ERROR_BOUND if self.predictor == "adaptation" else RANK_BOUND

    @property
    def groups(self) -> pd.DataFrame:
        """Effect of each group, see :func:`~nas_lightning.report.samples.describe_groups`."""
        return describe_groups(self.table, self.used, self.result.group_effects)

    @property
    def sampled(self) -> bool:
        """Whether cells of a pool were compared."""
        return bool(self.table["kind"].eq("sampled").any())

    @property
    def has_data(self) -> bool:
        """Whether there is an effect: of enough base cells; for an exploratory test, within reach of 0.05."""
        if math.isnan(self.result.p_value):
            return False
        if self.predictor == "adaptation":
            return bool(self.groups["family"].nunique() >= FEWEST_CELLS)
        return self.primary or self.predictor == "original" or self.can_reach

    @property
    def can_reach(self) -> bool:
        """Whether some outcome has a small p-value; the interval of adapted cells decides without one."""
        return self.predictor == "adaptation" or self.result.smallest_p <= ALPHA

    def facts(self) -> dict[str, Any]:
        """What the sentences need to know of the architectures in the groups that have an effect."""
        pairs = zip(self.used, self.result.group_effects, strict=True)
        table = self.table
        table = table[table["group"].isin([group for group, effect in pairs if not math.isnan(effect)])]
        column = SIZES.get(self.predictor, "")
        return {
            "architectures": len(table[["family", "unit"]].drop_duplicates()),
            "families": list(dict.fromkeys(table["family"])),
            "data": list(dict.fromkeys(table["data"])),
            "rates": [f"{rate:g}" for rate in sorted(table["learning_rate"].dropna().unique())],
            "seeds": (int(table["seeds"].min()), int(table["seeds"].max())),
            "groups": table["group"].nunique(),
            "ends": _ends(table, column) if column and not self.held else [],
            "together": _together(table, column, self.held) if column else [],
            "sampled": self.sampled,
            "drowned": _drowned(table) if self.predictor == "kind" else [],
            "noise": {name: _share(table, column) for name, column in _NOISE.items()},
            "unknown": int((~table["regularization_known"].astype(bool)).sum()),
            "ratio": math.exp(self.result.effect),
        }

    def lacks(self) -> dict[str, Any]:
        """What the sentences need to know where there are too few data."""
        used = self.table[self.table["group"].isin(list(self.used))]
        table, column = self.table, SIZES.get(self.predictor, "")
        by_kind = [table[table["kind"] == kind]["unit"].nunique() for kind in ("connections", "operations")]
        of_predictor = used.groupby("group")[column] if column else None
        return {
            "empty": table.empty,
            "lacking": [_HELD[name] for name in (column, *self.held) if name and table[name].isna().all()],
            "architectures": len(used.drop_duplicates(["family", "unit"])),
            "smallest": self.result.smallest_p,
            "effectless": math.isnan(self.result.effect),
            "alike": of_predictor is not None and len(used) > 0 and of_predictor.nunique().max() == 1,
            "by_kind": by_kind,
            "cells": self.groups["family"].nunique(),
        }


def _ends(table: pd.DataFrame, column: str) -> list[tuple[float, float, float]]:
    """The largest and the smallest architectures: mean over groups of the value, ends of the predictor."""
    found = []
    for end in ("max", "min"):
        at_end = table[table[column] == table.groupby("group")[column].transform(end)]
        value = at_end.groupby("group")["value"].mean().mean()
        found.append((float(value), float(at_end[column].min()), float(at_end[column].max())))
    return found


def _together(table: pd.DataFrame, column: str, held: Sequence[str]) -> list[tuple[str, float]]:
    """What goes together with a predictor and is not held fixed, with the correlation of ranks in groups."""
    found = []
    for name in (*UNIT_COLUMNS, "given"):
        if name in (column, *held) or table[name].isna().all():
            continue
        ranks = table.groupby("group")[[column, name]].rank()
        ranks -= ranks.groupby(table["group"]).transform("mean")
        with np.errstate(invalid="ignore"):
            correlation = ranks[column].corr(ranks[name])
        if abs(correlation) >= _TOGETHER:
            found.append((_HELD[name], float(correlation)))
    return found


def _share(table: pd.DataFrame, noise: str) -> float:
    """A noise as a share of the spread between architectures, in standard deviations."""
    between = table.groupby("group")["value"].var(ddof=1).mean()
    share = table[noise].mean() / between if between > 0 else math.nan
    return math.sqrt(share) if share >= 0 else math.nan


def _drowned(table: pd.DataFrame) -> list[str]:
    """Kinds whose spread in some group is not above the noise of the seeds."""
    grouped = table.groupby(["group", "kind"])
    variance = grouped["value"].var(ddof=1)
    left = variance - grouped["noise"].mean().fillna(0.0)
    return sorted(set(left[left < NOISE_FLOOR * variance].index.get_level_values("kind")))
