from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from nas_lightning.audit.standing import among_controls, in_space
from nas_lightning.report.original import OriginalBlock, original_rank

VALUES = np.random.RandomState(0).randint(0, 12, size=60).astype(float)


def mid(value: float, values: np.ndarray) -> Fraction:
    below, equal = int((values < value).sum()), int((values == value).sum())
    return (Fraction(below) + Fraction(equal, 2)) / len(values)


@pytest.mark.parametrize("value", [0.0, 5.0, 11.0])
def test_a_rank_in_a_space_is_counted(value: float) -> None:
    found = in_space(value, VALUES)
    assert found is not None
    assert (found.below, found.equal, found.above) == (
        int(np.less(VALUES, value).sum()),
        int(np.equal(VALUES, value).sum()),
        int(np.greater(VALUES, value).sum()),
    )
    half = Fraction(1, 2)
    as_far = [abs(mid(other, VALUES) - half) >= abs(mid(value, VALUES) - half) for other in VALUES]
    assert found.p_value == pytest.approx(sum(as_far) / len(VALUES), abs=1e-12)
    assert found.percentile == pytest.approx(float(mid(value, VALUES)))
    assert found.at_least + found.below == found.at_most + found.above == len(VALUES)
    values, counts = np.unique(VALUES, return_counts=True)
    assert in_space(value, values, counts) == found


def test_p_values_of_a_uniform_draw_are_valid_at_every_level() -> None:
    for values in (VALUES, np.arange(7.0), np.ones(5)):
        p_values = np.array([found.p_value for v in values if (found := in_space(v, values))])
        for level in p_values:
            assert (p_values <= level).mean() <= level + 1e-12
    without_ties = sorted(found.p_value or 0 for v in range(4) if (found := in_space(v, np.arange(4.0))))
    assert without_ties == [0.5, 0.5, 1.0, 1.0]


def test_rounding_breaks_no_tie_and_a_stranger_has_no_p_value() -> None:
    found = in_space(0.1 + 0.2, np.array([0.3, 0.3, 0.4, np.nan]), digits=9, member=False)
    assert found is not None
    assert (found.below, found.equal, found.total, found.p_value) == (0, 2, 3, None)
    assert in_space(np.nan, VALUES) is None
    assert in_space(1.0, np.array([])) is None


@pytest.mark.parametrize("value", [-1.0, 4.0, 7.5, 20.0])
def test_a_rank_among_controls_is_that_of_an_original_among_its_variants(value: float) -> None:
    controls = VALUES[:19]
    found = among_controls(value, controls)
    expected = original_rank([OriginalBlock(np.append(value, controls)[None])])
    assert found.percentile == pytest.approx(expected.effect)
    assert found.p_value == pytest.approx(expected.p_value)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))


def test_what_overflows_is_larger_than_all() -> None:
    assert among_controls(np.nan, np.array([1.0, np.inf, 3.0])).below == 2
    with pytest.raises(ValueError, match="no controls"):
        among_controls(1.0, np.array([]))
