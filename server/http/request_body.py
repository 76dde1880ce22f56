"""Parse a JSON or multipart body into validated fields and the image or series as it was sent."""

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import to_json
from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData, UploadFile
from starlette.requests import Request

from medmoe.server.errors import InvalidField, UnsupportedContentType
from medmoe.server.http.error_responses import invalid
from medmoe.server.http.form import received_form
from medmoe.server.http.json_body import read_json_object, require_no_query
from medmoe.server.imaging.series.errors import SeriesTooLarge
from medmoe.server.schemas.classify import MAX_LABELS
from medmoe.server.schemas.inference import InstanceReference, SentImage, SentSeries, SeriesReference
from medmoe.server.schemas.json_text import InvalidJSON, parse_json

Fields = TypeVar("Fields", bound=BaseModel)

_MAX_PARTS = 512
_MAX_FIELD_BYTES = 64 * 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class ParsedRequest(Generic[Fields]):
    """A parsed body; `image` is base64 text, a URL or a reference from JSON, a file's bytes from multipart."""

    fields: Fields
    image: SentImage


@dataclass(frozen=True, kw_only=True, slots=True)
class ParsedSeriesRequest(Generic[Fields]):
    """A parsed body with a series."""

    fields: Fields
    series: SentSeries


@dataclass(frozen=True, kw_only=True, slots=True)
class _Attachment:
    """The field beside the others: text or a reference in JSON, files in a form."""

    name: str
    reference: type[SeriesReference]
    noun: str
    max_files: int


_IMAGE = _Attachment(name="image", reference=InstanceReference, noun="an instance", max_files=1)


async def receive(request: Request, fields: type[Fields], *, as_json: type[BaseModel]) -> ParsedRequest[Fields]:
    """Parse the body by its Content-Type; `as_json` is `fields` plus `image`.

    Raises MalformedBody, InvalidField, UnsupportedContentType, BodyTooLarge, ClientDisconnected.
    """
    parsed, sent = await _receive(request, fields, as_json=as_json, attachment=_IMAGE)
    if isinstance(sent, str | InstanceReference):
        return ParsedRequest(fields=parsed, image=sent)
    assert isinstance(sent, tuple)
    return ParsedRequest(fields=parsed, image=sent[0])


async def receive_series(
    request: Request, fields: type[Fields], *, as_json: type[BaseModel], max_files: int
) -> ParsedSeriesRequest[Fields]:
    """Parse a body with a series. Raises what `receive` raises, and SeriesTooLarge for over `max_files` files."""
    attachment = _Attachment(name="series", reference=SeriesReference, noun="a series", max_files=max_files)
    parsed, sent = await _receive(request, fields, as_json=as_json, attachment=attachment)
    return ParsedSeriesRequest(fields=parsed, series=sent)


async def _receive(
    request: Request, fields: type[Fields], *, as_json: type[BaseModel], attachment: _Attachment
) -> tuple[Fields, SentSeries]:
    content_type, _ = parse_options_header(request.headers.get("content-type"))
    if content_type.lower() == b"application/json":
        document = await read_json_object(request, known=as_json.model_fields.keys())
        return _from_json(document, fields, as_json=as_json, attachment=attachment)
    if content_type.lower() == b"multipart/form-data":
        return await _from_multipart(request, fields, attachment)
    raise UnsupportedContentType()


def _from_json(
    document: dict[str, Any], fields: type[Fields], *, as_json: type[BaseModel], attachment: _Attachment
) -> tuple[Fields, str | SeriesReference]:
    sent_as = attachment.name
    for name, value in document.items():
        # Validation would describe each of thousands of wrong items.
        is_reference = (
            name == sent_as and isinstance(value, dict) and len(value) <= len(attachment.reference.model_fields)
        )
        if (isinstance(value, dict) and not is_reference) or (isinstance(value, list) and len(value) > MAX_LABELS):
            raise InvalidField(f"the field is an object or has over {MAX_LABELS} items", param=name)
    text: str | None = None
    if sent_as in document:
        _check_attachment(document[sent_as], attachment)
        if isinstance(document[sent_as], str):
            # Set aside: the validated copy would take as much memory again.
            text, document[sent_as] = document[sent_as], ""
    whole = validated(document, as_json)
    sent: str | SeriesReference = getattr(whole, sent_as) if text is None else text
    return fields.model_validate(whole.model_dump(exclude={sent_as})), sent


def validated(document: dict[str, Any], model: type[Fields]) -> Fields:
    """Return `document` as `model`. Raises InvalidField."""
    try:
        # Strict and from JSON: "5" is not a number here, although it is one in a form, and an array is a tuple.
        return model.model_validate_json(to_json(document), strict=True)
    except ValidationError as error:
        raise invalid(error, fields=frozenset(model.model_fields)) from error


def _check_attachment(value: Any, attachment: _Attachment) -> None:
    """Raise InvalidField for a value that is neither text nor a reference: pydantic's message for a union is vague."""
    if isinstance(value, dict):
        try:
            attachment.reference.model_validate(value, strict=True)
        except ValidationError as error:
            fields = frozenset(attachment.reference.model_fields)
            raise invalid(error, fields=fields, within=attachment.name) from error
    elif not isinstance(value, str):
        raise InvalidField(
            f"Input should be a valid string, or an object that names {attachment.noun}", param=attachment.name
        )


async def _from_multipart(
    request: Request, fields: type[Fields], attachment: _Attachment
) -> tuple[Fields, tuple[bytes, ...]]:
    known = frozenset({attachment.name, *fields.model_fields})
    require_no_query(request, known=known)
    async with received_form(
        request,
        max_files=max(_MAX_PARTS, attachment.max_files),
        max_fields=_MAX_PARTS,
        max_field_bytes=_MAX_FIELD_BYTES,
    ) as form:
        try:
            sent = await _files(form, attachment)
            validated = fields.model_validate(_form_fields(form, fields))
        except ValidationError as error:
            raise invalid(error, fields=known) from error
    return validated, sent


async def _files(form: FormData, attachment: _Attachment) -> tuple[bytes, ...]:
    """Return the files of a form. Raises InvalidField, SeriesTooLarge."""
    files = [(name, value) for name, value in form.multi_items() if isinstance(value, UploadFile)]
    if attachment.max_files == 1:
        if len(files) != 1 or files[0][0] != attachment.name:
            raise InvalidField(f"send exactly one file part, named {attachment.name}", param=attachment.name)
    elif not files or any(name != attachment.name for name, _ in files):
        raise InvalidField(f"send the files as parts named {attachment.name}", param=attachment.name)
    if len(files) > attachment.max_files:
        raise SeriesTooLarge.over_files(attachment.max_files)
    sent = []
    for _, file in files:
        sent.append(await file.read())
        # The form's own copy.
        await file.close()
    return tuple(sent)


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
        return parse_json(text.encode())
    except InvalidJSON as error:
        raise InvalidField("labels is not a JSON array", param="labels") from error
