from __future__ import annotations

import copy
import html
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from nas_lightning.audit import page as page_module
from nas_lightning.audit.compare import compare
from nas_lightning.audit.page import page
from nas_lightning.audit.pictures import curves, read_edges, standings
from nas_lightning.audit.tables import overview_table
from nas_lightning.cells import Genotype, get_genotype
from nas_lightning.report.pictures import still
from tests.audit.made_up import made_up_cell, made_up_document, made_up_initial
from tests.report.browser import chromium
from tests.report.test_page import Page

HOSTILE = "<script>document.title='owned'</script> {{ 7 * 7 }} \"'&$x$"


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    """Two cells, everything measured, and another audit beside it."""
    cells = [made_up_cell("darts_v2", initial=made_up_initial(40), level=2, epochs=8), made_up_cell("gdas")]
    found = made_up_document(cells, 2)
    return found | {"compared_with": compare(found, made_up_document(cells[1:]), "other/audit.json")}


def unpainted(figure: Figure, sharp: float = 1.0, dark: float | None = 1.0) -> dict[str, Any]:
    """A still picture whose pixels are not computed, which takes most of a page's time."""
    source = "data:image/webp;base64,AAAA"
    return {"source": source, "dark_source": dark and source, "width": 400, "height": 300}


@pytest.fixture(scope="module", autouse=True)
def _without_pixels() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page_module, "still", unpainted)
        yield


@pytest.fixture(scope="module")
def text(document: dict[str, Any]) -> str:
    return page(document)


def words(text: str) -> str:
    """What a reader reads, in single spaces."""
    body = re.sub(r"(?s)<style.*?</style>|<[^>]*>", "", text.partition("<body>")[2])
    return re.sub(r"\s+", " ", body)


@pytest.fixture(scope="module")
def bare() -> dict[str, Any]:
    """One cell of level 0, its initial weights not measured."""
    return made_up_document([made_up_cell("darts_v2")])


def test_the_page_needs_nothing_and_runs_nothing(text: str) -> None:
    found = Page(text)
    policy = next(meta for meta in found.elements["meta"] if meta.get("http-equiv"))
    assert policy["content"] == "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    references = found.values("src") + [str(link["href"]) for link in found.elements["link"]]
    assert len(references) == len(found.elements["img"]) + 1 > 20
    assert all(reference.startswith("data:") for reference in references)
    assert all(link.startswith("#") for link in [str(a["href"]) for a in found.elements["a"]])
    assert not found.elements["script"] + found.elements["iframe"] + found.elements["object"]
    attributes = {name for group in found.elements.values() for one in group for name in one}
    assert not {name for name in attributes if name.startswith("on")}
    assert not [style for style in found.text["style"] if "url(" in style or "@import" in style]
    assert set(re.findall(r"https?://[^\"' )]+", text)) == {"http://www.w3.org/2000/svg"}


def test_the_page_can_be_read_without_seeing(text: str) -> None:
    found = Page(text)
    assert found.headings[0] == 1
    assert found.headings.count(1) == 1
    assert all(after <= before + 1 for before, after in zip(found.headings, found.headings[1:], strict=False))
    alts = [str(image["alt"]) for image in found.elements["img"]]
    assert all(len(alt) > 20 for alt in alts)
    assert any("rank" in alt and "final accuracy" in alt for alt in alts)
    identifiers = found.values("id")
    assert len(set(identifiers)) == len(identifiers)
    targets = [link[1:] for link in found.values("href") if link.startswith("#")]
    assert {*targets, *found.values("aria-labelledby")} <= set(identifiers)
    assert found.elements["html"][0]["lang"] == "en"
    assert all(header["scope"] in ("row", "col") for header in found.elements["th"])
    # Every table scrolls by itself, and can be reached by keyboard.
    assert len(found.elements["table"]) == len(re.findall(r'<div class="table[^>]*tabindex="0"', text)) >= 8
    assert len(found.elements["svg"]) == 2


