from __future__ import annotations

import base64
import gzip
import io
import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from selenium.webdriver.chrome.webdriver import WebDriver

from nas_lightning.cells import get_genotype
from nas_lightning.figures.scale import colour_scale
from nas_lightning.figures.surface import SurfacePanel
from nas_lightning.report import page as page_module
from nas_lightning.report.figures import ReportFigure, report_figures
from nas_lightning.report.live_surfaces import live_surfaces
from nas_lightning.report.page import write_page, write_report
from nas_lightning.report.table_files import ReportTable, html_table
from nas_lightning.study.results import Results
from nas_lightning.study.study import Architecture, Run
from tests.report.browser import chromium
from tests.report.hand_made import NAMES, hand_made_figures, hand_made_tables
from tests.report.made_up import made_up_results

HOSTILE = (
    "</script><script>document.title='owned'</script>",
    "<img src=x onerror=\"document.title='owned'\">",
    "{{ 7 * 7 }} & %{x} 'quoted\"",
    "<!-- <script>",
)
SIGNATURES = {"svg": b"<?xml", "pdf": b"%PDF", "png": b"\x89PNG"}


class Page(HTMLParser):
    """What a test asks of a page: its elements with their attributes, and the text in them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: dict[str, list[dict[str, str | None]]] = defaultdict(list)
        self.headings: list[int] = []
        self.text: dict[str, list[str]] = defaultdict(list)
        self._open = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements[tag].append(dict(attrs))
        self._open = tag
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))

    def handle_data(self, data: str) -> None:
        self.text[self._open].append(data)

    def values(self, name: str) -> list[str]:
        every = (attributes.get(name) for group in self.elements.values() for attributes in group)
        return [value for value in every if value]

    @property
    def compressed(self) -> list[str]:
        """What the page inflates: what each live figure is drawn from, and plotly.js last."""
        texts = [text for text in self.text["script"] if text.startswith("H4sI")]
        return [gzip.decompress(base64.b64decode(text)).decode() for text in texts]

    @property
    def live(self) -> list[Any]:
        return [json.loads(text) for text in self.compressed[:-1]]


Writer = Callable[..., Path]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    made = made_up_results(tmp_path_factory.mktemp("made_up"), variants=("original", "C1"), surfaces=False)
    return replace(made, problems=("darts_v2-C9: unfinished, 3 of 10 <epochs>",))


@pytest.fixture
def write(results: Results, monkeypatch: pytest.MonkeyPatch) -> Writer:
    """Write a report of pictures and tables made by hand."""

    def written(
        folder: Path,
        names: Sequence[str] = NAMES,
        figures: Sequence[ReportFigure] | None = None,
        tables: Sequence[ReportTable] | None = None,
        **changes: object,
    ) -> Path:
        shown = hand_made_figures(names) if figures is None else list(figures)
        monkeypatch.setattr(page_module, "report_figures", lambda *_: shown)
        listed = hand_made_tables(names) if tables is None else list(tables)
        monkeypatch.setattr(page_module, "report_tables", lambda *_: listed)
        return write_report(replace(results, **changes), folder)  # type: ignore[arg-type]

    return written


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_same_results_give_the_same_bytes(write: Writer, tmp_path: Path) -> None:
    write(tmp_path / "one")
    write(tmp_path / "two")
    write(tmp_path / "two")  # over an earlier report
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert len(contents(tmp_path / "one")) == 1 + 3 * 6 + 3


def test_the_page_refers_to_nothing_outside_but_its_files(write: Writer, tmp_path: Path) -> None:
    path = write(tmp_path)
    page = Page(path.read_text())
    sources = page.values("src") + [str(link["href"]) for link in page.elements["link"]]
    assert len(sources) == 2 * 6 + 1
    assert all(source.startswith("data:") for source in sources)
    assert not [text for text in page.text["style"] if "url(" in text or "@import" in text]
    # plotly.js once, for five live figures.
    assert len(page.live) == 5
    assert "plotly.js v" in page.compressed[-1][:100]
    assert path.stat().st_size < 6e6
    links = [str(link["href"]) for link in page.elements["a"]]
    files = [link for link in links if not link.startswith("#")]
    assert sorted(files) == sorted(set(contents(tmp_path)) - {"index.html"})
    for link in files:
        start = SIGNATURES.get(link.rpartition(".")[2], b"")
        assert (tmp_path / link).read_bytes().startswith(start)


def test_the_page_alone_is_the_page_without_links_to_files(
    write: Writer, results: Results, tmp_path: Path
) -> None:
    whole = Page(write(tmp_path / "whole").read_text())
    write_page(results, tmp_path / "alone" / "page.html")
    assert list(contents(tmp_path / "alone")) == ["page.html"]
    alone = Page((tmp_path / "alone" / "page.html").read_text())
    assert [link for link in whole.values("href") if link.startswith("#")] == [
        link for link in alone.values("href") if not link.startswith("data:")
    ]
    assert alone.values("src") == whole.values("src")
    assert alone.compressed == whole.compressed
    assert alone.elements["button"] == whole.elements["button"]


def test_still_figures_stand_in_the_page_as_they_are(write: Writer, tmp_path: Path) -> None:
    figures = hand_made_figures()[:2]
    figures[1].still.axes[0].scatter(range(4000), range(4000), s=1, c=range(4000))
    page = Page(write(tmp_path, figures=figures).read_text())
    light = [element for element in page.elements["img"] if element["class"] == "on-light"]
    dark = [element for element in page.elements["img"] if element["class"] == "on-dark"]
    assert len(dark) == len(figures)
    for figure, element in zip(figures, light, strict=True):
        head, _, content = str(element["src"]).partition(",")
        assert head == "data:image/webp;base64"
        shown = Image.open(io.BytesIO(base64.b64decode(content)))
        file = Image.open(tmp_path / "figures" / f"{figure.key}.png").convert("RGB").resize(shown.size)
        difference = np.abs(np.asarray(shown, float) - np.asarray(file, float))
        assert difference.mean() < 8
        assert shown.width / shown.height == pytest.approx(2, rel=0.01)


def test_the_claims_stand_before_all_else(results: Results, tmp_path: Path) -> None:
    text = write_report(results, tmp_path).read_text()
    places = [text.index(f'id="{name}"') for name in ("claims", "plane", "paper", "tables", "missing")]
    assert places == sorted(places)
    page = Page(text)
    statements = [text for text in page.text["strong"] if text.startswith("Architectures with")]
    assert len(statements) == 4
    assert "These runs cannot test it; the tests below say what is missing." in page.text["p"]
    assert len(page.elements["details"]) >= 5


@pytest.mark.slow
def test_a_large_study_has_a_page_under_6_mb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many figures as four base cells on two data sets give, with surfaces of 51 by 51 points."""
    results = made_up_results(
        tmp_path, variants=("original", "C1", "C6", "C7"), seeds=(0,), data=("CIFAR10",)
    )
    drawn = report_figures(results)
    steps, noise = np.linspace(-1, 1, 51), np.random.default_rng(0)
    panels = [
        SurfacePanel(
            steps, steps, np.add.outer(steps**2, steps**2) * noise.lognormal(0, 0.01, (51, 51)), name
        )
        for name in map(str, range(14))
    ]
    live = live_surfaces(panels, "variance", colour_scale([panel.values for panel in panels]), flat=False)
    (contours,) = [figure for figure in drawn if figure.key == "figure17-cifar10"]
    surfaces = [replace(contours, key=f"figure{number}", live=live) for number in range(16)]
    monkeypatch.setattr(page_module, "report_figures", lambda *_: drawn * 2 + surfaces)
    assert write_report(results, tmp_path / "report").stat().st_size < 6e6


