"""YAML files are read strictly, and a configuration can include others."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from nas_lightning.yaml_files import read_config, read_mapping, read_yaml
from tests.cli.parsing import ParsedOnly


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "sizes").mkdir()
    (tmp_path / "sizes" / "small.yaml").write_text(
        "include: ../data.yaml\nmodel: {num_cells: 3, init_channels: 4}"
    )
    (tmp_path / "data.yaml").write_text("data: Digits\nmodel: {num_cells: 9}")
    (tmp_path / "rate.yaml").write_text(
        "model: {optimizer: {class_path: torch.optim.SGD, init_args: {lr: 3e-4}}}"
    )
    (tmp_path / "all.yaml").write_text("include: [sizes/small.yaml, rate.yaml]\nmodel: {init_channels: 8}")
    return tmp_path


def test_included_files_come_first_and_their_own_before_them(folder: Path) -> None:
    (folder / "only.yaml").write_text("include: all.yaml")
    assert read_config(folder / "only.yaml") == [
        read_mapping(folder / "data.yaml"),
        {"model": {"num_cells": 3, "init_channels": 4}},
        read_mapping(folder / "rate.yaml"),
        {"model": {"init_channels": 8}},
    ]


def test_including_is_naming_one_after_the_other(folder: Path) -> None:
    (folder / "last.yaml").write_text("model: {init_channels: 8}")
    (folder / "middle.yaml").write_text("model: {num_cells: 3, init_channels: 4}")
    names = ("data", "middle", "rate", "last")
    one = ParsedOnly(["fit", f"--config={folder / 'all.yaml'}", "--model.drop_path=0.1"]).settings
    several = ParsedOnly(
        ["fit", *(f"--config={folder / name}.yaml" for name in names), "--model.drop_path=0.1"]
    ).settings
    assert (one.model.num_cells, one.model.init_channels, one.model.optimizer.init_args.lr) == (3, 8, 3e-4)
    del one["config"], several["config"]
    assert one == several


def test_what_is_saved_includes_nothing(folder: Path) -> None:
    cli = ParsedOnly(["fit", "--config", str(folder / "all.yaml")])
    saved = yaml.safe_load(cli.parser.dump(cli.config))["fit"]
    assert "include" not in saved
    assert saved["model"]["init_channels"] == 8


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("include: wrong.yaml", r"wrong\.yaml includes itself"),
        ("include: [back.yaml]", r"wrong\.yaml includes itself"),
        ("include: absent.yaml", r"absent\.yaml is not a file"),
        ("include: {a: b}", r"`include` \(=\{'a': 'b'\}\) must be a file or a list"),
        ("include: [1]", r"`include` \(=\[1\]\) must be a file or a list"),
        ("model: {}\nmodel: {}", r"wrong\.yaml is no valid YAML: 'model' appears twice"),
        ("model: [", r"wrong\.yaml is no valid YAML"),
        ("- model", r"wrong\.yaml must hold settings"),
    ],
)
def test_a_wrong_config_is_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "wrong.yaml").write_text(content)
    (tmp_path / "back.yaml").write_text("include: wrong.yaml")
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        read_config(tmp_path / "wrong.yaml")
    with pytest.raises((ValueError, FileNotFoundError), match=f"`config`: .*{message}"):
        ParsedOnly(["fit", f"--config={tmp_path / 'wrong.yaml'}"])


def test_numbers_are_read_as_the_command_line_reads_them(tmp_path: Path) -> None:
    (tmp_path / "numbers.yaml").write_text("[3e-4, 1E5, 3.0e-4, 1e, '3e-4']")
    assert read_yaml(tmp_path / "numbers.yaml") == [3e-4, 1e5, 3e-4, "1e", "3e-4"]


def test_yaml_is_read_as_plain_values(tmp_path: Path) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text("a: 3e-4\nb: &shared {x: 1}\nc: {<<: *shared, y: [Köln, 2.5]}\n", encoding="utf-8")
    assert read_yaml(path) == {"a": 3e-4, "b": {"x": 1}, "c": {"x": 1, "y": ["Köln", 2.5]}}
    path.write_text("")
    assert read_yaml(path) is None
    with pytest.raises(FileNotFoundError, match=r"absent\.yaml is not a file"):
        read_yaml(tmp_path / "absent.yaml")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a: [1\nb: 2", "no valid YAML: did not find expected ',' or ']' (line 2)"),
        ("a: 1\nb: {c: 1, c: 2}", "no valid YAML: 'c' appears twice (line 2)"),
        ("!!python/object/apply:os.system ['true']", "no valid YAML: could not determine a constructor"),
        ("? [1, {}]\n: 2", "no valid YAML: found unhashable key (line 1)"),
        ("\x00", "no valid YAML"),
        ("[" * 100_000, "no valid YAML"),
        ("a: !!map 256", "no valid YAML: expected a mapping node, but found scalar (line 1)"),
    ],
    ids=["syntax", "twice", "object", "key", "control", "deep", "tag"],
)
def test_bad_yaml_is_refused_in_one_line(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"\A[^\n]*\Z") as error:
        read_yaml(path)
    assert str(error.value).startswith(str(path))
    assert message in str(error.value)


def test_yaml_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes("a: Köln".encode("latin-1"))
    with pytest.raises(ValueError, match=r"latin\.yaml is no text in UTF-8 \(byte 4\)"):
        read_yaml(tmp_path / "latin.yaml")
