"""The paper's claims, tested on results.

The rule of the verdicts. Every claim has primary statistics. The primary tests are those of width and of
small depth on them, each alone, that of connections against operations, and that of adapted against original
cells. Holm's method corrects their p-values together. A claim of a direction is

- *supported* if the 95 % interval lies above 0 and the corrected two-sided p-value is at most 0.05, where the
  effect is signed so that the claim predicts a positive one,
- *contradicted* if the interval lies below 0 and the corrected p-value is at most 0.05,
- *cannot decide* where no outcome of the same architectures could have a p-value of 0.05, be it because of
  Holm's correction: the study has too few of them,
- *undecided* otherwise: absence of evidence, not evidence of absence,
- without data (*no data*) where there is no effect to test.

Where ties leave no interval that can be trusted, the p-value and the sign of the effect decide. A test that
alone cannot reach 0.05 is no part of the correction (Tarone, Biometrics 46, 1990).

The claim that wide cells do not generalise better is one of absence, which no large p-value proves. It is
*supported* if the interval lies below a bound under which an advantage is too small to matter (0.2 in
Kendall's tau-b, 5 % in the ratio of errors), else *contradicted* if wide cells are better by the rule above.
The adapted cells are compared by base cell, and their verdict rests on the interval: it needs five base cells
(*no data* with fewer), since a spread that is estimated from fewer says little (with five, Student's t widens
the interval 1.6 times). *Contradicted* takes six: five have 32 changes of sign, so no p-value below 2/32.

All other tests are *exploratory*, or without data where they cannot reach 0.05: the mean path, every
predictor given the others, the rank of the original, other statistics. Their p-values are not corrected and
they decide nothing.

Rank tests compare variants alone. A search picks its cell because it trains well, so a searched original that
is wide would vouch for width by itself: with originals among their variants, "wider is better" came out of
28 % of simulated studies without any effect of width.

The claims and their statistics stand in ``claims.yaml``. Source of the claims: Shu, Wang and Cai, ICLR 2020,
sections 4.1, 4.2.1, 4.2.2 and 5.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

import numpy as np
import pandas as pd
import yaml

from nas_lightning.report.effects import NOISE_FLOOR, paired_difference, rank_association, spread_ratio
from nas_lightning.report.original import NULL as ORIGINAL_NULL
from nas_lightning.report.original import original_rank
from nas_lightning.report.paper import paper_table1
from nas_lightning.report.partial import partial_association
from nas_lightning.report.resampling import RESAMPLES, TestResult, holm
from nas_lightning.report.samples import (
    GROUP_COLUMNS,
    UNIT_COLUMNS,
    Sample,
    describe_groups,
    original_blocks,
    partial_blocks,
    rank_blocks,
    spread_blocks,
    take_sample,
)
from nas_lightning.report.words import listed, say

Verdict: TypeAlias = Literal[
    "supported", "contradicted", "undecided", "cannot decide", "no data", "exploratory"
]
Predictor: TypeAlias = Literal["width", "depth", "path", "original", "kind", "adaptation"]
Compare: TypeAlias = Literal["sizes", "kinds", "pairs", "census"]

ALPHA = 0.05
RANK_BOUND = 0.2
"""Kendall's tau-b under which an advantage does not matter. Without ties, the wider of two cells then wins
fewer than 60 in 100 times; with ties it can be more of the pairs that are not tied."""
ERROR_BOUND = math.log(1.05)
"""Logarithm of a ratio of errors under which an advantage does not matter: 5 %."""
FEWEST_CELLS = 5
"""Base cells that the comparison of adapted with original cells needs."""
EXPLORATORY_RESAMPLES = 1999
"""Most random permutations and bootstrap draws of an exploratory test: it is not corrected."""
RANKED = ("connections", "adapted", "sampled")
"""Kinds that rank tests compare: variants with other connections, and cells drawn from a space."""
PREDICTORS: Mapping[Predictor, str] = MappingProxyType(
    {
        "width": "width",
        "depth": "small depth",
        "path": "short mean path",
        "original": "the original among its variants",
        "kind": "connections against operations",
        "adaptation": "adapted against original cells",
    }
)
"""What a statistic is compared with, in words."""
_SIZES: Mapping[Predictor, str] = MappingProxyType(
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
"""From so large a rank correlation on, a predictor is said to go together with another column."""


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


@dataclass(frozen=True, eq=False)
class Claim:
    """A claim of the paper and what the data say to it.

    Attributes:
        statement: The claim.
        statistic: What was compared.
        predictor: With what: ``"width"``, ``"depth"`` (small depth predicts), ``"path"`` (a short one
            predicts), ``"original"`` (its rank among its variants), ``"kind"`` (connections against
            operations) or ``"adaptation"`` (adapted against original cells).
        given: What was held fixed, in words.
        primary: Whether the test decides the claim; the others are exploratory.
        verdict: What the data say, by the module's rule.
        effect: Above ``null`` where the claim (for generalisation: its opposite) says; NaN without data.
        effect_name: What the effect is.
        null: The effect that means none.
        low: Lower end of the 95 % interval; NaN where ties leave none.
        high: Upper end.
        bound: An advantage below it is too small to matter; None for a claim of a direction.
        p_value: Two-sided, uncorrected.
        p_adjusted: The p-value after Holm's correction; NaN for an exploratory test and one that alone cannot
            reach 0.05.
        test: How the p-value was found.
        groups: Effect of each group of architectures with the same base cell and settings, see
            :func:`~nas_lightning.report.samples.describe_groups`.
        explanation: What was found, how large, how sure, on what, and what it cannot show.
        sampled: Whether cells of a pool were compared, which differ in their operations as well.
        smallest_p: The smallest p-value, not corrected, that the same architectures allow.
    """

    statement: Statement
    statistic: Statistic
    predictor: Predictor
    given: tuple[str, ...]
    primary: bool
    verdict: Verdict
    effect: float
    effect_name: str
    null: float
    low: float
    high: float
    bound: float | None
    p_value: float
    p_adjusted: float
    test: str
    groups: pd.DataFrame
    explanation: str
    sampled: bool = False
    smallest_p: float = math.nan

    @property
    def key(self) -> str:
        """Name of the claim."""
        return self.statement.key

    @property
    def compared(self) -> str:
        """With what the statistic was compared, in words, and what was held fixed."""
        return PREDICTORS[self.predictor] + (f" given {listed(self.given)}" if self.given else "")


@dataclass(frozen=True, eq=False)
class _Trial:
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
        return statements()[self.statistic.claim]

    @property
    def given(self) -> tuple[str, ...]:
        return tuple(_HELD[column] for column in self.held)

    @property
    def bound(self) -> float | None:
        if not (self.statement.absence and self.primary):
            return None
        return ERROR_BOUND if self.predictor == "adaptation" else RANK_BOUND

    @property
    def groups(self) -> pd.DataFrame:
        return describe_groups(self.table, self.used, self.result.group_effects)

    @property
    def sampled(self) -> bool:
        return bool(self.table["kind"].eq("sampled").any())

    @property
    def has_data(self) -> bool:
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
        column = _SIZES.get(self.predictor, "")
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
        table, column = self.table, _SIZES.get(self.predictor, "")
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


def examine_claims(runs: pd.DataFrame, *, resamples: int = RESAMPLES) -> list[Claim]:
    """Test every claim on every statistic of it.

    Convergence, landscape and gradient variance are tested on runs without regularisation, as the paper's
    section 4, generalisation on runs with it and without it apart. Where it is unknown whether a run was
    regularised, it counts among those without, and the explanation says so. Runs without a value are left out
    and counted; runs that never reached an accuracy rank last in the epochs they needed.

    Args:
        runs: Results.runs.
        resamples: Number of random permutations and of bootstrap draws of each primary test, and most of an
            exploratory one.

    Returns:
        The claims in the paper's order, a claim's primary tests before its others.
    """
    regularized = runs["regularized"].eq(True).fillna(False) if len(runs) else pd.Series(dtype=bool)
    runs_of = {"plain": runs[~regularized.astype(bool)], "regularized": runs[regularized.astype(bool)]}
    trials: list[_Trial] = []
    for one in _available(runs):
        few = min(resamples, EXPLORATORY_RESAMPLES)
        if one.compare == "sizes":
            trials += _rank_trials(runs_of[one.runs], one, resamples if one.primary else few, few)
        elif one.compare == "kinds":
            trials.append(_spread_trial(runs_of[one.runs], one, resamples if one.primary else few))
        else:
            sample = take_sample(runs_of[one.runs], one.column, ("original", "adapted"), logarithm=True)
            trials.append(_paired(sample, one, resamples))
    order = list(statements())
    trials.sort(key=lambda trial: (order.index(trial.statistic.claim), not trial.primary))
    return _judge(trials)


def examine_paper_table1() -> Claim:
    """Test the claim about generalisation on the errors that table 1 prints.

    They are 15 pairs of five base cells, one run each.

    Returns:
        The claim, with the paper's own numbers as data.
    """
    rows = [
        {
            "family": entry.family,
            "data": entry.data,
            "learning_rate": 0.025,
            "kind": entry.cell,
            "unit": f"{entry.family}:{entry.cell}",
            "architecture": entry.family,
            "value": math.log(entry.error_percent),
            "seeds": 1,
            "noise": math.nan,
            "direction_noise": math.nan,
            "regularization_known": True,
            "group": f"{entry.family} {entry.data}",
        }
        for entry in paper_table1()
    ]
    (statistic,) = statistics("pairs")
    return _judge([_paired(Sample(pd.DataFrame(rows), 0, 0), statistic)])[0]


def _available(runs: pd.DataFrame) -> list[Statistic]:
    """The statistics; a fallback takes the place of one that no run has, and leaves its own."""
    found = [one for compare in ("sizes", "kinds", "pairs") for one in statistics(compare)]
    for index, one in enumerate(found):
        if not one.fallback or (one.column in runs and runs[one.column].notna().any()):
            continue
        other = next(
            each
            for each in found
            if (each.claim, each.compare, each.runs, each.column)
            == (one.claim, one.compare, one.runs, one.fallback)
        )
        if other.column in runs and runs[other.column].notna().any():
            found[found.index(other)] = replace(other, claim="")
            found[index] = replace(other, primary=True, stands_for=one.name)
    return [one for one in found if one.claim]


def _rank_trials(runs: pd.DataFrame, statistic: Statistic, resamples: int, few: int) -> list[_Trial]:
    """Tests of width and depth; of a primary statistic also of the path, given others, and the original's."""
    kinds = (*RANKED, "original") if statistic.primary else RANKED
    sample = take_sample(runs, statistic.column, kinds, given=statistic.given, censored=statistic.censored)
    table, sign = sample.of_kinds(RANKED), 1 if statistic.larger else -1
    given = ("given",) if statistic.given else ()
    primary, about = statistic.primary, (sample, table, statistic)
    trials = [_rank_trial(*about, name, given, resamples, primary) for name in ("width", "depth")]
    if not primary:
        return trials
    trials.append(_rank_trial(*about, "path", given, few))
    for predictor, column in _SIZES.items():
        others = tuple(name for name in UNIT_COLUMNS if name != column and table[name].notna().any())
        if others:
            trials.append(_rank_trial(*about, predictor, (*others, *given), few))
    blocks, groups = original_blocks(sample.table, sign)
    result = original_rank(blocks, resamples=few)
    trial = _Trial(statistic, "original", "mid-percentile", sample, sample.table, groups, result, False)
    return [*trials, replace(trial, null=ORIGINAL_NULL)]


