"""A real browser before a real server process with the fake engine.

Without Playwright, axe or a Chromium these tests are skipped, and say what they lack: `make browser` installs the first
two, the system's package manager the third. PAGE_SCREENSHOTS=FOLDER keeps what they see for a person to look at.
"""

import io
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from medmoe.server.auth.key_file import new_key
from tests.support.images.dicom_files import dicom
from tests.support.service.server_process import ServerProcess, server_process

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

START = 300.0
PATIENCE_MS = 90_000
"""Milliseconds that a test waits for an element."""
TOKEN_SECONDS = 0.3
"""Seconds between two tokens, so that a test sees an answer while it is generated."""
_CHROMIUMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
BROWSER_ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
QUESTION = "Which organs are shown?"
Visiting = Callable[..., "Visit"]
Screenshot = Callable[..., None]
PATIENT = "doe_jane_1961-03-04"
"""Part of the name of every chosen file; nothing that leaves the page may contain it."""


def lacking() -> str | None:
    """Return what these tests need and this machine lacks, or None."""
    for module in ("playwright", "axe_playwright_python"):
        if find_spec(module) is None:
            return f"{module} is not installed; `make browser` installs it and runs these tests"
    if browser_path() is None:
        return "no Chromium on this machine (Debian: apt-get install chromium)"
    return None


def browser_path() -> str | None:
    """Return the path of the system's Chromium."""
    return next(filter(None, map(shutil.which, _CHROMIUMS)), None)


@dataclass(kw_only=True, slots=True)
class Visit:
    """Hold an opened page, its requests and its console errors."""

    page: "Page"
    url: str
    sent: list[Any] = field(default_factory=list)
    """Every request."""
    said: list[str] = field(default_factory=list)
    """Console errors, except those that repeat a response's status."""

    def choose(self, file: Path) -> None:
        # Until the file is taken, the page still is what it was before.
        self.page.locator("#well").evaluate("well => well.setAttribute('aria-busy', 'true')")
        self.page.set_input_files("#file", str(file))
        self.page.locator("#well[aria-busy=false]").wait_for()

    def finished(self) -> None:
        """Wait for the whole answer."""
        self.page.locator("#result .details").wait_for()

    def ask(self, question: str = QUESTION) -> None:
        self.page.fill("#question", question)
        self.page.get_by_role("button", name="Ask", exact=True).click()

    def to_classify(self, *labels: str) -> None:
        self.page.get_by_role("radio", name="Classify").check()
        for label in labels:
            self.page.locator("#label").press_sequentially(label)
            self.page.keyboard.press("Enter")

    def classify(self) -> None:
        self.page.get_by_role("button", name="Classify", exact=True).click()
        self.finished()

    def call(self) -> str:
        """Return the snippet of the same call."""
        return self.page.locator("#call").text_content() or ""

    def rendered(self) -> None:
        """Wait until the image is what the sliders say."""
        self.page.wait_for_timeout(200)
        self.page.locator("#well[aria-busy=false]").wait_for()


@pytest.fixture(scope="session")
def browser() -> "Iterator[Browser]":
    if (reason := lacking()) is not None:
        pytest.skip(reason)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=browser_path(), args=BROWSER_ARGUMENTS)
        yield launched
        launched.close()


@pytest.fixture(scope="session")
def server(browser: "Browser") -> Iterator[ServerProcess]:
    """Start a fake engine with the bundled checkpoint's shapes. `browser` is requested to be skipped with it."""
    arguments = ("-m", "tests.support.service.mortal_engine", "--delay", str(TOKEN_SECONDS))
    with server_process(arguments=arguments, settings={"MEDMOE_ENGINE": "fake"}) as started:
        started.wait_ready(START)
        yield started


@dataclass(kw_only=True, slots=True)
class Guarded:
    """Hold a server that requires an API key, and the key."""

    url: str
    key: str


@pytest.fixture(scope="session")
def guarded(browser: "Browser", tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    key, line = new_key("ward")
    keys = tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text(line)
    with server_process(settings={"MEDMOE_ENGINE": "fake", "MEDMOE_API_KEYS": str(keys)}) as started:
        started.wait_ready(START)
        yield Guarded(url=started.url, key=key)


@pytest.fixture
def visit(browser: "Browser") -> Iterator[Callable[..., Visit]]:
    """Return `visit(url, color_scheme="dark", viewport=...)`; fail at the end if a page had an error."""
    visits: list[Visit] = []

    def opened(url: str, **context: Any) -> Visit:
        opening = browser.new_context(**{"viewport": {"width": 1280, "height": 900}} | context)
        # On the context, for pages too that the page opens.
        opening.set_default_timeout(PATIENCE_MS)
        page = opening.new_page()
        found = Visit(page=page, url=url)
        visits.append(found)
        page.on("request", lambda request: found.sent.append(request))
        page.on("pageerror", lambda error: found.said.append(str(error)))
        page.on("console", lambda message: _note(found, message))
        page.goto(url)
        return found

    yield opened
    for one in visits:
        one.page.context.close()
    for one in visits:
        assert not one.said
        elsewhere = [sent.url for sent in one.sent if not sent.url.startswith((one.url, "data:", "blob:"))]
        assert not elsewhere


def _note(visit: Visit, message: Any) -> None:
    if message.type in ("error", "warning") and not message.text.startswith("Failed to load resource"):
        visit.said.append(message.text)


@pytest.fixture
def screenshot() -> Callable[..., None]:
    """Return `screenshot(visit, "name")`, which does nothing unless a folder was named."""
    folder = os.environ.get("PAGE_SCREENSHOTS")

    def take(visit: Visit, name: str, *, whole: bool = True) -> None:
        if folder is not None:
            Path(folder).mkdir(parents=True, exist_ok=True)
            visit.page.screenshot(path=str(Path(folder) / f"{name}.png"), full_page=whole)

    return take


@pytest.fixture
def photograph(tmp_path: Path) -> Path:
    file = io.BytesIO()
    Image.radial_gradient("L").resize((320, 240)).convert("RGB").save(file, format="PNG")
    path = tmp_path / f"{PATIENT}.png"
    path.write_bytes(file.getvalue())
    return path


@pytest.fixture
def ct(tmp_path: Path) -> Path:
    """Return a DICOM file of three frames: fat around muscle around lungs, and bone."""
    y, x = np.mgrid[-1:1:128j, -1:1:128j]
    values = np.full((3, 128, 128), -1000, np.int16)
    for frame, shift in enumerate((0.0, 0.1, 0.2)):
        for centre, (wide, high), hounsfield in (
            ((0.0, 0.0), (0.85, 0.62), -90),
            ((0.0, 0.0), (0.8, 0.56), 45),
            ((-0.38, 0.0), (0.28, 0.38), -840),
            ((0.38, 0.0), (0.28, 0.38), -840),
            ((0.0, 0.36), (0.1, 0.1), 620),
            ((shift - 0.4, 0.1), (0.06, 0.06), 40),
        ):
            values[frame][((x - centre[0]) / wide) ** 2 + ((y - centre[1]) / high) ** 2 < 1] = hounsfield
    path = tmp_path / f"{PATIENT}.dcm"
    path.write_bytes(
        dicom(
            values,
            NumberOfFrames=3,
            WindowCenter=40,
            WindowWidth=400,
            RescaleSlope=1,
            RescaleIntercept=0,
            PatientName=PATIENT.replace("_", "^"),
        )
    )
    return path


@pytest.fixture
def broken(tmp_path: Path, photograph: Path) -> Path:
    path = tmp_path / f"{PATIENT}-broken.png"
    path.write_bytes(photograph.read_bytes()[:300])
    return path
