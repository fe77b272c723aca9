from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nas_lightning.analysis.linear_cells import random_instances
from nas_lightning.analysis.theory import theorem_4_2, theorem_4_3
from nas_lightning.cli.theory import main
from tests.cli.commands import run_process

SMALL = ("theory", "--instances", "16", "--nodes", "2", "3", "--dimension", "2", "--seed", "5")


def run_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    main([*arguments, "--format", "json"])
    return json.loads(capsys.readouterr().out)


def run_text(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    main(list(arguments))
    return capsys.readouterr().out


def test_the_record_is_what_the_analysis_measures(capsys: pytest.CaptureFixture[str]) -> None:
    record = run_json(capsys, *SMALL)
    instances = random_instances(16, 5, nodes=(2, 3), dimension=2)
    variance, smoothness = theorem_4_3(instances).sel(norm="spectral"), theorem_4_2(instances, seed=5)
    assert [record[name] for name in ("instances", "nodes", "dimension", "seed")] == [16, [2, 3], 2, 5]
    for name, ratio in [
        ("theorem_4_3", variance["variance"] / variance["bound"]),
        ("theorem_4_2", smoothness["constant"] / smoothness["paper_bound"]),
        ("corrected_4_2", smoothness["constant"] / smoothness["corrected_bound"]),
    ]:
        rows = record[name]
        assert [row["node"] for row in rows] == [1, 2, 3, None]
        assert [row["cases"] for row in rows] == [16, 16, 8, 40]
        for row in rows:
            chosen = ratio.to_numpy()
            if row["node"] is not None:
                chosen = chosen[smoothness["node"].to_numpy() == row["node"]]
            assert row["median"] == pytest.approx(float(np.median(chosen)), rel=1e-12)
            assert row["maximum"] == pytest.approx(float(chosen.max()), rel=1e-12)
            assert row["beyond"] == int((chosen > 1 + 1e-9).sum())
    beyond = record["theorem_4_2"][-1]["beyond"]
    assert beyond > 0
    assert sum(record["explanation"].values()) == beyond
    assert record["theorem_4_3"][-1]["beyond"] == record["corrected_4_2"][-1]["beyond"] == 0


def test_the_table_has_the_records_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    record, text = run_json(capsys, *SMALL), run_text(capsys, *SMALL)
    assert text.startswith("random instances: 16, nodes: 2 3, dimension: 2, seed: 5\n")
    rows = [line.split() for line in text.splitlines() if line.split()[:1] in (["1"], ["2"], ["3"], ["all"])]
    expected = [row for name in ("theorem_4_3", "theorem_4_2", "corrected_4_2") for row in record[name]]
    assert len(rows) == len(expected) == 12
    for row, one in zip(rows, expected, strict=True):
        assert row[0] == ("all" if one["node"] is None else str(one["node"]))
        assert [int(row[1]), int(row[4])] == [one["cases"], one["beyond"]]
        assert float(row[2]) == pytest.approx(one["median"], rel=5e-3)
        assert float(row[3]) == pytest.approx(one["maximum"], rel=5e-3)
    assert f"Of those beyond, {record['explanation']['missing_factor']} by the missing second factor" in text
    assert max(len(line) for line in text.splitlines()) <= 100


def test_the_same_seed_gives_the_same_answer_and_another_another(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_text(capsys, *SMALL) == run_text(capsys, *SMALL)
    other = run_json(capsys, *SMALL[:-1], "6")["theorem_4_3"][-1]["maximum"]
    assert other != run_json(capsys, *SMALL)["theorem_4_3"][-1]["maximum"]


def test_one_node_makes_both_cells_one(capsys: pytest.CaptureFixture[str]) -> None:
    """With n = 1 the cells are the same, and theorem 4.3 is an equation."""
    record = run_json(capsys, "theory", "--instances", "4", "--nodes", "1")
    (first, _) = record["theorem_4_3"]
    assert [first["median"], first["maximum"]] == pytest.approx([1, 1], rel=1e-12)
    assert [first["beyond"], record["theorem_4_2"][0]["beyond"]] == [0, 0]


def test_the_figure_is_written_and_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    png, svg = tmp_path / "new" / "theory.png", tmp_path / "new" / "theory.svg"
    few = ("theory", "--instances", "2")
    assert run_json(capsys, *few, "-o", str(png))["figure"] == str(png)
    assert run_text(capsys, *few, "-o", str(svg)).splitlines()[-1] == str(svg)
    assert png.read_bytes().startswith(b"\x89PNG")
    assert svg.read_bytes().startswith(b"<?xml")
    assert sorted(png.parent.iterdir()) == [png, svg]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--instances", "0"), "--instances: 0 must be from 1 to 100000"),
        (("--nodes", "2", "13"), "--nodes: 13 must be from 1 to 12"),
        (("--nodes",), "--nodes: expected at least one argument"),
        (("--dimension", "2.5"), "--dimension: '2.5' must be an integer"),
        (("--seed", "-1"), "--seed: -1 must be from 0 to"),
        (("--format", "yaml"), "--format: invalid choice: 'yaml'"),
        (("-o", "theory.jpg"), "picture file 'theory.jpg' must end in .png, .svg or .pdf"),
        (("--node", "3"), "unrecognized arguments: --node 3"),
    ],
)
def test_bad_values_are_refused_in_one_line(arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        main(["theory", *arguments])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_figure_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"cannot write .*theory\.png"):
        main(["theory", "--instances", "1", "-o", str(tmp_path / "file" / "theory.png")])
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.slow
def test_a_process_prints_the_table_and_no_warning(tmp_path: Path) -> None:
    done = run_process(SMALL, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("random instances: 16")
