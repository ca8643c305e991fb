"""The page of a run whose artefacts are made up: as a file, and in a real browser.

The browser is Debian's Chromium (``apt-get install chromium``), driven by Playwright.
"""

import contextlib
import os
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest
from factory import DEFECTS, MASKERS, PACK, REFERENCE, make_run, tiny
from markupsafe import Markup
from PIL import Image

from fader.config import Config, parse
from fader.files import shown
from fader.pipeline import paths
from fader.report import write
from fader.report.drawings import Findings
from fader.report.records import Records
from fader.report.site import Contents, environment, page

HOSTILE = "<img src=x onerror=alert(1)>\"'`</script>"
NOT_UTF8 = os.fsdecode(b"caf\xe9")  # as the system gives the name of a file
WHY = "loss is <nan>"
PLACES = (("mvtec_ad", "bottle"), ("mvtec_ad", "transistor"))
SCORES = (0.1, 0.4, 0.3, 0.2)  # with the threshold .25: one error of either kind
CHROMIUM = next(
    (
        found
        for name in ("chromium", "chromium-browser", "google-chrome")
        if (found := shutil.which(name))
    ),
    None,
)


def config() -> Config:
    """Two categories of the paper, and a generated one that bears a hostile name."""
    values = tiny(
        (*PLACES, ("synthetic", "bolt")),
        maskers={name: MASKERS[name] for name in ("dinov2", "vit", "dsr")},
        detectors=("unet", "pca"),
        variants=("nomask", "hard"),
        run="made-up",
        masks__optional=["vit"],
    ).plain
    values["categories"]["synthetic-bolt"]["category"] = HOSTILE.replace("/", "")
    return parse(values, "made up")


CONFIG = config()


def written(folder: Path) -> str:
    """The page of the run in a folder, with figures that take no time."""
    with contextlib.chdir(folder):
        found = Findings(Records.read(CONFIG), REFERENCE)
        tables = {name: write.table(found, name) for name in CONFIG.tables()}
        return page(
            Contents(
                found.records,
                {name: table.content for name, table in tables.items() if table.content},
                found.statistics,
                {path: text for table in tables.values() for path, text in table.files.items()},
                REFERENCE,
            )
        )


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A run with its page."""
    root = tmp_path_factory.mktemp("site")
    (root / "reference").symlink_to(REFERENCE)
    defects = ["good", HOSTILE.replace("/", ""), "good", shown(NOT_UTF8)]
    pack = PACK | {"defects": defects, "test": [f"test/{d}/{i}.png" for i, d in enumerate(defects)]}
    with contextlib.chdir(root):
        make_run(CONFIG, pack, SCORES, {"unet": WHY})
        for name in paths.FIGURES:
            path = Path(paths.figure(CONFIG.run, name)[0])
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (600, 200), "white").save(path)
    path = root / paths.site(CONFIG.run)
    path.parent.mkdir(parents=True)
    path.write_text(written(root), encoding="utf-8")
    return root


@pytest.fixture(scope="module")
def text(folder) -> str:
    return (folder / paths.site(CONFIG.run)).read_text(encoding="utf-8")


class Elements(HTMLParser):
    """Start tags with their attributes, and ids."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs) -> None:
        self.tags.append((tag, dict(attrs)))


# ---- as a file ----


def test_the_same_inputs_give_the_same_bytes(folder, text):
    assert written(folder) == text


def test_nothing_is_fetched_and_every_link_leads_somewhere(folder, text):
    tags = Elements(text).tags
    assert {tag for tag, _ in tags} & {"link", "iframe", "object", "embed", "base"} == set()
    sources = [attributes["src"] for _, attributes in tags if "src" in attributes]
    assert sources and all(source.startswith("data:image/") for source in sources)
    ids = [attributes["id"] for _, attributes in tags if attributes.get("id")]
    assert len(ids) == len(set(ids))
    links = [attributes["href"] for tag, attributes in tags if tag == "a"]
    assert {link[1:] for link in links if link.startswith("#")} <= set(ids)
    beside = {link for link in links if not link.startswith("#")}
    assert beside == {
        f"../../../{path}" for name in CONFIG.tables() for path in paths.table(CONFIG.run, name)
    } | {f"../../../{path}" for name in paths.FIGURES for path in paths.figure(CONFIG.run, name)}


def test_names_are_text_and_never_markup(text):
    assert "onerror=alert" in text  # as text
    for tag, attributes in Elements(text).tags:
        assert not any(name.startswith("on") for name in attributes), (tag, attributes)
        assert attributes.get("src") != "x"
    assert text.count("</script>") == 1
    assert r"caf\xe9" in text


def test_a_name_that_is_no_text_can_be_printed():
    template = environment().from_string("{{ name }} {{ markup }}")
    assert template.render(name=f"<{NOT_UTF8}>", markup=Markup("<b>")) == r"&lt;caf\xe9&gt; <b>"


def test_a_policy_lets_only_our_own_script_run(text):
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)
    assert policy.startswith("default-src &#39;none&#39;; img-src data:; script-src &#39;sha256-")
    assert "unsafe" not in policy


def test_what_did_not_run_says_why(text):
    assert "training diverged: loss is &lt;nan&gt;" in text
    assert "no weights of vit" in text


