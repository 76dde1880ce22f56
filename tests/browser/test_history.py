"""Check the history of an image's questions, and the files that it is saved as."""

import csv
import io
import json
from pathlib import Path

import pytest

from tests.browser.conftest import QUESTION, Screenshot, Visit, Visiting
from tests.support.service.server_process import ServerProcess

pytestmark = pytest.mark.timeout(600)

FORMULA = "=1+1, is it?"


def saved(visit: Visit, kind: str) -> str:
    with visit.page.expect_download() as download:
        visit.page.get_by_role("button", name=f"Save {kind}").click()
    assert download.value.suggested_filename == f"med-moe-answers.{kind.lower()}"
    return Path(download.value.path()).read_text(encoding="utf-8-sig")


def test_every_question_about_an_image_can_be_seen_again_and_saved(
    visit: Visiting, server: ServerProcess, ct: Path, screenshot: Screenshot
) -> None:
    opened = visit(server.url)
    page = opened.page
    opened.choose(ct)
    assert page.locator("#history").is_hidden()
    opened.ask()
    opened.finished()
    first = page.locator("p.answer").text_content()
    page.get_by_role("button", name="lung", exact=True).click()
    page.locator("#frame").press("ArrowRight")
    opened.rendered()
    opened.ask(FORMULA)
    page.locator("#entries li").nth(1).wait_for()
    opened.to_classify("CT", "MRI")
    opened.classify()
    entries = page.locator("#entries li")
    assert entries.count() == 3
    screenshot(opened, "13-history")

    whole = json.loads(saved(opened, "JSON"))
    assert [one["route"] for one in whole] == ["v1/vqa", "v1/vqa", "v1/classify"]
    assert whole[1]["fields"] == {"question": FORMULA, "window": "lung", "frame": 1, "include_routing": True}
    assert whole[0]["response"]["answer"] == first

    rows = list(csv.DictReader(io.StringIO(saved(opened, "CSV"))))
    assert [row["question"] for row in rows] == [QUESTION, f"'{FORMULA}", ""]
    assert [row["frame_from_1"] for row in rows] == ["1", "2", "2"]
    # A spreadsheet would compute -600/1500.
    assert [row["window"] for row in rows] == ["40/400", "'-600/1500", "'-600/1500"]
    assert json.loads(rows[2]["labels"]) == ["CT", "MRI"]
    assert {row["image_sha256"] for row in rows} == {whole[0]["response"]["provenance"]["image_sha256"]}
    assert [row["id"] for row in rows] == [one["response"]["id"] for one in whole]

    # The oldest is last; with its answer come its question, frame and window.
    entries.last.get_by_role("button").click()
    opened.rendered()
    assert page.locator("p.answer").text_content() == first
    assert page.input_value("#question") == QUESTION
    assert page.locator("#frame-number").text_content() == "1 of 3"
    assert page.locator("#presets [aria-pressed=true]").text_content() == "the file's own"
    assert page.locator("#result .stale-note").is_hidden()
    assert entries.count() == 3
