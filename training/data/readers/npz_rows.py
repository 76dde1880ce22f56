"""Read arrays of an .npz row by row: large MedMNIST sets do not fit into memory, and nothing is unpickled."""

import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np

from medmoe.training.data.errors import DatasetError


@dataclass(frozen=True, slots=True)
class Rows:
    """An open array; iterating reads it once, from the first row on. Its shape is [rows, ...]."""

    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]
    _stream: IO[bytes]

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yield each row, of shape `shape[1:]`. Raises EOFError when the file holds fewer than `shape` says."""
        size = int(np.prod(self.shape[1:], dtype=np.int64)) * self.dtype.itemsize
        for _ in range(self.shape[0]):
            row = self._stream.read(size)
            if len(row) < size:
                raise EOFError
            yield np.frombuffer(row, dtype=self.dtype).reshape(self.shape[1:])


@contextmanager
def open_rows(file: Path, *names: str) -> Iterator[tuple[Rows, ...]]:
    """Return the named arrays of `file`, open side by side.

    Raises DatasetError when the file is damaged or no .npz, lacks an array, or one holds Python objects (which only
    unpickling could read); damage that shows while rows are read is raised as DatasetError too.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            missing = [name for name in names if f"{name}.npy" not in archive.namelist()]
            if missing:
                raise DatasetError(f"{file} has no array {', '.join(missing)}")
            yield tuple(_rows(archive.open(f"{name}.npy"), file=file, name=name) for name in names)
    except OSError as error:
        raise DatasetError(f"{file} cannot be read: {error.strerror or 'damaged'}") from error
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        raise DatasetError(f"{file} is damaged or not an .npz file") from error


def _rows(stream: IO[bytes], *, file: Path, name: str) -> Rows:
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran_order, dtype = read(stream)
    if dtype.hasobject:
        raise DatasetError(f"{file}: array {name} holds Python objects, which are not read: unpickling runs code")
    if fortran_order or not shape:
        raise DatasetError(f"{file}: array {name} is not stored row by row")
    return Rows(shape, dtype, stream)
