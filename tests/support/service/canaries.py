"""Make requests with a unique string in every field that a client can write, from the OpenAPI document.

A route or a field that is added later is covered without a change here, as long as its operation has an example.
"""

import base64
import copy
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.support.images.series_files import archive
from tests.support.images.tagged_images import dicom, png

CANARY = "cnry7f3q"
"""Prefix of every canary; no other text contains it."""
_IMAGE = ("image", "url", "image_url", "series")
"""The names of the fields that hold an image or a series."""
_numbers = itertools.count()


def canary(place: str) -> str:
    """Return a unique string that names its place."""
    letters = "".join(letter for letter in place.lower() if letter.isalnum())
    return f"{CANARY}x{next(_numbers)}x{letters}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Probe:
    """Hold one request; `name` tells where its canaries are."""

    name: str
    method: str
    path: str
    content: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


def probes(document: dict[str, Any]) -> Iterator[Probe]:
    """Yield requests for every field of every operation, and for fields that no operation has."""
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            base = Probe(name=f"{method} {path}", method=method.upper(), path=path)
            yield from _addresses(base, operation)
            content = operation.get("requestBody", {}).get("content", {})
            if "application/json" in content:
                yield from _json(base, content["application/json"], document)
            if "multipart/form-data" in content:
                yield from _forms(base, content["multipart/form-data"], next(iter(content.values())))
    yield _with(Probe(name="unknown path", method="GET", path=f"/{canary('path')}/{canary('path')}"))
    yield _with(Probe(name="unknown method", method=canary("method").upper(), path="/v1/vqa"))


def valid(document: dict[str, Any], *, stream: bool = False, image: str | None = None) -> Iterator[Probe]:
    """Yield a valid request full of canaries per generating operation, with `image` or the example's.

    With `image`, operations that take a series are left out.
    """
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            content = operation.get("requestBody", {}).get("content", {})
            if "application/json" not in content or "inference" not in operation["tags"]:
                continue
            described = content["application/json"]
            properties = _resolved(described["schema"], document).get("properties", {})
            if stream and "stream" not in properties:
                continue
            if image is not None and "series" in properties:
                continue
            body = _every_text(example(described, path)) | ({"stream": True} if stream else {})
            if image is not None:
                body = _with_image(body, image)
            yield _as_json(Probe(name=f"valid {method} {path}", method=method.upper(), path=path), body)


def example(described: dict[str, Any], path: str) -> dict[str, Any]:
    assert described.get("examples"), f"{path} has no example in the OpenAPI document to put canaries into"
    found: dict[str, Any] = copy.deepcopy(next(iter(described["examples"].values()))["value"])
    return found


def _addresses(base: Probe, operation: dict[str, Any]) -> Iterator[Probe]:
    yield _with(base, name=f"{base.name}: header")
    declared = [parameter["name"] for parameter in operation.get("parameters", ()) if parameter["in"] == "query"]
    for name in (*declared, canary("query")):
        yield _with(base, name=f"{base.name}: query", path=f"{base.path}?{name}={canary('query')}")
    yield _with(base, name=f"{base.name}: path", path=f"{base.path}/{canary('path')}")
    yield _with(base, name=f"{base.name}: method", method="PROPFIND")


def _json(base: Probe, described: dict[str, Any], document: dict[str, Any]) -> Iterator[Probe]:
    sample = example(described, base.path)
    schema = _resolved(described["schema"], document)
    for place in _places(sample):
        yield _as_json(base, _replaced(sample, place, canary(str(place[-1]))), name=f"{base.name}: {place}")
    for name in schema["properties"]:
        for value in (canary(name), [canary(name)], {canary(name): canary(name)}, [[canary(name)] * 3]):
            yield _as_json(base, sample | {name: value}, name=f"{base.name}: {name} of another type")
    yield _as_json(base, sample | {canary("name"): canary("value")}, name=f"{base.name}: unknown field")
    if "image" in schema["properties"]:
        for kind, data in (("png", png(canary("png"))), ("dicom", _tagged_dicom()), ("bytes", canary("b").encode())):
            text = base64.b64encode(data).decode()
            yield _as_json(base, sample | {"image": text}, name=f"{base.name}: {kind}")
            yield _as_json(base, sample | {"image": f"data:image/{canary('mime')};base64,{text}"}, name="data URL")
    if "series" in schema["properties"]:
        packed = archive([_tagged_dicom(), _tagged_dicom()], others={canary("entry"): canary("entry").encode()})
        text = base64.b64encode(packed).decode()
        yield _as_json(base, sample | {"series": text}, name=f"{base.name}: archive")
    url = f"https://{canary('user')}@{canary('host')}/{canary('file')}.png?{canary('query')}#{canary('fragment')}"
    yield _as_json(base, _with_image(sample, url), name=f"{base.name}: URL")
    yield _as_json(base, _every_text(sample), name=f"{base.name}: everything")
    text = canary("json")
    for content in (text.encode(), f'{{"{text}": '.encode(), f'"{text}"'.encode(), f'["{text}"]'.encode(), b"\xff" * 9):
        yield _with(base, content=content, headers={"content-type": "application/json"}, name=f"{base.name}: not JSON")
    yield _with(
        base, content=text.encode(), headers={"content-type": f"text/{text}; charset={text}"}, name=f"{base.name}: type"
    )


