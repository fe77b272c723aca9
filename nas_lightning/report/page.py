"""The report of a study as one page that needs nothing else, and its figures and tables as files."""

from __future__ import annotations

import base64
import gzip
import re
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure
from plotly.offline import get_plotlyjs  # type: ignore[import-untyped]

from nas_lightning.figures.picture import figure_to_bytes
from nas_lightning.files import atomic_write
from nas_lightning.report.claims import Claim, examine_claims
from nas_lightning.report.figures import ReportFigure, report_figures, uncovered
from nas_lightning.report.observation import observation_claims
from nas_lightning.report.pictures import COARSE, SHARP, asset, still
from nas_lightning.report.statements import statements
from nas_lightning.report.summary import counts, missing_runs, provenance, settings, study_sentence
from nas_lightning.report.table_files import ReportTable, html_table, table_files
from nas_lightning.report.tables import report_tables
from nas_lightning.report.words import SETTING_NAMES, environment, p_value_text, say, signed
from nas_lightning.study.results import Results

_MANY = 30  # figures from which on live ones have a coarse still; the files stay sharp
_LONG_TABLE = 60  # rows: longer tables scroll within the page
_PICTURE_FILES = ("svg", "pdf", "png")
_LINK = re.compile(r'href="((?:figures|tables)/[^"/\\]+)"')
_SECTIONS = {
    "plane": "Width and depth",
    "budget": "What a search would have picked",
    "paper": "The paper's figures",
    "more": "Beyond the paper",
}


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
    page = folder / "index.html"
    text, written = _drawn(results, folder)
    _remove_stale(page, written)
    with atomic_write(page) as file:
        file.write(text)
    return page


def write_page(results: Results, path: Path) -> None:
    """Write the page of :func:`write_report` alone: one file to hand on, with nothing beside it.

    Raises:
        OSError: If the file cannot be written or a surface cannot be read.
        ValueError: If a surface file is damaged.
    """
    text, _ = _drawn(results, None)
    with atomic_write(path) as file:
        file.write(text)


def _drawn(results: Results, folder: Path | None) -> tuple[str, set[str]]:
    """The text of the page, and its links to the files that it has written to the folder."""
    claims = [*examine_claims(results.runs), *observation_claims()]
    figures, tables = report_figures(results, claims), report_tables(results, claims)
    stems = file_stems([*(figure.key for figure in figures), *(table.key for table in tables)])
    sharp = SHARP if len(figures) < _MANY else COARSE
    blocks = [_figure_block(folder, *pair, sharp) for pair in zip(figures, stems, strict=False)]
    table_blocks = [_table_block(folder, *pair) for pair in zip(tables, stems[len(figures) :], strict=True)]
    links = {link for block in (*blocks, *table_blocks) for _, link in block["links"]}
    return _page(results, blocks, table_blocks, claims), links


def _page(
    results: Results,
    figures: Sequence[dict[str, Any]],
    tables: Sequence[dict[str, Any]],
    claims: Sequence[Claim],
) -> str:
    """The text of the page: HTML without a reference to anything outside but links."""
    sections = [
        {"id": key, "title": title, "parts": [block for block in figures if block["section"] == key]}
        for key, title in _SECTIONS.items()
    ]
    missing = missing_runs(results)
    mentioned = "\n".join(results.problems)
    return (
        environment(html=True)
        .get_template("page.html")
        .render(
            study=results.study,
            title=results.study.title or results.study.name,
            sentence=study_sentence(results),
            counts=counts(results),
            imported=import_facts(results),
            unfinished=len(missing),
            missing=[name for name in missing if name not in mentioned],
            problems=(*results.problems, *results.notes),
            uncovered=uncovered(results),
            claims=claim_blocks(claims),
            forests=[block for block in figures if block["section"] == "claims"],
            sections=[section for section in sections if section["parts"]],
            tables=tables,
            settings=settings(results),
            provenance=provenance(results),
            css=asset("page.css"),
            script=asset("page.js"),
            plotly=_plotly() if any(block["live"] for block in figures) else None,
        )
    )


