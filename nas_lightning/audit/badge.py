"""The badge of an audit: one small picture, ``audit | level 1: rank 3 of 20, p = 0.15``, in neutral colours.

A badge says what was found, and praises nothing: its colours are the same whatever it says. It brings its own
ground, so that it is read on light and on dark pages.
"""

from __future__ import annotations

from html import escape

from nas_lightning.figures.picture import text_width

_NAME = "audit"
_HEIGHT = 22
_SIDE = 8
_PIXELS = 11
_POINTS = _PIXELS * 72 / 96
_INK, _NAME_INK = "#1b1f24", "#ffffff"
_GROUND, _NAME_GROUND = "#e7e9ec", "#4b535d"
_FONTS = "'DejaVu Sans',Verdana,Geneva,sans-serif"


def badge(text: str) -> str:
    """The SVG of a badge; the same text gives the same bytes.

    Args:
        text: What it says, such as ``"level 1: rank 3 of 20, p = 0.15"``.

    Returns:
        One element without references or identifiers, with a title for those who cannot see it.
    """
    lengths = [round(text_width(part, _POINTS) * 96) for part in (_NAME, text)]
    left, right = (length + 2 * _SIDE for length in lengths)
    width = left + right
    said = escape(text)
    whole = f"{_NAME}: {said}"
    start = f'<text y="15" font-size="{_PIXELS}" lengthAdjust="spacingAndGlyphs"'
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{_HEIGHT}" '
            f'viewBox="0 0 {width} {_HEIGHT}" role="img" aria-label="{whole}" font-family="{_FONTS}">',
            f"<title>{whole}</title>",
            f'<rect x="0.5" y="0.5" width="{width - 1}" height="{_HEIGHT - 1}" rx="4" fill="{_GROUND}" '
            'stroke="#8b949e"/>',
            f'<path d="M{left} 1H4.5A3.5 3.5 0 0 0 1 4.5v13A3.5 3.5 0 0 0 4.5 21H{left}z" '
            f'fill="{_NAME_GROUND}"/>',
            f'{start} x="{_SIDE}" textLength="{lengths[0]}" fill="{_NAME_INK}">{_NAME}</text>',
            f'{start} x="{left + _SIDE}" textLength="{lengths[1]}" fill="{_INK}">{said}</text>',
            "</svg>",
            "",
        ]
    )
