"""Take the screenshot of the page in README: a drawn chest CT, a question, its answer and where the tokens went.

    python -m tests.browser.screenshot [--engine fake] [FILE]

starts the service over the bundled checkpoint, asks in a browser, and writes FILE. The image is drawn.
"""

import argparse
import io
import sys
import tempfile
from pathlib import Path

from PIL import Image

from tests.browser.conftest import BROWSER_ARGUMENTS, PATIENCE_MS, START, browser_path, lacking
from tests.support.images.phantom import chest_ct_file
from tests.support.service.server_process import server_process

FILE = Path(__file__).with_suffix(".png")
QUESTION = "What modality is used to take this image?"
VIEWPORT = {"width": 1240, "height": 1700}
"""Pixels; high enough for everything down to the heat map of experts."""
_MARGIN = 24
_COLOURS = 128


def photograph(url: str) -> Image.Image:
    """Return a screenshot of the page at `url` with a whole answer."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        ct = Path(folder) / "phantom.dcm"
        ct.write_bytes(chest_ct_file())
        browser = playwright.chromium.launch(executable_path=browser_path(), args=BROWSER_ARGUMENTS)
        page = browser.new_context(viewport=VIEWPORT, color_scheme="light").new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.goto(url)
        page.locator("[data-light=good]").wait_for()
        page.set_input_files("#file", str(ct))
        page.locator("#well[aria-busy=false]").wait_for()
        page.fill("#question", QUESTION)
        page.get_by_role("button", name="Ask", exact=True).click()
        page.locator("#result .details").wait_for()
        page.locator(".heat").wait_for()
        # Never the whole page: Chromium without a display has hung on it.
        taken = Image.open(io.BytesIO(page.screenshot(full_page=False, animations="disabled", caret="hide")))
        experts = page.locator("#routing").bounding_box()
        browser.close()
    assert experts is not None
    return taken.convert("RGB").crop((0, 0, taken.width, round(experts["y"] + experts["height"]) + _MARGIN))


def main() -> int:
    parser = argparse.ArgumentParser(description="Take the screenshot of the page in README.")
    parser.add_argument("file", nargs="?", type=Path, default=FILE)
    parser.add_argument("--engine", choices=("vllm", "fake"), default="vllm")
    options = parser.parse_args()
    if (reason := lacking()) is not None:
        print(reason, file=sys.stderr)
        return 1
    with server_process(settings={"MEDMOE_ENGINE": options.engine}) as server:
        server.wait_ready(START)
        taken = photograph(server.url)
    # Few colours are enough, and make a third of the file.
    taken.quantize(_COLOURS, dither=Image.Dither.NONE).save(options.file, optimize=True)
    print(f"{options.file}: {options.file.stat().st_size / 1000:.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
