"""Append the results of a batch to its output and error files, each custom_id once whatever happens."""

import os
import threading
from pathlib import Path
from typing import Self

from pydantic_core import from_json

from medmoe.server.batches.errors import StorageUnavailable
from medmoe.server.batches.storage import write, written

_FLAGS = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW


class DamagedResults(Exception):
    """A result file has a line that the service did not write."""


class _ResultFile:
    """Lines of JSON at the end of a file, each on the disk before the next."""

    def __init__(self, path: Path) -> None:
        """Read the lines and cut off an unfinished last one. Raises DamagedResults, OSError."""
        self.found: list[str] = []
        """The custom_id of each line."""
        self._size = 0
        self._descriptor = os.open(path, _FLAGS, 0o600)
        try:
            with path.open("rb") as file:
                for line in file:
                    if not line.endswith(b"\n"):
                        break
                    self.found.append(_custom_id(line))
                    self._size += len(line)
            os.ftruncate(self._descriptor, self._size)
            # What a killed process wrote may not have reached the disk.
            os.fsync(self._descriptor)
        except BaseException:
            os.close(self._descriptor)
            raise

    def append(self, line: bytes) -> None:
        """Append a line and wait for the disk. Raises OSError; then the file ends as before."""
        try:
            # Nothing, unless an earlier failure could not be undone.
            os.ftruncate(self._descriptor, self._size)
            write(self._descriptor, line)
            os.fsync(self._descriptor)
        except OSError:
            os.ftruncate(self._descriptor, self._size)
            raise
        self._size += len(line)

    def close(self) -> None:
        os.close(self._descriptor)


class ResultLog:
    """The two result files of one batch. Blocks; its methods may be called from several threads."""

    def __init__(self, output: Path, errors: Path) -> None:
        """Open or make the files. Raises DamagedResults, StorageUnavailable."""
        self._lock = threading.Lock()
        self._closed = False
        with written():
            self._output = _ResultFile(output)
            try:
                self._errors = _ResultFile(errors)
            except BaseException:
                self._output.close()
                raise
        self.completed, self.failed = len(self._output.found), len(self._errors.found)
        self.done = {*self._output.found, *self._errors.found}
        """The custom_id of every line that has a result."""
        if len(self.done) != self.completed + self.failed:
            self.close()
            raise DamagedResults

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def append(self, custom_id: str, line: bytes, *, failed: bool) -> None:
        """Append the result of `custom_id`, unless it has one. Raises StorageUnavailable; then nothing has changed."""
        with self._lock:
            if custom_id in self.done:
                return
            if self._closed:
                raise StorageUnavailable
            with written():
                (self._errors if failed else self._output).append(line)
            self.done.add(custom_id)
            self.failed += failed
            self.completed += not failed

    def close(self) -> None:
        """Wait for an append that is under way, and close the files."""
        with self._lock:
            if not self._closed:
                self._closed = True
                self._output.close()
                self._errors.close()


def _custom_id(line: bytes) -> str:
    try:
        custom_id = from_json(line)["custom_id"]
    except (ValueError, TypeError, LookupError) as error:
        raise DamagedResults from error
    if not isinstance(custom_id, str):
        raise DamagedResults
    return custom_id
