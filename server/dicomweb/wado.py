"""Fetch an instance, or the metadata of a series, by WADO-RS (PS3.18 section 10.4)."""

import httpcore

from medmoe.model.image_formats.signature import is_dicom
from medmoe.server.dicomweb.connection import SourceConnections, header, read
from medmoe.server.dicomweb.errors import InstanceNotFound, InstanceTooLarge, InvalidSourceAnswer
from medmoe.server.dicomweb.multipart import DICOM, MULTIPART, SingleInstance, media_type
from medmoe.server.dicomweb.sources import Source
from medmoe.server.schemas.inference import InstanceReference, SeriesReference

_ACCEPT = f'{MULTIPART}; type="{DICOM}"; transfer-syntax=*'
"""As the source has stored the object: transcoding would change its pixels, or cost the source time."""
_MAX_PREAMBLE = 64 * 1024
"""Bytes beside the object: boundaries and headers."""
_METADATA = "application/dicom+json"
_NO_CONTENT = 204


async def retrieve(
    connections: SourceConnections, source: Source, reference: InstanceReference, *, max_bytes: int
) -> bytes:
    """Return the DICOM file of an instance.

    Raises InstanceTooLarge and what SourceConnections.request raises. The UIDs in the file are not checked.
    """
    target = f"/studies/{reference.study}/series/{reference.series}/instances/{reference.instance}"
    async with connections.request(source, "GET", target, accept=_ACCEPT) as response:
        data = await _object(response, max_bytes=max_bytes)
    if not is_dicom(data):
        raise InvalidSourceAnswer("the source sends something else than a DICOM file")
    return data


async def metadata(connections: SourceConnections, source: Source, series: SeriesReference, *, max_bytes: int) -> bytes:
    """Return the metadata of a series' instances, DICOM JSON (PS3.18 annex F).

    Raises InstanceTooLarge and what SourceConnections.request raises.
    """
    target = f"/studies/{series.study}/series/{series.series}/metadata"
    async with connections.request(source, "GET", target, accept=_METADATA) as response:
        if response.status == _NO_CONTENT:
            raise InstanceNotFound()
        if media_type(header(response, b"content-type"))[0] not in (_METADATA, "application/json"):
            raise InvalidSourceAnswer("the source sends something else than metadata")
        try:
            return await read(response, max_bytes=max_bytes)
        except InvalidSourceAnswer as error:
            raise InstanceTooLarge.over(max_bytes) from error


async def _object(response: httpcore.Response, *, max_bytes: int) -> bytes:
    kind, parameters = media_type(header(response, b"content-type"))
    if kind == DICOM:
        # Some sources send a single object without the multipart around it.
        try:
            return await read(response, max_bytes=max_bytes)
        except InvalidSourceAnswer as error:
            raise InstanceTooLarge.over(max_bytes) from error
    if kind != MULTIPART or parameters.get(b"type", DICOM.encode()).lower() != DICOM.encode():
        raise InvalidSourceAnswer("the source sends something else than DICOM")
    parser = SingleInstance(parameters.get(b"boundary", b""), max_bytes=max_bytes)
    received = 0
    async for chunk in response.aiter_stream():
        received += len(chunk)
        if received > max_bytes + _MAX_PREAMBLE:
            raise InstanceTooLarge.over(max_bytes)
        parser.feed(chunk)
        if parser.complete:
            return bytes(parser.data)
    raise InvalidSourceAnswer("the source breaks off within the object")
