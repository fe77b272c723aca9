"""Figures inside a page: pictures as text, light and dark, which need no file."""

from __future__ import annotations

import base64
import io
from importlib.resources import files
from typing import Any

from markupsafe import Markup
from matplotlib.figure import Figure
from PIL import Image

from nas_lightning.figures.dark import dark_copy
from nas_lightning.figures.picture import figure_to_bytes

PIXELS = 96
"""Pixels of CSS, per inch."""
SHARP, COARSE = 130.0, 70.0
"""Pixels of a still figure per inch."""


def still(figure: Figure, sharp: float = SHARP, dark: float | None = SHARP) -> dict[str, Any]:
    """A figure as the macro ``still`` of ``macros.html`` takes it: its sources and its size.

    Args:
        figure: The figure.
        sharp: Pixels per inch.
        dark: Those of its dark copy; None for none: the page's style turns the light one around.
    """
    width, height = (round(inches * PIXELS) for inches in figure.get_size_inches())
    return {
        "source": _source(figure, sharp),
        "dark_source": None if dark is None else _source(dark_copy(figure), dark),
        "width": width,
        "height": height,
    }


def asset(name: str, package: str = "nas_lightning.report") -> Markup:
    """A file of a package, as it is."""
    return Markup((files(package) / name).read_text(encoding="utf-8"))


def _source(figure: Figure, sharp: float) -> str:
    """A still figure as the page's source of an image."""
    return f"data:image/webp;base64,{base64.b64encode(_webp(figure, sharp)).decode()}"


def _webp(figure: Figure, sharp: float) -> bytes:
    """A still figure for the page: lossless, or for many colours lossy; the files beside it are sharper."""
    image = Image.open(io.BytesIO(figure_to_bytes(figure, "png", sharp))).convert("RGB")
    contents = []
    for lossless in (True, False):
        content = io.BytesIO()
        image.save(content, "WEBP", lossless=lossless, quality=60, method=4)
        contents.append(content.getvalue())
    return min(contents, key=len)
