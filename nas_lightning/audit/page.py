"""The page of an audit: one HTML text that needs nothing else, no script either."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from nas_lightning.audit import pictures, tables
from nas_lightning.audit.badge import badge
from nas_lightning.audit.pictures import Picture
from nas_lightning.cells import Genotype
from nas_lightning.identity import flatten
from nas_lightning.report.pictures import SHARP, asset, still
from nas_lightning.report.uncorrected import ALPHA
from nas_lightning.report.words import environment

_ON_TOP = 2
"""Sentences about the trainings that stand in the verdict; the others stand with the evidence."""
_FEW_CELLS = 4
"""Cells up to which pictures have dark copies; in a larger page the style turns the light ones around."""


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
                (name.replace("_", " "), f"{value:.3g} s")
                for name, value in repeat["seconds"].items()
                if value is not None
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
    """The audit's settings, those of the data under the names that a user gives them.

    Those of the trainings stand with the evidence.
    """
    return [
        (name.replace("data.data.", "data.").replace(".init_args.", "."), value)
        for name, value in _pairs(settings)
        if not name.endswith("class_path") and not name.startswith("training.")
    ]


def _cell(document: Mapping[str, Any], place: int) -> dict[str, Any]:
    """One cell as the template takes it."""
    cell, key = document["cells"][place], f"cell{place + 1}"
    training, initial = cell["training"], cell["initial"]
    dark = SHARP if len(document["cells"]) <= _FEW_CELLS else None

    def shown(*drawn: Picture | None) -> list[dict[str, Any]]:
        return [{"alt": one.alt, **still(one.figure, dark=dark)} for one in drawn if one is not None]

    found: dict[str, Any] = {
        "record": cell,
        "key": key,
        "badge": Markup(badge(cell["badge"])),
        "verdict": _verdict(cell),
        "genotype": str(Genotype.from_mapping(cell["genotype"])),
        "drawing": shown(*pictures.drawing(cell)),
        "facts": Markup(tables.facts_table(cell, f"{key}-facts")),
        "wiring": _markup(tables.wiring_table(cell, "ordered", f"{key}-wiring")),
        "distinct": _markup(tables.wiring_table(cell, "distinct", f"{key}-distinct")),
        "size": _markup(tables.size_table(cell, f"{key}-size")),
        "standings": shown(pictures.standings(cell)),
        "initial": None,
        "training": None,
    }
    if initial is not None:
        found["initial"] = {
            "record": initial,
            "table": Markup(tables.initial_table(cell, f"{key}-initial")),
            "strips": shown(pictures.initial_strips(cell, document["backdrop"])),
            "has_backdrop": any(one["initial"] for one in document["backdrop"]),
        }
    if training is not None:
        found["training"] = {
            "record": training,
            "table": _markup(tables.training_table(training, f"{key}-training")),
            "analyses": _markup(tables.training_table(training, f"{key}-analyses", analyses=True)),
            "strips": shown(pictures.training_strips(cell["name"], training)),
            "curves": shown(*pictures.curves(cell["name"], training)),
            "budget": shown(*pictures.budget(cell["name"], training)),
            "further": training["sentences"][_ON_TOP:],
            "settings": _pairs(training["settings"]),
        }
    return found


def _verdict(cell: Mapping[str, Any]) -> list[str]:
    """The sentences on top: the first about the trainings, then those of level 0."""
    training = cell["training"]
    if training is None:
        return list(cell["sentences"])
    return [*training["sentences"][:_ON_TOP], *cell["verdict"]["sentences"]]


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
        "power": detectable[0]["power"] if detectable else None,
    }
