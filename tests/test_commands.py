"""The commands in the documents: run, on smaller networks, or marked as not run and parsed."""

from __future__ import annotations

import contextlib
import io
import re
import runpy
import shlex
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nas_lightning.cells import get_genotype
from nas_lightning.cli.checkpoint_settings import CheckpointSettings
from nas_lightning.cli.main import main
from tests.cli.parsing import ParsedLandscape, ParsedOnly

ROOT = Path(__file__).parents[1]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
NOT_RUN = "not run by the tests: "
SMALL = (
    "--model.init_channels=4",
    "--model.num_cells=3",
    "--trainer.max_epochs=1",
    "--trainer.limit_train_batches=2",
)
RESULTS = {
    "CONTRIBUTING": {"gated": "gated_conv_3x3", "darts_v2": '"finished": true'},
    "images": {"darts_v2": "stripes.Stripes"},
    "start": {"darts_v2-connections7": "connections"},
}
"""What stands in the results of a page's runs."""


@dataclass(frozen=True)
class Block:
    """A block of shell commands on a page."""

    page: Path
    title: str
    lines: tuple[str, ...]

    @property
    def runs(self) -> bool:
        """Whether the tests run it."""
        return not self.title.startswith(NOT_RUN)

    def commands(self) -> list[list[str]]:
        """The words of every command, without comments."""
        return [words for line in self.lines if (words := shlex.split(line, comments=True))]


def blocks(page: Path) -> list[Block]:
    found = re.findall(r'^```bash(?: title="(.*?)")?\n(.*?)^```', page.read_text(), re.DOTALL | re.MULTILINE)
    return [Block(page, title, tuple(text.replace("\\\n", "").splitlines())) for title, text in found]


def ours(words: list[str]) -> list[str] | None:
    """The arguments of nas-lightning in a command; None for another program."""
    if words[0] == "nas-lightning":
        return words[1:]
    return words[3:] if words[:3] == ["python", "-m", "nas_lightning"] else None


def write_files(page: Path, folder: Path) -> None:
    """Write the files that a page shows: a name, a colon, and a block."""
    for name, text in re.findall(r"`([\w.]+)`:\n\n```\w+\n(.*?)```", page.read_text(), re.DOTALL):
        if Path(name).stem not in sys.modules:  # an operation is registered once in a process
            (folder / name).write_text(text)


def write_images(folder: Path) -> None:
    """Write the images that the pages call ``pets`` and ``new.jpg``."""
    chance = np.random.default_rng(0)
    places = [f"pets/{split}/{name}" for split in ("train", "test") for name in ("cat", "dog")]
    files = [f"{place}/{number}.jpg" for place in places for number in range(48 if "train" in place else 6)]
    for file in ("new.jpg", *files):
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(chance.integers(0, 256, (40, 32, 3), dtype=np.uint8)).save(folder / file)


def expand(word: str) -> list[str]:
    """The files of a pattern, as a shell has them; any other word as it is."""
    return sorted(map(str, Path().glob(word))) if "*" in word else [word]


def small(arguments: list[str]) -> list[str]:
    """What makes a training small; `--extend` is a number of epochs itself."""
    return [setting for setting in SMALL if not ("max_epochs" in setting and "--extend" in arguments)]


def run(words: list[str]) -> None:
    """Run a command of a page in this process; training gets smaller."""
    target = None
    if ">" in words:
        target, words = Path(words[words.index(">") + 1]), words[: words.index(">")]
    words = [file for word in words for file in expand(word)]
    arguments = ours(words)
    printed, code = io.StringIO(), None
    with contextlib.redirect_stdout(printed):
        if arguments is not None:
            is_training = arguments[0] == "fit" and not any(
                word.endswith(("help", "print_config")) for word in arguments
            )
            try:
                main([*arguments, *(small(arguments) if is_training else ())])
            except SystemExit as end:  # after help
                code = end.code
        else:
            assert words[0] == "python", words
            runpy.run_path(words[1], run_name="__main__")
    assert code in {None, 0}, words
    if target is not None:
        target.write_text(printed.getvalue())


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", [page for page in PAGES if any(block.runs for block in blocks(page))], ids=lambda page: page.stem
)
def test_the_commands_of_a_page_run(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    quickstart = tmp_path / "configs" / "quickstart.yaml"
    quickstart.write_text(
        quickstart.read_text().replace("resolution: 9", "resolution: 3").replace("256", "32")
    )
    write_files(page, tmp_path)
    write_images(tmp_path)
    for block in blocks(page):
        for words in block.commands() if block.runs else ():
            run(words)
            made = [words[i + 1] for i, word in enumerate(words[:-1]) if word in ("-o", ">")]
            assert all(Path(file).stat().st_size > 50 for file in made), words
    for run_name, words_in_result in RESULTS.get(page.stem, {}).items():
        assert words_in_result in Path("tb_logs", "quickstart", run_name, "result.json").read_text()
    if page.stem == "CONTRIBUTING":
        gap = re.search(r"confidence gap (-?\d\.\d+)", caplog.text)
        assert gap is not None
        assert -1 <= float(gap.group(1)) <= 1


@pytest.mark.parametrize(
    ("page", "words"),
    [
        pytest.param(page, words, id=" ".join(words))
        for page in PAGES
        for block in blocks(page)
        for words in block.commands()
        if not block.runs and ours(words) is not None
    ],
)
def test_a_command_that_does_not_run_parses(
    page: Path,
    words: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    write_files(page, tmp_path)
    monkeypatch.chdir(tmp_path)
    arguments = ours(words)
    assert arguments is not None
    trained = CheckpointSettings(
        Path("last.ckpt"),
        epoch=599,
        genotype=str(get_genotype("darts_v2")),
        model={},
        data_class="nas_lightning.datamodules.CIFAR10",
        data={},
        run={},
    )
    for module in ("training_settings", "curve"):
        reader = f"nas_lightning.cli.{module}.read_checkpoint_settings"
        monkeypatch.setattr(reader, lambda path, **_: trained)
    if arguments[0] == "fit":
        assert ParsedOnly(arguments).settings.trainer.max_epochs >= 1
    elif arguments[0] == "landscape":
        settings = ParsedLandscape(arguments).settings
        assert settings.trainer.callbacks or settings.trajectories or settings.between
    else:
        with pytest.raises(SystemExit, match="0"):
            main([*arguments[: 2 if arguments[0] in ("cells", "study") else 1], "--help"])
        assert f"nas-lightning {arguments[0]}" in capsys.readouterr().out


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_stands_in_a_block_of_its_language(page: Path) -> None:
    fences = re.findall(r"^```([^\n]*)\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)
    unnamed = [text for language, text in fences if not language]
    makefile = (ROOT / "Makefile").read_text()
    assert not {"sh", "shell", "console"} & {language.partition(" ")[0] for language, _ in fences}
    for line in "".join(unnamed).splitlines():
        if line.startswith("make"):
            for target in shlex.split(line, comments=True)[1:]:
                assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
        assert not line.startswith(("nas-lightning", "python ", "pip ")), line
