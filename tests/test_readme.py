"""What README says is what the program does: its commands parse or run."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import torch
from torch import nn

from nas_lightning.analysis import Surface, axis
from nas_lightning.cells import get_genotype
from nas_lightning.cli.checkpoint_settings import CheckpointSettings
from nas_lightning.cli.main import main
from tests.cli.parsing import ParsedLandscape, ParsedOnly

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
COMMANDS = [
    shlex.split(line)[1:]
    for block in re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
    for line in block.splitlines()
    if line.startswith("nas-lightning")
]


def block(language: str, containing: str) -> str:
    found: list[str] = re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)
    return next(text for text in found if containing in text)


def test_readme_has_commands() -> None:
    assert {arguments[0] for arguments in COMMANDS} == {
        "cells",
        "fit",
        "landscape",
        "plot",
        "study",
        "theory",
        "validate",
    }


@pytest.mark.parametrize("arguments", [c for c in COMMANDS if c[0] == "fit"], ids=" ".join)
def test_a_training_command_parses(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert ParsedOnly(arguments).settings.trainer.max_epochs == 600


@pytest.mark.parametrize("arguments", [c for c in COMMANDS if c[0] == "landscape"], ids=" ".join)
def test_a_landscape_command_parses(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    trained = CheckpointSettings(
        Path("last.ckpt"),
        epoch=599,
        genotype=str(get_genotype("darts_v2")),
        model={},
        data_class="nas_lightning.datamodules.CIFAR10",
        data={},
        run={},
    )
    monkeypatch.setattr("nas_lightning.cli.training.read_checkpoint_settings", lambda path: trained)
    callbacks = ParsedLandscape(arguments).settings.trainer.callbacks
    names = [callback.class_path.rpartition(".")[2] for callback in callbacks]
    planes = [] if "--initial_seeds" in arguments else ["LossContour", "LossProfile"]
    assert names == [*planes, "GradientVariance", "HessianSpectrum"]


@pytest.mark.parametrize("arguments", [c for c in COMMANDS if c[0] == "plot"], ids=" ".join)
def test_a_plot_command_draws(arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    kind = Path(arguments[1]).name.partition("-")[0]
    names = {"loss_contour": ("loss", "accuracy"), "gradient_variance": ("variance", "mean_gradient_norm")}
    surface = Surface.create(kind, {name: {} for name in names[kind]}, axis(3, 1), axis(3, 1), [0], {})
    for point in surface.pending():
        surface.record(point, dict.fromkeys(names[kind], 0.5 + point.alpha**2))
    surface.save(tmp_path / "surface.nc")
    main(["plot", "surface.nc", "surface.nc", *arguments[2:]])
    assert Path(arguments[-1]).stat().st_size > 1000


def test_the_theory_command_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    [arguments] = [c for c in COMMANDS if c[0] == "theory"]
    main([*arguments, "--instances", "3"])
    assert Path(arguments[-1]).stat().st_size > 1000


@pytest.mark.parametrize("arguments", [c for c in COMMANDS if c[0] == "study"], ids=" ".join)
def test_a_study_command_names_a_study(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    main(["study", "plan", *arguments[2:]])
    assert " runs of " in capsys.readouterr().out
    with pytest.raises(SystemExit, match="0"):
        main([*arguments, "--help"])
    assert f"nas-lightning study {arguments[1]}" in capsys.readouterr().out


def test_the_analysis_of_any_module_runs() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    steps = axis(3, 1)
    batches = [(torch.randn(5, 3, 2, 2), torch.tensor([0, 1, 2, 0, 1]))]
    names = {"network": network, "batches": batches, "alphas": steps, "betas": steps}
    exec(block("python", "gradient_statistics"), names)
    assert names["surface"]["loss"].shape == (3, 3)  # type: ignore[index]


@pytest.mark.parametrize("arguments", [c for c in COMMANDS if c[0] == "cells"], ids=" ".join)
def test_a_cells_command_runs(
    arguments: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    main(arguments)
    assert capsys.readouterr().out
    if "-o" in arguments:
        assert (tmp_path / arguments[arguments.index("-o") + 1]).stat().st_size > 1000


def test_the_two_commands_are_targets_of_the_makefile() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^make (\w+)", README, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)
