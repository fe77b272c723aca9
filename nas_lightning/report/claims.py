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
from types import MappingProxyType
from typing import Literal, TypeAlias

import pandas as pd

from nas_lightning.report.effects import paired_difference, rank_association, spread_ratio
from nas_lightning.report.original import NULL as ORIGINAL_NULL
from nas_lightning.report.original import original_rank
from nas_lightning.report.paper import paper_table1
from nas_lightning.report.partial import partial_association
from nas_lightning.report.resampling import RESAMPLES, holm
from nas_lightning.report.samples import (
    GROUP_COLUMNS,
    UNIT_COLUMNS,
    Sample,
    original_blocks,
    partial_blocks,
    rank_blocks,
    spread_blocks,
    take_sample,
)
from nas_lightning.report.statements import Statement, Statistic, statements, statistics
from nas_lightning.report.uncorrected import ALPHA, SIZES, Predictor, UncorrectedTest
from nas_lightning.report.words import listed, say

Verdict: TypeAlias = Literal[
    "supported", "contradicted", "undecided", "cannot decide", "no data", "exploratory"
]

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
    tests: list[UncorrectedTest] = []
    for one in _available(runs):
        few = min(resamples, EXPLORATORY_RESAMPLES)
        if one.compare == "sizes":
            tests += _rank_tests(runs_of[one.runs], one, resamples if one.primary else few, few)
        elif one.compare == "kinds":
            tests.append(_spread_test(runs_of[one.runs], one, resamples if one.primary else few))
        else:
            sample = take_sample(runs_of[one.runs], one.column, ("original", "adapted"), logarithm=True)
            tests.append(_paired(sample, one, resamples))
    order = list(statements())
    tests.sort(key=lambda test: (order.index(test.statistic.claim), not test.primary))
    return _judge(tests)


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


def _rank_tests(runs: pd.DataFrame, statistic: Statistic, resamples: int, few: int) -> list[UncorrectedTest]:
    """Tests of width and depth; of a primary statistic also of the path, given others, and the original's."""
    kinds = (*RANKED, "original") if statistic.primary else RANKED
    sample = take_sample(runs, statistic.column, kinds, given=statistic.given, censored=statistic.censored)
    table, sign = sample.of_kinds(RANKED), 1 if statistic.larger else -1
    given = ("given",) if statistic.given else ()
    primary, about = statistic.primary, (sample, table, statistic)
    tests = [_rank_test(*about, name, given, resamples, primary) for name in ("width", "depth")]
    if not primary:
        return tests
    tests.append(_rank_test(*about, "path", given, few))
    for predictor, column in SIZES.items():
        others = tuple(name for name in UNIT_COLUMNS if name != column and table[name].notna().any())
        if others:
            tests.append(_rank_test(*about, predictor, (*others, *given), few))
    blocks, groups = original_blocks(sample.table, sign)
    result = original_rank(blocks, resamples=few)
    test = UncorrectedTest(
        statistic, "original", "mid-percentile", sample, sample.table, groups, result, False
    )
    return [*tests, replace(test, null=ORIGINAL_NULL)]


def _rank_test(
    sample: Sample,
    table: pd.DataFrame,
    statistic: Statistic,
    predictor: Predictor,
    held: tuple[str, ...],
    resamples: int,
    primary: bool = False,
) -> UncorrectedTest:
    # A small depth is what the claim is about, and the statistic's sign says where it leads.
    sign = (1 if statistic.larger else -1) * (1 if predictor == "width" else -1)
    column = SIZES[predictor]
    if held:
        partial, groups = partial_blocks(table, column, held, sign)
        result, name = partial_association(partial, resamples=resamples), "partial rank correlation"
    else:
        blocks, groups = rank_blocks(table, column, sign)
        result, name = rank_association(blocks, resamples=resamples), "Kendall's tau-b"
    return UncorrectedTest(statistic, predictor, name, sample, table, groups, result, primary, held)