def _forms(base: Probe, described: dict[str, Any], as_json: dict[str, Any]) -> Iterator[Probe]:
    part = next(name for name in ("series", "file", "image") if name in described["schema"]["properties"])
    sample = {name: value for name, value in example(as_json, base.path).items() if name != part}
    fields = {name: value if isinstance(value, str) else json.dumps(value) for name, value in sample.items()}
    file = archive([_tagged_dicom(), _tagged_dicom()]) if part == "series" else png(canary("png"))
    good = (part, "a.png", "image/png", file)
    for name in described["schema"]["properties"]:
        yield _form(base, fields | {name: canary(name)}, good, name=f"{base.name}: form field {name}")
    for name, sent in {
        "file name": (part, f"{canary('file')}.png", "image/png", good[3]),
        "part name": (canary("part"), "a.png", "image/png", good[3]),
        "part type": (part, "a.png", f"image/{canary('type')}", good[3]),
        "part header": (part, "a.png", f"image/png\r\nX-Note: {canary('header')}", good[3]),
        "no image": (part, "a.png", "image/png", canary("bytes").encode()),
        "dicom": (part, f"{canary('file')}.dcm", "application/dicom", _tagged_dicom()),
    }.items():
        yield _form(base, fields, sent, name=f"{base.name}: {name}")
    yield _form(base, fields | {canary("name"): canary("value")}, good, name=f"{base.name}: unknown form field")
    yield _form(base, fields | {name: "x" * 70_000 + canary(name) for name in fields}, good, name="too long a field")
    boundary = canary("boundary")
    kind = f"multipart/form-data; boundary={boundary}"
    for content in (boundary.encode(), f"--{boundary}\r\n{canary('line')}\r\n\r\n".encode()):
        yield _with(base, content=content, headers={"content-type": kind}, name=f"{base.name}: no form")


def _form(base: Probe, fields: dict[str, str], file: tuple[str, str, str, bytes], *, name: str) -> Probe:
    boundary = canary("boundary")
    part, file_name, kind, data = file
    body = b"".join(
        f'--{boundary}\r\nContent-Disposition: form-data; name="{field}"\r\n\r\n{value}\r\n'.encode()
        for field, value in fields.items()
    )
    body += f'--{boundary}\r\nContent-Disposition: form-data; name="{part}"; filename="{file_name}"\r\n'.encode()
    body += f"Content-Type: {kind}\r\n\r\n".encode() + data + f"\r\n--{boundary}--\r\n".encode()
    return _with(base, content=body, headers={"content-type": f"multipart/form-data; boundary={boundary}"}, name=name)


def _as_json(base: Probe, body: dict[str, Any], *, name: str | None = None) -> Probe:
    headers = {"content-type": "application/json"}
    return _with(base, content=json.dumps(body).encode(), headers=headers, name=name or base.name)


def _with(base: Probe, *, headers: dict[str, str] | None = None, **changes: Any) -> Probe:
    """Return `base` with `changes` and a canary in every header that servers and proxies read."""
    own = {
        "X-Request-Id": f"{canary('requestid')}_",
        "X-Patient": canary("header"),
        "User-Agent": canary("agent"),
        "Cookie": f"{canary('cookie')}={canary('cookie')}",
        "Referer": f"http://{canary('referer')}/",
        "Origin": f"http://{canary('origin')}",
        "Sec-Fetch-Site": "same-origin",
        "X-Forwarded-For": canary("forwarded"),
        "Authorization": f"Bearer {canary('key')}",
        "Accept": f"text/{canary('accept')}",
        "traceparent": canary("traceparent"),
        "tracestate": f"{canary('tracestate')}=1",
        "baggage": f"patient={canary('baggage')}",
    }
    fields = {name: getattr(base, name) for name in ("name", "method", "path", "content")} | changes
    return Probe(**fields, headers=own | (headers or {}))


def _tagged_dicom() -> bytes:
    text = canary("tag")
    return dicom(PatientName=text, PatientID=text[:60], StudyDescription=text[:60], ImageComments=text)


def _every_text(value: Any, *, key: str = "") -> Any:
    """Return `value` with a canary for every string, except the image and enumerated values."""
    if isinstance(value, dict):
        return {name: _every_text(item, key=name) for name, item in value.items()}
    if isinstance(value, list):
        return [_every_text(item, key=key) for item in value]
    if isinstance(value, str) and key not in {*_IMAGE, "role", "type", "model", "mode", "aggregate"}:
        return canary(key)
    return value


def _places(value: Any, place: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Yield the leaves of a JSON value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if items is None:
        yield place
        return
    for name, item in items:
        yield from _places(item, (*place, name))


def _replaced(value: dict[str, Any], place: tuple[str | int, ...], by: Any) -> dict[str, Any]:
    changed = copy.deepcopy(value)
    inner: Any = changed
    for name in place[:-1]:
        inner = inner[name]
    inner[place[-1]] = by
    return changed


def _with_image(body: dict[str, Any], image: str) -> dict[str, Any]:
    for place in _places(body):
        if place[-1] in _IMAGE:
            body = _replaced(body, place, image)
    return body


def _resolved(schema: dict[str, Any], document: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in schema:
        found: Any = document
        for name in schema["$ref"].removeprefix("#/").split("/"):
            found = found[name]
        schema = found
    return schema
