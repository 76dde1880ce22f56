"""README names what there is: files, sections, settings, commands; and its answer is the recorded one."""

import json
import re
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

import pytest
from PIL import Image

from medmoe.server.openapi.requests import EXAMPLES
from medmoe.server.schemas.vqa import VQAResponse
from medmoe.server.settings import Settings

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "README.md").read_text()
ELSEWHERE = {"API_KEY", "CHECKPOINT"}
"""MEDMOE_*: the client's, and docker/compose.gpu.yml's."""
MODELS_OWN = {"convert", "inspect"}


def slug(heading: str) -> str:
    """The anchor that GitHub makes of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def commands() -> str:
    """Whatever is to be typed."""
    fenced = re.findall(r"^```(?:sh|bash|yaml|python)\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
    return "\n".join([*re.findall(r"^    (?! )(.+)$", TEXT, re.MULTILINE), *re.findall(r"`([^`\n]+)`", TEXT), *fenced])


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\(([^)]+)\)", TEXT))))
def test_links_lead_somewhere(target: str) -> None:
    path, _, section = target.partition("#")
    if target.startswith("https://"):
        return
    assert not path or (ROOT / path).exists()
    if section:
        assert section in map(slug, re.findall(r"^#+ (.+)$", TEXT, re.MULTILINE))


def test_settings_that_are_named_exist() -> None:
    known = {name.upper() for name in Settings.model_fields} | ELSEWHERE
    assert set(re.findall(r"MEDMOE_([A-Z_]+[A-Z])", TEXT)) <= known


def test_programs_that_are_named_exist() -> None:
    typed = commands()
    modules = set(re.findall(r"python -m ([\w.]+)", typed)) | {"tests.benchmarks.overload"}
    assert len(modules) > 8
    assert not [name for name in modules if find_spec(name) is None]
    spoken = set(re.findall(r"(?:^|[ /`])medmoe ([a-z]+)", typed, re.MULTILINE))
    served = {point.name for point in entry_points(group="medmoe.commands")} | MODELS_OWN
    assert {"ask", "train", "convert"} <= spoken <= served
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {"serve", "test"} <= set(re.findall(r"\bmake ([a-z]+)", typed)) <= targets


def test_files_that_are_named_exist() -> None:
    for path in re.findall(r"`((?:tests|server|model|training|docker|\.ci)/[\w./-]*)`", TEXT):
        assert (ROOT / path).exists(), path
    for name in re.findall(r"`(test_\w+\.py)`", TEXT):
        assert list((ROOT / "tests").rglob(name)), name


def test_the_answer_on_the_first_screen_is_the_recorded_one() -> None:
    """To the picture and the question of the command above it, shortened."""
    command, answer = re.search(r"(    curl .*?)```json\n(.*?)```", TEXT, re.DOTALL).groups()  # type: ignore[union-attr]
    assert "@server/openapi/examples/phantom.png" in command
    shown, recorded = json.loads(answer), json.loads((EXAMPLES / "vqa.question.json").read_text())
    assert shown.keys() <= VQAResponse.model_fields.keys()
    for name in ("model", "answer", "finish_reason", "abstained", "usage"):
        assert shown[name] == recorded[name], name
    assert shown["confidence"]["value"] == pytest.approx(recorded["confidence"]["value"], abs=5e-5)
    for stage, seconds in shown["timings"].items():
        assert seconds == pytest.approx(recorded["timings"][stage], abs=5e-4), stage


def test_the_picture_of_the_page_is_small_and_there() -> None:
    (path,) = re.findall(r"^!\[[^\]]+\]\((.+)\)$", TEXT, re.MULTILINE)
    assert (ROOT / path).stat().st_size < 250_000
    with Image.open(ROOT / path) as picture:
        assert picture.width == 1240
