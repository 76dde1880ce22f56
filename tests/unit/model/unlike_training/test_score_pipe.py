"""Scores reach the service before the answers that they belong to, whatever is read when."""

import hashlib
import threading
from pathlib import Path

import pytest

from medmoe.model.unlike_training.score_pipe import ScoreReader, ScoreWriter


def digest(number: int) -> bytes:
    return hashlib.sha256(str(number).encode()).digest()


@pytest.fixture
def reader(tmp_path: Path) -> ScoreReader:
    return ScoreReader(tmp_path / "scores")


def test_a_written_score_can_be_read_at_once_and_again(reader: ScoreReader) -> None:
    writer = ScoreWriter(reader.path)
    writer.write([(digest(1), 0.5), (digest(2), 1.5)])
    assert reader.score(digest(1).hex()) == 0.5
    writer.write([(digest(1), 2.5)])
    assert [reader.score(digest(number).hex()) for number in (1, 2, 3)] == [2.5, 1.5, None]


def test_more_than_a_pipe_holds_arrives_whole(reader: ScoreReader) -> None:
    count = 5000
    writing = threading.Thread(
        target=ScoreWriter(reader.path).write, args=([(digest(number), number) for number in range(count)],)
    )
    writing.start()
    while writing.is_alive():
        reader.read()
    writing.join()
    assert all(reader.score(digest(number).hex()) == number for number in range(count))
