from __future__ import annotations

import csv
import io
import math
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from nas_lightning.report import tables
from nas_lightning.report.claims import examine_claims as tested_claims
from nas_lightning.report.table_files import ReportTable, html_table, latex_text, table_files
from nas_lightning.report.tables import table1, table2, table3
from nas_lightning.report.words import mean_and_spread, p_value_text
from nas_lightning.study.results import Results
from tests.report.made_up import made_up_results

tested_claims.__test__ = False  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    folder = tmp_path_factory.mktemp("made_up")
    return made_up_results(
        folder, variants=("original", "C1", "C4", "darts_conn1", "C9"), seeds=(0, 1, 2), surfaces=True
    )


@pytest.fixture(scope="module")
def regularized(tmp_path_factory: pytest.TempPathFactory) -> Results:
    folder = tmp_path_factory.mktemp("regularized")
    return made_up_results(
        folder,
        families=("darts_v2", "snas_mild"),
        variants=("original", "adapted"),
        regularized=True,
        surfaces=False,
    )


def test_table_1_counts_all_30_parameters_as_printed() -> None:
    table = table1(pd.DataFrame())
    assert len(table.frame) == 30
    assert (table.frame["Count"] == "agrees").all()
    assert (table.frame["Parameters, counted (M)"] == table.frame["Parameters, paper (M)"]).all()
    assert (table.frame["Error, ours (%)"] == "—").all()
    assert "None of the 30 errors have a regularised run" in table.caption
    assert table.number == "Table 1"


def test_table_1_shows_our_errors_where_runs_match(regularized: Results, results: Results) -> None:
    runs = pd.concat([regularized.runs, results.runs])
    table = table1(runs)
    frame = table.frame.set_index(["Data", "Base cell", "Cell"])
    ours = regularized.runs.query("architecture == 'darts_v2:adapted'")["final_error_percent"]
    row = frame.xs(("CIFAR-10", "DARTS", "adapted"))
    assert row["Error, ours (%)"] == f"{ours.mean():.2f} ± {ours.std(ddof=1):.2f}"
    assert (row["Seeds"], row["Error, paper (%)"]) == (2, "2.73")
    assert frame["Error, ours (%)"]["CIFAR-100", "DARTS", "adapted"] == "—"
    assert "4 of the 30 errors have" in table.caption
    assert "on CIFAR-10 epochs 8 (paper: 600)." in table.caption


def test_table_1_prefers_the_paper_s_settings_and_never_mixes(regularized: Results) -> None:
    small = regularized.runs.assign(init_channels=16, final_error_percent=50.0, **{"settings.x": "1"})
    long = regularized.runs.assign(epochs=600, final_error_percent=3.0, **{"settings.x": "2"})
    table = table1(pd.concat([small, regularized.runs, long]))
    ours = table.frame.set_index(["Data", "Base cell", "Cell"])["Error, ours (%)"]
    assert ours["CIFAR-10", "DARTS", "original"] == "3.00 ± 0.00"
    assert "differ from the paper's settings" not in table.caption


def test_table_2_agrees_everywhere() -> None:
    table = table2()
    assert table.frame["Variant"].tolist() == ["original", *(f"C{i}" for i in range(1, 14))]
    assert set(table.frame["Count"]) == {"agrees"}
    assert table.frame.set_index("Variant").loc["original", "AmoebaNet, counted"] == "4c, 4"
    assert "56 of 56 agree" in table.caption
    assert "Figure 10: the original AmoebaNet cell is 4c wide" in table.caption


def test_table_2_marks_its_stand_ins() -> None:
    table = table2()
    counted = table.frame.set_index("Variant").filter(like="counted")
    marked = counted.map(lambda text: text.endswith(" (stand-in)"))
    assert marked.sum().to_dict() == {
        "DARTS, counted": 5,
        "ENAS, counted": 6,
        "AmoebaNet, counted": 4,
        "NASNet, counted": 6,
    }
    assert counted.loc["C1", "DARTS, counted"] == "2c, 4 (stand-in)"
    assert "a stand-in that has them" in table.caption


def test_table_1_says_whose_adapted_cells_it_counts() -> None:
    caption = table1(pd.DataFrame()).caption
    assert "authors' connections, but for DARTS, whose adapted cell is not public" in caption


