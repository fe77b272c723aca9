from __future__ import annotations

from pathlib import Path

import pytest

from nas_lightning.audit.subjects import read_subjects
from nas_lightning.cells import Genotype, get_genotype

ONE_NODE = Genotype(
    [("sep_conv_3x3", 0), ("skip_connect", 1)], [2], [("max_pool_3x3", 0), ("skip_connect", 1)], [2]
)


def test_cells_have_names_that_are_fit_for_files(tmp_path: Path) -> None:
    (tmp_path / "my cell.txt").write_text(str(get_genotype("enas")))
    literal = str(get_genotype("pdarts"))
    specs = ["darts:connections=7", literal]
    first, second = read_subjects(specs)
    (third,) = read_subjects([str(tmp_path / "my cell.txt")])
    assert (first.name, third.name) == ("darts_v2-connections7", "my_cell")
    assert second.name.startswith("genotype-")
    assert [first.spec, second.spec] == specs
    assert first.genotype == get_genotype("darts_v2:connections=7")


@pytest.mark.parametrize(
    ("specs", "said"),
    [
        (
            ["darts_v2", "nasnet"],
            "darts_v2 and nasnet belong to different spaces: their normal cells have",
        ),
        (["darts_v2", "darts"], "darts_v2 and darts are the same cell"),
        ([str(ONE_NODE)], "the normal cell has one node"),
        (["darts_v9"], "darts_v9"),
        (["absent.yaml"], "absent.yaml"),
    ],
    ids=["other space", "same cell", "one node", "unknown", "no file"],
)
def test_what_cannot_be_audited_together_is_refused(specs: list[str], said: str) -> None:
    with pytest.raises((ValueError, FileNotFoundError)) as error:
        read_subjects(specs)
    assert said in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 300


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    for name, spec in (("a", "darts_v1"), ("b", "darts_v2")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "mine.yaml").write_text(str(get_genotype(spec)))
    with pytest.raises(ValueError, match="would both be called 'mine'"):
        read_subjects([str(tmp_path / "a" / "mine.yaml"), str(tmp_path / "b" / "mine.yaml")])


def test_a_name_too_long_for_files_is_refused(tmp_path: Path) -> None:
    path = tmp_path / f"{'细' * 41}.txt"  # 123 bytes in UTF-8
    path.write_text(str(get_genotype("enas")))
    with pytest.raises(ValueError, match="at most 120 bytes"):
        read_subjects([str(path)])
