"""The report of a study as one page that needs nothing else, and its pictures and tables as files."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs  # type: ignore[import-untyped]

from nas_lightning.figures.picture import figure_to_bytes
from nas_lightning.files import atomic_write
from nas_lightning.report.blocks import ReportPicture
from nas_lightning.report.claims import Claim, examine_claims
from nas_lightning.report.interactive import json_for_html, live_data
from nas_lightning.report.page_blocks import claim_blocks, html_table
from nas_lightning.report.pictures import report_pictures, uncovered
from nas_lightning.report.summary import (
    counts,
    missing_runs,
    provenance,
    settings,
    study_sentence,
)
from nas_lightning.report.table_text import table_files
from nas_lightning.report.tables import report_tables
from nas_lightning.study.results import Results

_PIXELS = 96  # of CSS, per inch: the PNG has about twice as many
_PICTURE_FILES = ("svg", "pdf", "png")
_LINK = re.compile(r'href="((?:figures|tables)/[^"/\\]+)"')


def write_report(results: Results, folder: Path | None = None) -> Path:
    """Write the report: ``index.html``, ``figures/*.{svg,pdf,png}``, ``tables/*.{csv,md,tex}``.

    The page holds all that it shows; its links lead to the files beside it. The same results give the same
    bytes. Files that an earlier report linked to and this one does not are removed. The page itself is
    written last.

    Args:
        results: What the study gave so far; it may be unfinished.
        folder: Where to; ``results.study.output_folder`` by default.

    Returns:
        The page.

    Raises:
        OSError: If a file cannot be written or a surface cannot be read.
        ValueError: If a surface file is damaged.
    """
    folder = results.study.output_folder if folder is None else folder
    claims = examine_claims(results.runs)
    pictures, tables = report_pictures(results, claims), report_tables(results, claims)
    stems = file_stems([*(picture.key for picture in pictures), *(table.key for table in tables)])
    written: set[str] = set()
    blocks: list[dict[str, Any]] = []
    for picture, stem in zip(pictures, stems, strict=False):
        contents = {suffix: figure_to_bytes(picture.figure, suffix) for suffix in _PICTURE_FILES}
        links = _write_files(folder, f"figures/{stem}", contents)
        written.update(link for _, link in links)
        blocks.append(_picture_block(picture, stem, contents, links))
    table_blocks: list[dict[str, Any]] = []
    for table, stem in zip(tables, stems[len(pictures) :], strict=True):
        texts = {suffix: text.encode() for suffix, text in table_files(table).items()}
        links = _write_files(folder, f"tables/{stem}", texts)
        written.update(link for _, link in links)
        heading = _heading(table.number, table.title)
        shown = html_table(table.frame, table.caption)
        table_blocks.append({"id": f"table-{stem}", "heading": heading, "links": links, **shown})
    page = folder / "index.html"
    _remove_stale(page, written)
    text = _render_page(results, blocks, table_blocks, claims, uncovered(results))
    with atomic_write(page) as file:
        file.write(text)
    return page


def _render_page(
    results: Results,
    pictures: Sequence[dict[str, Any]],
    tables: Sequence[dict[str, Any]],
    claims: Sequence[Claim],
    not_covered: Sequence[str],
) -> str:
    """The text of the page: HTML without a reference to anything outside but links."""
    of_claims = [block for block in pictures if block["section"] == "claims"]
    sections: list[dict[str, Any]] = [
        {"id": name, "title": title, "pictures": [block for block in pictures if block["section"] == name]}
        for name, title in (
            ("plane", "Width and depth"),
            ("figures", "The paper's figures"),
            ("more", "Beyond the paper"),
        )
    ]
    sections = [section for section in sections if section["pictures"]]
    contents = [
        {"id": "claims", "title": "The claims", "parts": []},
        *({**section, "parts": _parts(section["pictures"])} for section in sections),
        {"id": "tables", "title": "Tables", "parts": _parts(tables)},
        {"id": "missing", "title": "What is missing", "parts": []},
        {"id": "measured", "title": "How it was measured", "parts": []},
        {"id": "provenance", "title": "Provenance", "parts": []},
    ]
    missing = missing_runs(results)
    mentioned = "\n".join(results.problems)
    return (
        _environment()
        .get_template("page.html")
        .render(
            study=results.study,
            title=results.study.title or results.study.name,
            sentence=study_sentence(results),
            counts=counts(results),
            unfinished=len(missing),
            missing=[name for name in missing if name not in mentioned],
            problems=results.problems,
            uncovered=not_covered,
            claims=claim_blocks(claims),
            of_claims=of_claims,
            sections=sections,
            contents=contents,
            tables=tables,
            settings=settings(results),
            provenance=provenance(results),
            css=_asset("page.css"),
            scripts=[_asset("page_pictures.js"), _asset("page.js")],
            plotly=Markup(get_plotlyjs()) if any(block["live"] for block in pictures) else None,
        )
    )


def file_stems(keys: Iterable[str]) -> list[str]:
    """Stems of files for keys: safe in file names, links and identifiers, each different.

    Args:
        keys: Keys of pictures and tables.

    Returns:
        The keys, with ``-`` for other characters than letters, digits, ``.``, ``_`` and ``-``, and a number
        at the end where two would be the same on a disk that ignores case.

    Examples:
        >>> file_stems(["figure03", "my cell/x", "my cell:x"])
        ['figure03', 'my-cell-x', 'my-cell-x-2']
    """
    stems: list[str] = []
    taken: set[str] = set()
    for key in keys:
        plain = re.sub(r"[^A-Za-z0-9._-]+", "-", key).lstrip(".") or "block"
        stem, number = plain, 2
        while stem.lower() in taken:
            stem, number = f"{plain}-{number}", number + 1
        taken.add(stem.lower())
        stems.append(stem)
    return stems


def _picture_block(
    picture: ReportPicture, stem: str, contents: dict[str, bytes], links: list[tuple[str, str]]
) -> dict[str, Any]:
    # Of many small areas, a PNG is smaller; of lines and text, an SVG is, and sharper.
    suffix = min(("svg", "png"), key=lambda suffix: len(contents[suffix]))
    kind = {"svg": "svg+xml", "png": "png"}[suffix]
    width, height = (round(inches * _PIXELS) for inches in picture.figure.get_size_inches())
    live = None if picture.interactive is None else live_data(picture.interactive)
    return {
        "id": f"picture-{stem}",
        "section": _section(picture),
        "heading": _heading(picture.number, picture.title),
        "caption": picture.caption,
        "source": f"data:image/{kind};base64,{base64.b64encode(contents[suffix]).decode()}",
        "width": width,
        "height": height,
        "live": None if live is None else Markup(json_for_html(live)),
        "links": links,
    }


def _section(picture: ReportPicture) -> str:
    if picture.number:
        return "figures"
    if picture.interactive is not None and picture.interactive.get("kind") == "plane":
        return "plane"
    return "claims" if "claim" in picture.key else "more"


def _heading(number: str, title: str) -> str:
    return f"{number}: {title}" if number else title


def _parts(blocks: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(block["id"], block["heading"]) for block in blocks]


def _write_files(folder: Path, stem: str, contents: dict[str, bytes]) -> list[tuple[str, str]]:
    """Write a block's files; their formats and links."""
    links = []
    for suffix, content in contents.items():
        with atomic_write(folder / f"{stem}.{suffix}", "wb") as file:
            file.write(content)
        links.append((suffix, f"{stem}.{suffix}"))
    return links


def _remove_stale(page: Path, written: set[str]) -> None:
    """Remove the files of the earlier report that this one does not have; others in the folder stay."""
    if page.is_file():
        for link in set(_LINK.findall(page.read_text(encoding="utf-8", errors="replace"))) - written:
            (page.parent / link).unlink(missing_ok=True)


def _asset(name: str) -> Markup:
    """A file of this package, as it is."""
    return Markup((files("nas_lightning.report") / name).read_text(encoding="utf-8"))


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("nas_lightning.report", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
