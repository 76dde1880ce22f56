"""Check that what comes late, or in another order than it was asked for, changes nothing that it is not about."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.browser.conftest import QUESTION, Visit, Visiting
from tests.support.service.server_process import ServerProcess

pytestmark = pytest.mark.timeout(600)


def hold(visit: Visit, route: str) -> list[Any]:
    """Let no request to `route` through; return those that came."""
    held: list[Any] = []
    visit.page.route(f"**/{route}", lambda one: held.append(one))
    return held


def release(visit: Visit, route: str, held: list[Any]) -> None:
    for one in held:
        one.continue_()
    visit.page.unroute(f"**/{route}")


def wait_for(visit: Visit, held: list[Any], count: int) -> None:
    for _ in range(300):
        if len(held) >= count:
            return
        visit.page.wait_for_timeout(20)
    raise AssertionError(f"{len(held)} requests came, not {count}")


def pixels(visit: Visit, image: str) -> np.ndarray:
    """Return the picture that an element shows, small."""
    source = visit.page.locator(image).get_attribute("src") or ""
    with Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))) as opened:
        return np.asarray(opened.convert("L").resize((32, 32)), np.float32)


def press_ask(visit: Visit) -> None:
    visit.page.get_by_role("button", name="Ask", exact=True).click()


def window(visit: Visit, name: str) -> None:
    visit.page.locator("#presets").get_by_role("button", name=name, exact=True).click()


def ask_during_rendering(visit: Visit, ct: Path) -> list[Any]:
    """Ask while the image with another window is on its way; return its request, which is held."""
    visit.choose(ct)
    visit.page.fill("#question", QUESTION)
    held = hold(visit, "v1/render")
    window(visit, "bone")
    wait_for(visit, held, 1)
    press_ask(visit)
    return held


def test_the_card_shows_what_is_asked_about_though_the_window_changed_meanwhile(
    visit: Visiting, server: ServerProcess, ct: Path
) -> None:
    opened = visit(server.url)
    page = opened.page
    held = ask_during_rendering(opened, ct)
    window(opened, "lung")
    wait_for(opened, held, 2)
    # Nothing is asked about a picture that nobody sees yet.
    page.wait_for_timeout(300)
    assert page.locator("#result .result-head").count() == 0
    release(opened, "v1/render", held)
    opened.finished()
    assert "window lung" in page.locator("#result .result-head").inner_text()
    assert np.abs(pixels(opened, "#result .result-head img") - pixels(opened, "#shown")).mean() < 8


def test_the_question_is_the_one_that_was_asked(visit: Visiting, server: ServerProcess, ct: Path) -> None:
    opened = visit(server.url)
    page = opened.page
    held = ask_during_rendering(opened, ct)
    page.fill("#question", "Is the")
    release(opened, "v1/render", held)
    opened.finished()
    assert QUESTION in page.locator("#result .result-head").inner_text()
    assert "previous question" in page.locator(".stale-note").inner_text()


def test_stop_ends_the_wait_for_the_image_too(visit: Visiting, server: ServerProcess, ct: Path) -> None:
    opened = visit(server.url)
    page = opened.page
    held = ask_during_rendering(opened, ct)
    page.get_by_role("button", name="Stop").click()
    page.locator("#ask .stop").wait_for(state="hidden")
    release(opened, "v1/render", held)
    opened.rendered()
    assert not [sent for sent in opened.sent if sent.url.endswith("/v1/vqa")]


def test_the_caption_is_that_of_the_frame_in_sight(visit: Visiting, server: ServerProcess, ct: Path) -> None:
    """Move on while a frame is on its way: neither is the next one's number over it, nor is the move undone."""
    opened = visit(server.url)
    page = opened.page
    opened.choose(ct)
    held = hold(opened, "v1/render")
    page.locator("#well").hover(position={"x": 200, "y": 200})
    page.mouse.wheel(0, 100)
    wait_for(opened, held, 1)
    second = held[0].fetch()
    page.mouse.wheel(0, 100)
    page.locator("#frame-number", has_text="3 of 3").wait_for()
    held[0].fulfill(response=second)
    wait_for(opened, held, 2)
    assert page.locator("#frame-number").inner_text() == "3 of 3"
    assert page.locator("#viewer-caption").inner_text().startswith("Frame 2 of 3")
    release(opened, "v1/render", held[1:])
    page.locator("#viewer-caption", has_text="Frame 3 of 3").wait_for()