def test_table_3_agrees_but_for_two_swapped_digits() -> None:
    table = table3()
    frame = table.frame.set_index("Variant")
    assert "43 of 44 agree" in table.caption
    assert "Slips of the paper: Table 3: the figures are millions of parameters, not MB." in table.caption
    assert frame["DARTS, counted"].tolist()[:7] == ["3.35", "3.37", "2.84", "2.70", "2.98", "3.19", "2.43"]
    assert frame.loc["C9", "AmoebaNet, counted"] == "3.24"
    differing = frame.index[frame["Count"] != "agrees"].tolist()
    assert differing == ["C9"]
    assert "C1 to C5 of DARTS are the authors' cells" in table.caption


def test_section_4_s_variants(results: Results) -> None:
    frame = tables.numbering_table(results.runs).frame
    assert frame["Cell"].tolist() == ["darts_conn1", "darts_conn2", "darts_conn3", "darts_conn4"]
    assert frame["Width"].tolist() == ["2.5c", "2.5c", "2c", "2c"]
    assert frame["Depth"].tolist() == [3, 3, 4, 4]
    assert frame["Runs"].tolist() == [3, 0, 0, 0]


def test_architectures_stand_by_falling_width_with_means_over_seeds(results: Results) -> None:
    frame = tables.architecture_table(results.runs).frame
    assert frame["Width"].tolist() == ["3.5c", "3c", "2.5c", "2.5c", "2c"]
    assert frame["Seeds"].tolist() == [3] * 5
    assert "Epochs" not in frame.columns
    row = frame.set_index("Architecture").loc["darts_v2:C4"]
    runs = results.runs.query("architecture == 'darts_v2:C4'")
    error = runs["final_error_percent"]
    assert row["Final error (%)"] == f"{error.mean():.2f} ± {error.std(ddof=1):.2f}"
    assert row["Depth"] == 4
    assert row["Parameters (M)"] == f"{runs['parameters'].iloc[0] / 1e6:.3g}"


def test_settings_that_differ_have_columns_and_rows_of_their_own(results: Results) -> None:
    longer = results.runs.assign(epochs=16, learning_rate=0.25)
    frame = tables.architecture_table(pd.concat([results.runs, longer])).frame
    assert len(frame) == 10
    assert frame["Epochs"].tolist() == ["8"] * 5 + ["16"] * 5
    assert frame["Learning rate"].tolist() == ["0.025"] * 5 + ["0.25"] * 5


def test_epochs_never_reached_are_said(results: Results) -> None:
    runs = results.runs.query("architecture == 'darts_v2'").copy()
    runs["epochs_to_accuracy_0.9"] = [4.0, math.nan, 6.0]
    assert tables.architecture_table(runs).frame["Epochs to 90 %"].tolist() == ["5.0 ± 1.4 (1 never)"]
    runs["epochs_to_accuracy_0.9"] = math.nan
    assert tables.architecture_table(runs).frame["Epochs to 90 %"].tolist() == ["never"]
    runs["mean_error"] = math.nan
    assert tables.architecture_table(runs).frame["Epochs to 90 %"].tolist() == ["—"]


def test_claims_have_their_verdicts_and_only_primary_ones_without_data(results: Results) -> None:
    claims = tested_claims(results.runs, resamples=99)
    table = tables.claim_table(claims)
    shown = [claim for claim in claims if claim.primary or claim.verdict != "no data"]
    assert table.frame["Verdict"].tolist() == [claim.verdict for claim in shown]
    assert f"{len(claims) - len(shown)} further tests lack data" in table.caption
    without = table.frame[table.frame["Verdict"] == "no data"]
    assert (without[["Effect", "95 % interval", "p", "p (Holm)"]] == "—").all().all()


def test_an_explanation_says_which_p_value_it_prints(tmp_path: Path) -> None:
    variants = ("C1", "C4", "C6", "C9", "C12", "C13")
    tested = tested_claims(made_up_results(tmp_path, variants=variants).runs, resamples=99)
    claim = next(claim for claim in tested if claim.primary and claim.verdict != "no data")
    assert claim.p_adjusted > claim.p_value
    assert f"p = {p_value_text(claim.p_value)}, {p_value_text(claim.p_adjusted)} after Holm's" in (
        claim.explanation
    )


@pytest.mark.parametrize(
    ("p", "text", "with_sign"),
    [
        (0.0496, "0.0496", "= 0.0496"),
        (1.0, "1", "= 1"),
        (0.0001, "0.0001", "= 0.0001"),
        (0.00009, "< 0.0001", "< 0.0001"),
        (math.nan, "—", "—"),
    ],
)
def test_p_values_in_print(p: float, text: str, with_sign: str) -> None:
    assert p_value_text(p) == text
    assert p_value_text(p, sign=True) == with_sign
    assert "text-align: right" in html_table(pd.DataFrame({"p": [text, "0.5"]}), "key")


