"""The tables of an audit's page: numbers of a document in print."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from nas_lightning.audit.verdict import TESTED, can_stand_out
from nas_lightning.cells import format_width
from nas_lightning.cells.variants import RANDOM_OPERATIONS
from nas_lightning.report.table_files import html_table
from nas_lightning.report.words import MISSING, counted, listed, p_value_text, signed

TRAINED = ("accuracy", "convergence")
"""Quantities of a training that are tested; all others are analyses."""
NO_BREAK = "\N{NO-BREAK SPACE}"
_FEW, _MANY = 1000, 10_000_000
_PROPERTIES = {"width": "width", "depth": "depth", "path": "mean path"}


def share(value: float | int) -> str:
    """A share in per cent, cut and not rounded where it would read as none or all.

    Examples:
        >>> [share(value) for value in (0.0, 0.00001, 0.5, 0.99999, 1.0)]
        ['0 %', '< 0.01 %', '50 %', '> 99.99 %', '100 %']
    """
    if 0 < value < 1e-4:
        return "< 0.01 %"
    if 1 - 1e-4 < value < 1:
        return "> 99.99 %"
    return f"{100 * value:.{1 if 0.01 <= value <= 0.99 else 2}f}".rstrip("0").rstrip(".") + " %"


def number(value: float | int | None, digits: int = 4) -> str:
    """A number with some significant digits, large ones with separators, integers exact; a dash for None.

    Examples:
        >>> [number(value, 3) for value in (2858, 2587.3, 0.012345, 1.5e12, None)]
        ['2,858', '2,590', '0.0123', '1.5e+12', '—']
    """
    if value is None:
        return MISSING
    if _FEW <= abs(value) < _MANY or isinstance(value, int):
        return f"{value if float(value).is_integer() else float(f'{value:.{digits}g}'):,.0f}"
    return f"{value:.{digits}g}".replace("-", "\N{MINUS SIGN}")


def p_text(value: float | int | None) -> str:
    """A p-value; a dash for None."""
    return MISSING if value is None else p_value_text(value)


def of_total(count: int, total: int) -> str:
    """A count among all, and its share."""
    text = f"{count:,} of {total:,} ({share(count / total)})"
    return text.replace(" ", NO_BREAK) if total < _MANY else text


def wiring_table(cell: Mapping[str, Any], space: str, key: str) -> str | None:
    """Exact ranks of width, depth and mean path in a space of wirings; None where there are none."""
    corrected = _corrected(cell["verdict"]["structure"]) if space == "ordered" else None
    rows = []
    for part, name in (("normal", "normal"), ("reduction", "reduction")):
        of_space = cell["structure"][part]["standings"][space]
        for quantity, label in _PROPERTIES.items():
            found = of_space[quantity]
            if found is None:
                continue
            value = format_width(found["value"]) if quantity == "width" else f"{found['value']:.3g}"
            row = {"Property": f"{label}, {name} cell", "Value": value} | _ranks(found)
            if corrected is not None:
                row["p, corrected"] = p_text(corrected.get(f"{label} of the {name} cell"))
            rows.append(row)
    if not rows:
        return None
    caption = {
        "ordered": "Among all wirings: every edge reads any node before its own.",
        "distinct": "Among the wirings in which no node reads one node twice.",
    }[space]
    caption += " Width in the nodes' channels c, depth in edges, mean path in stages of convolution."
    return html_table(pd.DataFrame(rows), key, caption)


def _ranks(standing: Mapping[str, Any]) -> dict[str, str]:
    total = standing["total"]
    return {
        "As large or larger": of_total(standing["at_least"], total),
        "As small or smaller": of_total(standing["at_most"], total),
        "Percentile": share(standing["percentile"]),
        "p": p_text(standing["p_value"]),
    }


def _corrected(properties: Sequence[Mapping[str, Any]]) -> dict[str, float | int]:
    return {found["label"]: found["p_adjusted"] for found in properties}


def size_table(cell: Mapping[str, Any], key: str) -> str | None:
    """Parameters and multiply-adds, and where they stand over operations; None without a size."""
    structure, corrected = cell["structure"], _corrected(cell["verdict"]["structure"])
    if structure["parameters"] is None:
        return None
    over = structure["over_operations"]
    rows, sampled = [], False
    for name, label in (
        ("parameters", "parameters"),
        ("live_parameters", "live parameters"),
        ("multiply_adds", "multiply-adds"),
    ):
        row = {"Size": label, "Value": number(structure[name])}
        found = over.get(name)
        if found is not None:
            row |= _ranks(found["standing"]) | {"p, corrected": p_text(corrected.get(f"number of {label}"))}
            sampled |= not found["is_exact"]
        rows.append(row)
    caption = (
        "Ranks are among all choices of operations on the same wiring, "
        f"{len(RANDOM_OPERATIONS)} operations to choose from"
        f"{'; these are too many to count, so a sample was drawn' if sampled else ''}."
    )
    return html_table(pd.DataFrame(rows), key, caption)


def facts_table(cell: Mapping[str, Any], key: str) -> str:
    """What is not a rank: numbers of wirings, inputs never read, dead nodes, repeated edges."""
    rows = []
    for part in ("normal", "reduction"):
        found = cell["structure"][part]
        repeated = [f"{op} from {source} to {node}" for node, source, op in found["duplicate_edges"]]
        rows.append(
            {
                "Cell": part,
                "Wirings": f"{found['wirings']:,}",
                "Inputs never read": listed(map(str, found["inputs_not_read"])) or "none",
                "Dead nodes": listed(map(str, found["dead_nodes"])) or "none",
                "Repeated edges": "; ".join(repeated) or "none",
            }
        )
    return html_table(pd.DataFrame(rows), key)


def initial_table(cell: Mapping[str, Any], key: str) -> str:
    """Statistics of the initial weights among those of the controls."""
    initial, corrected = cell["initial"], _corrected(cell["verdict"]["initial"])
    rows = []
    for name, found in initial["statistics"].items():
        standing = found["standing"]
        controls = [value for value in found["controls"] if value is not None]
        row = {
            "Statistic": statistic_label(name),
            "Cell": number(standing["value"], 3),
            "Controls, median": number(statistics.median(controls), 3) if controls else MISSING,
            "Percentile": share(standing["percentile"]),
            "95 % interval": _interval(standing),
        }
        if len(found["by_seed"]) > 1:
            row["By seed"] = f"{share(min(found['by_seed']))} to {share(max(found['by_seed']))}"
        p = p_text(corrected.get(TESTED.get(name, name)))
        rows.append(row | {"p": p_text(standing["p_value"]), "p, corrected": p})
    untested = [statistic_label(name) for name in initial["statistics"] if name not in TESTED]
    seeds = counted(len(initial["seeds"]), "initial seed")
    caption = (
        f"The cell's value is its median over {seeds}." if len(initial["seeds"]) > 1 else f"One {seeds[2:]}."
    )
    if untested:
        caption += f" Not tested, only shown: {listed(untested)}."
    return html_table(pd.DataFrame(rows), key, caption)


def statistic_label(name: str) -> str:
    """A statistic of the initial weights in few words."""
    return TESTED.get(name, name.replace("_", " "))


def _interval(standing: Mapping[str, Any]) -> str:
    return f"{share(standing['low'])} to {share(standing['high'])}"


def training_table(training: Mapping[str, Any], key: str, *, analyses: bool = False) -> str | None:
    """What was trained: accuracy and convergence, or the analyses at convergence; None without any."""
    rows = []
    for found in training["quantities"]:
        if (found["name"] not in TRAINED) != analyses:
            continue
        unit = f" ({found['unit']})" if found["unit"] else ""
        row = {
            "Quantity": f"{found['label']}{unit}",
            "Better": found["better"],
            "Cell": _with_spread(found["own_mean"], found["seed_sd"]),
            "Controls": _with_spread(_mean(found["controls"]), found["controls_sd"]),
            "Rank": _rank(found),
            "p": p_text(found["p_value"]),
        }
        if analyses:
            row["p, corrected"] = p_text(found.get("p_adjusted"))
        if len(training["seeds"]) > 1:
            ranks = found["ranks_by_seed"]
            row["Rank by seed"] = ", ".join(MISSING if r is None else str(r) for r in ranks)
        beaten = f"{share(found['beaten_low'])} to {share(found['beaten_high'])}"
        rows.append(
            row
            | {
                "Random cells it beats": f"{share(found['beaten_percentile'])} ({beaten})",
                "Cell less controls": _difference(found),
            }
        )
    if not rows:
        return None
    one_seed = len(training["seeds"]) == 1
    caption = (
        (
            "One seed: no spread over seeds. "
            if one_seed
            else "Cell: mean ± standard deviation between seeds. "
        )
        + "Controls: mean ± standard deviation over controls"
        + ("." if one_seed else ", each the mean of its seeds.")
        + " Ranks: 1 is best, ties count against the cell. p: one-sided and exact. In brackets: 95 % "
        "intervals."
    )
    return html_table(pd.DataFrame(rows), key, caption)


def _mean(values: Sequence[float | int | None]) -> float | int | None:
    return None if None in values else statistics.fmean(value for value in values if value is not None)


def _digits(*values: float | int | None) -> int:
    """Decimals that show two digits of the smallest of some spreads."""
    known = [abs(value) for value in values if value]
    return max(0, min(6, 1 - math.floor(math.log10(min(known))))) if known else 2


def _with_spread(mean: float | int | None, spread: float | int | None) -> str:
    if mean is None:
        return "not finite"
    if spread is None:
        return number(mean)
    digits = _digits(spread)
    return f"{signed(mean, digits)} ± {spread:.{digits}f}"


def _difference(found: Mapping[str, Any]) -> str:
    value, low, high = (found[name] for name in ("difference", "difference_low", "difference_high"))
    if value is None:
        return MISSING
    if low is None or high is None:
        return signed(value, _digits(value))
    digits = _digits(high - low)
    return f"{signed(value, digits)} ({signed(low, digits)} to {signed(high, digits)})"


def overview_table(document: Mapping[str, Any], key: str) -> str:
    """All cells of a document side by side."""
    rows = []
    for cell in document["cells"]:
        training = cell["training"]
        row = {"Cell": cell["name"]}
        if document["level"]:
            found = {one["name"]: one for one in training["quantities"]} if training else {}
            for name, label in zip(TRAINED, ("Final accuracy", "Convergence"), strict=True):
                one = found.get(name)
                row[label] = MISSING if one is None else _rank_and_p(one)
        row["Wiring and size"] = family_text(cell["verdict"]["structure"])
        row["Initial weights"] = _initial_text(cell)
        row["Live parameters"] = number(cell["structure"]["live_parameters"])
        rows.append(row)
    return html_table(pd.DataFrame(rows), key)


def _initial_text(cell: Mapping[str, Any]) -> str:
    found, controls = cell["verdict"]["initial"], cell["initial_controls"]
    if not found or controls is None:
        return "not measured"
    if not can_stand_out(len(found), controls["count"]):
        return "too few controls for a verdict"
    return family_text(found)


def family_text(properties: Sequence[Mapping[str, Any]]) -> str:
    """The verdict on a family of properties in a table's cell."""
    if not properties:
        return "nothing tested"
    out = [found["label"] for found in properties if found["stands_out"]]
    if out:
        return f"unusual: {listed(out)}"
    least = min(found["p_adjusted"] for found in properties)
    return f"as expected (smallest corrected p {p_value_text(least, sign=True)})"


