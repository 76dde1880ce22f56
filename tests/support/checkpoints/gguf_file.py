"""Write GGUF files for tests, and decode their blocks one number at a time."""

import struct
from collections.abc import Mapping, Sequence

import numpy as np

F32, Q4_1, Q8_0 = 0, 3, 8
_NUMBER = {bool: (7, "?"), int: (4, "I"), float: (6, "f")}


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def value(field: object) -> bytes:
    """Encode a typed value of the header."""
    if isinstance(field, str):
        return struct.pack("<I", 8) + text(field)
    if isinstance(field, list):
        kind, code = (8, "") if isinstance(field[0], str) else _NUMBER[type(field[0])]
        items = b"".join(text(item) if kind == 8 else struct.pack(f"<{code}", item) for item in field)
        return struct.pack("<IIQ", 9, kind, len(field)) + items
    kind, code = _NUMBER[type(field)]
    return struct.pack(f"<I{code}", kind, field)


def gguf(
    fields: Mapping[str, object],
    tensors: Mapping[str, tuple[Sequence[int], int, bytes]],
    *,
    version: int = 3,
    promised: tuple[int, int] | None = None,
) -> bytes:
    """`tensors`: shape (rows first), type and raw bytes by name. `promised`: other counts than the true ones."""
    count = (len(tensors), len(fields)) if promised is None else promised
    header = b"GGUF" + struct.pack("<IQQ", version, *count)
    header += b"".join(text(name) + value(field) for name, field in fields.items())
    offset, data = 0, b""
    for name, (shape, kind, raw) in tensors.items():
        header += text(name) + struct.pack("<I", len(shape)) + struct.pack(f"<{len(shape)}Q", *reversed(shape))
        header += struct.pack("<IQ", kind, offset)
        padded = raw + bytes(-len(raw) % 32)
        data, offset = data + padded, offset + len(padded)
    return header + bytes(-len(header) % 32) + data


def slow_q4_1(raw: bytes) -> list[float]:
    numbers = []
    for start in range(0, len(raw), 20):
        scale, least = struct.unpack("<ee", raw[start : start + 4])
        levels = raw[start + 4 : start + 20]
        numbers += [(level & 15) * scale + least for level in levels] + [
            (level >> 4) * scale + least for level in levels
        ]
    return numbers


def slow_q8_0(raw: bytes) -> list[float]:
    numbers = []
    for start in range(0, len(raw), 34):
        (scale,) = struct.unpack("<e", raw[start : start + 2])
        numbers += [level * scale for level in struct.unpack("<32b", raw[start + 2 : start + 34])]
    return numbers


def random_blocks(kind: int, *, weights: int, seed: int = 0) -> bytes:
    """Return random blocks with finite scales."""
    drawn = np.random.default_rng(seed)
    blocks = []
    for _ in range(weights // 32):
        scales = drawn.uniform(0.01, 0.1, 2 if kind == Q4_1 else 1).astype(np.float16).tobytes()
        blocks.append(scales + drawn.bytes(16 if kind == Q4_1 else 32))
    return b"".join(blocks)
