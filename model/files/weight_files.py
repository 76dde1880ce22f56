"""Find and hash the safetensors files of a checkpoint's weights: one file, or shards with an index. Torch-free."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

from safetensors import SafetensorError, safe_open

from medmoe.model.errors import CheckpointError
from medmoe.model.files.bounded_read import read_bounded
from medmoe.model.files.digest import checkpoint_file_sha256
from medmoe.model.files.terminal_safe import listed, terminal_safe

WEIGHTS_FILE = "model.safetensors"
WEIGHTS_INDEX_FILE = "model.safetensors.index.json"
SHARDS_PATTERN = "model-*-of-*.safetensors"
_MOST_SHARDS = 1000


def shard_name(number: int, *, count: int) -> str:
    """Return the file name of shard `number`, from 1 on, of `count` shards."""
    return f"model-{number:05d}-of-{count:05d}.safetensors"


class StoredTensor(NamedTuple):
    """Where and how a tensor is stored. `dtype` is safetensors' name; the offsets count bytes after the header."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    def read(self) -> bytes:
        """Return the stored bytes. Raises OSError."""
        with self.file.open("rb") as file:
            start = 8 + int.from_bytes(file.read(8), "little")
            file.seek(start + self.begin)
            return file.read(self.end - self.begin)


@dataclass(frozen=True)
class WeightFiles:
    """The files that hold the weights of one checkpoint."""

    files: tuple[Path, ...]
    index: Path | None = None
    """The file that names the shards; None where one file holds everything."""
    shard_of: Mapping[str, str] | None = None
    """The index's shard name for each tensor."""

    @classmethod
    def find(cls, directory: Path) -> Self | None:
        """Return the weights' files; None where there are none.

        Raises CheckpointError when there is a whole file beside an index, a malformed index, or a shard is missing.
        """
        whole, index = directory / WEIGHTS_FILE, directory / WEIGHTS_INDEX_FILE
        if not index.exists():
            return cls((whole,)) if whole.exists() else None
        if whole.exists():
            raise CheckpointError(f"{directory} holds both {WEIGHTS_FILE} and {WEIGHTS_INDEX_FILE}; remove one of them")
        shard_of = _read_index(index)
        names = sorted(set(shard_of.values()))
        if missing := [name for name in names if not (directory / name).is_file()]:
            raise CheckpointError(f"{directory} lacks shards that {WEIGHTS_INDEX_FILE} names: {listed(missing)}")
        return cls(tuple(directory / name for name in names), index, shard_of)

    @classmethod
    def of(cls, directory: Path) -> Self:
        """Return the weights' files. Raises CheckpointError as `find` does, and when there are none."""
        found = cls.find(directory)
        if found is None:
            raise CheckpointError(f"{directory} has no {WEIGHTS_FILE}; the checkpoint is incomplete")
        return found

    @property
    def all(self) -> tuple[Path, ...]:
        """Return the files and their index."""
        return self.files if self.index is None else (self.index, *self.files)

    @property
    def nbytes(self) -> int:
        """Return the size of all files. Raises OSError."""
        return sum(path.stat().st_size for path in self.all)

    def sha256(self) -> str:
        """Return the digest that identifies the weights, in hexadecimal. Raises CheckpointError.

        Of one file it is the SHA-256 of that file; of shards the one of what `sha256sum` prints for the index and the
        shards: `sha256sum model.safetensors.index.json model-*-of-*.safetensors | sha256sum`.
        """
        if self.index is None:
            return checkpoint_file_sha256(self.files[0])
        lines = "".join(f"{checkpoint_file_sha256(path)}  {path.name}\n" for path in self.all)
        return hashlib.sha256(lines.encode()).hexdigest()

    def tensors(self) -> dict[str, StoredTensor]:
        """Return every tensor by name, from the headers of the files.

        Raises CheckpointError for a damaged file, or for shards that hold other tensors than the index names.
        """
        found: dict[str, StoredTensor] = {}
        for path in self.files:
            for name, entry in read_header(path).items():
                if name in found:
                    raise CheckpointError(f"{path} and {found[name].file.name} both hold {terminal_safe(name)}")
                begin, end = entry["data_offsets"]
                found[name] = StoredTensor(path, entry["dtype"], tuple(entry["shape"]), begin, end)
        if self.shard_of is not None:
            held = {name: tensor.file.name for name, tensor in found.items()}
            if wrong := sorted(name for name, _ in held.items() ^ self.shard_of.items()):
                raise CheckpointError(f"{self.index} and the shards differ about where they lie: {listed(wrong)}")
        return found


def weights_sha256(directory: Path) -> str:
    """Return the digest of the weights in `directory`, as `WeightFiles.sha256` does. Raises CheckpointError."""
    return WeightFiles.of(directory).sha256()


def read_header(path: Path) -> dict[str, dict[str, Any]]:
    """Return dtype, shape and offsets of every tensor of a file, after the safetensors library has checked it.

    Raises CheckpointError when the file is missing or damaged.
    """
    if not path.is_file():
        raise CheckpointError(f"{path} cannot be read: it is missing or no regular file")
    try:
        with safe_open(path, framework="np"), path.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    except (OSError, SafetensorError) as error:
        raise damaged_weights(path, error) from error
    header.pop("__metadata__", None)
    return dict(header)


def damaged_weights(path: Path, error: Exception) -> CheckpointError:
    """Return the error for a safetensors file that the library refuses with `error`."""
    reason = f"the file is damaged or incomplete ({terminal_safe(str(error))}); copy or download it again"
    return CheckpointError(f"{path} cannot be read as safetensors: {reason}")


def _read_index(path: Path) -> dict[str, str]:
    try:
        shard_of = json.loads(read_bounded(path))["weight_map"]
        names = set(shard_of.values())
        whole = 0 < len(names) <= _MOST_SHARDS and names == {
            shard_name(number, count=len(names)) for number in range(1, len(names) + 1)
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path} is no index of safetensors shards") from error
    if not whole:
        raise CheckpointError(
            f"{path} names other files than {shard_name(1, count=2)}, {shard_name(2, count=2)} and so on"
        )
    return dict(shard_of)
