"""Read the licence that a checkpoint directory states."""

import re
from pathlib import Path

from medmoe.model.errors import CheckpointError
from medmoe.model.files.bounded_read import read_bounded

CARD_FILE = "README.md"
UNKNOWN_LICENCE = "unknown: ask the author"
MAX_LICENCE_BYTES = 2**20
_FRONT_MATTER = re.compile(r"\A---\r?\n(.*?)\r?\n---", re.DOTALL)
_STATED = re.compile(
    r"^licen[cs]e:[ \t]*[\"']?([A-Za-z0-9][A-Za-z0-9 .:+_-]{0,63}?)[\"']?[ \t]*(?:[ \t]#.*)?\r?$", re.MULTILINE
)


def stated_licence(directory: Path) -> str:
    """Return the licence of README.md's front matter, else the name of a licence file, else that it is unknown."""
    try:
        text = read_bounded(directory / CARD_FILE, limit=MAX_LICENCE_BYTES).decode("utf-8-sig", errors="replace")
    except (OSError, CheckpointError):  # a card that cannot be read states nothing
        text = ""
    front = _FRONT_MATTER.match(text)
    if front and (licence := _STATED.search(front[1])):
        return licence[1]
    file = licence_file(directory)
    return f"see {file.name}" if file else UNKNOWN_LICENCE


def licence_file(directory: Path) -> Path | None:
    """Return the path of the directory's licence text, or None when there is none of a reasonable size."""
    files = (directory / name for name in ("LICENSE", "LICENSE.md", "LICENSE.txt", "LICENCE"))
    return next((file for file in files if file.is_file() and file.stat().st_size <= MAX_LICENCE_BYTES), None)
