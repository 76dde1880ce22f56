"""Check that every failure is told with a way out, and that the page follows a service that changes under it."""

from pathlib import Path
from typing import Any

import pytest

from tests.browser.conftest import PATIENT, Visit, Visiting
from tests.browser.test_series import FILES
from tests.support.service.server_process import ServerProcess

pytestmark = pytest.mark.timeout(600)

BATCH = {
    "created_at": 1764500000, "endpoint": "/v1/vqa", "paused": None, "status": "in_progress",
    "request_counts": {"total": 3, "completed": 1, "failed": 0},
}  # fmt: skip


def problem(visit: Visit) -> str:
    box = visit.page.locator("#problem")
    box.wait_for()
    return box.inner_text()


def drop(visit: Visit, *paths: Path) -> None:
    """Drop files or folders of the disk on the page."""
    session = visit.page.context.new_cdp_session(visit.page)
    data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
    visit.page.locator("[data-light=good]").wait_for()
    for event in ("dragEnter", "dragOver", "drop"):
        session.send("Input.dispatchDragEvent", {"type": event, "x": 300, "y": 400, "data": data})
        if event == "dragOver":
            visit.page.locator("#well.over").wait_for()


@pytest.mark.parametrize("beside", [False, True], ids=["alone", "with_a_file"])
def test_a_dropped_folder_is_told_to_be_one(
    visit: Visiting, server: ServerProcess, photograph: Path, tmp_path: Path, beside: bool
) -> None:
    folder = tmp_path / PATIENT
    folder.mkdir()
    opened = visit(server.url)
    drop(opened, folder, *([photograph] if beside else []))
    text = problem(opened)
    assert "or it is a folder" in text
    assert "ZIP" in text
    assert PATIENT not in text
    drop(opened, photograph)
    opened.page.locator("#shown").wait_for()


@pytest.mark.parametrize("change", ["written", "deleted"])
def test_a_file_that_changed_on_the_disk_is_not_a_broken_network(
    visit: Visiting, server: ServerProcess, photograph: Path, change: str
) -> None:
    opened = visit(server.url)
    opened.choose(photograph)
    if change == "written":
        photograph.write_bytes(photograph.read_bytes() + b"more")
    else:
        photograph.unlink()
    opened.ask()
    text = problem(opened)
    assert "The file cannot be read" in text
    assert "network" not in text


def test_a_sample_that_does_not_come_is_told(visit: Visiting, server: ServerProcess) -> None:
    opened = visit(server.url)
    opened.page.route("**/page/samples/slices.dcm", lambda route: route.abort())
    opened.page.get_by_role("button", name="DICOM slices", exact=True).click()
    assert "The service cannot be reached" in problem(opened)


def test_an_answer_of_something_else_is_told_to_be_one(
    visit: Visiting, server: ServerProcess, photograph: Path
) -> None:
    """As where a proxy shows its own page to log in on, with status 200."""
    opened = visit(server.url)
    opened.choose(photograph)
    page = "<html>Log in,\n\nplease</html>"
    opened.page.route("**/v1/vqa", lambda route: route.fulfill(status=200, body=page, content_type="text/html"))
    opened.ask()
    assert "The answer is not from this service." in problem(opened)


@pytest.mark.parametrize(
    ("status", "advice"), [(413, "Choose a smaller file"), (502, "Try again in a minute"), (503, "Try again in 7 s.")]
)
def test_a_proxys_refusal_has_a_way_out(
    visit: Visiting, server: ServerProcess, photograph: Path, status: int, advice: str
) -> None:
    opened = visit(server.url)
    headers = {"Retry-After": "7"} if status == 503 else {}
    opened.page.route("**/v1/render", lambda route: route.fulfill(status=status, body="<html>", headers=headers))
    opened.page.set_input_files("#file", str(photograph))
    assert advice in problem(opened)


@pytest.mark.parametrize("route", ["v1/render", "v1/series/render"])
def test_what_was_chosen_is_kept_over_a_failure_that_passes(
    visit: Visiting, server: ServerProcess, photograph: Path, tmp_path: Path, route: str
) -> None:
    opened = visit(server.url)
    page = opened.page
    files = [photograph]
    if route == "v1/series/render":
        files = [tmp_path / f"{index}.dcm" for index in range(3)]
        for path, file in zip(files, FILES, strict=False):
            path.write_bytes(file)
    page.route(f"**/{route}", lambda route: route.fulfill(status=502, body="<html>"))
    page.set_input_files("#file", list(map(str, files)))
    problem(opened)
    page.unroute(f"**/{route}")
    page.get_by_role("button", name="Try again").click()
    page.locator("#shown, .stack img[src]").locator("visible=true").wait_for()
    assert page.locator("#problem").is_hidden()
    # With the button the hand goes to what comes next, not to the beginning of the page.
    assert page.evaluate("document.activeElement.id") == "task"


