"""How far the tests of the claims can be trusted: 2,000 studies of the paper's design, made up.

The design: four base cells with 13 variants each that have table 2's widths and depths, and an original that
is the best of its base cell, because a search picked it. A permutation test cannot be judged by one study;
docs/claims.md prints the numbers that these tests keep.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from nas_lightning.cells.table2 import TABLE2
from nas_lightning.report.effects import (
    RankBlock,
    SpreadBlock,
    paired_difference,
    rank_association,
    spread_ratio,
)
from nas_lightning.report.original import OriginalBlock, original_rank
from nas_lightning.report.partial import PartialBlock, partial_association
from nas_lightning.report.resampling import TestResult as Result
from nas_lightning.report.samples import original_blocks, partial_blocks, rank_blocks, take_sample

STUDIES = 2000
CELLS, VARIANTS = len(TABLE2), 13
MOST = 0.06
"""Share of rejections at the level 0.05 that counts as calibrated: 5 % and two standard errors."""

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Design:
    """Blocks of the real pipeline, made from runs of originals and variants, whose values a study replaces.

    The variants' path and parameters are made up: path goes with depth and against width.
    """

    width: Sequence[RankBlock]
    depth: Sequence[RankBlock]
    given_loss: Sequence[PartialBlock]
    given_all: Sequence[PartialBlock]
    original: Sequence[OriginalBlock]


@cache
def design() -> Design:
    rng = np.random.default_rng(0)
    rows = []
    for family, variants in TABLE2.items():
        sizes = [(4.0, 2), *((variant.width, variant.depth) for variant in variants)]
        for number, (width, depth) in enumerate(sizes):
            rows.append(
                {
                    "genotype": f"{family}-{number:02d}",
                    "architecture": f"{family}:C{number}" if number else family,
                    "family": family,
                    "kind": "connections" if number else "original",
                    "width": width,
                    "depth": depth,
                    "network_path": 20 + 4 * depth - 6 * width + 5 * rng.normal(),
                    "live_parameters": 3e6 + 2e5 * rng.normal(),
                    "data": "CIFAR10",
                    "learning_rate": 0.025,
                    "regularized": False,
                    "loss": rng.normal(),
                    "value": rng.normal(),
                }
            )
    sample = take_sample(pd.DataFrame(rows), "value", ("connections", "original"), given="loss")
    variants_alone = sample.of_kinds(("connections",))
    others = ("depth", "network_path", "live_parameters")
    return Design(
        rank_blocks(variants_alone, "width", 1)[0],
        rank_blocks(variants_alone, "depth", 1)[0],
        partial_blocks(variants_alone, "width", ("given",), 1)[0],
        partial_blocks(variants_alone, "width", others, 1)[0],
        original_blocks(sample.table, 1)[0],
    )


def rejections(test: Callable[[np.random.Generator], Result], studies: int = STUDIES) -> float:
    """Share of studies with a p-value of at most 0.05."""
    rng = np.random.default_rng(1)
    return float(np.mean([test(rng).p_value <= 0.05 for _ in range(studies)]))


def ranks(blocks: Sequence[RankBlock], values: Sequence[np.ndarray]) -> Result:
    made = [replace(block, values=value[None]) for block, value in zip(blocks, values, strict=True)]
    return rank_association(made, resamples=99)


def noise(rng: np.random.Generator) -> list[np.ndarray]:
    return list(rng.normal(size=(CELLS, VARIANTS)))


def test_the_design_has_originals_and_rank_tests_leave_them_out() -> None:
    assert [block.values.shape for block in design().width] == [(1, VARIANTS)] * CELLS
    assert [block.values.shape for block in design().given_all] == [(1, VARIANTS)] * CELLS
    assert [block.values.shape for block in design().original] == [(1, VARIANTS + 1)] * CELLS


@pytest.mark.parametrize("predictor", ["width", "depth"])
def test_rank_tests_are_calibrated(predictor: str) -> None:
    blocks = getattr(design(), predictor)
    assert rejections(lambda rng: ranks(blocks, noise(rng))) <= MOST


def test_with_a_searched_original_among_the_variants_they_were_not() -> None:
    """Why originals are left out: of these studies none has an effect of width."""
    widest = [RankBlock(np.append(b.predictor, 4.0), np.zeros((1, VARIANTS + 1))) for b in design().width]

    def test(rng: np.random.Generator) -> Result:
        return ranks(widest, [np.append(values, values.max() + 1) for values in noise(rng)])

    assert rejections(test, 300) > 0.2


def test_rank_tests_have_power_at_tau_04() -> None:
    strength, taus = 0.9, []

    def test(rng: np.random.Generator) -> Result:
        values = [strength * b.predictor + y for b, y in zip(design().width, noise(rng), strict=True)]
        taus.append((result := ranks(design().width, values)).effect)
        return result

    power = rejections(test, 400)
    assert np.mean(taus) == pytest.approx(0.4, abs=0.03)
    assert power >= 0.9


def given_loss(rng: np.random.Generator, *, strength: float = 0.0) -> Result:
    """The loss goes with width, the statistic with the loss, and with width by the strength."""
    blocks = []
    for block in design().given_loss:
        loss = 0.7 * block.predictor + 0.5 * rng.normal(size=VARIANTS)
        values = loss + strength * block.predictor + 0.5 * rng.normal(size=VARIANTS)
        blocks.append(replace(block, covariates=loss[None, None], values=values[None]))
    return partial_association(blocks, resamples=99)


def test_the_test_given_the_loss_is_calibrated() -> None:
    assert rejections(given_loss) <= MOST


def test_without_the_loss_it_would_find_width_where_only_the_loss_counts() -> None:
    def test(rng: np.random.Generator) -> Result:
        loss = [0.7 * block.predictor + 0.5 * rng.normal(size=VARIANTS) for block in design().width]
        return ranks(design().width, [one + 0.5 * rng.normal(size=VARIANTS) for one in loss])

    assert rejections(test, 200) > 0.8


def given_all(rng: np.random.Generator, *, strength: float = 0.0) -> Result:
    """The statistic goes with the path, with depth, and with width by the strength."""
    blocks = []
    for block in design().given_all:
        depth, path = stats.zscore(block.covariates[:2, 0], axis=1)
        values = path + 0.5 * depth + strength * block.predictor + rng.normal(size=VARIANTS)
        blocks.append(replace(block, values=values[None]))
    return partial_association(blocks, resamples=99)


def test_the_test_given_depth_path_and_parameters_is_calibrated() -> None:
    assert rejections(given_all) <= MOST


def test_partial_tests_have_power() -> None:
    assert rejections(lambda rng: given_loss(rng, strength=0.8), 400) >= 0.6
    assert rejections(lambda rng: given_all(rng, strength=1.5), 400) >= 0.5


@pytest.mark.parametrize("settings", [1, 2])
def test_the_rank_of_the_original_is_calibrated(settings: int) -> None:
    """Under the null hypothesis it is one of its variants like any other."""

    def test(rng: np.random.Generator) -> Result:
        shape = (settings, VARIANTS + 1)
        values = rng.normal(size=(CELLS, 1, VARIANTS + 1)) + 0.5 * rng.normal(size=(CELLS, *shape))
        made = [replace(b, values=v) for b, v in zip(design().original, values, strict=True)]
        return original_rank(made)

    assert rejections(test) <= MOST


def test_an_original_that_is_mostly_best_is_found() -> None:
    """One that a search picked as the best of twenty cells like its variants."""

    def test(rng: np.random.Generator) -> Result:
        values = [np.append(rng.normal(size=20).max(), one)[None] for one in noise(rng)]
        return original_rank([replace(b, values=v) for b, v in zip(design().original, values, strict=True)])

    assert rejections(test, 300) >= 0.9


def spread(rng: np.random.Generator, *, ratio: float = 1.0) -> Result:
    first = np.arange(VARIANTS + 10) < VARIANTS
    scale, blank = np.where(first, ratio, 1.0), np.zeros((1, first.size))
    blocks = [SpreadBlock(first, (scale * rng.normal(size=first.size))[None], blank) for _ in range(CELLS)]
    return spread_ratio(blocks, resamples=99)


def test_the_spread_of_kinds_is_calibrated_and_has_power() -> None:
    assert rejections(spread) <= MOST
    assert rejections(lambda rng: spread(rng, ratio=2.0), 200) >= 0.9


def test_pairs_are_calibrated_and_have_power() -> None:
    """Six base cells on three data sets, the fewest that can show an advantage; an advantage of two
    standard deviations of a base cell."""

    def pairs(rng: np.random.Generator, advantage: float = 0.0) -> Result:
        cells = advantage + rng.normal(size=(6, 1)) + 0.5 * rng.normal(size=(6, 3))
        return paired_difference(list(cells), resamples=99)

    assert rejections(pairs) <= MOST
    assert rejections(lambda rng: pairs(rng, 2.0), 200) >= 0.8


@pytest.mark.parametrize("strength", [0.0, 0.8])
def test_intervals_hold_the_truth(strength: float) -> None:
    """The truth: the effect in base cells with three thousand variants of the same widths and depths."""
    rng = np.random.default_rng(2)

    def tau(size: int) -> Result:
        blocks = []
        for block in design().width:
            width = block.predictor if size == VARIANTS else rng.choice(block.predictor, size)
            blocks.append(RankBlock(width, (strength * width + rng.normal(size=size))[None]))
        return rank_association(blocks, resamples=299)

    truth = tau(3000).effect
    results = [tau(VARIANTS) for _ in range(300)]
    assert np.mean([one.low <= truth <= one.high for one in results]) >= 0.93


@pytest.mark.parametrize("strength", [0.0, 0.8])
def test_intervals_given_a_covariate_hold_the_truth(strength: float) -> None:
    rng = np.random.default_rng(3)

    def partial(size: int) -> Result:
        blocks = []
        for block in design().given_loss:
            width = block.predictor if size == VARIANTS else rng.choice(block.predictor, size)
            loss = 0.7 * width + 0.5 * rng.normal(size=size)
            values = loss + strength * width + 0.5 * rng.normal(size=size)
            blocks.append(PartialBlock(width, loss[None, None], values[None]))
        return partial_association(blocks, resamples=299)

    truth = partial(3000).effect
    results = [partial(VARIANTS) for _ in range(300)]
    assert np.mean([one.low <= truth <= one.high for one in results]) >= 0.91
