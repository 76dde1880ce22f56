"""Check what the page tells a person: the model's purpose, plain sentences, and that a phone shows the answer."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from medmoe.server.batches import errors as batch_errors
from medmoe.server.engine.deployment import rollout_errors
from medmoe.server.http.error_table import HTTP_MEANING
from tests.browser.conftest import Screenshot, Visit, Visiting
from tests.support.service.server_process import ServerProcess

pytestmark = pytest.mark.timeout(600)

PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}


def change(visit: Visit, route: str, **fields: Any) -> None:
    """Replace fields of the service's answers on their way to the page."""

    def changed(handled: Any) -> None:
        fetched = handled.fetch()
        handled.fulfill(response=fetched, json=fetched.json() | fields)

    visit.page.route(f"**/{route}", changed)


def test_the_models_purpose_and_limits_are_its_own(visit: Visiting, server: ServerProcess) -> None:
    page = visit(server.url).page
    purpose = page.locator("#purpose-text")
    purpose.wait_for()
    text = purpose.text_content() or ""
    assert text.startswith("medmoe-tiny. A small demonstration model, not for real images.")
    assert "often wrong" in text
    assert "short English question" in text
    assert text.endswith("Kinds of image: CT, MRI, X-ray, pathology.")
    # The page's own notice says this already.
    assert "medical device" not in text


def test_the_model_card_is_rendered(visit: Visiting, server: ServerProcess) -> None:
    page = visit(server.url).page
    page.get_by_role("button", name="Model card").click()
    card = page.get_by_role("dialog")
    card.get_by_role("heading", name="What it saw").wait_for()
    assert card.get_by_role("columnheader", name="licence").first.is_visible()
    assert "**" not in card.inner_text()
    assert "## " not in card.inner_text()
    page.keyboard.press("Escape")
    assert card.is_hidden()


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"label_mass": 0.004, "margin": 0.5}, "None of these."),
        ({"label_mass": 0.9, "margin": 0.05, "abstained": False}, "The model is unsure."),
        ({"label_mass": 0.9, "margin": 0.6, "abstained": False}, "Clearly before"),
    ],
    ids=["something_else", "unsure", "clear"],
)
def test_a_classification_is_judged_in_one_sentence(
    visit: Visiting, server: ServerProcess, photograph: Path, fields: dict[str, Any], said: str
) -> None:
    opened = visit(server.url)
    change(opened, "v1/classify", **fields)
    opened.choose(photograph)
    opened.to_classify("CT", "MRI")
    opened.classify()
    assert said in opened.page.locator("#result .result-body").inner_text()
    assert not opened.page.get_by_text("label mass", exact=True).is_visible()


@pytest.mark.parametrize("task", ["ask", "classify"])
def test_an_image_unlike_training_is_said_to_be_one(
    visit: Visiting, server: ServerProcess, photograph: Path, task: str, screenshot: Screenshot
) -> None:
    opened = visit(server.url)
    page = opened.page
    note = {"score": 3.1, "threshold": 1.0, "flagged": True}
    if task == "classify":
        change(opened, "v1/classify", unlike_training=note, abstained=True)
    else:
        answer = {"unlike_training": note, "abstained": True}
        page.route("**/v1/vqa", lambda route: flagged(route, answer))
    opened.choose(photograph)
    if task == "classify":
        opened.to_classify("CT", "MRI")
        opened.classify()
    else:
        opened.ask()
        opened.finished()
    cautions = page.locator("#result .result-body .banner")
    assert cautions.count() == 1
    assert (cautions.text_content() or "").startswith("Unlike the training images.")
    assert "unlike training" in page.locator("#entries").inner_text()
    screenshot(opened, f"15-unlike-{task}")


def flagged(route: Any, fields: dict[str, Any]) -> None:
    """Change the last event of a stream."""
    fetched = route.fetch()
    events = fetched.text().split("\n\n")
    whole = json.loads(events[-3].removeprefix("data: ")) | fields
    events[-3] = f"data: {json.dumps(whole)}"
    route.fulfill(response=fetched, body="\n\n".join(events))


def test_a_setting_is_named_to_operators_only(visit: Visiting, server: ServerProcess, photograph: Path) -> None:
    opened = visit(server.url)
    page = opened.page
    error = {
        "type": "invalid_request_error", "code": "burned_in_annotation", "param": "image", "request_id": "a" * 32,
        "message": "The DICOM file says that text is burned into its image (MEDMOE_DICOM_BURNED_IN).",
    }  # fmt: skip
    page.route("**/v1/render", lambda route: route.fulfill(status=422, json={"error": error}))
    page.set_input_files("#file", str(photograph))
    page.get_by_text("Choose an image without text in it.").wait_for()
    assert "MEDMOE" not in page.locator("#problem").inner_text()
    page.locator("#problem summary").click()
    assert "MEDMOE_DICOM_BURNED_IN" in page.locator("#problem").inner_text()


