"""The claims as forest plots: the effect and interval of every test, one a row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Literal, TypeAlias

import numpy as np

from nas_lightning.figures.effects import Effect, EffectPanel, draw_forest
from nas_lightning.report.claims import Claim
from nas_lightning.report.live import Drawing
from nas_lightning.report.live_forest import live_forest
from nas_lightning.report.words import say

Part: TypeAlias = Literal["primary", "predictors", "statistics"]

_LIMITS = {
    "Kendall's tau-b": (-1.06, 1.06),
    "partial rank correlation": (-1.06, 1.06),
    "mid-percentile": (-0.03, 1.03),
    "mid-percentile among wirings": (-0.03, 1.03),
}
_TITLES: Mapping[Part, str] = MappingProxyType(
    {
        "primary": "Effects behind the claims",
        "predictors": "Path, tests given other quantities, and the rank of the original",
        "statistics": "Width and depth by other statistics",
    }
)


def forest(claims: Sequence[Claim], part: Part = "primary") -> Drawing | None:
    """Effects of the tested claims with their intervals, one panel a kind of effect; None without data.

    Parts: the primary tests; exploratory tests of the same statistics with other predictors; those of other
    statistics. The caption names the tests without data.
    """
    chosen = [claim for claim in claims if _part(claim) == part]
    known = [claim for claim in chosen if np.isfinite(claim.effect)]
    if not known:
        return None
    panels = []
    for name in dict.fromkeys(claim.effect_name for claim in known):
        of_kind = [claim for claim in known if claim.effect_name == name]
        effects = [_effect(claim) for claim in of_kind]
        panels.append(EffectPanel(effects, name, of_kind[0].null, _LIMITS.get(name)))
    caption = say(
        "forest",
        primary=part == "primary",
        absence=any(claim.statement.absence for claim in known),
        original=any(claim.predictor == "original" for claim in known),
        empty=[_effect(claim).name for claim in chosen if claim not in known],
    )
    return Drawing(_TITLES[part], caption, draw_forest(panels), live_forest(panels))


def _part(claim: Claim) -> Part:
    if claim.primary:
        return "primary"
    return "predictors" if claim.statistic.primary else "statistics"


def _effect(claim: Claim) -> Effect:
    said = claim.statistic.name
    if claim.primary:
        said = claim.statement.label + (f" ({claim.statistic.label})" if claim.statistic.label else "")
    name = f"{said}, {claim.compared}"
    return Effect(name, claim.effect, claim.low, claim.high, claim.verdict, claim.bound)
