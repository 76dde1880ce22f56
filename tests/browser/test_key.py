"""Check the page and the documentation of a service that requires an API key."""

from pathlib import Path

import pytest

from tests.browser.conftest import Guarded, Screenshot, Visiting

pytestmark = pytest.mark.timeout(600)

UNKNOWN = "This key is not known here."


def test_until_a_key_is_accepted_nothing_else_can_be_used(
    visit: Visiting, guarded: Guarded, photograph: Path, screenshot: Screenshot
) -> None:
    opened = visit(guarded.url)
    page = opened.page
    page.locator("#key").wait_for()
    assert page.evaluate("document.activeElement.id") == "key-text"
    assert page.evaluate("document.querySelector('main').inert")
    assert page.locator("#key-refusal").is_hidden()
    screenshot(opened, "8-key", whole=False)
    page.keyboard.type("mm-wrong")
    page.keyboard.press("Enter")
    # Said at the field, where the next key is typed.
    page.locator("#key-refusal", has_text=UNKNOWN).wait_for()
    assert page.locator("#key-text").get_attribute("aria-invalid") == "true"
    assert page.evaluate("document.activeElement.id") == "key-text"
    screenshot(opened, "9-wrong-key", whole=False)
    page.keyboard.type(guarded.key)
    assert page.locator("#key-refusal").is_hidden()
    page.get_by_role("button", name="Use it").click()
    page.locator("[data-light=good]").wait_for()
    assert page.locator("#key").is_hidden()
    assert not page.evaluate("document.querySelector('main').inert")
    opened.choose(photograph)
    opened.ask()
    opened.finished()
    assert "Authorization: Bearer $API_KEY" in opened.call()
    assert guarded.key not in page.content()
    assert page.input_value("#key-text") == ""
    assert guarded.key not in page.evaluate("JSON.stringify(performance.getEntries())")
    # Both open with the key that the page holds.
    with page.expect_popup() as popup:
        page.get_by_role("link", name="API").click()
    popup.value.get_by_text("/v1/vqa", exact=True).wait_for()
    page.get_by_role("button", name="Model card").click()
    page.get_by_role("dialog").get_by_role("heading", name="medmoe-tiny").wait_for()
    page.get_by_role("button", name="Close").click()
    page.get_by_role("button", name="Change key").click()
    assert page.locator("#key").is_visible()


def test_the_documentation_asks_for_a_key_by_itself(visit: Visiting, guarded: Guarded) -> None:
    page = visit(guarded.url).page
    page.goto(f"{guarded.url}/docs")
    page.fill("#key-text", "mm-wrong")
    page.keyboard.press("Enter")
    page.get_by_text(UNKNOWN).wait_for()
    page.fill("#key-text", guarded.key)
    page.keyboard.press("Enter")
    page.get_by_text("/v1/vqa", exact=True).wait_for()
    page.locator("#operations-operations-live_health_live_get, [id^=operations-operations]").first.click()
    page.get_by_role("button", name="Try it out").click()
    page.get_by_role("button", name="Execute").click()
    page.locator(".responses-table.live-responses-table").wait_for()


def test_the_documentation_tells_what_keeps_it_away(visit: Visiting, guarded: Guarded) -> None:
    page = visit(guarded.url).page
    unavailable = '{"error": {"message": "Tokens cannot be checked; try again."}}'
    page.route("**/openapi.json", lambda route: route.abort())
    page.goto(f"{guarded.url}/docs")
    problem = page.locator("#problem")
    problem.get_by_text("The service cannot be reached").wait_for()
    assert page.locator("#key").is_hidden()
    page.route("**/openapi.json", lambda route: route.fulfill(status=503, body=unavailable))
    again = page.get_by_role("button", name="Try again")
    again.click()
    problem.get_by_text("Tokens cannot be checked; try again.").wait_for()
    page.route("**/openapi.json", lambda route: route.fulfill(status=502, body="<html>Bad gateway</html>"))
    again.click()
    problem.get_by_text("The service answered with status 502.").wait_for()
    page.unroute("**/openapi.json")
    again.click()
    page.locator("#key").wait_for()
    assert problem.is_hidden()
    page.fill("#key-text", guarded.key)
    page.keyboard.press("Enter")
    page.get_by_text("/v1/vqa", exact=True).wait_for()


def test_a_key_that_no_header_holds_is_refused_at_its_field(visit: Visiting, guarded: Guarded) -> None:
    """As one that was copied with a typographic hyphen."""
    page = visit(guarded.url).page
    page.fill("#key-text", f"{guarded.key}\u2013")
    page.keyboard.press("Enter")
    page.locator("#key-refusal", has_text=UNKNOWN).wait_for()
    page.fill("#key-text", guarded.key)
    page.keyboard.press("Enter")
    page.locator("[data-light=good]").wait_for()
    page.goto(f"{guarded.url}/docs")
    page.fill("#key-text", f"{guarded.key}\u2013")
    page.keyboard.press("Enter")
    page.get_by_text(UNKNOWN).wait_for()


def test_who_wants_another_key_can_keep_the_one_that_works(visit: Visiting, guarded: Guarded, photograph: Path) -> None:
    opened = visit(guarded.url)
    page = opened.page
    keep = page.get_by_role("button", name="Keep the present key")
    page.locator("#key").wait_for()
    assert keep.is_hidden()
    page.fill("#key-text", guarded.key)
    page.keyboard.press("Enter")
    page.locator("[data-light=good]").wait_for()
    opened.choose(photograph)
    for wrong in ("", "mm-wrong"):
        page.get_by_role("button", name="Change key").click()
        if wrong:
            page.fill("#key-text", wrong)
            page.keyboard.press("Enter")
            page.locator("#key-refusal", has_text=UNKNOWN).wait_for()
        keep.click()
        page.locator("#key").wait_for(state="hidden")
    assert page.locator("#shown").is_visible()
    opened.ask()
    opened.finished()
