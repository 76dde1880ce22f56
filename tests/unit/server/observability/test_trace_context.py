"""traceparent as W3C Trace Context has it: taken over when valid, ignored when not."""

import re

import pytest

from medmoe.server.observability.trace_context import TraceContext

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.mark.parametrize(
    ("header", "sampled"),
    [
        (f"00-{TRACE}-{PARENT}-01", True),
        (f"00-{TRACE}-{PARENT}-00", False),
        (f"00-{TRACE}-{PARENT}-02", False),
        (f" 00-{TRACE}-{PARENT}-ff\t", True),
        (f"cc-{TRACE}-{PARENT}-01", True),
        (f"cc-{TRACE}-{PARENT}-01-what-comes-later", True),
    ],
)
def test_a_valid_header_is_taken_over_with_its_decision(header: str, sampled: bool) -> None:
    found = TraceContext.of_request([header], sample=not sampled)
    assert (found.trace_id, found.parent_id, found.sampled) == (TRACE, PARENT, sampled)
    assert found.span_id != PARENT
    assert found.response_header() == f"00-{TRACE}-{found.span_id}-{'01' if sampled else '00'}"


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [""],
        ["patient"],
        [f"00-{TRACE}-{PARENT}"],
        [f"00-{TRACE}-{PARENT}-1"],
        [f"00-{TRACE}-{PARENT}-01-more"],
        [f"cc-{TRACE}-{PARENT}-01more"],
        [f"ff-{TRACE}-{PARENT}-01"],
        [f"00-{TRACE.upper()}-{PARENT}-01"],
        [f"00-{'0' * 32}-{PARENT}-01"],
        [f"00-{TRACE}-{'0' * 16}-01"],
        [f"00-{TRACE[:-1]}g-{PARENT}-01"],
        [f"00-{TRACE}-{PARENT}-01\n"],
        [f"00-{TRACE}-{PARENT}-01", f"00-{TRACE}-{PARENT}-01"],
    ],
    ids=repr,
)
def test_anything_else_begins_a_trace_of_our_own(headers: list[str]) -> None:
    first, second = (TraceContext.of_request(headers, sample=True) for _ in range(2))
    assert first.trace_id != second.trace_id != TRACE
    assert (first.parent_id, first.sampled) == (None, True)
    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-01", first.response_header())
    assert not TraceContext.of_request(headers, sample=False).sampled
