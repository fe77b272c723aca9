"""Files and logs with several genotypes, and files that are no text."""

from __future__ import annotations

import json
import pickle
import re
import time
from pathlib import Path

import pytest

from nas_lightning.cells import genotype_notes, genotype_slug, get_genotype, random_connections
from nas_lightning.cells.genotype_files import list_genotypes

DARTS, PDARTS, ENAS = (get_genotype(name) for name in ("darts_v2", "pdarts", "enas"))

PROGRAM = f"""from collections import namedtuple

Genotype = namedtuple('Genotype', 'normal normal_concat reduce reduce_concat')
PRIMITIVES = ['none', 'max_pool_3x3']

# An older search:
# OLD = {ENAS}
NASNet = {ENAS}
DARTS_V2 = {str(DARTS).replace("normal_concat=[2, 3, 4, 5]", "normal_concat=range(2, 6)")}
PDARTS = genotypes.{PDARTS}

DARTS = DARTS_V2

def derive(weights):
    return Genotype(normal=gene(weights), normal_concat=concat, reduce=[], reduce_concat=concat)
"""


def _log(path: Path) -> Path:
    lines = []
    for epoch, genotype in enumerate((ENAS, DARTS, PDARTS)):
        lines += [f"2019-10-04 16:0{epoch}:33,123 epoch {epoch} lr 2.5e-02", f"train_acc {90 + epoch}.0"]
        lines += [f"2019-10-04 16:0{epoch}:35,123 genotype = {genotype}"]
    path.write_text("\n".join(lines))
    return path


def test_of_a_search_s_log_the_last_is_taken_unless_a_number_stands_after_it(tmp_path: Path) -> None:
    log = _log(tmp_path / "log.txt")
    assert get_genotype(log) == get_genotype(str(log)) == PDARTS
    assert [get_genotype(f"{log}#{number}") for number in (1, 2, 3)] == [ENAS, DARTS, PDARTS]
    assert genotype_notes(log) == (
        f"{log} has 3 genotypes: the last (line 9) is taken; {log}#1 is the first",
    )
    assert genotype_notes(f"{log}#2") == ()
    assert [(found.name, found.line) for found in list_genotypes(log)] == [("", 3), ("", 6), ("", 9)]
    with pytest.raises(ValueError, match=re.escape(f"{log} has no genotype '4'; it has #1 to #3")):
        get_genotype(f"{log}#4")
    assert get_genotype(f"{log}#2:connections=7") == random_connections(DARTS, 7)
    assert genotype_slug(f"{log}#2:connections=7") == "log-2-connections7"
    assert genotype_slug(str(log)) == "log"


