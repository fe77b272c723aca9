"""A table as CSV, Markdown, LaTeX and HTML, through the writers of pandas."""

from __future__ import annotations

import re
from dataclasses import dataclass
from html import escape
from typing import Any

import pandas as pd

from nas_lightning.report.words import MISSING

_LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        **{character: rf"\{character}" for character in "{}$&#_%"},
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "±": r"$\pm$",
        "\N{MINUS SIGN}": "$-$",
        "\N{NO-BREAK SPACE}": r"\nobreakspace{}",
        "\N{MULTIPLICATION SIGN}": r"$\times$",
        "\N{GREEK SMALL LETTER ALPHA}": r"$\alpha$",
        "\N{GREEK SMALL LETTER BETA}": r"$\beta$",
        "\N{GREEK SMALL LETTER TAU}": r"$\tau$",
        "²": r"$^2$",
        "—": "---",
        "\N{EN DASH}": "--",
        "≤": r"$\leq$",
        "≥": r"$\geq$",
    }
)
_LONG = 40
"""Characters from which on a column of the LaTeX table is broken into lines."""
_NUMBER = re.compile(r"(?:< )?[-\N{MINUS SIGN}+]?[\d.]+( ?%| ?[±(].*| to [-\N{MINUS SIGN}+]?[\d.]+)?$")
# Wide tables shrink to the page.
_FIT = "\\small\n\\resizebox{\\ifdim\\width>\\linewidth\\linewidth\\else\\width\\fi}{!}{%\n"


@dataclass(frozen=True, eq=False)
class ReportTable:
    """A table of the report.

    Attributes:
        key: Stem of its files, such as ``"table1"``.
        number: The paper's number, such as ``"Table 1"``; empty for what the paper does not have.
        title: What it shows.
        caption: What the reader must know.
        frame: The cells, as text ready to print or as numbers; column names are the header.
    """

    key: str
    number: str
    title: str
    caption: str
    frame: pd.DataFrame

    @property
    def heading(self) -> str:
        """Number and title."""
        return f"{self.number}: {self.title}" if self.number else self.title


def table_files(table: ReportTable) -> dict[str, str]:
    """Contents of a table's files by suffix: ``csv``, ``md`` (GitHub) and ``tex`` (booktabs, graphicx)."""
    heading = table.heading if table.heading.endswith((".", "?", "!")) else f"{table.heading}."
    bars = _cells(table.frame).rename(columns=str).replace(r"\|", r"\\|", regex=True)
    bars.columns = bars.columns.str.replace("|", r"\|")
    markdown = bars.to_markdown(index=False, tablefmt="github", disable_numparse=True)
    return {
        "csv": table.frame.to_csv(index=False, lineterminator="\n"),
        "md": f"**{heading}**\n\n{markdown}\n\n{table.caption}\n",
        "tex": _latex(table, heading),
    }


def latex_text(text: str) -> str:
    """Escape what LaTeX reads as commands, and spell signs that pdfLaTeX does not know."""
    return text.translate(_LATEX)


def html_table(frame: pd.DataFrame, key: str, caption: str = "") -> str:
    """A table as HTML with every text escaped; columns of numbers stand to the right. Keys differ."""
    cells = _cells(frame, digits=4)
    styler = cells.style.hide(axis="index").format(escape="html").format_index(escape="html", axis="columns")
    numbers = {
        name: [{"selector": "", "props": "text-align: right; white-space: nowrap"}]
        for name in cells
        if _holds_numbers(cells[name])
    }
    styler = styler.set_table_styles(numbers).set_uuid(key)  # type: ignore[arg-type]
    if caption:
        styler = styler.set_caption(f"<span>{escape(caption)}</span>")
    return styler.to_html().replace("<th id=", '<th scope="col" id=')


def _latex(table: ReportTable, heading: str) -> str:
    frame = _cells(table.frame).map(latex_text).rename(columns=lambda name: latex_text(str(name)))
    columns = ""
    for name, given in zip(frame, table.frame, strict=True):
        longest = frame[name].str.len().max() if len(frame) else 0
        numeric = pd.api.types.is_numeric_dtype(table.frame[given])
        columns += "p{0.3\\linewidth}" if longest > _LONG else "r" if numeric else "l"
    text = frame.to_latex(
        index=False,
        column_format=columns,
        caption=latex_text(f"{heading} {table.caption}"),
        label=f"tab:{table.key}",
    )
    text = text.replace("\\begin{table}\n", "\\begin{table}\n\\centering\n")
    return text.replace("\\begin{tabular}", _FIT + "\\begin{tabular}").replace(
        "\\end{tabular}\n", "\\end{tabular}\n}\n"
    )


def _cells(frame: pd.DataFrame, digits: int = 6) -> pd.DataFrame:
    """Every cell as text, a dash for what is missing."""

    def text(value: Any) -> str:
        if not isinstance(value, str) and pd.isna(value):
            return MISSING
        return f"{value:.{digits}g}" if isinstance(value, float) else str(value) or MISSING

    return frame.astype(object).map(text)


def _holds_numbers(column: pd.Series) -> bool:
    said = [text for text in column if text != MISSING]
    return bool(said) and all(_NUMBER.match(text) for text in said)
