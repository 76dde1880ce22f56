"""Which files of an upstream directory hold the weights; nothing is opened here but the index.

Everything in such a directory was written by somebody else: names in an index are not followed out of it.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medmoe.model.errors import CheckpointError

MAX_JSON_BYTES = 64 * 2**20
# Left over from training; the first three are pickles, which nothing here ever opens.
_NEVER_OPENED = ("training_args.bin", "optimizer.pt", "scheduler.pt", "mm_projector.bin", "trainer_state.json")


@dataclass(frozen=True)
class WeightFiles:
    """The weights of a directory: their files and, if there is an index, which tensor it says is in which file."""

    files: tuple[Path, ...]
    index: dict[str, str] | None = None
    duplicate: "WeightFiles | None" = None
    """The same weights once more as .bin, which upstream's trainer writes beside the safetensors."""
    ignored: dict[str, str] = field(default_factory=dict)

    @property
    def names(self) -> str:
        return ", ".join(path.name for path in self.files)


def find_weights(directory: Path) -> WeightFiles:
    """Safetensors if there are any, else pytorch .bin; one file, or shards with their index.

    Raises CheckpointError when there are none, when two sets compete, or when the index is not to be trusted.
    """
    if not directory.is_dir():
        raise CheckpointError(f"{directory} is not a directory")
    safe = _find(directory, single="model.safetensors", suffix=".safetensors")
    pickled = _find(directory, single="pytorch_model.bin", suffix=".bin")
    chosen = safe or pickled
    if chosen is None:
        raise CheckpointError(
            f"{directory} holds neither model.safetensors nor pytorch_model.bin (nor an index of shards)"
        )
    ignored = {name: "left over from training; not opened" for name in _NEVER_OPENED if (directory / name).exists()}
    duplicate = pickled if safe else None
    if duplicate:
        ignored |= {path.name: "the same weights as the safetensors, by its name" for path in duplicate.files}
    used = {path.name for path in (*chosen.files, *(duplicate.files if duplicate else ()))}
    for path in sorted(directory.iterdir()):
        if path.suffix in (".safetensors", ".bin", ".pt", ".pth") and path.name not in used | ignored.keys():
            ignored[path.name] = "no index names it; not opened"
    return WeightFiles(chosen.files, chosen.index, duplicate, ignored)


def _find(directory: Path, *, single: str, suffix: str) -> WeightFiles | None:
    index = directory / f"{single}.index.json"
    if index.exists() and (directory / single).exists():
        raise CheckpointError(f"{directory} holds both {single} and {index.name}: remove the one that is not meant")
    if (directory / single).exists():
        return WeightFiles((contained_file(directory, single, named_by="the directory"),))
    if index.exists():
        entries = _read_index(index, suffix=suffix)
        files = tuple(contained_file(directory, name, named_by=index.name) for name in sorted(set(entries.values())))
        return WeightFiles(files, entries)
    stem = single.removesuffix(suffix)
    if shards := sorted(directory.glob(f"{stem}-*-of-*{suffix}")):
        raise CheckpointError(f"{shards[0].name} is one of several shards, but {index.name} is missing")
    return None


def _read_index(index: Path, *, suffix: str) -> dict[str, str]:
    entries = read_json(index).get("weight_map")
    if not isinstance(entries, dict) or not entries:
        raise CheckpointError(f"{index} has no weight_map")
    for tensor, file in entries.items():
        if not isinstance(file, str) or not file.endswith(suffix) or Path(file).name != file or "\\" in file:
            raise CheckpointError(f"{index} puts {tensor} into {file!r}, which is not the name of a {suffix} file")
    return entries


def contained_file(directory: Path, name: str, *, named_by: str) -> Path:
    """The regular file `directory/name`. A link may only stay inside, or lead to a hub cache's own blobs."""
    path = directory / name
    if not path.is_file():
        raise CheckpointError(f"{path} is missing, though {named_by} names it")
    home, real = directory.resolve(), path.resolve()
    blobs = home.parents[1] / "blobs" if home.parent.name == "snapshots" else None
    if real.parent != home and real.parent != blobs:
        raise CheckpointError(f"{path} is a link that leads out of the directory: copy the file there")
    return path


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. Raises CheckpointError when the file is missing, huge, malformed, or not an object."""
    try:
        if path.stat().st_size > MAX_JSON_BYTES or (path.exists() and not path.is_file()):
            raise CheckpointError(f"{path} is too large, or no file")
        value = json.loads(path.read_bytes())
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not JSON") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} holds a JSON {type(value).__name__}, not an object")
    return value
