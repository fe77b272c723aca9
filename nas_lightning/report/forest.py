"""The claims as forest plots: the effect and interval of every test, one a row."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nas_lightning.figures.effects import Effect, EffectPanel, draw_forest
from nas_lightning.report.claims import PREDICTORS, Claim
from nas_lightning.report.live import Drawing, live_forest
from nas_lightning.report.words import say

_TAU_LIMITS = (-1.06, 1.06)


def forest(claims: Sequence[Claim], *, primary: bool) -> Drawing | None:
    """Effects of the tested claims with their intervals, one panel a kind of effect; None without data.

    The primary tests have a row each; of the others, those without data are only named.
    """
    chosen = [claim for claim in claims if claim.primary == primary]
    known = [claim for claim in chosen if np.isfinite(claim.effect)]
    if not known:
        return None
    rows = chosen if primary else known
    panels = []
    for name in dict.fromkeys(claim.effect_name for claim in rows):
        effects = [_effect(claim) for claim in rows if claim.effect_name == name]
        panels.append(EffectPanel(effects, name, limits=_TAU_LIMITS if "tau" in name else None))
    absence = any(claim.bound is not None for claim in rows)
    empty = [_effect(claim).name for claim in chosen if claim not in rows]
    title = "Effects behind the claims" if primary else "The same by other statistics"
    caption = say("forest", absence=absence, empty=empty)
    return Drawing(title, caption, draw_forest(panels), live_forest(panels))


def _effect(claim: Claim) -> Effect:
    said = claim.statement.label if claim.primary else claim.statistic.name
    name = f"{said}, {PREDICTORS[claim.predictor]}"
    return Effect(name, claim.effect, claim.low, claim.high, claim.verdict, claim.bound)
