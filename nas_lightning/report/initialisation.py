"""The table of the initial weights: gradient, tangent kernel and curvature before the first step."""

from __future__ import annotations

import math

import pandas as pd

from nas_lightning.report.samples import SETTINGS, group_columns, group_keys
from nas_lightning.report.table_files import ReportTable
from nas_lightning.report.words import architecture_entries, mean_and_spread, say
from nas_lightning.study.results import AT_START

_GRADIENT_NORM = "center_mean_gradient_norm"
_COLUMNS = {
    _GRADIENT_NORM: "Gradient norm",
    "center_variance": "Gradient variance",
    "center_normalized_variance": "Normalised variance",
    "tangent_kernel_trace": "Tangent-kernel trace",
    "largest_eigenvalue": "Largest eigenvalue",
    "normalized_largest_eigenvalue": "Normalised eigenvalue",
}
_STEMS = ("gradient_variance", "gradient_variance_train", "hessian_spectrum", "hessian_spectrum_train")
_LONG_WAY = 2
"""Ratio of gradient norms from which on the sentence gives it."""


def initialisation_table(runs: pd.DataFrame) -> ReportTable | None:
    """Every architecture at its initial weights, averaged over seeds; None where no run was measured there.

    Of several analyses that have a statistic, those with the usual name are shown, then those of the training
    split.

    Args:
        runs: Results, columns :data:`nas_lightning.study.results.RUN_COLUMNS`.

    Returns:
        The table; a row an architecture and settings, small gradient norms first within data and settings.
    """
    sources = {
        title: next((column for column in _sources(name) if _is_measured(runs, column)), None)
        for name, title in _COLUMNS.items()
    }
    columns = {title: column for title, column in sources.items() if column is not None}
    if not columns:
        return None
    measured = runs[runs[list(columns.values())].notna().any(axis=1)]
    varying = [name for name in SETTINGS[2:] if name in runs and measured[name].astype(str).nunique() > 1]
    keys = group_keys(measured, group_columns(measured))
    has_path = "network_path" in measured and measured["network_path"].notna().any()
    rows, first_column = [], next(iter(columns.values()))
    for (key, _), group in measured.groupby([keys, measured["architecture"]], sort=False):
        first = group.iloc[0]
        row = architecture_entries(first, varying)
        if has_path:
            row["Mean path"] = f"{first['network_path']:.1f}"
        row["Seeds"] = len(group)
        row |= {title: mean_and_spread(group[column]) for title, column in columns.items()}
        order = (first["data"], *(str(first[name]) for name in varying), str(first["family"]))
        rows.append((order, key, float(group[first_column].mean()), row))
    rows.sort(key=lambda entry: (entry[0], entry[1], entry[2]))
    caption = say(
        "initialisation",
        splits=_texts(measured, columns, "split"),
        images=_texts(measured, columns, "samples"),
        columns=list(columns),
        extremes=_extremes(measured, keys, columns.get(_COLUMNS[_GRADIENT_NORM])),
    )
    frame = pd.DataFrame([row for *_, row in rows])
    return ReportTable("initialisation", "", "The architectures at initialisation", caption, frame)


def _sources(name: str) -> list[str]:
    return [f"{AT_START}{stem}.{name}" for stem in _STEMS]


def _is_measured(runs: pd.DataFrame, column: str) -> bool:
    return column in runs and bool(runs[column].notna().any())


def _texts(runs: pd.DataFrame, columns: dict[str, str], name: str) -> list[str]:
    """Splits, or numbers of images, of the analyses that the columns come from."""
    sources = dict.fromkeys(f"{column.rpartition('.')[0]}.{name}" for column in columns.values())
    found = [value for column in sources if column in runs for value in runs[column].dropna()]
    return [f"{value}" for value in sorted(set(found))]


def _extremes(runs: pd.DataFrame, keys: pd.Series, column: str | None) -> dict[str, object] | None:
    """Architectures with the smallest and the largest gradient norm of the group that has most of them."""
    if column is None:
        return None
    groups = [runs[keys == key].groupby("architecture")[column].mean().dropna() for key in keys.unique()]
    norms = max(groups, key=len)
    if len(norms) < 2 or not 0 < norms.min() <= norms.max() < math.inf:
        return None
    ratio = norms.max() / norms.min()
    return {
        "least": (norms.idxmin(), norms.min()),
        "most": (norms.idxmax(), norms.max()),
        "ratio": ratio if ratio >= _LONG_WAY else None,
        "count": len(norms),
    }
