"""Find the weight files of an upstream directory; only the index is opened.

A directory's files are not trusted: names in an index are not followed out of it.
"""

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medmoe.model.errors import CheckpointError
from medmoe.model.files.bounded_read import MAX_BYTES, read_bounded
from medmoe.model.files.terminal_safe import terminal_safe

LFS_POINTER = b"version https://git-lfs"
"""How a file begins that git left behind in place of a large one."""
_SHARD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}")
# Left over from training; the first three are pickles, which nothing here ever opens.
_NEVER_OPENED = ("training_args.bin", "optimizer.pt", "scheduler.pt", "mm_projector.bin", "trainer_state.json")


_DUPLICATE = re.compile(r"pytorch_model(-\d+-of-\d+)?\.bin")
_UNNAMED = "no index names it; not opened"


@dataclass(frozen=True)
class SourceWeights:
    """Hold the weight files of an upstream directory and, where there is an index, the file of each tensor."""

    files: tuple[Path, ...]
    index: dict[str, str] | None = None
    duplicate: "SourceWeights | None" = None
    """The .bin files with the same weights, which upstream's trainer writes beside the safetensors; for `verify`."""
    ignored: dict[str, str] = field(default_factory=dict)

    @property
    def names(self) -> str:
        return ", ".join(path.name for path in self.files)


def find_weights(directory: Path, *, verify: bool = False) -> SourceWeights:
    """Find the weight files: safetensors if there are any, else pytorch .bin; one file, or shards with their index.

    With `verify` the .bin beside safetensors are found too; otherwise nothing of theirs is looked at. Raises
    CheckpointError when there are none, when two sets compete, or when the index is not to be trusted.
    """
    try:
        if not directory.is_dir():
            raise CheckpointError(f"{directory} is not a directory")
        return _choose(directory, verify=verify)
    except OSError as error:
        raise CheckpointError(f"{directory} cannot be read: {error.strerror or error}") from error


def _choose(directory: Path, *, verify: bool) -> SourceWeights:
    safe = _find(directory, single="model.safetensors", suffix=".safetensors")
    pickled = _find(directory, single="pytorch_model.bin", suffix=".bin") if verify or safe is None else None
    chosen = safe or pickled
    if chosen is None:
        raise CheckpointError(
            f"{directory} holds neither model.safetensors nor pytorch_model.bin (nor an index of shards)"
        )
    ignored = {name: "left over from training; not opened" for name in _NEVER_OPENED if (directory / name).exists()}
    duplicate = pickled if safe else None
    used = {path.name for path in chosen.files}
    for path in sorted(directory.iterdir()):
        if path.suffix not in (".safetensors", ".bin", ".pt", ".pth") or path.name in used | ignored.keys():
            continue
        same = safe is not None and _DUPLICATE.fullmatch(path.name)
        ignored[path.name] = "the same weights as the safetensors, by its name" if same else _UNNAMED
    return SourceWeights(chosen.files, chosen.index, duplicate, ignored)


def _find(directory: Path, *, single: str, suffix: str) -> SourceWeights | None:
    index = directory / f"{single}.index.json"
    if index.exists() and (directory / single).exists():
        raise CheckpointError(f"{directory} holds both {single} and {index.name}: remove the one that is not meant")
    if (directory / single).exists():
        return SourceWeights((contained_file(directory, single),))
    if index.exists():
        entries = _read_index(index, suffix=suffix)
        files = tuple(contained_file(directory, name, named_by=index.name) for name in sorted(set(entries.values())))
        return SourceWeights(files, entries)
    stem = single.removesuffix(suffix)
    if shards := sorted(directory.glob(f"{stem}-*-of-*{suffix}")):
        raise CheckpointError(f"{shards[0].name} is one of several shards, but {index.name} is missing")
    return None


def _read_index(index: Path, *, suffix: str) -> dict[str, str]:
    entries = read_json(index.parent, index.name).get("weight_map")
    if not isinstance(entries, dict) or not entries:
        raise CheckpointError(f"{index} has no weight_map")
    for tensor, file in entries.items():
        if not isinstance(file, str) or not file.endswith(suffix) or not _SHARD.fullmatch(file):
            raise CheckpointError(
                f"{index} puts {terminal_safe(tensor)} into {terminal_safe(repr(file))}, "
                f"which is not the name of a {suffix} file"
            )
    return entries


def contained_file(directory: Path, name: str, *, named_by: str | None = None) -> Path:
    """Return the regular file `directory/name`. A link may only stay inside, or lead to a hub cache's own blobs."""
    path = directory / name
    if not path.is_file():
        what = "is no regular file" if path.exists() else "is missing"
        raise CheckpointError(f"{path} {what}" + (f", though {named_by} names it" if named_by else ""))
    home, real = directory.resolve(), path.resolve()
    blobs = home.parents[1] / "blobs" if home.parent.name == "snapshots" else None
    if real.parent != home and real.parent != blobs:
        raise CheckpointError(f"{path} is a link that leads out of the directory: copy the file there")
    return path


def read_contained(directory: Path, name: str, *, limit: int = MAX_BYTES) -> bytes:
    """Return a small file's content. Raises CheckpointError as `contained_file` does, and when it cannot be read."""
    try:
        content = read_bounded(contained_file(directory, name), limit=limit)
    except OSError as error:
        raise CheckpointError(f"{directory / name} cannot be read: {error.strerror}") from error
    if content.startswith(LFS_POINTER):
        raise CheckpointError(f"{directory / name} is a git-LFS pointer, not the file: fetch it with `git lfs pull`")
    return content


def read_json(directory: Path, name: str) -> dict[str, Any]:
    """Return a JSON object. Raises CheckpointError when the file is missing, huge, malformed, or not an object."""
    path = directory / name
    try:
        value = json.loads(read_contained(directory, name))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not JSON: {terminal_safe(str(error))}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} holds a JSON {type(value).__name__}, not an object")
    return value