@pytest.mark.parametrize(
    "edges",
    [
        [("sep_conv_3x3", 0), ("skip_connect", 1)] * 2,
        [[("sep_conv_3x3", 0)], [], [("skip_connect", 1), ("none", 2), ("max_pool_3x3", 0)]],
    ],
)
def test_edges_are_drawn_on_their_nodes(edges: list[Any]) -> None:
    genotype = Genotype(edges, [2, 3], edges, [2, 3])
    assert read_edges(genotype.as_mapping()["normal"]) == genotype.normal


def test_a_page_of_many_cells_has_no_dark_copies(
    bare: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_module, "_FEW_CELLS", 0)
    images = Page(page(bare)).elements["img"]
    assert {image["class"] for image in images} == {"on-both"}


def test_curves_are_in_the_unit_that_their_axis_says(document: dict[str, Any]) -> None:
    cell = document["cells"][0]
    loss, accuracy = curves(cell["name"], cell["training"])
    shown = accuracy.figure.axes[0]
    assert shown.get_ylabel() == "accuracy (%)"
    last = cell["training"]["quantities"][0]["own_mean"]
    assert np.asarray(shown.lines[-1].get_ydata(), float)[-1] == pytest.approx(last)
    assert loss.figure.axes[0].get_ylabel() == "loss (nat)"


def test_too_few_controls_are_no_verdict_in_the_table_or_the_picture() -> None:
    few, many = (
        made_up_cell("darts_v2", initial=made_up_initial(count), controls=count) for count in (20, 200)
    )
    for cell, said in ((few, "too few controls for a verdict"), (many, "as expected")):
        assert said in overview_table({"level": 0, "cells": [cell]}, "overview")
    picture = standings(few)
    assert picture is not None
    crosses = [line for line in picture.figure.axes[0].lines if line.get_marker() == "x"]
    assert len(crosses) == 5


def test_the_verdict_stands_before_the_evidence(text: str, document: dict[str, Any]) -> None:
    names = ("verdict", "compared", "cell1", "cell1-trained", "cell1-structure", "cell1-weights", "cell2")
    places = [text.index(f'id="{name}"') for name in (*names, "backdrop", "limits", "repeat")]
    assert places == sorted(places)
    said = words(text)
    for cell in document["cells"]:
        for sentence in (*cell["sentences"], cell["badge"]):  # some of the trainings' stand with the evidence
            assert sentence in said.replace("&#39;", "'")
    assert said.index(document["cells"][1]["sentences"][0].replace("'", "&#39;")) < said.index("Evidence:")
    assert document["repeat"]["command"] in said
    assert "a" * 64 in said
    assert "Analyses at convergence" in said
    assert "Trainings: only this audit has any." in said
    # Two cells stand side by side first.
    assert text.index("All cells side by side") < text.index(document["cells"][0]["badge"])


@pytest.fixture(scope="module")
def bare_text(bare: dict[str, Any]) -> str:
    return page(bare)


def test_the_page_gives_every_cell_as_a_genotype(text: str, document: dict[str, Any]) -> None:
    given = [html.unescape(found) for found in re.findall(r"<code>(Genotype\(.*?)</code>", text)]
    assert [get_genotype(spec) for spec in given] == [
        Genotype.from_mapping(cell["genotype"]) for cell in document["cells"]
    ]


def test_level_0_says_that_nothing_was_trained(bare_text: str) -> None:
    said = words(bare_text)
    assert "Level 0: nothing was trained." in said
    assert "They were not measured." in said
    assert "All cells side by side" not in said
    assert "not corrected for" not in said
    assert "1,792\N{NO-BREAK SPACE}of" in bare_text


