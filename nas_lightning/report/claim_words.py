"""Sentences about the claims, with their numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from nas_lightning.cells import format_width
from nas_lightning.report.measures import Measure
from nas_lightning.report.paper import data_title, family_title
from nas_lightning.report.resampling import TestResult
from nas_lightning.report.samples import Sample
from nas_lightning.report.statistics import NOISE_FLOOR
from nas_lightning.report.table_text import p_value_text

ABSENCE = "absence of evidence, not evidence of absence"
BETTER = {"width": "wider cells", "depth": "shallower cells"}


@dataclass(frozen=True, eq=False)
class Evidence:
    """What a test was made on.

    Attributes:
        sample: The architectures.
        used: The groups (their keys in the sample's table) that the test was given.
        groups: The groups described, with their effects.
    """

    sample: Sample
    used: Sequence[Any]
    groups: pd.DataFrame

    @property
    def table(self) -> pd.DataFrame:
        """Rows of the sample in the groups that have an effect."""
        pairs = zip(self.used, self.groups["effect"], strict=True)
        usable = [group for group, effect in pairs if not math.isnan(effect)]
        return self.sample.table[self.sample.table["group"].isin(usable)]


def explain(
    measure: Measure,
    predictor: str,
    effect_name: str,
    result: TestResult,
    p_adjusted: float,
    verdict: str,
    evidence: Evidence,
) -> str:
    """One sentence: what was found, how large, how sure, on what.

    Args:
        measure: What was measured.
        predictor: What it was compared with.
        effect_name: What the effect is.
        result: The test.
        p_adjusted: Its corrected p-value.
        verdict: What follows.
        evidence: What it was made on.

    Returns:
        The sentence.
    """
    corrected = ""
    if p_adjusted != result.p_value:
        corrected = f", {p_value_text(p_adjusted)} after Holm's correction"
    digits = 3 if predictor == "adaptation" else 2
    effect, low, high = (
        f"{value:.{digits}f}".replace("-", "\N{MINUS SIGN}")
        for value in (result.effect, result.low, result.high)
    )
    numbers = (
        f"{effect_name} {effect} (95\N{NO-BREAK SPACE}% interval {low} to {high};"
        f" p {p_value_text(result.p_value, sign=True)}{corrected}; {result.test})"
    )
    parts = [f"{_finding(measure, predictor, verdict, result)}: {numbers} over {_basis(predictor, evidence)}"]
    if predictor in BETTER and not measure.censored:
        parts.append(_extremes(measure, predictor, evidence.table))
    elif predictor == "kind":
        parts.append(f"connections spread {math.exp(result.effect):.2g} times as wide as operations")
        if kinds := _drowned(evidence.table):
            parts.append(
                f"in places the spread of {kinds} is no larger than the noise of the seeds; a twentieth of"
                " its variance is kept there"
            )
    elif predictor == "adaptation":
        parts.append(
            f"adapted errors are {math.exp(-result.effect):.3f} times the original ones in the geometric mean"
        )
    if result.low == result.high:
        parts.append("all ranks agree, so that the bootstrap shows no uncertainty")
    if evidence.table["seeds"].max() == 1:
        parts.append("with one seed, the noise of training is unknown")
    parts += _left_out(evidence.sample)
    return "; ".join(parts) + "."


def lack(measure: Measure, predictor: str, result: TestResult, evidence: Evidence) -> str:
    """One sentence: what a test would need.

    Args:
        measure: What is to be measured.
        predictor: What it is to be compared with.
        result: What could be computed.
        evidence: What there is.

    Returns:
        The sentence.
    """
    parts = [
        f"No test of the {measure.name}",
        _need(predictor, result, evidence),
        *_left_out(evidence.sample),
    ]
    return f"{parts[0]}: {'; '.join(parts[1:])}."


def _need(predictor: str, result: TestResult, evidence: Evidence) -> str:
    """What is missing for a test."""
    table = evidence.sample.table
    if predictor == "kind":
        counts = [table[table["kind"] == kind]["unit"].nunique() for kind in ("connections", "operations")]
        return (
            f"there {'is' if counts[0] == 1 else 'are'} {_count(counts[0], 'variant')} by connections and"
            f" {counts[1]} by operations; three of each are needed of a base cell with the same settings, and"
            " 40 ways to exchange the kinds, such as four of each or three against five have"
        )
    if predictor == "adaptation":
        cells = evidence.groups["family"].nunique()
        return (
            "pairs of an original and an adapted cell trained with regularisation are needed of at least five"
            f" base cells; there {'is' if cells == 1 else 'are'} {cells}"
        )
    needed = (
        "three architectures of a base cell with the same settings are needed, and 40 arrangements of all,"
        " such as five of one base cell have"
    )
    if table.empty:
        return f"no run has it; {needed}"
    if not evidence.used:
        return f"no base cell has three architectures with the same settings; {needed}"
    if math.isnan(result.effect):
        same = (
            table[table["group"].isin(list(evidence.used))].groupby("group")[predictor].nunique().max() == 1
        )
        return f"all architectures have the same {predictor if same else 'value'}"
    used = table[table["group"].isin(list(evidence.used))].drop_duplicates(["family", "unit"])
    return (
        f"the {predictor}s of {len(used)} architectures can be arranged in {result.arrangements} ways;"
        f" {needed} if their {predictor}s differ"
    )


def _finding(measure: Measure, predictor: str, verdict: str, result: TestResult) -> str:
    """The first part of the sentence, up to the numbers."""
    if measure.key == "generalization":
        subject = BETTER.get(predictor, "adapted cells")
        if verdict == "supported":
            bound = "0.2 in tau-b" if predictor in BETTER else "5 %"
            return f"{subject.capitalize()} do not generalise better: an advantage of {bound} is ruled out"
        if verdict == "contradicted":
            return f"{subject.capitalize()} generalise better, against the claim"
        return f"The data do not decide whether {subject} generalise better ({ABSENCE})"
    as_claimed = verdict == "undecided" or result.effect > 0
    if predictor == "kind":
        first, second = ("connections", "operations") if as_claimed else ("operations", "connections")
        comparison = f"{first} change the {measure.name} more than {second}"
    else:
        larger = measure.larger == as_claimed
        comparison = f"{BETTER[predictor]} have a {'larger' if larger else 'smaller'} {measure.name}"
    if verdict == "undecided":
        return f"The data do not decide whether {comparison} ({ABSENCE})"
    against = ", against the claim" if verdict == "contradicted" else ""
    return comparison[0].upper() + comparison[1:] + against


def _basis(predictor: str, evidence: Evidence) -> str:
    """How many architectures, seeds and groups, of which base cells and data."""
    table = evidence.table
    count = table[["family", "unit"]].drop_duplicates().shape[0]
    fewest, most = int(table["seeds"].min()), int(table["seeds"].max())
    seeds = f"{fewest} to {most} seeds" if fewest < most else f"{most} seed{'s' if most > 1 else ''}"
    families = _list([family_title(name) for name in dict.fromkeys(table["family"])])
    data = _list([data_title(name) for name in dict.fromkeys(table["data"])])
    rates = table["learning_rate"].dropna().unique()
    number = table["group"].nunique()
    groups = "one group" if number == 1 else f"{number} groups"
    units = f"{count} architectures"
    if predictor == "adaptation":
        units = f"{len(evidence.used)} pairs of {table['family'].nunique()} base cells"
    text = (
        f"{units}, {seeds} each{'' if predictor == 'adaptation' else f', in {groups}'} ({families} on {data}"
    )
    if len(rates) > 1:
        text += f", learning rates {_list([f'{rate:g}' for rate in sorted(rates)])}"
    return text + ")"


def _extremes(measure: Measure, predictor: str, table: pd.DataFrame) -> str:
    """The measure at both ends of the predictor, averaged over groups."""
    words = ("widest", "narrowest") if predictor == "width" else ("deepest", "shallowest")
    ends = []
    for largest, word in zip((True, False), words, strict=True):
        by_group = table.groupby("group")[predictor]
        limit = by_group.transform("max") if largest else by_group.transform("min")
        at_end = table[table[predictor] == limit]
        value = at_end.groupby("group")["value"].mean().mean()
        low, high = at_end[predictor].min(), at_end[predictor].max()
        where = (
            _size(predictor, low) if low == high else f"{_size(predictor, low)} to {_size(predictor, high)}"
        )
        ends.append(f"{value:.3g}{' ' + measure.unit if measure.unit else ''} for the {word} ({where})")
    average = ", averaged over groups" if table["group"].nunique() > 1 else ""
    return f"{ends[0]} and {ends[1]}{average}"


def _size(predictor: str, value: float) -> str:
    return format_width(float(value)) if predictor == "width" else str(int(value))


def _drowned(table: pd.DataFrame) -> str:
    """Kinds whose spread in some group is not above the noise of the seeds."""
    grouped = table.groupby(["group", "kind"])
    left = grouped["value"].var(ddof=1) - grouped["noise"].mean().fillna(0.0)
    kinds = left[left < NOISE_FLOOR * grouped["value"].var(ddof=1)].index.get_level_values("kind")
    return _list(sorted(set(kinds))) if len(kinds) else ""


def _left_out(sample: Sample) -> list[str]:
    parts = []
    if sample.censored:
        ranks = "ranks" if sample.censored == 1 else "rank"
        parts.append(f"{_count(sample.censored, 'run')} never got there and {ranks} last")
    if sample.dropped:
        parts.append(f"{_count(sample.dropped, 'run')} without a value left out")
    return parts


def _count(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _list(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
