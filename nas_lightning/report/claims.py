"""The paper's claims, tested on results.

The rule of the verdicts. Every claim has one primary statistic; its tests form one family of hypotheses, all
other tests a second one, and p-values are corrected within each by Holm's method. A claim of a direction is

- *supported* if the 95 % interval lies above 0 and the corrected two-sided p-value is at most 0.05, where the
  effect is signed so that the claim predicts a positive one,
- *contradicted* if the interval lies below 0 and the corrected p-value is at most 0.05,
- *undecided* otherwise: absence of evidence, not evidence of absence,
- without data (*no data*) with fewer than 40 arrangements of the architectures: a two-sided p-value of 0.05
  takes 40 where each arrangement has a mirror image.

The claim that wide cells do not generalise better is one of absence, which no large p-value proves. It is
*supported* if the interval lies below a bound under which an advantage is too small to matter (0.2 in
Kendall's tau-b, 5 % in the ratio of errors), else *contradicted* if wide cells are better by the rule above.
The adapted cells are compared by base cell, and their verdict rests on the interval: it needs five base cells
(*no data* with fewer), since a spread that is estimated from fewer says little (with five, Student's t widens
the interval 1.6 times). *Contradicted* takes six: five have 32 changes of sign, so no p-value below 2/32.

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

import pandas as pd
import yaml

from nas_lightning.report.effects import (
    NOISE_FLOOR,
    RESAMPLES,
    TestResult,
    holm,
    paired_difference,
    rank_association,
    spread_ratio,
)
from nas_lightning.report.paper import paper_table1
from nas_lightning.report.samples import (
    GROUP_COLUMNS,
    Sample,
    describe_groups,
    rank_blocks,
    spread_blocks,
    take_sample,
)
from nas_lightning.report.words import say

Verdict: TypeAlias = Literal["supported", "contradicted", "undecided", "no data"]
Predictor: TypeAlias = Literal["width", "depth", "kind", "adaptation"]
Compare: TypeAlias = Literal["sizes", "kinds", "pairs"]

ALPHA = 0.05
RANK_BOUND = 0.2
"""Kendall's tau-b under which an advantage does not matter. Without ties, the wider of two cells then wins
fewer than 60 in 100 times; with ties it can be more of the pairs that are not tied."""
ERROR_BOUND = math.log(1.05)
"""Logarithm of a ratio of errors under which an advantage does not matter: 5 %."""
FEWEST_CELLS = 5
"""Base cells that the comparison of adapted with original cells needs."""
WIRINGS = ("original", "connections", "adapted")
"""Kinds that share a base cell's operations and differ in connections."""
PREDICTORS: Mapping[Predictor, str] = MappingProxyType(
    {
        "width": "width",
        "depth": "small depth",
        "kind": "connections against operations",
        "adaptation": "adapted against original cells",
    }
)
"""What a statistic is compared with, in words."""


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
    reached".
    """

    claim: str
    column: str
    name: str
    unit: str = ""
    larger: bool = False
    primary: bool = False
    censored: bool = False
    compare: Compare = "sizes"


@dataclass(frozen=True, eq=False)
class Claim:
    """A claim of the paper and what the data say to it.

    Attributes:
        statement: The claim.
        statistic: What was compared.
        predictor: With what: ``"width"``, ``"depth"`` (small depth predicts), ``"kind"`` (connections against
            operations) or ``"adaptation"`` (adapted against original cells).
        verdict: What the data say, by the module's rule.
        effect: Positive where the claim (for generalisation: its opposite) says; NaN without data.
        effect_name: What the effect is.
        low: Lower end of the 95 % interval.
        high: Upper end.
        bound: An advantage below it is too small to matter; None for a claim of a direction.
        p_value: Two-sided, uncorrected.
        p_adjusted: The p-value after Holm's correction.
        test: How the p-value was found.
        groups: Effect of each group of architectures with the same base cell and settings, see
            :func:`~nas_lightning.report.samples.describe_groups`.
        explanation: What was found, how large, how sure, on what, and what it cannot show.
    """

    statement: Statement
    statistic: Statistic
    predictor: Predictor
    verdict: Verdict
    effect: float
    effect_name: str
    low: float
    high: float
    bound: float | None
    p_value: float
    p_adjusted: float
    test: str
    groups: pd.DataFrame
    explanation: str

    @property
    def key(self) -> str:
        """Name of the claim."""
        return self.statement.key

    @property
    def primary(self) -> bool:
        """Whether this is a test of the claim's primary statistic."""
        return self.statistic.primary


