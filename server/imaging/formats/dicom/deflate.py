"""Inflate deflated DICOM data up to a limit (PS3.5 A.5)."""

import zlib

_RAW, _ZLIB_OR_GZIP = -zlib.MAX_WBITS, 32 + zlib.MAX_WBITS


def inflate(data: bytes, limit: int) -> tuple[bytes, bool]:
    """Return at most `limit` inflated bytes, and whether there are more.

    DICOM wants a raw stream; one in a zlib or gzip envelope is read too. Raises zlib.error.
    """
    try:
        return _inflate(data, limit, _RAW)
    except zlib.error:
        return _inflate(data, limit, _ZLIB_OR_GZIP)


def _inflate(data: bytes, limit: int, envelope: int) -> tuple[bytes, bool]:
    inflater = zlib.decompressobj(envelope)
    found = inflater.decompress(data, limit)
    return found, bool(inflater.unconsumed_tail)