def test_a_log_that_breaks_off_in_its_last_genotype(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    log.write_text(f"epoch 0 genotype = {DARTS}\nepoch 1 genotype = {str(ENAS)[:200]}")
    assert get_genotype(log) == DARTS
    assert genotype_notes(log) == (
        f"{log} has 2 genotypes: the last that can be read (line 1) is taken; {log}#1 is the first",
    )


def test_of_a_program_one_is_chosen_by_its_name(tmp_path: Path) -> None:
    program = tmp_path / "genotypes.py"
    program.write_text(PROGRAM)
    assert get_genotype(f"{program}#DARTS_V2") == get_genotype(f"{program}#darts_v2") == DARTS
    assert get_genotype(f"{program}#DARTS") == DARTS  # another name of DARTS_V2 there
    assert get_genotype(f"{program}#PDARTS") == get_genotype(f"{program}#3") == PDARTS
    listed = re.escape("has several genotypes: NASNet, DARTS_V2, PDARTS, DARTS; choose one, such as ")
    with pytest.raises(ValueError, match=rf"\A[^\n]*{listed}[^\n]*genotypes\.py#NASNet\Z"):
        get_genotype(program)
    with pytest.raises(ValueError, match="has no genotype 'OLD'; it has NASNet, DARTS_V2, PDARTS, DARTS"):
        get_genotype(f"{program}#OLD")
    assert genotype_slug(f"{program}#PDARTS") == "genotypes-PDARTS"


def test_a_name_by_key_and_equal_genotypes_of_two_names(tmp_path: Path) -> None:
    path = tmp_path / "found.json"
    path.write_text(f'{{"first": "{DARTS}", "second": "{PDARTS}"}}')
    assert get_genotype(f"{path}#second") == PDARTS
    path.write_text(f"first: {DARTS}\nsecond: {DARTS}\n")
    assert get_genotype(path) == DARTS
    path.write_text(f'{{"0": "{DARTS}", "1": "{PDARTS}"}}')  # a number for each epoch
    assert get_genotype(path) == PDARTS


def test_what_stands_in_comments_counts_where_nothing_else_does(tmp_path: Path) -> None:
    path = tmp_path / "notes.sh"
    path.write_text(f"python train.py\n# Genotype was:\n# {DARTS}\n")
    assert get_genotype(path) == DARTS
    path.write_text(f'# {DARTS}\npython train.py --arch "{PDARTS}"\n')
    assert get_genotype(path) == PDARTS


def test_files_of_any_suffix_and_of_other_encodings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("cell", "Genotype (1).txt", "cell.GENOTYPE", "a#b.txt", "cell.tar", "C4.yaml"):
        Path(name).write_text(f"{DARTS}\n", encoding="utf-8")
        assert get_genotype(name) == DARTS
    assert get_genotype("cell:connections=7") == random_connections(DARTS, 7)
    Path("windows.txt").write_text(f"genotype = {DARTS}\r\n", encoding="utf-16")
    Path("marked.txt").write_text(f"{DARTS}\n", encoding="utf-8-sig")
    Path("latin.log").write_bytes(b"caf\xe9 " + str(DARTS).encode())
    for name in ("windows.txt", "marked.txt", "latin.log"):
        assert get_genotype(name) == DARTS
    Path("darts_v2").write_text(str(PDARTS))
    assert get_genotype("darts_v2") == DARTS  # a published cell's name comes first
    assert get_genotype("./darts_v2") == get_genotype(Path("darts_v2")) == PDARTS


class _Trap:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise RuntimeError('unpickled')",)


def test_where_the_last_is_cut_off_the_last_whole_one_is_named(tmp_path: Path) -> None:
    log = tmp_path / "search.log"
    whole = [f"genotype = {get_genotype(f'darts_v2:operations={seed}')}" for seed in range(3)]
    log.write_text("\n".join([*whole, whole[0][:150]]))
    with pytest.raises(
        ValueError, match=f"is not closed.*; the last that can be read is {log}#3 .line 3."
    ) as error:
        get_genotype(log)
    assert "\n" not in str(error.value)
    assert get_genotype(f"{log}#3") == get_genotype("darts_v2:operations=2")
    log.write_text(whole[0][:150])
    with pytest.raises(ValueError, match=r"reduce_concat=\[2, 3\]\)\Z"):
        get_genotype(log)


def test_a_notebook_is_read_by_its_cells(tmp_path: Path) -> None:
    source = f"MINE = {DARTS}".replace(", reduce=", ",\n  reduce=").splitlines(keepends=True)
    output = {"text": [f"genotype = {get_genotype('enas')}\n"]}
    path = tmp_path / "search.ipynb"
    path.write_text(json.dumps({"cells": [{"source": source, "outputs": [output]}, {"source": "x = 1"}]}))
    assert get_genotype(f"{path}#MINE") == DARTS
    assert get_genotype(f"{path}#2") == get_genotype("enas")
    path.write_text(f"no notebook: {DARTS}")
    assert get_genotype(path) == DARTS


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32", "cp1252"])
@pytest.mark.parametrize("line_end", ["\r\n", "\r"])
def test_encodings_and_line_ends_of_other_systems(tmp_path: Path, encoding: str, line_end: str) -> None:
    path = tmp_path / "cell.txt"
    text = f"MINE = {DARTS}  # é".replace(", reduce=", f",{line_end}  reduce=")
    path.write_bytes(text.encode(encoding))
    assert get_genotype(path) == DARTS


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("cell.pkl", pickle.dumps(_Trap()), "this is no text file"),
        ("cell.pt", b"PK\x03\x04archive/data.pkl", "this is no text file"),
        ("cell.npy", b"\x93NUMPY\x01\x00v\x00", "this is no text file"),
        ("empty.txt", b"\n", "the file is empty"),
        ("train.log", b"epoch 1 lr 0.025\n" * 100, "expected a mapping with the keys"),
        ("cut.log", b"genotype = Genotype(normal=[('sep_conv_3x3', 0), ('sep_c", "a bracket is not closed"),
        ("code.py", b"g = Genotype(normal=gene, normal_concat=concat)", "'gene' is not allowed"),
        ("bomb.yaml", b"a: &a [x, x]\n" + b"<<: [*a, *a]\n" * 30, "expected a mapping"),
        ("deep.json", b"[" * 100_000, "expected a mapping|no valid YAML"),
        ("twice.json", b'{"normal": [], "normal": []}', "'normal' is given twice"),
    ],
)
def test_a_file_without_a_genotype_is_named_in_one_line(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        get_genotype(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_what_is_no_file_is_said(tmp_path: Path) -> None:
    for spec in (tmp_path, tmp_path / "absent.log", f"{tmp_path}/absent.txt#3", "cells/mine"):
        with pytest.raises(FileNotFoundError, match=r"is not a file"):
            get_genotype(spec)
    for spec in ("#3", "a\0b.txt", "a" * 5000):
        with pytest.raises((ValueError, OSError)) as error:
            get_genotype(spec)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "text",
    [
        "Genotype(" * 20_000,
        "Genotype([" + "(" * 90_000,
        "{'normal': " * 10_000,
        "'normal': " * 20_000,
        "{" * 100_000 + "'normal': ",
        "Genotype" + " " * 500_000 + "x",
        "a" * 500_000 + "Genotype(1)",
        "x = " * 100_000 + "Genotype(1)",
        "'" * 200_000 + "Genotype('",
        "dict(normal=" * 20_000,
        "a: &a [1]\n" + "b: [*a, *a]\n" * 10_000,
        '{"edge_normal_999999999999": "x", "edge_reduce_1": "y"}',
    ],
    ids=range(12),
)
def test_reading_is_bounded_in_time(tmp_path: Path, text: str) -> None:
    path = tmp_path / "large.log"
    path.write_text(text)
    start = time.perf_counter()
    with pytest.raises(ValueError, match=r"\A[^\n]*\Z"):
        get_genotype(path)
    assert time.perf_counter() - start < 10


def test_a_long_log_is_read_quickly(tmp_path: Path) -> None:
    path = tmp_path / "long.log"
    path.write_text("epoch 1 of 600, loss 2.302585 acc 10.0\n" * 100_000 + f"genotype = {DARTS}\n" * 600)
    start = time.perf_counter()
    assert get_genotype(path) == DARTS
    assert time.perf_counter() - start < 10
