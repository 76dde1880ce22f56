"""Open one file of upstream weights without executing its content and without reading it whole."""

import pickle
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open

from medmoe.model.checkpoint.tensor_writer import DTYPE_NAMES
from medmoe.model.conversion.weights.source_files import LFS_POINTER
from medmoe.model.errors import CheckpointError
from medmoe.model.files.terminal_safe import terminal_safe

_DTYPES = {name: dtype for dtype, name in DTYPE_NAMES.items()}
_MAX_PICKLE_BYTES = 256 * 2**20


class TensorInfo(NamedTuple):
    """Where a tensor lies and what it looks like; dtype is None where it is no kind of float we convert."""

    file: Path
    shape: tuple[int, ...]
    dtype: torch.dtype | None


class WeightFile(ABC):
    """Read an open file. Where it is mapped, what has been read counts as this process's memory until it is dropped."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @abstractmethod
    def infos(self) -> dict[str, TensorInfo]:
        """Return every tensor by name, in the order in which it lies in the file where that is known."""

    @abstractmethod
    def read(self, name: str) -> torch.Tensor: ...


class SafetensorsFile(WeightFile):
    """Read a safetensors file. Opening checks header, offsets and length, and raises CheckpointError."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        try:
            self._file = safe_open(path, framework="pt")
        except OSError as error:
            raise CheckpointError(f"{path} cannot be read: {error.strerror or _sentence(error)}") from error
        except SafetensorError as error:
            raise CheckpointError(f"{path} is not a whole safetensors file: {_sentence(error)}") from error

    def infos(self) -> dict[str, TensorInfo]:
        names = self._file.offset_keys()
        slices = {name: self._file.get_slice(name) for name in names}
        return {
            name: TensorInfo(self.path, tuple(part.get_shape()), _DTYPES.get(str(part.get_dtype())))
            for name, part in slices.items()
        }

    def read(self, name: str) -> torch.Tensor:
        try:
            tensor: torch.Tensor = self._file.get_tensor(name)
        except (OSError, SafetensorError) as error:
            text = f"{self.path}: {terminal_safe(name)} cannot be read any more: {_sentence(error)}"
            raise CheckpointError(text) from error
        return tensor


class TorchFile(WeightFile):
    """Read a .bin file of torch.save. Unpickled with `weights_only`, which admits tensors and refuses every other
    object.

    Raises CheckpointError for anything but a plain mapping of names to dense tensors.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._check_archive()
        try:
            found = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
        except pickle.UnpicklingError as error:
            raise CheckpointError(f"{path} holds something other than tensors; it was not executed") from error
        except Exception as error:  # whatever a damaged archive raises inside torch
            raise CheckpointError(f"{path} is not a whole torch file: {_sentence(error)}") from error
        if not isinstance(found, Mapping) or not all(isinstance(name, str) for name in found):
            raise CheckpointError(f"{path} does not hold a mapping of names to tensors")
        for name, tensor in found.items():
            if not isinstance(tensor, torch.Tensor) or tensor.layout is not torch.strided or tensor.is_quantized:
                raise CheckpointError(f"{path} holds {terminal_safe(name)}, which is not a dense tensor")
            if tensor.device.type != "cpu":
                raise CheckpointError(
                    f"{path} holds {terminal_safe(name)} without its values (a {tensor.device} tensor)"
                )
        self._tensors: Mapping[str, torch.Tensor] = found

    def _check_archive(self) -> None:
        """Require torch's archive of stored records: a compressed one could unfold without bound."""
        try:
            with zipfile.ZipFile(self.path) as archive:
                records = archive.infolist()
        except OSError as error:
            raise CheckpointError(f"{self.path} cannot be read: {error.strerror or _sentence(error)}") from error
        except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
            raise CheckpointError(f"{self.path} is not a torch file of version 1.6 or later, or not whole") from error
        if any(record.filename.endswith("/constants.pkl") for record in records):
            raise CheckpointError(f"{self.path} is a TorchScript program, not weights of torch.save; it was not run")
        if any(record.compress_type != zipfile.ZIP_STORED for record in records):
            raise CheckpointError(f"{self.path} is compressed, which torch.save never does")
        if any(r.file_size > _MAX_PICKLE_BYTES for r in records if r.filename.endswith(".pkl")):
            raise CheckpointError(f"{self.path} has a pickle far too large for a table of tensors")

    def infos(self) -> dict[str, TensorInfo]:
        return {
            name: TensorInfo(self.path, tuple(tensor.shape), tensor.dtype if tensor.dtype in DTYPE_NAMES else None)
            for name, tensor in self._tensors.items()
        }

    def read(self, name: str) -> torch.Tensor:
        return self._tensors[name]


def open_weight_file(path: Path) -> WeightFile:
    """Open a file. Raises CheckpointError when it cannot be read, is damaged, or is a git-LFS pointer."""
    if not path.is_file():
        raise CheckpointError(f"{path} is not a regular file")
    try:
        with path.open("rb") as file:
            pointer = file.read(len(LFS_POINTER)) == LFS_POINTER
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error
    if pointer:
        raise CheckpointError(f"{path} is a git-LFS pointer, not the weights: fetch them with `git lfs pull`")
    return SafetensorsFile(path) if path.suffix == ".safetensors" else TorchFile(path)


def _sentence(error: Exception) -> str:
    """Return the first line of what a library says."""
    return terminal_safe((str(error).splitlines() or [type(error).__name__])[0])
