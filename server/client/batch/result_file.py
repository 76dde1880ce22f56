"""Write the output of a batch, which a later run can continue."""

import fcntl
import os
import stat
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from medmoe.client.batch.result_format import ResultFormat, Written, format_of
from medmoe.client.batch.result_line import Line
from medmoe.client.errors import InvalidInput


@dataclass(frozen=True, kw_only=True, slots=True)
class _Place:
    start: int
    length: int
    failed: bool
    image_sha256: str | None


class ResultFile:
    """Hold one line for each task; `done` has the keys of the lines."""

    def __init__(self, path: Path) -> None:
        """Open the file, read its lines and cut off an unfinished last line.

        Raises ValueError for a suffix other than .jsonl and .csv; InvalidInput when the file cannot be opened, holds
        something else, or is being written by another process.
        """
        self._format: ResultFormat = format_of(path)
        self._path = path
        self._places: dict[str, _Place] = {}
        try:
            self._file: BinaryIO = path.open("a+b", buffering=0)
        except OSError as error:
            raise self._unwritten(error) from error
        # Rewriting must replace the target of a link, not the link.
        self._path = path.resolve()
        try:
            _lock(self._file, path)
            self._read()
        except OSError as error:
            self._file.close()
            raise self._unwritten(error) from error
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    @property
    def done(self) -> Collection[str]:
        """Return the keys of all lines."""
        return self._places.keys()

    @property
    def failed(self) -> frozenset[str]:
        """Return the keys of the lines with errors."""
        return frozenset(key for key, place in self._places.items() if place.failed)

    @property
    def images(self) -> dict[str, str]:
        """Return the SHA-256 of the image that was answered, by key."""
        return {key: place.image_sha256 for key, place in self._places.items() if place.image_sha256 is not None}

    def append(self, line: Line) -> None:
        """Append a line. Raises InvalidInput when it cannot be written, for example to a full disk."""
        data = self._format.encode(line)
        start = self._file.seek(0, os.SEEK_END)
        try:
            rest = memoryview(data)
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:
            raise self._unwritten(error) from error
        written = self._format.decode(data)
        self._places[written.key] = _place(written, start=start, length=len(data))

    def drop(self, keys: Collection[str]) -> None:
        """Remove lines."""
        if keys:
            self._rewrite([key for key in self._places if key not in keys])

    def arrange(self, order: Sequence[str]) -> None:
        """Sort the lines into `order`, after the lines of other inputs."""
        wanted = set(order)
        arranged = [key for key in self._places if key not in wanted]
        arranged += [key for key in order if key in self._places]
        if arranged != list(self._places):
            self._rewrite(arranged)

    def _read(self) -> None:
        position = 0
        for number, line in enumerate(self._lines(), start=1):
            is_header = number == 1 and self._format.header != b""
            if not line.endswith(b"\n"):
                # Only an unfinished line of a batch may be cut off.
                beginning = self._format.header if is_header else self._format.start
                if not (line.startswith(beginning) or beginning.startswith(line)):
                    raise self._foreign(number)
                self._file.truncate(position)
                break
            if not is_header:
                written = self._decoded(line, number)
                if written.key in self._places:
                    raise self._foreign(number)
                self._places[written.key] = _place(written, start=position, length=len(line))
            elif line != self._format.header:
                raise self._foreign(number)
            position += len(line)
        if position == 0:
            self._file.write(self._format.header)

    def _lines(self) -> Iterator[bytes]:
        with self._path.open("rb") as file:
            yield from file

    def _decoded(self, line: bytes, number: int) -> Written:
        try:
            return self._format.decode(line)
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            raise self._foreign(number) from error

    def _unwritten(self, error: OSError) -> InvalidInput:
        return InvalidInput(f"{self._path} cannot be written: {error.strerror}")

    def _foreign(self, number: int) -> InvalidInput:
        return InvalidInput(
            f"line {number} of {self._path} is not what a batch writes, or comes twice; name another file"
        )

    def _rewrite(self, keys: Sequence[str]) -> None:
        """Write a new file and replace the old one atomically."""
        staging = self._path.with_name(f".{self._path.name}.new")
        places = {}
        try:
            with self._path.open("rb") as old, staging.open("wb") as new:
                os.fchmod(new.fileno(), stat.S_IMODE(os.fstat(old.fileno()).st_mode))
                position = new.write(self._format.header)
                for key in keys:
                    place = self._places[key]
                    old.seek(place.start)
                    new.write(old.read(place.length))
                    places[key] = replace(place, start=position)
                    position += place.length
                new.flush()
                os.fsync(new.fileno())
            replaced = staging.open("a+b", buffering=0)
            # Lock it before it gets its final name.
            _lock(replaced, self._path)
            os.replace(staging, self._path)
        except OSError as error:
            raise self._unwritten(error) from error
        self._file.close()
        self._file, self._places = replaced, places


def _place(written: Written, *, start: int, length: int) -> _Place:
    return _Place(start=start, length=length, failed=written.failed, image_sha256=written.image_sha256)


def _lock(file: BinaryIO, path: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise InvalidInput(f"{path} is being written by another process") from error