@pytest.mark.parametrize(
    ("status", "code", "message", "said"),
    [
        (
            504, "deadline_exceeded",
            "The answer took too long; ask for less, or send a longer timeout_ms (at most MEDMOE_TIMEOUT_MS).",
            "The answer took too long.",
        ),
        (503, "not_ready", "The model is still loading; /health/ready tells when.", "The model is still loading."),
        (
            503, "engine_restarting",
            "The engine has stopped and is being restarted; try again after Retry-After seconds.",
            "The engine has stopped and is being restarted.",
        ),
    ],
)  # fmt: skip
def test_words_for_programs_are_left_to_the_details(
    visit: Visiting, server: ServerProcess, photograph: Path, status: int, code: str, message: str, said: str
) -> None:
    opened = visit(server.url)
    page = opened.page
    opened.choose(photograph)
    error = {"type": "unavailable_error", "code": code, "message": message, "param": None, "request_id": 32 * "a"}
    page.route("**/v1/vqa", lambda route: route.fulfill(status=status, json={"error": error}))
    opened.ask()
    problem(opened)
    assert page.locator("#problem h3").inner_text() == said
    assert message in (page.locator("#problem").text_content() or "")


def test_what_is_no_number_is_not_left_out_silently(visit: Visiting, server: ServerProcess, photograph: Path) -> None:
    opened = visit(server.url)
    page = opened.page
    opened.choose(photograph)
    page.locator("#ask summary").click()
    page.locator("#ask [name=min_confidence]").press_sequentially("1e")
    page.locator("#ask summary").click()
    opened.ask()
    assert "This is not a number." in problem(opened)
    assert page.evaluate("document.activeElement.name") == "min_confidence"
    page.locator("#ask [name=min_confidence]").press_sequentially("0")
    page.get_by_role("button", name="Ask", exact=True).click()
    opened.finished()
    assert "min_confidence=1" in opened.call()


def test_the_head_tells_when_the_service_is_away_and_back(
    visit: Visiting, server: ServerProcess, photograph: Path
) -> None:
    opened = visit(server.url)
    page = opened.page
    page.locator("[data-light=good]").wait_for()
    opened.choose(photograph)
    page.context.set_offline(True)
    opened.ask()
    problem(opened)
    page.locator("[data-light=bad]").wait_for()
    page.context.set_offline(False)
    page.locator("[data-light=good]").wait_for()
    assert page.locator("#served").inner_text() == "medmoe-tiny"


def test_the_page_tells_of_the_model_that_answers(visit: Visiting, server: ServerProcess, photograph: Path) -> None:
    opened = visit(server.url)
    page = opened.page
    new = {"model": "medmoe-next", "weights_sha256": "fedcba987654" + 52 * "0", "licence": "MIT"}

    def after_a_change(route: Any) -> None:
        fetched = route.fetch()
        answer = fetched.json() | {"model": new["model"]}
        answer["provenance"]["weights_sha256"] = new["weights_sha256"]
        route.fulfill(response=fetched, json=answer)

    page.locator("[data-light=good]").wait_for()
    opened.choose(photograph)
    page.route("**/v1/metadata", lambda route: fulfil(route, new))
    page.route("**/v1/model-card", lambda route: route.fulfill(body="# medmoe-next\n\nRight 80.5 times of 100.\n"))
    page.route("**/v1/classify", after_a_change)
    opened.to_classify("CT", "MRI")
    opened.classify()
    page.locator("#served", has_text="medmoe-next").wait_for()
    page.locator("#purpose-text", has_text="Right 80.5 times of 100.").wait_for()
    assert "fedcba987654" in page.locator("#origin").inner_text()
    page.get_by_role("button", name="Model card").click()
    page.get_by_role("dialog").get_by_role("heading", name="medmoe-next").wait_for()


def test_a_limit_is_told_though_it_speaks_of_diagnosis(visit: Visiting, server: ServerProcess) -> None:
    opened = visit(server.url)
    page = opened.page
    card = "# a\n\nResearch software, not a medical device. Never tried for the diagnosis of children. No pause"
    page.route("**/v1/model-card", lambda route: route.fulfill(body=card))
    page.reload()
    text = page.locator("#purpose-text")
    text.wait_for()
    assert "Never tried for the diagnosis of children. No pause" in text.inner_text()
    assert "medical device" not in text.inner_text()


def test_a_model_without_named_kinds_is_given_none(visit: Visiting, server: ServerProcess) -> None:
    page = visit(server.url).page
    page.route("**/v1/metadata", lambda route: fulfil(route, {"expert_domains": []}))
    page.reload()
    page.locator("#purpose-text").wait_for()
    assert "Kinds of image" not in page.locator("#purpose-text").inner_text()


def test_batches_are_followed_past_a_failure(visit: Visiting, server: ServerProcess) -> None:
    opened = visit(server.url)
    page = opened.page
    looks: list[int] = []

    def batches(route: Any) -> None:
        looks.append(1)
        if len(looks) == 2:
            route.abort()
        else:
            route.fulfill(json={"data": [BATCH | {"status": "in_progress" if len(looks) == 1 else "completed"}]})

    page.route("**/v1/metadata", lambda route: fulfil(route, {"batches": True}))
    page.route("**/v1/batches*", batches)
    page.clock.install()
    page.reload()
    page.locator("#batches td", has_text="in progress").wait_for()
    while not page.locator("#batches td", has_text="completed").is_visible():
        page.clock.fast_forward(5000)
        page.wait_for_timeout(20)
    assert len(looks) == 3


def fulfil(route: Any, fields: dict[str, Any]) -> None:
    """Answer as the service does, but for `fields`."""
    fetched = route.fetch()
    route.fulfill(response=fetched, json=fetched.json() | fields)
