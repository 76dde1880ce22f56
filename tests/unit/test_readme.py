"""The READMEs name only what exists, and README's answer and figures are the recorded ones."""

import json
import re
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from PIL import Image

from medmoe.model.cli import COMMANDS, main
from medmoe.model.config import BUNDLED
from medmoe.server.openapi.requests import EXAMPLES
from medmoe.server.schemas.vqa import VQAResponse
from medmoe.server.settings import Settings

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
TEXT = README.read_text()
CARD = BUNDLED / "README.md"
ELSEWHERE = {
    "API_KEY", "CA_FILE", "CHECKPOINT", "CLIENT_CERTIFICATE", "CLIENT_KEY", "DEBUG", "GPUS", "METRICS_KEY_FILE",
    "PUBLISHED_PORT", "START_SECONDS", "URL",
}  # fmt: skip
"""MEDMOE_*: read by the client or by the compose files, not by the service."""
LONGEST = 150


def texts() -> list[Path]:
    """Return every README and the runbook, except those under pretrained checkpoints."""
    named = [*ROOT.glob("*/**/README.md"), ROOT / "docker" / "RUNBOOK.md"]
    kept = [path for path in named if not {"pretrained", ".venv", ".cache", "build", "runs"} & set(path.parts)]
    return [README, *sorted(kept)]


def names() -> list[str]:
    return [str(path.relative_to(ROOT)) for path in texts()]


def slug(heading: str) -> str:
    """Return the anchor that GitHub makes of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def commands(text: str) -> str:
    """Return everything in `text` that can be typed: code blocks and code spans."""
    blocks = re.findall(r"^ *```(?:sh|bash|yaml|python)\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL)
    return "\n".join([*re.findall(r"^    (?! )(.+)$", text, re.MULTILINE), *re.findall(r"`([^`\n]+)`", text), *blocks])


def test_readme_is_short() -> None:
    assert len(TEXT.splitlines()) <= LONGEST
    assert len(TEXT.split()) <= 1300


@pytest.mark.parametrize("name", names())
def test_links_resolve(name: str) -> None:
    text = (ROOT / name).read_text()
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        path, _, section = target.partition("#")
        if target.startswith("https://"):
            continue
        file = (ROOT / name).parent / path if path else ROOT / name
        assert file.exists(), f"{name}: {target}"
        if section:
            headings = re.findall(r"^#+ (.+)$", file.read_text(), re.MULTILINE)
            assert section in map(slug, headings), f"{name}: {target}"


@pytest.mark.parametrize("name", names())
def test_settings_that_are_named_exist(name: str) -> None:
    known = {setting.upper() for setting in Settings.model_fields} | ELSEWHERE
    assert set(re.findall(r"MEDMOE_([A-Z_]+[A-Z])\b", (ROOT / name).read_text())) <= known


@pytest.mark.parametrize("name", names())
def test_commands_that_are_named_exist(name: str) -> None:
    typed = commands((ROOT / name).read_text())
    modules = set(re.findall(r"python -m ((?:medmoe|tests)[\w.]*)", typed))
    assert not [module for module in modules if find_spec(module) is None]
    assert set(re.findall(r"^(?:\S+=\S+ )*medmoe ([a-z][a-z-]*)", typed, re.MULTILINE)) <= COMMANDS.keys()
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"^(?:\S+=\S+ )*make ([a-z]+)", typed, re.MULTILINE)) <= targets


@pytest.mark.parametrize("name", names())
def test_files_that_are_named_exist(name: str) -> None:
    text = (ROOT / name).read_text()
    for path in re.findall(r"`((?:tests|server|model|training|docker|\.ci)/[\w./-]*)`", text):
        assert (ROOT / path).exists(), f"{name}: {path}"
    for file in re.findall(r"`(test_\w+\.py)`", text):
        assert list((ROOT / "tests").rglob(file)), f"{name}: {file}"


@pytest.mark.parametrize("name", ["README.md", "server/client/README.md"])
def test_options_that_are_shown_exist(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Look for each option in the help of its command."""
    shown: dict[str, set[str]] = {}
    for line in re.findall(r"^medmoe .+$", (ROOT / name).read_text(), re.MULTILINE):
        command = line.split()[1]
        shown.setdefault(command, set()).update(re.findall(r" (--[a-z-]+)", line))
    for command, options in shown.items():
        monkeypatch.setattr(sys, "argv", ["medmoe", command, "--help"])
        with pytest.raises(SystemExit) as ended:
            main()
        assert not ended.value.code
        assert options <= set(re.findall(r"--[a-z-]+", capsys.readouterr().out)), command


def test_readme_shows_the_recorded_answer() -> None:
    command, answer = re.search(r"(curl .*?)```json\n(.*?)```", TEXT, re.DOTALL).groups()  # type: ignore[union-attr]
    assert "@server/openapi/examples/phantom.png" in command
    shown, recorded = json.loads(answer), json.loads((EXAMPLES / "vqa.question.json").read_text())
    assert shown.keys() <= VQAResponse.model_fields.keys()
    for name in ("model", "answer", "finish_reason", "abstained", "usage"):
        assert shown[name] == recorded[name], name
    assert shown["confidence"]["value"] == pytest.approx(recorded["confidence"]["value"], abs=5e-5)
    for stage, seconds in shown["timings"].items():
        assert seconds == pytest.approx(recorded["timings"][stage], abs=5e-4), stage


def test_readme_has_the_figures_of_the_model_card() -> None:
    """Compare the scores in README's table with the rows of the same number of samples in the card."""
    card: dict[str, set[str]] = {}
    for cells in rows(CARD.read_text()):
        card.setdefault(cells[min(1, len(cells) - 1)], set()).update(re.findall(r"[\d.]+", " ".join(cells)))
    size = ""
    compared = 0
    for cells in rows(TEXT):
        if len(cells) == 6 and cells[1].split()[0] in ("closed", "accuracy"):
            if found := re.search(r"\(([\d,]+)\)", cells[0]):
                size = found[1].replace(",", "")
            assert set(re.findall(r"[\d.]+", " ".join(cells[2:]))) <= card[size], cells
            compared += 1
    assert compared >= 8


def rows(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]


def test_the_screenshot_is_small_and_exists() -> None:
    (path,) = re.findall(r"^!\[[^\]]+\]\((.+)\)$", TEXT, re.MULTILINE)
    assert (ROOT / path).stat().st_size < 250_000
    with Image.open(ROOT / path) as image:
        assert image.width == 1240
