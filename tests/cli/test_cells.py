from __future__ import annotations

import json
import re
import subprocess
import sys
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import yaml

from nas_lightning.cells import (
    Genotype,
    count_parameters,
    get_genotype,
    multiply_adds,
    published_genotypes,
    published_variants,
    topology,
)
from nas_lightning.cli.cells import main
from tests.cells.data import COUNTED, PAPER
from tests.cli.commands import command, environment, run_process

ROOT = Path(__file__).parents[2]
OPERATION_MODULE = """
from torch import nn
from nas_lightning.networks import register_operation


def convolution(channels, stride, affine):
    return nn.Sequential(
        nn.Conv2d(channels, channels, 3, stride, padding=1, bias=False), nn.BatchNorm2d(channels,
        affine=affine)
    )


register_operation("plain_conv_3x3", convolution)
"""


def run_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    main([*arguments, "--json"])
    return json.loads(capsys.readouterr().out)


def run_text(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    main(list(arguments))
    return capsys.readouterr().out


def test_list_has_every_cell_with_its_own_count_and_the_reported_figures_apart(
    capsys: pytest.CaptureFixture[str],
) -> None:
    records = run_json(capsys, "list")
    variants = [record for record in records if record["variant_of"] is not None]
    assert [(r["name"], r["variant_of"]) for r in variants] == [
        (entry.name, entry.variant_of) for entry in published_variants().values()
    ]
    records = records[: -len(variants)]
    assert [record["name"] for record in records] == list(COUNTED)
    for record in records:
        counted = COUNTED[record["name"]]
        assert [record["width"], record["depth"]] == counted["topology"]
        assert record["parameters"] == counted["parameters"][0]
        assert record["live_parameters"] <= record["parameters"]
        reported = published_genotypes()[record["name"]].reported
        assert (record["reported"] or {}).get("error_percent") == (reported and reported.error_percent)
    by_name = {record["name"]: record for record in records}
    assert by_name["relativenas"]["live_parameters"] < by_name["relativenas"]["parameters"]


def test_the_list_is_an_aligned_table(capsys: pytest.CaptureFixture[str]) -> None:
    lines = run_text(capsys, "cells", "list").splitlines()
    header, rule, rows = lines[0], lines[1], lines[2 : 2 + len(COUNTED)]
    titles = ["name", "year", "width", "depth", "parameters M", "live M", "reported M", "reported error %"]
    assert re.split(r"  +", header) == titles
    assert {len(line) for line in (header, rule)} == {len(rule)}
    assert [row.split()[0] for row in rows] == list(COUNTED)
    assert rows[3].split() == ["darts_v2", "2019", "3.5c", "3", "3.35", "3.35", "3.3", "2.76"]
    # The rule's gaps run through the whole table.
    gaps = [position for position, character in enumerate(rule) if character == " "]
    assert all(row[position : position + 1] in ("", " ") for row in rows for position in gaps)


def test_sizes_follow_the_options(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--auxiliary", "--num_classes", "200", "--stem_stride", "2", "--image_size", "64"]
    record = run_json(capsys, "show", "enas", *options)
    network = record["network"]
    assert f"{network['parameters'] / 1e6:.2f}" == PAPER["table1"]["tiny_imagenet"]["enas"][0]
    assert network["multiply_adds"] == multiply_adds(
        get_genotype("enas"), num_classes=200, stem_stride=2, image_size=64
    )
    small = run_json(capsys, "list", "--init_channels", "4", "--num_cells", "3")
    assert small[0]["parameters"] == count_parameters(get_genotype("nasnet"), init_channels=4, num_cells=3)


def test_show_says_everything_about_a_cell(capsys: pytest.CaptureFixture[str]) -> None:
    record = run_json(capsys, "show", "amoebanet:adapted")
    assert (record["published"], record["variant"]) == ("amoebanet", "adapted")
    assert "reported" not in record
    assert record["normal"]["dead_nodes"] == [2, 3]
    assert (record["normal"]["width"], record["normal"]["depth"]) == (3, 2)
    assert record["normal"]["rank"]["ordered"]["total"] == 518_400
    assert get_genotype(record["genotype"]) == get_genotype("amoebanet:adapted")
    text = run_text(capsys, "show", "relativenas")
    entry = published_genotypes()["relativenas"]
    assert entry.citation in text
    assert entry.reported is not None
    assert entry.reported.where in text
    assert "3,928,222" in text
    assert str(entry.genotype) in text
    duplicates = run_json(capsys, "show", "enas")["normal"]["nodes_reading_one_node_twice"]
    assert duplicates == [2]


def test_the_list_of_a_file_names_one_that_can_be_read(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    log = tmp_path / "search.log"
    log.write_text(f"genotype = {get_genotype('darts')}\ngenotype = {str(get_genotype('enas'))[:200]}")
    text = run_text(capsys, "cells", "list", str(log))
    assert "#2 (line 2): " in text
    assert f"choose one by its name or number, as in {log}#1\n" in text
    log.write_text(str(get_genotype("enas"))[:200])
    assert "choose one" not in run_text(capsys, "cells", "list", str(log))


def test_show_takes_files_and_literals(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    darts = get_genotype("darts")
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(darts.as_mapping()))
    from_file = run_json(capsys, "show", str(path))
    from_literal = run_json(capsys, "show", str(darts))
    assert from_file["genotype"] == from_literal["genotype"] == str(darts)
    assert "citation" not in from_file
    assert from_literal["spec"].startswith("genotype-")
    big = [("skip_connect", 0), ("skip_connect", 1)] * 6
    seven = Genotype(big, [7], big, [7])
    path.write_text(yaml.safe_dump(seven.as_mapping()))
    assert run_json(capsys, "show", str(path))["normal"]["rank"] is None
    assert "rank" not in run_text(capsys, "show", str(path))


def test_variants_hold_tables_2_and_3(capsys: pytest.CaptureFixture[str]) -> None:
    records = {record["spec"]: record for record in run_json(capsys, "variants", "enas")}
    for number, pair in enumerate(PAPER["table2"]["enas"], start=1):
        assert [records[f"enas:C{number}"]["width"], records[f"enas:C{number}"]["depth"]] == pair
    printed = PAPER["table3"]["enas"]
    specs = ["enas", *(f"enas:operations={seed}" for seed in range(1, 11))]
    assert [f"{records[spec]['parameters'] / 1e6:.2f}" for spec in specs] == printed
    assert len(records) == 1 + 1 + 13 + 10 + 10
    assert len(run_json(capsys, "variants", "gdas", "--count", "2")) == 1 + 1 + 2 + 2
    assert "enas:operations=2" in run_text(capsys, "variants", "enas")
    assert [spec for spec in records if records[spec]["origin"].startswith("stand-in")] == [
        f"enas:C{number}" for number in (1, 2, 4, 8, 9, 11)
    ]
    names = {record["spec"] for record in run_json(capsys, "variants", "darts", "--count", "0")}
    assert {"darts_conn4", "darts_ops5"} <= names


def test_what_is_not_the_authors_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    text = run_text(capsys, "show", "darts:C1")
    assert text.startswith("darts:C1 (stand-in)\n")
    assert "stand-in, seed 14: random connections with table 2's width and depth" in text
    assert run_text(capsys, "show", "darts:C4").startswith("darts:C4\n")
    assert "connections    ours; the authors' are not public" in run_text(capsys, "show", "darts:adapted")
    record = run_json(capsys, "show", "darts_conn3")
    assert (record["variant_of"], record["variant"], record["origin"]) == ("darts_v2", None, "")
    assert "variant of     darts_v2" in run_text(capsys, "show", "darts_conn3")
    assert "darts_v2:C7 (stand-in)" in run_text(capsys, "census", "darts_v2:C7")


def test_census_counts_and_ranks(capsys: pytest.CaptureFixture[str]) -> None:
    record = run_json(capsys, "census", "darts", "nasnet", "--nodes", "4", "--concat", "4,5")
    assert (record["concat"], record["ordered"]["total"], record["distinct"]["total"]) == (
        [4, 5],
        14_400,
        180,
    )
    assert sum(entry["count"] for entry in record["ordered"]["counts"]) == 14_400
    darts, nasnet = record["ranks"]
    assert darts["ordered"]["both_share"] == pytest.approx(1_792 / 14_400)
    assert nasnet["distinct"]["both"] == 1
    text = run_text(capsys, "census", "darts")
    assert "14,400 wirings" in text
    assert "180 wirings" in text
    assert "12.44%" in text
    assert re.search(r"normal +network's path +33.37 +12.4 %", text)
    assert darts["paths"]["normal"]["width"]["percentile"] == pytest.approx(0.929, abs=1e-3)


FEW_AND_MANY = (
    "Genotype(normal=[[('sep_conv_3x3', 0)], [], [('conv_3x3', 3), ('noise', 1), ('skip_connect', 1)]], "
    "normal_concat=[2, 4], "
    "reduce=[[('skip_connect', 0), ('max_pool_5x5', 1), ('sep_conv_3x3', 0)], [('nor_conv_1x1', 2)]], "
    "reduce_concat=[2, 3])"
)


def test_nodes_of_any_number_of_edges_are_shown_counted_and_drawn(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    text = run_text(capsys, "cells", "show", FEW_AND_MANY)
    assert "node 2         sep_conv_3x3 of input 0\n  node 3         no edges: zero\n" in text
    assert "node 4         conv_3x3 of node 3, noise of input 1, skip_connect of input 1\n" in text
    assert "normal cell: width 1.67c, depth 2, mean path 2" in text
    # No node has three nodes before it but the last, so no wiring of the reduction cell is distinct.
    assert text.count("wirings with distinct sources") == 1
    assert text.rstrip().endswith(FEW_AND_MANY)
    record = run_json(capsys, "show", FEW_AND_MANY)["normal"]
    assert (record["edge_nodes"], record["node_count"]) == ([2, 4, 4, 4], 3)
    census = run_json(capsys, "census", FEW_AND_MANY)["ranks"][0]
    assert (census["ordered"]["total"], census["distinct"]["total"]) == (2 * 4**3, 2 * 4)
    assert census["ordered"]["at_least_as_wide"] == sum(
        (first < 2) + (inputs >= 2) == 2
        for first in (0, 1)
        for inputs in [sum(s < 2 for s in sources) for sources in product(range(4), repeat=3)]
    )
    found = run_json(capsys, "census", FEW_AND_MANY, "--vary", "depth", "--width", "1")["wirings"]
    assert {one["width"] for one in found} == {1}
    assert len(found) > 1
    main(["draw", FEW_AND_MANY, "-o", str(tmp_path / "cell.svg")])
    assert (tmp_path / "cell.svg").stat().st_size > 1000
    large = FEW_AND_MANY.replace("[]", str([("none", 0)] * 10))
    with pytest.raises(ValueError, match="1, 10, 3 edges has 7,558,272 wirings; a census lists at most 2,0"):
        main(["census", large])
    assert "rank" not in run_text(capsys, "show", large).partition("reduction cell")[0]


def test_census_finds_wirings_that_hold_width_and_vary_the_path(capsys: pytest.CaptureFixture[str]) -> None:
    record = run_json(capsys, "census", "darts", "--width", "2.5", "--vary", "path", "--count", "4")
    assert record["held"] == {"width": 2.5}
    wirings = record["wirings"]
    assert [one["width"] for one in wirings] == [2.5] * 4
    paths = [one["network_path"] for one in wirings]
    assert paths == sorted(paths)
    for one in wirings:
        assert topology(get_genotype(one["spec"])).network_path == pytest.approx(one["network_path"])
    assert len({one["live_parameters"] for one in wirings}) == 1
    text = run_text(capsys, "census", "darts", "--path", "40", "--vary", "width", "--cell", "normal")
    assert "darts:wiring=01020224" in text
    text = run_text(capsys, "census", "nasnet", "--cell", "reduction", "--depth", "4", "--vary", "path")
    assert "nasnet:wiring=1000100011/" in text


def test_show_tells_a_chain(capsys: pytest.CaptureFixture[str]) -> None:
    text = run_text(capsys, "show", "darts_conn3")
    assert "never read     input 0" in text
    assert "mean 62.6 stages" in text
    record = run_json(capsys, "show", "darts_conn3")
    assert record["normal"]["reads_inputs"] == [False, True]


def test_draw_writes_whole_files_or_none(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for name, start in (("a.png", b"\x89PNG"), ("b.svg", b"<?xml"), ("c.pdf", b"%PDF")):
        path = tmp_path / "new folder" / name
        assert run_text(capsys, "draw", "snas", "darts:C1", "-o", str(path)) == f"{path}\n"
        assert path.read_bytes().startswith(start)
    assert sorted(file.name for file in path.parent.iterdir()) == ["a.png", "b.svg", "c.pdf"]
    kept = path.parent / "a.png"
    before = kept.read_bytes()
    with pytest.raises(ValueError, match="unknown genotype 'snaz'"):
        main(["draw", "snaz", "-o", str(kept)])
    with pytest.raises(ValueError, match=r"must end in \.png, \.svg or \.pdf"):
        main(["draw", "snas", "-o", str(tmp_path / "a.jpeg")])
    with pytest.raises(OSError, match="cannot write"):
        main(["draw", "snas", "-o", str(kept / "below a file.png")])
    assert kept.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["new folder"]


def test_convert_prints_a_genotype_in_another_form_that_is_read_back(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for form in ("literal", "nested", "yaml", "json", "nni", "nasbench301", "aw_nas", "autodl", "fairdarts"):
        text = run_text(capsys, "convert", "PC-DARTS", "--to", form)
        path = tmp_path / f"cell.{form}"
        path.write_text(text)
        assert run_text(capsys, "convert", str(path), "--to", "nasbench301") == run_text(
            capsys, "convert", "pc_darts_cifar", "--to", "nasbench301"
        )
    with pytest.raises(
        ValueError, match=r"--to: invalid choice: 'xml' \(choose from '?literal'?, '?nested'?,"
    ):
        main(["convert", "darts", "--to", "xml"])


def test_a_file_of_several_genotypes_is_listed_and_remarks_go_to_the_terminal(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "search.py"
    darts = str(get_genotype("darts_v2"))
    path.write_text(f"A = {darts[:-1]}, connects=None)\nB = Genotype(recurrent=[('tanh', 0)], concat=[1])\n")
    first, second = run_json(capsys, "list", str(path))
    assert (first["number"], first["name"], first["line"], first["fault"]) == (1, "A", 1, None)
    assert first["parameters"] == COUNTED["darts_v2"]["parameters"][0]
    assert second["name"] == "B"
    assert "this is a recurrent cell" in second["fault"]
    table = run_text(capsys, "list", str(path))
    assert table.splitlines()[2].startswith("#1 A")
    assert "#2 B (line 2): genotype literal: this is a recurrent cell" in table
    main(["convert", f"{path}#A", "--to", "literal"])
    captured = capsys.readouterr()
    assert captured.out == f"{darts}\n"
    assert captured.err == "note: left out: connects (says nothing of the cells)\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "darts_v3"], "there are darts_v1, darts_v2"),
        (["shw"], "invalid choice: 'shw'"),
        (["show"], "required: SPEC"),
        (["draw", "darts"], "required: -o"),
        (["list", "--init_channel", "3"], "unrecognized arguments: --init_channel"),
        (["list", "--init_channels", "x"], "invalid int value: 'x'"),
        (["list", "--num_cells", "0"], "`num_cells` (=0) must be at least 1"),
        (["show", "darts", "--num_cells", "2", "--auxiliary"], "must be at least 3"),
        (["show", "darts", "--image_size", "0"], "`image_size` (=0)"),
        (["show", "darts", "--stem_stride", "0"], "`stem_stride` (=0) must be at least 1"),
        (["show", "darts_v2", "--image_size", "30"], "a multiple of 4"),
        (["list", "--image_size", "30"], "a multiple of 4"),
        (["variants", "darts", "--image_size", "60", "--stem_stride", "2"], "a multiple of 8"),
        (["show", "darts_v2", "--auxiliary", "--image_size", "64"], "use images of 32 to 40 pixels"),
        (["census", "--nodes", "6"], "`nodes` (=6)"),
        (["census", "--concat", "a"], "'a' must be node numbers"),
        (["census", "--concat", "9"], "`concat` (=[9])"),
        (["census", "darts", "--vary", "path"], "needs another quantity to hold"),
        (["census", "darts", "--vary", "path", "--path", "30"], "needs another quantity to hold"),
        (["census", "darts", "--width", "2.5"], "`--width` needs `--vary`"),
        (["census", "darts", "--width", "9", "--vary", "path"], "no wiring of this cell has width 9"),
        (["census", "darts:C4", "--width", "2", "--vary", "path"], "already; name its base, darts_v2"),
        (["census", "--width", "2", "--vary", "path"], "`--vary` takes one genotype, not 0"),
        (
            ["census", "darts", "--width", "2", "--vary", "path", "--count", "0"],
            "`--count` must be at least 1",
        ),
        (
            ["census", "darts", "--vary", "path", "--width", "2.5", "--tolerance", "nan"],
            "`--tolerance` at least 0",
        ),
        (["show", "darts:wiring=0101"], "must have a digit for each of the normal cell's 8 edges"),
        (["show", "darts:wiring=01010109"], "source 9 must be a node from 0 to 4"),
        (["show", "darts:wiring=x"], "must have a digit"),
        (["variants", "darts:adapted"], "is a variant already"),
        (["variants", "darts_ops1"], "is a variant already; name its base, darts_v2"),
        (["variants", "darts", "--count", "-1"], "`count` (=-1)"),
        # Slow where it is the first to import Lightning.
        pytest.param(["list", "--operations", "no_such_module"], "'no_such_module'", marks=pytest.mark.slow),
    ],
)
def test_bad_arguments_get_one_line(arguments: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=r"\A[^\n]*\Z") as error:
        main(arguments)
    assert message in str(error.value)


def test_an_operation_of_the_users_own_is_shown_listed_and_drawn(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    Path("plain_operations.py").write_text(OPERATION_MODULE)
    cell = [["plain_conv_3x3", 0], ["skip_connect", 1]]
    mapping = {"normal": cell, "normal_concat": [2], "reduce": cell, "reduce_concat": [2]}
    Path("mine.yaml").write_text(yaml.safe_dump(mapping))
    with pytest.raises(ValueError, match="unknown operation 'plain_conv_3x3'"):
        main(["show", "mine.yaml"])
    sizes = ["--init_channels", "4", "--num_cells", "1", "--operations", "plain_operations"]
    network = run_json(capsys, "show", "mine.yaml", *sizes)["network"]
    # One reduction cell of 8 channels on the stem's 12: stem, two preprocessings, convolution, skip,
    # classifier.
    preprocessing, convolution, skip = 12 * 8 + 16, 8 * 8 * 9 + 16, 8 * 8 + 16
    assert network["parameters"] == 3 * 12 * 9 + 24 + 2 * preprocessing + convolution + skip + 8 * 10 + 10
    run_text(capsys, "draw", "mine.yaml", "-o", "mine.svg", "--operations", "plain_operations.py")
    assert Path("mine.svg").stat().st_size > 1000


@pytest.mark.parametrize("buffering", ["unbuffered", "buffered"])
def test_a_reader_that_had_enough_ends_the_process_quietly(buffering: str) -> None:
    """As `nas-lightning cells list | head -1` does, whether the text is written at once or at the end."""
    variables = environment()
    if buffering == "buffered":
        del variables["PYTHONUNBUFFERED"]
    with subprocess.Popen(
        command(["cells", "list"]),
        cwd=ROOT,
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()  # long before the process has anything to say
        complaint = process.stderr.read()
        code = process.wait(60)
    assert complaint == ""
    assert code == 141


def test_a_real_process_answers_bad_input_with_one_line_and_code_2(tmp_path: Path) -> None:
    done = run_process(["cells", "show", "datrs"], tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert "did you mean 'darts'?" in done.stderr
