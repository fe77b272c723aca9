from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from nas_lightning.audit import PublishedAudit, audit_published, published_table, published_tables
from nas_lightning.audit.published import _audited
from nas_lightning.cells import Genotype, declare_operation, published_genotypes
from nas_lightning.cells.census import take_census
from nas_lightning.report.words import MISSING


@pytest.fixture(scope="module")
def rows() -> dict[str, PublishedAudit]:
    return {
        row.name: row
        for row in audit_published(names=["darts_v2", "pdarts", "snas_aggressive", "fairdarts_e"])
    }


def test_ranks_are_those_of_the_census(rows: dict[str, PublishedAudit]) -> None:
    census = take_census(4)
    for name, width, depth in (("darts_v2", 3.5, 3), ("pdarts", 3, 4)):
        standings = rows[name].structure.normal.standings["ordered"]
        for quantity, value, place in (("width", width, 0), ("depth", depth, 1)):
            found = standings[quantity]
            assert found is not None
            assert found.value == value
            assert found.below == sum(n for key, n in census.counts.items() if key[place] < value)
            assert found.equal == sum(n for key, n in census.counts.items() if key[place] == value)


def test_a_row_says_what_is_odd_and_what_is_not_ranked(rows: dict[str, PublishedAudit]) -> None:
    assert rows["darts_v2"].summary == "as expected (smallest p = 1)"
    assert (rows["darts_v2"].oddities, rows["darts_v2"].not_ranked) == ((), ())
    assert rows["snas_aggressive"].oddities == ("reduction: input 1 not read",)
    assert rows["snas_aggressive"].not_ranked == ("size: no p, not among those operations: none",)
    assert rows["fairdarts_e"].oddities == ("normal: node 3 dead",)
    marked = [
        line.split()[1]
        for line in published_table(list(rows.values()), markdown=True).splitlines()
        if "*" in line
    ]
    assert marked == ["snas_aggressive"]
    json.dumps([row.record() for row in rows.values()], allow_nan=False)


def test_cells_that_cannot_be_ranked_say_why() -> None:
    declare_operation("audit_table_operation")
    own = [("audit_table_operation", 0), ("skip_connect", 1)]
    cell = replace(published_genotypes()["darts_v2"], genotype=Genotype(own, [2], own * 6, [7]))
    row = _audited(cell, None)
    assert row.not_ranked == (
        "reduction: 25,401,600 wirings are too many to list: no place",
        "size: no place: an operation has no formula",
    )
    assert row.structure.normal.standings["ordered"]["width"] is not None
    many = _audited(replace(cell, genotype=Genotype(own * 6, [7], own * 6, [7])), None)
    assert many.summary == "nothing to rank"
    assert "darts_v2 " in published_tables([row, many])
    (line,) = [line for line in published_table([many]).splitlines() if line.startswith("darts_v2")]
    assert line.count(MISSING) == 8
    assert line.endswith("nothing to rank")


@pytest.mark.slow
def test_every_published_cell_has_a_row() -> None:
    rows = audit_published()
    assert [row.name for row in rows] == list(published_genotypes())
    for markdown in (False, True):
        tables = published_tables(rows, markdown=markdown)
        assert max(map(len, tables.splitlines())) <= 100
    assert max(map(len, published_table(rows).splitlines())) <= 100
    assert "\n| darts_v2 " in published_table(rows, markdown=True)
    by_name = {row.name: row.summary for row in rows}
    assert by_name["enas"].startswith("wide, shallow, short normal cell; wide reduction cell (p up to 0.0")
    assert by_name["cdarts_imagenet"].startswith("many parameters, many multiply-adds (p up to 0.00")
    # docs/evidence.md: 58 genotypes of two edges a node of 35 papers, one mean a paper.
    paired = [
        row for row in rows if row.cell.genotype.normal.has_pairs and row.cell.genotype.reduce.has_pairs
    ]
    titles = {row.cell.title for row in paired}
    assert (len(paired), len(titles)) == (58, 35)
    for reduction, expected in ((False, (0.75, 0.39, 0.30)), (True, (0.59, 0.48, 0.49))):
        means = [
            np.mean([_places(row, reduction=reduction) for row in paired if row.cell.title == title], axis=0)
            for title in titles
        ]
        assert np.mean(means, axis=0) == pytest.approx(expected, abs=0.005)


def _places(row: PublishedAudit, *, reduction: bool) -> list[float]:
    cell = row.structure.reduction if reduction else row.structure.normal
    found = [cell.standings["ordered"][name] for name in ("width", "depth", "path")]
    return [standing.percentile for standing in found if standing is not None]