def test_the_page_can_be_read_without_seeing(write: Writer, tmp_path: Path) -> None:
    page = Page(write(tmp_path).read_text())
    assert page.headings[0] == 1
    assert page.headings.count(1) == 1
    assert all(after <= before + 1 for before, after in zip(page.headings, page.headings[1:], strict=False))
    assert all(image["alt"] for image in page.elements["img"])
    identifiers = page.values("id")
    assert len(set(identifiers)) == len(identifiers)
    targets = [link[1:] for link in page.values("href") if link.startswith("#")]
    assert {*targets, *page.values("aria-labelledby"), *page.values("data-live")} <= set(identifiers)
    assert page.elements["html"][0]["lang"] == "en"
    assert len(page.elements["table"]) >= 1
    assert all(header["scope"] in ("row", "col") for header in page.elements["th"])


def test_names_cannot_break_the_page(write: Writer, tmp_path: Path) -> None:
    usual, hostile = (
        Page(write(tmp_path / str(index), names).read_text()) for index, names in enumerate((NAMES, HOSTILE))
    )
    counts = [{tag: len(found) for tag, found in page.elements.items()} for page in (usual, hostile)]
    assert counts[0] == counts[1]
    # The first legend is that of the forest plot.
    assert [entry["name"] for live in hostile.live[1:] for entry in live["legend"]] == list(HOSTILE)
    assert HOSTILE[2] in "".join(hostile.text["td"])


