"""Write DICOM files element by element, with any representation, byte order, encapsulation or fault."""

import struct
from collections.abc import Sequence
from typing import Any

import numpy as np

EXPLICIT, IMPLICIT, BIG_ENDIAN = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.2"
SYNTAXES = (EXPLICIT, IMPLICIT, BIG_ENDIAN)
END = struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
UNDEFINED = 0xFFFFFFFF
_LONG = ("OB", "OW", "OF", "OD", "SQ", "UN")
_PACKED = {"US": "H", "SS": "h", "UL": "I", "FL": "f", "FD": "d"}
Element = tuple[str, Any]
"""A value representation, and bytes, text or numbers."""


def element(tag: int, vr: str, value: Any, *, syntax: str = EXPLICIT, length: int | None = None) -> bytes:
    """Return one element; `length` replaces the true one."""
    order = ">" if syntax == BIG_ENDIAN else "<"
    if isinstance(value, str):
        value = value.encode()
    elif not isinstance(value, bytes):
        value = struct.pack(f"{order}{len(value)}{_PACKED[vr]}", *value)
    value += (b"\0" if vr in ("UI", "OB", "UN") else b" ") * (len(value) % 2)
    length = len(value) if length is None else length
    head = struct.pack(f"{order}HH", tag >> 16, tag & 0xFFFF)
    if syntax == IMPLICIT:
        return head + struct.pack("<I", length) + value
    if vr in _LONG:
        return head + vr.encode() + b"\0\0" + struct.pack(f"{order}I", length) + value
    return head + vr.encode() + struct.pack(f"{order}H", length) + value


def sequence(*elements: tuple[int, str, Any], syntax: str = EXPLICIT) -> Element:
    """Return the value of a sequence of one item."""
    body = b"".join(element(tag, vr, value, syntax=syntax) for tag, vr, value in elements)
    return "SQ", struct.pack(f"{'>' if syntax == BIG_ENDIAN else '<'}HHI", 0xFFFE, 0xE000, len(body)) + body


def meta_header(syntax: str) -> bytes:
    body = element(0x00020002, "UI", "1.2.840.10008.5.1.4.1.1.7") + element(0x00020010, "UI", syntax)
    return bytes(128) + b"DICM" + element(0x00020000, "UL", [len(body)]) + body


def file(
    pixels: np.ndarray | bytes | None,
    elements: dict[int, Element | None] | None = None,
    *,
    syntax: str = EXPLICIT,
    shape: tuple[int, int] = (64, 64),
    colour: str = "MONOCHROME2",
    bits: int = 16,
    stored: int | None = None,
    signed: bool = False,
    head: bytes | None = None,
) -> bytes:
    """Return a file of `pixels`, or of encapsulated bytes; None leaves an element out, `head` replaces the header."""
    stored = stored or bits
    samples = 3 if colour.startswith(("RGB", "YBR")) else 1
    found: dict[int, Element | None] = {
        0x00080016: ("UI", "1.2.840.10008.5.1.4.1.1.7"),
        0x00080060: ("CS", "CT"),
        0x00280002: ("US", [samples]),
        0x00280004: ("CS", colour),
        0x00280006: ("US", [0]) if samples > 1 else None,
        0x00280010: ("US", [shape[0]]),
        0x00280011: ("US", [shape[1]]),
        0x00280100: ("US", [bits]),
        0x00280101: ("US", [stored]),
        0x00280102: ("US", [stored - 1]),
        0x00280103: ("US", [int(signed)]),
    }
    found |= elements or {}
    body = b"".join(element(tag, *each, syntax=syntax) for tag, each in sorted(found.items()) if each is not None)
    if isinstance(pixels, np.ndarray):
        value = pixels.astype(pixels.dtype.newbyteorder(">" if syntax == BIG_ENDIAN else "<")).tobytes()
        body += element(0x7FE00010, "OB" if pixels.itemsize == 1 else "OW", value, syntax=syntax)
    elif pixels is not None:
        body += element(0x7FE00010, "OB", pixels, length=UNDEFINED)
    return (meta_header(syntax) if head is None else head) + body


def fragments(*data: bytes, table: Sequence[int] = (), end: bool = True) -> bytes:
    """Return an encapsulated value: an offset table, and one item for each fragment."""
    items = [struct.pack(f"<{len(table)}I", *table), *(each + b"\0" * (len(each) % 2) for each in data)]
    value = b"".join(struct.pack("<HHI", 0xFFFE, 0xE000, len(item)) + item for item in items)
    return value + END if end else value


def run_length(segments: Sequence[bytes]) -> bytes:
    """Return a run-length frame of literal runs."""
    packed, offsets = b"", []
    for segment in segments:
        offsets.append(64 + len(packed))
        for at in range(0, len(segment), 128):
            run = segment[at : at + 128]
            packed += bytes([len(run) - 1]) + run
        packed += b"\0" * (len(packed) % 2)
    return struct.pack("<16I", len(offsets), *offsets, *[0] * (15 - len(offsets))) + packed
