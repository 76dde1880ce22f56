"""Remember, in an append-only file without UIDs, which images have been asked about."""

import fcntl
import hmac
import json
import os
import secrets
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self

from medmoe.client.errors import InvalidInput

_FORMAT = "medmoe watch 1"
_START = b'{"format": "medmoe watch'


class State:
    """Hold a set of keys: each is an HMAC-SHA256 of UIDs and of the request, with a secret of this file."""

    def __init__(self, path: Path, *, dry_run: bool = False) -> None:
        """Open or create the file, and cut off an unfinished last line; with `dry_run` only read it.

        Raises InvalidInput when the file cannot be opened, holds something else, or another process has it.
        """
        self._path = path
        self._keys: set[str] = set()
        self._secret = secrets.token_bytes(32)
        self._file: BinaryIO | None = None
        try:
            if dry_run:
                self._read(path.read_bytes() if path.exists() else b"")
                return
            self._file = os.fdopen(os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600), "a+b", buffering=0)
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._file.truncate(self._read(path.read_bytes()))
            if not os.fstat(self._file.fileno()).st_size:
                self._append({"format": _FORMAT, "secret": self._secret.hex()})
        except BlockingIOError as error:
            self.close()
            raise InvalidInput(f"{path} is in use by another watch") from error
        except OSError as error:
            self.close()
            raise InvalidInput(f"{path} cannot be opened: {error.strerror}") from error
        except InvalidInput:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __contains__(self, key: str) -> bool:
        return key in self._keys

    def key(self, *parts: Any) -> str:
        """Return the key of UIDs and settings, which are serialized as JSON."""
        return hmac.digest(self._secret, json.dumps(parts, sort_keys=True, default=str).encode(), "sha256").hex()

    def add(self, key: str, outcome: str) -> None:
        """Append a key with a word for people. Raises InvalidInput when it cannot be written, or in a dry run."""
        if self._file is None:
            raise InvalidInput(f"{self._path} is open for reading alone")
        try:
            self._append({"key": key, "outcome": outcome})
        except OSError as error:
            raise InvalidInput(f"{self._path} cannot be written: {error.strerror}") from error
        self._keys.add(key)

    def close(self) -> None:
        """Close the file and release it to other processes."""
        if self._file is not None:
            self._file.close()

    def _append(self, record: dict[str, str]) -> None:
        assert self._file is not None
        rest = memoryview(json.dumps(record).encode() + b"\n")
        while rest:
            rest = rest[self._file.write(rest) :]

    def _read(self, data: bytes) -> int:
        """Read the complete lines, and return their length in bytes."""
        complete = data[: data.rfind(b"\n") + 1]
        if not complete and not (data.startswith(_START) or _START.startswith(data)):
            raise self._foreign(1)
        for number, line in enumerate(complete.splitlines(), start=1):
            try:
                record = json.loads(line)
                if number == 1:
                    if record["format"] != _FORMAT:
                        raise self._foreign(number)
                    self._secret = bytes.fromhex(record["secret"])
                else:
                    self._keys.add(record["key"])
            except (ValueError, LookupError, TypeError, RecursionError) as error:
                raise self._foreign(number) from error
        return len(complete)

    def _foreign(self, number: int) -> InvalidInput:
        return InvalidInput(f"line {number} of {self._path} is not what a watch writes; name another file with --state")
