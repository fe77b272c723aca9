from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from scipy import stats

from nas_lightning.audit.controls import PairSpace, _draw, matched_controls
from nas_lightning.cells import (
    Genotype,
    UnknownOperationSize,
    count_parameters,
    declare_operation,
    get_genotype,
    published_genotypes,
    reads_inputs,
)
from nas_lightning.cells.size import operation_cost
from tests.oracles import matched_wirings as oracle

SMALL: dict[str, Any] = {"init_channels": 4, "num_cells": 4, "num_classes": 10}
LOOSE_ENDS = Genotype(
    [("sep_conv_3x3", 0), ("skip_connect", 1), ("conv_3x3", 0), ("none", 2)],
    [3],
    [("skip_connect", 0), ("dil_conv_5x5", 1), ("max_pool_3x3", 1), ("skip_connect", 2)],
    [2, 3],
)
ONE_NODE = Genotype(
    [("sep_conv_3x3", 0), ("skip_connect", 1)], [2], [("max_pool_3x3", 0), ("skip_connect", 1)], [2]
)
UNEVEN = Genotype(
    [[("sep_conv_3x3", 0)], [], [("skip_connect", 2), ("conv_1x1", 1), ("none", 0)]],
    [2, 4],
    [[("conv_3x3", 1)], [("avg_pool_3x3", 0)]],
    [3],
)


@pytest.mark.parametrize("genotype", [LOOSE_ENDS, ONE_NODE, UNEVEN], ids=["loose ends", "one node", "uneven"])
@pytest.mark.parametrize("num_cells", [1, 4])
def test_all_controls_are_those_found_by_listing_every_pair(genotype: Genotype, num_cells: int) -> None:
    settings = SMALL | {"num_cells": num_cells}
    expected = oracle.matched(genotype, **settings)
    found = matched_controls(genotype, 10_000, **settings)
    assert found.total == len(expected) > 0
    assert found.is_everyone
    assert Counter(found.genotypes) == Counter(expected)
    for pair, size in zip(found.genotypes, found.live_parameters, strict=True):
        assert size == count_parameters(pair, **settings, live=True)


def test_every_member_of_a_class_has_the_same_class() -> None:
    controls = matched_controls(LOOSE_ENDS, 10_000, **SMALL)
    everyone = {LOOSE_ENDS, *controls.genotypes}
    for member in controls.genotypes[::60]:
        assert {member, *matched_controls(member, 10_000, **SMALL).genotypes} == everyone


@pytest.mark.parametrize("name", ["darts_v2", "enas", "nasnet", "fairdarts_b"])
def test_controls_of_published_cells_match(name: str) -> None:
    genotype = published_genotypes()[name].genotype
    controls = matched_controls(genotype, 5)
    own = controls.own_live_parameters
    assert own == count_parameters(genotype, live=True)
    assert len({genotype, *controls.genotypes}) == 6
    for control, size in zip(controls.genotypes, controls.live_parameters, strict=True):
        assert size == count_parameters(control, live=True)
        assert 0.95 * own <= size <= 1.05 * own
        for reduction in (False, True):
            (edges, concat), (base, _) = control.cell(reduction), genotype.cell(reduction)
            assert [edge.op for edge in edges] == [edge.op for edge in base]
            assert sum(reads_inputs(edges, concat)) == sum(reads_inputs(base, concat))


def test_a_seed_gives_the_same_controls_everywhere() -> None:
    controls = matched_controls(get_genotype("darts_v2"), 3, seed=7)
    assert controls.wirings == matched_controls(get_genotype("darts_v2"), 3, seed=7).wirings
    assert controls.wirings != matched_controls(get_genotype("darts_v2"), 3, seed=8).wirings
    assert [get_genotype(f"darts_v2:wiring={text}") for text in controls.wirings] == list(controls.genotypes)
    assert controls.wirings == ("10202134/10112241", "11012242/10001013", "10201230/01023023")


@pytest.mark.parametrize("count", [60, 100])
def test_draws_are_uniform(count: int) -> None:
    space = PairSpace(LOOSE_ENDS, *SMALL.values())
    assert space.class_size > 40
    generator, drawn = np.random.RandomState(0), Counter[int]()
    for _ in range(4000 // count):
        drawn.update(_draw(generator, space, count))
    assert space.own_index not in drawn
    assert len(drawn) == space.class_size - 1
    assert stats.chisquare(list(drawn.values())).pvalue > 1e-3


def test_the_audited_pair_has_its_place_in_its_class() -> None:
    for genotype in (LOOSE_ENDS, UNEVEN, get_genotype("darts_v2")):
        space = PairSpace(genotype, *SMALL.values())
        assert space.pair(space.own_index)[0] == genotype
        assert space.pair(0)[1] in range(space.smallest, space.largest + 1)
        assert space.pair(space.class_size - 1)[1] in range(space.smallest, space.largest + 1)


def test_bad_input_is_one_clear_line() -> None:
    with pytest.raises(ValueError, match=r"`count` \(=2\) must be at least 3"):
        matched_controls(ONE_NODE, 2)
    with pytest.raises(ValueError, match="seed -1"):
        matched_controls(ONE_NODE, seed=-1)
    single = [[("sep_conv_3x3", 0)]]
    with pytest.raises(ValueError, match="no matched control"):
        # Whether the reduction cell reads input 0 or 1 decides which cells are live, and so the size.
        matched_controls(Genotype(single, [2], single, [2]), **SMALL)
    many = [("sep_conv_3x3", 0), ("skip_connect", 1)] * 6
    with pytest.raises(ValueError, match="reduction cell has 25,401,600 wirings"):
        matched_controls(Genotype(ONE_NODE.normal, [2], many, [7]))
    declare_operation("audit_own_operation")
    own = [("audit_own_operation", 0), ("skip_connect", 1)]
    with pytest.raises(UnknownOperationSize, match="no controls of the same size: operation 'audit_own_op"):
        matched_controls(Genotype(own, [2], own, [2]))


def test_a_class_may_have_few_members() -> None:
    convolutions = [("sep_conv_3x3", 0), ("sep_conv_3x3", 0)]
    genotype = Genotype(convolutions, [2], [("sep_conv_3x3", 0), ("sep_conv_3x3", 1)], [2])
    controls = matched_controls(genotype, **SMALL)
    assert (controls.total, controls.asked, controls.is_everyone) == (1, 200, True)
    # The only other pair swaps the two convolutions of the reduction cell.
    assert controls.wirings == ("00/10",)
    assert Counter(controls.genotypes) == Counter(oracle.matched(genotype, **SMALL))


def test_operations_without_parameters_match_too() -> None:
    assert operation_cost("max_pool_3x3", 4, 1, 1).parameters == 0
    pools = [("max_pool_3x3", 0), ("max_pool_3x3", 1)] * 2
    genotype = Genotype(pools, [2, 3], pools[:2], [2])
    assert matched_controls(genotype, 10_000, **SMALL).total == len(oracle.matched(genotype, **SMALL))
