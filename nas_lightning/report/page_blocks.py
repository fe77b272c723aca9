"""Claims and tables as the page's template takes them."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import pandas as pd

from nas_lightning.report.claims import Claim
from nas_lightning.report.measures import PREDICTORS
from nas_lightning.report.table_text import MISSING, p_value_text

_NUMBER = re.compile(r"(?:< )?[-−+]?[\d.]+( ?%| ?[±(].*| to [-−+]?[\d.]+)?$")  # noqa: RUF001  (a minus sign is what it looks for)


def html_table(frame: pd.DataFrame, caption: str = "") -> dict[str, Any]:
    """A table as the template takes it.

    Args:
        frame: Cells, as text or as numbers; column names are the header.
        caption: What stands above it.

    Returns:
        ``caption``; ``columns``, each with ``name`` and whether it holds numbers (they stand to the right);
        ``rows`` of text, a dash for what is missing.
    """
    rows = [[_text(value) for value in row] for row in frame.itertuples(index=False, name=None)]
    columns = []
    for index, name in enumerate(frame.columns):
        said = [row[index] for row in rows if row[index] != MISSING]
        columns.append({"name": str(name), "number": bool(said) and all(map(_NUMBER.match, said))})
    return {"caption": caption, "columns": columns, "rows": rows}


def claim_blocks(claims: Sequence[Claim]) -> list[dict[str, Any]]:
    """Claims as the template takes them: all tests of a claim together.

    Args:
        claims: Tests.

    Returns:
        One block a claim, in their order: ``statement``, ``section``, ``class`` (the verdict that the tests
        of the primary measure share, else ``mixed``), ``primary`` (tests of the primary measure in full),
        ``others`` (a table of the rest, or None).
    """
    by_key: dict[str, list[Claim]] = {}
    for claim in claims:
        by_key.setdefault(claim.key, []).append(claim)
    return [_claim_block(tests) for tests in by_key.values()]


def _claim_block(tests: list[Claim]) -> dict[str, Any]:
    primary = [claim for claim in tests if claim.primary] or tests[:1]
    others = [claim for claim in tests if claim not in primary]
    verdicts = {claim.verdict for claim in primary}
    section = primary[0].section
    return {
        "statement": primary[0].statement,
        "section": f"Section {section}" if section[:1].isdigit() else section,
        "class": verdicts.pop().replace(" ", "-") if len(verdicts) == 1 else "mixed",
        "primary": [_test_block(claim) for claim in primary],
        "others": _others(others) if others else None,
    }


def _test_block(claim: Claim) -> dict[str, Any]:
    return {
        "verdict": claim.verdict,
        "class": claim.verdict.replace(" ", "-"),
        "about": PREDICTORS.get(claim.predictor, claim.predictor),
        "effect": _effect(claim),
        "explanation": claim.explanation,
        "test": claim.test,
        "groups": None if claim.groups.empty else html_table(claim.groups),
    }


def _effect(claim: Claim) -> str:
    """Effect, interval and corrected p-value, as short as can be: the explanation has them in words."""
    if not _known(claim.effect):
        return ""
    text = f"{claim.effect_name} {_signed(claim.effect)}"
    if _known(claim.low) and _known(claim.high):
        text += f" (95 % interval {_signed(claim.low)} to {_signed(claim.high)})"
    if _known(claim.p_adjusted):
        text += f", p (Holm) {p_value_text(claim.p_adjusted, sign=True)}"
    return text


def _others(claims: list[Claim]) -> dict[str, Any]:
    rows = [
        {
            "measure": claim.measure_name,
            "compared": PREDICTORS.get(claim.predictor, claim.predictor),
            "effect": _signed(claim.effect),
            "from": _signed(claim.low),
            "to": _signed(claim.high),
            "p (Holm)": p_value_text(claim.p_adjusted),
            "verdict": claim.verdict,
        }
        for claim in claims
    ]
    return html_table(pd.DataFrame(rows))


def _known(value: float | int | None) -> bool:
    return value is not None and math.isfinite(value)


def _signed(value: float | int | None) -> str:
    """A number with the minus sign of print."""
    return f"{value:.2f}".replace("-", "−") if value is not None and _known(value) else MISSING  # noqa: RUF001


def _text(value: Any) -> str:
    if not isinstance(value, str) and pd.isna(value):
        return MISSING
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value) or MISSING
