from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest
from matplotlib.colors import to_rgb

from nas_lightning.audit.badge import badge

SVG = "{http://www.w3.org/2000/svg}"
TEXT = "level 1: rank 3 of 20, p = 0.15"


def test_the_same_text_gives_the_same_bytes() -> None:
    assert badge(TEXT) == badge(TEXT)
    assert badge(TEXT).count("\n") == badge("x").count("\n")


@pytest.mark.parametrize("text", [TEXT, "a & b < c > \"d\" 'e'", "é 中"])
def test_it_is_a_picture_with_a_title_and_nothing_else(text: str) -> None:
    root = ElementTree.fromstring(badge(text))
    assert root.get("role") == "img"
    assert root.get("aria-label") == root.findtext(f"{SVG}title") == f"audit: {text}"
    assert [part.text for part in root.iter(f"{SVG}text")] == ["audit", text]
    assert {part.tag for part in root.iter()} == {
        SVG + name for name in ("svg", "title", "rect", "path", "text")
    }
    assert not re.search(r"href|url\(|style|script| id=", badge(text).replace(text, ""))


def test_a_longer_text_is_wider_and_all_fits() -> None:
    widths = []
    for text in ("level 1", TEXT, TEXT + ", and more"):
        root = ElementTree.fromstring(badge(text))
        widths.append(float(root.get("width", "0")))
        for part in root.iter(f"{SVG}text"):
            end = float(part.get("x", "0")) + float(part.get("textLength", "0"))
            assert end <= widths[-1] - 7
    assert widths == sorted(widths)
    assert len(set(widths)) == 3


def luminance(colour: str) -> float:
    parts = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(colour)]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]


def test_it_is_read_on_every_ground_and_its_colours_are_the_same_whatever_it_says() -> None:
    root = ElementTree.fromstring(badge(TEXT))
    grounds = [root.find(f"{SVG}path"), root.find(f"{SVG}rect")]
    for ground, text in zip(grounds, root.iter(f"{SVG}text"), strict=True):
        assert ground is not None
        shades = sorted(luminance(part.get("fill", "")) for part in (ground, text))
        assert (shades[1] + 0.05) / (shades[0] + 0.05) >= 7
    colours = [re.findall("#[0-9a-f]{6}", badge(text)) for text in ("rank 1 of 20", "rank 20 of 20")]
    assert colours[0] == colours[1]
