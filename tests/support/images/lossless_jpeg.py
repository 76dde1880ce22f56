"""Write lossless JPEG streams of grey values or colours (T.81, process 14, first predictor)."""

import struct

import numpy as np

_CODE_BITS = 5
"""Bits of the code of each category; 17 categories leave some codes unused."""


def lossless_jpeg(values: np.ndarray, *, bits: int = 12) -> bytes:
    """Return a stream of `values` [rows, columns], or [rows, columns, 3], unsigned, of `bits` bits."""
    rows, columns = values.shape[:2]
    components = range(1, 1 + (values.shape[2] if values.ndim == 3 else 1))
    known = values.astype(np.int64)
    predicted = np.empty_like(known)
    predicted[:, 1:] = known[:, :-1]
    predicted[1:, 0] = known[:-1, 0]
    predicted[0, 0] = 2 ** (bits - 1)
    differences = (known - predicted + 2**15) % 2**16 - 2**15
    coded = "".join(_code(int(each)) for each in differences.ravel())
    coded += "1" * (-len(coded) % 8)
    scan = int(coded, 2).to_bytes(len(coded) // 8, "big").replace(b"\xff", b"\xff\0")
    frame = struct.pack(">BHHB", bits, rows, columns, len(components)) + b"".join(
        bytes([each, 0x11, 0]) for each in components
    )
    chosen = b"".join(bytes([each, 0]) for each in components)
    counts = bytes(17 if length == _CODE_BITS else 0 for length in range(1, 17))
    return (
        b"\xff\xd8"
        + _segment(0xC3, frame)
        + _segment(0xC4, b"\0" + counts + bytes(range(17)))
        + _segment(0xDA, bytes([len(components)]) + chosen + bytes([1, 0, 0]))
        + scan
        + b"\xff\xd9"
    )


def _code(difference: int) -> str:
    category = abs(difference).bit_length()
    more = difference if difference >= 0 else difference + 2**category - 1
    # The last category has one difference alone.
    return f"{category:0{_CODE_BITS}b}" + (f"{more:0{category}b}" if 0 < category < 16 else "")


def _segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body