def _rank_trial(
    sample: Sample,
    table: pd.DataFrame,
    statistic: Statistic,
    predictor: Predictor,
    held: tuple[str, ...],
    resamples: int,
    primary: bool = False,
) -> _Trial:
    # A small depth is what the claim is about, and the statistic's sign says where it leads.
    sign = (1 if statistic.larger else -1) * (1 if predictor == "width" else -1)
    column = _SIZES[predictor]
    if held:
        partial, groups = partial_blocks(table, column, held, sign)
        result, name = partial_association(partial, resamples=resamples), "partial rank correlation"
    else:
        blocks, groups = rank_blocks(table, column, sign)
        result, name = rank_association(blocks, resamples=resamples), "Kendall's tau-b"
    return _Trial(statistic, predictor, name, sample, table, groups, result, primary, held)


def _spread_trial(runs: pd.DataFrame, statistic: Statistic, resamples: int) -> _Trial:
    sample = take_sample(runs, statistic.column, ("connections", "operations"), logarithm=True)
    blocks, groups = spread_blocks(sample.table)
    result = spread_ratio(blocks, resamples=resamples)
    name = "log ratio of standard deviations"
    return _Trial(statistic, "kind", name, sample, sample.table, groups, result, statistic.primary)


def _paired(sample: Sample, statistic: Statistic, resamples: int = RESAMPLES) -> _Trial:
    wide = sample.table.pivot_table(index="group", columns="kind", values="value", sort=False)
    wide = wide.reindex(columns=["original", "adapted"]).dropna()
    family = sample.table.groupby("group")["family"].first().reindex(wide.index)
    cells = [pairs for _, pairs in (wide["original"] - wide["adapted"]).groupby(family, sort=False)]
    result = paired_difference([pairs.to_numpy(float) for pairs in cells], resamples=resamples)
    groups = [group for pairs in cells for group in pairs.index]
    name = "log ratio of errors"
    return _Trial(statistic, "adaptation", name, sample, sample.table, groups, result, statistic.primary)


