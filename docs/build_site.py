"""What the site adds to the pages in docs/: pages made of other files, links to them, docstrings as Markdown.

MkDocs calls ``on_files`` and ``on_page_markdown``; mkdocstrings takes the extension for docstrings.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

import griffe
from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[1]
PACKAGES = (
    "cells",
    "networks",
    "acceleration",
    "classifier",
    "prediction",
    "datamodules",
    "analysis",
    "callbacks",
    "figures",
)
"""Parts of the package that have a page of their public names."""
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "LICENSE": "licence.txt",
    "CITATION.cff": "citation.txt",
}
"""Files beside docs/, and where the site has them."""
_LINK = re.compile(r"(?<=\]\()(?!https?:|#)([^)#\s]+)(#[^)\s]*)?(?=\))")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made of files outside docs/."""
    made = {page: (ROOT / source).read_text() for source, page in PAGES.items()}
    made["configurations.md"] = configurations()
    made |= {f"api/{package}.md": public_names(package) for package in PACKAGES}
    for page, content in made.items():
        files.append(File.generated(config, page, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Make links to files outside docs/ lead to the site's pages."""
    sources = {page: source for source, page in PAGES.items()}
    folder = posixpath.dirname(sources.get(page.file.src_uri, f"docs/{page.file.src_uri}"))

    def to_page(link: re.Match[str]) -> str:
        return place(posixpath.normpath(posixpath.join(folder, link[1])), link[2] or "")

    return _LINK.sub(to_page, markdown)


def place(file: str, anchor: str = "") -> str:
    """Where the site has a file of the repository."""
    if file.startswith("configs/"):
        return f"configurations.md#{configuration_anchor(file)}"
    return PAGES.get(file, file.removeprefix("docs/")) + anchor


def configurations() -> str:
    """A page with every configuration file."""
    lines = ["# Configurations\n", "Every file of `configs/`; `--config FILE` takes them, later ones win.\n"]
    for path in sorted((ROOT / "configs").rglob("*.yaml"), key=lambda path: (len(path.parts), path)):
        name = str(path.relative_to(ROOT))
        lines.append(f"## `{name}` {{ #{configuration_anchor(name)} }}\n\n```yaml\n{path.read_text()}```\n")
    return "\n".join(lines)


def configuration_anchor(name: str) -> str:
    """The anchor of a configuration file on their page."""
    return re.sub(r"[^a-z0-9]+", "-", name.removeprefix("configs/").removesuffix(".yaml").lower())


def public_names(package: str) -> str:
    """The page of a part's public names."""
    name = f"nas_lightning.{package}"
    return f"# {name}\n\n::: {name}\n    options: {{show_root_heading: false}}\n"


class Docstrings(griffe.Extension):
    """Turns the roles and formulas of docstrings into Markdown: code, links and MathML."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite the docstring of any object."""
        if obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value)


def as_markdown(docstring: str) -> str:
    """A docstring with its reStructuredText roles as code, and its formulas as MathML."""
    formula = re.compile(r"^( *)\.\. math:: (.*(?:\n\1 {4}.*)*)$", re.MULTILINE)
    text = formula.sub(
        lambda found: found[1] + convert(" ".join(found[2].split()), display="block"), docstring
    )
    text = re.sub(r":math:`([^`]*)`", lambda found: convert(found[1]), text)
    text = re.sub(r":\w+:`~?(?:[\w.]*\.)?(\w+)`", r"`\1`", text)
    return text.replace("``", "`")
