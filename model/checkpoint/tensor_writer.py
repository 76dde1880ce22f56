"""Write a safetensors file one tensor at a time, for models larger than memory.

safetensors' own `save_file` wants every tensor at once. The format is small enough to write by hand: eight bytes of
header length, a JSON header that says each tensor's dtype, shape and place, then the bytes.
"""

import hashlib
import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import torch

DTYPE_NAMES = {torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}
_ALIGNMENT = 8
_CHUNK = 64 * 2**20


class TensorSpec(NamedTuple):
    """Entry of one tensor in the header, written before its values are known."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


class TensorWriter:
    """A safetensors file being written: the header at once, then each tensor in the order announced.

    `sha256` is the digest of everything written so far; on a clean exit it is the file's.
    """

    def __init__(self, path: Path, specs: Sequence[TensorSpec]) -> None:
        header: dict[str, object] = {"__metadata__": {"format": "pt"}}
        end = 0
        for spec in specs:
            start, end = end, end + spec.nbytes
            entry = {"dtype": DTYPE_NAMES[spec.dtype], "shape": list(spec.shape), "data_offsets": [start, end]}
            if spec.name in header:
                raise ValueError(f"{spec.name} is announced twice")
            header[spec.name] = entry
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % _ALIGNMENT)
        self._left = list(reversed(specs))
        self._file = path.open("xb")
        self._digest = hashlib.sha256()
        self._put(memoryview(len(text).to_bytes(8, "little") + text))

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def write(self, name: str, tensor: torch.Tensor) -> None:
        """Append the next tensor. Raises ValueError when it is not the one announced."""
        spec = self._left.pop()
        if (name, tensor.dtype, tuple(tensor.shape)) != (spec.name, spec.dtype, spec.shape):
            raise ValueError(f"{name} ({tensor.dtype}, {tuple(tensor.shape)}) comes where {spec} was announced")
        flat = tensor.detach().contiguous().view(-1)
        step = _CHUNK // tensor.dtype.itemsize
        for start in range(0, flat.numel(), step):
            self._put(flat[start : start + step].view(torch.uint8).numpy().data)

    def _put(self, data: memoryview) -> None:
        self._digest.update(data)
        self._file.write(data)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        with self._file:
            if kind is None:
                if self._left:
                    raise ValueError(f"{len(self._left)} announced tensors were not written")
                self._file.flush()
                os.fsync(self._file.fileno())
