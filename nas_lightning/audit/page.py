"""The page of an audit: one HTML text that needs nothing else, no script either."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from nas_lightning.audit import tables
from nas_lightning.audit.badge import badge
from nas_lightning.audit.tables import TRAINED, statistic_label
from nas_lightning.audit.verdict import ALPHA, TESTED
from nas_lightning.cells.genotype import CellEdges, Edge, cell_edges
from nas_lightning.figures.audit import (
    AuditCurves,
    StandingRow,
    Strip,
    draw_audit_curves,
    draw_picks,
    draw_rank_by_epoch,
    draw_standings,
    draw_strips,
)
from nas_lightning.figures.cell import draw_cell
from nas_lightning.identity import flatten
from nas_lightning.report.pictures import asset, still
from nas_lightning.report.words import counted, environment

_ON_TOP = 2
"""Sentences about the trainings that stand in the verdict; the others stand with the evidence."""
_CURVES = {"loss": "test loss (nat)", "accuracy": "test accuracy (%)"}


def page(document: Mapping[str, Any]) -> str:
    """The page of a document; the same document gives the same text.

    Args:
        document: A valid one, see :func:`nas_lightning.audit.document.assemble`.

    Returns:
        HTML without a reference to anything outside and without scripts.
    """
    cells = [_cell(document, place) for place in range(len(document["cells"]))]
    repeat = document["repeat"]
    data = repeat["data"]
    return (
        environment(html=True, package="nas_lightning.audit")
        .get_template("page.html")
        .render(
            document=document,
            cells=cells,
            several=len(cells) > 1,
            overview=_markup(tables.overview_table(document, "overview")),
            compared=_compared(document.get("compared_with")),
            backdrop=_markup(tables.backdrop_table(document, "backdrop")),
            limits=_limits(document),
            settings=_settings(document["settings"]),
            versions=_pairs(repeat["versions"]),
            machine=_pairs(repeat["machine"]),
            seeds=_pairs(repeat["seeds"]),
            seconds=[
                (name, f"{value:.3g} s") for name, value in repeat["seconds"].items() if value is not None
            ],
            data_name=data and data["name"],
            checksums=[(split, sum_) for split, sum_ in (data or {"sha256": {}})["sha256"].items() if sum_],
            alpha=ALPHA,
            css=asset("page.css") + asset("page.css", "nas_lightning.audit"),
        )
    )


def _markup(html: str | None) -> Markup | None:
    return None if html is None else Markup(html)


def _pairs(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What is set, by dotted names."""
    return [
        (name, tables.shown(value)) for name, value in flatten(values).items() if value not in (None, [], {})
    ]


