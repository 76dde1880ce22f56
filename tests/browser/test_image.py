"""Check how an image is chosen and looked at: samples, drag, wheel, zoom, full screen, one shade."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.browser.conftest import Screenshot, Visit, Visiting
from tests.browser.sample_images import FOLDER, sample_images
from tests.support.images.dicom_files import dicom
from tests.support.service.server_process import ServerProcess

pytestmark = pytest.mark.timeout(600)


def middle(visit: Visit) -> tuple[float, float]:
    box = visit.page.locator("#well").bounding_box()
    assert box is not None
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


def exact(visit: Visit) -> tuple[float, float]:
    return float(visit.page.input_value("#centre-exact")), float(visit.page.input_value("#width-exact"))


def scale(visit: Visit) -> float:
    return float(visit.page.evaluate("new DOMMatrix(getComputedStyle(shown).transform).a"))


def test_the_samples_are_those_that_the_command_draws() -> None:
    for name, content in sample_images().items():
        assert (FOLDER / name).read_bytes() == content, name


@pytest.mark.parametrize(
    ("name", "facts"),
    [("CT", "PNG, 320"), ("X-ray", "PNG, 320"), ("DICOM slices", "DICOM, 160 \u00d7 160 pixels, 6 frames")],
)
def test_a_sample_is_shown_with_one_click_and_asked_about_with_another(
    visit: Visiting, server: ServerProcess, name: str, facts: str, screenshot: Screenshot
) -> None:
    opened = visit(server.url)
    page = opened.page
    page.locator("[data-light=good]").wait_for()
    page.get_by_role("button", name=name, exact=True).click()
    page.locator("#shown").wait_for()
    assert (page.locator("#facts").text_content() or "").startswith(facts)
    page.locator("#questions button").first.click()
    opened.finished()
    screenshot(opened, f"11-sample-{name}")


def test_an_example_of_labels_classifies_with_one_click(
    visit: Visiting, server: ServerProcess, photograph: Path
) -> None:
    opened = visit(server.url)
    opened.choose(photograph)
    opened.to_classify()
    opened.page.locator("#sets button").first.click()
    opened.finished()
    assert opened.page.locator(".probabilities tbody tr").count() == opened.page.locator("#labels li").count()


def test_drag_moves_the_window(visit: Visiting, server: ServerProcess, ct: Path) -> None:
    opened = visit(server.url)
    page = opened.page
    opened.choose(ct)
    x, y = middle(opened)
    before, seen = exact(opened), page.locator("#shown").get_attribute("src")
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 40, y + 30, steps=3)
    page.mouse.up()
    opened.rendered()
    centre, width = exact(opened)
    assert centre > before[0]
    assert width > before[1]
    assert page.locator("#shown").get_attribute("src") != seen
    page.fill("#question", "What?")
    assert f"window={centre:g}/{width:g}" in opened.call()


def test_the_wheel_turns_frames_which_people_count_from_one(visit: Visiting, server: ServerProcess, ct: Path) -> None:
    opened = visit(server.url)
    page = opened.page
    opened.choose(ct)
    number = page.locator("#frame-number")
    assert number.text_content() == "1 of 3"
    page.mouse.move(*middle(opened))
    for expected in ("2 of 3", "3 of 3", "3 of 3"):
        page.mouse.wheel(0, 100)
        page.wait_for_timeout(50)
        page.locator("#frame-number", has_text=expected).wait_for()
    opened.rendered()
    assert number.text_content() == "3 of 3"
    assert (page.locator("#viewer-caption").text_content() or "").startswith("Frame 3 of 3")
    page.fill("#question", "What?")
    assert "frame=2" in opened.call()
    assert page.evaluate("scrollY") == 0


def test_zoom_moves_and_fits_again(visit: Visiting, server: ServerProcess, photograph: Path) -> None:
    opened = visit(server.url)
    page = opened.page
    opened.choose(photograph)
    assert scale(opened) == 1
    assert page.get_by_role("button", name="Zoom out").is_disabled()
    page.get_by_role("button", name="Zoom in").click()
    page.mouse.move(*middle(opened))
    page.keyboard.down("Control")
    page.mouse.wheel(0, -100)
    page.keyboard.up("Control")
    page.wait_for_function("new DOMMatrix(getComputedStyle(shown).transform).a > 1.5")
    page.mouse.down()
    x, y = middle(opened)
    page.mouse.move(x + 30, y)
    page.mouse.up()
    assert page.evaluate("new DOMMatrix(getComputedStyle(shown).transform).e") > 0
    page.get_by_role("button", name="Whole image").click()
    assert scale(opened) == 1
    # One frame: the wheel scrolls the page.
    page.mouse.wheel(0, 100)
    page.wait_for_timeout(100)
    assert scale(opened) == 1


def test_the_keyboard_moves_an_enlarged_image(visit: Visiting, server: ServerProcess, photograph: Path) -> None:
    opened = visit(server.url)
    page = opened.page
    opened.choose(photograph)
    offset = "() => { const at = new DOMMatrix(getComputedStyle(shown).transform); return [at.e, at.f]; }"
    page.get_by_role("button", name="Zoom in").focus()
    page.keyboard.press("Enter")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowUp")
    across, down = page.evaluate(offset)
    assert across < 0 < down
    page.keyboard.press("ArrowLeft")
    assert page.evaluate(offset) == [0, down]
    # The button that was pressed is no longer of use; the next one has the hand.
    page.get_by_role("button", name="Whole image").focus()
    page.keyboard.press("Enter")
    assert scale(opened) == 1
    assert page.evaluate("document.activeElement.id") == "zoom-in"
    while not page.get_by_role("button", name="Zoom in").is_disabled():
        page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "zoom-out"


def test_the_image_fills_the_screen_and_comes_back(visit: Visiting, server: ServerProcess, ct: Path) -> None:
    opened = visit(server.url)
    page = opened.page
    opened.choose(ct)
    button = page.get_by_role("button", name="Full screen")
    button.click()
    page.wait_for_function("document.fullscreenElement?.id === 'well'")
    # A frame later the page is told.
    page.locator("#full-screen[aria-pressed=true]").wait_for()
    button.click()
    page.wait_for_function("document.fullscreenElement === null")


def test_nothing_of_the_image_before_is_told_of_one_that_is_not_shown(
    visit: Visiting, server: ServerProcess, ct: Path, tmp_path: Path
) -> None:
    Image.fromarray(np.full((64, 64), 7, np.uint8)).save(tmp_path / "black.png")
    opened = visit(server.url)
    page = opened.page
    opened.choose(ct)
    page.set_input_files("#file", str(tmp_path / "black.png"))
    page.locator("#problem h3", has_text="comes out as one shade").wait_for()
    assert "DICOM" not in page.locator("#about").inner_text()
    assert "Wheel" not in page.locator("#about").inner_text()


def test_an_image_of_one_shade_is_shown_only_when_one_insists(
    visit: Visiting, server: ServerProcess, tmp_path: Path, screenshot: Screenshot
) -> None:
    file = io.BytesIO()
    Image.fromarray(np.full((64, 64), 7, np.uint8)).save(file, format="PNG")
    (tmp_path / "black.png").write_bytes(file.getvalue())
    opened = visit(server.url)
    page = opened.page
    page.set_input_files("#file", str(tmp_path / "black.png"))
    page.locator("#problem h3", has_text="comes out as one shade").wait_for()
    assert page.locator("#shown").is_hidden()
    screenshot(opened, "12-uniform", whole=False)
    page.get_by_role("button", name="Show it all the same").click()
    page.locator("#shown").wait_for()
    opened.ask()
    opened.finished()
    assert "allow_uniform=true" in opened.call()


def paste(visit: Visit, field: str, *, text: str | None) -> None:
    """Paste an image, as a spreadsheet puts it beside `text`."""
    visit.page.evaluate(
        """async ([field, text]) => {
            const transfer = new DataTransfer();
            const drawn = await (await fetch("page/samples/ct.png")).blob();
            transfer.items.add(new File([drawn], "image.png", {type: "image/png"}));
            if (text !== null) transfer.setData("text/plain", text);
            const event = new ClipboardEvent("paste", {clipboardData: transfer, bubbles: true, cancelable: true});
            document.querySelector(field).dispatchEvent(event);
        }""",
        [field, text],
    )


def test_text_from_a_spreadsheet_is_no_image(visit: Visiting, server: ServerProcess, photograph: Path) -> None:
    opened = visit(server.url)
    page = opened.page
    opened.choose(photograph)
    paste(opened, "#question", text="Which organ?")
    page.wait_for_timeout(300)
    assert page.locator("#facts").inner_text().startswith("PNG, 320 \u00d7 240")
    for field, text in (("#question", None), ("body", "Which organ?")):
        opened.choose(photograph)
        paste(opened, field, text=text)
        page.locator("#facts", has_text="320 \u00d7 320").wait_for()


def test_text_can_be_dragged_into_a_field(visit: Visiting, server: ServerProcess) -> None:
    page = visit(server.url).page
    prevented = page.evaluate(
        """["#question", "footer"].map((place) => {
            const transfer = new DataTransfer();
            transfer.setData("text/plain", "Which organ?");
            const event = new DragEvent("dragover", {dataTransfer: transfer, bubbles: true, cancelable: true});
            document.querySelector(place).dispatchEvent(event);
            return event.defaultPrevented;
        })"""
    )
    # Beside the fields a browser would leave the page for a link.
    assert prevented == [False, True]
    assert "over" not in (page.locator("#well").get_attribute("class") or "")


def test_an_empty_number_is_no_zero(visit: Visiting, server: ServerProcess, ct: Path) -> None:
    opened = visit(server.url)
    page = opened.page
    opened.choose(ct)
    page.fill("#question", "What?")
    page.fill("#centre-exact", "")
    page.locator("#width").press("PageUp")
    opened.rendered()
    assert page.input_value("#centre-exact") == "40"
    width = page.input_value("#width-exact")
    assert f"window=40/{width}" in opened.call()
    page.fill("#width-exact", "-5")
    page.locator("#question").click()
    assert page.input_value("#width-exact") == width


def test_a_window_that_the_file_does_not_state_is_not_called_its_own(
    visit: Visiting, server: ServerProcess, tmp_path: Path
) -> None:
    y, x = np.mgrid[-1:1:64j, -1:1:64j]
    (tmp_path / "mr.dcm").write_bytes(dicom((1000 * (1 + x * y)).astype(np.int16), Modality="MR"))
    opened = visit(server.url)
    opened.choose(tmp_path / "mr.dcm")
    assert opened.page.locator("#viewer-caption").inner_text() == "Full range"
    assert "The file states no usable window." in opened.page.locator("#window-note").inner_text()
