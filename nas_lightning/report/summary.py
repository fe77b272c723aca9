"""What the page says in words about a study: what ran, with which settings and programs, what is missing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

from nas_lightning.study.results import Results

_SETTINGS = {
    "data": "data set",
    "epochs": "epochs",
    "batch_size": "batch size",
    "learning_rate": "initial learning rate",
    "seed": "seeds",
    "init_channels": "initial channels",
    "num_cells": "cells",
    "cutout": "cutout (pixels)",
    "drop_path": "drop path (maximum probability)",
    "auxiliary_weight": "weight of the auxiliary tower",
    "evaluation_split": "split that is evaluated",
    "settings.trainer.precision": "precision",
    "loss_contour.samples": "images of a loss contour",
    "gradient_variance.samples": "images of a gradient variance",
    "hessian_spectrum.samples": "images of a Hessian spectrum",
}


def study_sentence(results: Results) -> str:
    """The study in a sentence: runs, architectures, data, seeds, epochs.

    Args:
        results: What is on disk.

    Returns:
        Such as "14 runs of 7 architectures from one base cell (darts_v2) on Digits with 2 seeds, 10 epochs
        each."; it says so where nothing is finished.
    """
    runs = results.runs
    if runs.empty:
        return "No run of this study is finished yet."
    families = distinct(runs["family"])
    cells = f"one base cell ({families[0]})" if len(families) == 1 else f"{len(families)} base cells"
    if len(families) > 1:
        cells += f" ({listed(families)})"
    seeds = counted(runs["seed"].nunique(), "seed")
    epochs = distinct(runs["epochs"])
    architectures = counted(runs["architecture"].nunique(), "architecture")
    return (
        f"{counted(len(runs), 'run')} of {architectures} from {cells}"
        f" on {listed(distinct(runs['data']))} with {seeds}, {listed(epochs)}"
        f" epoch{'' if epochs == ['1'] else 's'} each."
    )


def counts(results: Results) -> list[tuple[str, str]]:
    """Numbers at the head of the page: name and value.

    Args:
        results: What is on disk.

    Returns:
        Finished and planned runs, architectures, seeds, diverged runs, hours of training.
    """
    runs = results.runs
    finished = f"{len(runs)}" + (f" of {len(results.study.runs)}" if results.study.runs else "")
    seconds = float(runs["training_seconds"].sum()) if len(runs) else 0.0
    hours = f"{seconds / 3600:.3g} h" if seconds >= 3600 else f"{seconds / 60:.2g} min"
    return [
        ("finished runs", finished),
        ("architectures", str(runs["architecture"].nunique())),
        ("data sets", str(runs["data"].nunique())),
        ("seeds", str(runs["seed"].nunique())),
        ("diverged runs", str(int(runs["diverged"].fillna(False).astype(bool).sum()))),
        ("training, summed", hours),
    ]


def missing_runs(results: Results) -> list[str]:
    """Planned runs that the results do not have.

    Args:
        results: What is on disk.

    Returns:
        Their names, in the order of the plan.
    """
    finished = set(results.runs["run"])
    return [run.name for run in results.study.runs if run.name not in finished]


def settings(results: Results) -> list[tuple[str, str]]:
    """How the runs were made: settings and the values they have.

    Args:
        results: What is on disk.

    Returns:
        Name and values, of the settings that are known.
    """
    return _values(results.runs, _SETTINGS)


def provenance(results: Results) -> list[tuple[str, str]]:
    """With what the runs were made: devices, versions, weights.

    Args:
        results: What is on disk.

    Returns:
        Name and values.
    """
    versions = sorted(str(column) for column in results.runs if str(column).startswith("version_"))
    names = {"device": "device"} | {version: version.removeprefix("version_") for version in versions}
    return _values(results.runs, names)


def distinct(values: Iterable[Any]) -> list[str]:
    """The different values as text: numbers by size, others in the order in which they come.

    Args:
        values: Values; missing ones do not count.

    Returns:
        Each once.
    """
    found = list(dict.fromkeys(value for value in values if not pd.isna(value)))
    if all(isinstance(value, int | float) for value in found):
        found.sort()
    return [f"{value:g}" if isinstance(value, float) else str(value) for value in found]


def listed(words: Sequence[str], last: str = "and") -> str:
    """Words as a sentence lists them.

    Args:
        words: The words.
        last: What stands before the last one.

    Returns:
        Such as "a, b and c".

    Examples:
        >>> listed(["a", "b", "c"], "or")
        'a, b or c'
    """
    return f"{', '.join(words[:-1])} {last} {words[-1]}" if len(words) > 1 else "".join(words)


def counted(number: int, noun: str) -> str:
    """A number of things.

    Args:
        number: How many.
        noun: One of them; its plural ends in s.

    Returns:
        Such as "1 run" or "2 runs".
    """
    return f"{number} {noun}{'' if number == 1 else 's'}"


def _values(runs: pd.DataFrame, names: dict[str, str]) -> list[tuple[str, str]]:
    found = [(name, distinct(runs[column].tolist())) for column, name in names.items() if column in runs]
    return [(name, ", ".join(values)) for name, values in found if values]
