"""Check that no answer stands beside an image, window, frame or question that it is not about."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.browser.conftest import Screenshot, Visit, Visiting
from tests.support.service.server_process import ServerProcess

pytestmark = pytest.mark.timeout(600)

LONG = "What does the image show?"
"""The fake engine answers this in several words."""


@pytest.fixture
def answered(visit: Visiting, server: ServerProcess, ct: Path) -> Visit:
    """Return a page with an answer about the first frame in the file's own window."""
    opened: Visit = visit(server.url)
    opened.choose(ct)
    opened.ask()
    opened.finished()
    assert note(opened) is None
    return opened


def note(visit: Visit) -> str | None:
    """Return what the answer's card says about belonging to something else."""
    found = visit.page.locator("#result .stale-note")
    stale = "stale" in (visit.page.locator("#result").get_attribute("class") or "")
    assert found.is_visible() == stale
    return found.text_content() if stale else None


def move_frame(visit: Visit) -> None:
    visit.page.locator("#frame").press("ArrowRight")


def choose_window(visit: Visit) -> None:
    visit.page.get_by_role("button", name="bone").click()


def write_question(visit: Visit) -> None:
    visit.page.fill("#question", "Is the lung healthy?")


def set_option(visit: Visit) -> None:
    visit.page.locator("#ask summary").click()
    visit.page.fill("#ask [name=temperature]", "1")


CHANGES = {"frame": move_frame, "window": choose_window, "question": write_question, "options": set_option}


@pytest.mark.parametrize("what", CHANGES)
def test_an_answer_is_greyed_as_soon_as_something_else_is_chosen(answered: Visit, what: str) -> None:
    CHANGES[what](answered)
    assert note(answered) == f"About the previous {what}, not what is chosen now."
    assert "stale" in (answered.page.locator("#routing").get_attribute("class") or "")
    answered.rendered()
    answered.page.get_by_role("button", name="Ask", exact=True).click()
    answered.page.locator("#entries li").nth(1).wait_for()
    assert note(answered) is None


def test_the_kind_of_image_changes_no_answer(answered: Visit) -> None:
    answered.page.locator("#ask summary").click()
    answered.page.select_option("#ask [name=modality]", "CT")
    assert note(answered) is None


def test_an_answer_stays_its_frames_when_another_frame_of_one_shade_is_let_in(
    visit: Visiting, server: ServerProcess, photograph: Path, tmp_path: Path
) -> None:
    path = tmp_path / "pages.tif"
    with Image.open(photograph) as image:
        image.save(path, save_all=True, append_images=[Image.new("RGB", image.size)])
    opened: Visit = visit(server.url)
    opened.choose(path)
    opened.ask()
    opened.finished()
    opened.page.locator("#frame").press("ArrowRight")
    opened.page.get_by_role("button", name="Show it all the same").click()
    opened.page.locator("#shown").wait_for()
    assert note(opened) == "About the previous frame, not what is chosen now."
    opened.page.locator("#frame").press("ArrowLeft")
    opened.rendered()
    assert note(opened) is None


def test_the_card_keeps_the_image_that_was_asked_about(answered: Visit, screenshot: Screenshot) -> None:
    page = answered.page
    image = page.locator("#result .result-head img")
    before = image.get_attribute("src") or ""
    assert before.startswith("data:image/png")
    assert "Frame 1 of 3" in (page.locator("#result .result-head").text_content() or "")
    choose_window(answered)
    answered.rendered()
    assert image.get_attribute("src") == before
    screenshot(answered, "10-stale")


@pytest.mark.parametrize("way", ["another", "sample", "removed"])
def test_with_its_image_an_answer_goes(answered: Visit, photograph: Path, way: str) -> None:
    page = answered.page
    if way == "another":
        answered.choose(photograph)
    elif way == "sample":
        page.get_by_role("button", name="Remove", exact=True).click()
        page.locator("#samples button").first.click()
        page.locator("#shown").wait_for()
    else:
        page.get_by_role("button", name="Remove", exact=True).click()
    assert page.locator("#result").inner_text() == ""
    assert page.locator("#routing").is_hidden()
    assert page.locator("#history").is_hidden()


def test_the_answer_of_a_stopped_request_never_lands(
    visit: Visiting, server: ServerProcess, ct: Path, photograph: Path
) -> None:
    opened = visit(server.url)
    page = opened.page
    opened.choose(ct)
    opened.ask(LONG)
    page.locator("p.answer:not(:empty)").wait_for()
    opened.choose(photograph)
    page.wait_for_timeout(1000)
    assert page.locator("#result").inner_text() == ""
    assert page.locator("#routing").is_hidden()
    assert page.locator("#history").is_hidden()


def test_a_late_rendering_never_lands(visit: Visiting, server: ServerProcess, ct: Path, photograph: Path) -> None:
    opened = visit(server.url)
    page = opened.page
    held: list[Any] = []
    page.route("**/v1/render", lambda route: held.append(route))
    page.set_input_files("#file", str(ct))
    page.wait_for_timeout(200)
    page.set_input_files("#file", str(photograph))
    page.wait_for_timeout(200)
    for route in reversed(held):
        route.continue_()
    page.locator("#shown").wait_for()
    page.wait_for_timeout(300)
    assert (page.locator("#facts").text_content() or "").startswith("PNG")


def test_what_is_asked_about_is_what_is_shown(visit: Visiting, server: ServerProcess, ct: Path) -> None:
    """Ask while another window is still on its way to the service."""
    opened = visit(server.url)
    page = opened.page
    opened.choose(ct)
    page.fill("#question", LONG)
    before = page.locator("#shown").get_attribute("src")
    page.evaluate(
        """() => {
            [...document.querySelectorAll("#presets button")].find((one) => one.value === "bone").click();
            document.getElementById("ask").requestSubmit();
        }"""
    )
    page.locator("p.answer").wait_for()
    assert page.locator("#shown").get_attribute("src") != before
    assert "window bone" in (page.locator("#result .result-head").text_content() or "")
    opened.finished()
    assert note(opened) is None


def test_a_frame_that_cannot_be_shown_shows_nothing(visit: Visiting, server: ServerProcess, ct: Path) -> None:
    opened = visit(server.url)
    page = opened.page
    opened.choose(ct)
    page.route("**/v1/render", lambda route: route.abort())
    move_frame(opened)
    page.locator("#problem").wait_for()
    assert page.locator("#shown").is_hidden()
    page.unroute("**/v1/render")
    page.locator("#frame").press("ArrowRight")
    page.locator("#shown").wait_for()
    assert page.locator("#problem").is_hidden()


def test_each_task_has_its_own_answer(answered: Visit) -> None:
    page = answered.page
    page.get_by_role("radio", name="Classify").check()
    assert page.locator("#result").is_hidden()
    assert page.locator("#routing").is_hidden()
    page.get_by_role("radio", name="Ask").check()
    assert page.locator("#result").is_visible()
    assert note(answered) is None
