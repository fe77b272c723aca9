"""Observation 3.1 without any training: where published cells stand among all wirings of their spaces.

A cell's mid-percentile in a quantity is the share of its space's wirings below it, and half of those equal to
it; operations stay in their places. For a wiring drawn at random it is 1/2 on average, whatever the ties. The
observation (Shu, Wang and Cai, ICLR 2020, section 3) says that searches find wide and shallow cells: large
percentiles of the width, small ones of the depth.

Two spaces are counted: all wirings, as the paper's random connections draw them, and those in which every
node reads two distinct nodes, which DARTS and its successors search. The first decides, as every cell is in
it. Concat lists stay; a space that concatenates
what no node reads (NASNet's, AmoebaNet's, ENAS's) would change them with the wiring.

The unit is the paper, not the cell: cells of one paper come from one method, and their percentiles are
averaged. Under the null hypothesis every cell is a wiring drawn at random; cells of one paper are then drawn
with the same quantile, the strongest dependence and the widest distribution of the mean. Papers count as
independent, though later ones build on earlier ones, and as a sample, though cells that nobody published are
missing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal, TypeAlias

import numpy as np
import pandas as pd
from jaxtyping import Float

from nas_lightning.cells import (
    PublishedGenotype,
    cell_depth,
    cell_path,
    cell_width,
    duplicate_edges,
    published_genotypes,
)
from nas_lightning.cells.census import (
    MAX_WIRINGS,
    Census,
    all_wirings,
    count_wirings,
    has_distinct_sources,
    take_census,
    wiring_paths,
)
from nas_lightning.report.claims import Claim, Verdict
from nas_lightning.report.resampling import CONFIDENCE, RESAMPLES, SEED, TestResult, holm
from nas_lightning.report.samples import GROUP_COLUMNS
from nas_lightning.report.statements import statements, statistics
from nas_lightning.report.uncorrected import ALPHA, Predictor
from nas_lightning.report.words import say

Quantity: TypeAlias = Literal["width", "depth", "path"]
QUANTITIES: tuple[Quantity, ...] = ("width", "depth", "path")
NULL = 0.5
"""Mean mid-percentile of wirings drawn at random."""
EFFECT = "mid-percentile among wirings"
_DIGITS = 9


@dataclass(frozen=True, eq=False)
class Distribution:
    """Values of a quantity over all wirings of a space, ascending, and how many wirings have each."""

    values: Float[np.ndarray, " values"]
    counts: Float[np.ndarray, " values"]

    @property
    def percentiles(self) -> Float[np.ndarray, " values"]:
        """Mid-percentile of each value."""
        below = self.counts.cumsum() - self.counts
        return np.asarray((below + self.counts / 2) / self.counts.sum())

    def percentile(self, value: float | int) -> float:
        """Mid-percentile of a value, in the space or not; NaN for NaN."""
        if math.isnan(value):
            return math.nan
        equal = np.isclose(self.values, value, rtol=0, atol=10.0**-_DIGITS)
        below = (self.values < value) & ~equal
        return float((self.counts[below].sum() + self.counts[equal].sum() / 2) / self.counts.sum())

    def at(self, quantiles: Float[np.ndarray, " draws"]) -> Float[np.ndarray, " draws"]:
        """Mid-percentiles of the wirings at quantiles from 0 to 1."""
        ends = self.counts.cumsum() / self.counts.sum()
        return self.percentiles[np.minimum(np.searchsorted(ends, quantiles), len(ends) - 1)]


@dataclass(frozen=True, eq=False)
class Place:
    """Where a published cell stands.

    Attributes:
        cell: The genotype with its citation.
        reduction: Whether this is its reduction cell.
        distinct: Whether the space has only wirings in which every node reads two distinct nodes.
        percentiles: Mid-percentile by quantity.
        spaces: What they are taken in, by quantity.
    """

    cell: PublishedGenotype
    reduction: bool
    distinct: bool
    percentiles: Mapping[Quantity, float]
    spaces: Mapping[Quantity, Distribution]


@cache
def places() -> tuple[Place, ...]:
    """Places of the normal and the reduction cell of every searched genotype in both spaces.

    The spaces are those of two edges a node, so a genotype with other nodes is in none. A cell in which a
    node reads one node twice is not in that of distinct sources; nor has a cell of more than ``MAX_WIRINGS``
    wirings a census. Takes some seconds the first time: a space of five nodes has 518,400 wirings.
    """
    found = []
    cells = [
        cell
        for cell in published_genotypes().values()
        if cell.genotype.normal.has_pairs and cell.genotype.reduce.has_pairs
    ]
    for cell in cells:
        for reduction in (False, True):
            edges, concat = cell.genotype.cell(reduction)
            if count_wirings(edges) > MAX_WIRINGS:
                continue
            own = (cell_width(edges, concat), cell_depth(edges, concat), cell_path(edges, concat))
            wirings = all_wirings(edges.counts)
            path = wiring_paths(edges, concat, wirings)
            apart = has_distinct_sources(wirings, edges.counts)
            for distinct in (False, True)[: 1 if duplicate_edges(edges) else 2]:
                census = take_census(edges.counts, concat, distinct=distinct)
                paths = path[apart] if distinct else path
                spaces = dict(zip(QUANTITIES, (*_of_census(census), _of_values(paths)), strict=True))
                percentiles = {
                    name: spaces[name].percentile(value) for name, value in zip(QUANTITIES, own, strict=True)
                }
                found.append(Place(cell, reduction, distinct, percentiles, spaces))
    return tuple(found)


def _of_census(census: Census) -> tuple[Distribution, Distribution]:
    """Distributions of width and depth."""
    frame = pd.DataFrame([(*pair, count) for pair, count in census.counts.items()])
    made = [frame.groupby(column)[2].sum() for column in (0, 1)]
    width, depth = (Distribution(one.index.to_numpy(float), one.to_numpy(float)) for one in made)
    return width, depth


def _of_values(values: Float[np.ndarray, " wirings"]) -> Distribution:
    known, counts = np.unique(np.round(values[np.isfinite(values)], _DIGITS), return_counts=True)
    return Distribution(known, counts.astype(float))


def by_paper(chosen: Sequence[Place], quantity: Quantity) -> dict[str, list[Place]]:
    """Places with a percentile, by the title of the paper."""
    found: dict[str, list[Place]] = {}
    for place in chosen:
        if math.isfinite(place.percentiles[quantity]):
            found.setdefault(place.cell.title, []).append(place)
    return found


def paper_means(chosen: Sequence[Place], quantity: Quantity) -> Float[np.ndarray, " papers"]:
    """Mean mid-percentile of each paper's cells."""
    groups = by_paper(chosen, quantity).values()
    return np.array([np.mean([place.percentiles[quantity] for place in group]) for group in groups])


