"""The table of the initial weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from nas_lightning.report.initialisation import initialisation_table
from nas_lightning.report.tables import report_tables
from nas_lightning.study.results import Results
from tests.report.made_up import made_up_results

NORMS = {"darts_v2": 350.0, "darts_conn1": 700.0, "darts_conn3": 24e3}


@pytest.fixture
def results(tmp_path: Path) -> Results:
    made = made_up_results(
        tmp_path, variants=("original", "darts_conn1", "darts_conn3"), seeds=(0, 1), surfaces=False
    )
    runs = made.runs.copy()
    norm = runs["architecture"].map(NORMS) * (1 + 0.1 * runs["seed"])
    runs["start.gradient_variance.center_mean_gradient_norm"] = norm
    runs["start.gradient_variance.center_variance"] = norm**2 * 200
    runs["start.gradient_variance.tangent_kernel_trace"] = np.nan
    runs["start.gradient_variance_train.tangent_kernel_trace"] = norm**2
    runs["start.hessian_spectrum.largest_eigenvalue"] = [np.nan, *([1.5] * (len(runs) - 1))]
    for stem in ("gradient_variance", "gradient_variance_train", "hessian_spectrum"):
        runs[f"start.{stem}.split"], runs[f"start.{stem}.samples"] = "train", 128
    return Results(made.study, runs, made.curves, ())


def test_without_a_measurement_there_is_no_table(tmp_path: Path) -> None:
    runs = made_up_results(tmp_path, variants=("original", "C1"), surfaces=False).runs
    assert initialisation_table(runs) is None
    assert initialisation_table(pd.DataFrame()) is None


def test_it_has_means_and_deviations_over_seeds(results: Results) -> None:
    table = initialisation_table(results.runs)
    assert table is not None
    frame = table.frame
    assert frame["Architecture"].tolist() == ["darts_v2", "darts_conn1", "darts_conn3"]
    assert frame["Gradient norm"].tolist() == ["368 ± 25", "735 ± 49", "25200 ± 1697"]
    assert frame["Largest eigenvalue"].tolist() == ["1.50", "1.50 ± 0.00", "1.50 ± 0.00"]
    assert frame["Seeds"].tolist() == [2, 2, 2]
    # Of the training split, which alone has it.
    assert frame["Tangent-kernel trace"].tolist()[0].startswith("135363 ±")
    assert "Normalised variance" not in frame
    assert ("Mean path" in frame) == results.runs.get("network_path", pd.Series(dtype=float)).notna().any()


def test_the_sentence_gives_the_order(results: Results) -> None:
    table = initialisation_table(results.runs)
    assert table is not None
    assert (
        "Of 3 architectures with the same settings, darts_v2 has the smallest gradient norm (368) and"
        " darts_conn3 the largest (2.52e+04, 69 times as large)."
    ) in table.caption
    assert "on 128 images of the train split" in table.caption
    assert "Normalised" not in table.caption
    alone = initialisation_table(results.runs[results.runs["architecture"] == "darts_v2"])
    assert alone is not None
    assert "smallest" not in alone.caption


def test_settings_that_differ_have_columns(results: Results) -> None:
    other = results.runs.assign(init_channels=results.runs["init_channels"] * 2)
    table = initialisation_table(pd.concat([results.runs, other], ignore_index=True))
    assert table is not None
    assert len(table.frame) == 6
    assert "Initial channels" in table.frame


def test_it_stands_among_the_tables_of_the_report(results: Results) -> None:
    keys = [table.key for table in report_tables(results)]
    assert keys.index("initialisation") == keys.index("architectures") + 1
