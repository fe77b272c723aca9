"""The parser's pages become lines that name the setting, the value and what would be right."""

from __future__ import annotations

from pathlib import Path

import pytest

from nas_lightning.cli.messages import one_line
from tests.cli.parsing import ParsedOnly


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--model.num_cells=2.5"], "`model.num_cells` (=2.5) must be of type int"),
        (["--model.operations=gated"], "`model.operations` (=gated) must be of type sequence"),
        (
            ["--model.init_chanels=4"],
            "there is no setting `model.init_chanels`; did you mean `model.init_channels`?",
        ),
        (["--data.batch_sise=3"], "there is no setting `batch_sise`; did you mean `data.batch_size`?"),
        (["--model.colour=red"], "there is no setting `model.colour`; --help lists all settings"),
        (
            ["--model.optimizer=Adm"],
            "`model.optimizer` (=Adm) must be the name or import path of a class",
        ),
        (
            ["--data=ImageNet22k"],
            "`data` (=ImageNet22k) must be the name or import path of a class",
        ),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_wrong_setting_is_one_plain_line(arguments: list[str], line: str) -> None:
    with pytest.raises(ValueError, match=r"\S") as error:
        ParsedOnly(["fit", *arguments])
    assert str(error.value) == line


def test_an_error_of_the_system_says_what_failed_without_its_number() -> None:
    assert one_line(OSError(2, "cannot write x.svg: No such file")) == "cannot write x.svg: No such file"
    assert "there.npy" in one_line(FileNotFoundError(2, "No such file", "there.npy"))


def test_choices_are_listed() -> None:
    with pytest.raises(
        ValueError, match=r"`trainer\.precision` \(=17\) must be one of 64, 32, 16, .*bf16-mixed"
    ):
        ParsedOnly(["fit", "--trainer.precision=17"])


@pytest.mark.parametrize(
    ("content", "fragment"),
    [("- 1\n", "must hold settings"), ("model: [\n", "is no valid YAML"), ("", "must hold settings")],
    ids=["list", "broken", "empty"],
)
def test_a_damaged_config_is_named(content: str, fragment: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(content)
    for arguments in (["fit", f"--config={path}"], ["fit", "--config", str(path)], ["fit", "-c", str(path)]):
        with pytest.raises(ValueError, match=fragment) as error:
            ParsedOnly(arguments)
        assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("callback", "line"),
    [
        (
            "{class_path: LossContour, init_args: {resolutoin: 5}}",
            "there is no setting `resolutoin`; did you mean `resolution`?",
        ),
        (
            "{class_path: LossContour, init_args: {normalization: filters}}",
            "`normalization` (=filters) must be one of filter, layer, none",
        ),
        (
            "{class_path: nas_lightning.callbacks.LosContour}",
            "`trainer.callbacks` names 'nas_lightning.callbacks.LosContour': there is no such class",
        ),
    ],
)
def test_a_wrong_setting_of_a_callback_is_one_plain_line(callback: str, line: str, tmp_path: Path) -> None:
    path = tmp_path / "overlay.yaml"
    path.write_text(f"trainer: {{callbacks: [{callback}]}}\n")
    (tmp_path / "including.yaml").write_text("include: overlay.yaml")
    for file in (path, tmp_path / "including.yaml"):
        with pytest.raises(ValueError, match=r"\S") as error:
            ParsedOnly(["fit", f"--config={file}"])
        assert str(error.value) == line
