"""Check series in the page: chosen as files or in a PACS, scrolled, asked about slice by slice, and cancelled."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.browser.conftest import START, Screenshot, Visit, Visiting
from tests.browser.test_everybody import GRAVE, PHONE
from tests.support.images.phantom import chest_ct_slices
from tests.support.images.series_files import SERIES, STUDY, ct_slice
from tests.support.service.orthanc import PASSWORD, USER, Orthanc, needs_orthanc, orthanc
from tests.support.service.server_process import ServerProcess, server_process

pytestmark = pytest.mark.timeout(600)

_COUNT, _SIDE = 12, 96
LESION = (7, 8)
FILES = [
    ct_slice(index, values.astype(np.int16), StudyDescription="CT chest", SeriesDescription="axial", Modality="CT")
    for index, values in enumerate(chest_ct_slices(_COUNT, _SIDE))
]


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """Return the paths of the slices; the names run against the positions."""
    paths = []
    for index, file in enumerate(FILES):
        path = tmp_path / f"doe_jane_{_COUNT - index}.dcm"
        path.write_bytes(file)
        paths.append(str(path))
    return paths


@pytest.fixture(scope="module")
def pacs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    with orthanc(tmp_path_factory.mktemp("orthanc")) as running:
        for file in FILES:
            running.add(file)
        yield running


def read(visit: Visit) -> None:
    visit.page.locator("#series[aria-busy=false]").wait_for()


def choose(visit: Visit, files: list[str]) -> None:
    visit.page.set_input_files("#file", files)
    read(visit)


def number(visit: Visit) -> str:
    return visit.page.locator(".stack-caption").inner_text().partition(",")[0]


def finished(visit: Visit) -> None:
    visit.page.locator("#result .details").wait_for()


def check_accessibility(visit: Visit, state: str) -> None:
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(visit.page).response["violations"]
    assert not [(one["id"], one["nodes"][0]["html"]) for one in found if one["impact"] in GRAVE], state
    assert visit.page.evaluate("document.documentElement.scrollWidth") <= visit.page.viewport_size["width"], state  # type: ignore[index]


@pytest.mark.parametrize("device", [{}, PHONE], ids=["desk", "phone"])
def test_a_series_is_scrolled_and_answered_slice_by_slice(
    visit: Visiting, server: ServerProcess, files: list[str], device: dict[str, Any], screenshot: Screenshot
) -> None:
    opened = visit(server.url, **device)
    page, name = opened.page, "phone" if device else "desk"
    choose(opened, files)
    assert number(opened) == "Slice 7 of 12"
    assert "12 of 12 slices, 2 mm apart" in page.locator("#series").inner_text()
    check_accessibility(opened, "chosen")
    screenshot(opened, f"20-series-{name}-chosen")
    page.locator(".stack").focus()
    page.keyboard.press("End")
    assert number(opened) == "Slice 12 of 12"
    page.keyboard.press("ArrowUp")
    page.get_by_role("slider", name="Slice").press("ArrowLeft")
    assert number(opened) == "Slice 10 of 12"
    if not device:
        page.locator(".stack").hover()
        page.mouse.wheel(0, 100)
        page.wait_for_function("document.querySelector('.stack-caption').textContent.startsWith('Slice 11')")
    opened.ask()
    page.locator(".slice-answer:not(:text('…'))").first.wait_for()
    check_accessibility(opened, "answering")
    screenshot(opened, f"20-series-{name}-answering")
    finished(opened)
    best = page.locator(".slice.best")
    assert best.count() == 1
    assert best.get_attribute("aria-current") == "true"
    assert number(opened).startswith(best.locator(".small").first.inner_text())
    assert "most_confident" in page.locator("#result").inner_text()
    answers = page.locator(".slice-answer").all_inner_texts()
    assert len(answers) == 12
    assert page.locator("p.answer").inner_text() in answers
    assert "-F series=@series.zip" in opened.call()
    check_accessibility(opened, "answered")
    screenshot(opened, f"20-series-{name}-answered")
    # Another window, another question: the answer says that it is about the previous ones.
    page.get_by_role("button", name="lung", exact=True).click()
    read(opened)
    assert "previous window" in page.locator(".stale-note").inner_text()
    page.locator("#entries button").first.click()
    read(opened)
    assert page.locator(".stale-note").is_hidden()
    # A cancelled series has no result, and what came of it stays marked as a part.
    opened.ask("Is the lung healthy?")
    page.locator(".slice-answer:not(:text('…'))").first.wait_for()
    page.get_by_role("button", name="Stop").click()
    assert "no result was made" in page.locator("#result").inner_text()
    assert page.locator(".slice.best").count() == 0
    screenshot(opened, f"20-series-{name}-stopped", whole=False)
    page.get_by_role("button", name="Remove", exact=True).click()
    assert page.locator("#result").inner_text() == ""
    assert page.locator("#well").is_visible()
    # All frames of a file are a series, too.
    page.get_by_role("button", name="DICOM slices", exact=True).click()
    page.get_by_role("button", name="Ask about all frames").wait_for()
    screenshot(opened, f"20-series-{name}-frames")
    page.get_by_role("button", name="Ask about all frames").click()
    page.locator(".stack-caption", has_text="Slice 4 of 6").wait_for()


def test_the_controls_of_a_series_keep_the_hand_and_say_what_is_sent(
    visit: Visiting, server: ServerProcess, files: list[str]
) -> None:
    opened = visit(server.url)
    page = opened.page
    choose(opened, files)
    lung = page.locator("#series").get_by_role("button", name="lung", exact=True)
    lung.focus()
    with page.expect_response("**/v1/series/render"):
        page.keyboard.press("Enter")
    read(opened)
    assert lung.evaluate("button => document.activeElement === button")
    count = page.get_by_label("Slices to look at")
    count.fill("1")
    count.blur()
    page.locator("#series", has_text="1 of 12 slices").wait_for()
    count.fill("0")
    count.blur()
    page.locator("#problem").wait_for()
    assert "slices" in page.locator("#problem").inner_text()


@needs_orthanc
def test_an_image_and_a_series_are_chosen_from_a_pacs(
    visit: Visiting, pacs: Orthanc, tmp_path: Path, screenshot: Screenshot
) -> None:
    (tmp_path / "password").write_text(f"{USER}:{PASSWORD}\n")
    sources = tmp_path / "sources.toml"
    sources.write_text(f'[pacs]\nurl = "{pacs.url}"\npassword_file = "password"\n')
    with server_process(settings={"MEDMOE_ENGINE": "fake", "MEDMOE_DICOMWEB_SOURCES": str(sources)}) as server:
        server.wait_ready(START)
        opened = visit(server.url)
        page = opened.page
        page.get_by_text("Choose from a PACS").click()
        page.get_by_role("button", name="Find").click()
        page.get_by_role("button", name="Open: CT · CT chest").click()
        page.get_by_role("heading", name="1 series").wait_for()
        screenshot(opened, "21-pacs-series")
        page.get_by_role("button", name="Images: CT axial").click()
        page.get_by_role("heading", name="12 images").wait_for()
        check_accessibility(opened, "images")
        screenshot(opened, "21-pacs-images")
        page.get_by_role("button", name="Show: Image 994").click()
        page.locator("#well[aria-busy=false] #shown").wait_for()
        opened.ask()
        opened.finished()
        assert f'"instance":"{SERIES}.7"' in opened.call()
        screenshot(opened, "21-pacs-image-answered")
        page.locator("#pacs").get_by_label("Study UID").fill(STUDY)
        page.get_by_role("button", name="Find").click()
        page.get_by_role("button", name="Whole series: CT axial").click()
        read(opened)
        assert number(opened) == "Slice 7 of 12"
        assert page.locator("#result").inner_text() == ""
        opened.to_classify("yes", "no")
        opened.classify()
        assert page.locator(".slice-answer").count() == 12
        assert page.locator(".probabilities tbody tr").count() == 2
        assert f'"series":"{SERIES}"' in opened.call()
        screenshot(opened, "21-pacs-series-classified")
        page.locator("#pacs").get_by_label("Study UID").fill("1.2.3")
        page.get_by_role("button", name="Find").click()
        page.get_by_role("heading", name="No series found").wait_for()
        for sent in opened.sent:
            assert "PHANTOM" not in (sent.post_data or "")