def _spread_test(runs: pd.DataFrame, statistic: Statistic, resamples: int) -> UncorrectedTest:
    sample = take_sample(runs, statistic.column, ("connections", "operations"), logarithm=True)
    blocks, groups = spread_blocks(sample.table)
    result = spread_ratio(blocks, resamples=resamples)
    name = "log ratio of standard deviations"
    return UncorrectedTest(statistic, "kind", name, sample, sample.table, groups, result, statistic.primary)


def _paired(sample: Sample, statistic: Statistic, resamples: int = RESAMPLES) -> UncorrectedTest:
    wide = sample.table.pivot_table(index="group", columns="kind", values="value", sort=False)
    wide = wide.reindex(columns=["original", "adapted"]).dropna()
    family = sample.table.groupby("group")["family"].first().reindex(wide.index)
    cells = [pairs for _, pairs in (wide["original"] - wide["adapted"]).groupby(family, sort=False)]
    result = paired_difference([pairs.to_numpy(float) for pairs in cells], resamples=resamples)
    groups = [group for pairs in cells for group in pairs.index]
    name = "log ratio of errors"
    return UncorrectedTest(
        statistic, "adaptation", name, sample, sample.table, groups, result, statistic.primary
    )


def _judge(tests: Sequence[UncorrectedTest]) -> list[Claim]:
    """Correct the p-values of the primary tests, and give the verdicts.

    Holm's method is monotone in every p-value, so that of the smallest p-values gives the smallest corrected
    ones.
    """
    chosen = [test.primary and test.has_data and test.can_reach for test in tests]
    adjusted, smallest = (
        holm([p if use else math.nan for p, use in zip(p_values, chosen, strict=True)])
        for p_values in (
            [test.result.p_value for test in tests],
            [test.result.smallest_p for test in tests],
        )
    )
    return [_claim(*about) for about in zip(tests, adjusted, smallest, strict=True)]


def _claim(test: UncorrectedTest, p_adjusted: float, smallest: float) -> Claim:
    """The claim; smallest: the least that the corrected p-value can be, NaN where there is none."""
    result, verdict = test.result, _verdict(test, p_adjusted, smallest)
    about = {
        "statistic": test.statistic,
        "predictor": test.predictor,
        "given": test.given,
        "sample": test.sample,
    }
    if verdict == "no data":
        explanation = say("lack", **about, facts=test.lacks())
        none = math.nan
        result = replace(result, effect=none, low=none, high=none, p_value=none, smallest_p=none, test="")
    else:
        explanation = say(
            "explanation",
            statement=test.statement,
            **about,
            verdict=verdict,
            effect_name=test.effect_name,
            result=result,
            p_adjusted=p_adjusted,
            smallest=smallest,
            pairs=len(test.used),
            facts=test.facts(),
        )
    return Claim(
        test.statement,
        test.statistic,
        test.predictor,
        test.given,
        test.primary,
        verdict,
        result.effect,
        test.effect_name,
        test.null,
        result.low,
        result.high,
        test.bound,
        result.p_value,
        p_adjusted,
        result.test,
        test.groups[GROUP_COLUMNS],
        explanation,
        test.sampled,
        result.smallest_p,
    )


def _verdict(test: UncorrectedTest, p_adjusted: float, smallest: float) -> Verdict:
    """The rule of the module."""
    result, sure = test.result, p_adjusted <= ALPHA
    if not test.has_data:
        return "no data"
    if not test.primary:
        return "exploratory"
    if not test.can_reach:
        return "cannot decide"
    low, high = (result.effect, result.effect) if result.no_interval else (result.low, result.high)
    above, below = sure and low > 0, sure and high < 0
    if test.bound is not None:
        if below or (not result.no_interval and high < test.bound):
            return "supported"
        return "contradicted" if above else "undecided"
    if above or below:
        return "supported" if above else "contradicted"
    return "undecided" if smallest <= ALPHA else "cannot decide"