def test_a_sample_that_comes_late_replaces_nothing(visit: Visiting, server: ServerProcess, photograph: Path) -> None:
    opened = visit(server.url)
    page = opened.page
    held = hold(opened, "page/samples/slices.dcm")
    page.get_by_role("button", name="DICOM slices", exact=True).click()
    wait_for(opened, held, 1)
    opened.choose(photograph)
    release(opened, "page/samples/slices.dcm", held)
    page.wait_for_timeout(500)
    assert page.locator("#facts").inner_text().startswith("PNG")


def test_a_series_is_asked_about_when_it_is_read_and_read_once(visit: Visiting, server: ServerProcess) -> None:
    opened = visit(server.url)
    page = opened.page
    page.get_by_role("button", name="DICOM slices", exact=True).click()
    page.get_by_role("button", name="Ask about all frames").click()
    page.locator(".stack-caption", has_text="Slice 4 of 6").wait_for()
    page.fill("#question", QUESTION)
    held = hold(opened, "v1/series/render")
    presets = page.locator("#series")
    presets.get_by_role("button", name="lung", exact=True).click()
    press_ask(opened)
    page.wait_for_timeout(300)
    assert len(held) == 1
    presets.get_by_role("button", name="bone", exact=True).click()
    wait_for(opened, held, 2)
    release(opened, "v1/series/render", held)
    opened.finished()
    assert "window bone" in page.locator("#result .result-head").inner_text()


@pytest.mark.parametrize("change", ["another instance", "another slice"])
def test_answers_about_other_slices_than_those_shown_are_refused(
    visit: Visiting, server: ServerProcess, change: str
) -> None:
    """The series of a source may grow between its rendering and its question."""
    opened = visit(server.url)
    page = opened.page
    page.get_by_role("button", name="DICOM slices", exact=True).click()
    page.get_by_role("button", name="Ask about all frames").click()
    page.locator(".stack-caption", has_text="Slice 4 of 6").wait_for()

    def changed(route: Any) -> None:
        fetched = route.fetch()
        events = fetched.text().split("\n\n")
        at = next(index for index, event in enumerate(events) if '"slice"' in event)
        event = json.loads(events[at].removeprefix("data: "))
        event["slice"] |= {"instance": "1.2.3"} if change == "another instance" else {"index": 99}
        events[at] = f"data: {json.dumps(event)}"
        route.fulfill(response=fetched, body="\n\n".join(events))

    page.route("**/v1/series", changed)
    opened.ask()
    page.locator("#problem h3", has_text="The series has changed").wait_for()
    assert page.locator(".slice.best").count() == 0
    assert page.locator("#history").is_hidden()


def test_a_map_is_made_by_the_weights_that_answered(visit: Visiting, server: ServerProcess, photograph: Path) -> None:
    opened = visit(server.url)
    page = opened.page
    opened.choose(photograph)

    def by_others(route: Any) -> None:
        fetched = route.fetch()
        answer = fetched.json()
        answer["provenance"]["weights_sha256"] = "0123456789ab" + 52 * "0"
        route.fulfill(response=fetched, json=answer)

    page.route("**/v1/classify", by_others)
    opened.to_classify("CT", "MRI")
    opened.classify()
    page.get_by_role("button", name="Where from?").click()
    page.locator("#problem h3", has_text="not served any more").wait_for()
    assert page.locator("#result figure").count() == 0


def test_the_form_is_that_of_the_task_that_a_browser_restores(visit: Visiting, server: ServerProcess) -> None:
    opened = visit(server.url)
    page = opened.page
    page.get_by_role("radio", name="Classify").check()
    page.goto(f"{server.url}/health/live")
    page.go_back()
    page.locator("[data-light=good]").wait_for()
    task = page.locator("input[name=task]:checked").input_value()
    assert page.locator(f"#{task}").is_visible()
    assert page.locator("form:is(#ask, #classify):visible").count() == 1
