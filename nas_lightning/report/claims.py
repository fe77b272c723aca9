"""The paper's claims, tested on results.

The rule of the verdicts. Every claim has one primary measure; its tests form one family of hypotheses, all
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

Source of the claims: Shu, Wang and Cai, ICLR 2020, sections 4.1, 4.2.1, 4.2.2 and 5.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np
import pandas as pd

from nas_lightning.report.claim_words import Evidence, explain, lack
from nas_lightning.report.measures import MEASURES, PAIRED_ERROR, SPREADS, Measure
from nas_lightning.report.paper import paper_statements, paper_table1
from nas_lightning.report.resampling import RESAMPLES, TestResult, holm
from nas_lightning.report.samples import (
    GROUP_COLUMNS,
    Sample,
    describe_groups,
    rank_blocks,
    spread_blocks,
    take_sample,
)
from nas_lightning.report.statistics import paired_difference, rank_association, spread_ratio

Verdict: TypeAlias = Literal["supported", "contradicted", "undecided", "no data"]

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


@dataclass(frozen=True, eq=False)
class Claim:
    """A claim of the paper and what the data say to it.

    Attributes:
        key: Name of the claim, as in :func:`~nas_lightning.report.paper.paper_statements`.
        statement: The claim in a sentence.
        section: Where the paper makes it.
        measure: Column of the results that measures it.
        predictor: ``"width"``, ``"depth"`` (small depth predicts), ``"kind"`` (connections against
            operations) or ``"adaptation"`` (adapted against original cells).
        verdict: What the data say, by the module's rule.
        effect: Positive where the claim (for generalisation: its opposite) says; NaN without data.
        effect_name: What the effect is.
        low: Lower end of the 95 % interval.
        high: Upper end.
        p_value: Two-sided, uncorrected.
        test: How the p-value was found.
        groups: Effect of each group of architectures with the same base cell and settings, see
            :func:`~nas_lightning.report.samples.describe_groups`.
        explanation: One sentence for print.
        p_adjusted: The p-value after Holm's correction.
        primary: Whether this is the claim's primary measure.
        measure_name: The measure in words.
    """

    key: str
    statement: str
    section: str
    measure: str
    predictor: str
    verdict: Verdict
    effect: float
    effect_name: str
    low: float
    high: float
    p_value: float
    test: str
    groups: pd.DataFrame
    explanation: str
    p_adjusted: float
    primary: bool
    measure_name: str


@dataclass(frozen=True, eq=False)
class _Trial:
    """A test that was made, before the correction."""

    measure: Measure
    predictor: str
    effect_name: str
    result: TestResult
    evidence: Evidence
    bound: float | None


def examine_claims(runs: pd.DataFrame, *, resamples: int = RESAMPLES) -> list[Claim]:
    """Test every claim on every measure of it.

    Convergence, landscape and gradient variance are tested on runs without regularisation, as the paper's
    section 4. Runs without a value of a measure are left out and counted; runs that never reached an
    accuracy rank last in the epochs they needed.

    Args:
        runs: Results.runs.
        resamples: Number of random permutations and of bootstrap draws of each test.

    Returns:
        The claims in the paper's order, a claim's primary tests before its others.
    """
    with_regularization = runs["regularized"].eq(True) if len(runs) else pd.Series(dtype=bool)
    plain, regularized = runs[~with_regularization], runs[with_regularization]
    trials = []
    for measure in MEASURES:
        trials += [
            _rank_trial(runs if measure.key == "generalization" else plain, measure, predictor, resamples)
            for predictor in ("width", "depth")
        ]
    trials += [_spread_trial(plain, measure, resamples) for measure in SPREADS]
    trials.append(_paired_trial(regularized, resamples))
    order = list(paper_statements())
    trials.sort(key=lambda trial: (order.index(trial.measure.key), not trial.measure.primary))
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
    return _judge([_paired(Sample(pd.DataFrame(rows), 0, 0))])[0]


def _rank_trial(runs: pd.DataFrame, measure: Measure, predictor: str, resamples: int) -> _Trial:
    sample = take_sample(runs, measure.column, WIRINGS, censored=measure.censored)
    # A small depth is what the claim is about, and the measure's sign says where it leads.
    sign = (1 if measure.larger else -1) * (1 if predictor == "width" else -1)
    blocks, groups = rank_blocks(sample.table, predictor, sign)
    result = rank_association(blocks, resamples=resamples)
    described = describe_groups(sample.table, groups, result.group_effects)
    evidence = Evidence(sample, groups, described)
    bound = RANK_BOUND if measure.key == "generalization" else None
    return _Trial(measure, predictor, "Kendall's tau-b", result, evidence, bound)


def _spread_trial(runs: pd.DataFrame, measure: Measure, resamples: int) -> _Trial:
    sample = take_sample(runs, measure.column, ("connections", "operations"), transform=_log)
    blocks, groups = spread_blocks(sample.table)
    result = spread_ratio(blocks, resamples=resamples)
    described = describe_groups(sample.table, groups, result.group_effects)
    evidence = Evidence(sample, groups, described)
    return _Trial(measure, "kind", "log ratio of standard deviations", result, evidence, None)


def _paired_trial(runs: pd.DataFrame, resamples: int) -> _Trial:
    sample = take_sample(runs, PAIRED_ERROR.column, ("original", "adapted"), transform=_log)
    return _paired(sample, resamples)


def _paired(sample: Sample, resamples: int = RESAMPLES) -> _Trial:
    wide = sample.table.pivot_table(index="group", columns="kind", values="value", sort=False)
    wide = wide.reindex(columns=["original", "adapted"]).dropna()
    family = sample.table.groupby("group")["family"].first().reindex(wide.index)
    cells = [pairs for _, pairs in (wide["original"] - wide["adapted"]).groupby(family, sort=False)]
    result = paired_difference([pairs.to_numpy(float) for pairs in cells], resamples=resamples)
    groups = [group for pairs in cells for group in pairs.index]
    described = describe_groups(sample.table, groups, result.group_effects)
    evidence = Evidence(sample, groups, described)
    return _Trial(PAIRED_ERROR, "adaptation", "log ratio of errors", result, evidence, ERROR_BOUND)


def _judge(trials: Sequence[_Trial]) -> list[Claim]:
    """Correct the p-values, primary and other tests apart, and give the verdicts."""
    enough = [_is_enough(trial) for trial in trials]
    adjusted = [math.nan] * len(trials)
    for primary in (True, False):
        chosen = [
            index for index, trial in enumerate(trials) if enough[index] and trial.measure.primary == primary
        ]
        corrected = holm([trials[index].result.p_value for index in chosen])
        for index, value in zip(chosen, corrected, strict=True):
            adjusted[index] = value
    return [_claim(trial, use, p) for trial, use, p in zip(trials, enough, adjusted, strict=True)]


def _is_enough(trial: _Trial) -> bool:
    if math.isnan(trial.result.p_value):
        return False
    if trial.predictor == "adaptation":
        return trial.evidence.groups["family"].nunique() >= FEWEST_CELLS
    return 2 / trial.result.arrangements <= ALPHA


def _claim(trial: _Trial, enough: bool, p_adjusted: float) -> Claim:
    statement = paper_statements()[trial.measure.key]
    result = trial.result
    if not enough:
        verdict: Verdict = "no data"
        explanation = lack(trial.measure, trial.predictor, result, trial.evidence)
        result = replace(result, effect=math.nan, low=math.nan, high=math.nan, p_value=math.nan, test="")
    else:
        verdict = _verdict(result, p_adjusted, trial.bound)
        explanation = explain(
            trial.measure, trial.predictor, trial.effect_name, result, p_adjusted, verdict, trial.evidence
        )
    return Claim(
        key=statement.key,
        statement=statement.text,
        section=statement.section,
        measure=trial.measure.column,
        predictor=trial.predictor,
        verdict=verdict,
        effect=result.effect,
        effect_name=trial.effect_name,
        low=result.low,
        high=result.high,
        p_value=result.p_value,
        test=result.test,
        groups=trial.evidence.groups[GROUP_COLUMNS],
        explanation=explanation,
        p_adjusted=p_adjusted,
        primary=trial.measure.primary,
        measure_name=trial.measure.name,
    )


def _verdict(result: TestResult, p_adjusted: float, bound: float | None) -> Verdict:
    """The rule of the module; ``bound`` makes it that of a claim of absence."""
    sure = p_adjusted <= ALPHA
    if bound is not None:
        if result.high < bound:
            return "supported"
        return "contradicted" if sure and result.low > 0 else "undecided"
    if sure and result.low > 0:
        return "supported"
    return "contradicted" if sure and result.high < 0 else "undecided"


def _log(values: pd.Series) -> pd.Series:
    """Logarithm; NaN for what is not positive."""
    return pd.Series(np.log(values.where(values > 0)), index=values.index)
