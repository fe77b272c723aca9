from __future__ import annotations

import re
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from nas_lightning.report.figures import report_figures, uncovered
from nas_lightning.report.page import write_report
from nas_lightning.report.summary import counts, study_sentence
from nas_lightning.report.tables import architecture_table
from nas_lightning.study.import_files import import_study
from nas_lightning.study.read import read_study
from nas_lightning.study.results import Results, collect_results
from tests.study.import_files import tidy_table, write_nds, write_random_darts


def imported(folder: Path, source: str, *files: Path, **told: str) -> Results:
    import_study(source, files, folder / "study.yaml", told)
    return collect_results(read_study(folder / "study.yaml", folder / "logs"))


def page_text(results: Results, folder: Path) -> str:
    text = write_report(results, folder / "report").read_text(encoding="utf-8")
    text = re.sub(r"<(script|style).*?</\1>", "", text, flags=re.DOTALL)
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", text)).split())


def test_the_page_is_marked_as_imported(tmp_path: Path) -> None:
    pickled, array = write_random_darts(tmp_path, count=12)
    content = pickled.read_bytes().replace(b"skip_connect", b"skip_conneXt", 1)
    pickled.write_bytes(content)
    text = page_text(imported(tmp_path, "random-darts", pickled, array), tmp_path)
    for sentence in (
        "Imported results. The runs were not trained by this program.",
        "Yang, Esperança and Carlucci, “NAS evaluation is frustratingly hard”, ICLR 2020; licence: GPL-3.0.",
        "https://github.com/antoyang/NAS-Benchmark",
        "Unknown: losses, training accuracy and the seed. 1 run could not be used; the reasons stand under",
        "learning rate 0.025 default of DARTS/config.py (lr)",
        "genotypes.pkl, row 1 is left out:",
        "11 runs of 11 architectures from one search space (DARTS space) on CIFAR10, 10 epochs each;",
        "These runs have sampled cells alone",
    ):
        assert sentence.lower() in text.lower(), sentence
    assert re.search(r"genotypes\.pkl , SHA-256 [0-9a-f]{64}", text)
    assert "training, summed" not in text


def test_runs_of_our_own_are_not_marked(tmp_path: Path) -> None:
    from tests.report.made_up import made_up_results

    assert "Imported results" not in page_text(made_up_results(tmp_path, surfaces=False), tmp_path)


def test_figures_of_sampled_cells(tmp_path: Path) -> None:
    results = imported(tmp_path, "random-darts", *write_random_darts(tmp_path, count=12))
    figures = {figure.key: figure for figure in report_figures(results)}
    assert {"width-depth-cifar10", "sampled-cifar10"} <= set(figures)
    curves = figures["sampled-cifar10"].still.axes[0]
    assert len(curves.collections[0].get_segments()) == 12  # type: ignore[attr-defined]
    assert curves.get_ylabel() == "test error (%)"
    assert "; with regularisation; seeds unknown." in figures["sampled-cifar10"].caption
    assert len(uncovered(results)) == 1


def test_the_table_of_architectures_has_no_column_without_a_value(tmp_path: Path) -> None:
    frame = architecture_table(imported(tmp_path, "nds", write_nds(tmp_path / "PNAS.json")).runs).frame
    assert {"Width", "Depth", "Parameters (M)", "Final error (%)", "Epochs to 90 %"} <= set(frame)
    assert not {"Mean test loss (nat)", "Near-convex radius", "Gradient variance (nat²)"} & set(frame)


@pytest.mark.parametrize(
    "columns",
    [
        {"data": "Flowers", "seed": ""},
        {"space": "mine", "init_channels": 8, "num_cells": 5, "regularized": True, "evaluation_split": "val"},
    ],
)
def test_a_table_with_much_or_little_gives_a_page(tmp_path: Path, columns: dict[str, Any]) -> None:
    tidy_table(count=5).assign(**columns).to_csv(tmp_path / "curves.csv", index=False)
    results = imported(tmp_path, "table", tmp_path / "curves.csv", url="javascript:alert(1)", title="T")
    text = page_text(results, tmp_path)
    assert "licence: not stated" in text
    assert "javascript:alert" not in (tmp_path / "report" / "index.html").read_text()
    assert dict(counts(results))["seeds"] == ("unknown" if "seed" in columns else "1")
    assert study_sentence(results).startswith("5 runs of 5 architectures from one search space")


def test_spaces_of_different_length_are_drawn_apart(tmp_path: Path) -> None:
    files = write_nds(tmp_path / "DARTS.json"), write_nds(tmp_path / "ENAS.json")
    figures = {figure.key: figure for figure in report_figures(imported(tmp_path, "nds", *files))}
    titles = [axes.get_title() for axes in figures["sampled-cifar10"].still.axes[:4:2]]
    assert titles == ["DARTS space: 6 cells", "ENAS space: 6 cells"]