def compare_places(chosen: Sequence[Place], quantity: Quantity, *, resamples: int = RESAMPLES) -> TestResult:
    """Mean mid-percentile over papers against 1/2.

    Args:
        chosen: Places of cells of one kind in spaces of one kind.
        quantity: What is compared.
        resamples: Draws from the null hypothesis, and of the bootstrap of papers for the interval.

    Returns:
        The mean, its 95 % interval, and a two-sided p-value. Effects of groups are the papers' means.
    """
    means = paper_means(chosen, quantity)
    generator = np.random.default_rng(SEED)
    null = np.zeros(resamples)
    for group in by_paper(chosen, quantity).values():
        quantiles = generator.random(resamples)
        null += np.mean([place.spaces[quantity].at(quantiles) for place in group], axis=0) / len(means)
    effect = float(means.mean())
    extreme = np.abs(null - NULL) >= abs(effect - NULL) - 1e-12
    draws = means[generator.integers(0, len(means), (resamples, len(means)))].mean(axis=1)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
    return TestResult(
        effect,
        float(low),
        float(high),
        float((1 + extreme.sum()) / (1 + resamples)),
        resamples,
        f"{resamples} random draws of a wiring for every paper",
        tuple(means.tolist()),
        1 / (1 + resamples),
    )


def observation_claims(*, resamples: int = RESAMPLES) -> list[Claim]:
    """The sixth claim: width and depth of the normal cells among all wirings decide it.

    Mean path, reduction cells and the space of distinct sources are exploratory. Holm's method corrects the
    two primary p-values on their own: no run of a study has a part in them. Effects are turned so that the
    claim predicts more than 1/2: from the deep end for the depth, from the long one for the path.
    """
    trials: list[tuple[str, Quantity, list[Place], TestResult]] = []
    for one in statistics("census"):
        chosen = select(reduction="reduction" in one.column, distinct="distinct" in one.column)
        trials += [
            (one.column, quantity, chosen, compare_places(chosen, quantity, resamples=resamples))
            for quantity in QUANTITIES
        ]
    by_column = {one.column: one for one in statistics("census")}
    primary = [by_column[column].primary and quantity != "path" for column, quantity, _, _ in trials]
    corrected = iter(
        holm([trial[3].p_value for trial, decides in zip(trials, primary, strict=True) if decides])
    )
    claims = []
    for (column, quantity, chosen, result), decides in zip(trials, primary, strict=True):
        p_adjusted = next(corrected) if decides else math.nan
        claims.append(_claim(by_column[column].claim, column, quantity, chosen, result, decides, p_adjusted))
    return sorted(claims, key=lambda claim: not claim.primary)


