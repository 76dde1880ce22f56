"""Write TIFF and BigTIFF files of any samples, byte order, layout and predictor."""

import struct
import zlib
from typing import Any

import numpy as np

_FORMATS = {"u": 1, "i": 2, "f": 3}


def tiff(
    values: np.ndarray,
    *,
    order: str = "<",
    big: bool = False,
    photometric: int | None = None,
    deflate: bool = False,
    predictor: int = 1,
    planes: bool = False,
    tile: int = 0,
    bits: int = 0,
    strips: list[bytes] | None = None,
    tags: dict[int, list[int]] | None = None,
    directory_first: bool = False,
) -> bytes:
    """Return a file of `values` [rows, columns] or [rows, columns, samples], one strip or tiles a plane.

    `order` is < or >; `bits` packs fewer bits than the type has; `strips` go in place of the values' own. The
    directory follows the samples unless it goes first.
    """
    samples = values.shape[2] if values.ndim == 3 else 1
    rows, columns = values.shape[:2]
    flat = values.reshape(rows, columns, samples)
    layers = [flat[..., index : index + 1] for index in range(samples)] if planes else [flat]
    parts = []
    for layer in layers:
        for block in _blocks(layer, tile):
            data = _packed(block, bits) if bits else _predicted(block, predictor, order)
            parts.append(zlib.compress(data) if deflate else data)
    parts = strips or parts
    found: dict[int, list[int]] = {
        256: [columns], 257: [rows], 258: [bits or 8 * values.itemsize] * samples, 259: [8 if deflate else 1],
        262: [(2 if samples > 2 else 1) if photometric is None else photometric], 277: [samples],
        284: [2 if planes else 1], 317: [predictor], 339: [_FORMATS[values.dtype.kind]] * samples,
    }  # fmt: skip
    found |= {322: [tile], 323: [tile]} if tile else {278: [rows]}
    names = (324, 325) if tile else (273, 279)
    return _file(found | (tags or {}), parts, *names, order=order, big=big, directory_first=directory_first)


def _blocks(layer: np.ndarray, tile: int) -> list[np.ndarray]:
    if not tile:
        return [layer]
    rows, columns = layer.shape[:2]
    padded = np.zeros((-(-rows // tile) * tile, -(-columns // tile) * tile, layer.shape[2]), layer.dtype)
    padded[:rows, :columns] = layer
    return [
        padded[top : top + tile, left : left + tile]
        for top in range(0, padded.shape[0], tile)
        for left in range(0, padded.shape[1], tile)
    ]


def _predicted(block: np.ndarray, predictor: int, order: str) -> bytes:
    if predictor == 3:
        rows, columns, samples = block.shape
        stored = block.astype(block.dtype.newbyteorder(">")).reshape(rows, columns * samples)
        bytewise = np.ascontiguousarray(stored).view(np.uint8).reshape(rows, -1, block.itemsize)
        ordered = bytewise.transpose(0, 2, 1).reshape(rows, -1, samples)
        return np.diff(ordered, axis=1, prepend=np.zeros((rows, 1, samples), np.uint8)).tobytes()
    if predictor == 2:
        whole = np.ascontiguousarray(block).view(f"u{block.itemsize}")
        block = np.diff(whole, axis=1, prepend=np.zeros_like(whole[:, :1]))
    return block.astype(block.dtype.newbyteorder(order)).tobytes()


def _packed(block: np.ndarray, bits: int) -> bytes:
    rows = block.reshape(len(block), -1)
    flags = (rows[..., None] >> np.arange(bits - 1, -1, -1)) & 1
    return np.packbits(flags.reshape(len(rows), -1).astype(np.uint8), axis=1).tobytes()


def _file(
    tags: dict[int, list[int]],
    parts: list[bytes],
    offsets: int,
    counts: int,
    *,
    order: str,
    big: bool,
    directory_first: bool,
) -> bytes:
    pointer, count = ("Q", "Q") if big else ("I", "H")
    mark = b"II" if order == "<" else b"MM"
    head = mark + (struct.pack(f"{order}HHH", 43, 8, 0) if big else struct.pack(f"{order}H", 42))
    size = struct.calcsize(order + pointer)
    start = len(head) + size
    lengths = [len(part) for part in parts]
    tags = tags | {offsets: lengths, counts: lengths}
    fixed = struct.calcsize(order + count) + len(tags) * (4 + 2 * size) + size
    body, places = b"", []
    lists = (4 * len(values) for values in tags.values())
    before = fixed + sum(length for length in lists if length > size) if directory_first else 0
    for part in parts:
        places.append(start + before + len(body))
        body += part + b"\0" * (len(part) % 2)
    tags = tags | {offsets: places}
    directory = start if directory_first else start + len(body)
    values_at = directory + fixed
    entries, outside = b"", b""
    for tag, values in sorted(tags.items()):
        packed: Any = struct.pack(f"{order}{len(values)}I", *values)
        if len(packed) > size:
            place = struct.pack(order + pointer, values_at + len(outside))
            outside += packed
        else:
            place = packed.ljust(size, b"\0")
        entries += struct.pack(f"{order}HH{pointer}", tag, 4, len(values)) + place
    described = struct.pack(order + count, len(tags)) + entries + bytes(size) + outside
    return head + struct.pack(order + pointer, directory) + (described + body if directory_first else body + described)
