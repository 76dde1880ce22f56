"""Reading the small files beside the weights: whole, but never without end. Torch-free.

A checkpoint directory comes from somebody else. A name in it may be a pipe that nobody writes to, a device, or a file
of many gigabytes; none of them may hold a process or fill its memory.
"""

import os
import stat
from pathlib import Path

from medmoe.model.errors import CheckpointError

MAX_BYTES = 64 * 2**20
"""More than any configuration, tokenizer or card has; less than what would hurt."""


def read_bounded(path: Path, *, limit: int = MAX_BYTES) -> bytes:
    """The whole content. Raises CheckpointError when it is no regular file or larger than `limit`, OSError as open."""
    # Without O_NONBLOCK, opening a pipe waits for a writer.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise CheckpointError(f"{path} is not a regular file")
        content = file.read(limit + 1)
    if len(content) > limit:
        raise CheckpointError(f"{path} is larger than {limit} bytes, which no such file needs")
    return content
