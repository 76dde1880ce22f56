"""List the files of a checkpoint directory with sizes and digests, and compare a directory with such a list."""

import hashlib
import json
import os
import stat
from pathlib import Path
from typing import Any, TypedDict

from medmoe.model.errors import CheckpointError
from medmoe.model.files.terminal_safe import terminal_safe

LIST_FILE = "signed_files.json"
SIGNATURE_FILE = "signed_files.sig"
_FORMAT = "medmoe-signed-files-1"
_MOST_FILES = 10_000


class SignedFile(TypedDict):
    """One file of the list: its path below the directory with `/`, its size in bytes and its SHA-256 in hexadecimal."""

    path: str
    size: int
    sha256: str


def list_files(directory: Path) -> bytes:
    """Return the list of all files of `directory` as JSON, the same bytes for the same files.

    Raises CheckpointError for a link, a special file or no file at all, OSError.
    """
    files = [_describe(directory, path, size) for path, size in sorted(_sizes(directory).items())]
    if not files:
        raise CheckpointError(f"{directory} holds no file to sign")
    return json.dumps({"format": _FORMAT, "files": files}, indent=1).encode() + b"\n"


def check_files(directory: Path, listed: bytes) -> int:
    """Compare `directory` with a list whose signature was verified; return the number of files.

    Raises CheckpointError for a file that is changed, missing, not listed, a link or no regular file, OSError.
    """
    expected = _parse(listed)
    present = _sizes(directory)
    if extra := sorted(present.keys() - expected.keys()):
        raise CheckpointError(f"{directory} holds {terminal_safe(extra[0])}, which was not signed")
    if missing := sorted(expected.keys() - present.keys()):
        raise CheckpointError(f"{directory} lacks {terminal_safe(missing[0])}, which was signed")
    for path, file in sorted(expected.items()):
        if present[path] != file["size"] or _describe(directory, path, file["size"]) != file:
            raise CheckpointError(f"{directory}: {terminal_safe(path)} is not the file that was signed")
    return len(expected)


def _parse(listed: bytes) -> dict[str, SignedFile]:
    found: dict[str, Any] = json.loads(listed)
    if found.get("format") != _FORMAT:
        raise CheckpointError(f"{LIST_FILE} has another format than {_FORMAT}: a newer version signed it")
    return {file["path"]: file for file in found["files"]}


def _sizes(directory: Path) -> dict[str, int]:
    """Return the size of every file but the list and its signature, by path."""
    found: dict[str, int] = {}
    folders = [""]
    seen = 0
    while folders:
        below = folders.pop()
        with os.scandir(directory / below) as entries:
            for entry in entries:
                seen += 1
                if seen > _MOST_FILES:
                    raise CheckpointError(f"{directory} holds more than {_MOST_FILES} files")
                path = f"{below}{entry.name}"
                kind = entry.stat(follow_symlinks=False)
                if stat.S_ISDIR(kind.st_mode):
                    folders.append(f"{path}/")
                elif not stat.S_ISREG(kind.st_mode):
                    what = "a link" if stat.S_ISLNK(kind.st_mode) else "no regular file"
                    problem = f"{terminal_safe(path)} is {what}; only regular files are signed"
                    raise CheckpointError(f"{directory}: {problem}")
                elif path not in (LIST_FILE, SIGNATURE_FILE):
                    found[path] = kind.st_size
    return found


def _describe(directory: Path, path: str, size: int) -> SignedFile:
    # A file that became a link or a pipe since it was listed is not opened.
    descriptor = os.open(directory / path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        return SignedFile(path=path, size=size, sha256=hashlib.file_digest(file, "sha256").hexdigest())
