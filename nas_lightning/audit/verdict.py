"""The verdict of level 0: two sentences, each over a family of properties with Holm's correction.

The first is about wiring and size, against all wirings (nodes that read one node twice included) and all
choices of operations; the second about
initial weights, against matched controls. Each family is corrected by itself for its number of properties.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nas_lightning.audit.controls import TOLERANCE_PERCENT
from nas_lightning.audit.standing import Standing
from nas_lightning.audit.structure import Structure
from nas_lightning.report.resampling import holm
from nas_lightning.report.uncorrected import ALPHA
from nas_lightning.report.words import p_value_text

if TYPE_CHECKING:
    from nas_lightning.audit.initial import Initial

TESTED: dict[str, str] = {
    "gradient_norm": "gradient norm",
    "gradient_variance": "gradient variance",
    "tangent_kernel_trace": "tangent-kernel trace",
    "gradient_curvature": "curvature along the gradient",
}
"""Statistics of initial weights that the verdict tests; the others are shown. With 200 controls the smallest
p-value, 2 / 201, stays below 5 % after a correction for four."""

_CELL_PROPERTIES = {"width": "width", "depth": "depth", "path": "mean path"}


@dataclass(frozen=True)
class Property:
    """A property that was tested.

    Attributes:
        key: ``CELL/QUANTITY`` of wiring, else the quantity: ``normal/width``, ``multiply_adds``.
        label: In words.
        compared_with: What it was ranked among, in words.
        standing: Its rank.
        p_adjusted: The p-value after Holm's correction for its family.
    """

    key: str
    label: str
    compared_with: str
    standing: Standing
    p_adjusted: float

    @property
    def stands_out(self) -> bool:
        """Whether it is not as expected of a random cell."""
        return self.p_adjusted <= ALPHA

    def record(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "key": self.key,
            "label": self.label,
            "compared_with": self.compared_with,
            "p_value": self.standing.p_value,
            "p_adjusted": self.p_adjusted,
            "percentile": self.standing.percentile,
            "stands_out": self.stands_out,
        }


@dataclass(frozen=True)
class Verdict:
    """Two sentences and the properties behind them.

    Attributes:
        structure: Properties of wiring and size.
        initial: Properties of initial weights; empty if they were not measured.
        sentences: One about each family that was tested.
    """

    structure: tuple[Property, ...]
    initial: tuple[Property, ...]
    sentences: tuple[str, ...]

    @property
    def as_expected(self) -> bool:
        """Whether nothing stands out."""
        return not any(found.stands_out for found in (*self.structure, *self.initial))

    def record(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "alpha": ALPHA,
            "correction": "Holm, within each family",
            "as_expected": self.as_expected,
            "sentences": list(self.sentences),
            "structure": [found.record() for found in self.structure],
            "initial": [found.record() for found in self.initial],
        }


def level_0_verdict(structure: Structure, initial: Initial | None = None) -> Verdict:
    """Say whether a cell is as expected of a random one, and what is not.

    Args:
        structure: Ranks of wiring and size.
        initial: Ranks of initial weights, where they were measured.
    """
    wiring = _adjusted(_structure_family(structure))
    parts = tested_parts(found.key for found in wiring)
    sentences = [_sentence(wiring, f"Its {' and its '.join(parts)} {'is' if len(parts) == 1 else 'are'}")]
    weights: tuple[Property, ...] = ()
    if initial is not None:
        weights = _adjusted(_initial_family(initial))
        count = weights[0].standing.total
        among = (
            f"among {count} random cells with the same operations and live parameters within "
            f"{TOLERANCE_PERCENT} %"
        )
        least = 2 / (count + 1) * len(weights)
        if not can_stand_out(len(weights), count):
            number = "one control is" if count == 1 else f"{count} controls are"
            sentences.append(
                f"At its initial weights, {number} too few for a verdict: after Holm's correction for "
                f"{len(weights)} properties no p-value can be below {min(1.0, least):.2g}."
            )
        else:
            said = f"At its initial weights, {among}, its gradients and curvature are"
            sentences.append(_sentence(weights, said))
    return Verdict(wiring, weights, tuple(sentences))


def tested_parts(keys: Iterable[str]) -> list[str]:
    """Which of ``"wiring"`` and ``"size"`` the properties of a cell's structure are about, by their keys.

    Examples:
        >>> tested_parts(["normal/width", "parameters"]), tested_parts(["reduction/path"])
        (['wiring', 'size'], ['wiring'])
    """
    about_wiring = {"/" in key for key in keys}
    return [part for part, is_wiring in (("wiring", True), ("size", False)) if is_wiring in about_wiring]


def can_stand_out(properties: int, controls: int) -> bool:
    """Whether the smallest two-sided p-value among controls stays below the level after Holm's correction."""
    return 2 / (controls + 1) * properties <= ALPHA


def _structure_family(structure: Structure) -> Iterable[tuple[str, str, str, Standing | None]]:
    for cell in (structure.normal, structure.reduction):
        for name, label in _CELL_PROPERTIES.items():
            standing = cell.standings["ordered"][name]
            yield f"{cell.name}/{name}", f"{label} of the {cell.name} cell", "wirings of this cell", standing
    choices = "choices of operations"
    for name, label, found in (
        ("parameters", "number of parameters", structure.parameters_standing),
        ("multiply_adds", "number of multiply-adds", structure.multiply_adds_standing),
    ):
        yield name, label, choices, None if found is None else found.standing


def _initial_family(initial: Initial) -> Iterable[tuple[str, str, str, Standing | None]]:
    for name, label in TESTED.items():
        yield name, label, "controls", initial.statistics[name].standing


def _adjusted(family: Iterable[tuple[str, str, str, Standing | None]]) -> tuple[Property, ...]:
    tested = [
        (key, label, among, standing, standing.p_value)
        for key, label, among, standing in family
        if standing is not None and standing.p_value is not None
    ]
    adjusted = holm([p for *_, p in tested])
    return tuple(
        Property(key, label, among, standing, p)
        for (key, label, among, standing, _), p in zip(tested, adjusted, strict=True)
    )


def _sentence(properties: Sequence[Property], beginning: str) -> str:
    count = len(properties)
    if not count:
        return "Its wirings are too many to be counted and its operations have no size: nothing was tested."
    number = "one property" if count == 1 else f"{count} properties"
    correction = f"Holm's correction for {number}"
    out = sorted((found for found in properties if found.stands_out), key=lambda found: found.p_adjusted)
    if not out:
        least = p_value_text(min(found.p_adjusted for found in properties), sign=True)
        return f"{beginning} as expected of a random cell (smallest p {least}, {correction})."
    described = "; ".join(map(_described, out))
    return f"{beginning} not as expected of a random cell: {described} ({correction})."


def _described(found: Property) -> str:
    standing = found.standing
    is_large = standing.percentile > 0.5
    beaten = standing.below if is_large else standing.above
    word = "above" if is_large else "below"
    if beaten == standing.total:
        share = f"all {standing.total:,}"
    elif standing.total <= 1000:
        share = f"{beaten} of {standing.total}"
    else:
        # Cut, not rounded: 100 % would be all of them.
        share = f"{math.floor(10_000 * beaten / standing.total) / 100:g} % of {standing.total:,}"
    p = p_value_text(found.p_adjusted, sign=True)
    return f"the {found.label} is {word} that of {share} {found.compared_with}, p {p}"