def test_a_part_that_is_missing_is_explained(bare: dict[str, Any]) -> None:
    damaged = copy.deepcopy(bare)
    (cell,) = damaged["cells"]
    problem = "operation mine has no size formula: there is no matched control"
    cell["problem"] = problem
    structure = cell["structure"]
    for name in ("parameters", "live_parameters", "multiply_adds"):
        structure[name] = None
    structure["over_operations"] = {"parameters": None, "multiply_adds": None}
    for part in ("normal", "reduction"):
        structure[part]["standings"] = {
            space: dict.fromkeys(("width", "depth", "path")) for space in ("ordered", "distinct")
        }
    structure["dead_cells"] = [0, 2]
    cell["verdict"] |= {"structure": [], "initial": []}
    damaged["backdrop"], damaged["repeat"]["data"] = [], None
    said = words(page(damaged))
    assert f"A part is missing: {problem}" in said
    assert "They were not measured." in said
    assert "has no formula for its size" in said
    assert "too many wirings for an exact rank" in said
    assert "2 cells of the network, counted from 0, do not reach the classifier: 0 and 2." in said
    assert "Published cells" not in said


def test_unfinished_trainings_with_one_seed_are_said_to_be() -> None:
    cell = made_up_cell("darts_v2", level=1, controls=4, seeds=(3,), unfinished=2, epochs=1)
    quantity = cell["training"]["quantities"][0]
    quantity |= {"own": [None], "own_mean": None, "difference": None, "difference_low": None}
    cell["training"] |= {"detectable": {"difference": None, "power": 0.8, "noise_from": "these"}}
    cell["training"]["curves"]["own"]["loss"] = [[None]]
    text = page(made_up_document([cell], 1))
    said = words(text)
    assert "Unfinished: 3 of 5 trainings are done." in said
    assert "2 trainings not finished" in said
    assert "with 1 seed each" in said
    assert "One seed: no spread over seeds." in said
    assert "All of this holds for one training budget." in said
    assert "not finite" in said
    assert "No p\N{NON-BREAKING HYPHEN}value can be below 0.2" in said
    assert "the result cannot reach 5 %" in said
    assert "its seeds stand below" not in said
    assert "Would a search with fewer epochs" not in said


def test_names_cannot_break_the_page(bare: dict[str, Any], bare_text: str) -> None:
    hostile = copy.deepcopy(bare)
    (cell,) = hostile["cells"]
    cell |= {"spec": HOSTILE, "name": HOSTILE, "notes": [HOSTILE], "badge": HOSTILE, "sentences": [HOSTILE]}
    cell["problem"] = HOSTILE
    hostile["repeat"]["command"] = HOSTILE
    hostile["repeat"]["versions"] = {HOSTILE: HOSTILE}
    hostile["backdrop"][0]["name"] = HOSTILE
    # The usual page, but for a note, a spec and a problem.
    usual = Page(bare_text)
    found = Page(page(hostile))
    assert not found.elements["script"]
    for tag in ("img", "table", "section", "svg", "a", "style", "h2", "h3"):
        assert len(found.elements[tag]) == len(usual.elements[tag])
    assert "49" not in found.text["h1"]


@pytest.mark.slow
def test_the_page_in_a_browser_without_scripts(
    document: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_module, "still", still)
    path = tmp_path / "index.html"
    path.write_text(page(document))
    assert path.stat().st_size < 1e6
    with chromium(scripts=False) as browser:
        browser.get(path.as_uri())
        images = browser.find_elements("css selector", "figure img")
        shown = [image for image in images if image.is_displayed()]
        assert len(shown) * 2 == len(images)
        assert {image.get_attribute("class") for image in shown} == {"on-light"}
        media = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
        dark = [image for image in images if image.is_displayed()]
        assert {image.get_attribute("class") for image in dark} == {"on-dark"}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print", "features": []})
        printed = [image for image in images if image.is_displayed()]
        assert {image.get_attribute("class") for image in printed} == {"on-light"}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
        for width in (375, 1280):
            size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
            browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
            browser.get(path.as_uri())
            layout = browser.execute_cdp_cmd("Page.getLayoutMetrics", {})
            assert layout["cssContentSize"]["width"] <= width  # a wide window has a scroll bar
        messages = browser.get_log("browser")  # type: ignore[no-untyped-call]
        assert not [message for message in messages if message["level"] == "SEVERE"]