@dataclass(frozen=True, eq=False)
class _Trial:
    """A test before the correction: the sample, the keys of the groups that it was given, and the result."""

    statistic: Statistic
    predictor: Predictor
    effect_name: str
    sample: Sample
    used: Sequence[Any]
    result: TestResult

    @property
    def statement(self) -> Statement:
        return statements()[self.statistic.claim]

    @property
    def bound(self) -> float | None:
        if not self.statement.absence:
            return None
        return ERROR_BOUND if self.predictor == "adaptation" else RANK_BOUND

    @property
    def groups(self) -> pd.DataFrame:
        return describe_groups(self.sample.table, self.used, self.result.group_effects)

    @property
    def is_enough(self) -> bool:
        if math.isnan(self.result.p_value):
            return False
        if self.predictor == "adaptation":
            return bool(self.groups["family"].nunique() >= FEWEST_CELLS)
        return 2 / self.result.arrangements <= ALPHA

    def facts(self) -> dict[str, Any]:
        """What the sentences need to know of the architectures in the groups that have an effect."""
        table = self.sample.table
        pairs = zip(self.used, self.result.group_effects, strict=True)
        table = table[table["group"].isin([group for group, effect in pairs if not math.isnan(effect)])]
        return {
            "architectures": len(table[["family", "unit"]].drop_duplicates()),
            "families": list(dict.fromkeys(table["family"])),
            "data": list(dict.fromkeys(table["data"])),
            "rates": [f"{rate:g}" for rate in sorted(table["learning_rate"].dropna().unique())],
            "seeds": (int(table["seeds"].min()), int(table["seeds"].max())),
            "groups": table["group"].nunique(),
            "ends": _ends(table, self.predictor) if self.predictor in ("width", "depth") else [],
            "drowned": _drowned(table) if self.predictor == "kind" else [],
            "ratio": math.exp(self.result.effect),
        }

    def lacks(self) -> dict[str, Any]:
        """What the sentences need to know where there are too few data."""
        table = self.sample.table
        used = table[table["group"].isin(list(self.used))]
        by_kind = [table[table["kind"] == kind]["unit"].nunique() for kind in ("connections", "operations")]
        of_predictor = used.groupby("group")[self.predictor] if self.predictor in used else None
        return {
            "empty": table.empty,
            "architectures": len(used.drop_duplicates(["family", "unit"])),
            "arrangements": self.result.arrangements,
            "effectless": math.isnan(self.result.effect),
            "alike": of_predictor is not None and len(used) > 0 and of_predictor.nunique().max() == 1,
            "by_kind": by_kind,
            "cells": self.groups["family"].nunique(),
        }


def statements() -> Mapping[str, Statement]:
    """The claims, by key: convergence, landscape, gradient_variance, operations, generalization."""
    return _claims()[0]


