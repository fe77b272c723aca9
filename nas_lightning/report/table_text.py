"""Tables as text: CSV, Markdown and LaTeX."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from nas_lightning.report.blocks import ReportTable

MISSING = "—"

_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "_": r"\_",
    "%": r"\%",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "±": r"$\pm$",
    "\N{MINUS SIGN}": "$-$",
    "\N{NO-BREAK SPACE}": r"\nobreakspace{}",
    "\N{MULTIPLICATION SIGN}": r"$\times$",
    "τ": r"$\tau$",
    "²": r"$^2$",
    "—": "---",
    "\N{EN DASH}": "--",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
}
_LONG = 40
"""From so many characters on, a column of the LaTeX table is broken into lines."""


def table_files(table: ReportTable) -> dict[str, str]:
    """Write a table as text.

    Args:
        table: The table.

    Returns:
        The contents of the files, by suffix: ``csv``, ``md`` (title and caption around a table of the GitHub
        kind) and ``tex`` (a ``table`` environment; needs the packages booktabs and graphicx).
    """
    return {
        "csv": table.frame.to_csv(index=False, lineterminator="\n"),
        "md": _markdown(table),
        "tex": _latex(table),
    }


def latex_text(text: str) -> str:
    """Escape what LaTeX reads as commands, and spell signs that pdfLaTeX does not know.

    Args:
        text: Any text.

    Returns:
        The same text in LaTeX.
    """
    return "".join(_LATEX.get(character, character) for character in text)


def mean_and_spread(values: Sequence[float] | pd.Series, digits: int | None = None) -> str:
    """Mean and standard deviation over seeds, for print.

    Args:
        values: One value a seed; NaN is left out.
        digits: Decimals; None for three significant digits of the mean.

    Returns:
        ``"2.81 ± 0.05"``, without a deviation for one value, a dash for none. The deviation divides by
        n - 1.
    """
    known = pd.Series(values, dtype=float).dropna()
    if known.empty:
        return MISSING
    mean, deviation = float(known.mean()), float(known.std(ddof=1))
    if not math.isfinite(mean):
        return str(mean)
    if digits is None:
        digits = max(0, 2 - math.floor(math.log10(abs(mean)))) if mean else 2
    if digits > 5 or abs(mean) >= 1e6:
        return f"{mean:.2e}" if len(known) == 1 else f"{mean:.2e} ± {deviation:.1e}"
    return f"{mean:.{digits}f}" if len(known) == 1 else f"{mean:.{digits}f} ± {deviation:.{digits}f}"


def p_value_text(p: float | int, *, sign: bool = False) -> str:
    """A p-value for print.

    Args:
        p: The p-value.
        sign: Whether an equals sign stands before it, for use after "p".

    Returns:
        Three significant digits, ``"< 0.0001"`` for less, a dash for NaN.
    """
    if not math.isfinite(p):
        return MISSING
    if p < 0.0001:
        return "< 0.0001"
    return f"{'= ' if sign else ''}{p:.3g}"


def _markdown(table: ReportTable) -> str:
    header = [str(name) for name in table.frame.columns]
    rows = [[_cell(value) for value in row] for row in table.frame.itertuples(index=False)]
    lines = [_markdown_row(header), _markdown_row(["---"] * len(header)), *map(_markdown_row, rows)]
    return f"**{_heading(table)}**\n\n" + "\n".join(lines) + f"\n\n{table.caption}\n"


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", r"\|").replace("\n", " ") for cell in cells) + " |"


def _latex(table: ReportTable) -> str:
    frame = table.frame
    texts = [[latex_text(_cell(value)) for value in row] for row in frame.itertuples(index=False)]
    columns = []
    for index, name in enumerate(frame.columns):
        longest = max((len(row[index]) for row in texts), default=0)
        numeric = pd.api.types.is_numeric_dtype(frame[name])
        columns.append("p{0.3\\linewidth}" if longest > _LONG else "r" if numeric else "l")
    rows = [[latex_text(str(name)) for name in frame.columns], *texts]
    lines = [" & ".join(row) + r" \\" for row in rows]
    body = [
        rf"\begin{{tabular}}{{{''.join(columns)}}}",
        r"\toprule",
        lines[0],
        r"\midrule",
        *lines[1:],
        r"\bottomrule",
        r"\end{tabular}",
    ]
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{latex_text(_heading(table) + ' ' + table.caption)}}}",
            rf"\label{{tab:{table.key}}}",
            r"\small",
            # Wide tables shrink to the page.
            r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
            *body,
            "}",
            r"\end{table}",
            "",
        ]
    )


def _heading(table: ReportTable) -> str:
    heading = f"{table.number}: {table.title}" if table.number else table.title
    return heading if heading.endswith((".", "?", "!")) else f"{heading}."


def _cell(value: object) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return MISSING
    return f"{value:g}" if isinstance(value, float) else str(value)
