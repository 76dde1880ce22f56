"""Read small files of a checkpoint directory or of the operator with a limit on their size. Torch-free.

A checkpoint directory is untrusted: a file in it may be a pipe without a writer, a device, or many gigabytes. None of
them may block a process or fill its memory.
"""

import os
import stat
from pathlib import Path

from medmoe.model.errors import CheckpointError, ConfigError

MAX_BYTES = 64 * 2**20
"""Larger than any configuration, tokenizer or model card."""


def read_published(directory: Path, name: str) -> bytes:
    """Return a file of a checkpoint directory that is shown to clients. Raises what `read_bounded` raises.

    A link must lead to a file of the directory, or to the `blobs` of a Hugging Face cache: any other may lead to a
    secret of this machine. Raises CheckpointError.
    """
    target = (directory / name).resolve()
    whole = directory.resolve()
    allowed = whole, whole.parent.parent / "blobs"
    if not any(target.is_relative_to(root) for root in allowed):
        raise CheckpointError(f"{directory / name} is a link that leads out of the checkpoint")
    return read_bounded(target)


def read_bounded(path: Path, *, limit: int = MAX_BYTES) -> bytes:
    """Return the whole content. Raises CheckpointError for no regular file or more than `limit` bytes, and OSError."""
    # Without O_NONBLOCK, opening a pipe waits for a writer.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise CheckpointError(f"{path} is not a regular file")
        content = file.read(limit + 1)
    if len(content) > limit:
        raise CheckpointError(f"{path} is larger than {limit} bytes, which no such file needs")
    return content


def read_configured(path: Path, *, name: str, limit: int) -> bytes:
    """Return the whole content of an operator's file. Raises ConfigError, whose message begins with `name`."""
    return _read_named(path, shown=f"{name} {path}", limit=limit)


def read_secret(path: Path, *, name: str, limit: int) -> bytes:
    """Return the whole content of a file with a secret. Raises ConfigError, whose message begins with `name`.

    The message leaves the path out: it may be the secret itself, given in the place of its file.
    """
    return _read_named(path, shown=name, limit=limit)


def _read_named(path: Path, *, shown: str, limit: int) -> bytes:
    try:
        return read_bounded(path, limit=limit)
    except CheckpointError as error:
        raise ConfigError(f"{shown} cannot be read: no regular file of at most {limit} bytes") from error
    except OSError as error:
        raise ConfigError(f"{shown} cannot be read: {error.strerror}") from error
