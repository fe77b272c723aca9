"""The documents: their lines, their links, and the files they name."""

from __future__ import annotations

import re
import unicodedata
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()
LINE_LENGTH = 100


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


@pytest.mark.parametrize("name", ["audit", "studies"])
def test_code_for_notebooks_runs(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / f"{name}.md").read_text(), re.DOTALL)
    for block in blocks:
        exec(block, {})
    assert blocks
    assert len(capsys.readouterr().out.splitlines()) == 2


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
    absent = {"mine.yaml", "config.yaml", "stripes.py"} | set(
        re.findall(r"`(\S+\.(?:py|yaml))`:$", path.read_text(), re.MULTILINE)
    )
    steps = re.findall(r"^Into the package.*?(?=^#|\Z)", CONTRIBUTING, re.DOTALL | re.MULTILINE)
    absent |= {
        name
        for step in steps
        for name in re.findall(r"`([\w/]+(?:confidence|stripes|reliability)\S*)`", step)
    }
    for name in re.findall(r"`([\w./-]+\.(?:py|yaml|c|h|sbatch))`", without_code(path.read_text())):
        assert name in absent or any((folder / name).exists() for folder in folders), name