def statistics(compare: Compare) -> list[Statistic]:
    """What claims compare by sizes (width and depth), by kinds of variants, or by pairs."""
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
    section 4. Runs without a value are left out and counted; runs that never reached an accuracy rank last in
    the epochs they needed.

    Args:
        runs: Results.runs.
        resamples: Number of random permutations and of bootstrap draws of each test.

    Returns:
        The claims in the paper's order, a claim's primary tests before its others.
    """
    with_regularization = runs["regularized"].eq(True) if len(runs) else pd.Series(dtype=bool)
    plain, regularized = runs[~with_regularization], runs[with_regularization]
    predictors: tuple[Predictor, Predictor] = ("width", "depth")
    trials = [
        _rank_trial(runs if statements()[one.claim].absence else plain, one, predictor, resamples)
        for one in statistics("sizes")
        for predictor in predictors
    ]
    trials += [_spread_trial(plain, one, resamples) for one in statistics("kinds")]
    for one in statistics("pairs"):
        sample = take_sample(regularized, one.column, ("original", "adapted"), logarithm=True)
        trials.append(_paired(sample, one, resamples))
    order = list(statements())
    trials.sort(key=lambda trial: (order.index(trial.statistic.claim), not trial.statistic.primary))
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
            "group": f"{entry.family} {entry.data}",
        }
        for entry in paper_table1()
    ]
    (statistic,) = statistics("pairs")
    return _judge([_paired(Sample(pd.DataFrame(rows), 0, 0), statistic)])[0]


def _rank_trial(runs: pd.DataFrame, statistic: Statistic, predictor: Predictor, resamples: int) -> _Trial:
    sample = take_sample(runs, statistic.column, WIRINGS, censored=statistic.censored)
    # A small depth is what the claim is about, and the statistic's sign says where it leads.
    sign = (1 if statistic.larger else -1) * (1 if predictor == "width" else -1)
    blocks, groups = rank_blocks(sample.table, predictor, sign)
    result = rank_association(blocks, resamples=resamples)
    return _Trial(statistic, predictor, "Kendall's tau-b", sample, groups, result)


def _spread_trial(runs: pd.DataFrame, statistic: Statistic, resamples: int) -> _Trial:
    sample = take_sample(runs, statistic.column, ("connections", "operations"), logarithm=True)
    blocks, groups = spread_blocks(sample.table)
    result = spread_ratio(blocks, resamples=resamples)
    return _Trial(statistic, "kind", "log ratio of standard deviations", sample, groups, result)


def _paired(sample: Sample, statistic: Statistic, resamples: int = RESAMPLES) -> _Trial:
    wide = sample.table.pivot_table(index="group", columns="kind", values="value", sort=False)
    wide = wide.reindex(columns=["original", "adapted"]).dropna()
    family = sample.table.groupby("group")["family"].first().reindex(wide.index)
    cells = [pairs for _, pairs in (wide["original"] - wide["adapted"]).groupby(family, sort=False)]
    result = paired_difference([pairs.to_numpy(float) for pairs in cells], resamples=resamples)
    groups = [group for pairs in cells for group in pairs.index]
    return _Trial(statistic, "adaptation", "log ratio of errors", sample, groups, result)


def _judge(trials: Sequence[_Trial]) -> list[Claim]:
    """Correct the p-values, primary and other tests apart, and give the verdicts."""
    adjusted = [math.nan] * len(trials)
    for primary in (True, False):
        chosen = [
            index
            for index, trial in enumerate(trials)
            if trial.is_enough and trial.statistic.primary == primary
        ]
        corrected = holm([trials[index].result.p_value for index in chosen])
        for index, value in zip(chosen, corrected, strict=True):
            adjusted[index] = value
    return [_claim(trial, p) for trial, p in zip(trials, adjusted, strict=True)]


def _claim(trial: _Trial, p_adjusted: float) -> Claim:
    result, verdict = trial.result, _verdict(trial, p_adjusted)
    about = {
        "statement": trial.statement,
        "statistic": trial.statistic,
        "predictor": trial.predictor,
        "sample": trial.sample,
    }
    if verdict == "no data":
        explanation = say("lack", **about, facts=trial.lacks())
        result = replace(result, effect=math.nan, low=math.nan, high=math.nan, p_value=math.nan, test="")
    else:
        explanation = say(
            "explanation",
            **about,
            verdict=verdict,
            effect_name=trial.effect_name,
            result=result,
            p_adjusted=p_adjusted,
            pairs=len(trial.used),
            facts=trial.facts(),
        )
    return Claim(
        trial.statement,
        trial.statistic,
        trial.predictor,
        verdict,
        result.effect,
        trial.effect_name,
        result.low,
        result.high,
        trial.bound,
        result.p_value,
        p_adjusted,
        result.test,
        trial.groups[GROUP_COLUMNS],
        explanation,
    )


def _verdict(trial: _Trial, p_adjusted: float) -> Verdict:
    """The rule of the module."""
    result, sure = trial.result, p_adjusted <= ALPHA
    if not trial.is_enough:
        return "no data"
    if trial.bound is not None:
        if result.high < trial.bound:
            return "supported"
        return "contradicted" if sure and result.low > 0 else "undecided"
    if sure and result.low > 0:
        return "supported"
    return "contradicted" if sure and result.high < 0 else "undecided"


def _ends(table: pd.DataFrame, predictor: str) -> list[tuple[float, float, float]]:
    """The largest and the smallest architectures: mean over groups of the value, ends of the predictor."""
    found = []
    for end in ("max", "min"):
        at_end = table[table[predictor] == table.groupby("group")[predictor].transform(end)]
        value = at_end.groupby("group")["value"].mean().mean()
        found.append((float(value), float(at_end[predictor].min()), float(at_end[predictor].max())))
    return found


def _drowned(table: pd.DataFrame) -> list[str]:
    """Kinds whose spread in some group is not above the noise of the seeds."""
    grouped = table.groupby(["group", "kind"])
    variance = grouped["value"].var(ddof=1)
    left = variance - grouped["noise"].mean().fillna(0.0)
    return sorted(set(left[left < NOISE_FLOOR * variance].index.get_level_values("kind")))
