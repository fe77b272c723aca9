"""Tables on the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from tabulate import tabulate


def table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Align a table of text: the first ``left`` columns to the left, the others to the right."""
    align = ["left" if column < left else "right" for column in range(len(header))]
    text = tabulate(rows, headers=header, tablefmt="simple", colalign=align, disable_numparse=True)
    return "\n".join(line.rstrip() for line in text.splitlines())
