"""The questions of a comparison are read as a batch reads JSON Lines."""

from base64 import b64encode
from pathlib import Path

import pytest

from medmoe.client.commands.checkpoint.question_file import read_questions
from medmoe.client.errors import InvalidInput

IMAGE = b"\x89PNG\r\n\x1a\n"


def test_a_line_separator_inside_a_text_ends_no_line(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(IMAGE)
    file = tmp_path / "asked.jsonl"
    file.write_text('\ufeff{"image": "a.png", "question": "One\u2028or two?", "labels": null}\n\n', encoding="utf-8")
    assert read_questions(file) == [{"image": b64encode(IMAGE).decode(), "question": "One\u2028or two?"}]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b'\n\n{"image": "a.png", "question": "\xff"}\n', "asked.jsonl, line 3: not JSON"),
        (b'{"image": "https://a", "question": "?"}\n["a.png"]\n', "asked.jsonl, line 2: not a JSON object"),
        (b'{"image": "none.png", "question": "?"}\n', "asked.jsonl, line 1: .*none.png cannot be read: No such file"),
    ],
)
def test_a_wrong_line_is_named_by_its_number_in_the_file(content: bytes, problem: str, tmp_path: Path) -> None:
    (tmp_path / "asked.jsonl").write_bytes(content)
    with pytest.raises(InvalidInput, match=problem):
        read_questions(tmp_path / "asked.jsonl")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"none\.jsonl cannot be read: No such file"):
        read_questions(tmp_path / "none.jsonl")