def test_the_first_screen_answers(text):
    assert "Does FADeR help?" in text
    assert "Not checked: reference/expected.csv has no rows for run &#39;made-up&#39;." in text
    assert re.search(r"\d+ of \d+ AUROCs are within ±0.020 of the\s+paper", text)


def test_a_number_names_its_files(text):
    assert "results/made-up/tables/table1.csv" in text
    assert "results/made-up/metrics/mvtec_ad-bottle/seed0/fader-dinov2.json" in text


def test_a_figure_that_is_declared_is_shown(text):
    shown = [a["id"] for tag, a in Elements(text).tags if tag == "figure" and "id" in a]
    assert shown == list(paths.FIGURES)


# ---- in a browser ----

needs_browser = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium for the tests of the report: apt-get install chromium"
)


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def opened(browser, folder):
    """Open the page in a window of some size and scheme; no message of its console is ignored."""
    said: list[str] = []
    contexts = []

    def open_page(width: int = 1280, scheme: str = "light", **options):
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=scheme, **options
        )
        contexts.append(context)
        tab = context.new_page()
        tab.on("console", lambda message: said.append(message.text))
        tab.on("pageerror", lambda error: said.append(str(error)))
        tab.on("dialog", lambda dialog: (said.append("a dialog"), dialog.dismiss()))
        tab.on("request", lambda request: said.append(request.url) if loads(request.url) else None)
        tab.goto((folder / paths.site(CONFIG.run)).as_uri())
        return tab

    yield open_page
    for context in contexts:
        context.close()
    assert said == []


def loads(url: str) -> bool:
    return not url.startswith(("data:", "file:"))


@needs_browser
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_it_is_accessible_and_fits(opened, width, scheme):
    from axe_playwright_python.sync_playwright import Axe

    tab = opened(width, scheme)
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    found = Axe().run(tab, options={"resultTypes": ["violations"]}).response["violations"]
    serious = [v for v in found if v["impact"] in ("serious", "critical")]
    assert [(v["id"], [n["html"][:200] for n in v["nodes"][:3]]) for v in serious] == []


@needs_browser
def test_a_header_sorts_by_click_and_by_keyboard(opened):
    tab = opened()
    table = tab.locator("#table1-2")
    header = table.locator("thead th[data-column='0']")
    names = table.locator("tbody tr th:first-child")
    made = names.all_inner_texts()
    header.get_by_role("button").click()
    assert header.get_attribute("aria-sort") == "ascending"
    tab.keyboard.press("Enter")
    assert header.get_attribute("aria-sort") == "descending"
    down = names.all_inner_texts()
    assert down != made and sorted(down) == sorted(made)
    assert table.locator("tbody tr").last.get_attribute("class") == "average"
    tab.keyboard.press("Space")
    assert header.get_attribute("aria-sort") == "none"
    assert names.all_inner_texts() == made


@needs_browser
def test_a_gallery_filters_slides_and_enlarges(opened):
    tab = opened()
    gallery = tab.locator("#gallery-1")
    cases = gallery.locator(".case")
    assert cases.count() == len(DEFECTS)
    assert cases.locator(".outcome").all_text_contents()[2:] == ["correct", "correct"]
    gallery.get_by_label("Verdict").select_option("false positive")
    assert gallery.locator(".case:visible").count() == 1
    assert gallery.locator("output").inner_text() == "1 of 4 shown"
    gallery.get_by_label("Verdict").select_option("")
    gallery.get_by_label("Defect").select_option(index=1)
    assert gallery.locator("output").inner_text() == "1 of 4 shown"
    slider = gallery.get_by_role("slider")
    slider.focus()
    for _ in range(4):
        tab.keyboard.press("ArrowRight")
    assert slider.get_attribute("aria-valuetext") == "anomaly map"
    views = gallery.locator(".case:visible .view")
    seen = [view.evaluate("each => getComputedStyle(each).visibility") for view in views.all()]
    assert seen == ["hidden", "visible", "hidden", "hidden"]
    gallery.locator(".case:visible").get_by_role("button").click()
    dialog = tab.get_by_role("dialog")
    assert dialog.is_visible()
    tab.keyboard.press("Escape")
    assert not dialog.is_visible()
    focused = tab.evaluate("document.activeElement.className")
    assert focused == "enlarge"


@needs_browser
def test_the_keyboard_goes_through_it_in_order(opened):
    tab = opened()
    reached = []
    for _ in range(4):
        tab.keyboard.press("Tab")
        reached.append(tab.evaluate("document.activeElement.textContent.trim()"))
    assert reached == ["Skip to the content", "Colours: as the system", "Answers", "Tables"]
    tab.keyboard.press("Shift+Tab")
    tab.keyboard.press("Shift+Tab")
    grounds = []
    for _ in range(3):
        grounds.append(tab.evaluate("getComputedStyle(document.body).backgroundColor"))
        tab.keyboard.press("Enter")
    assert grounds[0] == grounds[1] != grounds[2]  # the system's light, light, dark


@needs_browser
def test_it_prints_and_reads_without_a_script(opened, tmp_path):
    tab = opened(java_script_enabled=False)
    assert tab.locator(".needs-script:visible").count() == 0
    assert tab.locator("#gallery-1 .view:visible").count() == 4 * len(DEFECTS)
    assert opened().pdf(path=tmp_path / "page.pdf").startswith(b"%PDF")
