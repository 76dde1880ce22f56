"""Log lines that cannot carry content."""

import json
import logging
import sys

from medmoe.server.observability.json_log import JsonFormatter


def line(name: str, message: str, *args: object, exception: bool = False) -> dict[str, object]:
    info = sys.exc_info() if exception else None
    record = logging.LogRecord(name, logging.ERROR, "file.py", 1, message, args, info)
    parsed: dict[str, object] = json.loads(JsonFormatter().format(record))
    return parsed


def test_our_own_words_are_written() -> None:
    assert line("medmoe.start", "ready")["message"] == "ready"


def test_a_librarys_words_are_withheld() -> None:
    written = line("PIL.PngImagePlugin", "chunk %s", "SECRET")
    assert "SECRET" not in json.dumps(written)
    assert written["logger"] == "PIL.PngImagePlugin"


def test_an_exception_is_its_class_alone() -> None:
    try:
        raise ValueError("SECRET")
    except ValueError as error:
        written = line("uvicorn.error", f"failed: {error}", exception=True)
    assert written["exception"] == "ValueError"
    assert "SECRET" not in json.dumps(written)
