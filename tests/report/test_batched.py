"""Tests of many studies at once give the p-values that the report's tests give one by one."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from nas_lightning.report.batched import (
    original_p_values,
    paired_p_values,
    rank_p_values,
    spread_p_values,
)
from nas_lightning.report.effects import (
    RankBlock,
    SpreadBlock,
    paired_difference,
    rank_association,
    spread_ratio,
)
from nas_lightning.report.original import OriginalBlock, original_rank

STUDIES, RESAMPLES = 12, 99


def unknown(table: np.ndarray, *places: tuple[int, int]) -> np.ndarray:
    for place in places:
        table[place] = np.nan
    return table


def drawn(tables: list[np.ndarray]) -> list[np.ndarray]:
    """Values of studies, with an effect that grows along the architectures."""
    rng = np.random.default_rng(3)
    trend = [np.arange(table.shape[1]) / 4 for table in tables]
    return [
        rng.normal(size=(STUDIES, *table.shape)) + slope + 0 * table
        for table, slope in zip(tables, trend, strict=True)
    ]


RANKED = {
    "all permutations": [
        RankBlock(np.array([1.0, 1, 2, 2, 3]), np.zeros((1, 5))),
        RankBlock(np.array([1.0, 2, 3, 3]), unknown(np.zeros((2, 4)), (1, 0))),
        RankBlock(np.array([2.0, 2, 2]), np.zeros((1, 3))),
    ],
    "random permutations": [
        RankBlock(np.array([1.0, 1, 2, 2, 3, 3, 4]), np.zeros((1, 7))),
        RankBlock(np.array([1.0, 2, 2, 2, 3, 4]), unknown(np.zeros((2, 6)), (1, 0), (1, 5))),
        # A permutation can make the three known ones alike.
        RankBlock(np.array([1.0, 2, 1, 1, 1]), unknown(np.zeros((1, 5)), (0, 3), (0, 4))),
    ],
    "many architectures": [RankBlock(np.arange(101.0) // 9, np.zeros((2, 101)))],
}


@pytest.mark.parametrize("name", RANKED)
def test_p_values_of_ranks_are_the_reports(name: str) -> None:
    blocks = RANKED[name]
    values = drawn([block.values for block in blocks])
    slow = [
        rank_association(
            [replace(block, values=each[study]) for block, each in zip(blocks, values, strict=True)],
            resamples=RESAMPLES,
        ).p_value
        for study in range(STUDIES)
    ]
    assert len(set(slow)) > 3
    assert rank_p_values(blocks, values, resamples=RESAMPLES).tolist() == slow


@pytest.mark.parametrize("cells", [2, 5], ids=["all choices", "random choices"])
def test_p_values_of_originals_are_the_reports(cells: int) -> None:
    tables = [unknown(np.zeros((2, 10 + number)), (1, 0), (0, 4)) for number in range(cells)]
    tables[0][1, 0] = 0.0
    values = drawn(tables)
    for each in values:
        each[:, :, 0] += 2
    slow = [
        original_rank([OriginalBlock(each[study]) for each in values], resamples=RESAMPLES).p_value
        for study in range(STUDIES)
    ]
    assert len(set(slow)) > 3
    blocks = [OriginalBlock(table) for table in tables]
    assert original_p_values(blocks, values, resamples=RESAMPLES).tolist() == slow


@pytest.mark.parametrize("cells", [1, 3], ids=["all exchanges", "random exchanges"])
def test_p_values_of_spreads_are_the_reports(cells: int) -> None:
    tables = [unknown(np.zeros((2, 8)), (1, 7)) for _ in range(cells)]
    kinds = np.arange(8) % 2 == 0
    values = drawn(tables)
    for each in values:
        each[:, :, ~kinds] /= 2
    noise = [np.where(each > 0, 0.01, 0.3) for each in values]
    slow = [
        spread_ratio(
            [SpreadBlock(kinds, *both) for both in zip(*one, strict=True)], resamples=RESAMPLES
        ).p_value
        for one in zip(zip(*values, strict=True), zip(*noise, strict=True), strict=True)
    ]
    assert len(set(slow)) > 3
    blocks = [SpreadBlock(kinds, table, table) for table in tables]
    assert spread_p_values(blocks, values, noise, resamples=RESAMPLES).tolist() == slow


@pytest.mark.parametrize("cells", [6, 17], ids=["all signs", "random signs"])
def test_p_values_of_pairs_are_the_reports(cells: int) -> None:
    rng = np.random.default_rng(5)
    differences = [rng.normal(0.4, 1, (STUDIES, 1 + number % 3)) for number in range(cells)]
    slow = [
        paired_difference([cell[study] for cell in differences], resamples=RESAMPLES).p_value
        for study in range(STUDIES)
    ]
    assert len(set(slow)) > 3
    assert paired_p_values(differences, resamples=RESAMPLES).tolist() == slow


def test_without_an_effect_there_is_no_p_value() -> None:
    tied = RankBlock(np.ones(4), np.zeros((1, 4)))
    assert np.isnan(rank_p_values([tied], drawn([tied.values]))).all()
    assert np.isnan(paired_p_values([np.ones((3, 2))])).all()
    assert np.isnan(rank_p_values([], [])).all()
