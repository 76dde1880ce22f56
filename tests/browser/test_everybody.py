"""Check the page's accessibility with axe: every state, both themes, desktop and phone, reduced motion."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser.conftest import Screenshot, Visit, Visiting
from tests.support.service.server_process import ServerProcess

pytestmark = pytest.mark.timeout(600)

PHONE = {"viewport": {"width": 360, "height": 740}, "is_mobile": True, "has_touch": True}
DESK: dict[str, Any] = {}
GRAVE = {"serious", "critical"}


def states(visit: Visit, *, photograph: Path, ct: Path, broken: Path) -> Iterator[str]:
    """Yield the name of each state after bringing one page into it."""
    page = visit.page
    page.locator("[data-light=good]").wait_for()
    yield "empty"
    page.set_input_files("#file", str(broken))
    page.locator("#problem").wait_for()
    yield "problem"
    visit.choose(ct)
    yield "dicom"
    page.locator("#ask summary").click()
    page.fill("#ask [name=min_confidence]", "1")
    visit.ask()
    page.locator("p.answer:not(:empty)").wait_for()
    yield "streaming"
    visit.finished()
    page.locator(".details summary").click()
    yield "answered"
    page.get_by_role("button", name="lung").click()
    visit.rendered()
    yield "stale"
    page.get_by_role("button", name="Model card").click()
    yield "card"
    page.get_by_role("button", name="Close").click()
    visit.choose(photograph)
    visit.to_classify("CT", "MRI", "X-ray")
    page.select_option("#mode", "multi_label")
    visit.classify()
    yield "classified"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("device", [DESK, PHONE], ids=["desk", "phone"])
def test_axe_finds_nothing_grave_in_any_state(
    visit: Visiting, server: ServerProcess, photograph: Path, ct: Path, broken: Path, device: Any, scheme: str,
    screenshot: Screenshot,
) -> None:  # fmt: skip
    from axe_playwright_python.sync_playwright import Axe

    opened = visit(server.url, color_scheme=scheme, reduced_motion="reduce", **device)
    name = "phone" if device else "desk"
    for state in states(opened, photograph=photograph, ct=ct, broken=broken):
        found = Axe().run(opened.page).response["violations"]
        grave = [(one["id"], [node["html"] for node in one["nodes"]]) for one in found if one["impact"] in GRAVE]
        assert not grave, state
        screenshot(opened, f"7-{name}-{scheme}-{state}")
        wide = opened.page.evaluate("document.documentElement.scrollWidth")
        assert wide <= opened.page.viewport_size["width"], state  # type: ignore[index]


def test_no_word_is_too_long_for_a_narrow_screen(visit: Visiting, server: ServerProcess, ct: Path) -> None:
    """At 400 % a screen of 1280 pixels has 320 (WCAG 1.4.10)."""
    opened = visit(server.url, viewport={"width": 320, "height": 640}, reduced_motion="reduce")
    page = opened.page
    word = "hypercholesterolaemia" * 5
    opened.choose(ct)
    opened.ask(word)
    opened.finished()
    _fits(page)
    opened.to_classify(word, "normal")
    opened.classify()
    _fits(page)
    page.select_option("#mode", "multi_label")
    opened.classify()
    _fits(page)


def _fits(page: Any) -> None:
    assert page.evaluate("document.documentElement.scrollWidth") == page.viewport_size["width"]


def test_what_is_chosen_is_seen_without_colours_of_the_page(visit: Visiting, server: ServerProcess, ct: Path) -> None:
    opened = visit(server.url, forced_colors="active")
    page = opened.page
    opened.choose(ct)
    background = "node => getComputedStyle(node).backgroundColor"
    for chosen, other in (
        ("#task .switch :checked + span", "#task .switch :not(:checked) + span"),
        ("#presets [aria-pressed=true]", "#presets [aria-pressed=false]"),
    ):
        colours = [page.locator(one).first.evaluate(background) for one in (chosen, other, "body")]
        assert colours[0] not in colours[1:]


@pytest.mark.parametrize(("scheme", "other"), [("light", "dark"), ("dark", "light")])
def test_the_theme_is_the_systems_until_somebody_chooses(
    visit: Visiting, server: ServerProcess, scheme: str, other: str
) -> None:
    page = visit(server.url, color_scheme=scheme).page
    assert page.input_value("#theme") == "system"
    paper = _paper(page)
    page.emulate_media(color_scheme=other)
    turned = _paper(page)
    assert turned != paper
    page.select_option("#theme", scheme)
    assert _paper(page) == paper
    page.select_option("#theme", "system")
    assert _paper(page) == turned
    page.select_option("#theme", scheme)
    page.reload()
    page.locator("[data-light=good]").wait_for()
    # Not kept, as nothing is.
    assert _paper(page) == turned


def _paper(page: Any) -> str:
    return str(page.evaluate("getComputedStyle(document.body).backgroundColor"))


def test_less_motion_is_none(visit: Visiting, server: ServerProcess, photograph: Path) -> None:
    opened = visit(server.url, reduced_motion="reduce")
    opened.choose(photograph)
    opened.page.evaluate(
        """() => {
            window.moving = [];
            new MutationObserver(() => {
                if (document.querySelector("p.answer.coming")) moving.push(document.getAnimations().length);
            }).observe(document.getElementById("result"), {attributes: true, childList: true, subtree: true});
        }"""
    )
    opened.ask()
    opened.finished()
    assert set(opened.page.evaluate("moving")) == {0}


def test_what_happens_is_announced(visit: Visiting, server: ServerProcess, photograph: Path) -> None:
    opened = visit(server.url)
    page = opened.page
    page.evaluate(
        """() => {
            window.heard = [];
            const announcer = document.getElementById("announcer");
            new MutationObserver(() => heard.push(announcer.textContent)).observe(announcer, {childList: true});
        }"""
    )
    opened.choose(photograph)
    opened.ask()
    opened.finished()
    heard = page.evaluate("heard")
    assert heard[0] == "The image is read: PNG, 320 \u00d7 240 pixels."
    assert heard[1] == "Answering. Stop ends it."
    # Once, and whole: not word by word.
    assert len(heard) == 3
    assert heard[2].startswith("Answer: ")
    assert heard[2].endswith("%, not calibrated.")
