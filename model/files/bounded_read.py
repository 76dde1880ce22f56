"""Read the small files of a checkpoint directory with a limit on their size. Torch-free.

A checkpoint directory is untrusted: a file in it may be a pipe without a writer, a device, or many gigabytes. None of
them may block a process or fill its memory.
"""

import os
import stat
from pathlib import Path

from medmoe.model.errors import CheckpointError

MAX_BYTES = 64 * 2**20
"""Larger than any configuration, tokenizer or model card."""


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
