"""Tables on the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from tabulate import tabulate


def table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Align a table.

    Args:
        header: Title of every column.
        rows: The cells as text.
        left: Number of columns, from the first, that are aligned to the left; the others to the right.

    Returns:
        The lines, the header and a rule first.
    """
    align = ["left" if column < left else "right" for column in range(len(header))]
    text = tabulate(rows, headers=header, tablefmt="simple", colalign=align, disable_numparse=True)
    return "\n".join(line.rstrip() for line in text.splitlines())
