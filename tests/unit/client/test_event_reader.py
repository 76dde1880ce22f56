"""A stream of events, cut into pieces in every way that a network may."""

import json

import pytest

from medmoe.client.answers.vqa import Delta, VqaAnswer
from medmoe.client.errors import ServiceUnavailable, UnexpectedAnswer
from medmoe.client.transport.event_reader import Event, EventReader, answer_event
from tests.support.service.client_answer import ANSWER, WORDS

EVENTS = [json.dumps({"delta": WORDS}), json.dumps(ANSWER, ensure_ascii=False), "[DONE]"]


def read(*chunks: bytes) -> list[Event]:
    reader = EventReader(answer_event)
    found = [event for chunk in chunks for event in reader.feed(chunk)]
    reader.end()
    return found


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_every_cut_gives_the_same_events(end: str) -> None:
    stream = f": a comment{end}{end}".encode() + "".join(f"data: {event}{end}{end}" for event in EVENTS).encode()
    first, last = read(stream)
    assert first == Delta(text=WORDS)
    assert isinstance(last, VqaAnswer)
    assert last.answer == WORDS
    assert read(*(stream[place : place + 1] for place in range(len(stream)))) == [first, last]
    for cut in range(len(stream)):
        assert read(stream[:cut], stream[cut:]) == [first, last]


def test_events_come_as_soon_as_they_are_whole() -> None:
    reader = EventReader(answer_event)
    assert list(reader.feed(b'data: {"delta": "a"}\n\ndata: {"del')) == [Delta(text="a")]
    assert list(reader.feed(b'ta": "b"}\n')) == []
    assert list(reader.feed(b"\n")) == [Delta(text="b")]


def test_an_error_event_is_an_exception_after_what_came_before() -> None:
    error = {"type": "unavailable_error", "code": "engine_dead", "message": "m", "param": None, "request_id": "r"}
    reader = EventReader(answer_event)
    events = reader.feed(f'data: {{"delta": "a"}}\n\ndata: {json.dumps({"error": error})}\n\n'.encode())
    assert next(events) == Delta(text="a")
    with pytest.raises(ServiceUnavailable) as raised:
        next(events)
    assert (raised.value.code, raised.value.status, raised.value.request_id) == ("engine_dead", None, "r")


@pytest.mark.parametrize("rest", [b"", b"data: [DONE]", b'data: {"delta": "a"}\n\n'])
def test_a_stream_that_does_not_say_so_has_not_ended(rest: bytes) -> None:
    with pytest.raises(UnexpectedAnswer):
        read(rest)


@pytest.mark.parametrize("event", ["no JSON", "3", "[]", "{}", '{"delta": 3}', '{"answer": "yes"}'])
def test_what_is_no_known_event_is_refused(event: str) -> None:
    with pytest.raises(UnexpectedAnswer):
        read(f"data: {event}\n\n".encode())
