"""The documents: their lines, their links, the files they name, and CONTRIBUTING's examples."""

from __future__ import annotations

import re
import shlex
import sys
import unicodedata
from pathlib import Path

import pytest

from nas_lightning.cli.main import main

ROOT = Path(__file__).parents[1]
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()
LINE_LENGTH = 100
SMALL = (
    "--model.init_channels=4",
    "--model.num_cells=3",
    "--trainer.max_epochs=1",
    "--trainer.limit_train_batches=2",
)


def without_code(text: str) -> str:
    return re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)


def anchors(text: str) -> set[str]:
    """The anchors of all headings, made as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", without_code(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_lines_are_wrapped(path: Path) -> None:
    for line in without_code(path.read_text()).splitlines():
        is_free = line.startswith(("|", "    ", "#", "![", "<!--")) or "](" in line
        width = sum(not unicodedata.combining(character) for character in line)
        assert is_free or width <= LINE_LENGTH, line


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", without_code(path.read_text())):
        file, _, anchor = target.partition("#")
        assert (path.parent / file).exists(), target
        if anchor:
            assert anchor in anchors((path.parent / file).read_text()), target


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_files_in_the_text_exist(path: Path) -> None:
    folders = [
        ROOT,
        path.parent,
        ROOT / "nas_lightning",
        ROOT / "configs",
        ROOT / "configs" / "studies",
        ROOT / "docs" / "cluster",
    ]
    absent = {"mine.yaml", "gated.yaml", "config.yaml"} | set(
        re.findall(r"`(\S+\.py)`:$", CONTRIBUTING, re.MULTILINE)
    )
    steps = re.findall(r"^Into the package.*?(?=^#|\Z)", CONTRIBUTING, re.DOTALL | re.MULTILINE)
    absent |= {
        name
        for step in steps
        for name in re.findall(r"`([\w/]+(?:confidence|stripes|reliability)\S*)`", step)
    }
    for name in re.findall(r"`([\w./-]+\.(?:py|yaml|c|h|sbatch))`", without_code(path.read_text())):
        assert name in absent or any((folder / name).exists() for folder in folders), name


def block(name: str) -> str:
    """The code that follows the name of its file."""
    found = re.search(rf"`{re.escape(name)}`:\n\n```\w+\n(.*?)```", CONTRIBUTING, re.DOTALL)
    assert found is not None, name
    return found.group(1)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the files of CONTRIBUTING's examples."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("gated.py", "gated.yaml", "confidence.py", "stripes.py", "reliability.py"):
        if name != "gated.py" or "gated" not in sys.modules:  # an operation is registered once in a process
            (tmp_path / name).write_text(block(name))
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    return tmp_path


def command(containing: str) -> list[str]:
    lines = [
        line
        for text in re.findall(r"```bash\n(.*?)```", CONTRIBUTING, re.DOTALL)
        for line in text.splitlines()
        if containing in line
    ]
    arguments = shlex.split(lines[0])
    return arguments[arguments.index("fit") if "fit" in arguments else 1 :]


def test_the_operation_is_drawn_and_trains(folder: Path) -> None:
    main(command("cells draw gated.yaml"))
    assert (folder / "gated.png").stat().st_size > 1000
    main(
        [
            *command("fit --config configs/quickstart.yaml --model.genotype"),
            *SMALL,
            "--trainer.callbacks=null",
        ]
    )
    assert "gated_conv_3x3" in (folder / "tb_logs" / "quickstart" / "gated" / "result.json").read_text()


def test_the_analysis_measures_the_data_set(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = command("--data stripes.Stripes")
    analysis = command("confidence.ConfidenceGap")
    analysis = [
        argument.replace("callbacks+", "callbacks") for argument in analysis[analysis.index("--config") + 2 :]
    ]
    with caplog.at_level("INFO"):
        main([*data, *analysis, *SMALL])
    gap = re.search(r"confidence gap (-?\d\.\d+)", caplog.text)
    assert gap is not None
    assert -1 <= float(gap.group(1)) <= 1
    assert (folder / "tb_logs" / "quickstart" / "darts_v2" / "result.json").is_file()


def test_the_figure_is_drawn(folder: Path) -> None:
    exec(compile(block("reliability.py"), "reliability.py", "exec"), {"__name__": "__main__"})
    assert (folder / "reliability.png").stat().st_size > 1000