def _settings(settings: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The audit's settings, those of the data under the names that a user gives them."""
    return [
        (name.replace("data.data.", "data.").replace(".init_args.", "."), value)
        for name, value in _pairs(settings)
        if not name.endswith("class_path")
    ]


def _cell(document: Mapping[str, Any], place: int) -> dict[str, Any]:
    """One cell as the template takes it."""
    cell, key = document["cells"][place], f"cell{place + 1}"
    training, initial = cell["training"], cell["initial"]
    settings = _pairs(training["settings"]) if training else []
    found: dict[str, Any] = {
        "record": cell,
        "key": key,
        "badge": Markup(badge(cell["badge"])),
        "verdict": _verdict(cell),
        "drawing": _drawing(cell),
        "facts": Markup(tables.facts_table(cell, f"{key}-facts")),
        "wiring": _markup(tables.wiring_table(cell, "ordered", f"{key}-wiring")),
        "distinct": _markup(tables.wiring_table(cell, "distinct", f"{key}-distinct")),
        "size": _markup(tables.size_table(cell, f"{key}-size")),
        "standings": _standings(cell),
        "initial": None,
        "training": None,
    }
    if initial is not None:
        found["initial"] = {
            "record": initial,
            "table": Markup(tables.initial_table(cell, f"{key}-initial")),
            "strips": _initial_strips(cell, document["backdrop"]),
            "has_backdrop": any(one["initial"] for one in document["backdrop"]),
        }
    if training is not None:
        found["training"] = {
            "record": training,
            "table": _markup(tables.training_table(training, f"{key}-training")),
            "analyses": _markup(tables.training_table(training, f"{key}-analyses", analyses=True)),
            "strips": _training_strips(cell["name"], training),
            "curves": _curves(cell["name"], training),
            "budget": _budget(cell["name"], training),
            "further": training["sentences"][_ON_TOP:],
            "settings": settings,
        }
    return found


def _verdict(cell: Mapping[str, Any]) -> list[str]:
    """The sentences on top: the first about the trainings, then those of level 0."""
    training = cell["training"]
    if training is None:
        return list(cell["sentences"])
    return [*training["sentences"][:_ON_TOP], *cell["verdict"]["sentences"]]


def _picture(figure: Any, alt: str) -> dict[str, Any]:
    return {"alt": alt, **still(figure)}


def _drawing(cell: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Both cells, drawn one by one: side by side where there is room."""
    genotype = cell["genotype"]
    return [
        _picture(
            draw_cell(_edges(genotype[kind]), genotype[f"{kind}_concat"], f"{name} cell"),
            f"The {name} cell of {cell['name']}: inputs left, nodes by depth, output right, an operation on "
            "every edge",
        )
        for kind, name in (("normal", "normal"), ("reduce", "reduction"))
    ]


def _edges(listed: Sequence[Any]) -> CellEdges:
    """Edges as a document has them: flat with two a node, or a list for each node."""
    if listed and all(len(entry) == 2 and isinstance(entry[0], str) for entry in listed):
        return cell_edges([Edge(*entry) for entry in listed])
    return CellEdges([Edge(*edge) for edge in node] for node in listed)


def _standings(cell: Mapping[str, Any]) -> dict[str, Any] | None:
    """Level 0 at a glance."""
    rows = [
        StandingRow(
            group="Wiring and size: exact",
            label=found["label"],
            percentile=found["percentile"],
            low=found["percentile"],
            high=found["percentile"],
            stands_out=found["stands_out"],
        )
        for found in cell["verdict"]["structure"]
    ]
    if cell["initial"] is not None:
        count = len(next(iter(cell["initial"]["statistics"].values()))["controls"])
        tested = {found["label"]: found["stands_out"] for found in cell["verdict"]["initial"]}
        rows += [
            StandingRow(
                group=f"Initial weights: among {counted(count, 'control')}",
                label=statistic_label(name),
                **{end: found["standing"][end] for end in ("percentile", "low", "high")},
                stands_out=tested.get(TESTED[name]) if name in TESTED else None,
            )
            for name, found in cell["initial"]["statistics"].items()
        ]
    if not rows:
        return None
    out = sum(row.stands_out is True for row in rows)
    alt = f"Percentiles of {cell['name']} in {len(rows)} properties, of which {out or 'none'} are unusual"
    return _picture(draw_standings(rows), alt)


def _array(values: Sequence[Any]) -> np.ndarray:
    return np.array(values, dtype=float)  # None becomes NaN


def _initial_strips(cell: Mapping[str, Any], backdrop: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    strips = [
        Strip(
            label=statistic_label(name),
            controls=_array(found["controls"]),
            own=float(_array([found["standing"]["value"]])[0]),
            seeds=_array(found["own"]),
            published=_array([one["initial"].get(name) for one in backdrop if one["initial"]]),
        )
        for name, found in cell["initial"]["statistics"].items()
    ]
    count = len(strips[0].controls)
    alt = f"{len(strips)} statistics at the initial weights of {cell['name']} and of {count} controls"
    return _picture(draw_strips(strips, cell["name"]), alt)


def _training_strips(name: str, training: Mapping[str, Any]) -> dict[str, Any]:
    found = training["quantities"]
    strips = [
        Strip(
            label=f"{one['label']}" + (f" ({one['unit']})" if one["unit"] else ""),
            controls=_array(one["controls"]),
            own=float(_array([one["own_mean"]])[0]),
            seeds=_array(one["own"]),
        )
        for one in found
    ]
    ranks = "; ".join(f"{one['label']}: rank {one['rank']} of {one['of']}" for one in found)
    return _picture(draw_strips(strips, name), f"{name} among its controls, a dot each. {ranks}")


def _curves(name: str, training: Mapping[str, Any]) -> list[dict[str, Any]]:
    curves = training["curves"]
    if curves is None or not curves["epochs"]:
        return []
    pictures = []
    for kind, label in _CURVES.items():
        own, controls = (_array(curves[side][kind]) for side in ("own", "controls"))
        if own.ndim == 2 and controls.ndim == 2 and np.isfinite(own).any():
            panel = AuditCurves(label, own, controls)
            alt = f"{label} of {name} (each seed) and of {len(controls)} controls by epoch"
            pictures.append(_picture(draw_audit_curves(_array(curves["epochs"]), [panel], name), alt))
    return pictures


def _budget(name: str, training: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Whether a search with fewer epochs would have picked the cell."""
    budget = training["budget"]
    if budget is None or training["epochs"] < 2:
        return []
    pictures = []
    ranks = _array(budget["rank_by_epoch"])
    if np.isfinite(ranks).any():
        first, last = (int(rank) for rank in ranks[np.isfinite(ranks)][[0, -1]])
        alt = f"Rank of {name} by epochs trained, from {first} at first to {last} at the end"
        pictures.append(_picture(draw_rank_by_epoch(ranks, training["controls"] + 1, name), alt))
    known = [one for one in budget["by_epoch"] if one["regret"] is not None]
    controls = set(training["quantities"][0]["control_names"])
    if known:
        figure = draw_picks(
            _array([one["epoch"] for one in known]),
            _array([one["regret"] for one in known]),
            np.array([not controls.issuperset(one["picked"].split(" or ")) for one in known]),
            name,
        )
        pictures.append(
            _picture(figure, "Points of accuracy that the pick after each epoch loses at the end")
        )
    return pictures


def _compared(compared: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if compared is None:
        return None
    return {
        "record": compared,
        "table": Markup(tables.compared_table(compared, "compared")),
        "settings": _markup(tables.settings_table(compared, "compared-settings")),
    }


def _limits(document: Mapping[str, Any]) -> dict[str, Any]:
    """Facts that the list of what the audit cannot show depends on."""
    trainings = [cell["training"] for cell in document["cells"] if cell["training"]]
    detectable = [one["detectable"] for one in trainings if one["detectable"]]
    return {
        "trained": bool(trainings),
        "measured": any(cell["initial"] for cell in document["cells"]),
        "unfinished": any(one["runs"]["finished"] < one["runs"]["planned"] for one in trainings),
        "one_seed": any(len(one["seeds"]) == 1 for one in trainings),
        "smallest_p": max((1 / (one["controls"] + 1) for one in trainings), default=None),
        "differences": [one["difference"] for one in detectable if one["difference"] is not None],
        "undetectable": any(one["difference"] is None for one in detectable),
        "power": detectable[0]["power"] if detectable else None,
        "quantities": len(TRAINED),
    }
