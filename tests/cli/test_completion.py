"""The scripts that complete the command do so in the shells that are there."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from nas_lightning.cli.main import SUBCOMMANDS, main

CASES = [
    (["fi"], ["fit"]),
    (["fit", "--model.gen"], ["--model.genotype"]),
    (["fit", "--model.genotype", "amoe"], ["amoebanet"]),
    (["fit", "--data", "CIFAR"], ["CIFAR10", "CIFAR100"]),
    (["fit", "--data.cut"], ["--data.cutout"]),
    (["fit", "--model.optimizer.mom"], ["--model.optimizer.momentum", "--model.optimizer.momentum_decay"]),
    (["fit", "--model.num_cells", "8", "--model.speed", "c"], ["compiled"]),
    (["fit", "--trainer.callbacks.LossContour.reso"], ["--trainer.callbacks.LossContour.resolution"]),
    (["landscape", "--trainer.callbacks+", "Hess"], ["HessianSpectrum"]),
    (["landscape", "--initial"], ["--initial_seeds"]),
    (["fit", "--config", "mi"], ["mine.yaml"]),
    (["cells", "dr"], ["draw"]),
    (["cells", "draw", "--cells", "n"], ["normal"]),
    (["cells", "convert", "darts_v2", "--to", "j"], ["json"]),
    (["study", "rep"], ["report"]),
    (["completion", ""], ["bash", "zsh"]),
]


@pytest.fixture(scope="module")
def scripts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    written = {}
    for shell in ("bash", "zsh"):
        written[shell] = tmp_path_factory.mktemp("completion") / f"script.{shell}"
        with written[shell].open("w") as file, contextlib.redirect_stdout(file):
            main(["completion", shell])
    return written


def completed(script: Path, words: Sequence[str], folder: Path) -> list[str]:
    """What bash offers for the last of the words after `nas-lightning`."""
    code = """
source "$0"
COMP_WORDS=(nas-lightning "$@")
COMP_CWORD=$#
_shtab_nas_lightning nas-lightning "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""
    process = subprocess.run(
        ["bash", "-c", code, str(script), *words], cwd=folder, capture_output=True, text=True, timeout=60
    )
    assert not process.stderr
    return sorted(process.stdout.split())


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes_commands_settings_and_values(scripts: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("")
    for words, expected in CASES:
        assert completed(scripts["bash"], words, tmp_path) == sorted(expected), words
    assert completed(scripts["bash"], [""], tmp_path) == sorted(SUBCOMMANDS)


def test_the_script_of_zsh_has_every_subcommand(scripts: dict[str, Path]) -> None:
    text = scripts["zsh"].read_text()
    assert text.startswith("#compdef nas-lightning")
    assert all(f"_shtab_nas_lightning_{name}" in text for name in SUBCOMMANDS)
    assert "--trainer.callbacks.LossContour.resolution" in text


@pytest.mark.skipif(shutil.which("zsh") is None, reason="needs zsh")
def test_the_script_of_zsh_is_valid(scripts: dict[str, Path]) -> None:
    process = subprocess.run(["zsh", "-n", str(scripts["zsh"])], capture_output=True, text=True, timeout=60)
    assert (process.returncode, process.stderr) == (0, "")
