"""Where an answer comes from, on the page: the button, the map over the image, and how it is stopped."""

from pathlib import Path

import pytest

from tests.browser.conftest import Visiting
from tests.support.service.server_process import ServerProcess

pytestmark = pytest.mark.timeout(600)


def test_a_button_shows_the_map_of_a_label_in_its_own_card(
    visit: Visiting, server: ServerProcess, photograph: Path
) -> None:
    opened = visit(server.url)
    page = opened.page
    opened.choose(photograph)
    opened.to_classify("CT", "MRI")
    opened.classify()
    with page.expect_response("**/v1/explain") as answered:
        page.get_by_role("button", name="Where from?").click()
    explained = answered.value.json()
    place = page.locator("#result .explanation")
    place.locator("figure").wait_for()
    importance = explained["importance"]
    row, column = max(
        ((row, column) for row in range(explained["rows"]) for column in range(explained["columns"])),
        key=lambda cell: importance[cell[0]][cell[1]],
    )
    image = place.locator("figure img:not(.layer)")
    alt = image.get_attribute("alt") or ""
    assert explained["answer"] in alt
    assert f"row {row + 1} of {explained['rows']}, column {column + 1} of {explained['columns']}" in alt
    sizes = "node => [node.naturalWidth, node.naturalHeight]"
    assert place.locator("img.layer").evaluate(sizes) == image.evaluate(sizes) == [320, 240]
    assert f"+{explained['scale']:.1f}" in (place.locator(".legend").text_content() or "")
    place.get_by_role("slider", name="Opacity of the map").fill("0")
    assert place.locator("img.layer").evaluate("node => getComputedStyle(node).opacity") == "0"
    assert page.locator("#announcer").text_content() == "The map is shown."


def test_a_stopped_map_can_be_asked_for_again(visit: Visiting, server: ServerProcess, photograph: Path) -> None:
    opened = visit(server.url)
    page = opened.page
    opened.choose(photograph)
    opened.ask()
    opened.finished()
    page.route("**/v1/explain", lambda route: None)
    page.get_by_role("button", name="Where from?").click()
    page.get_by_role("button", name="Stop measuring").click()
    page.get_by_role("button", name="Where from?").wait_for()
    assert page.locator("#result .explanation figure").count() == 0
    page.unroute("**/v1/explain")
    page.get_by_role("button", name="Where from?").click()
    page.locator("#result .explanation figure").wait_for()