def test_files_of_an_earlier_report_go_and_others_stay(write: Writer, tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "figures" / "mine.svg").write_text("kept")
    write(tmp_path, figures=hand_made_figures()[1:2], tables=[])
    assert set(contents(tmp_path)) == {
        "index.html",
        "figures/mine.svg",
        *(f"figures/plane.{suffix}" for suffix in ("svg", "pdf", "png")),
    }


def test_keys_become_names_of_files(write: Writer, tmp_path: Path) -> None:
    picture = hand_made_figures()[1]
    keys = ("../up", "my cell/é", "my cell?é", "Figure")
    write(tmp_path, figures=[replace(picture, key=key) for key in keys], tables=[])
    names = {name for name in contents(tmp_path) if name.endswith(".svg")}
    assert names == {f"figures/{stem}.svg" for stem in ("-up", "my-cell-", "my-cell--2", "Figure")}


def test_an_unfinished_study_says_what_is_missing(
    results: Results, write: Writer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    architecture = Architecture("darts_v2", get_genotype("darts_v2"), "darts_v2", "original", "original")
    names = [*results.runs["run"], "darts_v2-C9", "darts_v2-<b>"]
    runs = tuple(
        Run(name, tmp_path / name, architecture, "CIFAR10", 0.025, 0, 8, {}, (), ("fit",)) for name in names
    )
    monkeypatch.setattr(page_module, "uncovered", lambda _: ["Figure 4: no run at 0.25"])
    text = write(tmp_path / "report", study=replace(results.study, runs=runs)).read_text()
    page = Page(text)
    assert re.search(r"2 of 6 runs are\s", "".join(page.text["strong"]))
    assert "4 of 6" in page.text["dd"]
    listed = [line.strip() for line in page.text["li"] if line.strip()]
    assert "darts_v2-C9: unfinished, 3 of 10 <epochs>" in listed
    assert "Figure 4: no run at 0.25" in listed
    # The other one stands among the problems.
    assert [name for name in page.text["code"] if name in names] == ["darts_v2-<b>"]


def test_a_study_without_a_finished_run_has_a_page(results: Results, tmp_path: Path) -> None:
    nothing = replace(results, runs=results.runs.iloc[:0], curves=results.curves.iloc[:0])
    page = Page(write_report(nothing, tmp_path).read_text())
    assert "No run of this study is finished yet." in page.text["p"]
    assert not page.elements["img"]
    assert not page.compressed


def test_numbers_of_tables_stand_to_the_right() -> None:
    frame = pd.DataFrame(
        {"cell": ["a<b", "b"], "n": [1, 2], "x": [0.123456, float("nan")], "s": ["2.7 ± 0.1", "—"]}
    )
    text = html_table(frame, "key", "C < D")
    page = Page(text)
    assert [cell for cell in page.text["td"] if cell.strip()] == [
        *("a<b", "1", "0.1235", "2.7 ± 0.1"),
        *("b", "2", "—", "—"),
    ]
    to_the_right = re.findall(r"#T_key *\.col(\d)\b[^{]*\{\s*text-align: right", text)
    assert to_the_right == ["1", "2", "3"]
    assert "".join(page.text["span"]).strip() == "C < D"


NAMES_IN_BROWSER = (NAMES[0], HOSTILE[0], HOSTILE[1], NAMES[3])
FLAT = ("claims", "plane", "figure03-digits", "figure09")


@pytest.fixture(scope="module")
def flat_page(results: Results, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page without surfaces, which take the processor seconds to draw."""
    return browser_page(results, tmp_path_factory.mktemp("flat"), without="figure08")


@pytest.fixture(scope="module")
def full_page(results: Results, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return browser_page(results, tmp_path_factory.mktemp("full"))


def browser_page(results: Results, folder: Path, without: str = "") -> Path:
    """A page with names of the worst kind among usual ones."""
    pictures = [picture for picture in hand_made_figures(NAMES_IN_BROWSER) if picture.key != without]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page_module, "report_figures", lambda *_: pictures)
        patch.setattr(page_module, "report_tables", lambda *_: hand_made_tables(NAMES_IN_BROWSER))
        return write_report(results, folder)


@pytest.fixture(scope="module")
def browser() -> Iterator[WebDriver]:
    with chromium() as started:
        yield started


WAIT = """
const done = arguments[arguments.length - 1], until = Date.now() + 40000;
const look = () => {
  const found = (() => { %s })();
  if (found || Date.now() > until) done(found); else setTimeout(look, 50);
};
look();
"""


def wait(browser: WebDriver, script: str) -> object:
    """What a script gives, as soon as that is true."""
    return browser.execute_async_script(WAIT % script)


def show(browser: WebDriver, key: str) -> None:
    """Scroll to a picture and wait until it is drawn."""
    identifier = f"picture-{key}"
    browser.execute_script(f"document.getElementById('{identifier}').scrollIntoView({{behavior: 'instant'}})")
    assert wait(
        browser,
        f"const plots = [...document.querySelectorAll('[aria-labelledby={identifier}] .plot')];"
        "return plots.length > 0 && plots.every(plot => plot._fullLayout"
        " && plot.querySelector('.main-svg') && plot.getBoundingClientRect().height > 200);",
    )


@pytest.mark.slow
def test_the_page_lives_in_a_browser(browser: WebDriver, full_page: Path) -> None:
    browser.get(full_page.as_uri())
    for key in (*FLAT, "figure08"):
        show(browser, key)
    assert browser.title == "Invented numbers: report"
    messages = browser.get_log("browser")  # type: ignore[no-untyped-call]
    assert not [message for message in messages if message["level"] == "SEVERE"]
    events = browser.get_log("performance")  # type: ignore[no-untyped-call]
    sent = [json.loads(event["message"])["message"] for event in events]
    urls = [
        message["params"]["request"]["url"]
        for message in sent
        if message["method"] == "Network.requestWillBeSent"
    ]
    assert {url.partition(":")[0] for url in urls} <= {"file", "data", "blob"}


def test_the_legend_hides_an_architecture_in_all_panels(browser: WebDriver, flat_page: Path) -> None:
    browser.get(flat_page.as_uri())
    show(browser, "figure03-digits")
    visible = (
        "return [...document.querySelectorAll('[aria-labelledby=picture-figure03-digits] .plot')]"
        ".map(plot => plot.data.map(trace => trace.visible));"
    )
    # A band and a line for each of four architectures.
    assert browser.execute_script(visible) == [[True] * 8] * 2
    buttons = "document.querySelectorAll('[aria-labelledby=picture-figure03-digits] .legend button')"
    names = browser.execute_script(f"return [...{buttons}].map(button => button.textContent.trim())")
    assert names == [*NAMES_IN_BROWSER, "Hide all"]
    browser.execute_script(f"{buttons}[1].click()")
    assert browser.execute_script(visible) == [[True, True, False, False, True, True, True, True]] * 2
    assert browser.execute_script(f"return {buttons}[1].getAttribute('aria-pressed')") == "false"
    browser.execute_script(f"{buttons}[4].click()")
    assert browser.execute_script(visible) == [[True] * 8] * 2
    kinds = visible.replace("plot.data.map(trace => trace.visible)", "plot._fullLayout.yaxis.type")
    assert browser.execute_script(kinds) == ["log", "linear"]
    click = (
        "document.querySelector('[aria-labelledby=picture-figure03-digits] .updatemenu-button').dispatchEvent"
    )
    browser.execute_script(click + "(new MouseEvent('click', {bubbles: true}))")
    assert wait(browser, kinds.replace(");", ").every(kind => kind === 'linear');"))


@pytest.mark.slow
def test_surfaces_turn_together_and_leave_their_contexts(browser: WebDriver, full_page: Path) -> None:
    browser.get(full_page.as_uri())
    show(browser, "figure08")
    plots = "document.querySelectorAll('[aria-labelledby=picture-figure08] .plot')"
    assert browser.execute_script(
        f"return [...{plots}].map(plot => plot.querySelectorAll('canvas').length > 0)"
    ) == [
        True,
        True,
    ]
    browser.execute_script(
        f"Plotly.relayout({plots}[0], {{'scene.camera': {{eye: {{x: 2, y: 0.5, z: 1}}}}}})"
    )
    eye = wait(browser, f"const eye = {plots}[1]._fullLayout.scene.camera.eye; return eye.x === 2 && eye;")
    assert eye == {"x": 2, "y": 0.5, "z": 1}
    ranges = browser.execute_script(f"return [...{plots}].map(plot => plot._fullLayout.scene.zaxis.range)")
    assert ranges[0] == ranges[1]
    # The surface's colours, not an empty scene's greys.
    for plot in browser.find_elements("css selector", "[aria-labelledby=picture-figure08] .plot"):
        pixels = np.asarray(Image.open(io.BytesIO(plot.screenshot_as_png)).convert("RGB")).astype(int)
        coloured = np.ptp(pixels, axis=-1) > 60
        assert coloured.mean() > 0.05
        assert len(np.unique(pixels[coloured], axis=0)) > 100
    # Seen from above, without WebGL; and nothing is held once the reader is elsewhere.
    browser.execute_script(
        f"{plots}.forEach(plot => plot.querySelector('.updatemenu-button')"
        ".dispatchEvent(new MouseEvent('click', {bubbles: true})));"
    )
    assert wait(browser, f"return [...{plots}].every(plot => plot.querySelector('.contourlayer .contour'));")
    assert browser.execute_script(f"return {plots}[0].querySelectorAll('canvas').length") == 0
    browser.execute_script("scrollTo({top: 0, behavior: 'instant'})")
    assert wait(browser, f"return [...{plots}].every(plot => !plot.querySelector('.main-svg'));")


def test_the_plane_is_coloured_by_the_chosen_measure(browser: WebDriver, flat_page: Path) -> None:
    browser.get(flat_page.as_uri())
    show(browser, "plane")
    plot = "document.querySelector('[aria-labelledby=picture-plane] .plot')"
    marks = (
        f"const shown = {plot}._fullData.filter((_, at) => {plot}.data[at].meta && {plot}.data[at].visible);"
        "return [shown[0].x?.length ?? 0, [...shown[1].marker.color]];"
    )
    assert browser.execute_script(marks) == [1, pytest.approx([0.2, 0.4, 0.2])]
    browser.execute_script(
        "const select = document.querySelector('[aria-labelledby=picture-plane] select');"
        "select.value = 1; select.dispatchEvent(new Event('change'));"
    )
    chosen = marks.replace("return [", "return shown[1].marker.color.length === 4 && [")
    assert wait(browser, chosen) == [0, pytest.approx([3.5, 0.3, 2.5, 3.5])]
    assert "2.5" in browser.execute_script(f"return {plot}.data[0].text[1]")


def test_the_theme_is_switched_and_remembered(browser: WebDriver, flat_page: Path) -> None:
    browser.get(flat_page.as_uri())
    show(browser, "figure09")
    colours = (
        "return [getComputedStyle(document.body).backgroundColor,"
        " document.querySelector('[aria-labelledby=picture-figure09] .plot').layout.font.color]"
    )
    assert browser.execute_script(colours) == ["rgb(255, 255, 255)", "#1b1f24"]
    browser.execute_script("document.getElementById('theme').click()")
    assert wait(
        browser, colours.replace("return ", "const found = ") + "; return found[1] !== '#1b1f24' && found"
    ) == ["rgb(15, 19, 24)", "#e6edf3"]
    browser.get(flat_page.as_uri())
    show(browser, "figure09")
    assert browser.execute_script(colours) == ["rgb(15, 19, 24)", "#e6edf3"]
    browser.execute_script("localStorage.clear()")


SHOWN = (
    "return ['.still', '.live'].map(kind => [...document.querySelectorAll('figure[data-live] ' + kind)]"
    ".map(box => getComputedStyle(box).display !== 'none'))"
)


def test_paper_has_the_still_pictures(browser: WebDriver, flat_page: Path) -> None:
    browser.get(flat_page.as_uri())
    for key in FLAT:
        show(browser, key)
    assert browser.execute_script(SHOWN) == [[False] * 4, [True] * 4]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    assert browser.execute_script(SHOWN) == [[True] * 4, [False] * 4]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def test_still_pictures_are_dark_in_the_dark_theme_and_light_on_paper(
    browser: WebDriver, flat_page: Path
) -> None:
    seen = (
        "return [...document.querySelectorAll('.still img')].filter(image =>"
        " getComputedStyle(image).display !== 'none').map(image => image.className)"
    )
    browser.get(flat_page.as_uri())
    assert set(browser.execute_script(seen)) == {"on-light"}
    browser.execute_script("document.documentElement.dataset.theme = 'dark'")
    assert set(browser.execute_script(seen)) == {"on-dark"}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    assert set(browser.execute_script(seen)) == {"on-light"}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})


def test_nothing_runs_off_a_phone(browser: WebDriver, flat_page: Path) -> None:
    size = {"width": 390, "height": 844, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        browser.get(flat_page.as_uri())
        for key in FLAT:
            show(browser, key)
            assert browser.execute_script("return document.documentElement.scrollWidth") == 390
            # Nothing of a live figure is cut at the sides of its box.
            beyond = browser.execute_script(
                "const box = document.querySelector(`[aria-labelledby=picture-${arguments[0]}] .live`);"
                "const {left, right} = box.getBoundingClientRect();"
                "return [...box.querySelectorAll('text')].map(text => text.getBoundingClientRect())"
                ".filter(text => text.width && (text.left < left - 1 || text.right > right + 1)).length",
                key,
            )
            assert beyond == 0, key
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_without_scripts_the_still_pictures_stand(flat_page: Path) -> None:
    with chromium(scripts=False) as browser:
        browser.get(flat_page.as_uri())
        images = browser.find_elements("css selector", "figure img")
        assert len(images) == 10
        shown = [image for image in images if image.is_displayed()]
        assert [image.get_attribute("class") for image in shown] == ["on-light"] * 5
        assert all(image.size["width"] > 200 for image in shown)
        assert not any(box.is_displayed() for box in browser.find_elements("css selector", ".live"))


@pytest.mark.slow
def test_the_report_of_results_shows_their_pictures(browser: WebDriver, tmp_path: Path) -> None:
    results = made_up_results(tmp_path, variants=("original", "C1", "C4", "C6", "C7"), problems=("one run",))
    path = write_report(results)
    assert path == tmp_path / "made_up" / "reports" / "made_up" / "index.html"
    browser.get(path.as_uri())
    figures = browser.execute_script(
        "return [...document.querySelectorAll('figure[data-live]')].map(figure =>"
        " figure.getAttribute('aria-labelledby').replace('picture-', ''))"
    )
    assert len(figures) >= 6
    browser.execute_script("document.querySelectorAll('details').forEach(one => { one.open = true; })")
    for key in figures:
        show(browser, key)
    messages = browser.get_log("browser")  # type: ignore[no-untyped-call]
    assert not [message for message in messages if message["level"] == "SEVERE"]
