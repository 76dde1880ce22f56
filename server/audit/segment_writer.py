"""Append records to the segments of an audit trail. Blocks; one thread at a time writes."""

import fcntl
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medmoe.model.errors import ConfigError
from medmoe.server.audit.chain import encode
from medmoe.server.audit.errors import AuditError
from medmoe.server.audit.segments import find_end, segment_path

_LOCK_FILE = "lock"
_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW

Fields = Mapping[str, Any]


class WriteFailed(Exception):
    """Some records could not be written, or not be synced; the cause tells why."""

    def __init__(self, written: int) -> None:
        """Pass the number of records that the file has; none of them may be on the disk."""
        super().__init__()
        self.written = written


class SegmentWriter:
    """Writes one trail. A failed write ends its segment; the next one marks what is left of it and goes on."""

    def __init__(self, directory: Path, *, key: bytes, segment_bytes: int, fsync: bool) -> None:
        """Lock the trail; `fsync` makes `append` wait for the disk. Raises ConfigError, AuditError."""
        self._directory = directory
        self._key = key
        self._segment_bytes = segment_bytes
        self.fsync = fsync
        self._descriptor: int | None = None
        self._number = self._size = 0
        self._unsynced = False
        self._lock: int | None = None
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = os.open(directory / _LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._position = find_end(directory, key=key).position
        except BlockingIOError as error:
            self._unlock()
            raise ConfigError(f"MEDMOE_AUDIT_DIR: another process writes the audit trail in {directory}") from error
        except OSError as error:
            self._unlock()
            raise ConfigError(
                f"MEDMOE_AUDIT_DIR: the audit trail in {directory} cannot be opened: {error.strerror}"
            ) from error
        except AuditError:
            self._unlock()
            raise

    def append(self, records: Sequence[Fields], *, opening: Fields) -> None:
        """Write records; after a start or a failure `opening` comes first. Raises WriteFailed."""
        written = 0
        try:
            if self._descriptor is None:
                self._continue(opening)
            for fields in records:
                self._write(fields)
                written += 1
            if self.fsync:
                self.sync()
        except (OSError, AuditError) as error:
            self._close_segment()
            raise WriteFailed(written) from error

    @property
    def head(self) -> str:
        """Return the hash of the last record."""
        return self._position.head

    def sync(self) -> None:
        """Wait until the disk has what was written. Raises OSError."""
        if self._descriptor is None or not self._unsynced:
            return
        self._unsynced = False
        os.fsync(self._descriptor)

    def close(self) -> None:
        """Sync and unlock the trail."""
        try:
            self.sync()
        finally:
            self._close_segment()
            self._unlock()

    def _continue(self, fields: Fields) -> None:
        """Open a segment where the trail ends, and write its opening record."""
        end = find_end(self._directory, key=self._key)
        self._position = end.position
        self._open(end.next_segment)
        self._write({**fields, "torn": list(end.torn)} if end.torn else fields)

    def _write(self, fields: Fields) -> None:
        line, after = encode(fields, self._position, key=self._key)
        if self._size and self._size + len(line) > self._segment_bytes:
            self._open(self._number + 1)
        assert self._descriptor is not None
        self._unsynced = True
        rest = memoryview(line)
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]
        self._size += len(line)
        self._position = after

    def _open(self, number: int) -> None:
        self.sync()
        self._close_segment()
        self._descriptor = os.open(segment_path(self._directory, number), _FLAGS, 0o600)
        self._number, self._size = number, 0
        folder = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _close_segment(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
