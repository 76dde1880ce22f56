"""Parse a JSON or multipart body into validated fields and the image as it was sent.

Multipart files stay in memory, within the body limit: images of patients do not belong in a temporary file.
"""

import json
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import to_json
from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from medmoe.server.errors import ClientDisconnected, InvalidField, MalformedBody, UnsupportedContentType
from medmoe.server.http.error_responses import invalid
from medmoe.server.http.json_body import read_json_object, require_plain_body
from medmoe.server.schemas.classify import MAX_LABELS
from medmoe.server.schemas.inference import InstanceReference, SentImage

Fields = TypeVar("Fields", bound=BaseModel)

_IMAGE = "image"
_CHARSETS = (b"utf-8", b"utf8", b"us-ascii")
_MAX_PARTS = 512
_MAX_FIELD_BYTES = 64 * 1024


class _InMemoryParser(MultiPartParser):
    spool_max_size = 2**62


@dataclass(frozen=True, kw_only=True, slots=True)
class ParsedRequest(Generic[Fields]):
    """A parsed body; `image` is base64 text, a URL or a reference from JSON, a file's bytes from multipart."""

    fields: Fields
    image: SentImage


async def receive(request: Request, fields: type[Fields], *, as_json: type[BaseModel]) -> ParsedRequest[Fields]:
    """Parse the body by its Content-Type; `as_json` is `fields` plus `image`.

    Raises MalformedBody, InvalidField, UnsupportedContentType, BodyTooLarge, ClientDisconnected.
    """
    content_type, options = parse_options_header(request.headers.get("content-type"))
    if content_type.lower() == b"application/json":
        document = await read_json_object(request, known=as_json.model_fields.keys())
        return _from_json(document, fields, as_json=as_json)
    if content_type.lower() == b"multipart/form-data":
        require_plain_body(request)
        if options.get(b"charset", b"utf-8").lower() not in _CHARSETS:
            # The parser would decode with any codec of Python, some of which take quadratic time.
            raise MalformedBody("the form is not in UTF-8; leave charset out of Content-Type")
        try:
            return await _from_multipart(request, fields)
        except ClientDisconnect as error:
            raise ClientDisconnected("the client left while sending") from error
    raise UnsupportedContentType()


def _from_json(document: dict[str, Any], fields: type[Fields], *, as_json: type[BaseModel]) -> ParsedRequest[Fields]:
    for name, value in document.items():
        # Validation would describe each of thousands of wrong items.
        is_reference = name == _IMAGE and isinstance(value, dict) and len(value) <= len(InstanceReference.model_fields)
        if (isinstance(value, dict) and not is_reference) or (isinstance(value, list) and len(value) > MAX_LABELS):
            raise InvalidField(f"the field is an object or has over {MAX_LABELS} items", param=name)
    text: str | None = None
    if _IMAGE in document:
        _check_image(document[_IMAGE])
        if isinstance(document[_IMAGE], str):
            # Set aside: the validated copy would take as much memory again.
            text, document[_IMAGE] = document[_IMAGE], ""
    try:
        # Strict and from JSON: "5" is not a number here, although it is one in a form, and an array is a tuple.
        whole = as_json.model_validate_json(to_json(document), strict=True)
    except ValidationError as error:
        raise invalid(error, fields=frozenset(as_json.model_fields)) from error
    image: str | InstanceReference = getattr(whole, _IMAGE) if text is None else text
    return ParsedRequest(fields=fields.model_validate(whole.model_dump(exclude={_IMAGE})), image=image)


def _check_image(image: Any) -> None:
    """Refuse what is neither text nor a reference, in words that pydantic has not for a union. Raises InvalidField."""
    if isinstance(image, dict):
        try:
            InstanceReference.model_validate(image, strict=True)
        except ValidationError as error:
            raise invalid(error, fields=frozenset(InstanceReference.model_fields), within=_IMAGE) from error
    elif not isinstance(image, str):
        raise InvalidField("Input should be a valid string, or an object that names an instance", param=_IMAGE)


async def _from_multipart(request: Request, fields: type[Fields]) -> ParsedRequest[Fields]:
    parser = _InMemoryParser(
        request.headers, request.stream(), max_files=_MAX_PARTS, max_fields=_MAX_PARTS, max_part_size=_MAX_FIELD_BYTES
    )
    try:
        form = await parser.parse()
    except (MultiPartException, LookupError, UnicodeError) as error:
        # The parser raises KeyError when Content-Type names no boundary, the others for an unknown charset.
        raise MalformedBody("the body is not valid multipart/form-data, or has too many or too long parts") from error
    known = frozenset({_IMAGE, *fields.model_fields})
    try:
        image = await _only_image(form)
        validated = fields.model_validate(_form_fields(form, fields))
    except ValidationError as error:
        raise invalid(error, fields=known) from error
    finally:
        await form.close()
    return ParsedRequest(fields=validated, image=image)


async def _only_image(form: FormData) -> bytes:
    files = [(name, value) for name, value in form.multi_items() if isinstance(value, UploadFile)]
    if len(files) != 1 or files[0][0] != _IMAGE:
        raise InvalidField("send exactly one file part, named image", param=_IMAGE)
    return await files[0][1].read()


def _form_fields(form: FormData, fields: type[BaseModel]) -> dict[str, Any]:
    """Return form values by name. `labels` may be repeated or be one JSON array; any other field comes once."""
    collected: dict[str, Any] = {}
    for name, value in form.multi_items():
        if isinstance(value, str):
            collected.setdefault(name, []).append(value)
    for name, values in collected.items():
        if name == "labels" and "labels" in fields.model_fields:
            if len(values) == 1 and values[0].lstrip().startswith("["):
                collected[name] = _json_array(values[0])
        elif len(values) > 1 and name in fields.model_fields:
            raise InvalidField("the field was sent more than once", param=name)
        else:
            collected[name] = values[0]
    return collected


def _json_array(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidField("labels is not a JSON array", param="labels") from error
