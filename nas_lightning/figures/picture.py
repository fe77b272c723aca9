"""A figure as a file."""

from __future__ import annotations

import io
from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

FORMATS = ("png", "svg", "pdf")
"""File formats of pictures, each the file's suffix."""


def picture_format(path: str | Path) -> str:
    """The format that a file's suffix asks for.

    Args:
        path: File to write.

    Returns:
        ``"png"``, ``"svg"`` or ``"pdf"``.

    Raises:
        ValueError: If the suffix is another one.
    """
    suffix = Path(path).suffix.lower().removeprefix(".")
    if suffix not in FORMATS:
        raise ValueError(f"picture file {str(path)!r} must end in .png, .svg or .pdf")
    return suffix


def figure_to_bytes(figure: Figure, picture: str, dpi: float = 200) -> bytes:
    """Content of a picture file; the same figure gives the same bytes.

    Args:
        figure: The figure.
        picture: ``"png"``, ``"svg"`` or ``"pdf"``.
        dpi: Dots per inch of a PNG.

    Returns:
        What to write to the file.
    """
    # Without these, a file would differ from run to run in its date and in the names inside it.
    undated = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}.get(picture)
    content = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": "nas_lightning"}):
        figure.savefig(content, format=picture, dpi=dpi, metadata=undated)
    return content.getvalue()
