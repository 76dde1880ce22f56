"""List studies, series and instances by QIDO-RS (PS3.18 section 10.6); nothing that names a patient is asked for."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar
from urllib.parse import urlencode

from pydantic import ValidationError
from pydantic_core import from_json

from medmoe.server.dicomweb.connection import SourceConnections, header, read
from medmoe.server.dicomweb.errors import InvalidSourceAnswer
from medmoe.server.dicomweb.listing import InstanceInfo, SeriesInfo, StudyInfo
from medmoe.server.dicomweb.multipart import media_type
from medmoe.server.dicomweb.sources import Source

Listed = TypeVar("Listed", StudyInfo, SeriesInfo, InstanceInfo)

_ACCEPT = "application/dicom+json"
_MAX_BYTES = 16 * 2**20
_NO_CONTENT = 204
_MORE = b"299"
"""Code of a warning that there are more than were sent; other warnings have it, too."""
_MAX_PAGES = 100

_UIDS = _STUDY, _SERIES, _INSTANCE = "0020000D", "0020000E", "00080018"
_STUDY_FIELDS = ("00080020", "00080030", "00081030", "00080061", "00201206", "00201208")
_SERIES_FIELDS = ("00080060", "00200011", "0008103E", "00201209")
_INSTANCE_FIELDS = ("00080016", "00200013", "00280010", "00280011", "00280008")


async def list_studies(
    connections: SourceConnections, source: Source, *, filters: Mapping[str, str], limit: int
) -> tuple[StudyInfo, ...]:
    """Return the studies that match `filters`, attribute keywords with QIDO-RS values."""
    items = await _query(connections, source, "/studies", fields=_STUDY_FIELDS, filters=filters, limit=limit)
    return _listed(items, _study)


async def list_series(
    connections: SourceConnections, source: Source, study: str, *, limit: int
) -> tuple[SeriesInfo, ...]:
    """Return the series of a study."""
    items = await _query(connections, source, f"/studies/{study}/series", fields=_SERIES_FIELDS, limit=limit)
    _require(items, {_STUDY: study})
    return _listed(items, _series)


async def list_instances(
    connections: SourceConnections, source: Source, study: str, series: str, *, limit: int
) -> tuple[InstanceInfo, ...]:
    """Return the instances of a series."""
    target = f"/studies/{study}/series/{series}/instances"
    items = await _query(connections, source, target, fields=_INSTANCE_FIELDS, limit=limit)
    _require(items, {_STUDY: study, _SERIES: series})
    return _listed(items, _instance)


async def _query(
    connections: SourceConnections,
    source: Source,
    target: str,
    *,
    fields: tuple[str, ...],
    filters: Mapping[str, str] | None = None,
    limit: int,
) -> list[dict[str, Any]]:
    """Return at most `limit` items: more than one page of a source that says there are more (PS3.18 8.3.4.4)."""
    found: list[dict[str, Any]] = []
    seen: set[str] = set()
    for _ in range(_MAX_PAGES):
        parameters = [*(filters or {}).items(), *(("includefield", field) for field in fields)]
        parameters.append(("limit", str(limit - len(found))))
        if found:
            parameters.append(("offset", str(len(found))))
        page, is_last = await _page(connections, source, f"{target}?{urlencode(parameters)}")
        # A source may ignore the limit, and the offset.
        uids = {uid for item in page for tag in _UIDS if (uid := _text(item, tag))}
        if not page or (found and uids <= seen):
            break
        seen |= uids
        found += page[: limit - len(found)]
        if is_last or len(found) == limit:
            break
    return found


async def _page(connections: SourceConnections, source: Source, target: str) -> tuple[list[dict[str, Any]], bool]:
    """Return what one response lists, and whether the source says no more of others."""
    async with connections.request(source, "GET", target, accept=_ACCEPT) as response:
        if response.status == _NO_CONTENT:
            return [], True
        if media_type(header(response, b"content-type"))[0] not in (_ACCEPT, "application/json"):
            raise InvalidSourceAnswer("the source sends something else than a list")
        warnings = [value.strip() for name, value in response.headers if name.lower() == b"warning"]
        body = await read(response, max_bytes=_MAX_BYTES)
    try:
        items = from_json(body)
    except ValueError as error:
        raise InvalidSourceAnswer() from error
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise InvalidSourceAnswer("the source sends something else than a list")
    return items, not any(warning.startswith(_MORE) for warning in warnings)


def _require(items: list[dict[str, Any]], expected: Mapping[str, str]) -> None:
    """Raise InvalidSourceAnswer for an item of another study or series."""
    if any(_text(item, tag) not in (None, uid) for item in items for tag, uid in expected.items()):
        raise InvalidSourceAnswer("the source lists what was not asked for")


def _listed(items: list[dict[str, Any]], convert: Callable[[dict[str, Any]], Listed]) -> tuple[Listed, ...]:
    try:
        return tuple(map(convert, items))
    except ValidationError as error:
        raise InvalidSourceAnswer("the source lists an object without a valid UID") from error


def _study(item: dict[str, Any]) -> StudyInfo:
    return StudyInfo.model_validate(
        {
            "study": _text(item, _STUDY),
            "date": _text(item, "00080020"),
            "time": _text(item, "00080030"),
            "description": _text(item, "00081030"),
            "modalities": tuple(value for value in _values(item, "00080061") if isinstance(value, str)),
            "series_count": _whole(item, "00201206"),
            "instance_count": _whole(item, "00201208"),
        }
    )


def _series(item: dict[str, Any]) -> SeriesInfo:
    return SeriesInfo.model_validate(
        {
            "series": _text(item, _SERIES),
            "modality": _text(item, "00080060"),
            "number": _whole(item, "00200011"),
            "description": _text(item, "0008103E"),
            "instance_count": _whole(item, "00201209"),
        }
    )


def _instance(item: dict[str, Any]) -> InstanceInfo:
    return InstanceInfo.model_validate(
        {
            "instance": _text(item, _INSTANCE),
            "sop_class": _text(item, "00080016"),
            "number": _whole(item, "00200013"),
            "rows": _whole(item, "00280010"),
            "columns": _whole(item, "00280011"),
            "frames": _whole(item, "00280008"),
        }
    )


def _values(item: dict[str, Any], tag: str) -> list[Any]:
    """Return the values of an attribute in DICOM JSON (PS3.18 annex F)."""
    attribute = item.get(tag)
    values = attribute.get("Value") if isinstance(attribute, dict) else None
    return values if isinstance(values, list) else []


def _text(item: dict[str, Any], tag: str) -> str | None:
    values = _values(item, tag)
    # Some sources send the padding of a value, too.
    return values[0].strip(" \0") if values and isinstance(values[0], str) else None


def _whole(item: dict[str, Any], tag: str) -> int | None:
    values = _values(item, tag)
    value = values[0] if values else None
    # Sources write numbers of IS as text too.
    try:
        return int(value) if isinstance(value, int | str) else None
    except ValueError:
        return None