@pytest.mark.parametrize("empty", [True, False])
def test_all_tables_of_a_report(results: Results, tmp_path: Path, empty: bool) -> None:
    runs = pd.DataFrame() if empty else results.runs
    claims = tested_claims(runs, resamples=99)
    made = tables.report_tables(Results(results.study, runs, results.curves, ()), claims)
    assert [table.key for table in made] == [
        "table1",
        "table2",
        "numbering",
        "table3",
        "architectures",
        "claims",
        "observation",
        *([] if empty else ["budget"]),
    ]
    for table in made:
        files = table_files(table)
        read = list(csv.reader(io.StringIO(files["csv"])))
        assert read[0] == list(table.frame.columns)
        assert len(read) == len(table.frame) + 1
        assert_sound_latex(files["tex"], len(table.frame.columns), len(table.frame))


def assert_sound_latex(text: str, columns: int, rows: int) -> None:
    """Braces balance, every row has its cells, and no character is left that LaTeX would act on."""
    bare = re.sub(r"\\[\\{}$&#_%]", "", text.replace(r"\\" + "\n", "\n"))
    depth = 0
    for character in bare:
        depth += (character == "{") - (character == "}")
        assert depth >= 0
    assert depth == 0
    assert bare.count("$") % 2 == 0
    assert not re.search(r"[_#^~]", re.sub(r"\$[^$]*\$", "", bare))
    assert bare.count("%") == 1  # the one that ends the line of \resizebox
    assert text.isascii()
    body = text[text.index(r"\toprule") : text.index(r"\bottomrule")]
    lines = [line for line in body.splitlines() if line.endswith(r"\\")]
    assert len(lines) == rows + 1
    assert {len(re.findall(r"(?<!\\)&", line)) for line in lines} == {columns - 1}
    for name in ("table", "tabular"):
        assert text.count(rf"\begin{{{name}}}") == text.count(rf"\end{{{name}}}") == 1


AWKWARD = ReportTable(
    "awkward",
    "",
    "100 % of #1 & {others}",
    "a_b ~ c^2 \\ d $5 ± τ",
    pd.DataFrame({"a|b_c": ["x|y", "50 % & more"], "value": [1.5, np.nan]}),
)


def test_latex_escapes_what_it_would_read() -> None:
    text = table_files(AWKWARD)["tex"]
    assert_sound_latex(text, 2, 2)
    assert r"100 \% of \#1 \& \{others\}. a\_b \textasciitilde{} c\textasciicircum{}2" in text
    assert r"\textbackslash{} d \$5 $\pm$ $\tau$" in text
    assert r"50 \% \& more & --- \\" in text
    assert r"\begin{tabular}{lr}" in text


def test_markdown_keeps_bars_inside_cells() -> None:
    lines = [re.sub("[ -]+", " ", line) for line in table_files(AWKWARD)["md"].splitlines()]
    assert lines[2:6] == ["| a\\|b_c | value |", "| | |", "| x\\|y | 1.5 |", "| 50 % & more | — |"]


def test_csv_keeps_numbers_and_gaps() -> None:
    read = pd.read_csv(io.StringIO(table_files(AWKWARD)["csv"]))
    pd.testing.assert_frame_equal(read, AWKWARD.frame, check_dtype=False)


def test_latex_text_of_plain_text_is_itself() -> None:
    assert latex_text("Plain text, 3.5c (2).") == "Plain text, 3.5c (2)."


@pytest.mark.parametrize(
    ("values", "digits", "text"),
    [
        ([2.0, 4.0], 2, "3.00 ± 1.41"),
        ([2.0], 2, "2.00"),
        ([math.nan, 2.0], 1, "2.0"),
        ([], 2, "—"),
        ([123.4], None, "123"),
        ([0.0120, 0.0126], None, "0.0123 ± 0.0004"),
        ([0.0, 0.0], None, "0.00 ± 0.00"),
        ([2.0e-7], None, "2.00e-07"),
        ([2.5e7, 3.5e7], None, "3.00e+07 ± 7.1e+06"),
        ([math.inf], None, "inf"),
    ],
)
def test_mean_and_spread(values: list[float], digits: int | None, text: str) -> None:
    assert mean_and_spread(values, digits) == text
