"""Describe the responses of each route in OpenAPI, with recorded responses of the bundled checkpoint."""

import json
from collections.abc import Mapping
from typing import Any

from medmoe.server.openapi.requests import EXAMPLES, named

Responses = dict[int | str, dict[str, Any]]

_STREAM = "The answer; with `stream: true` as server-sent events, of which a failure on the way is one"
_DIAGNOSTIC_REPORT = {"resourceType": "DiagnosticReport", "status": "preliminary", "conclusion": "chest"}


def examples(values: Mapping[str, Any], *, status: int = 200) -> Responses:
    """Return a response in JSON with its examples by name."""
    return {status: {"content": {"application/json": {"examples": named(values)}}}}


def answers(route: str, *names: str) -> Responses:
    """Return the examples that were recorded as `route.name.json`."""
    return examples({name: json.loads((EXAMPLES / f"{route}.{name}.json").read_bytes()) for name in names})


def answers_and_stream(route: str, *names: str) -> Responses:
    """Return `answers` and the events that were recorded as `route.streamed.txt`."""
    whole = answers(route, *names)[200]["content"]
    events = (EXAMPLES / f"{route}.streamed.txt").read_text()
    # Without a schema: OpenAPI 3.1 has none for a stream of events.
    return {200: {"description": _STREAM, "content": whole | {"text/event-stream": {"example": events}}}}


def with_reports(responses: Responses) -> Responses:
    """Return `responses` with the reports that a caller may accept instead."""
    found = {status: dict(response) for status, response in responses.items()}
    found[200]["content"] = found[200]["content"] | {
        "application/dicom": {"schema": {"type": "string", "format": "binary"}, "example": "a DICOM file"},
        "application/fhir+json": {"schema": {"type": "object"}, "example": _DIAGNOSTIC_REPORT},
    }
    return found


def text(media_type: str, file: str) -> Responses:
    """Return the text that was recorded as `file`."""
    recorded = (EXAMPLES / file).read_text()
    return {200: {"content": {media_type: {"schema": {"type": "string"}, "example": recorded}}}}