ELSEWHERE = (rollout_errors.__name__, batch_errors.__name__)
"""Modules with the errors of routes that the page does not ask."""
FOR_PROGRAMS = ("/v1/", "/health", "=true", "timeout_ms", "Retry-After", "MEDMOE_")
SPECIAL = (
    ("missing_slices", "Numbers of slices are missing; send all slices, or allow_irregular=true."),
    ("not_a_volume", "A series of one slice is no volume; ask with /v1/vqa or /v1/classify."),
    ("unsupported_image", "File 2: a series consists of DICOM files; ask about other images with /v1/vqa."),
    ("unsupported_image", "The image is NIfTI; save the slice as PNG, or its scan as DICOM files for POST /v1/series."),
)


def told() -> Iterator[tuple[str, str]]:
    """Yield the code and the message of every error that the service names."""
    for kind, spec in HTTP_MEANING.items():
        own = getattr(kind, "default_message", "")
        message = spec.message or (own and f"{own[:1].upper()}{own[1:]}.")
        if message and kind.__module__ not in ELSEWHERE:
            yield spec.code, message
    yield from SPECIAL


def test_no_problem_is_told_in_words_for_programs(visit: Visiting, server: ServerProcess) -> None:
    page = visit(server.url).page
    errors = [{"code": code, "message": message, "param": None, "retryAfter": None} for code, message in told()]
    assert len(errors) > 50
    happened = page.evaluate(
        """async (errors) => {
            const { inPlainWords } = await import("./page/answer/advice.js");
            return errors.map((error) => inPlainWords(error).happened);
        }""",
        errors,
    )
    for text in happened:
        assert text.endswith((".", "?"))
        assert not [word for word in FOR_PROGRAMS if word in text], text


def test_a_series_of_other_files_is_refused_with_advice_of_its_own(
    visit: Visiting, server: ServerProcess, photograph: Path
) -> None:
    opened = visit(server.url)
    opened.page.set_input_files("#file", [str(photograph), str(photograph)])
    opened.page.locator("#problem").wait_for()
    text = opened.page.locator("#problem").inner_text()
    assert "a series consists of DICOM files." in text
    assert "DICOM files of one series" in text


def test_no_label_is_broken_in_a_table(visit: Visiting, server: ServerProcess, photograph: Path) -> None:
    opened = visit(server.url)
    opened.choose(photograph)
    opened.to_classify("pneumonia", "cardiomegaly")
    opened.page.select_option("#mode", "multi_label")
    opened.classify()
    cells = opened.page.locator(".probabilities tbody th").all()
    assert len(cells) == 2
    for cell in cells:
        lines = cell.evaluate(
            "cell => { const range = document.createRange(); range.selectNodeContents(cell);"
            " return range.getClientRects().length; }"
        )
        assert lines == 1


def test_no_call_is_offered_before_it_would_work(visit: Visiting, server: ServerProcess, photograph: Path) -> None:
    opened = visit(server.url)
    page = opened.page
    assert page.locator("#same-call").is_hidden()
    opened.choose(photograph)
    assert page.locator("#same-call").is_hidden()
    page.fill("#question", "What?")
    assert page.locator("#same-call").is_visible()
    page.get_by_role("radio", name="Classify").check()
    assert page.locator("#same-call").is_hidden()


@pytest.mark.parametrize("task", ["ask", "classify"])
def test_on_a_phone_the_answer_comes_into_view(
    visit: Visiting, server: ServerProcess, photograph: Path, task: str, screenshot: Screenshot
) -> None:
    opened = visit(server.url, reduced_motion="reduce", **PHONE)
    page = opened.page
    opened.choose(photograph)
    if task == "ask":
        opened.ask()
        opened.finished()
    else:
        opened.to_classify("CT", "MRI")
        opened.classify()
    box, notice = page.locator("p.answer").bounding_box(), page.locator(".notice").bounding_box()
    assert box is not None
    assert notice is not None
    assert notice["y"] + notice["height"] <= box["y"]
    assert box["y"] + box["height"] <= PHONE["viewport"]["height"]  # type: ignore[index]
    screenshot(opened, f"14-phone-{task}", whole=False)
