"""Facts of a study for the page: what ran, with which settings and programs, what is missing."""

from __future__ import annotations

import pandas as pd

from nas_lightning.report.words import SETTING_NAMES, distinct, say
from nas_lightning.study.results import Results

_SETTINGS = SETTING_NAMES | {
    "cutout": "cutout (pixels)",
    "drop_path": "drop path (maximum probability)",
    "settings.trainer.precision": "precision",
    "loss_contour.samples": "images of a loss contour",
    "gradient_variance.samples": "images of a gradient variance",
    "hessian_spectrum.samples": "images of a Hessian spectrum",
}


def study_sentence(results: Results) -> str:
    """The study in a sentence: runs, architectures, data, seeds, epochs."""
    runs = results.runs
    return say(
        "study",
        runs=len(runs),
        architectures=runs["architecture"].nunique(),
        families=distinct(runs["family"]),
        sampled=runs["kind"].eq("sampled").all(),
        data=distinct(runs["data"]),
        seeds=runs["seed"].nunique(),
        epochs=distinct(runs["epochs"]),
    )


def counts(results: Results) -> list[tuple[str, str]]:
    """Numbers at the head of the page, each a name and a value."""
    runs = results.runs
    diverged = ("runs that learnt nothing", str(int(runs["diverged"].fillna(False).astype(bool).sum())))
    if results.study.imported is not None:
        return [
            ("imported runs", str(len(runs))),
            ("left out", str(results.study.imported.left_out)),
            ("architectures", str(runs["architecture"].nunique())),
            ("data sets", str(runs["data"].nunique())),
            ("seeds", str(runs["seed"].nunique() or "unknown")),
            diverged,
        ]
    finished = f"{len(runs)}" + (f" of {len(results.study.runs)}" if results.study.runs else "")
    seconds = float(runs["training_seconds"].sum()) if len(runs) else 0.0
    hours = f"{seconds / 3600:.3g} h" if seconds >= 3600 else f"{seconds / 60:.2g} min"
    return [
        ("finished runs", finished),
        ("architectures", str(runs["architecture"].nunique())),
        ("data sets", str(runs["data"].nunique())),
        ("seeds", str(runs["seed"].nunique())),
        diverged,
        ("training, summed", hours),
    ]


def missing_runs(results: Results) -> list[str]:
    """Names of the planned runs that the results do not have, in the order of the plan."""
    finished = set(results.runs["run"])
    return [run.name for run in results.study.runs if run.name not in finished]


def settings(results: Results) -> list[tuple[str, str]]:
    """The settings that are known, and the values that they have."""
    return _values(results.runs, _SETTINGS)


def provenance(results: Results) -> list[tuple[str, str]]:
    """Devices and versions."""
    versions = sorted(str(column) for column in results.runs if str(column).startswith("version_"))
    names = {"device": "device"} | {version: version.removeprefix("version_") for version in versions}
    return _values(results.runs, names)


def _values(runs: pd.DataFrame, names: dict[str, str]) -> list[tuple[str, str]]:
    found = [(name, distinct(runs[column].tolist())) for column, name in names.items() if column in runs]
    return [(name, ", ".join(values)) for name, values in found if values]
