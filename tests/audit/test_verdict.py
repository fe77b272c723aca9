from __future__ import annotations

import json
from dataclasses import replace
from types import MappingProxyType

import numpy as np
import pytest

from nas_lightning.audit import Structure, among_controls, audit_structure, level_0_verdict
from nas_lightning.audit.document import level_0_badge
from nas_lightning.audit.initial import STATISTICS, Initial, InitialSettings, InitialStatistic
from nas_lightning.audit.structure import NetworkSettings
from nas_lightning.cells import get_genotype
from nas_lightning.report.resampling import holm


@pytest.fixture(scope="module")
def structure() -> Structure:
    return audit_structure(get_genotype("darts_v2"), NetworkSettings(init_channels=4, num_cells=3))


def initial(count: int, ranks: dict[str, int]) -> Initial:
    """A cell that has so many of its controls below it, the middle by default."""
    values = np.arange(count, dtype=float)
    found = {
        name: InitialStatistic(
            name=name,
            own=(1.0,),
            controls=tuple(values),
            standing=among_controls(ranks.get(name, count // 2) - 0.5, values),
            by_seed=(0.5,),
        )
        for name in STATISTICS
    }
    return Initial(InitialSettings(), 4, MappingProxyType(found))


def test_p_values_are_corrected_within_each_family(structure: Structure) -> None:
    verdict = level_0_verdict(structure, initial(200, {"gradient_norm": 200, "gradient_variance": 190}))
    for family in (verdict.structure, verdict.initial):
        raw = [found.standing.p_value for found in family]
        assert [found.p_adjusted for found in family] == holm([p for p in raw if p is not None])
    assert [len(verdict.structure), len(verdict.initial)] == [8, 4]
    assert len(verdict.sentences) == 2
    json.dumps(verdict.record(), allow_nan=False)


def test_what_stands_out_is_named(structure: Structure) -> None:
    verdict = level_0_verdict(structure, initial(200, {"tangent_kernel_trace": 200}))
    assert verdict.sentences[1] == (
        "At its initial weights, among 200 random cells with the same operations and live "
        "parameters within 5 %, its gradients and curvature are not as expected of a random cell: "
        "the tangent-kernel trace is above "
        "that of all 200 controls, p = 0.0398 (Holm's correction for 4 properties)."
    )
    assert not verdict.as_expected
    low = level_0_verdict(structure, initial(200, {"gradient_curvature": 0}))
    assert "curvature along the gradient is below that of all 200 controls" in low.sentences[1]


def test_what_is_as_expected_is_said_to_be(structure: Structure) -> None:
    verdict = level_0_verdict(structure, initial(200, {}))
    assert verdict.sentences[1].endswith(
        "are as expected of a random cell (smallest p = 1, Holm's correction for 4 properties)."
    )


def test_too_few_controls_decide_nothing(structure: Structure) -> None:
    verdict = level_0_verdict(structure, initial(20, {"gradient_norm": 20}))
    assert verdict.sentences[1] == (
        "At its initial weights, 20 controls are too few for a verdict: after Holm's correction for 4 "
        "properties no p-value can be below 0.38."
    )
    verdict = level_0_verdict(structure, initial(1, {}))
    assert verdict.sentences[1].startswith("At its initial weights, one control is too few for a verdict")
    assert verdict.sentences[1].endswith("no p-value can be below 1.")


def test_a_cell_that_is_wide_and_shallow_is_found_out() -> None:
    wide = audit_structure(get_genotype("enas"), NetworkSettings(init_channels=4, num_cells=3))
    verdict = level_0_verdict(wide)
    assert len(verdict.sentences) == 1
    assert verdict.sentences[0].startswith("Its wiring and its size are not as expected of a random cell: ")
    assert "the width of the normal cell is above that of" in verdict.sentences[0]


def test_nothing_to_test_is_said(structure: Structure) -> None:
    nothing = {space: dict.fromkeys(("width", "depth", "path")) for space in ("ordered", "distinct")}
    empty = replace(
        structure,
        normal=replace(structure.normal, standings=nothing),
        reduction=replace(structure.reduction, standings=nothing),
        parameters_standing=None,
        multiply_adds_standing=None,
    )
    verdict = level_0_verdict(empty)
    assert verdict.structure == ()
    assert verdict.as_expected
    assert verdict.sentences[0].endswith("nothing was tested.")


def test_a_verdict_is_about_what_was_tested(structure: Structure) -> None:
    unsized = replace(structure, parameters_standing=None, multiply_adds_standing=None)
    assert level_0_verdict(unsized).sentences[0].startswith("Its wiring is as expected of a random cell (")
    badge = level_0_badge(level_0_verdict(unsized).record(), None)
    assert badge == "level 0: wiring as expected of a random cell"
    # NASNet has operations that no random choice has: its size is not tested.
    wide = level_0_verdict(audit_structure(get_genotype("nasnet"), NetworkSettings(4, 3)))
    assert wide.sentences[0].startswith("Its wiring is not as expected of a random cell: ")
    assert len(wide.structure) == 6
