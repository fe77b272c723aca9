"""Two audits side by side: their cells, the settings that differ, and what these rule out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nas_lightning.identity import flatten

_NETWORK = "settings.network"
_DATA = "settings.data"
_TRAINING = "training"
_OF_TRAININGS = (_TRAINING, "settings.controls", "settings.seeds")
_PLACES = ("root", "cache_folder")
"""Settings that say where data lie."""


def compare(document: Mapping[str, Any], other: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Another audit beside this one, as the document's ``compared_with``.

    Args:
        document: This audit, see :func:`nas_lightning.audit.document.assemble`.
        other: The other one, see :func:`nas_lightning.audit.document.read_document`.
        source: Where it was read.

    Returns:
        Both audits' cells with verdicts and ranks, the settings that differ, what can be compared and what
        cannot.
    """
    both_trained = all(map(_is_trained, (document, other)))
    settings = [
        {"setting": name, "this": mine, "other": theirs}
        for name, (mine, theirs) in _different(_settings(document), _settings(other)).items()
        if both_trained or not name.startswith(_OF_TRAININGS)
    ]
    can, cannot = _comparability(document, other, [entry["setting"] for entry in settings])
    return {
        "source": source,
        "level": other["level"],
        "date": other["date"],
        "cells": [
            *(_side("this", cell, other["cells"]) for cell in document["cells"]),
            *(_side("other", cell, document["cells"]) for cell in other["cells"]),
        ],
        "settings": settings,
        "comparable": can,
        "not_comparable": cannot,
    }


def _side(audit: str, cell: Mapping[str, Any], others: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    training, verdict = cell["training"], cell["verdict"]
    return {
        "audit": audit,
        **{name: cell[name] for name in ("name", "spec", "badge", "sentences")},
        "as_expected": verdict["as_expected"],
        "stands_out": [
            found["label"] for found in (*verdict["structure"], *verdict["initial"]) if found["stands_out"]
        ],
        "same_as": [one["name"] for one in others if one["genotype"] == cell["genotype"]],
        "ranks": [
            {name: found[name] for name in ("name", "label", "unit", "own_mean", "rank", "of", "p_value")}
            for found in (training["quantities"] if training else ())
        ],
    }


def _is_trained(document: Mapping[str, Any]) -> bool:
    return any(cell["training"] for cell in document["cells"])


def _settings(document: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that was set, by dotted names."""
    # What the trainings' results know stands below, once.
    found: dict[str, Any] = {
        "settings": {name: value for name, value in document["settings"].items() if name != _TRAINING}
    }
    sums = (document["repeat"].get("data") or {}).get("sha256")
    if sums:
        found["data"] = {"sha256": sums}
    of_trainings = [cell["training"] for cell in document["cells"] if cell["training"]]
    if of_trainings:
        first = of_trainings[0]
        found[_TRAINING] = {name: first[name] for name in ("data", "epochs", "seeds", "settings")}
    versions = document["repeat"]["versions"]
    flat = {name: value for name, value in flatten(found).items() if name.rpartition(".")[2] not in _PLACES}
    return flat | {f"version of {name}": version for name, version in versions.items()}


def _different(mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    names = {**mine, **theirs}
    pairs = {name: (mine.get(name), theirs.get(name)) for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _comparability(
    document: Mapping[str, Any], other: Mapping[str, Any], differing: Sequence[str]
) -> tuple[list[str], list[str]]:
    """What can be compared and what cannot, in words."""
    can = ["Ranks of wiring among all wirings of a cell's space: they depend on the cell alone."]
    cannot = []

    def differs(*starts: str) -> bool:
        return any(name.startswith(starts) for name in differing)

    if differs(_NETWORK):
        cannot.append(
            "Parameters, multiply-adds and initial weights: the networks differ. Their percentiles stand "
            "among cells of the same network each and can be read side by side."
        )
    else:
        can.append("Parameters and multiply-adds: the networks are the same.")
    measured = [any(cell["initial"] for cell in one["cells"]) for one in (document, other)]
    if all(measured) and not differs(_NETWORK):
        if differs(_DATA, "data.", "settings.initial_seeds", "settings.images"):
            cannot.append("Values at the initial weights: images or initial seeds differ.")
        else:
            can.append("Values at the initial weights: network, images and seeds are the same.")
    trained = [_is_trained(one) for one in (document, other)]
    if all(trained):
        if differs(_TRAINING):
            cannot.append(
                "Accuracies and other results of trainings: data, budget or settings differ. Each rank holds "
                "for its own budget."
            )
        else:
            can.append("Results of trainings: data, budget and settings are the same.")
        cannot.append(
            "Ranks of two cells with one another: each cell is ranked among its own controls, which have its "
            "own operations. A better rank is no test that one cell is better than the other."
        )
    elif any(trained):
        which = "this audit" if trained[0] else "the other audit"
        cannot.append(f"Trainings: only {which} has any.")
    if differs("version of torch", "version of nas-lightning"):
        cannot.append("Exact values to the last digit: the programs' versions differ.")
    return can, cannot
