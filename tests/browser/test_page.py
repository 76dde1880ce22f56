"""Check the page in a real browser: what users do and see, what screen readers announce, and what is sent."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.browser.conftest import PATIENT, QUESTION, Screenshot, Visit, Visiting
from tests.browser.wiretap import wiretap
from tests.support.service.server_process import ServerProcess

pytestmark = pytest.mark.timeout(600)


def percents(visit: Visit, cells: str) -> list[float]:
    texts = visit.page.locator(cells).all_text_contents()
    return [float(re.sub(r"[^\d.]", "", text)) for text in texts]


def test_at_first_it_says_what_it_is_and_what_it_is_not(
    visit: Visiting, server: ServerProcess, screenshot: Screenshot
) -> None:
    opened = visit(server.url)
    page = opened.page
    page.locator("[data-light=good]").wait_for()
    assert page.locator("#served").text_content() == "medmoe-tiny"
    assert page.locator(".notice").is_visible()
    assert page.locator("#stand-in").is_visible()
    assert not page.locator("#key").is_visible()
    screenshot(opened, "1-empty")
    page.mouse.wheel(0, 5000)
    assert page.locator(".notice").is_visible()
    assert (page.locator(".notice").bounding_box() or {}).get("y") == 0


def test_an_answer_comes_word_by_word_with_all_that_belongs_to_it(
    visit: Visiting, server: ServerProcess, photograph: Path, screenshot: Screenshot
) -> None:
    opened = visit(server.url)
    page = opened.page
    opened.choose(photograph)
    assert page.locator("#shown").is_visible()
    assert page.locator("#facts").text_content() == "PNG, 320 \u00d7 240 pixels"
    # To this the fake says several words: of one word nobody sees the middle.
    page.evaluate(
        """() => {
            window.seen = [];
            new MutationObserver(() => {
                const answer = document.querySelector("p.answer")?.textContent;
                if (answer) seen.push([answer, document.querySelector("#ask .stop").checkVisibility()]);
            }).observe(document.getElementById("result"), {characterData: true, childList: true, subtree: true});
        }"""
    )
    opened.ask("What does the image show?")
    page.locator("p.answer:not(:empty)").wait_for()
    screenshot(opened, "2-mid-stream", whole=False)
    opened.finished()
    answer = page.locator("p.answer").text_content() or ""
    begun, could_be_stopped = page.evaluate("seen[0]")
    assert len(begun) < len(answer)
    assert answer.startswith(begun)
    assert could_be_stopped
    assert not page.locator("#ask .stop").is_visible()
    assert page.locator(".confidence .badge").text_content() == "not calibrated"
    assert (page.locator("#announcer").text_content() or "").startswith(f"Answer: {answer}.")
    names = page.locator("#result .facts dt").all_text_contents()
    assert {"image read in", "queued", "engine", "time in all", "tokens in", "tokens out"} <= set(names)
    assert not page.locator(".details dl").first.is_visible()
    page.locator(".details summary").click()
    assert "image sha256" in page.locator(".details dt").all_text_contents()
    screenshot(opened, "3-answered")


def test_the_map_of_experts_is_this_answers_own(visit: Visiting, server: ServerProcess, photograph: Path) -> None:
    opened = visit(server.url)
    page = opened.page
    opened.choose(photograph)
    answers: list[str] = []

    def keep(route: Any) -> None:
        fetched = route.fetch()
        answers.append(fetched.text())
        route.fulfill(response=fetched)

    page.route("**/v1/vqa", keep)
    opened.ask()
    opened.finished()
    events = [line.removeprefix("data: ") for line in answers[0].split("\n\n") if line]
    layers = json.loads(events[-2])["routing"]["layers"]
    heads = page.locator(".heat thead th").all_text_contents()
    assert heads == ["Layer", "CT expert 0", "MRI expert 1", "X-ray expert 2", "pathology expert 3", "In all"]
    rows = page.locator(".heat tbody tr")
    assert rows.count() == len(layers)
    for kinds in (["image", "question", "answer"], ["image", "question"], ["question"]):
        for name, kind in (("Image", "image"), ("Question", "question"), ("Answer", "answer")):
            page.get_by_role("checkbox", name=name).set_checked(kind in kinds)
        for index, layer in enumerate(layers):
            expected = [sum(layer[kind][expert] for kind in kinds) for expert in range(4)]
            shown = rows.nth(index).locator("td .small").all_text_contents()
            assert [int(count) for count in shown] == expected
            assert rows.nth(index).locator(".total").text_content() == str(sum(expected))
    assert "question" in (page.locator(".heat caption").text_content() or "")


def test_stop_ends_the_work_and_keeps_what_came(visit: Visiting, server: ServerProcess, photograph: Path) -> None:
    opened = visit(server.url)
    page = opened.page
    opened.choose(photograph)
    # So hot that hardly any token is the last one.
    page.locator("#ask summary").click()
    page.fill("#ask [name=temperature]", "2")
    page.fill("#ask [name=seed]", "7")
    opened.ask()
    page.locator("p.answer:not(:empty)").wait_for()
    page.get_by_role("button", name="Stop").click()
    page.get_by_text("Stopped.").first.wait_for()
    assert page.locator("p.answer.partial").text_content()
    assert page.locator("#problem").is_hidden()
    page.get_by_role("button", name="Ask", exact=True).wait_for()
    for _ in range(100):
        metrics = httpx.get(f"{server.url}/metrics", timeout=60).text
        if "medmoe_requests_in_flight 0.0" in metrics and "fake:num_requests_running 0" in metrics:
            return
        page.wait_for_timeout(100)
    raise AssertionError("the service still works on what nobody waits for")


def test_labels_are_typed_taken_away_and_compared(
    visit: Visiting, server: ServerProcess, photograph: Path, screenshot: Screenshot
) -> None:
    opened = visit(server.url)
    page = opened.page
    opened.choose(photograph)
    opened.to_classify("CT", "MRI", "ultrasound", "X-ray")
    page.get_by_role("button", name="Remove ultrasound").click()
    opened.classify()
    assert sorted(page.locator(".probabilities tbody th").all_text_contents()) == ["CT", "MRI", "X-ray"]
    found = percents(opened, ".probabilities .share")
    assert found == sorted(found, reverse=True)
    assert sum(found) == pytest.approx(100, abs=1.5)
    assert page.locator("p.answer").text_content() == page.locator(".probabilities .best th").text_content()
    assert {"label mass", "entropy", "margin"} <= set(page.locator("#result .facts dt").all_text_contents())
    assert page.locator("#routing").is_visible()
    screenshot(opened, "4-classified")
    page.locator("#classify summary").click()
    page.select_option("#classify [name=modality]", "CT")
    page.locator("[name=contextual_calibration]").click()
    opened.classify()
    assert "contextual_calibration" in opened.call()
    page.get_by_text("compared with those of images that show nothing").wait_for()
    page.select_option("#classify [name=modality]", "MRI")
    page.select_option("#mode", "choice")
    opened.classify()
    assert "agreement" in (page.locator("#result .details").text_content() or "")
    page.locator(".entry").nth(1).click()
    assert page.locator("[name=contextual_calibration]").is_checked()
    assert [one.input_value() for one in page.locator("[name=modality]").all()] == ["CT", "CT"]
    page.get_by_role("button", name="liver").wait_for()
    page.locator(".entry").nth(2).click()
    assert not page.locator("[name=contextual_calibration]").is_checked()
    assert page.locator("#mode").input_value() == "likelihood"
    page.select_option("#mode", "multi_label")
    opened.classify()
    page.get_by_role("columnheader", name="Present").wait_for()
    assert '"multi_label"' in opened.call() or "mode=multi_label" in opened.call()


def test_an_unsure_answer_is_said_to_be_one(visit: Visiting, server: ServerProcess, photograph: Path) -> None:
    opened = visit(server.url)
    page = opened.page
    opened.choose(photograph)
    page.locator("#ask summary").click()
    # One that no share is rounded to.
    page.fill("#ask [name=min_confidence]", "0.9995")
    opened.ask()
    opened.finished()
    assert page.locator("#result .caution strong").text_content() == "Abstained."
    assert "Less sure than 99.95 %" in page.locator("#result .banner.caution").inner_text()
    assert (page.locator("#announcer").text_content() or "").startswith("Abstained.")


def test_a_calibration_is_shown_with_what_it_did(visit: Visiting, server: ServerProcess, photograph: Path) -> None:
    """Add a calibration to answers on their way to the page: the engine here has none."""
    note = {
        "method": "temperature", "temperature": 1.7, "datasets": ["a set"], "split": "val", "fitted_on": 500,
        "held_out": 100, "ece_before": 0.21, "ece_after": 0.04,
    }  # fmt: skip
    opened = visit(server.url)
    page = opened.page

    def calibrated(route: Any) -> None:
        fetched = route.fetch()
        route.fulfill(response=fetched, json=fetched.json() | {"calibration": note})

    page.route("**/v1/classify", calibrated)
    opened.choose(photograph)
    opened.to_classify("CT", "MRI")
    opened.classify()
    assert page.locator("#result .badge").text_content() == "calibrated"
    text = page.locator(".details").text_content() or ""
    for part in ("temperature 1.7", "500 samples of a set (val)", "21 % before, 4 % after, on 100 other samples"):
        assert part in text


def test_a_dicom_file_has_frames_and_a_window_that_moves(
    visit: Visiting, server: ServerProcess, ct: Path, screenshot: Screenshot
) -> None:
    opened = visit(server.url)
    page = opened.page
    opened.choose(ct)
    shown = page.locator("#shown")
    assert page.locator("#facts").text_content() == "DICOM, 128 \u00d7 128 pixels, 3 frames"
    assert (page.input_value("#centre-exact"), page.input_value("#width-exact")) == ("40", "400")
    page.fill("#question", QUESTION)
    seen = [shown.get_attribute("src")]

    def next_image() -> None:
        page.wait_for_timeout(300)
        page.locator("#well[aria-busy=false]").wait_for()
        seen.append(shown.get_attribute("src"))
        assert seen[-1] != seen[-2]

    page.get_by_role("button", name="lung").click()
    next_image()
    assert (page.input_value("#centre-exact"), page.input_value("#width-exact")) == ("-600", "1500")
    assert "window=lung" in opened.call()
    page.locator("#centre").press("PageUp")
    next_image()
    moved = page.input_value("#centre-exact")
    assert float(moved) > -600
    assert f"window={moved}/1500" in opened.call()
    page.fill("#width-exact", "300.5")
    next_image()
    assert f"window={moved}/300.5" in opened.call()
    page.locator("#frame").press("ArrowRight")
    next_image()
    assert "frame=1" in opened.call()
    screenshot(opened, "5-dicom")
    page.get_by_role("radio", name="As the model sees it").check()
    next_image()
    opened.ask()
    opened.finished()
    told = page.locator(".details").text_content() or ""
    assert f'"centre":{moved},"width":300.5' in told
    assert re.search(r"frame1(?!\d)", told)


def test_an_image_is_dropped_anywhere(visit: Visiting, server: ServerProcess, photograph: Path) -> None:
    opened = visit(server.url)
    page = opened.page
    data = list(photograph.read_bytes())
    transfer = page.evaluate_handle(
        """([data, name]) => {
            const transfer = new DataTransfer();
            transfer.items.add(new File([new Uint8Array(data)], name));
            return transfer;
        }""",
        [data, photograph.name],
    )
    page.dispatch_event("footer", "drop", {"dataTransfer": transfer})
    page.locator("#shown").wait_for()
    page.get_by_role("button", name="Remove", exact=True).click()
    assert page.locator("#invitation").is_visible()
    assert page.locator("#shown").is_hidden()


def test_what_is_refused_is_told_in_the_services_words(
    visit: Visiting, server: ServerProcess, photograph: Path, broken: Path, screenshot: Screenshot
) -> None:
    opened = visit(server.url)
    page = opened.page
    page.set_input_files("#file", str(broken))
    problem = page.locator("#problem")
    problem.wait_for()
    text = problem.text_content() or ""
    for part in ("damaged or truncated.", "Choose another image", "invalid_request_error", "unreadable_image"):
        assert part in text
    assert page.evaluate("document.activeElement.id") == "problem"
    # One sentence and what to do; the rest is folded.
    assert not page.get_by_text("unreadable_image").is_visible()
    page.locator("#problem summary").click()
    assert page.get_by_text("unreadable_image").is_visible()
    assert re.search(r"request id[0-9a-f]{32}", text)
    screenshot(opened, "6-problem", whole=False)
    opened.choose(photograph)
    assert problem.is_hidden()
    page.locator("#ask summary").click()
    page.fill("#ask [name=temperature]", "9")
    opened.ask()
    problem.wait_for()
    assert "temperature" in (problem.text_content() or "")


def test_what_is_missing_is_said_where_it_is_missing(visit: Visiting, server: ServerProcess, photograph: Path) -> None:
    opened = visit(server.url)
    page = opened.page
    page.get_by_role("button", name="Ask", exact=True).click()
    assert "Choose an image first." in (page.locator("#problem").text_content() or "")
    assert page.evaluate("document.activeElement.id") == "file"
    opened.choose(photograph)
    page.get_by_role("button", name="Ask", exact=True).click()
    assert page.evaluate("document.activeElement.id") == "question"
    assert not [sent for sent in opened.sent if sent.url.endswith("/v1/vqa")]


def test_a_service_that_is_away_is_said_to_be(visit: Visiting, server: ServerProcess, photograph: Path) -> None:
    opened = visit(server.url)
    opened.choose(photograph)
    opened.page.route("**/v1/vqa", lambda route: route.abort())
    opened.ask()
    opened.page.get_by_text("The service cannot be reached").wait_for()


def test_the_keyboard_is_enough(visit: Visiting, server: ServerProcess, photograph: Path) -> None:
    opened = visit(server.url)
    page = opened.page
    page.on("filechooser", lambda chooser: chooser.set_files(str(photograph)))
    page.locator("[data-light=good]").wait_for()

    def tab_to(identity: str) -> None:
        for _ in range(60):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.id || document.activeElement.textContent") == identity:
                assert page.evaluate("document.activeElement.matches(':focus-visible')")
                return
        raise AssertionError(f"{identity} cannot be reached")

    tab_to("Skip to the question")
    tab_to("theme")
    page.keyboard.press("ArrowDown")
    assert page.input_value("#theme") == "light"
    tab_to("file")
    page.keyboard.press("Space")
    page.locator("#shown").wait_for()
    tab_to("question")
    page.keyboard.type(QUESTION)
    page.keyboard.press("Enter")
    opened.finished()
    assert page.evaluate("document.activeElement.id") == "question"
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("ArrowRight")
    assert page.locator("#classify").is_visible()
    tab_to("label")
    for label in ("CT", "MRI"):
        page.keyboard.type(label)
        page.keyboard.press("Enter")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    assert page.locator("#labels li").count() == 1


@pytest.mark.parametrize("kind", ["curl", "Python"])
def test_the_same_call_gives_the_same_answer(
    visit: Visiting, server: ServerProcess, ct: Path, tmp_path: Path, kind: str
) -> None:
    opened = visit(server.url)
    page = opened.page
    opened.choose(ct)
    page.get_by_role("button", name="bone").click()
    opened.ask("@/etc/passwd; is it 'left' or \"right\" of the $HEART, \\ and `why`?")
    opened.finished()
    page.get_by_role("radio", name=kind).check()
    (tmp_path / "image.dcm").write_bytes(ct.read_bytes())
    command = ["bash", "-c", opened.call()] if kind == "curl" else [sys.executable, "-c", opened.call()]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    answer = json.loads(done.stdout)["answer"] if kind == "curl" else done.stdout.strip()
    assert answer == page.locator("p.answer").text_content()
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy").click()
    assert page.evaluate("navigator.clipboard.readText()") == opened.call()


def test_no_name_leaves_the_page_and_nothing_is_kept(visit: Visiting, server: ServerProcess, ct: Path) -> None:
    with wiretap(server.url) as tap:
        opened = visit(tap.url)
        page = opened.page
        opened.choose(ct)
        opened.ask()
        opened.finished()
        opened.to_classify("CT", "MRI")
        opened.classify()
    assert tap.sent.count(ct.read_bytes()) == 3
    assert PATIENT.encode() not in tap.sent
    assert re.findall(rb'filename="([^"]*)"', tap.sent) == [b"image"] * 3
    assert b"cookie:" not in tap.sent.lower()
    assert PATIENT not in page.content()
    kept = "[localStorage.length, sessionStorage.length, document.cookie, (await indexedDB.databases()).length]"
    assert page.evaluate(f"(async () => {kept})()") == [0, 0, "", 0]
    assert "?" not in page.url