def select(*, reduction: bool, distinct: bool) -> list[Place]:
    """Places of normal or reduction cells in one of the spaces."""
    return [place for place in places() if (place.reduction, place.distinct) == (reduction, distinct)]


def _claim(
    key: str,
    column: str,
    quantity: Quantity,
    chosen: Sequence[Place],
    result: TestResult,
    primary: bool,
    p_adjusted: float,
) -> Claim:
    (statistic,) = (one for one in statistics("census") if one.column == column)
    effect, low, high = result.effect, result.low, result.high
    if quantity != "width":
        effect, low, high = 1 - effect, 1 - high, 1 - low
    verdict: Verdict = "exploratory"
    if primary:
        sure = p_adjusted <= ALPHA
        verdict = (
            "supported" if sure and low > NULL else "contradicted" if sure and high < NULL else "undecided"
        )
    predictor: Predictor = quantity
    groups = by_paper(chosen, quantity)
    explanation = say(
        "observation",
        name=statistic.name,
        quantity=quantity,
        percentile=result.effect,
        ends=sorted([result.low, result.high]),
        p_value=result.p_value,
        p_adjusted=p_adjusted,
        smallest=result.smallest_p,
        test=result.test,
        papers=len(groups),
        cells=sum(map(len, groups.values())),
        distinct="distinct" in column,
        absent=len(select(reduction="reduction" in column, distinct=False)) - len(chosen),
    )
    return Claim(
        statements()[key],
        statistic,
        predictor,
        (),
        primary,
        verdict,
        effect,
        EFFECT,
        NULL,
        low,
        high,
        None,
        result.p_value,
        p_adjusted,
        result.test,
        _groups(groups, quantity),
        explanation,
        smallest_p=result.smallest_p,
    )


def _groups(papers: Mapping[str, Sequence[Place]], quantity: Quantity) -> pd.DataFrame:
    """A row a paper, in the columns of other claims: cells, and their mean percentile, turned."""
    rows = []
    for members in papers.values():
        first, mean = members[0].cell, float(np.mean([place.percentiles[quantity] for place in members]))
        rows.append(
            {
                "family": f"{first.method}, {first.year}",
                "data": first.searched_on,
                "n": len(members),
                "effect": mean if quantity == "width" else 1 - mean,
            }
        )
    return pd.DataFrame(rows, columns=GROUP_COLUMNS)
