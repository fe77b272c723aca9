"""What a report consists of: pictures and tables, in the paper's numbering."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False)
class ReportPicture:
    """A picture of the report.

    Attributes:
        key: Stem of its files, such as ``"figure03-cifar10"``.
        number: The paper's number, such as ``"Figure 3"``; empty for what the paper does not have.
        title: What it shows.
        caption: What the reader must know: which runs, how many seeds, what is missing, and where it
            differs from the paper's.
        figure: The picture for files and print.
        interactive: What the page needs to draw it live: ``kind`` names the way, the rest are plain lists,
            numbers and strings; None where the picture says it all.
    """

    key: str
    number: str
    title: str
    caption: str
    figure: Figure
    interactive: Mapping[str, Any] | None = None


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
