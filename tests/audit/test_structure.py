from __future__ import annotations

import json
from functools import partial
from itertools import product

import numpy as np
import pytest

from nas_lightning.audit import audit_structure, in_space, structure
from nas_lightning.audit.structure import SAMPLES, NetworkSettings, sum_distribution
from nas_lightning.cells import (
    Genotype,
    count_parameters,
    declare_operation,
    get_genotype,
    multiply_adds,
)
from nas_lightning.cells.census import census_percentiles, rank_cell
from nas_lightning.cells.variants import RANDOM_OPERATIONS

SETTINGS = NetworkSettings(init_channels=4, num_cells=4, image_size=16)


@pytest.mark.parametrize("name", ["darts_v2", "snas"])
@pytest.mark.parametrize("reduction", [False, True], ids=["normal", "reduction"])
def test_ranks_are_those_of_the_census(name: str, reduction: bool) -> None:
    genotype = get_genotype(name)
    found = audit_structure(genotype, SETTINGS)
    cell = found.reduction if reduction else found.normal
    percentiles = census_percentiles(genotype, reduction=reduction, num_cells=4)
    rank = rank_cell(*genotype.cell(reduction))
    ordered = cell.standings["ordered"]
    for quantity in ("width", "depth", "path"):
        standing = ordered[quantity]
        assert standing is not None
        assert standing.percentile == pytest.approx(getattr(percentiles, quantity))
    assert ordered["width"]
    assert ordered["width"].at_least == rank.at_least_as_wide
    assert ordered["depth"]
    assert ordered["depth"].at_most == rank.at_least_as_shallow
    assert cell.wirings == rank.total == 14_400


def test_sizes_stand_where_all_choices_of_operations_say() -> None:
    # The second node of the normal cell is dead; an input of the reduction cell is never read.
    genotype = Genotype(
        [[("sep_conv_3x3", 0)], [("dil_conv_5x5", 2)]],
        [2],
        [[("skip_connect", 1)]],
        [2],
    )
    sizes = []
    for first, second, third in product(RANDOM_OPERATIONS, repeat=3):
        other = Genotype([[(first, 0)], [(second, 2)]], [2], [[(third, 1)]], [2])
        sizes.append((count_parameters(other, init_channels=4, num_cells=4), 0))
        sizes[-1] = sizes[-1][0], multiply_adds(other, init_channels=4, num_cells=4, image_size=16)
    found = audit_structure(genotype, SETTINGS)
    for standing, value, of_all in (
        (found.parameters_standing, found.parameters, [size for size, _ in sizes]),
        (found.multiply_adds_standing, found.multiply_adds, [size for _, size in sizes]),
    ):
        assert standing is not None
        assert value is not None
        assert standing.is_exact
        assert standing.standing == in_space(value, np.array(of_all))
    assert found.dead_cells == (2,)
    assert found.normal.dead_nodes == (3,)
    assert (found.normal.inputs_not_read, found.reduction.inputs_not_read) == ((1,), (0,))


def test_sums_of_too_many_values_are_drawn_and_said_to_be() -> None:
    terms = np.array([[0, 0, 1, 2, 3, 4, 5], [0, 7, 7, 7, 9, 1, 1], [3, 1, 4, 1, 5, 9, 2]])
    values, counts, is_exact = sum_distribution(terms)
    assert is_exact
    assert counts.sum() == 7**3
    drawn, often, is_exact = sum_distribution(terms, limit=4)
    assert not is_exact
    assert often.sum() == SAMPLES
    assert (often @ drawn) / SAMPLES == pytest.approx((counts @ values) / 7**3, rel=0.01)


def test_oddities_are_named() -> None:
    genotype = Genotype(
        [("skip_connect", 0), ("skip_connect", 0), ("sep_conv_3x3", 2), ("skip_connect", 2)],
        [3],
        [("sep_conv_3x3", 1), ("skip_connect", 0), ("sep_conv_3x3", 0), ("sep_conv_3x3", 1)],
        [3],
    )
    found = audit_structure(genotype, SETTINGS)
    assert found.normal.duplicate_edges == ((2, 0, "skip_connect"),)
    assert found.normal.inputs_not_read == (1,)
    assert found.reduction.dead_nodes == (2,)
    distinct = found.normal.standings["distinct"]["width"]
    assert distinct is not None
    assert distinct.p_value is None
    distinct = found.reduction.standings["distinct"]["width"]
    assert distinct is not None
    assert distinct.p_value == pytest.approx(1 / 3)
    json.dumps(found.record(), allow_nan=False)


def test_what_cannot_be_counted_is_none() -> None:
    declare_operation("audit_other_operation")
    own = [("audit_other_operation", 0), ("skip_connect", 1)]
    found = audit_structure(Genotype(own, [2], own * 6, [7]), SETTINGS)
    assert (found.parameters, found.live_parameters, found.multiply_adds) == (None, None, None)
    assert found.parameters_standing is None
    assert found.multiply_adds_standing is None
    assert found.reduction.wirings == 25_401_600
    assert found.reduction.standings["ordered"] == {"width": None, "depth": None, "path": None}
    assert found.normal.standings["ordered"]["width"] is not None
    json.dumps(found.record(), allow_nan=False)


def test_a_size_among_draws_has_no_p_value_of_0(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(structure, "sum_distribution", partial(sum_distribution, limit=4))
    largest = [(op, 0) for op in ("sep_conv_5x5",) * 8]
    genotype = Genotype(largest, [2, 3, 4, 5], largest, [2, 3, 4, 5])
    found = audit_structure(genotype, NetworkSettings(init_channels=4, num_cells=3)).parameters_standing
    assert found is not None
    assert not found.is_exact
    assert found.standing.total == SAMPLES + 1
    assert found.standing.above == 0
    assert found.standing.p_value is not None
    assert found.standing.p_value >= 1 / (SAMPLES + 1)