def backdrop_table(document: Mapping[str, Any], key: str) -> str | None:
    """Published cells, those of the document's own network; None without any."""
    rows = []
    for one in document["backdrop"]:
        row = {
            "Published cell": one["name"],
            "Width, normal cell": MISSING
            if one["normal_width"] is None
            else format_width(one["normal_width"]),
            "Depth": number(one["normal_depth"]),
            "Mean path": number(one["normal_path"], 3),
            "Live parameters": number(one["live_parameters"]),
            "Multiply-adds": number(one["multiply_adds"]),
        }
        for name, value in (one["initial"] or {}).items():
            row[statistic_label(name).capitalize()] = number(value, 3)
        rows.append(row)
    return html_table(pd.DataFrame(rows).fillna(MISSING), key) if rows else None


def compared_table(compared: Mapping[str, Any], key: str) -> str:
    """The cells of two audits side by side."""
    names = [one["name"] for side in compared["cells"] for one in side["ranks"] if one["name"] in TRAINED]
    rows = []
    for side in compared["cells"]:
        row = {
            "Audit": "this one" if side["audit"] == "this" else "the other",
            "Cell": side["name"],
            "Result": side["badge"],
        }
        ranks = {one["name"]: one for one in side["ranks"]}
        for name in TRAINED:
            if name in names:
                one = ranks.get(name)
                label = "Final accuracy" if name == "accuracy" else "Convergence"
                row[label] = MISSING
                if one is not None:
                    value = f"{number(one['own_mean'])} {one['unit'] or ''}".strip()
                    row[label] = f"{value.replace(' ', NO_BREAK)}; {_rank_and_p(one)}"
        row["Level 0: unusual"] = listed(side["stands_out"]) or "nothing"
        row["The same cell there"] = listed(side["same_as"]) or "no"
        rows.append(row)
    return html_table(pd.DataFrame(rows), key)


def _rank(found: Mapping[str, Any]) -> str:
    return NO_BREAK.join((str(found["rank"]), "of", str(found["of"])))


def _rank_and_p(found: Mapping[str, Any]) -> str:
    p = f"p {p_value_text(found['p_value'], sign=True)}".replace(" ", NO_BREAK)
    return f"rank{NO_BREAK}{_rank(found)}, {p}"


def settings_table(compared: Mapping[str, Any], key: str) -> str | None:
    """Settings in which two audits differ; None where they agree."""
    rows = [
        {"Setting": one["setting"], "This audit": shown(one["this"]), "The other": shown(one["other"])}
        for one in compared["settings"]
    ]
    return html_table(pd.DataFrame(rows), key) if rows else None


def shown(value: Any) -> str:
    """A setting in print."""
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "none"
    return "not set" if value is None else str(value)