def _judge(trials: Sequence[_Trial]) -> list[Claim]:
    """Correct the p-values of the primary tests, and give the verdicts.

    Holm's method is monotone in every p-value, so that of the smallest p-values gives the smallest corrected
    ones.
    """
    chosen = [trial.primary and trial.has_data and trial.can_reach for trial in trials]
    adjusted, smallest = (
        holm([p if use else math.nan for p, use in zip(p_values, chosen, strict=True)])
        for p_values in (
            [trial.result.p_value for trial in trials],
            [trial.result.smallest_p for trial in trials],
        )
    )
    return [_claim(*about) for about in zip(trials, adjusted, smallest, strict=True)]


def _claim(trial: _Trial, p_adjusted: float, smallest: float) -> Claim:
    """The claim; smallest: the least that the corrected p-value can be, NaN where there is none."""
    result, verdict = trial.result, _verdict(trial, p_adjusted, smallest)
    about = {
        "statistic": trial.statistic,
        "predictor": trial.predictor,
        "given": trial.given,
        "sample": trial.sample,
    }
    if verdict == "no data":
        explanation = say("lack", **about, facts=trial.lacks())
        none = math.nan
        result = replace(result, effect=none, low=none, high=none, p_value=none, smallest_p=none, test="")
    else:
        explanation = say(
            "explanation",
            statement=trial.statement,
            **about,
            verdict=verdict,
            effect_name=trial.effect_name,
            result=result,
            p_adjusted=p_adjusted,
            smallest=smallest,
            pairs=len(trial.used),
            facts=trial.facts(),
        )
    return Claim(
        trial.statement,
        trial.statistic,
        trial.predictor,
        trial.given,
        trial.primary,
        verdict,
        result.effect,
        trial.effect_name,
        trial.null,
        result.low,
        result.high,
        trial.bound,
        result.p_value,
        p_adjusted,
        result.test,
        trial.groups[GROUP_COLUMNS],
        explanation,
        trial.sampled,
        result.smallest_p,
    )


def _verdict(trial: _Trial, p_adjusted: float, smallest: float) -> Verdict:
    """The rule of the module."""
    result, sure = trial.result, p_adjusted <= ALPHA
    if not trial.has_data:
        return "no data"
    if not trial.primary:
        return "exploratory"
    if not trial.can_reach:
        return "cannot decide"
    low, high = (result.effect, result.effect) if result.no_interval else (result.low, result.high)
    above, below = sure and low > 0, sure and high < 0
    if trial.bound is not None:
        if below or (not result.no_interval and high < trial.bound):
            return "supported"
        return "contradicted" if above else "undecided"
    if above or below:
        return "supported" if above else "contradicted"
    return "undecided" if smallest <= ALPHA else "cannot decide"


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
