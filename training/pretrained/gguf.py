"""Read GGUF, llama.cpp's file of metadata and tensors, for the types Q4_1, Q8_0 and F32.

The `gguf` package does not replace it: version 0.19 loops without end over a header that promises 2**61 numbers, reads
weights from the header when a tensor's offset wraps around, and takes six times as long for SmolLM2.
"""

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from medmoe.model.errors import CheckpointError
from medmoe.model.files.terminal_safe import terminal_safe

Scalar = int | float | bool | str
Value = Scalar | list[Scalar]
Floats = npt.NDArray[np.float32]

_MAGIC, _VERSIONS = b"GGUF", (2, 3)
_STRING, _ARRAY, _BOOL = 8, 9, 7
_NUMBERS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", _BOOL: "B", 10: "Q", 11: "q", 12: "d"}
_MAX_DIMENSIONS, _MAX_ALIGNMENT = 4, 2**16
_LEAST_STRING = 8
"""Bytes of an empty string, and so the least that an element of an array of strings takes."""
BLOCK = 32
"""Weights that share a scale in both quantised types."""


@dataclass(frozen=True, slots=True)
class _Kind:
    name: str
    weights: int
    nbytes: int
    decode: Callable[[memoryview], Floats]
    """Decodes whole blocks, each of `weights` numbers in `nbytes` bytes."""


@dataclass(frozen=True, slots=True)
class GGUFTensor:
    """Where a tensor lies; `shape` counts rows first, as torch does."""

    shape: tuple[int, ...]
    kind: _Kind
    start: int
    nbytes: int


class GGUFFile:
    """Read metadata and tensors by name."""

    def __init__(self, content: bytes) -> None:
        """Raise CheckpointError when `content` is not a whole GGUF file, or has a tensor of another type."""
        self._content = memoryview(content)
        self._place = 0
        if self._take(4) != _MAGIC:
            raise CheckpointError("this is not a GGUF file")
        if (version := self._number("I")) not in _VERSIONS:
            raise CheckpointError(f"GGUF version {version} is not supported, only {_VERSIONS}")
        tensors, fields = self._number("Q"), self._number("Q")
        self.fields: dict[str, Value] = {}
        for _ in range(self._count(fields, least=_LEAST_STRING + 5)):
            self._unique(name := self._string(), self.fields)
            self.fields[name] = self._value()
        infos = [self._info() for _ in range(self._count(tensors, least=_LEAST_STRING + 16))]
        alignment = self.fields.get("general.alignment", 32)
        if not isinstance(alignment, int) or not 0 < alignment <= _MAX_ALIGNMENT:
            raise CheckpointError("general.alignment is not a sensible number of bytes")
        data = -(-self._place // alignment) * alignment
        self.tensors: dict[str, GGUFTensor] = {}
        for name, shape, kind, offset in infos:
            self._unique(name, self.tensors)
            nbytes = math.prod(shape) // kind.weights * kind.nbytes
            if data + offset + nbytes > len(content):
                raise CheckpointError(f"the file ends before {terminal_safe(name)} does: it is not whole")
            self.tensors[name] = GGUFTensor(shape, kind, data + offset, nbytes)

    def read(self, name: str) -> Floats:
        """Return the tensor's values. Raises KeyError for a name that is not in `tensors`."""
        tensor = self.tensors[name]
        return tensor.kind.decode(self._content[tensor.start : tensor.start + tensor.nbytes]).reshape(tensor.shape)

    def _take(self, count: int) -> bytes:
        if count > len(self._content) - self._place:
            raise CheckpointError("the GGUF file ends in the middle of its header: it is not whole")
        self._place += count
        return bytes(self._content[self._place - count : self._place])

    def _number(self, code: str) -> int:
        """Return a little-endian number."""
        (value,) = struct.unpack(f"<{code}", self._take(struct.calcsize(f"<{code}")))
        return int(value)

    def _count(self, count: int, *, least: int) -> int:
        """Read a count of items of at least so many bytes, all of which must still fit into the file."""
        if count * least > len(self._content) - self._place:
            raise CheckpointError(f"the GGUF header promises {count} entries, more than the file has room for")
        return count

    def _string(self) -> str:
        try:
            return self._take(self._number("Q")).decode()
        except UnicodeDecodeError as error:
            raise CheckpointError("a string of the GGUF header is not UTF-8") from error

    def _value(self) -> Value:
        kind = self._number("I")
        if kind == _STRING:
            return self._string()
        if kind != _ARRAY:
            return self._scalars(kind, 1)[0]
        kind, count = self._number("I"), self._number("Q")
        if kind == _STRING:
            return [self._string() for _ in range(self._count(count, least=_LEAST_STRING))]
        return self._scalars(kind, count)

    def _scalars(self, kind: int, count: int) -> list[Scalar]:
        code = _NUMBERS.get(kind)
        if code is None:
            raise CheckpointError(f"the GGUF header holds a value of the unknown or nested type {kind}")
        count = self._count(count, least=struct.calcsize(f"<{code}"))
        values = struct.unpack(f"<{count}{code}", self._take(count * struct.calcsize(f"<{code}")))
        return [bool(value) for value in values] if kind == _BOOL else list(values)

    def _info(self) -> tuple[str, tuple[int, ...], _Kind, int]:
        name, dimensions = self._string(), self._number("I")
        if not 0 < dimensions <= _MAX_DIMENSIONS:
            raise CheckpointError(f"{terminal_safe(name)} has {dimensions} dimensions")
        # The fastest dimension comes first in the file.
        shape = tuple(self._number("Q") for _ in range(dimensions))[::-1]
        number, offset = self._number("I"), self._number("Q")
        kind = _KINDS.get(number)
        if kind is None:
            known = ", ".join(known.name for known in _KINDS.values())
            raise CheckpointError(f"{terminal_safe(name)} is stored as GGUF type {number}; supported: {known}")
        if shape[-1] % kind.weights:
            raise CheckpointError(f"the rows of {terminal_safe(name)} are not whole blocks of {kind.weights} numbers")
        return name, shape, kind, offset

    def _unique(self, name: str, known: dict[str, Value] | dict[str, GGUFTensor]) -> None:
        if name in known:
            raise CheckpointError(f"the GGUF header holds {terminal_safe(name)} twice")


def _f32(raw: memoryview) -> Floats:
    values: Floats = np.frombuffer(raw, dtype="<f4").astype(np.float32)
    return values


def _q8_0(raw: memoryview) -> Floats:
    """Dequantize blocks of a half-precision scale and one signed byte a weight."""
    blocks = np.frombuffer(raw, dtype=[("scale", "<f2"), ("levels", "i1", BLOCK)])
    values: Floats = blocks["scale"].astype(np.float32)[:, None] * blocks["levels"].astype(np.float32)
    return values.ravel()


def _q4_1(raw: memoryview) -> Floats:
    """Dequantize blocks of half-precision scale and minimum, then 16 bytes, the first weights in their low halves."""
    blocks = np.frombuffer(raw, dtype=[("scale", "<f2"), ("least", "<f2"), ("levels", "u1", BLOCK // 2)])
    levels = np.concatenate([blocks["levels"] & 15, blocks["levels"] >> 4], axis=1).astype(np.float32)
    scale, least = (blocks[name].astype(np.float32)[:, None] for name in ("scale", "least"))
    values: Floats = levels * scale + least
    return values.ravel()


_KINDS = {
    0: _Kind("F32", 1, 4, _f32),
    3: _Kind("Q4_1", BLOCK, 4 + BLOCK // 2, _q4_1),
    8: _Kind("Q8_0", BLOCK, 2 + BLOCK, _q8_0),
}
