"""Plain lines of libraries and child processes become JSON."""

import json
import subprocess
import sys
from typing import Any

import pytest

PROGRAM = """
import logging, os, subprocess, sys
from medmoe.server.observability import json_log
from medmoe.server.observability.plain_output import plain_output_as_json
json_log.configure("info")
with plain_output_as_json():
    logging.getLogger("medmoe.start").info("ready")
    {body}
print("after", file=sys.stderr)
"""


def written(body: str) -> list[dict[str, Any]]:
    """What a service whose code, libraries and children do `body` writes to standard error."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(body=body)], capture_output=True, text=True, check=True, timeout=550
    )
    assert done.stdout == ""
    *lines, after = done.stderr.splitlines()
    assert after == "after"
    return [json.loads(line) for line in lines]


def test_prints_child_processes_and_c_libraries_are_wrapped() -> None:
    lines = written(
        "print('printed', flush=True); os.write(2, b'from C\\n'); subprocess.run(['sh', '-c', 'echo a child >&2'])"
    )
    assert [line["message"] for line in lines] == ["ready", "printed", "from C", "a child"]
    assert [line["level"] for line in lines] == ["info", "warning", "warning", "warning"]


def test_a_last_line_without_an_end_is_not_lost() -> None:
    assert written("os.write(1, b'a line\\nan end')")[-1]["message"] == "an end"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            "(EngineCore pid=7) ERROR 11-29 07:47:33 [core.py:1136] EngineCore failed to start.",
            {"level": "error", "message": "EngineCore failed to start.", "source": "core.py:1136"},
        ),
        (
            "W1129 07:47:17.804000 25766 torch/_dynamo/config.py:53] recompiled",
            {"level": "warning", "message": "recompiled", "source": "torch/_dynamo/config.py:53"},
        ),
        ("[E1129 07:47:28.648636534 utils.cpp:68] broken", {"level": "error", "source": "utils.cpp:68"}),
    ],
)
def test_level_and_source_are_taken_from_the_line(line: str, expected: dict[str, str]) -> None:
    assert written(f"os.write(2, {(line + chr(10)).encode()!r})")[-1].items() >= expected.items()


def test_harmless_lines_are_dropped() -> None:
    line = b"WARNING 11-29 07:47:33 [cpu.py:1] libtcmalloc is not found and might impact performance.\n"
    assert [line["message"] for line in written(f"os.write(2, {line!r})")] == ["ready"]