def import_facts(results: Results) -> dict[str, Any] | None:
    """Where imported results come from, as the template takes it; None for runs of one's own."""
    imported = results.study.imported
    if imported is None:
        return None
    stated = [
        {"setting": SETTING_NAMES.get(name, name), "value": entry["value"], "where it is said": entry["said"]}
        for name, entry in imported.stated.items()
    ]
    return {
        "sentence": say("imported", imported=imported),
        "missing": say("import_unknown", imported=imported, problems=len(imported.problems)),
        "url": imported.url if imported.url.startswith(("https://", "http://")) else "",
        "stated": Markup(html_table(pd.DataFrame(stated), "stated")) if stated else None,
        "files": imported.files,
    }


def claim_blocks(claims: Sequence[Claim]) -> list[dict[str, Any]]:
    """Claims as the template takes them: all tests of a claim together, the primary ones one by one."""
    return [
        _claim_block(statement.key, [claim for claim in claims if claim.key == statement.key])
        for statement in statements().values()
        if any(claim.key == statement.key for claim in claims)
    ]


def _claim_block(key: str, claims: Sequence[Claim]) -> dict[str, Any]:
    primary = [claim for claim in claims if claim.primary]
    others = [
        {
            "statistic": claim.statistic.name,
            "compared": claim.compared,
            "effect": claim.effect_name,
            "value": signed(claim.effect),
            "from": signed(claim.low),
            "to": signed(claim.high),
            "p (not corrected)": p_value_text(claim.p_value),
            "smallest p": p_value_text(claim.smallest_p),
        }
        for claim in claims
        if not claim.primary and claim.verdict != "no data"
    ]
    tests = [
        {
            "about": ", ".join(filter(None, (claim.statistic.label, claim.compared))),
            "verdict": claim.verdict,
            "explanation": claim.explanation,
            "groups": None if claim.groups.empty else Markup(html_table(claim.groups, f"{key}-{index}")),
        }
        for index, claim in enumerate(primary)
    ]
    return {
        "statement": claims[0].statement,
        "sentence": say("short_observation", claims=primary)
        if key == "observation"
        else say("short", claims=primary, others=[claim for claim in claims if not claim.primary]),
        "tests": tests,
        "originals": [claim.explanation for claim in claims if _is_known_original(claim)],
        "others": Markup(html_table(pd.DataFrame(others), f"{key}-others")) if others else None,
    }


def _is_known_original(claim: Claim) -> bool:
    return claim.predictor == "original" and claim.verdict != "no data"


def file_stems(keys: Iterable[str]) -> list[str]:
    """Stems of files for keys: safe in file names, links and identifiers, each different.

    Args:
        keys: Keys of figures and tables.

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


def _figure_block(folder: Path | None, figure: ReportFigure, stem: str, sharp: float) -> dict[str, Any]:
    """Write the files of a figure; it as the template takes it."""
    # A dark one beside a live figure is seen on demand, and not on paper; in a large page, the style turns
    # the light one around.
    dark = None
    if sharp > COARSE:
        dark = COARSE if figure.live else SHARP
    return {
        "id": f"picture-{stem}",
        "section": figure.section,
        "heading": f"{figure.number}: {figure.title}" if figure.number else figure.title,
        "caption": figure.caption,
        **still(figure.still, sharp if figure.live else SHARP, dark),
        "live": None if figure.live is None else _compressed(figure.live.to_json()),
        "links": [] if folder is None else _write_files(folder, f"figures/{stem}", _pictures(figure.still)),
    }


def _pictures(figure: Figure) -> dict[str, bytes]:
    """A figure in every format."""
    return {suffix: figure_to_bytes(figure, suffix) for suffix in _PICTURE_FILES}


def _table_block(folder: Path | None, table: ReportTable, stem: str) -> dict[str, Any]:
    """Write the files of a table; it as the template takes it."""
    texts = {suffix: text.encode() for suffix, text in table_files(table).items()}
    return {
        "id": f"table-{stem}",
        "heading": table.heading,
        "html": Markup(html_table(table.frame, stem, table.caption)),
        "long": len(table.frame) > _LONG_TABLE,
        "links": [] if folder is None else _write_files(folder, f"tables/{stem}", texts),
    }


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


def _compressed(text: str) -> str:
    """Text that the page's script inflates."""
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()


@cache
def _plotly() -> str:
    """plotly.js: 2 MB instead of 4.8."""
    return _compressed(get_plotlyjs())
